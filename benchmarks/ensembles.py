"""Who plays in a model's music, and how it ends: ensembles on request, unconditional pieces, and continuations.

    python benchmarks/ensembles.py score --corpus CORPUS
    python benchmarks/ensembles.py score --instruments piano,violin,cello -n 16 --unconditional 0 --json
    python benchmarks/ensembles.py score --option draw=1 --quick

MODEL is a bundled name, a checkpoint file or a run folder. It samples with its own defaults, the best of several where it
recommends that; --option sets any option of `musiclm generate`, by its name in Python. A seed is that of a batch of ten from
nothing, SEED, SEED + 1, ..., and SEED of each continuation. 0 of a number leaves that part out.

Ensemble: `-n` pieces with the --instruments. Each word (a family of General MIDI, an instrument, drums) is one program: of a
family's eight the one that sounds in the most bars. It is there if it has at least 8 notes, and sounds in at least half of
the bars after the fourth (drums at their onsets). All others are too many, also a second program of a family. Counted are the
pieces in which all are there and nobody else plays, and what the others break; a piece can break several.

From nothing: instruments, a single one, drums alone, as in docs/measures.md; the share of pieces that the model ends itself,
that have the bars that were asked for, and whose last chord has the tonic as its root. The key is that of the whole piece
(`harmony.best_key`, by sounding time). The last chord is what sounds in the last quarter before the last pitched note ends,
named by `midi.chords.label`; a single pitch class is its own root. Beside them, with --corpus, 200 real pieces, without
those of drums alone.

Continuations: 8 bars behind 8 bars of pieces of the corpus, in turn of each style there, by the hashes of their names. In the
last two bars of the prompt at least two instruments begin a note; one is silent if it begins none in the 8 bars that follow,
and silent later if it begins none in the last four of them. The shares of these by piece, in the model's music and in the
bars that follow in the piece itself. The model is not told the style.

± is one standard error of the mean over pieces.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import music
import numpy as np
import torch
from symusic import Score

from musiclm import midi
from musiclm.data import Corpus, open_source
from musiclm.errors import MusicLMError
from musiclm.evaluation import harmony, texture, yardstick
from musiclm.evaluation.music_metrics import Notes, notes_of
from musiclm.generation.composer import Composer, Composition
from musiclm.generation.config import GenerationConfig
from musiclm.midi import chords, theory
from musiclm.tokenizers.score_plan import STYLE_MARKER

FEWEST = 8  # notes of an instrument of an ensemble
ENTRY = 4  # bars in which it may come in
BATCH = 10  # unconditional pieces sampled at once
PROMPT_BARS, NEW_BARS, LAST_BARS, LATER = 8, 8, 2, 4  # LATER: new bars after which an instrument should still play
NUM_REAL = 200
QUICK = 2
FINAL = 1.0  # quarters of the last chord
OPTIONS_ALONE = ("bars", "instruments", "n")  # that have an argument here

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--corpus", help="of scores: for continuations, and for real pieces")
    parser.add_argument("--split", default="test", choices=["train", "validation", "test", "all"], help="of it (test)")
    parser.add_argument("-n", type=int, default=16, help="ensembles (16)")
    parser.add_argument("--unconditional", type=int, default=40, metavar="N", help="unconditional pieces (40)")
    parser.add_argument("--continuations", type=int, default=40, metavar="N", help="(40)")
    parser.add_argument("--instruments", default="piano,violin,cello", help="of an ensemble (piano,violin,cello)")
    parser.add_argument("--bars", type=int, default=16, help="of an unconditional piece (16)")
    parser.add_argument("--seed", type=int, default=1, help="of the first batch (1)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (1)")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="for sampling; repeatable")
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="write the model's music as MIDI files")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} pieces of each, none the best of several")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output, piece by piece")
    a = parser.parse_args()
    if a.bars <= ENTRY:
        parser.error(f"--bars must be more than {ENTRY}: instruments have that many to come in")
    try:
        report = measured(a)
    except (MusicLMError, ValueError) as error:
        parser.exit(1, f"Error: {error}\n")
    print(json.dumps(report) if a.json else as_text(report))


def measured(a: argparse.Namespace) -> dict[str, Any]:
    """Return the document of --json."""
    torch.set_num_threads(a.threads)
    composer = Composer.load(a.model)
    options = music.options_of(a.option)
    if wrong := [name for name in OPTIONS_ALONE if name in options]:
        raise ValueError(f"{wrong[0]} has an argument of its own here: see --help")
    if a.quick:
        options = {"draw": 1} | options
    num_ensembles, num_pieces, num_prompts = (
        min(n, QUICK) if a.quick else n for n in (a.n, a.unconditional, a.continuations)
    )
    corpus = open_source(a.corpus) if a.corpus else None
    report: dict[str, Any] = {"model": a.model, "corpus": a.corpus, "split": a.split, "seed": a.seed}
    report |= {"bars": a.bars, "instruments": a.instruments, "options": options}
    if num_ensembles:
        config = GenerationConfig.from_options(**options, bars=a.bars, instruments=a.instruments)
        made = unconditional(composer, config, num_ensembles, a.seed)
        save(a.save, "ensemble", made)
        report["ensemble"] = ensembles([m.score for m in made], a.instruments, a.bars)
    if num_pieces:
        made = unconditional(composer, GenerationConfig.from_options(**options, bars=a.bars), num_pieces, a.seed)
        save(a.save, "nothing", made)
        rows = [described(m.score, a.bars) | ended(m, a.bars) for m in made]
        others = [] if corpus is None else real_pieces(corpus, a.split, QUICK if a.quick else NUM_REAL)
        real = [described(score, a.bars) for _, score in others]
        report["unconditional"] = {"model": averaged(rows), "real": averaged(real), "pieces": rows}
    if num_prompts and corpus is not None:
        prompts = list(itertools.islice(in_turn(corpus, a.split), num_prompts))
        config = GenerationConfig.from_options(**options, bars=NEW_BARS)
        made = []
        for _, score in prompts:
            made.append(continued(composer, config, score, a.seed))
            music.progress(len(made), len(prompts))
        save(a.save, "continuation", made)
        report["continuations"] = continuations(prompts, [m.score for m in made])
    return report


def unconditional(composer: Composer, config: GenerationConfig, number: int, seed: int) -> list[Composition]:
    """Return pieces without a prompt: of each seed what `musiclm generate -n` writes."""
    config = composer.completed(config)
    made: list[Composition] = []
    while len(made) < number:
        wanted = dataclasses.replace(config, n=min(BATCH, number - len(made)))
        made += composer.generate_best(composer.prompt(None), wanted, seed)[0]
        music.progress(len(made), number)
        seed += 1
    return made


def continued(composer: Composer, config: GenerationConfig, score: Score, seed: int) -> Composition:
    """Return the new music behind the first bars of a score."""
    prompt = composer.prompt(plain(score), bars=PROMPT_BARS)
    wanted = dataclasses.replace(config, prompt_bars=PROMPT_BARS, only_new=True)
    return composer.generate_best(prompt, composer.completed(wanted, prompt), seed)[0][0]


def plain(score: Score) -> Score:
    """Return a score without markers, which say the style."""
    copied = score.copy()
    copied.markers.clear()
    return copied


def save(folder: Path | None, name: str, made: Sequence[Composition]) -> None:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        for number, each in enumerate(made):
            (folder / f"{name}-{number:03}.mid").write_bytes(midi.to_bytes(each.score))


def seats(asked: str) -> dict[str, frozenset[int]]:
    """Return the programs that each word of --instruments may be."""
    return {word.strip(): frozenset(theory.programs(word)) for word in asked.split(",")}


def sounding_bars(notes: Notes, program: int) -> np.ndarray:
    """Return in which bars a program sounds, (bars,) bool; drums at their onsets."""
    mine = notes.program == program
    start = notes.start[mine]
    end = np.where(notes.is_drum[mine], start + texture.GRID_TOLERANCE, notes.end[mine])
    return np.array(
        [((start < stop - 1e-6) & (end > begin + 1e-6)).any() for begin, stop in itertools.pairwise(notes.bars)], bool
    )


def ensemble(score: Score, asked: Mapping[str, frozenset[int]], num_bars: int) -> Row:
    """Return of each word its program, notes and the share of the bars after the fourth, who else plays, and what is broken.

    Args:
        score: a piece that should have so many bars; bars that it lacks are silent.
        asked: see `seats`.
        num_bars: more than `ENTRY`.
    """
    notes = notes_of(score, num_bars)
    playing, counts = np.unique(notes.program, return_counts=True)
    count: dict[int | None, int] = dict(zip(playing.tolist(), counts.tolist(), strict=True))
    share: dict[int | None, float] = {
        p: float(sounding_bars(notes, p)[ENTRY:].sum()) / (num_bars - ENTRY) for p in playing.tolist()
    }
    chosen: dict[str, int | None] = {}
    for word, programs in asked.items():
        there = [p for p in count if p in programs and p not in chosen.values()]
        chosen[word] = max(there, key=lambda p: (share[p], count[p]), default=None)
    players: dict[str, dict[str, Any]] = {
        word: {"program": p, "notes": count.get(p, 0), "bars": share.get(p, 0.0)} for word, p in chosen.items()
    }
    others = sorted(p for p in playing.tolist() if p not in chosen.values())
    broken = [f"{word}: fewer than {FEWEST} notes" for word, found in players.items() if found["notes"] < FEWEST]
    broken += [f"{word}: silent in most bars" for word, found in players.items() if found["bars"] < 0.5]
    return {"players": players, "others": others, "broken": broken + ["somebody else plays"] * bool(others)}


def ensembles(scores: Sequence[Score], asked: str, num_bars: int) -> dict[str, Any]:
    """Return how many scores are the ensemble that was asked for, how many break what, and each score."""
    rows = [ensemble(score, seats(asked), num_bars) for score in scores]
    reasons: dict[str, int] = {}
    for reason in itertools.chain.from_iterable(row["broken"] for row in rows):
        reasons[reason] = reasons.get(reason, 0) + 1
    good = sum(not row["broken"] for row in rows)
    return {"num_pieces": len(rows), "good": good, "broken": reasons, "pieces": rows}


def described(score: Score, num_bars: int) -> Row:
    """Return who plays in the first bars of a piece, and whether all of it ends on the tonic."""
    notes = notes_of(score, num_bars)
    return {
        "instruments": texture.instruments(notes),
        "one_instrument": texture.one_instrument(notes),
        "drums_only": texture.drums_only(notes),
        "last_chord_tonic": last_chord_is_tonic(notes_of(score)),
    }


def ended(made: Composition, num_bars: int) -> Row:
    return {"ended_itself": float(made.ended != "length"), "exact_bars": float(made.num_bars == num_bars)}


def last_chord_is_tonic(notes: Notes) -> float | None:
    """Return 1 if the root of the last chord is the tonic of the piece, else 0; None without a pitch. See the module."""
    pitched = notes.pitched()
    start, end, pitch = notes.start[pitched], notes.end[pitched], notes.pitch[pitched]
    if not len(start):
        return None
    stop = float(end.max())
    key = harmony.best_key(harmony.sounding_time(start, end, pitch, np.array([0.0, stop]))[0])
    begin = max(0.0, stop - FINAL)
    weights = harmony.sounding_time(start, end, pitch, np.array([begin, stop]))
    sounding = pitch[(end > begin + 1e-6) & (start < stop - 1e-6)]
    classes = set((sounding % 12).tolist())
    found = int(chords.label(weights, np.array([int(sounding.min()) % 12]))[0])
    root = classes.pop() if len(classes) == 1 else chords.CHORDS[found][0] if found >= 0 else -1
    return float(root == key % 12)


def averaged(rows: Sequence[Row]) -> dict[str, Any]:
    """Return of each measure the mean, its standard error, and the number of pieces that have it."""
    names = list(rows[0]) if rows else []
    return {
        name: dict(zip(("mean", "standard_error", "num_pieces"), yardstick.mean_and_error(rows, name), strict=True))
        for name in names
    }


def real_pieces(corpus: Corpus, split: str, number: int) -> list[tuple[str, Score]]:
    """Return names and scores of pieces that are not drums alone, in the order of their names' hashes."""
    found = ((name, score) for name, score in by_hash(corpus, split) if not texture.drums_only(notes_of(score)))
    return list(itertools.islice(found, number))


