"""A part of a real piece written anew, given the others: how well it fits them, beside the part that was taken away.

    python benchmarks/accompany.py score --corpus CORPUS -n 40
    python benchmarks/accompany.py score --corpus CORPUS --quick --json

MODEL is an infilling model: a bundled name, a checkpoint file or a run folder. Each task is 16 bars of a piece of the corpus,
bars 9 to 24 or, of a shorter piece, the first 16, out of which one part is taken that has at least 16 notes there, as have the
pitched others together. The model writes it anew as `musiclm generate --keep-tracks` does, with its own defaults and one seed;
--option sets others. In turn, as long as there are pieces, by the hashes of their names, each piece once:

    song   the piano under a voice (style lied)
    pop    the piano under the other tracks of a pop song (pop-piano)
    bass   programs 32 to 39, else the part with the lowest mean pitch (band, orchestra)
    part   another part than that, drawn by the hash (orchestra)

Styles are those that the corpus stores; the model is not told. All pieces have gone through the corpus's tokenizer.

The measures, of a part against the kept pitched notes:

    consonance      the share of simultaneous pairs (one note of the part, one kept) that are a third, fourth, fifth or sixth
                    with octaves folded, weighted by how long they sound together; octaves and unisons count neither way
    counted pairs   the same, each pair once, if it sounds for more than 0.05 quarters
    clash           the share of semitones, of the same pairs, weighted likewise
    density         notes / notes of the real part
    together        the share of the part's onsets, in twelfths of a quarter, at which a kept note or drum begins

Random pitch classes would have a consonance of 6/11 = .545. "real" is the part that was taken away. "shifted" is the same two
bars late, by the length of the first two, its end at the beginning. ± is one standard error over tasks; differences are paired.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ensembles
import music
import numpy as np
import torch
from symusic import Score

from musiclm import midi
from musiclm.data import Corpus, open_source
from musiclm.errors import MusicLMError
from musiclm.evaluation.music_metrics import ONSETS
from musiclm.generation import infill
from musiclm.generation.composer import Composer
from musiclm.generation.config import GenerationConfig

BARS, FIRST, LATE = 16, 8, 2  # bars of a task; before it; by which the real part is shifted
LEAST = 16  # notes of the part, and of the kept pitched ones together
PIANO, BASS = range(8), range(32, 40)
CONSONANT, DOUBLING, SEMITONE = (3, 4, 5, 7, 8, 9), 0, (1, 11)  # semitones from the lower or the upper, octaves folded
BRIEF = 0.05  # quarters: notes that barely overlap are legato
DENSITY = (0.5, 1.5)
STYLES = {"song": ("lied",), "pop": ("pop-piano",), "bass": ("band", "orchestra"), "part": ("orchestra",)}
MEASURES = ("consonance", "counted_pairs", "clash", "density", "together")
QUICK = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """An excerpt and the part of it that is written anew.

    Attributes:
        kind: of `STYLES`.
        name: of the piece.
        score: the whole excerpt.
        part: index of the track.
    """

    kind: str
    name: str
    score: Score
    part: int

    @property
    def kept(self) -> list[int]:
        """The indices of the other tracks that have notes."""
        return [i for i, track in enumerate(self.score.tracks) if len(track.notes) and i != self.part]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--corpus", required=True, help="of scores with styles")
    parser.add_argument("--split", default="test", choices=["train", "validation", "test", "all"], help="of it (test)")
    parser.add_argument("-n", type=int, default=40, help="tasks (40)")
    parser.add_argument("--seed", type=int, default=1, help="of each task (1)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (1)")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="for sampling; repeatable")
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="write originals and results as MIDI files")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} tasks")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output, task by task")
    a = parser.parse_args()
    try:
        report = measured(a)
    except (MusicLMError, ValueError) as error:
        parser.exit(1, f"Error: {error}\n")
    print(json.dumps(report) if a.json else as_text(report))


def measured(a: argparse.Namespace) -> dict[str, Any]:
    """Return the document of --json."""
    torch.set_num_threads(a.threads)
    composer, options = Composer.load(a.model), music.options_of(a.option)
    corpus = open_source(a.corpus)
    found = tasks(corpus, a.split, min(a.n, QUICK) if a.quick else a.n)
    if not found:
        raise ValueError(f"no piece in {a.corpus} makes a task: its pieces need styles, and several parts")
    rows = []
    for number, task in enumerate(found):
        new = written(composer, task, options, a.seed)
        rows.append(compared(task, new))
        music.progress(number + 1, len(found))
        if a.save:
            a.save.mkdir(parents=True, exist_ok=True)
            for which, score in (("real", task.score), ("new", new)):
                (a.save / f"{number:03}-{task.kind}-{which}.mid").write_bytes(midi.to_bytes(score))
    report = {"model": a.model, "corpus": a.corpus, "split": a.split, "seed": a.seed, "options": options}
    return report | summary(rows) | {"tasks": rows}


def tasks(corpus: Corpus, split: str, number: int) -> list[Task]:
    """Return so many tasks, in turn of each kind; fewer if there are no more."""
    waiting: dict[str, list[tuple[str, Score]]] = {kind: [] for kind in STYLES}
    for name, score in ensembles.by_hash(corpus, split):
        for kind in STYLES:
            if ensembles.style_of(score) in STYLES[kind]:
                waiting[kind].append((name, score))
    used: set[str] = set()
    found: list[Task] = []
    streams = {kind: _tasks_of(kind, pieces, used) for kind, pieces in waiting.items()}
    while streams and len(found) < number:
        for kind in list(streams):
            task = next(streams[kind], None)
            if task is None:
                del streams[kind]
            elif len(found) < number:
                found.append(task)
    return found


def _tasks_of(kind: str, pieces: Sequence[tuple[str, Score]], used: set[str]) -> Iterator[Task]:
    for name, score in pieces:
        part = excerpt = None
        if name not in used and (excerpt := excerpt_of(score)) is not None:
            part = part_of(kind, name, excerpt)
        if excerpt is not None and part is not None:
            used.add(name)
            yield Task(kind=kind, name=name, score=excerpt, part=part)


def excerpt_of(score: Score) -> Score | None:
    """Return bars 9 to 24 of a score, or the first 16, without markers; None if it is shorter."""
    num_bars = midi.num_bars(score)
    if num_bars < BARS:
        return None
    return ensembles.plain(music.following(score, FIRST if num_bars >= FIRST + BARS else 0, BARS))


def part_of(kind: str, name: str, score: Score) -> int | None:
    """Return the index of the track that is written anew, None if the score has none for this kind of task."""
    pitched = [i for i, track in enumerate(score.tracks) if len(track.notes) and not track.is_drum]
    if len(pitched) < 2:
        return None
    if kind in ("song", "pop"):
        chosen = [i for i in pitched if score.tracks[i].program in PIANO]
    else:
        mean = {i: float(np.mean([n.pitch for n in score.tracks[i].notes])) for i in pitched}
        lowest = min(pitched, key=lambda i: mean[i])
        basses = [i for i in pitched if score.tracks[i].program in BASS] or [lowest]
        chosen = basses if kind == "bass" else [i for i in pitched if i not in basses]
    notes = {i: len(score.tracks[i].notes) for i in pitched}
    chosen = [i for i in chosen if notes[i] >= LEAST and sum(notes.values()) - notes[i] >= LEAST]
    if not chosen:
        return None
    if kind == "part":
        return chosen[int(music.by_hash(name), 16) % len(chosen)]
    return max(chosen, key=lambda i: notes[i])


def written(composer: Composer, task: Task, options: dict[str, Any], seed: int) -> Score:
    """Return the excerpt with its part written anew, as `musiclm generate --keep-tracks` writes it."""
    names = ",".join(str(i + 1) for i in task.kept)
    config = GenerationConfig.from_options(**options, keep_tracks=names)
    config = composer.completed(config, composer.prompt(task.score))
    return infill.fill(composer, task.score, config, seed)[0].score


def compared(task: Task, new: Score) -> dict[str, Any]:
    """Return the measures of the new, the real and the shifted part, and whether the new one is well among them."""
    kept, real = notes_of(task.score, task.kept), notes_of(task.score, [task.part])
    others = [i for i, track in enumerate(new.tracks) if i not in task.kept and not track.is_drum]
    drums = [i for i in task.kept if task.score.tracks[i].is_drum]
    pitched = notes_of(task.score, [i for i in task.kept if i not in drums])
    end = midi.bar_line(task.score, 0.0, BARS)
    parts = {
        "new": notes_of(new, others),
        "real": real,
        "shifted": shifted(real, midi.bar_line(task.score, 0.0, LATE), end),
    }
    row: dict[str, Any] = {"kind": task.kind, "name": task.name, "program": task.score.tracks[task.part].program}
    for which, part in parts.items():
        values = harmony(part, pitched) | {"density": len(part) / len(real), "together": together(part, kept)}
        row[which] = {name: values[name] for name in MEASURES}
    shifted_real = row["shifted"]["consonance"]
    found = row["new"]["consonance"]
    row["above_shifted"] = found is not None and (shifted_real is None or found > shifted_real)
    row["density_within"] = DENSITY[0] <= row["new"]["density"] <= DENSITY[1]
    return row


def notes_of(score: Score, tracks: Sequence[int]) -> np.ndarray:
    """Return the notes of tracks as (N, 3): start, end, in quarters, and pitch."""
    tpq = score.ticks_per_quarter
    rows = [(n.time / tpq, n.end / tpq, n.pitch) for i in tracks for n in score.tracks[i].notes]
    return np.array(rows, np.float64).reshape(-1, 3)


def shifted(notes: np.ndarray, late: float, end: float) -> np.ndarray:
    """Return notes, (N, 3), so many quarters later, cut at `end`; what would begin there or after it begins at 0."""
    moved = notes.copy()
    moved[:, 0] = (notes[:, 0] + late) % end
    moved[:, 1] = np.minimum(moved[:, 0] + notes[:, 1] - notes[:, 0], end)
    return moved


def harmony(part: np.ndarray, kept: np.ndarray) -> dict[str, float | None]:
    """Return consonance, also by pairs, and clashes of notes, (N, 3), with kept pitched ones, (M, 3); None without a pair."""
    both = np.minimum(part[:, None, 1], kept[None, :, 1]) - np.maximum(part[:, None, 0], kept[None, :, 0])  # (N, M)
    apart = (part[:, None, 2] - kept[None, :, 2]) % 12
    time = np.where(apart == DOUBLING, 0.0, np.maximum(both, 0.0))
    pairs = (time > BRIEF).astype(float)
    consonant, semitone = np.isin(apart, CONSONANT), np.isin(apart, SEMITONE)

    def share(which: np.ndarray, weights: np.ndarray) -> float | None:
        return float((which * weights).sum() / weights.sum()) if weights.sum() > 0 else None

    return {
        "consonance": share(consonant, time),
        "counted_pairs": share(consonant, pairs),
        "clash": share(semitone, time),
    }


def together(part: np.ndarray, kept: np.ndarray) -> float | None:
    """Return the share of the onsets of notes, (N, 3), at which kept ones begin; None without an onset."""
    onsets, others = (set(np.round(notes[:, 0] * ONSETS).astype(int).tolist()) for notes in (part, kept))
    return len(onsets & others) / len(onsets) if onsets else None


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return means of the measures over tasks, paired differences, both by kind, and how many tasks are well."""
    kinds = {"all": list(rows)} | {kind: [row for row in rows if row["kind"] == kind] for kind in STYLES}
    return {
        "num_tasks": len(rows),
        "above_shifted": sum(row["above_shifted"] for row in rows),
        "density_within": sum(row["density_within"] for row in rows),
        "both": sum(row["above_shifted"] and row["density_within"] for row in rows),
        "measures": {kind: _averaged(found) for kind, found in kinds.items() if found},
    }


