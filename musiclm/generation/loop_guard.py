"""The loop guard: detects what real music hardly ever does in one continuation, and returns where to rewind to.

It acts on three causes:

- a loop, see `loops.loop_start`: the music rewinds to the bar line before it;
- standing harmony, see `standing.standing_start`: the music rewinds to the second bar of that harmony;
- drums that have been alone for `ALONE` quarters, or until the music ended, unless they were asked for: the music begins
  anew, and after `DRUM_TRIES` such beginnings a pitched note has to come first. That is rejection sampling. Of 186 training
  pieces with drums and pitched notes 31 begin with drums alone, the pitch entering in bar 5 in 6 of them and earlier in the
  others (`python benchmarks/repetition.py CORPUS --splits train --most 230`).

What comes after a loop or standing harmony is resampled at a higher temperature until it is past the time at which it was
found; see `HEAT`. Harmony stands where sampling is cold: near the model's own temperature, 1, it mostly moves by itself, and
hotter notes clash. Only ids are looked at: no state of the model is stored for it, so it costs nothing where nothing is
found, and other continuations of a batch do not change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import numpy as np
from symusic import Score

from .. import midi
from .drums_alone import are_alone, has_pitch
from .loops import WINDOW, loop_start
from .prompt import Prompt
from .standing import ALREADY, longest_run, standing_start

CHECK_EVERY = 4.0  # quarters between two checks
FEWEST_NEW = 8.0  # quarters of new music before the first check
TRIES = 4  # for each `WINDOW` of new music
ALONE = 16.0  # quarters: four bars of 4/4
DRUM_TRIES = 4  # beginnings of drums alone

LOOP, HARMONY, DRUMS = "loop", "harmony", "drums"
CAUSES = (LOOP, HARMONY, DRUMS)
HEAT = {LOOP: (0.8, 1.2), HARMONY: (1.0, 1.1)}
"""By cause: the least temperature before the factor, and the factor at each try."""


def causes(prompt: Prompt, *, drums_may_be_alone: bool) -> frozenset[str]:
    """Return which of `CAUSES` are to be looked for behind a prompt: one that loops or stands may continue so."""
    found = set(CAUSES)
    if prompt.score is not None:
        if loop_start(prompt.score, 0.0, prompt.quarters) is not None:
            found.remove(LOOP)
        if longest_run(prompt.score, 0.0, prompt.quarters) >= ALREADY:
            found.remove(HARMONY)
    return frozenset(found - {DRUMS} if drums_may_be_alone else found)


class LoopGuard:
    """The state of the guard of one continuation.

    Args:
        prompt: what is continued.
        causes: those to look for.
        live: the music is played already. It cannot rewind: only the temperature is raised, and drums that have been alone
            are silent until a pitched note has begun.

    Attributes:
        counts: how many stretches were resampled, by cause.
        next_check: when to check again, in quarters.
        hot_until: up to where the temperature is raised, in quarters; None if it never was.
        cause: of the present stretch at that temperature.
        heat: how many tries at it.
        needs_pitch: no drums are to play until a pitched note has begun.
    """

    def __init__(self, prompt: Prompt, causes: Collection[str], *, live: bool) -> None:
        self.prompt, self.causes, self.live = prompt, causes, live
        self.counts = Counter[str]()
        self.next_check = prompt.quarters + FEWEST_NEW
        self.hot_until: float | None = None
        self.cause, self.heat = LOOP, 0
        self.needs_pitch = False
        self._next_drums = prompt.quarters + ALONE

    def check(self, ids: np.ndarray, reached: float, *, is_over: bool = False) -> np.ndarray | None:
        """Return the new ids from which to resample; None if there is no cause, or if it is not time to check.

        Args:
            ids: the new ids so far.
            reached: the musical time at which they end, in quarters.
            is_over: the music ends with these ids. A loop is not looked for then, nor standing harmony.
        """
        if is_over or reached >= self._next_drums:
            if DRUMS in self.causes and are_alone(self.prompt.tokenizer, ids):
                return self._without_drums(ids, is_over=is_over)
            self._next_drums = float("inf")  # a pitched note has begun, or nothing has: the end is checked again
        if is_over or reached < self.next_check:
            return None
        self.next_check = reached + CHECK_EVERY
        tries = TRIES * (1 + int((reached - self.prompt.quarters) // WINDOW))
        if self.counts[LOOP] + self.counts[HARMONY] >= tries:
            return None
        score, offset = self.prompt.recent(ids, reached - WINDOW)
        cause, start = self._find(score, max(0.0, reached - WINDOW - offset), reached - offset)
        if start is None:
            return None
        is_same = self.hot_until is not None and reached <= self.hot_until + WINDOW / 4
        self.cause, self.heat = cause, self.heat + 1 if is_same else 1
        self.counts[cause] += 1
        if self.live:
            self.hot_until, self.next_check = reached + WINDOW / 2, reached + WINDOW
            return ids
        back = max(self.prompt.quarters, midi.last_bar_line(score, start) + offset)
        self.hot_until, self.next_check = reached, back + FEWEST_NEW
        return ids[: self.prompt.num_before(ids, back)]

    def _find(self, score: Score, start: float, stop: float) -> tuple[str, float | None]:
        """Return what is found in a stretch of a score, and from where it is to be resampled, in quarters."""
        found = loop_start(score, start, stop) if LOOP in self.causes else None
        if found is not None or HARMONY not in self.causes:
            return LOOP, found
        return HARMONY, standing_start(score, start, stop)

    def _without_drums(self, ids: np.ndarray, *, is_over: bool) -> np.ndarray | None:
        """Return the new ids behind which drums will not stay alone; None where it is too late for that."""
        if self.live and (self.needs_pitch or is_over):
            return None
        self.counts[DRUMS] += 1
        self.needs_pitch = self.live or self.counts[DRUMS] > DRUM_TRIES
        if self.live:
            return ids
        self.next_check, self.hot_until = self.prompt.quarters + FEWEST_NEW, None
        self._next_drums = self.prompt.quarters + ALONE
        # a header names those that are to come, drums among them
        return ids[: self.prompt.tokenizer.header_size(ids) if self.needs_pitch else 0]

    def is_hot(self, reached: float) -> bool:
        """Return whether what comes after a time is sampled at a raised temperature."""
        return self.hot_until is not None and self.hot_until > reached

    def awaits_pitch(self, ids: np.ndarray) -> bool:
        """Return whether no drums are to play behind new ids."""
        return self.needs_pitch and not has_pitch(self.prompt.tokenizer, ids)

    def temperature(self, usual: float) -> float:
        """Return the raised temperature."""
        least, factor = HEAT[self.cause]
        return float(max(usual, least) * factor**self.heat)
