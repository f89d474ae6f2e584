"""Input features of `score`: position in the bar, program, its last notes, and what stood here some bars ago.

Small integers about the next token, 0 for a missing value. Music mostly repeats what it did one, two or four bars ago: this
is a feature, so that a model need not find it among a thousand ids. `ScoreState` computes features id by id, `features_of`
for whole sequences at once. A vocabulary with a plan (`score_plan`) has one feature more, what stood here in the bar that this
one is said to repeat, and smaller tables: features that can only be ids of one kind are numbered within it.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence

import numpy as np

from ...midi.theory import key_profiles
from ..vocabulary import Kind, Token
from .flat import Flat, Grouped, Latest

MAX_INTERVAL = 24
ECHOES = (1, 2, 4)  # bars ago
MAX_NOTES = 15  # at one position; more get the same feature
MAX_OWN = 7  # of one program there
LONGEST = 48  # positions that a note counts for in the key
KEYS = np.round(100 * key_profiles()).astype(np.int64)
_INTERVAL = 2 * MAX_INTERVAL + 2

BAR, POSITION, PROGRAM, PITCH, DRUM = map(int, (Kind.BAR, Kind.POSITION, Kind.PROGRAM, Kind.NOTE_ON, Kind.DRUM_ON))
VELOCITY, DURATION, AHEAD, WRITE = map(int, (Kind.VELOCITY, Kind.DURATION, Kind.INFILL_CONTEXT, Kind.INFILL_SPAN))
REPEAT, STYLE = int(Kind.REPEAT), int(Kind.STYLE)


class Vocabulary:
    """What ids mean, and the sizes of their features and the ranges of relative pitch.

    Args:
        tokens: of each id.
        positions_a_beat: of durations and positions.
    """

    def __init__(self, tokens: Sequence[Token], positions_a_beat: int) -> None:
        size = len(tokens)
        self.kinds = [int(token.kind) for token in tokens]
        self.values = [0] * size
        for i, (kind, (_, value)) in enumerate(zip(self.kinds, tokens, strict=True)):
            if kind == DURATION:
                self.values[i] = max(1, min(LONGEST, round(value * positions_a_beat)))
            elif kind in (POSITION, PROGRAM, PITCH, DRUM, WRITE, REPEAT) and value is not None:
                self.values[i] = int(value)
        self.kind_table, self.value_table = np.array(self.kinds), np.array(self.values)  # for arrays of ids
        self.bar = self.kinds.index(BAR) if BAR in self.kinds else 0
        self.has_plan = REPEAT in self.kinds
        self.num_past = (
            max(self.values[i] for i, k in enumerate(self.kinds) if k == REPEAT) if self.has_plan else ECHOES[-1]
        )
        position, velocity, duration, pitch = (
            (_numbers(self.kinds, *kinds) if self.has_plan else None)
            for kinds in ((POSITION,), (VELOCITY,), (DURATION,), (PITCH, DRUM))
        )
        columns: list[tuple[int, np.ndarray | None]] = [  # of each feature how many values it has, and their numbers
            (131, None),  # the program: 0 none yet, 1 drums, then 0 … 127
            (size, position),  # the id of the position in the bar
            *[(_INTERVAL, None)]
            * 3,  # from the program's last pitch to its one before, to the last of all, and to the lowest here
            (KEYS.shape[0] + 1, None),  # which degree of the key its last pitch is, see `grid`
            (size, velocity),  # the id of its last velocity
            (size, duration),  # the id of its last duration
            (MAX_NOTES + 1, None),  # notes at this position
            (MAX_OWN + 1, None),  # and of this program
            *[(size, None)] * len(ECHOES),  # what would follow, were this bar the one so many bars ago
            (size, pitch),  # the id of the pitch that this program had at this place of the last bar
            (size, pitch),  # the id of its last pitch
            *[(size, None)] * self.has_plan,  # what would follow, were this bar the one that it repeats
        ]
        self.sizes = tuple(n if numbers is None else int(numbers.max()) + 1 for n, numbers in columns)
        self.numbers = {i: numbers for i, (_, numbers) in enumerate(columns) if numbers is not None}
        self.relative_pitch = tuple(
            (ids[0], ids[-1], feature, *([ids[0] - 1] if self.has_plan else []))
            for kind, features in ((POSITION, [1]), (VELOCITY, [6]), (PITCH, [13, 14]))
            if (ids := [i for i in range(size) if self.kinds[i] == kind]) and ids == list(range(ids[0], ids[-1] + 1))
            for feature in features
            if len(ids) > 1
        )


def _numbers(kinds: Sequence[int], *wanted: int) -> np.ndarray:
    """Return the number of each id among those of some kinds, from 1, (V,); 0 for others."""
    numbers, count = np.zeros(len(kinds), np.int64), 0
    for kind in wanted:
        of_kind = np.array(kinds) == kind
        numbers[of_kind] = count + np.arange(1, int(of_kind.sum()) + 1)
        count += int(of_kind.sum())
    return numbers


class Bar:
    """The ids of a bar by position: {id of the position: ids at it}, 0 for those in front of the first."""

    __slots__ = ("at", "own", "positions")

    def __init__(self) -> None:
        self.at: dict[int, list[int]] = {0: []}
        self.positions: list[int] = []  # rising
        self.own: dict[tuple[int, int], list[int]] = {}  # {(position, program): pitches}

    def copy(self) -> Bar:
        copy = Bar()
        copy.at = {position: ids.copy() for position, ids in self.at.items()}
        copy.own = {place: ids.copy() for place, ids in self.own.items()}
        copy.positions = self.positions.copy()
        return copy


class ScoreState:
    """Streaming state: what the features need of the past, the last bars at most."""

    __slots__ = (
        "back", "before", "classes", "current", "degree_of", "in_header", "last", "lowest", "num_here", "past", "position",
        "program", "said", "vocabulary",
    )  # fmt: skip

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.program = 0  # as a feature
        self.position = 0  # its id
        self.current = Bar()
        self.past: tuple[Bar, ...] = ()  # bars that are over, latest first; never written again
        # of each program the id of its last pitch, that of the one before, its last velocity and duration
        self.said: dict[int, tuple[int, int, int, int]] = {}
        self.last = 0  # the pitch of the last note of all, an id
        self.lowest = 0  # at this position
        self.num_here = 0
        self.classes = np.zeros(12, np.int64)  # for how long each pitch class has sounded, in positions
        self.degree_of = (0, 0)  # first id of the key's mode, and its tonic
        self.in_header = False
        self.back = 0  # how many bars back is the bar that this one repeats
        self.before: ScoreState | None = None  # the state at the last AHEAD, which WRITE resumes

    def copy(self) -> ScoreState:
        """Return a state of its own memory."""
        copy = ScoreState(self.vocabulary)
        for name in self.__slots__:
            setattr(copy, name, getattr(self, name))
        copy.current, copy.said, copy.classes = self.current.copy(), self.said.copy(), self.classes.copy()
        return copy

    def features(self, ids: Iterable[int]) -> list[tuple[int, ...]]:
        """Return the features after each id, and advance the state past the last."""
        found = []
        for i in ids:
            self._step(i)
            found.append(self._features())
        return found

    def _step(self, i: int) -> None:
        kind, value = self.vocabulary.kinds[i], self.vocabulary.values[i]
        if kind == AHEAD:
            self.before = self.copy()
            return
        if kind == WRITE:
            if self.before is not None:
                again = self.before.copy()
                for name in self.__slots__:
                    setattr(self, name, getattr(again, name))
            return
        if kind == BAR:
            self.past = (self.current, *self.past[: self.vocabulary.num_past - 1])
            self.current = Bar()
            self.position = self.num_here = self.lowest = self.back = 0
            self.in_header = False
            return
        if kind == POSITION:
            self.position, self.num_here, self.lowest = i, 0, 0
            if i not in self.current.at:
                self.current.at[i] = []
                bisect.insort(self.current.positions, i)
            return
        self.current.at[self.position].append(i)
        if kind == PROGRAM:
            if not self.in_header:
                self.program = value + 2
        elif kind == STYLE:
            self.in_header = not self.past
        elif kind == REPEAT:
            self.back = value
        elif kind in (PITCH, DRUM):
            pitch, _, velocity, duration = self.said.get(self.program, (0, 0, 0, 0))
            self.said[self.program] = i, pitch, velocity, duration
            self.current.own.setdefault((self.position, self.program), []).append(i)
            self.num_here += 1
            if kind == PITCH:
                self.last = i
                self.lowest = min(i, self.lowest or i)
        elif kind in (VELOCITY, DURATION):
            pitch, earlier, velocity, duration = self.said.get(self.program, (0, 0, 0, 0))
            velocity, duration = (i, duration) if kind == VELOCITY else (velocity, i)
            self.said[self.program] = pitch, earlier, velocity, duration
            if kind == DURATION and self.vocabulary.kinds[pitch] == PITCH:
                self.classes[self.vocabulary.values[pitch] % 12] += value
                mode, tonic = divmod(int((KEYS @ self.classes).argmax()), 12)
                self.degree_of = 1 + 12 * mode, tonic

    def _features(self) -> tuple[int, ...]:
        vocabulary = self.vocabulary
        pitch, before, velocity, duration = self.said.get(self.program, (0, 0, 0, 0))
        first, tonic = self.degree_of
        is_pitch = vocabulary.kinds[pitch] == PITCH
        place = self.position, self.program
        num_own = len(self.current.own.get(place, ()))
        theirs = self.past[0].own.get(place, ()) if self.past else ()
        features = (
            self.program,
            self.position,
            self._interval(pitch, before),
            self._interval(pitch, self.last),
            self._interval(pitch, self.lowest),
            first + (vocabulary.values[pitch] - tonic) % 12 if is_pitch and first else 0,
            velocity,
            duration,
            min(self.num_here, MAX_NOTES),
            min(num_own, MAX_OWN),
            *[self._echo(self.past[bars - 1]) if len(self.past) >= bars else 0 for bars in ECHOES],
            theirs[num_own] if num_own < len(theirs) else 0,
            pitch,
        )
        if not vocabulary.has_plan:
            return features
        repeated = self._echo(self.past[self.back - 1]) if 0 < self.back <= len(self.past) else 0
        numbers = vocabulary.numbers
        return tuple(int(numbers[i][f]) if i in numbers else f for i, f in enumerate((*features, repeated)))

    def _echo(self, bar: Bar) -> int:
        """Return the id that would follow, were this bar that one."""
        here, there = self.current.at[self.position], bar.at.get(self.position)
        if there is not None and len(here) < len(there):
            return there[len(here)]
        following = bisect.bisect_right(bar.positions, self.position)
        return bar.positions[following] if following < len(bar.positions) else self.vocabulary.bar

    def _interval(self, start: int, end: int) -> int:
        """Return semitones between ids of pitches, -24 … 24 as 1 … 49; 0 where one of them is none."""
        if self.vocabulary.kinds[start] != PITCH or self.vocabulary.kinds[end] != PITCH:
            return 0
        return max(-MAX_INTERVAL, min(MAX_INTERVAL, end - start)) + MAX_INTERVAL + 1


NUM_PROGRAMS = 131  # as a feature: none yet, drums, then 0 … 127


def features_of(vocabulary: Vocabulary, sequences: Sequence[np.ndarray]) -> np.ndarray:
    """Return the features of sequences, each from its beginning, one behind the other: (N, F) int64.

    They equal those of a `ScoreState` for each sequence, but are computed with array operations.
    """
    parts = [part for ids in sequences for part in resumed(vocabulary.kind_table[ids])]
    if len(parts) == len(sequences):
        return _features_of(vocabulary, Flat(sequences))
    pieces, chosen, size = [], [], 0
    for ids, of_sequence in zip(sequences, (resumed(vocabulary.kind_table[ids]) for ids in sequences), strict=True):
        for before, begin, stop in of_sequence:
            pieces.append(np.concatenate([ids[before], ids[begin:stop]]))
            chosen.append(np.arange(size + len(before), size + len(pieces[-1])))
            size += len(pieces[-1])
    return _features_of(vocabulary, Flat(pieces))[np.concatenate(chosen)]


def resumed(kinds: np.ndarray) -> list[tuple[np.ndarray, int, int]]:
    """Return the parts of a sequence: the indices of what stands before a part, and where it begins and stops.

    WRITE resumes where the last AHEAD stands that no other WRITE has resumed.
    """
    before, begin = np.zeros(0, np.int64), 0
    parts, resumable = [], []
    for at in np.flatnonzero((kinds == AHEAD) | (kinds == WRITE)).tolist():
        if kinds[at] == AHEAD:
            resumable.append(np.concatenate([before, np.arange(begin, at)]))
        elif resumable:
            parts.append((before, begin, at))
            before, begin = resumable.pop(), at
    return [*parts, (before, begin, len(kinds))]


def _features_of(vocabulary: Vocabulary, flat: Flat) -> np.ndarray:
    """Return the features of sequences in which WRITE resumes nothing, (N, F)."""
    size = len(vocabulary.kinds)
    ids, first = flat.ids, flat.first
    kinds, values = vocabulary.kind_table[ids], vocabulary.value_table[ids]
    is_bar, is_pitch = kinds == BAR, kinds == PITCH
    is_note = is_pitch | (kinds == DRUM)
    bars = flat.running_sum(is_bar)  # that are over
    in_header = (bars == 0) & (flat.running_sum(kinds == STYLE) > 0)
    programs = Latest((kinds == PROGRAM) & ~in_header, first)
    program = programs.value(values[programs.at] + 2)
    places = Latest(is_bar | (kinds == POSITION), first)
    position = places.value(np.where(is_bar, 0, ids)[places.at])
    pitch, before, velocity, duration = _said(flat, kinds, program)
    place = (np.cumsum(is_bar) + flat.sequence) * size + position
    own = Grouped(place * NUM_PROGRAMS + program, is_note, ids)
    begin, count = own.find(own.keys - size * NUM_PROGRAMS)
    theirs = own.item(begin[own.group], count[own.group], own.seen, 0)
    num_here, lowest = _here(flat, is_note, is_pitch, places, size)
    pitches = Latest(is_pitch, first)
    last = pitches.value(ids[pitches.at])

    def interval(start: np.ndarray, end: np.ndarray) -> np.ndarray:
        semitones = np.clip(end - start, -MAX_INTERVAL, MAX_INTERVAL) + MAX_INTERVAL + 1
        return np.where((vocabulary.kind_table[start] == PITCH) & (vocabulary.kind_table[end] == PITCH), semitones, 0)

    echoes = _echoes(vocabulary, flat, kinds, place, bars, [_backs(flat, kinds, values)] if vocabulary.has_plan else [])
    columns = [
        program,
        position,
        interval(pitch, before),
        interval(pitch, last),
        interval(pitch, lowest),
        _degrees(vocabulary, flat, kinds, values, pitch),
        velocity,
        duration,
        np.minimum(num_here, MAX_NOTES),
        np.minimum(own.seen, MAX_OWN),
        *echoes[: len(ECHOES)],
        np.where(bars > 0, theirs, 0),
        pitch,
        *echoes[len(ECHOES) :],
    ]
    for i, numbers in vocabulary.numbers.items():
        columns[i] = numbers[columns[i]]
    return np.stack(columns).T


def _backs(flat: Flat, kinds: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return how many bars back is the bar that this one is said to repeat, (N,); 0 while that is not said, and for none."""
    begin = np.maximum(flat.first, np.maximum.accumulate(np.where(kinds == BAR, flat.index, 0)))
    said = np.maximum.accumulate(np.where(kinds == REPEAT, flat.index, -1))
    return np.where(said >= begin, values[said], 0)