def _averaged(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in MEASURES:
        values = [{which: row[which][name] for which in ("new", "real", "shifted")} for row in rows]
        for value in values:
            for other in ("real", "shifted"):
                missing = value["new"] is None or value[other] is None
                value[f"new_less_{other}"] = None if missing else value["new"] - value[other]
        found[name] = ensembles.averaged(values)
    return found


def as_text(report: dict[str, Any]) -> str:
    """Return the report for people."""
    columns = ("new", "real", "shifted", "new_less_real", "new_less_shifted")
    lines = [f"{report['model']}, {report['num_tasks']} tasks, seed {report['seed']}"]
    for kind, measures in report["measures"].items():
        number = measures["density"]["new"]["num_pieces"]
        titles = "".join(f"{column.replace('_', ' '):>18}" for column in columns)
        lines += ["", f"{f'{kind}, {number}':18}{titles}"]
        for name, row in measures.items():
            cells = "".join(f"{music.with_error(row[column]):>18}" for column in columns)
            lines.append(f"{name.replace('_', ' '):18}{cells}")
    of = f"of {report['num_tasks']}"
    lines += ["", f"consonance above that of the shifted real part: {report['above_shifted']} {of}"]
    lines += [
        f"density from {DENSITY[0]} to {DENSITY[1]}: {report['density_within']} {of}; both: {report['both']} {of}"
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
