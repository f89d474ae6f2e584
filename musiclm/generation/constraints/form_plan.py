"""A form that is asked for, as attributes of bars: `score` tokens with a plan.

B batch, V vocabulary.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...tokenizers.base import Tokenizer
from ...tokenizers.vocabulary import Kind, is_kind

MAX_CACHED = 4096  # masks that are kept


class Said(NamedTuple):
    """How many bars have begun, and ids of the chords of those from the first new bar on."""

    bars: int = 0
    chords: tuple[tuple[int, ...], ...] = ()


class FormPlan:
    """A constraint that forces sections and repeats of new bars, and the chords of bars that repeat others.

    Each letter has equally many bars. A bar of a letter that was there before repeats the same bar of its nearest earlier
    occurrence whose distance the vocabulary has; where it has none, and in the last bar of the piece, so that it can end,
    the repeat is free. A bar of a new letter may repeat bars of its own section only.

    Args:
        tokenizer: with sections and repeats in its vocabulary.
        form: letters.
        num_bars: of all of them together, a multiple of their number.
        first: number of the bar at which they begin.
        repeats_chords: whether a bar has the chords of the bar that it repeats.
    """

    def __init__(
        self, tokenizer: Tokenizer, form: str, *, num_bars: int, first: int, repeats_chords: bool = True
    ) -> None:
        table = tokenizer.vocabulary
        self._kinds, self._first, self._repeats_chords = [token.kind for token in table], first, repeats_chords
        self._is_chord = is_kind(table, Kind.CHORD)
        sections, repeats = (
            {token.value: i for i, token in enumerate(table) if token.kind == kind}
            for kind in (Kind.SECTION, Kind.REPEAT)
        )
        size = num_bars // len(form)
        self._allowed: list[np.ndarray] = []  # (V,) booleans of each new bar
        self._back: list[int] = []  # how many bars back is the one that it repeats; 0 for none that is forced
        for bar in range(num_bars):
            part, within = divmod(bar, size)
            earlier = [(part - p) * size for p in range(part - 1, -1, -1) if form[p] == form[part]]
            back = next((distance for distance in earlier if distance in repeats), 0)
            if earlier and (not back or bar == num_bars - 1):
                back, allowed = 0, list(repeats.values())
            elif earlier:
                allowed = [repeats[back]]
            else:
                allowed = [i for value, i in repeats.items() if value is not None and value <= within]
            mask = ~is_kind(table, Kind.SECTION, Kind.REPEAT)
            mask[[sections[form[part]], *allowed]] = True
            self._allowed.append(mask)
            self._back.append(back)
        self._free = torch.zeros(len(table))
        self._masks: OrderedDict[tuple[int, int], Tensor] = OrderedDict()

    def start(self, batch: int) -> list[Said]:
        return [Said()] * batch

    def step(self, state: list[Said], token: Tensor) -> list[Said]:
        return [self._after(said, i) for said, i in zip(state, token.tolist(), strict=True)]

    def allow(self, state: list[Said]) -> Tensor:
        return torch.stack([self._mask(said) for said in state])

    def _after(self, said: Said, token: int) -> Said:
        kind, chords = self._kinds[token], said.chords
        if kind == Kind.BAR:
            return Said(said.bars + 1, (*chords, ()) if said.bars >= self._first else chords)
        if kind == Kind.CHORD and chords:
            return Said(said.bars, (*chords[:-1], (*chords[-1], token)))
        return said

    def _mask(self, said: Said) -> Tensor:
        bar = len(said.chords) - 1
        if not 0 <= bar < len(self._allowed):
            return self._free
        chord, back = -1, self._back[bar]
        if back and self._repeats_chords:
            before, number = said.chords[bar - back], len(said.chords[bar])
            chord = before[number] if number < len(before) else -1
        mask = self._masks.get((bar, chord))
        if mask is None:
            allowed = self._allowed[bar].copy()
            if chord >= 0:
                allowed &= ~self._is_chord
                allowed[chord] = True
            mask = self._masks[bar, chord] = torch.from_numpy(np.where(allowed, 0.0, -np.inf).astype(np.float32))
            if len(self._masks) > MAX_CACHED:
                self._masks.popitem(last=False)
        return mask
