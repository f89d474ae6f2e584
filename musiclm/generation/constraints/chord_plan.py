"""Chords that are asked for, as attributes of bars: `score` tokens with a plan.

B batch, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...errors import TokenizerError
from ...tokenizers.base import Tokenizer
from ...tokenizers.vocabulary import Kind, is_kind

Chord = tuple[int, str]


class Place(NamedTuple):
    """How many bars have begun, and how many chords of the last one have been said."""

    bars: int = 0
    chords: int = 0


class ChordPlan:
    """A constraint that forces the chord attributes of new bars, and bans nothing else.

    Args:
        tokenizer: with chords in its vocabulary.
        chords: of each half bar; the progression is repeated.
        first: number of the bar at which it begins; earlier bars are free.

    Raises:
        TokenizerError: the vocabulary lacks one of the chords.
    """

    def __init__(self, tokenizer: Tokenizer, chords: Sequence[Chord], first: int) -> None:
        table = tokenizer.vocabulary
        self._kinds, self._first = [token.kind for token in table], first
        of_chord = {token.value: i for i, token in enumerate(table) if token.kind == Kind.CHORD}
        if missing := [chord for chord in chords if chord not in of_chord]:
            raise TokenizerError(f"the tokenizer '{tokenizer.name}' has no chord {missing[0]}")
        is_chord = is_kind(table, Kind.CHORD)
        self._masks = []
        for chord in chords:
            mask = np.where(is_chord, -np.inf, 0.0).astype(np.float32)
            mask[of_chord[chord]] = 0.0
            self._masks.append(torch.from_numpy(mask))
        self._free = torch.zeros(len(table))

    def start(self, batch: int) -> list[Place]:
        return [Place()] * batch

    def step(self, state: list[Place], token: Tensor) -> list[Place]:
        return [self._after(place, i) for place, i in zip(state, token.tolist(), strict=True)]

    def allow(self, state: list[Place]) -> Tensor:
        return torch.stack([self._mask(place) for place in state])

    def _after(self, place: Place, token: int) -> Place:
        if self._kinds[token] == Kind.BAR:
            return Place(place.bars + 1)
        return place._replace(chords=place.chords + 1) if self._kinds[token] == Kind.CHORD else place

    def _mask(self, place: Place) -> Tensor:
        bar = place.bars - 1 - self._first
        if bar < 0 or place.chords > 1:
            return self._free
        return self._masks[(2 * bar + place.chords) % len(self._masks)]
