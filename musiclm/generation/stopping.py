"""Where music may end of itself: the model says so, or a phrase ends at a bar line."""

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

RINGING = 1 / 8  # quarters that a note may ring over a bar line, as players let it


class AllowEos:
    """Rules, but that some rows may end where the music could as well go on to a later time.

    Attributes:
        open: the rows of the batch that may; the caller adds them as they become long enough.
    """

    def __init__(self, tokenizer: Tokenizer, rules: Sequence[Constraint]) -> None:
        self.open: set[int] = set()
        self._rules, self._eos = rules, tokenizer.eos
        later = later_ids(tokenizer.vocabulary)
        self._later = None if later is None else later.tolist()

    def start(self, batch: int) -> list[Any]:
        return [rule.start(batch) for rule in self._rules]

    def allow(self, state: list[Any]) -> Tensor | None:
        opinions = [rule.allow(each) for rule, each in zip(self._rules, state, strict=True)]
        told = [opinion for opinion in opinions if opinion is not None]
        if not told:
            return None
        allowed = torch.stack(told).sum(0)
        for row in self.open:
            if self._later is None or bool((allowed[row, self._later] > float("-inf")).any()):
                allowed[row, self._eos] = 0.0
        return allowed

    def step(self, state: list[Any], token: Tensor) -> list[Any]:
        return [rule.step(each, token) for rule, each in zip(self._rules, state, strict=True)]


def phrase_ends(score: Score, line: float) -> bool:
    """Return whether a phrase ends at a bar line: the half bar before it brings no new note, and none sounds beyond it.

    Drums play through the ends of phrases and are not asked; of drums alone every bar line is an end.

    Args:
        score: at least up to the bar line.
        line: in quarters.
    """
    half = midi.last_bar_line(score, line - 1e-3) / 2 + line / 2
    notes = [(n.time, n.end) for t in score.tracks if not t.is_drum for n in t.notes]
    tpq = score.ticks_per_quarter
    if any(start / tpq < line - 1e-6 and end / tpq > line + RINGING for start, end in notes):
        return False
    return not any(half + 1e-6 < start / tpq < line - 1e-6 for start, _ in notes)


def first_phrase_end(score: Score, start: float, stop: float) -> float | None:
    """Return the first bar line from a time to another at which a phrase ends, in quarters; None if there is none."""
    line = midi.bar_line(score, start)
    while line <= stop + 1e-6:
        if phrase_ends(score, line):
            return line
        line = midi.bar_line(score, line, 1)
    return None