def _said(flat: Flat, kinds: np.ndarray, program: np.ndarray) -> list[np.ndarray]:
    """Return of each token's program the ids of its last pitch and the one before, its last velocity and duration."""
    key = flat.sequence * NUM_PROGRAMS + program
    order = np.argsort(key, kind="stable")
    key, ids, kinds = key[order], flat.ids[order], kinds[order]
    starts = np.append(True, key[1:] != key[:-1])[: len(key)]
    first = np.maximum.accumulate(np.where(starts, flat.index, 0))
    notes, velocities, durations = (
        Latest(which, first) for which in ((kinds == PITCH) | (kinds == DRUM), kinds == VELOCITY, kinds == DURATION)
    )
    found = np.empty((4, len(ids)), np.int64)
    for i, (events, back) in enumerate(((notes, 0), (notes, 1), (velocities, 0), (durations, 0))):
        found[i, order] = events.value(ids[events.at], back)
    return list(found)


def _here(
    flat: Flat, is_note: np.ndarray, is_pitch: np.ndarray, places: Latest, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of notes since the last bar line or position, and the lowest pitch of them, an id or 0."""
    stretch = np.zeros(len(flat.ids), np.int64)
    stretch[places.at] = 1
    stretch[flat.index == flat.first] = 1
    begin = np.flatnonzero(stretch)
    stretch = np.cumsum(stretch) - 1
    notes = np.cumsum(is_note)
    num = notes - (notes - is_note)[begin][stretch]
    below = stretch * (size + 1)  # a stretch's ids lie below those of all stretches before it
    lowest = np.minimum.accumulate(np.where(is_pitch, flat.ids, size) - below) + below
    return num, np.where(lowest < size, lowest, 0)


def _degrees(
    vocabulary: Vocabulary, flat: Flat, kinds: np.ndarray, values: np.ndarray, pitch: np.ndarray
) -> np.ndarray:
    """Return which degree of the key each pitch is, an id of the vocabulary: see `ScoreState`."""
    is_pitch = vocabulary.kind_table[pitch] == PITCH
    durations = Latest((kinds == DURATION) & is_pitch, flat.first)
    at = durations.at
    if not len(at):
        return np.zeros(len(flat.ids), np.int64)
    classes = vocabulary.value_table[pitch] % 12
    of_key = KEYS.T[classes[at]] * values[at, None]
    sums = np.cumsum(of_key, 0)
    begins = np.append(True, np.diff(flat.sequence[at]) > 0)
    sums -= (sums - of_key)[begins][np.cumsum(begins) - 1]
    mode, tonic = np.divmod(sums.argmax(1), 12)
    first = durations.value(1 + 12 * mode)
    return np.where(is_pitch & (first > 0), first + (classes - durations.value(tonic)) % 12, 0)


def _echoes(
    vocabulary: Vocabulary,
    flat: Flat,
    kinds: np.ndarray,
    place: np.ndarray,
    bars: np.ndarray,
    backs: list[np.ndarray],
) -> list[np.ndarray]:
    """Return the ids that would follow, were this bar one of those before: those of `ECHOES`, then of each of `backs`.

    Args:
        backs: how many bars ago, (N,) each; 0 for none.
    """
    size = len(vocabulary.kinds)
    at_place = Grouped(place, ~np.isin(kinds, (BAR, POSITION, AHEAD, WRITE)), flat.ids)
    group = at_place.group
    found = []
    steps: list[int | np.ndarray] = [*ECHOES, *backs]
    for ago in steps:
        is_same = isinstance(ago, int)  # for all tokens at a place
        then = at_place.keys - ago * size if is_same else place - ago * size
        begin, count = at_place.find(then)
        following = at_place.following(then)
        following = np.where(following // size == then // size, following % size, vocabulary.bar)
        if is_same:
            begin, count, following = begin[group], count[group], following[group]
        echo = at_place.item(begin, count, at_place.seen, following)
        found.append(np.where((bars >= ago) & (np.asarray(ago) > 0), echo, 0))
    return found
