"""The grammar of `grid`: cells, and no special tokens."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...tokenizers import grid
from ...tokenizers.vocabulary import Kind, is_kind
from .base import Grammar, Limits
from .dispatch import grammar_class


class Step(NamedTuple):
    """The state of one batch element within a sixteenth: how many cells it has, and how many of them are not silent."""

    cells: int = 0
    singing: int = 0


class GridGrammar(Grammar):
    """Cells only. With a maximum polyphony, voices that come after that many sounding ones are silent.

    Args:
        tokenizer: `grid` or `grid-infill`.
        not_before: not used: cells are always in order of time.
        limits: the limits on new music.
    """

    def __init__(self, tokenizer: grid.Grid, not_before: float = 0.0, limits: Limits | None = None) -> None:
        super().__init__(tokenizer.vocab_size)
        permitted = is_kind(tokenizer.vocabulary, Kind.CELL, Kind.SILENCE)
        if limits is not None:
            permitted &= limits.permitted
        self._cells, self._silence = np.flatnonzero(permitted), np.array([grid.SILENCE])
        max_polyphony = limits.max_polyphony if limits else None
        self._most = len(grid.VOICES) if max_polyphony is None else max_polyphony

    def beginning(self) -> Step:
        return Step()

    def following(self, state: Step) -> list[np.ndarray]:
        return [self._cells if state.singing < self._most else self._silence]

    def after(self, state: Step, token: int) -> Step:
        if not grid.SILENCE <= token < grid.FIRST_ARRANGED:
            return state
        if state.cells == len(grid.VOICES) - 1:
            return Step()
        return Step(state.cells + 1, state.singing + (token != grid.SILENCE))


@grammar_class.register
def _(tokenizer: grid.Grid) -> type[Grammar]:
    return GridGrammar
