"""Parts beside given music, and songs in another style: models that read one sequence and write another, measured.

    python benchmarks/accompaniment.py --part losses --corpus PAIRS -o work/
    python benchmarks/accompaniment.py --part parts --corpus PAIRS --model accompany --infill score
    python benchmarks/accompaniment.py --part restyle --corpus PAIRS --model accompany --styles chorale,lied,pop-piano,band
    python benchmarks/accompaniment.py --part parts --quick                      # to see that it works; any part

PAIRS is a corpus that `musiclm corpus build --tokenizer score-pairs` made, or a folder of MIDI files. A song is held out if it
is in --split, which is that of the corpus. --quick takes a few bundled chorales as songs, and an untrained model if none is
named. ± is one standard error over songs (of a sum over a sum that of a ratio); differences are paired by song.

losses    nats per target note (natural logarithm) on windows of at most 32 bars and 1,024 ids a side of held-out pieces, of
          runs of equal CPU time or --steps, with one thread, each kept in a folder of -o; an interrupted command continues
          when it is given again:
              no-attention           seq2seq_gru that reads the source by its last state alone
              seq2seq-gru, seq2seq-transformer
              joined                 a decoder alone, that reads source and target behind each other
              target-alone           the same architecture without the source
          All predict the same ids: a target with its plan. The second figure leaves the ids of the plan out; they say chords
          and repeats, which every run then reads before the notes of a bar. Kinds of pairs, and windows of 32 bars, are
          told apart; pieces are chosen by hash up to --most-tokens, but of the few windows of 32 bars all are measured.
          A --checkpoint that was trained on pairs reads the source, one that was not reads the target alone.

parts     tasks of accompany.py, on pieces with one track a program: 16 bars, a part of which is hidden and written anew, given
          the others, their harmony, and its instrument. The harmony is a chord each half bar (`midi.chords`), that of the
          given music, or of the whole excerpt where a melody alone is given, as in training. Beside the model: infilling, and
          rules (see accompaniment_baselines.py); "shifted" is the real part two bars late, "real" the part that was hidden.
              note F1          of notes by sixteenth and pitch, beside the real part
              chord accuracy   of strong beats (the first of a bar, and the middle one of an even number) at which the part
                               sounds, the share where all its notes are in the given chord; chord notes: the share of notes
              consonance       as in accompany.py, without octaves and unisons
              density          notes / notes of the real part; within: the share of tasks where it is from 0.5 to 1.5

restyle   held-out songs of 16 bars in turn to each of --styles, which is not their own: content and style as in restyling.py,
          beside the song itself (copy), a real held-out piece of the style (random), and the song's melody with the band of
          MMA. Profiles of styles are made of --profile training pieces each.

Without the program `mma` its methods are left out; a method that has nothing for a task is left out of its mean, see n.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import accompaniment_baselines as baselines
import accompaniment_losses
import accompaniment_tasks
import accompany
import ensembles
import music
import numpy as np
import restyling
import torch
from accompaniment_quick import NUM_TASKS, make_quick
from accompaniment_tasks import MEASURES, Hidden

from musiclm import midi, tokenizers
from musiclm.data import Corpus, is_store, open_source
from musiclm.errors import MusicLMError
from musiclm.generation import accompany as writing
from musiclm.generation import infill
from musiclm.generation.composer import Composer
from musiclm.generation.config import ACCOMPANY, GenerationConfig
from musiclm.generation.players import LEADS

NUMBER = {"losses": 0, "parts": 60, "restyle": 40}
BASELINES: dict[str, Callable[[Hidden], np.ndarray | None]] = {
    "previous bar": baselines.previous_bar,
    "block chords": baselines.block_chords,
    "MMA overlay": baselines.mma_part,
}
METHODS = ("model", "infilling", *BASELINES, "retrieval", "shifted", "real")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, required=True)
    parser.add_argument("--corpus", help="of pairs, or a folder of MIDI files")
    parser.add_argument("--split", choices=["validation", "test"], default="test", help="what is held out (test)")
    parser.add_argument("-n", type=int, help="tasks (60), or songs to restyle (40)")
    parser.add_argument("--seed", type=int, default=1, help="of each task; of the training runs (1)")
    parser.add_argument("--quick", action="store_true", help=f"tiny models, {NUM_TASKS} tasks")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output, song by song")
    parser.add_argument("--threads", type=int, default=1, help="of torch (1)")
    writes = parser.add_argument_group("parts and restyle")
    writes.add_argument("--model", default="accompany", help="trained on pairs; none to leave it out (accompany)")
    writes.add_argument("--infill", default="score", help="parts: for infilling; none to leave it out (score)")
    writes.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="for sampling; repeatable")
    writes.add_argument("--infill-option", action="append", default=[], metavar="NAME=VALUE", help="for infilling")
    writes.add_argument("--retrieve", type=int, default=2000, help="parts: training pieces to choose from (2000)")
    writes.add_argument("--styles", default="chorale,lied,pop-piano,band", help="restyle: separated by commas")
    writes.add_argument("--profile", type=int, default=200, help="restyle: training pieces of a style's profile (200)")
    writes.add_argument("--save", type=Path, metavar="FOLDER", help="write all results as MIDI files")
    runs = parser.add_argument_group("losses")
    runs.add_argument("-o", "--output", type=Path, help="where the runs are kept")
    runs.add_argument(
        "--runs",
        default=",".join(accompaniment_losses.RUNS),
        help="separated by commas, none for none; all if left out",
    )
    runs.add_argument("--minutes", type=float, default=30.0, help="CPU minutes of each run (30)")
    runs.add_argument("--steps", type=int, help="instead: steps of each run")
    runs.add_argument(
        "--checkpoint", action="append", default=[], metavar="NAME", help="beside the runs, as it is; repeatable"
    )
    runs.add_argument("--preset", default="small", help="of each architecture (small)")
    runs.add_argument("--length", type=int, default=1024, help="ids of a side of a crop (1024)")
    runs.add_argument("--batch-size", type=int, default=4, help="crops (4)")
    runs.add_argument("--dropout", type=float, default=0.0, help="(0)")
    runs.add_argument(
        "--most-tokens", type=int, default=1_000_000, help="of held-out pieces, chosen by hash (1,000,000)"
    )
    a = parser.parse_args()
    if not a.quick and a.corpus is None:
        parser.error(f"--part {a.part} needs a --corpus")
    if not a.quick and a.part == "losses" and a.output is None:
        parser.error("--part losses needs -o, the folder of the runs")
    if a.runs == "none" and not a.checkpoint:
        parser.error("--runs none needs a --checkpoint")
    if a.minutes <= 0 or (a.steps is not None and a.steps < 1):
        parser.error("--minutes must be above 0, and --steps at least 1")
    torch.set_num_threads(1 if a.part == "losses" else a.threads)
    measure, show = PARTS[a.part]
    with tempfile.TemporaryDirectory() as temporary:
        try:
            if a.quick:
                make_quick(a, Path(temporary))
            a.n = a.n or NUMBER[a.part]
            report = measure(a, open_pairs(a.corpus))
        except (MusicLMError, ValueError) as error:
            parser.exit(1, f"Error: {error}\n")
    print(json.dumps({"part": a.part} | report) if a.json else show(report))


def open_pairs(source: str) -> Corpus:
    """Return a corpus of pairs."""
    corpus = open_source(source, None if is_store(source) else tokenizers.create("score-pairs"))
    if not corpus.tokenizer.is_paired:
        raise ValueError(f"'{source}' has no pairs: build it with --tokenizer score-pairs")
    return corpus


def losses(a: argparse.Namespace, corpus: Corpus) -> dict[str, Any]:
    """Return the document of --part losses."""
    chosen = [] if a.runs == "none" else a.runs.split(",")
    if unknown := [name for name in chosen if name not in accompaniment_losses.RUNS]:
        raise ValueError(f"no run '{unknown[0]}': one of {', '.join(accompaniment_losses.RUNS)}")
    names = ("split", "most_tokens", "preset", "length", "dropout", "batch_size", "seed")
    steps = 4 if a.quick else a.steps
    budget = {"steps": steps} if steps else {"minutes": a.minutes}
    options = {name: getattr(a, name) for name in names} | budget | {"runs": chosen, "checkpoints": a.checkpoint}
    return accompaniment_losses.losses(corpus, str(Path(a.corpus).resolve()), a.output, options)


def hidden_parts(a: argparse.Namespace, corpus: Corpus) -> dict[str, Any]:
    """Return the document of --part parts."""
    found = accompaniment_tasks.hidden_parts(accompaniment_tasks.tasks_of(corpus, a.split, None), a.n)
    if not found:
        raise ValueError(f"no piece in {a.corpus} makes a task: its pieces need styles, and several parts")
    training = sorted(corpus.pieces("train"), key=lambda piece: music.by_hash(piece.name))[: a.retrieve]
    smaller = dataclasses.replace(corpus, splits=dict(corpus.splits) | {"train": training})
    retrieval = baselines.Retrieval(accompaniment_tasks.tasks_of(smaller, "train", None))
    composer, infilling = (None if name == "none" else Composer.load(name) for name in (a.model, a.infill))
    options, others = music.options_of(a.option), music.options_of(a.infill_option)
    rows = []
    for number, hidden in enumerate(found):
        parts: dict[str, np.ndarray | None] = {name: rule(hidden) for name, rule in BASELINES.items()}
        parts |= {"retrieval": retrieval.part(hidden), "real": hidden.real, "shifted": shifted(hidden)}
        if composer is not None:
            parts["model"] = written(composer, hidden, options, a.seed)
        if infilling is not None:
            parts["infilling"] = infilled(infilling, hidden, others, a.seed)
        rows.append(row_of(hidden, parts))
        music.progress(number + 1, len(found))
        if a.save:
            save(a.save, number, hidden, parts)
    report = {"model": a.model, "infill": a.infill, "corpus": a.corpus, "split": a.split, "seed": a.seed}
    report |= {"options": options, "infill_options": others, "mma": baselines.has_mma()}
    return report | summary(rows) | {"tasks": rows}


def shifted(hidden: Hidden) -> np.ndarray:
    """Return the real part two bars late, as in accompany.py."""
    late = midi.bar_line(hidden.task.score, 0.0, accompany.LATE)
    return accompany.shifted(hidden.real, late, float(hidden.edges[-1]))


def written(composer: Composer, hidden: Hidden, options: dict[str, Any], seed: int) -> np.ndarray:
    """Return the part that a model of pairs writes, as `musiclm accompany` does, (N, 3); none where it is silent."""
    config = GenerationConfig.from_options(
        **options, task=ACCOMPANY, instruments=(hidden.program,), chords=hidden.harmony
    )
    try:
        score = writing.best(composer, hidden.given, config, seed)[0].score
    except MusicLMError as error:
        if "silence" not in str(error):
            raise
        return baselines.EMPTY
    new = [i for i in range(len(hidden.given.tracks), len(score.tracks)) if not score.tracks[i].is_drum]
    return accompany.notes_of(score, new)


def infilled(composer: Composer, hidden: Hidden, options: dict[str, Any], seed: int) -> np.ndarray:
    """Return the part that an infilling model writes, as `musiclm generate --keep-tracks --chords` does, (N, 3)."""
    task = hidden.task
    names = ",".join(str(i + 1) for i in task.kept)
    config = GenerationConfig.from_options(**options, keep_tracks=names, chords=hidden.harmony)
    config = composer.completed(config, composer.prompt(task.score))
    score = infill.fill(composer, task.score, config, seed)[0].score
    return accompany.notes_of(
        score, [i for i, track in enumerate(score.tracks) if i not in task.kept and not track.is_drum]
    )


def row_of(hidden: Hidden, parts: dict[str, np.ndarray | None]) -> dict[str, Any]:
    """Return the measures of the parts of a task, None for a method that has none, and what the task is."""
    row: dict[str, Any] = {"kind": hidden.task.kind, "name": hidden.task.name, "program": hidden.program}
    for method in METHODS:
        part = parts.get(method)
        row[method] = None if part is None else accompaniment_tasks.values(part, hidden)
    return row


def save(folder: Path, number: int, hidden: Hidden, parts: dict[str, np.ndarray | None]) -> None:
    """Write the given music with each part as a MIDI file."""
    folder.mkdir(parents=True, exist_ok=True)
    for method, part in parts.items():
        if part is not None:
            score = accompaniment_tasks.with_part(hidden, part)
            path = folder / f"{number:03}-{hidden.task.kind}-{method.replace(' ', '-')}.mid"
            path.write_bytes(midi.to_bytes(score))


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return means of the methods' measures over tasks, also by kind, and what they are more than those of the real part.

    Differences of the model from each other method are there, too, each over the tasks that both have.
    """
    groups = {"all": list(rows)} | {kind: [row for row in rows if row["kind"] == kind] for kind in accompany.STYLES}
    found = {}
    for group, of_group in groups.items():
        methods = [method for method in METHODS if any(row[method] for row in of_group)]
        found[group] = {
            method: {
                "values": ensembles.averaged([row[method] for row in of_group if row[method]]),
                "median_density": float(np.median([row[method]["density"] for row in of_group if row[method]])),
                "less_real": _difference(of_group, method, "real"),
                "model_less": _difference(of_group, "model", method),
            }
            for method in methods
        }
    return {"num_tasks": len(rows), "methods": {group: methods for group, methods in found.items() if methods}}


