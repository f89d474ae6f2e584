"""How many notes instruments play with others, by family of General MIDI: the table of `musiclm.generation.best_fit`.

    python benchmarks/density.py CORPUS

Pieces of a split with two pitched programs, in the order of the hashes of their names, at most a fifth of --most of each style.
Of each the first 64 bars, in stretches of four: of each pitched program that plays there with another, its notes per quarter.
The median and the standard deviation of the logarithm, by family, of all families together, and how many stretches there are.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter
from typing import Any

import numpy as np

from musiclm.data import open_source
from musiclm.errors import MusicLMError
from musiclm.generation.best_fit import FAMILY
from musiclm.tokenizers.score import ScoreTokenizer
from musiclm.tokenizers.vocabulary import Vocabulary

BARS, MOST_BARS, POSITIONS = 4, 64, 12  # of a stretch; of a piece; a beat
STYLES = 5  # each has at most such a share of the pieces
QUICK = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", help="of scores with plans")
    parser.add_argument("--split", default="train", choices=["train", "validation", "test"], help="(train)")
    parser.add_argument("--most", type=int, default=250, help="pieces (250)")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} pieces")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    a = parser.parse_args()
    try:
        report = measured(a.corpus, a.split, QUICK if a.quick else a.most)
    except (MusicLMError, ValueError) as error:
        parser.exit(1, f"Error: {error}\n")
    if a.json:
        print(json.dumps(report))
        return
    print(f"{report['num_pieces']} pieces, notes per quarter")
    for name, row in report["families"].items():
        print(f"{name:>6} median {row['median']:.2f}, deviation {row['deviation']:.2f}, {row['number']} stretches")


def measured(name: str, split: str, most: int) -> dict[str, Any]:
    """Return the document of --json."""
    corpus = open_source(name)
    tokenizer = corpus.tokenizer
    if not isinstance(tokenizer, ScoreTokenizer) or tokenizer.plan is None:
        raise ValueError(f"{name} is no corpus of score tokens with a plan")
    of_style, rows = Counter[int](), []
    for piece in sorted(corpus.pieces(split), key=lambda p: hashlib.sha256(p.name.encode()).digest()):
        ids = np.asarray(piece.tokens, np.int64)
        style = tokenizer.kind_of(ids)
        if of_style.total() < most and of_style[style] < most // STYLES and (found := stretches(tokenizer, ids)):
            of_style[style] += 1
            rows += found
    table = np.array(rows, float).reshape(-1, 2)
    families = {"all": _described(table[:, 1])}
    families |= {str(int(f)): _described(table[table[:, 0] == f, 1]) for f in np.unique(table[:, 0])}
    return {"corpus": name, "split": split, "num_pieces": of_style.total(), "families": families}


def stretches(tokenizer: ScoreTokenizer, ids: np.ndarray) -> list[tuple[int, float]]:
    """Return (family, notes per quarter) of each pitched program of each stretch; none where there is one program alone."""
    assert tokenizer.plan is not None
    table: Vocabulary = tokenizer.vocabulary
    notes = tokenizer.plan.notes(tokenizer.plan.without(ids))
    is_pitched = np.array([table[i].value >= 0 for i in notes.program.tolist()], bool)
    found = []
    for first in range(0, min(len(notes.bar_lengths) - BARS + 1, MOST_BARS), BARS):
        here = notes.program[is_pitched & (notes.bar >= first) & (notes.bar < first + BARS)]
        programs, counts = np.unique(here, return_counts=True)
        beats = notes.bar_lengths[first : first + BARS].sum() / POSITIONS
        if len(programs) > 1:
            found += [(table[p].value // FAMILY, n / beats) for p, n in zip(programs.tolist(), counts, strict=True)]
    return found


def _described(values: np.ndarray) -> dict[str, float]:
    logs = np.log(values)
    return {"median": float(np.exp(np.median(logs))), "deviation": float(logs.std()), "number": len(values)}


if __name__ == "__main__":
    main()
