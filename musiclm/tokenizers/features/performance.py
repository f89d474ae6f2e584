"""What `performance` tells a model about each id to come: keys that sound, lengths of time, velocities; made an id at a time.

Small integers, 0 where there is nothing to tell. Keys are told as the ids that strike them or let them go, or as intervals,
so that what is learnt in one register or key holds in the others.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

NUM_KEYS, NUM_VELOCITIES, NUM_SHIFTS = 88, 32, 100  # as in performance.py
NOTE_ON = 3
NOTE_OFF = NOTE_ON + NUM_KEYS
VELOCITY = NOTE_OFF + NUM_KEYS
TIME_SHIFT = VELOCITY + NUM_VELOCITIES
MAX_INTERVAL = 24
MAX_SOUNDING = 15
TOGETHER = 4  # steps after the first note of a chord in which its other notes begin
NEAR = 8  # notes back in which the one that is nearest in pitch is looked for

# steps of 10 ms: single ones as far as they are heard as such, then some 15 % apart
EDGES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 15, 18, 21, 25, 29, 34, 40, 48, 57, 68, 82, 100, 150, 250)
_TIMES = np.searchsorted(EDGES, np.arange(EDGES[-1] + 1), side="right").tolist()

_INTERVAL, _TIME = 2 * MAX_INTERVAL + 2, len(EDGES) + 1
SIZES = (
    *[NUM_VELOCITIES + 1] * 2,  # velocities of the last two notes
    *[_INTERVAL] * 4,  # to the last note struck: from the three before it, and from the one that is nearest in pitch
    *[_TIME] * 5,  # since the last note, since its chord, and between the last four chords
    MAX_SOUNDING + 1,  # keys that sound
    *[_TIME] * 2,  # for how long the two that are likely to end next have sounded
    *[_INTERVAL] * 3,  # from the likeliest to end to the next three
    *[_INTERVAL] * 2,  # from the last note struck to the lowest and the highest that sounds
    NOTE_OFF,  # the id that strikes the last key again
    VELOCITY,  # the id that ends what is likely to end next: the oldest note; at the time of an end the next oldest
    TIME_SHIFT,  # the velocity of the note that is nearest in pitch
    TIME_SHIFT + NUM_SHIFTS,  # the shift after which the last time between two chords has passed again
)
RELATIVE_PITCH = (
    (NOTE_ON, NOTE_OFF - 1, len(SIZES) - 4),
    (NOTE_OFF, VELOCITY - 1, len(SIZES) - 3),
    (VELOCITY, TIME_SHIFT - 1, len(SIZES) - 2),
    (TIME_SHIFT, TIME_SHIFT + NUM_SHIFTS - 1, len(SIZES) - 1),
)


class PerformanceState:
    """Where a performance stands: what is needed of the past, which does not grow with it."""

    __slots__ = ("begun", "chords", "ended", "now", "num_struck", "sounding", "struck", "velocities")

    def __init__(self) -> None:
        self.now = 0  # steps
        self.struck: list[tuple[int, int]] = []  # the last notes' keys (ids) and velocities from 1, latest first
        self.velocities = (0, 0)
        self.chords = (0, 0, 0, 0)  # when the last ones began, latest first
        self.sounding: dict[int, int] = {}  # id that struck the key: when; in that order
        self.begun: dict[int, int] = {}  # id that struck the key: as which note of all
        self.num_struck = 0
        self.ended = (-1, 0)  # when a note ended last, and which of all it was

    def copy(self) -> PerformanceState:
        """Return a state of its own memory."""
        copy = PerformanceState()
        for name in self.__slots__:
            value = getattr(self, name)
            setattr(copy, name, value.copy() if isinstance(value, (list, dict)) else value)
        return copy

    def features(self, ids: Iterable[int]) -> list[tuple[int, ...]]:
        """Return what is known behind each id, and stand behind the last."""
        found = []
        for i in ids:
            self._step(i)
            found.append(self._told(NOTE_ON <= i < NOTE_OFF))
        return found

    def _step(self, i: int) -> None:
        if i >= TIME_SHIFT:
            self.now += i - TIME_SHIFT + 1
        elif i >= VELOCITY:
            velocity = i - VELOCITY + 1
            self.velocities = velocity, self.velocities[0]
            if self.struck:
                self.struck[0] = self.struck[0][0], velocity
        elif i >= NOTE_OFF:
            key = i - NUM_KEYS
            self.sounding.pop(key, None)
            self.ended = self.now, self.begun.get(key, 0)
        elif i >= NOTE_ON:
            self.sounding.pop(i, None)
            if not self.num_struck or self.now > self.chords[0] + TOGETHER:
                self.chords = self.now, *self.chords[:3]
            self.sounding[i] = self.now
            self.num_struck += 1
            self.begun[i] = self.num_struck
            self.struck = [(i, 0), *self.struck[:NEAR]]

    def _told(self, velocity_follows: bool) -> tuple[int, ...]:
        now, struck, sounding = self.now, self.struck, self.sounding
        key = struck[0][0] if struck else 0
        nearest, loudness = 0, 0
        if velocity_follows and len(struck) > 1:
            nearest, loudness = min(struck[1:], key=lambda note: abs(note[0] - key))
        before = [note[0] for note in struck[1:4]]
        before += [0] * (3 - len(before))
        ends = list(sounding)
        if self.ended[0] == now:
            after = self.ended[1]
            ends = [k for k in ends if self.begun[k] > after] or ends
        ends = ends[:4] + [0] * (4 - len(ends))
        low, high = (min(sounding), max(sounding)) if sounding else (0, 0)
        chords = self.chords
        since, apart = now - chords[0], chords[0] - chords[1]
        again = TIME_SHIFT + apart - since - 1 if since < apart <= since + NUM_SHIFTS else 0
        last = sounding.get(key, chords[0])
        return (
            *self.velocities,
            *[_interval(other, key) for other in before],
            _interval(nearest, key),
            _time(now - last),
            _time(since),
            _time(apart),
            _time(chords[1] - chords[2]),
            _time(chords[2] - chords[3]),
            min(len(sounding), MAX_SOUNDING),
            *[_time(now - sounding[k]) if k else 0 for k in ends[:2]],
            *[_interval(ends[0], other) for other in ends[1:]],
            _interval(key, low),
            _interval(key, high),
            key,
            ends[0] + NUM_KEYS if ends[0] else 0,
            VELOCITY + loudness - 1 if loudness else 0,
            again,
        )


def _time(steps: int) -> int:
    return _TIMES[steps] if steps < EDGES[-1] else len(EDGES)


def _interval(start: int, end: int) -> int:
    """Return semitones from one key to another, -24 … 24 as 1 … 49; 0 where one of them is none."""
    if not start or not end:
        return 0
    return max(-MAX_INTERVAL, min(MAX_INTERVAL, end - start)) + MAX_INTERVAL + 1
