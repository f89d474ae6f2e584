"""Input features of `performance`: keys that sound, durations and velocities, each about the next token.

Small integers, 0 for a missing value. Keys are given as the ids of their note-on or note-off, or as intervals, so that
what a model learns in one register or key transfers to the others. `PerformanceState` computes them id by id,
`features_of` for whole sequences at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from .flat import Flat, Latest

NUM_KEYS, NUM_VELOCITIES, NUM_SHIFTS = 88, 32, 100  # as in performance.py
NOTE_ON = 3
NOTE_OFF = NOTE_ON + NUM_KEYS
VELOCITY = NOTE_OFF + NUM_KEYS
TIME_SHIFT = VELOCITY + NUM_VELOCITIES
MAX_INTERVAL = 24
MAX_SOUNDING = 15
TOGETHER = 4  # steps after the first note of a chord in which its other notes begin
NEAR = 8  # notes back in which the one that is nearest in pitch is looked for

# steps of 10 ms: linear where single steps are audible, then about 15 % apart
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
    VELOCITY,  # the id that ends the note that is likely to end next: the oldest note; at the time of an end the next oldest
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
    """Streaming state: what the features need of the past. Its size is bounded."""

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
        """Return the features after each id, and advance the state past the last."""
        found = []
        for i in ids:
            self._step(i)
            found.append(self._features(NOTE_ON <= i < NOTE_OFF))
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

    def _features(self, velocity_follows: bool) -> tuple[int, ...]:
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


_TIME_TABLE = np.array([*_TIMES, len(EDGES)])
_INTERVAL_TABLE = np.array([_interval(start, end) for start in range(NOTE_OFF) for end in range(NOTE_OFF)])


def features_of(sequences: Sequence[np.ndarray]) -> np.ndarray:
    """Return the features of sequences, each from its beginning, one behind the other: (N, F) int64.

    They equal those of a `PerformanceState` for each sequence, but are computed with array operations.
    """
    flat = Flat(sequences)
    ids, first = flat.ids, flat.first
    now = flat.running_sum(np.maximum(ids - TIME_SHIFT + 1, 0))
    is_on = (ids >= NOTE_ON) & (ids < NOTE_OFF)
    notes, velocities = Latest(is_on, first), Latest((ids >= VELOCITY) & (ids < TIME_SHIFT), first)
    loudness = ids[velocities.at] - VELOCITY + 1
    keys, struck = ids[notes.at], now[notes.at]
    chords = _chords(flat, notes)
    begun = now[chords.at]
    start = [chords.value(begun, back) for back in range(4)]
    since, apart = now - start[0], start[0] - start[1]
    key = notes.value(keys)
    sounding = _Sounding(flat, now, is_on, notes)
    is_last = flat.index < notes.value(sounding.stop)
    last = np.where(is_last, notes.value(struck), start[0])
    ends = [sounding.oldest(rank) for rank in range(4)]
    end_keys = [np.append(keys, 0)[note] for note in ends]  # the number -1, of no note, gives the 0 behind all
    ages = [_times(np.where(note >= 0, now - np.append(struck, 0)[note], 0)) for note in ends[:2]]
    nearest, nearest_velocity = _nearest(flat, notes, keys, velocities, loudness)
    low, high = sounding.range(keys)
    columns = (
        velocities.value(loudness),
        velocities.value(loudness, 1),
        *[_intervals(notes.value(keys, back), key) for back in (1, 2, 3)],
        _intervals(nearest, key),
        _times(now - last),
        _times(since),
        _times(apart),
        _times(start[1] - start[2]),
        _times(start[2] - start[3]),
        np.minimum(sounding.num, MAX_SOUNDING),
        *ages,
        *[_intervals(end_keys[0], other) for other in end_keys[1:]],
        _intervals(key, low),
        _intervals(key, high),
        key,
        np.where(end_keys[0] > 0, end_keys[0] + NUM_KEYS, 0),
        np.where(nearest_velocity > 0, VELOCITY + nearest_velocity - 1, 0),
        np.where((since < apart) & (apart <= since + NUM_SHIFTS), TIME_SHIFT + apart - since - 1, 0),
    )
    return np.stack(columns).T  # faster than to write a token's features beside each other


def _times(steps: np.ndarray) -> np.ndarray:
    """Return the class of each time, see `EDGES`."""
    return _TIME_TABLE[np.minimum(steps, EDGES[-1])]


def _intervals(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return `_interval` of arrays."""
    return _INTERVAL_TABLE[start * NOTE_OFF + end]


def _chords(flat: Flat, notes: Latest) -> Latest:
    """Return the notes that begin a chord: more than `TOGETHER` steps after the first note of the chord before."""
    at = notes.at
    clock = np.cumsum(np.maximum(flat.ids - TIME_SHIFT + 1, 0))  # never falls, from one sequence to the next either
    time = clock[at] + (TOGETHER + 1) * flat.sequence[at]  # so a sequence's first note always begins a chord
    following = np.searchsorted(time, time + TOGETHER, side="right").tolist()
    chosen, note, num_notes = [], 0, len(following)
    while note < num_notes:
        chosen.append(note)
        note = following[note]
    begins = np.zeros(len(clock), bool)
    begins[at[chosen]] = True
    return Latest(begins, flat.first)


