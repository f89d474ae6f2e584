"""Input features of `score`: position in the bar, program, its last notes, and what stood here some bars ago.

Small integers about the next token, 0 for a missing value. Music mostly repeats what it did one, two or four bars ago: this
is a feature, so that a model need not find it among a thousand ids. `ScoreState` computes features id by id,
`score_arrays.features_of` for whole sequences at once. A vocabulary with a plan (`score_plan`) has one feature more, what
stood here in the bar that this one is said to repeat, and smaller tables: features that can only be ids of one kind are
numbered within it.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence

import numpy as np

from ...midi.theory import key_profiles
from ..vocabulary import Kind, Token

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
