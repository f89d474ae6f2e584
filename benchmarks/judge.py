"""Judge a model by its music: samples from nothing and from real beginnings, beside how real pieces go on.

    python benchmarks/judge.py score --corpus CORPUS --samples 100 --rolls rolls/
    python benchmarks/judge.py bach --samples 100 --temperature 0.9

Half of the samples come from nothing; the others go on for --bars bars from the first four bars of test pieces (drawn by
their names' hashes, those with as many bars in all), and beside these stands how the pieces themselves go on. Of each set:

- overlap: mean overlapped area of statistics with the real continuations, and of each alone (`evaluation.music_metrics`;
  1 is what real pieces have with each other, Yang and Lerch 2020);
- loops: share in which a stretch repeats itself as real music hardly ever does (`musiclm.generation.loops.loop_start`);
- silence: share with two whole bars in a row without an onset;
- out of key: mean share of new notes outside the major or minor scale that fits the first four bars best, drums excepted;
- thin: share with less than half of the notes a bar that the beginning has;
- growth: notes a bar of the last four bars over those of the first four new ones, at most 4, the mean.

The tokenizer `performance` has no bars: one is two seconds there, 4/4 at 120 quarters a minute.

--rolls draws thirty of the samples; --card writes the figures into the card of MODEL, a checkpoint's file. What the loop
guard would draw anew is left in with --no-loop-guard.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from symusic import Score

from musiclm import checkpoint, midi
from musiclm.checkpoint import card as cards
from musiclm.data import Corpus, open_source
from musiclm.evaluation import music_metrics
from musiclm.files import write_whole
from musiclm.generation.composer import Composer
from musiclm.generation.config import GenerationConfig, Length
from musiclm.generation.loops import loop_start
from musiclm.plotting import piano_roll

PROMPT_BARS = 4
SCALES = [tuple((tonic + step) % 12 for step in (0, 2, 4, 5, 7, 9, 11)) for tonic in range(12)]
SCALES += [tuple((tonic + step) % 12 for step in (0, 2, 3, 5, 7, 8, 10, 11)) for tonic in range(12)]  # both sevenths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--corpus", help="left out, the bundled chorales")
    parser.add_argument("--split", default="test", choices=["validation", "test"], help="whose beginnings")
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--bars", type=int, default=12)
    parser.add_argument("--temperature", type=float, help="left out, the model's own")
    parser.add_argument("--top-p", type=float, help="left out, the model's own")
    parser.add_argument("--no-loop-guard", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rolls", type=Path, help="a folder for pictures and MIDI files of thirty samples")
    parser.add_argument(
        "--card", metavar="COMMAND", help="store the figures in the model's card, as made by this command"
    )
    parser.add_argument("--quick", action="store_true", help="six samples")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    composer = Composer(checkpoint.load(a.model))
    source = open_source(a.corpus, composer.tokenizer)
    count = (6 if a.quick else a.samples) // 2
    pieces = beginnings(source, a.split, count, a.bars)
    asked: dict[str, Any] = {"temperature": a.temperature, "top_p": a.top_p, "loop_guard": not a.no_loop_guard}
    new = GenerationConfig.from_options(bars=a.bars, **asked)
    free = composer.generate(None, dataclasses.replace(new, n=count, length=Length(bars=PROMPT_BARS + a.bars)), a.seed)
    from_real = [
        composer.generate(composer.prompt(piece, bars=PROMPT_BARS), new, a.seed + i)[0].score
        for i, piece in enumerate(pieces)
    ]
    real = [midi.cut(piece, 0.0, midi.bar_line(piece, 0.0, PROMPT_BARS + a.bars)) for piece in pieces]
    sets = {"real pieces": real, "from their beginnings": from_real, "from nothing": [c.score for c in free]}
    reference = [music_metrics.of_score(tail(score)) for score in real]
    report = {name: judged(music, reference if name != "real pieces" else None) for name, music in sets.items()}
    if a.rolls:
        draw(a.rolls, sets)
    if a.card:
        store(composer.checkpoint, a.card, count, report, sets, reference)
    if a.json:
        print(json.dumps({"model": a.model, "asked": asked, "num_samples": count, "bars": a.bars, "sets": report}))
        return
    names = list(next(iter(report.values())))
    print(f"{count} of each, {PROMPT_BARS} + {a.bars} bars, seed {a.seed}, {asked}")
    print(f"{'':22}" + "".join(f"{name:>12}" for name in names))
    for name, row in report.items():
        print(f"{name:22}" + "".join(f"{'' if row[k] is None else f'{row[k]:.3f}':>12}" for k in names))
        for statistic, area in row_overlaps(sets[name], reference).items():
            print(f"    {statistic:30} overlap {area:.3f}")


def store(
    found: checkpoint.Checkpoint,
    command: str,
    count: int,
    report: dict[str, dict[str, float | None]],
    sets: dict[str, list[Score]],
    reference: Sequence[music_metrics.Values],
) -> None:
    """Write what was found into a checkpoint's card, in its file and beside it."""
    told: dict[str, dict[str, Any]] = {}
    for name, music in sets.items():
        values = music_metrics.against([music_metrics.of_score(tail(score)) for score in music], reference)
        told[name] = {
            k: {"mean": round(v["mean"], 4), "overlapped_area": None if name == "real pieces" else v["overlapped_area"]}
            for k, v in values.items()
            if v["mean"] is not None
        } | {k: None if v is None else round(v, 4) for k, v in report[name].items()}
    card = found.card | {"samples": {"command": command, "num_samples": count, "sets": told}}
    write_whole(found.path, checkpoint.with_critic(found, found.critic() or {}, card), force=True)
    again = checkpoint.load(str(found.path))
    assert again.sha256 == found.sha256, "the weights are those that there were"
    write_whole(found.path.with_suffix(".md"), cards.page(again, found.path.stem).encode(), force=True)