def _difference(rows: Sequence[dict[str, Any]], method: str, other: str) -> dict[str, Any]:
    """Return the mean of a method's measures less another's over the tasks that have both."""
    found = []
    for row in rows:
        if row[method] and row[other]:
            pairs = {name: (row[method][name], row[other][name]) for name in MEASURES}
            found.append({name: None if None in pair else pair[0] - pair[1] for name, pair in pairs.items()})
    return ensembles.averaged(found)


def parts_as_text(report: dict[str, Any]) -> str:
    """Return the report of --part parts for people."""
    lines = [f"{report['model']}, {report['num_tasks']} tasks, seed {report['seed']}"]
    medians = (f"{method} {found['median_density']:.2f}" for method, found in report["methods"]["all"].items())
    lines.append("median density: " + ", ".join(medians))
    if not report["mma"]:
        lines.append("the program 'mma' is not installed: there is no MMA overlay")
    head = "".join(f"{name.replace('_', ' '):>17}" for name in MEASURES)
    for group, methods in report["methods"].items():
        lines += ["", f"{group:16}{'n':>4}{head}"]
        lines += [_line(method, found["values"]) for method, found in methods.items()]
        if group == "all":
            lines += ["", f"{'less real':16}{'n':>4}{head}"]
            lines += [_line(method, found["less_real"]) for method, found in methods.items() if method != "real"]
        if group == "all" and "model" in methods:
            lines += ["", f"{'model less':16}{'n':>4}{head}"]
            lines += [_line(method, found["model_less"]) for method, found in methods.items() if method != "model"]
    return "\n".join(lines)


