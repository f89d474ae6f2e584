"""The grammar of `performance`: a piano in real time."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ...tokenizers import performance
from .base import Grammar, Limits
from .dispatch import grammar_class


class Performing(NamedTuple):
    """The state of one batch element of `performance` ids.

    Attributes:
        last: id; the first of its kind where the kind is all that matters.
        silent: steps of 10 ms before which no new note may begin.
        sounding: keys that sound, in the order in which they began.
        first: index among these of the first that may still end now: ends come in that order.
    """

    last: int = performance.BOS
    silent: int = 0
    sounding: tuple[int, ...] = ()
    first: int = 0


class PerformanceGrammar(Grammar):
    """Exactly the sequences that `performance` would encode.

    Only sounding keys end and only silent ones begin; at one time ends come first, in the order in which their keys
    began, then beginnings from low to high, each with its velocity; a silence is whole seconds and what is left.

    Args:
        tokenizer: `performance`.
        not_before: in quarters; before it there is only silence, and one shift ends after it.
        limits: the limits on new music.
    """

    def __init__(
        self, tokenizer: performance.Performance, not_before: float = 0.0, limits: Limits | None = None
    ) -> None:
        super().__init__(tokenizer.vocab_size)
        self._not_before = math.ceil(not_before * performance.STEPS_A_QUARTER - 1e-6)
        permitted = limits.permitted if limits else np.ones(self.vocab_size, bool)
        self._begins = performance.NOTE_ON + np.flatnonzero(permitted[performance.NOTE_ON : performance.NOTE_OFF])
        self._max_polyphony = limits.max_polyphony if limits else None

    def beginning(self) -> Performing:
        return Performing(silent=self._not_before)

    def cache_key(self, state: Performing) -> Performing | int:
        return -1 if performance.NOTE_ON <= state.last < performance.NOTE_OFF else state

    def alike(self, token: int) -> int:
        return performance.VELOCITY if performance.VELOCITY <= token < performance.TIME_SHIFT else token

    def following(self, state: Performing) -> list[np.ndarray | slice]:
        p, t = state, performance
        if t.NOTE_ON <= p.last < t.NOTE_OFF:
            return [slice(t.VELOCITY, t.TIME_SHIFT)]
        if p.silent > 0:
            return [slice(t.TIME_SHIFT + min(p.silent, t.LONGEST_SHIFT) - 1, None)]
        allowed: list[np.ndarray | slice] = []
        if p.last < t.TIME_SHIFT or p.last == t.VOCAB_SIZE - 1:
            allowed.append(slice(t.TIME_SHIFT, None))
        lowest = 0
        if t.VELOCITY <= p.last < t.TIME_SHIFT:  # keys begin from low to high, and no key ends after that
            lowest = p.sounding[-1] + 1
        else:
            allowed.append(t.NOTE_OFF + np.array(p.sounding[p.first :], np.int64))
        if self._max_polyphony is None or len(p.sounding) < self._max_polyphony:
            allowed.append(self._begins[int(np.searchsorted(self._begins, t.NOTE_ON + lowest)) :])
        return allowed

    def banned(self, state: Performing) -> list[int]:
        return [performance.NOTE_ON + key for key in state.sounding]

    def after(self, state: Performing, token: int) -> Performing:
        p, t = state, performance
        if token >= t.TIME_SHIFT:
            # shorter shifts all lead to the same states
            last = t.VOCAB_SIZE - 1 if token == t.VOCAB_SIZE - 1 else t.TIME_SHIFT
            return Performing(last, max(0, p.silent - (token - t.TIME_SHIFT + 1)), p.sounding, 0)
        if token >= t.VELOCITY:
            return Performing(t.VELOCITY, p.silent, p.sounding, p.first)
        if t.NOTE_ON <= token < t.NOTE_OFF:
            return Performing(t.NOTE_ON, p.silent, (*p.sounding, token - t.NOTE_ON), p.first)
        if t.NOTE_OFF <= token < t.VELOCITY and token - t.NOTE_OFF in p.sounding:
            i = p.sounding.index(token - t.NOTE_OFF)
            return Performing(t.NOTE_OFF, p.silent, p.sounding[:i] + p.sounding[i + 1 :], i)
        return p._replace(last=token)


@grammar_class.register
def _(tokenizer: performance.Performance) -> type[Grammar]:
    return PerformanceGrammar
