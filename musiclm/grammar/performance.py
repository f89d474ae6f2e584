"""The grammar of `performance`: a piano in real time."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ..tokens import performance
from .base import Grammar


class Performing(NamedTuple):
    """Where one row of `performance` ids stands.

    Attributes:
        last: id.
        time: in steps of 10 ms.
        sounding: keys that are down, in the order in which they went.
        first: the place among these of the first that may still end now: ends come in that order.
    """

    last: int = performance.BOS
    time: int = 0
    sounding: tuple[int, ...] = ()
    first: int = 0


class PerformanceGrammar(Grammar):
    """What `performance` would itself write, and nothing else.

    Only sounding keys end and only silent ones begin; at one time ends come first, in the order in which their keys
    began, then beginnings from low to high, each with its velocity; a silence is whole seconds and what is left.

    Args:
        not_before: in quarters; before it there is only silence, and one shift ends behind it.
    """

    def __init__(self, not_before: float = 0.0) -> None:
        self._not_before = math.ceil(not_before * performance.STEPS_A_QUARTER - 1e-6)

    def beginning(self) -> Performing:
        return Performing()

    def allowed(self, place: Performing) -> np.ndarray:
        p, t = place, performance
        allowed = np.zeros(t.VOCAB_SIZE, bool)
        if t.NOTE_ON <= p.last < t.NOTE_OFF:
            allowed[t.VELOCITY : t.TIME_SHIFT] = True
            return allowed
        missing = self._not_before - p.time
        if missing > 0:
            allowed[t.TIME_SHIFT + min(missing, t.LONGEST_SHIFT) - 1 :] = True
            return allowed
        shifted = p.last >= t.TIME_SHIFT
        allowed[t.TIME_SHIFT :] = not shifted or p.last == t.VOCAB_SIZE - 1
        lowest = t.NOTE_ON
        if t.VELOCITY <= p.last < t.TIME_SHIFT:  # keys begin from low to high, and nothing ends any more
            lowest = t.NOTE_ON + p.sounding[-1] + 1
        else:
            allowed[[t.NOTE_OFF + key for key in p.sounding[p.first :]]] = True
        allowed[lowest : t.NOTE_OFF] = True
        allowed[[t.NOTE_ON + key for key in p.sounding]] = False
        return allowed

    def after(self, place: Performing, token: int) -> Performing:
        p, t = place, performance
        if token >= t.TIME_SHIFT:
            return Performing(token, p.time + token - t.TIME_SHIFT + 1, p.sounding, 0)
        if t.NOTE_ON <= token < t.NOTE_OFF:
            return Performing(token, p.time, (*p.sounding, token - t.NOTE_ON), p.first)
        if t.NOTE_OFF <= token < t.VELOCITY and token - t.NOTE_OFF in p.sounding:
            i = p.sounding.index(token - t.NOTE_OFF)
            return Performing(token, p.time, p.sounding[:i] + p.sounding[i + 1 :], i)
        return p._replace(last=token)
