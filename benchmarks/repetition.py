"""Count how often real music repeats itself as a loop does, or its harmony stands, and how much it does so as a rule.

See musiclm/generation/loops.py and standing.py, whose figures come from here.

    python benchmarks/repetition.py                                          # the bundled chorales
    python benchmarks/repetition.py corpora/score --splits train,validation --most 80
    python benchmarks/repetition.py corpora/score --splits validation --most 20 --model score

Standing harmony is counted in the first 16 bars, of pieces that have a pitch there; a run of n bars with the harmony of the bar
before them is n + 1 bars of it. Pieces with drums and pitched notes there that begin with drums alone are counted by the bar of
their first pitched note.

With `--model` it also measures the loss of each piece in nats/token. Best-of-n reranking compares candidates with both
figures (musiclm/generation/rerank.py). Pieces are taken by a hash of their names, `--most` of each folder and split; of a long
piece its first 12,000 tokens.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from musiclm import checkpoint, evaluation
from musiclm.data import Piece, open_source
from musiclm.evaluation import harmony, music_metrics
from musiclm.generation import loops, standing

MOST_TOKENS = 12_000
BARS = 16  # in which harmony may stand


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", nargs="?", help="a corpus; the bundled chorales if left out")
    parser.add_argument("--splits", default="train,validation,test", help="which, with commas between them")
    parser.add_argument("--most", type=int, help="pieces of each folder and split")
    parser.add_argument("--model", help="measure the loss of this model, too")
    parser.add_argument("--quick", action="store_true", help="five pieces of each folder")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    most = 5 if arguments.quick else arguments.most
    loaded = checkpoint.load(arguments.model) if arguments.model else None
    source = open_source(arguments.corpus, loaded.tokenizer() if loaded else None)
    splits = arguments.splits.split(",")
    folder = folders([p for split in splits for p in source.pieces(split)])
    pieces = [p for split in splits for p in chosen(source.pieces(split), folder, most)]
    looped: dict[str, list[bool]] = collections.defaultdict(list)
    means, windows, runs, still = [], [], [], 0
    first_pitch = collections.Counter[int]()
    for piece in pieces:
        score = source.tokenizer.decode(np.asarray(piece.tokens, dtype=np.int64))
        found = loops.windows(score)
        looped[folder[piece.name]].append(bool(found) and max(found) > loops.LOOP)
        windows += found
        still += loops.stands_still(score)
        means.append(loops.repetition(score))
        notes = music_metrics.notes_of(score, BARS)
        if notes.pitched().any():
            runs.append(harmony.standing_runs(harmony.chroma(notes, notes.bars)))
            if notes.is_drum.any():
                first_pitch[bar_of_first_pitch(notes)] += 1
    report = {
        "corpus": source.name,
        "splits": arguments.splits,
        "pieces": len(pieces),
        "pieces_with_a_loop": int(sum(map(sum, looped.values()))),
        "share_of_pieces_with_a_loop": sum(map(sum, looped.values())) / len(pieces),
        "share_of_windows_with_a_loop": float((np.array(windows) > loops.LOOP).mean()),
        "pieces_that_stand_still": still,
        "pieces_with_a_pitch": len(runs),
        "pieces_with_a_run_of_standing_harmony": {n: sum(int(r.max()) >= n for r in runs) for n in (2, 3, 4)},
        "times_that_the_guard_would_act": sum(int((r == standing.STANDING).sum()) for r in runs),
        "pieces_with_drums_and_a_pitch": first_pitch.total(),
        "of_these_begin_with_drums_alone_by_bar_of_first_pitch": {n: first_pitch[n] for n in sorted(first_pitch) if n},
        "by_folder": {name: [int(sum(each)), len(each)] for name, each in sorted(looped.items())},
        "repetition": spread(means),
    }
    if loaded:
        model = loaded.model()
        nats = [
            float(of_piece[source.tokenizer.eval_mask(piece.tokens[1:])].mean())
            for piece, of_piece in evaluation.token_losses(model, source.tokenizer, pieces)
        ]
        report |= {"model": loaded.name, "nats_per_token": spread(nats)}
    print(json.dumps(report) if arguments.json else "\n".join(f"{k}: {v}" for k, v in report.items()))


def bar_of_first_pitch(notes: music_metrics.Notes) -> int:
    """Return the bar in which the first pitched note begins, from 1, if drums begin before it; else 0."""
    first = notes.start[~notes.is_drum].min()
    if notes.start[notes.is_drum].min() >= first - 1e-6:
        return 0
    return int(np.searchsorted(notes.bars, first + 1e-6, side="right"))


def folders(pieces: Sequence[Piece]) -> dict[str, str]:
    """Return the first folder of each piece's name that is not that of all."""
    parts = {piece.name: Path(piece.name).parts for piece in pieces}
    depth = 0
    while len({each[depth : depth + 1] for each in parts.values()}) == 1:
        depth += 1
    return {name: each[depth] if depth < len(each) - 1 else "" for name, each in parts.items()}


def chosen(pieces: Sequence[Piece], folder: dict[str, str], most: int | None) -> list[Piece]:
    by_folder = collections.defaultdict(list)
    for piece in sorted(pieces, key=lambda p: hashlib.sha256(p.name.encode()).digest()):
        by_folder[folder[piece.name]].append(dataclasses.replace(piece, tokens=piece.tokens[:MOST_TOKENS]))
    return [piece for each in by_folder.values() for piece in each[:most]]


def spread(values: list[float]) -> list[float]:
    """Return the mean and the standard deviation."""
    return [round(float(np.mean(values)), 4), round(float(np.std(values)), 4)]


if __name__ == "__main__":
    main()
