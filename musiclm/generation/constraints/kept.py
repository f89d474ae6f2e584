"""The grammar of infilling on the grid: cells outside the masked span are given."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .base import Grammar


class Cell(NamedTuple):
    """The state of one batch element: the number of its ids, and the state of the inner grammar."""

    number: int
    inner: object


class KeptCells(Grammar):
    """A grammar that forces given ids at some positions; an inner grammar decides about the others.

    Args:
        inner: for the free positions.
        start: the position of `cells[0]`, counted in ids.
        cells: the given id at each position, -1 where it is free.
    """

    def __init__(self, inner: Grammar, start: int, cells: np.ndarray) -> None:
        super().__init__(inner.vocab_size)
        self._inner, self._start, self._cells = inner, start, cells

    def beginning(self) -> Cell:
        return Cell(0, self._inner.beginning())

    def cache_key(self, state: Cell) -> object:
        given = self._given(state.number)
        return (given,) if given >= 0 else (-1, self._inner.cache_key(state.inner))

    def following(self, state: Cell) -> list[np.ndarray]:
        given = self._given(state.number)
        if given >= 0:
            return [np.array([given])]
        return [np.flatnonzero(self._inner.mask(state.inner) == 0)]

    def after(self, state: Cell, token: int) -> Cell:
        return Cell(state.number + 1, self._inner.after(state.inner, token))

    def _given(self, number: int) -> int:
        at = number - self._start
        return int(self._cells[at]) if 0 <= at < len(self._cells) else -1
