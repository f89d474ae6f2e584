"""Where music may end by itself: the model samples the end of the piece, or a phrase ends at a bar line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from symusic import Score
from torch import Tensor

from .. import midi
from ..tokenizers.base import Tokenizer
from ..tokenizers.vocabulary import later_ids
from .sampler import Constraint

RINGING = 1 / 8  # quarters that a note may sound past a bar line, as played notes do


class AllowEos:
    """Constraints that also allow some batch elements to end, where the music could continue to a later time.

    Attributes:
        open: the batch elements that may end; the caller adds an element when it is long enough.
    """

    def __init__(self, tokenizer: Tokenizer, constraints: Sequence[Constraint]) -> None:
        self.open: set[int] = set()
        self._constraints, self._eos = constraints, tokenizer.eos
        later = later_ids(tokenizer.vocabulary)
        self._later = None if later is None else later.tolist()

    def start(self, batch: int) -> list[Any]:
        return [constraint.start(batch) for constraint in self._constraints]

    def allow(self, state: list[Any]) -> Tensor | None:
        masks = [constraint.allow(each) for constraint, each in zip(self._constraints, state, strict=True)]
        added = [mask for mask in masks if mask is not None]
        if not added:
            return None
        allowed = torch.stack(added).sum(0)
        for index in self.open:
            if self._later is None or bool((allowed[index, self._later] > float("-inf")).any()):
                allowed[index, self._eos] = 0.0
        return allowed

    def step(self, state: list[Any], token: Tensor) -> list[Any]:
        return [constraint.step(each, token) for constraint, each in zip(self._constraints, state, strict=True)]


def phrase_ends(score: Score, line: float) -> bool:
    """Return whether a phrase ends at a bar line: no note begins in the half bar before it, and none sounds past it.

    Drums play through the ends of phrases and are ignored; where there are only drums every bar line is an end.

    Args:
        score: it has to reach the bar line.
        line: in quarters.
    """
    half = midi.last_bar_line(score, line - 1e-3) / 2 + line / 2
    notes = [(n.time, n.end) for t in score.tracks if not t.is_drum for n in t.notes]
    tpq = score.ticks_per_quarter
    if any(start / tpq < line - 1e-6 and end / tpq > line + RINGING for start, end in notes):
        return False
    return not any(half + 1e-6 < start / tpq < line - 1e-6 for start, _ in notes)


def first_phrase_end(score: Score, start: float, stop: float) -> float | None:
    """Return the first bar line in [start, stop] quarters at which a phrase ends, in quarters; None if there is none."""
    line = midi.bar_line(score, start)
    while line <= stop + 1e-6:
        if phrase_ends(score, line):
            return line
        line = midi.bar_line(score, line, 1)
    return None