def by_hash(corpus: Corpus, split: str) -> Iterator[tuple[str, Score]]:
    """Yield names and scores of a split in the order of the hashes of the names."""
    chosen = split if corpus.is_split else "all"
    for piece in sorted(corpus.pieces(chosen), key=lambda piece: music.by_hash(piece.name)):
        yield piece.name, corpus.tokenizer.decode(piece.tokens)


def style_of(score: Score) -> str:
    """Return the style that a marker of a score says, "" for none."""
    texts = [marker.text for marker in score.markers]
    return next((text.removeprefix(STYLE_MARKER) for text in texts if text.startswith(STYLE_MARKER)), "")


def in_turn(corpus: Corpus, split: str) -> Iterator[tuple[str, Score]]:
    """Yield names and scores of pieces to continue, in turn of each style, in the order of the hashes of the names."""
    styles: dict[str, list[tuple[str, Score]]] = {}
    for name, score in by_hash(corpus, split):
        if midi.num_bars(score) >= PROMPT_BARS + NEW_BARS and len(last_players(score)) > 1:
            styles.setdefault(style_of(score), []).append((name, score))
    for row in itertools.zip_longest(*(styles[style] for style in sorted(styles))):
        yield from (piece for piece in row if piece is not None)


def starting(score: Score, first: int, stop: int) -> set[int]:
    """Return the programs that begin a note within bars [first, stop), all drums being one."""
    part = music.following(score, first, stop - first)
    return {theory.DRUMS if t.is_drum else t.program for t in part.tracks if len(t.notes)}


