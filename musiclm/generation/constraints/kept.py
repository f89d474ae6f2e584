"""What is kept of music that is written anew: cells of the grid that are what they are."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .base import Grammar


class Cell(NamedTuple):
    """Where one row stands: how many ids it has, and its place in the grammar within."""

    number: int
    inner: object


class KeptCells(Grammar):
    """A grammar in which some ids are told; the others are its own.

    Args:
        inner: what else may follow.
        start: how many ids come before the first that is told or asked for.
        cells: from there on, -1 for those that are free.
    """

    def __init__(self, inner: Grammar, start: int, cells: np.ndarray) -> None:
        super().__init__(inner.vocab_size)
        self._inner, self._start, self._cells = inner, start, cells

    def beginning(self) -> Cell:
        return Cell(0, self._inner.beginning())

    def seen(self, place: Cell) -> object:
        told = self._told(place.number)
        return (told,) if told >= 0 else (-1, self._inner.seen(place.inner))

    def following(self, place: Cell) -> list[np.ndarray]:
        told = self._told(place.number)
        if told >= 0:
            return [np.array([told])]
        return [np.flatnonzero(self._inner.row(place.inner) == 0)]

    def after(self, place: Cell, token: int) -> Cell:
        return Cell(place.number + 1, self._inner.after(place.inner, token))

    def _told(self, number: int) -> int:
        at = number - self._start
        return int(self._cells[at]) if 0 <= at < len(self._cells) else -1
