"""Bars that are given: new music has their time signatures, and no tempo of its own. `score` tokens.

B batch, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...tokenizers.base import Tokenizer
from ...tokenizers.vocabulary import Kind, is_kind


class Place(NamedTuple):
    """How many bars have begun, and whether one of them has said a tempo."""

    bars: int = 0
    has_tempo: bool = False


class GivenBars:
    """A constraint that forces the time signature of each bar, and bans tempi behind the first one.

    A target is written beside its source, whose tempi the score keeps: others would change what follows in the ids alone.

    Args:
        tokenizer: whose bars begin with a time signature.
        signatures: id of the time signature of each bar of the piece, (M,); later bars are free.
    """

    def __init__(self, tokenizer: Tokenizer, signatures: np.ndarray) -> None:
        table = tokenizer.vocabulary
        self._signatures = [int(i) for i in signatures]
        self._is_bar, self._is_tempo = is_kind(table, Kind.BAR).tolist(), is_kind(table, Kind.TEMPO)
        self._says_tempo, self._is_signature = self._is_tempo.tolist(), is_kind(table, Kind.TIME_SIGNATURE)
        self._masks: dict[tuple[int, bool], Tensor] = {}

    def start(self, batch: int) -> list[Place]:
        return [Place()] * batch

    def step(self, state: list[Place], token: Tensor) -> list[Place]:
        return [self._after(place, i) for place, i in zip(state, token.tolist(), strict=True)]

    def allow(self, state: list[Place]) -> Tensor:
        return torch.stack([self._mask(place) for place in state])

    def _after(self, place: Place, token: int) -> Place:
        if self._is_bar[token]:
            return place._replace(bars=place.bars + 1)
        if place.bars and self._says_tempo[token]:  # a header says one too, and the first bar says it again
            return place._replace(has_tempo=True)
        return place

    def _mask(self, place: Place) -> Tensor:
        signature = self._signatures[place.bars - 1] if 0 < place.bars <= len(self._signatures) else -1
        key = signature, place.has_tempo
        if key not in self._masks:
            is_banned = self._is_tempo & place.has_tempo
            if signature >= 0:
                is_banned = is_banned | self._is_signature
                is_banned[signature] = False
            self._masks[key] = torch.from_numpy(np.where(is_banned, -np.inf, 0.0).astype(np.float32))
        return self._masks[key]