def _nearest(
    flat: Flat, notes: Latest, keys: np.ndarray, velocities: Latest, loudness: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return at each note-on the key, of the `NEAR` notes before it, that is nearest in pitch, and its velocity, (N,) each.

    Both are 0 at other ids and at the first note. Of two keys as near the later one is taken. A note's velocity is the last
    one before the next note; 0 if there is none.
    """
    at = notes.at
    found = np.zeros((2, len(flat.ids)), np.int64)
    if len(at):
        behind = velocities.value(velocities.at, missing=-1)[at]  # where the last velocity stands
        velocity = np.where(behind[1:] > at[:-1], velocities.value(loudness)[at[1:]], 0)  # of each note but the last
        num = notes.num[at] - 1
        others = np.maximum(np.arange(len(at))[:, None] - np.arange(1, NEAR + 1), 0)
        apart = np.abs(keys[others] - keys[:, None])
        apart[np.arange(NEAR) >= num[:, None]] = NUM_KEYS
        chosen = others[np.arange(len(at)), apart.argmin(1)]
        found[0, at] = np.where(num > 0, keys[chosen], 0)
        found[1, at] = np.where(num > 0, np.append(velocity, 0)[chosen], 0)
    return found[0], found[1]


class _Sounding:
    """Which notes sound at each token, and in which order they are likely to end.

    S notes that sound, of all note-ons and note-offs: those of one event in the order in which they were struck.

    Attributes:
        stop: (notes,) the index of the event that ends each note; N if none does.
        num: (N,) how many notes sound.
    """

    def __init__(self, flat: Flat, now: np.ndarray, is_on: np.ndarray, notes: Latest) -> None:
        ids, size = flat.ids, len(flat.ids)
        is_off = (ids >= NOTE_OFF) & (ids < VELOCITY)
        events = Latest(is_on | is_off, flat.first)
        at, sequence = events.at, flat.sequence[events.at]
        self._events = events
        following, ended = _by_key(ids[at], is_on[at], sequence)
        begin = np.flatnonzero(is_on[at])
        self.stop = np.append(at, size)[following[begin]]
        behind = np.cumsum(np.bincount(sequence, minlength=1))[sequence[begin]]  # the last event of each sequence
        self._notes, self._counts = _by_event(begin, np.minimum(following[begin], behind), len(at))
        self._begin = np.cumsum(self._counts) - self._counts
        self.num = events.value(self._counts)

        # at the time of a note-off the notes struck after the one that has ended come first
        offs = Latest(is_off, flat.first)
        after = offs.value(ended[is_off[at]], missing=-1)[at]
        older = np.append(0, np.cumsum(self._notes <= np.repeat(after, self._counts)))
        num_older = events.value(older[self._begin + self._counts] - older[self._begin])
        is_time_of_end = offs.value(now[offs.at], missing=-1) == now
        skipped = np.where(is_time_of_end & (num_older < self.num), num_older, 0)
        self._from, self._left = events.value(self._begin) + skipped, self.num - skipped

    def oldest(self, rank: int) -> np.ndarray:
        """Return the note that is `rank` notes behind the likeliest to end next, (N,); -1 where there is none."""
        return np.append(self._notes, -1)[np.where(rank < self._left, self._from + rank, -1)]

    def range(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the lowest and the highest key that sounds, (N,) each; 0 where none does."""
        found = np.zeros((2, len(self._counts)), np.int64)
        some = np.flatnonzero(self._counts)
        if len(some):
            found[0, some] = np.minimum.reduceat(keys[self._notes], self._begin[some])
            found[1, some] = np.maximum.reduceat(keys[self._notes], self._begin[some])
        return self._events.value(found[0]), self._events.value(found[1])


def _by_key(ids: np.ndarray, is_on: np.ndarray, sequence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return of each note-on and note-off the next event of its key, and the note that its key struck last, (E,) each.

    E, and -1, where there is none. Notes are counted over all sequences.
    """
    num_events = len(ids)
    key = sequence * NOTE_OFF + np.where(is_on, ids, ids - NUM_KEYS)
    order = np.argsort(key, kind="stable")
    starts = np.append(True, np.diff(key[order]) != 0)[:num_events]
    following = np.full(num_events, num_events)
    following[order[:-1]] = np.where(starts[1:], num_events, order[1:])
    place = np.arange(num_events)
    first = np.maximum.accumulate(np.where(starts, place, 0))
    struck = np.maximum.accumulate(np.where(is_on[order], place, -1))
    note = np.cumsum(is_on) - 1
    last = np.empty(num_events, np.int64)
    last[order] = np.where(struck >= first, note[order[np.maximum(struck, 0)]], -1)
    return following, last


def _by_event(begin: np.ndarray, stop: np.ndarray, num_events: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the notes that sound behind each event, (S,) in their order, and how many those are, (num_events,).

    Args:
        begin: (notes,) the event that begins each note.
        stop: (notes,) the event behind the last at which it sounds.
        num_events: how many events there are.
    """
    sizes = stop - begin
    note = np.repeat(np.arange(len(begin)), sizes)
    event = np.arange(len(note)) + np.repeat(begin - np.cumsum(sizes) + sizes, sizes)
    # NumPy sorts 16-bit integers by radix, ten times as fast
    order = np.argsort(event.astype(np.uint16) if num_events < 1 << 16 else event, kind="stable")
    return note[order], np.bincount(event, minlength=num_events)