def last_players(score: Score) -> set[int]:
    """Return who begins a note in the last bars of the prompt."""
    return starting(score, PROMPT_BARS - LAST_BARS, PROMPT_BARS)


def silent(before: set[int], new: Score) -> dict[str, float]:
    """Return the shares of instruments that begin no note in the new bars, and none in the last of them."""
    return {
        name: len(before - starting(new, first, NEW_BARS)) / len(before)
        for name, first in (("silent", 0), ("silent_later", LATER))
    }


def continuations(prompts: Sequence[tuple[str, Score]], made: Sequence[Score]) -> dict[str, Any]:
    """Return the shares of the prompts' instruments that are silent in what was made, and in the pieces themselves.

    Args:
        prompts: names and whole pieces.
        made: of each the new bars alone.
    """
    rows = []
    for (name, score), new in zip(prompts, made, strict=True):
        before = last_players(score)
        found: dict[str, dict[str, float]] = {
            "model": silent(before, new),
            "real": silent(before, music.following(score, PROMPT_BARS, NEW_BARS)),
        }
        found["difference"] = {key: value - found["real"][key] for key, value in found["model"].items()}
        rows.append({"name": name, "style": style_of(score), "players": sorted(before), **found})
    averages = {which: averaged([row[which] for row in rows]) for which in ("model", "real", "difference")}
    return averages | {"pieces": rows}


def as_text(report: dict[str, Any]) -> str:
    """Return the report for people."""
    lines = [f"{report['model']}, seeds from {report['seed']}, options {report['options'] or 'its own'}"]
    if found := report.get("ensemble"):
        lines += ["", f"{report['instruments']}: {found['good']} of {found['num_pieces']}"]
        lines += [f"  {reason}: {number}" for reason, number in sorted(found["broken"].items())]
    if found := report.get("unconditional"):
        lines += ["", f"{'unconditional':24}{'model':>18}{'n':>5}{'real':>18}{'n':>5}"]
        for name, row in found["model"].items():
            other = found["real"].get(name)
            real = f"{music.with_error(other):>18}{other['num_pieces']:>5}" if other else ""
            lines.append(f"{name.replace('_', ' '):24}{music.with_error(row):>18}{row['num_pieces']:>5}{real}")
    if found := report.get("continuations"):
        columns = ("model", "real", "difference")
        heads = f"prompts, {len(found['pieces'])}"
        lines += ["", f"{heads:24}" + "".join(f"{column:>18}" for column in columns)]
        for name in found["model"]:
            cells = "".join(f"{music.with_error(found[column][name]):>18}" for column in columns)
            lines.append(f"{name.replace('_', ' '):24}{cells}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
