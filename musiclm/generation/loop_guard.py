"""The loop guard: detects loops in one continuation, and returns where to rewind to and at which temperature to resample.

A loop is found by `loops.loop_start`. The continuation rewinds to the bar line before the loop and is resampled at a higher
temperature until it is past the time at which the loop was found. Only ids are looked at: no state of the model is stored for
it, so it costs nothing where there is no loop, and other continuations of a batch do not change.
"""

from __future__ import annotations

import numpy as np

from .. import midi
from .loops import WINDOW, loop_start
from .prompt import Prompt

CHECK_EVERY = 4.0  # quarters between two checks
FEWEST_NEW = 8.0  # quarters of new music before the first check
TRIES = 4  # for each `WINDOW` of new music
TEMPERATURE_FACTOR = 1.2  # at each try
MIN_TEMPERATURE = 0.8  # of a new try, before the factor


class LoopGuard:
    """The state of the guard of one continuation.

    Args:
        prompt: what is continued.
        live: the music is played already. It cannot rewind: only the temperature is raised.

    Attributes:
        num_loops: how many loops were resampled.
        next_check: when to check again, in quarters.
        hot_until: up to where the temperature is raised, in quarters; None if it never was.
        heat: how many tries at the present loop.
    """

    def __init__(self, prompt: Prompt, *, live: bool) -> None:
        self.prompt, self.live = prompt, live
        self.num_loops = 0
        self.next_check = prompt.quarters + FEWEST_NEW
        self.hot_until: float | None = None
        self.heat = 0

    def check(self, ids: np.ndarray, reached: float) -> np.ndarray | None:
        """Return the new ids from which to resample if they end in a loop; None if not, or if it is not time to check.

        Args:
            ids: the new ids so far.
            reached: the musical time at which they end, in quarters.
        """
        if reached < self.next_check:
            return None
        self.next_check = reached + CHECK_EVERY
        tries = TRIES * (1 + int((reached - self.prompt.quarters) // WINDOW))
        if self.num_loops >= tries:
            return None
        score, offset = self.prompt.recent(ids, reached - WINDOW)
        start = loop_start(score, max(0.0, reached - WINDOW - offset), reached - offset)
        if start is None:
            return None
        is_same = self.hot_until is not None and reached <= self.hot_until + WINDOW / 4
        self.heat = self.heat + 1 if is_same else 1
        self.num_loops += 1
        if self.live:
            self.hot_until, self.next_check = reached + WINDOW / 2, reached + WINDOW
            return ids
        back = max(self.prompt.quarters, midi.last_bar_line(score, start) + offset)
        self.hot_until, self.next_check = reached, back + FEWEST_NEW
        return ids[: self.prompt.num_before(ids, back)]

    def is_hot(self, reached: float) -> bool:
        """Return whether what comes after a time is sampled at a raised temperature."""
        return self.hot_until is not None and self.hot_until > reached

    def temperature(self, usual: float) -> float:
        """Return the raised temperature."""
        return float(max(usual, MIN_TEMPERATURE) * TEMPERATURE_FACTOR**self.heat)
