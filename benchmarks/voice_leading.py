"""How often the penalties of voice leading intervene, and how often the chord changes in a bar beside Bach.

    python benchmarks/voice_leading.py bach-transformer -n 20 --option temperature=0.5 --option voice_leading=4
    python benchmarks/voice_leading.py bach-transformer --quick

A model writes n unconditional pieces of 16 bars. For each cell that is sampled before the ending, the probabilities with the
penalties are compared with those without, after temperature and filters:

- moved: half the sum of the absolute differences (total variation), the mean over cells: the share of cells whose sample the
  penalties change; and the same over the cells at which a voice moved;
- touched: the share of cells with a penalty on a token that has over 0.05 probability without it;
- hold: the mean probability of holding the voice's last cell, with and without.

Chord changes of a bar are counted as in `evaluation.harmony.chord_changes`: quarters whose triad label differs from the one
before. The reference is a split of the bundled chorales.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from symusic import Score
from torch import Tensor

from musiclm import tokenizers
from musiclm.data import bundled
from musiclm.evaluation.harmony import TRIADS, chroma
from musiclm.evaluation.music_metrics import notes_of
from musiclm.generation.composer import Composer
from musiclm.generation.config import GenerationConfig, SamplerConfig
from musiclm.generation.sampler import Constraint, Sampler

PROBABLE = 0.05
MOST_CHANGES = 4  # of a bar of four quarters


class Counter:
    """What the penalties did, summed over cells."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = collections.defaultdict(float)

    def add(self, plain: Tensor, penalized: Tensor, exempt: Tensor, penalty: Tensor) -> None:
        """Add the (B, V) probabilities of one step."""
        hold, hold_penalized = ((of * exempt).sum(1) for of in (plain, penalized))
        moved = (plain - penalized).abs().sum(1) / 2
        self.sums["cells"] += len(plain)
        self.sums["moved"] += float(moved.sum())
        self.sums["moves"] += float((1 - hold).sum())
        self.sums["moved_moves"] += float(((plain - penalized).abs() * ~exempt).sum() / 2)
        self.sums["touched"] += float(((plain > PROBABLE) & (penalty < 0)).any(1).sum())
        self.sums["hold"] += float(hold.sum())
        self.sums["hold_penalized"] += float(hold_penalized.sum())

    def report(self) -> dict[str, float]:
        cells, moves = self.sums["cells"], self.sums["moves"]
        shares = {name: self.sums[name] / cells for name in ("moved", "touched", "hold", "hold_penalized")}
        return {"num_cells": cells, **shares, "moved_of_moves": self.sums["moved_moves"] / moves}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CountingSampler(Sampler):
    """A sampler that counts what the penalties change."""

    counter: Counter

    def probabilities(
        self,
        logits: Tensor,
        exempt: Tensor | None = None,
        penalty: Tensor | None = None,
        tempered: Tensor | None = None,
    ) -> Tensor:
        penalized = super().probabilities(logits, exempt, penalty, tempered)
        if penalty is not None and exempt is not None and len(self.constraints) == 1:  # the ending has one more
            self.counter.add(super().probabilities(logits, exempt, None, tempered), penalized, exempt, penalty)
        return penalized


class CountingComposer(Composer):
    """A composer whose samplers count."""

    counter: Counter

    def sampler(
        self, constraints: Sequence[Constraint], config: SamplerConfig, penalties: Sequence[Constraint] = ()
    ) -> Sampler:
        made = super().sampler(constraints, config, penalties)
        fields = {field.name: getattr(made, field.name) for field in dataclasses.fields(made)}
        return CountingSampler(**fields, counter=self.counter)


def changes(score: Score, bars: int) -> list[int]:
    """Return the number of chord changes of each bar, the first chord of the piece left out."""
    notes = notes_of(score, bars)
    vectors = chroma(notes, np.arange(0.0, notes.bars[-1] + 0.5))
    labels = np.round(vectors @ TRIADS.T, 9).argmax(1)
    changed = np.concatenate([[False], labels[1:] != labels[:-1]])
    edges = np.round(notes.bars).astype(int)
    return [int(changed[a:b].sum()) for a, b in itertools.pairwise(edges)]


def shares(found: Sequence[int]) -> list[float]:
    """Return the shares of bars with 0, 1, ... `MOST_CHANGES` changes."""
    counted = np.bincount(np.minimum(found, MOST_CHANGES), minlength=MOST_CHANGES + 1)
    return [round(float(count) / len(found), 4) for count in counted]


def measured(a: argparse.Namespace, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document of --json."""
    composer = CountingComposer.load(a.model)
    assert isinstance(composer, CountingComposer)
    composer.counter = Counter()
    config = composer.completed(GenerationConfig.from_options(bars=a.bars, n=a.n, **options))
    samples = [c.score for c in composer.generate(None, config, a.seed)]
    corpus = bundled(tokenizers.create("grid"))
    real = [corpus.tokenizer.decode(piece.tokens) for piece in corpus.pieces(a.split)]
    return {
        "model": a.model,
        "seed": a.seed,
        "num_pieces": a.n,
        "options": dict(options),
        "penalties": composer.counter.report() if composer.counter.sums else None,
        "bars_with_changes": {
            "samples": shares([count for score in samples for count in changes(score, a.bars)]),
            "reference": shares([count for score in real for count in changes(score, a.bars)]),
            "split": a.split,
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("-n", type=int, default=20, help="pieces, in one batch (20)")
    parser.add_argument("--bars", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--split", choices=["train", "validation", "test"], default="validation")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="for sampling; repeatable")
    parser.add_argument("--quick", action="store_true", help="two pieces of four bars")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    a = parser.parse_args()
    torch.set_num_threads(1)
    if a.quick:
        a.n, a.bars = 2, 4
    options = {name: json.loads(value) for name, _, value in (each.partition("=") for each in a.option)}
    report = measured(a, options)
    if a.json:
        print(json.dumps(report))
        return
    for name, value in (report["penalties"] or {}).items():
        print(f"{name:16}{value:10.4f}")
    for name in ("samples", "reference"):
        row = "  ".join(f"{count}: {share:.3f}" for count, share in enumerate(report["bars_with_changes"][name]))
        print(f"bars with so many chord changes, {name:10} {row}")


if __name__ == "__main__":
    main()
