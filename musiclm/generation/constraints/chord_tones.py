"""Chords that are asked for: notes that begin while a chord holds, and are not in it, are made less likely.

B batch, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...errors import TokenizerError
from ...midi.chords import pitch_classes
from ...tokenizers import grid
from ...tokenizers.base import Tokenizer
from ...tokenizers.miditok import MidiTokTokenizer
from ...tokenizers.vocabulary import Kind, has, pitches_on

BANNED = -1e4  # nats, at a strength of 1: beside an allowed token the probability is exactly 0
STEPS_A_BAR = 4 * grid.STEPS_A_QUARTER
DRUMS = -1


class Place(NamedTuple):
    """A place in bars.

    Attributes:
        bar: number of the bar, -1 before the first.
        half: of the bar, 0 or 1.
        length: of the bar, in positions.
        are_drums: whether the current program is drums.
        cells: on a grid the last cell of each voice, that of the next voice first.
    """

    bar: int = -1
    half: int = 0
    length: int = 0
    are_drums: bool = False
    cells: tuple[int, ...] = (-1,) * len(grid.VOICES)


class ChordTones:
    """A constraint that makes pitches outside the chord 1 - strength times as likely; drums excepted.

    The half bar in which a note begins decides. On a grid, whose bars are of 4/4, a voice may hold a pitch at no cost.

    Args:
        tokenizer: `grid`, or one whose ids say bars and positions, without merges.
        chords: of each half bar; the progression is repeated.
        strength: 0, no preference, to 1.
        first: number of the bar at which it begins.

    Raises:
        TokenizerError: the ids do not say bars.
    """

    def __init__(self, tokenizer: Tokenizer, chords: Sequence[tuple[int, str]], strength: float, first: int) -> None:
        table = tokenizer.vocabulary
        self._is_grid = isinstance(tokenizer, grid.Grid)
        self._a_beat = 0  # positions
        if isinstance(tokenizer, MidiTokTokenizer) and tokenizer.tokenization == "REMI":
            self._a_beat = int(tokenizer.midi_tokenizer.config.max_num_pos_per_beat)
        if not (self._is_grid or self._a_beat) or has(table, Kind.MERGED):
            raise TokenizerError(
                f"the ids of the tokenizer '{tokenizer.name}' do not say where in a bar a note begins: no chords can be "
                "asked for; take a model of 'score' tokens"
            )
        self._first, self._table = first, table
        less = math.log(1 - strength) if strength < 1 else BANNED
        pitches = pitches_on(table)
        self._biases = []
        for chord in chords:
            is_outside = (pitches >= 0) & ~np.isin(pitches % 12, list(pitch_classes(chord)))
            self._biases.append(torch.from_numpy(np.where(is_outside, less, 0.0).astype(np.float32)))
        self._free = torch.zeros(len(table))

    def start(self, batch: int) -> list[Place]:
        has_signatures = has(self._table, Kind.TIME_SIGNATURE)
        return [Place(bar=0 if self._is_grid else -1, length=0 if has_signatures else 4 * self._a_beat)] * batch

    def step(self, state: list[Place], token: Tensor) -> list[Place]:
        after = self._after_cell if self._is_grid else self._after
        return [after(place, i) for place, i in zip(state, token.tolist(), strict=True)]

    def allow(self, state: list[Place]) -> Tensor:
        return torch.stack([self._bias(place) for place in state])

    def _after(self, place: Place, token: int) -> Place:
        kind, value = self._table[token]
        if kind == Kind.BAR:
            return place._replace(bar=place.bar + 1, half=0)
        if kind == Kind.TIME_SIGNATURE:
            return place._replace(length=value[0] * self._a_beat)
        if kind == Kind.POSITION:
            return place._replace(half=int(value >= place.length // 2))
        return place._replace(are_drums=value == DRUMS) if kind == Kind.PROGRAM else place

    def _after_cell(self, place: Place, token: int) -> Place:
        """Return the place after a cell; the length counts the cells so far."""
        if self._table[token].kind not in (Kind.CELL, Kind.SILENCE):
            return place
        number = place.length + 1
        bar, step = divmod(number // len(grid.VOICES), STEPS_A_BAR)
        return Place(bar, int(2 * step >= STEPS_A_BAR), number, cells=(*place.cells[1:], token))

    def _bias(self, place: Place) -> Tensor:
        bar = place.bar - self._first
        if bar < 0 or place.are_drums:
            return self._free
        bias = self._biases[(2 * bar + place.half) % len(self._biases)]
        if not self._is_grid or place.cells[0] < 0:
            return bias
        bias = bias.clone()
        bias[place.cells[0]] = 0.0
        return bias