def _line(method: str, found: dict[str, Any]) -> str:
    cells = "".join(f"{music.with_error(found[name]):>17}" for name in MEASURES)
    return f"{method:16}{found['density']['num_pieces']:>4}{cells}"


def restyle(a: argparse.Namespace, corpus: Corpus) -> dict[str, Any]:
    """Return the document of --part restyle."""
    styles = a.styles.split(",")
    if unknown := set(styles) - set(LEADS):
        raise ValueError(f"no song can be restyled to '{min(unknown)}': one of {', '.join(LEADS)}")
    training = restyling.first_of_each(restyling.excerpts(corpus, "train"), styles, a.profile)
    if missing := set(styles) - {style for style, _ in training}:
        raise ValueError(f"no training piece in {a.corpus} has the style '{min(missing)}'")
    held_out = restyling.excerpts(corpus, a.split)
    songs = restyling.songs_of(held_out, styles, a.n)
    if not songs:
        raise ValueError(f"no piece in {a.corpus} can be restyled: they need styles, melodies and 16 bars")
    real = {style: [(name, score) for name, own, score in held_out if own == style] for style in styles}
    composer = None if a.model == "none" else Composer.load(a.model)
    profiles, options = restyling.Styles(training), music.options_of(a.option)
    if a.save:
        a.save.mkdir(parents=True, exist_ok=True)
    rows = restyling.compared(composer, songs, profiles, real, options, a.seed, a.save)
    report = {"model": a.model, "corpus": a.corpus, "split": a.split, "seed": a.seed, "options": options}
    report |= {"mma": baselines.has_mma(), "profiles": profiles.sizes}
    return report | restyling.summary(rows) | {"songs": rows}


Part = tuple[Callable[[argparse.Namespace, Corpus], dict[str, Any]], Callable[[dict[str, Any]], str]]
PARTS: dict[str, Part] = {
    "losses": (losses, accompaniment_losses.as_text),
    "parts": (hidden_parts, parts_as_text),
    "restyle": (restyle, restyling.as_text),
}


if __name__ == "__main__":
    main()