def beginnings(source: Corpus, split: str, count: int, bars: int) -> list[Score]:
    """Return so many pieces of a split that are long enough, drawn by their names' hashes."""
    found = []
    for piece in sorted(source.pieces(split), key=lambda p: hashlib.sha256(p.name.encode()).digest()):
        score = source.tokenizer.decode(piece.tokens)
        if midi.num_bars(score) >= PROMPT_BARS + bars and num_notes(score, 0, PROMPT_BARS) >= 8:
            found.append(score)
        if len(found) == count:
            break
    return found


def tail(score: Score) -> Score:
    """Return what stands behind the first four bars."""
    return midi.cut(score, midi.bar_line(score, 0.0, PROMPT_BARS), midi.end(score) + 1)


def judged(music: Sequence[Score], reference: Sequence[music_metrics.Values] | None) -> dict[str, float | None]:
    """Return the figures of a set."""
    area = None
    if reference is not None:
        area = music_metrics.mean_overlap(
            music_metrics.against([music_metrics.of_score(tail(s)) for s in music], reference)
        )
    return {
        "overlap": area,
        "loops": mean(loop_start(s, 0.0, midi.end(s)) is not None for s in music),
        "silence": mean(has_silence(s) for s in music),
        "out of key": mean(out_of_key(s) for s in music),
        "thin": mean(density(s, PROMPT_BARS, None) < density(s, 0, PROMPT_BARS) / 2 for s in music),
        "growth": mean(growth(s) for s in music),
    }


def row_overlaps(music: Sequence[Score], reference: Sequence[music_metrics.Values]) -> dict[str, float]:
    """Return the overlapped area of each statistic."""
    told = music_metrics.against([music_metrics.of_score(tail(s)) for s in music], reference)
    return {name: row["overlapped_area"] for name, row in told.items() if row.get("overlapped_area") is not None}


def mean(values: Any) -> float:
    return float(np.mean([float(v) for v in values] or [0.0]))


def num_notes(score: Score, first: int, last: int | None) -> int:
    """Return how many notes begin in bars, counted from 0."""
    start = midi.bar_line(score, 0.0, first) * score.ticks_per_quarter
    stop = np.inf if last is None else midi.bar_line(score, 0.0, last) * score.ticks_per_quarter
    return sum(start <= n.time < stop for t in score.tracks for n in t.notes)


def density(score: Score, first: int, last: int | None) -> float:
    """Return notes a bar."""
    end = midi.num_bars(score) if last is None else last
    return num_notes(score, first, last) / max(1, end - first)


def growth(score: Score) -> float:
    bars = midi.num_bars(score)
    return min(
        4.0, density(score, max(PROMPT_BARS, bars - 4), bars) / max(0.25, density(score, PROMPT_BARS, PROMPT_BARS + 4))
    )


def has_silence(score: Score) -> bool:
    """Return whether no note begins in two bars in a row, before the last note."""
    num_bars = midi.num_bars(score)
    empty = [num_notes(score, bar, bar + 1) == 0 for bar in range(num_bars)]
    return any(a and b for a, b in itertools.pairwise(empty))


def out_of_key(score: Score) -> float:
    """Return the share of new notes outside the scale that fits the beginning best; 0 without notes."""
    line = midi.bar_line(score, 0.0, PROMPT_BARS) * score.ticks_per_quarter
    notes = [(n.time < line, n.pitch % 12) for t in score.tracks if not t.is_drum for n in t.notes]
    begun = [pitch for is_first, pitch in notes if is_first]
    new = [pitch for is_first, pitch in notes if not is_first]
    if not begun or not new:
        return 0.0
    key = max(SCALES, key=lambda scale: sum(p in scale for p in begun))
    return sum(p not in key for p in new) / len(new)


def draw(folder: Path, sets: dict[str, list[Score]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, music in sets.items():
        for i, score in enumerate(music[:10]):
            stem = folder / f"{name.replace(' ', '-')}-{i + 1:02d}"
            midi.write(score, stem.with_suffix(".mid"), force=True)
            write_whole(stem.with_suffix(".png"), piano_roll.piano_roll(score), force=True)


if __name__ == "__main__":
    main()
