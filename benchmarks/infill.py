"""Loss of an infilling model on masked spans, given the context around them.

    python benchmarks/infill.py bach-infill --plain bach --split validation
    python benchmarks/infill.py score-infill --plain score --corpus CORPUS --split test

Three models of the same masked notes, in nats/note (natural logarithm; the sum over all ids of the span, divided by the notes
that begin in it): the infilling model, which is conditioned on the context before, beside and after the span; a plain model
that reads the context before it from left to right, on the same ids; and a repetition of the bar before, where each id is the
one at the same position of that bar with a probability p counted on training pieces, and all other ids are equally likely.

Chorales: each piece of the split; masked spans of two bars (32 steps), one every four bars. `bars`: all voices. `under
soprano`: alto, tenor and bass, which are masked after the span, too. `tenor`: that voice alone. The model also writes three
voices under the soprano of eight whole pieces: parallel fifths and octaves per hundred steps in which two voices move, and
the share of steps in which voices cross, beside those of Bach.

Scores: for each piece the masked spans of all notes that `evaluation.masked_pieces` chooses by a hash of its name: one, two,
four or eight bars, with up to two bars after them as context.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from musiclm import checkpoint, evaluation, tokenizers
from musiclm.data import Corpus, Piece, open_source
from musiclm.generation import infill
from musiclm.generation.composer import Composer
from musiclm.generation.config import GenerationConfig
from musiclm.tokenizers import grid, grid_infill
from musiclm.tokenizers.score_infill import ScoreInfill

SIZE, EVERY = grid_infill.STEPS, 64  # steps of a masked span, and from one span to the next
STEPS_A_BAR = 16
VOICES = {"bars": (0, 1, 2, 3), "under soprano": (1, 2, 3), "tenor": (2,)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="an infilling model")
    parser.add_argument("--plain", required=True, help="a left-to-right model of the same music")
    parser.add_argument("--corpus", help="of scores; left out, the bundled chorales")
    parser.add_argument("--split", choices=["validation", "test"], default="validation")
    parser.add_argument("--pieces", type=int, help="this many of the split's; left out, all")
    parser.add_argument("--written", type=int, default=8, help="chorales whose sopranos are given other voices")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="three pieces")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    a = parser.parse_args()
    filler, plain = checkpoint.load(a.model), checkpoint.load(a.plain)
    tokenizer = filler.tokenizer()
    source = open_source(a.corpus, tokenizer)
    pieces = list(source.pieces(a.split))[: 3 if a.quick else a.pieces]
    found: dict[str, Any] = {"model": a.model, "plain": a.plain, "split": a.split, "num_pieces": len(pieces)}
    if isinstance(tokenizer, grid_infill.GridInfill):
        found["nats_a_note"] = dict(of_chorales(filler, plain, source, pieces))
        found["written_under_soprano"] = harmonised(Composer(filler), pieces[: a.written], a.seed)
    else:
        assert isinstance(tokenizer, ScoreInfill)
        found["nats_a_note"] = {"bars": of_scores(filler, plain, source, pieces)}
    if a.json:
        print(json.dumps(found))
        return
    print(f"{len(pieces)} pieces of {a.split}; nats per hidden note")
    print(f"{'hole':16} {'filled':>8} {'plain':>8} {'bar before':>11} {'notes':>8} {'holes':>6}")
    for name, row in found["nats_a_note"].items():
        figures = f"{row['filled']:8.3f} {row['plain']:8.3f} {row['bar_before']:11.3f}"
        print(f"{name:16} {figures} {row['num_notes']:8,} {row['num_holes']:6,}")
    for who, rates in found.get("written_under_soprano", {}).items():
        parallels, crossing = rates["parallels_a_hundred_moves"], rates["share_of_steps_crossing"]
        print(
            f"{who:16} parallel fifths and octaves {parallels:.2f} in 100 moves, voices cross in {crossing:.1%} of steps"
        )


def of_chorales(
    filler: checkpoint.Checkpoint, plain: checkpoint.Checkpoint, source: Corpus, pieces: Sequence[Piece]
) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield each kind of masked span and its figures."""
    reading = plain.tokenizer()
    model = plain.model()
    nats_of = {p.name: nats for p, nats in evaluation.token_losses(model, reading, pieces)}  # cells have the same ids
    model, tokenizer = filler.model(), filler.tokenizer()
    for kind, voices in VOICES.items():
        p = _repeated(source.pieces("train"), 4 * STEPS_A_BAR)
        holes, sums, num_notes = [], {"plain": 0.0, "bar_before": 0.0}, 0
        for piece in pieces:
            steps = cells(piece)
            for start in range(STEPS_A_BAR, len(steps) - SIZE // 2, EVERY):
                stop = min(start + SIZE, len(steps))
                behind = min(stop + grid_infill.BEHIND, len(steps))
                missing = np.zeros((behind - start, 4), bool)
                missing[: None if kind == "under soprano" else stop - start, list(voices)] = True
                ids = grid_infill.stretch(steps, start, stop, missing)
                holes.append(Piece(name=f"{piece.name} {start}", tokens=ids, num_notes=0, seconds=0.0))
                is_hidden = np.zeros(steps.shape, bool)
                is_hidden[start:stop, list(voices)] = True
                flat = np.flatnonzero(is_hidden.ravel())
                begins = (steps[1:] != steps[:-1]) & (steps[1:] != grid.SILENCE)
                num_notes += int(begins[start - 1 : stop - 1, list(voices)].sum())
                sums["plain"] += float(nats_of[piece.name][flat].sum())  # the nats of cell i stand at i: bos has none
                same = steps.ravel()[flat] == steps.ravel()[flat - 4 * STEPS_A_BAR]
                sums["bar_before"] -= float(
                    np.where(same, math.log(p), math.log((1 - p) / (tokenizer.plain_size - 1))).sum()
                )
        filled = evaluation.measure_loss(model, tokenizer, holes).nats
        yield kind, _row(filled, sums, num_notes, len(holes))


def _row(filled: float, sums: dict[str, float], num_notes: int, num_holes: int) -> dict[str, float]:
    return {
        "filled": filled / num_notes,
        **{name: nats / num_notes for name, nats in sums.items()},
        "num_notes": num_notes,
        "num_holes": num_holes,
    }


def cells(piece: Piece) -> np.ndarray:
    """Return the cells of a chorale, (steps, 4)."""
    return piece.tokens[grid.is_cell(piece.tokens)].reshape(-1, 4)


def _repeated(pieces: Sequence[Piece], lag: int) -> float:
    """Return the share of cells that are what they were so many cells before."""
    same = total = 0
    for piece in pieces:
        flat = cells(piece).ravel()
        same, total = same + int((flat[lag:] == flat[:-lag]).sum()), total + max(0, len(flat) - lag)
    return same / total


def harmonised(composer: Composer, pieces: Sequence[Piece], seed: int) -> dict[str, dict[str, float]]:
    """Return rules of counterpoint that are broken in what is written under sopranos, beside Bach's own."""
    reading = tokenizers.create("grid")
    written, bach = [], []
    for piece in pieces:
        score = reading.decode(piece.tokens)
        (made,) = infill.fill(composer, score, GenerationConfig(keep_tracks="soprano"), seed)
        ids, _ = reading.encode(made.score)
        written.append(ids[grid.is_cell(ids)].reshape(-1, 4))
        bach.append(cells(piece))
    return {"written": counterpoint(written), "Bach": counterpoint(bach)}


def counterpoint(all_steps: Sequence[np.ndarray]) -> dict[str, float]:
    """Return how often two voices move in parallel fifths or octaves, and how often voices cross.

    Two voices move in parallel where both change, in the same direction, from a perfect fifth, octave or unison (octaves
    apart or not) to the same one.
    """
    parallels = moves = crossing = total = 0
    for steps in all_steps:
        sings = (steps >= grid.FIRST_PITCH).all(1)
        total += int(sings.sum())
        crossing += int((np.diff(steps, axis=1)[sings] > 0).any(1).sum())
        now, then = steps[1:], steps[:-1]
        both_sing = sings[1:] & sings[:-1]
        for upper, lower in itertools.combinations(range(4), 2):
            moved = both_sing & (now[:, upper] != then[:, upper]) & (now[:, lower] != then[:, lower])
            up, down = now[:, upper] - then[:, upper], now[:, lower] - then[:, lower]
            was, is_now = (then[:, upper] - then[:, lower]) % 12, (now[:, upper] - now[:, lower]) % 12
            moves += int(moved.sum())
            parallels += int((moved & (up * down > 0) & (was == is_now) & np.isin(is_now, [0, 7])).sum())
    return {
        "parallels_a_hundred_moves": 100 * parallels / max(1, moves),
        "share_of_steps_crossing": crossing / max(1, total),
    }


def of_scores(
    filler: checkpoint.Checkpoint, plain: checkpoint.Checkpoint, source: Corpus, pieces: Sequence[Piece]
) -> dict[str, float]:
    """Return the figures of masked spans of all notes, a few bars long."""
    tokenizer = filler.tokenizer()
    assert isinstance(tokenizer, ScoreInfill)
    holes, straight, num_notes, sums = [], [], 0, {"plain": 0.0, "bar_before": 0.0}
    p = _repeated_ids(tokenizer, list(source.pieces("train"))[:200])
    for hole in evaluation.masked_pieces(tokenizer, pieces):
        parts = tokenizer.parts(hole.tokens)
        if parts is None:
            continue
        ahead, write, begin = parts
        kept = hole.tokens[ahead + 1 : write]
        bars = tokenizer.bar_starts(np.append(kept, tokenizer.eos))
        size = int(tokenizer.values[hole.tokens[write]])
        if tokenizer.num_notes(kept[: bars[size]]) or ahead < 64:
            continue  # some notes are given, or nothing comes before
        before, new = hole.tokens[:ahead], hole.tokens[begin:]
        holes.append(hole)
        whole = np.concatenate([before, new])
        straight.append(Piece(name=hole.name, tokens=whole, num_notes=len(before), seconds=0.0))
        num_notes += tokenizer.num_notes(new)
        result, _ = _guessed(tokenizer, whole, len(before))
        hits = result == new
        sums["bar_before"] -= float(np.where(hits, math.log(p), math.log((1 - p) / (tokenizer.plain_size - 1))).sum())
    reading = plain.tokenizer()
    for piece, nats in evaluation.token_losses(plain.model(), reading, straight):
        sums["plain"] += float(nats[piece.num_notes - 1 :].sum())
    filled = evaluation.measure_loss(filler.model(), tokenizer, holes).nats
    return _row(filled, sums, num_notes, len(holes))


def _guessed(tokenizer: ScoreInfill, ids: np.ndarray, begin: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for each id from `begin` on the one at the same place of the bar before it, -1 for none, and the ids."""
    bars = tokenizer.bar_starts(ids)
    result = np.full(len(ids), -1)
    for a, b, c in zip(bars[:-2], bars[1:-1], bars[2:], strict=True):
        size = min(b - a, c - b)
        result[b : b + size] = ids[a : a + size]
    return result[begin:], ids[begin:]


def _repeated_ids(tokenizer: ScoreInfill, pieces: Sequence[Piece]) -> float:
    same = total = 0
    for piece in pieces:
        result, ids = _guessed(tokenizer, np.asarray(piece.tokens), 1)
        same, total = same + int((result == ids).sum()), total + len(ids)
    return same / total


if __name__ == "__main__":
    main()
