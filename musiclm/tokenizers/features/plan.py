"""Input features of the plan of `score`: header, place in the piece, who is due, section, chords, and the given music.

A header leaves the context of a long piece, and a training sequence mostly begins behind it: so each token has what it says
as features. Small integers about the next token, 0 for unknown. `PlanState` computes them id by id, `columns` for a whole
sequence at once.

T tokens, M bars, P programs of the header.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ..vocabulary import Kind, Vocabulary
from .score_arrays import resumed

GROUP = 8  # bars, of which the place is a feature
MAX_LEFT = 33  # bars that are left, as a feature; more get the same one
MAX_SILENCE = 9  # bars
MAX_DUE = 7  # programs
BEAT = 12  # positions; the given music at the next beat is a feature

BAR, POSITION, PROGRAM, PITCH, DRUM, DURATION, SIGNATURE, TEMPO = map(
    int,
    (
        Kind.BAR, Kind.POSITION, Kind.PROGRAM, Kind.NOTE_ON, Kind.DRUM_ON, Kind.DURATION, Kind.TIME_SIGNATURE, Kind.TEMPO
    ),
)  # fmt: skip
STYLE, LENGTH, SECTION, CHORD = map(int, (Kind.STYLE, Kind.LENGTH, Kind.SECTION, Kind.CHORD))
AHEAD, WRITE = int(Kind.INFILL_CONTEXT), int(Kind.INFILL_SPAN)
NUM_CLASSES = 65  # of six pitch classes, sounding or not; 0 for unknown
FIFTHS = np.arange(12) * 7 % 12  # the place of each pitch class; neighbours in the circle share a feature


class PlanTable:
    """What ids mean for these features, and the sizes of the features.

    Args:
        table: the vocabulary.
        positions_a_beat: of its positions and durations.
    """

    def __init__(self, table: Vocabulary, positions_a_beat: int) -> None:
        size = len(table)
        self.kinds = np.array([int(token.kind) for token in table])
        self.index = np.zeros(size, np.int64)  # of each style, section, chord, time signature and tempo, from 1
        self.value = np.zeros(size, np.int64)  # of a length in bars, a program, a position, a duration, a pitch
        self.bar_length = np.zeros(size, np.int64)  # of a time signature, in positions
        counts: dict[int, int] = {}
        for i, (kind, value) in enumerate(table):
            if kind in (Kind.STYLE, Kind.SECTION, Kind.CHORD, Kind.TIME_SIGNATURE, Kind.TEMPO) and value is not None:
                counts[kind] = self.index[i] = counts.get(kind, 0) + 1
            if kind == Kind.TIME_SIGNATURE:
                self.bar_length[i] = value[0] * positions_a_beat
            elif kind == Kind.DURATION:
                self.value[i] = max(1, round(value * positions_a_beat))
            elif kind == Kind.PROGRAM:
                self.value[i] = value + 2
            elif kind in (Kind.LENGTH, Kind.POSITION, Kind.NOTE_ON) and value is not None:
                self.value[i] = value
        self.as_lists = (self.kinds.tolist(), self.index.tolist(), self.value.tolist(), self.bar_length.tolist())
        self.sizes = (
            counts.get(STYLE, 0) + 1,
            MAX_LEFT + 1,  # bars that are left, this one included
            GROUP + 1,  # the place of the bar among eight
            131,  # the program of the header that has been silent longest
            MAX_SILENCE + 1,  # for how many bars
            MAX_DUE + 2,  # programs of the header that have not played yet
            counts.get(SECTION, 0) + 1,
            counts.get(CHORD, 0) + 1,  # the chord of this half of the bar
            counts.get(CHORD, 0) + 1,  # that of the other half, while it is to come
            counts.get(SIGNATURE, 0) + 1,
            counts.get(TEMPO, 0) + 1,
            *[NUM_CLASSES] * 4,  # the pitch classes of the given music now, in two halves, and at the next beat
        )


class Given:
    """The pitch classes of the given music of a masked span over time.

    Args:
        table: the vocabulary's.
        ids: the given context, between AHEAD and WRITE, from the first bar of the span on.
    """

    def __init__(self, table: PlanTable, ids: np.ndarray) -> None:
        kinds = table.kinds[ids]
        bar = np.cumsum(kinds == BAR) - 1
        lengths = table.bar_length[ids[kinds == SIGNATURE]]
        self.begins = np.concatenate([[0], np.cumsum(lengths)])
        position = _latest(kinds == POSITION, table.value[ids])
        notes = np.flatnonzero(kinds == PITCH)
        notes = notes[(notes + 2 < len(ids)) & (bar[notes] >= 0)]
        start = np.minimum(self.begins[np.minimum(bar[notes], len(lengths))] + position[notes], self.begins[-1])
        end = np.minimum(start + table.value[ids[np.minimum(notes + 2, len(ids) - 1)]], self.begins[-1])
        change = np.zeros((int(self.begins[-1]) + BEAT + 1, 12), np.int64)
        classes = FIFTHS[table.value[ids[notes]] % 12]
        np.add.at(change, (start, classes), 1)
        np.add.at(change, (np.maximum(end, start), classes), -1)
        sounds = np.cumsum(change, 0) > 0
        bits = 1 << np.arange(6)
        self.halves = np.column_stack([sounds[:, :6] @ bits, sounds[:, 6:] @ bits]) + 1

    def at(self, bar: np.ndarray, position: np.ndarray) -> np.ndarray:
        """Return the four features at positions of bars of the span, counted from 0, (N, 4)."""
        time = self.begins[np.clip(bar, 0, len(self.begins) - 1)] + position
        last = len(self.halves) - 1
        now, following = np.minimum(time, last), np.minimum((time // BEAT + 1) * BEAT, last)
        return np.column_stack([self.halves[now], self.halves[following]])


def features_of(table: PlanTable, ids: np.ndarray) -> np.ndarray:
    """Return the features of a sequence from its beginning, (T, F): those of a `PlanState`, by array operations."""
    kinds = table.kinds[ids]
    if not (kinds == AHEAD).any():
        return columns(table, ids)
    found, last = [], -1
    for before, begin, stop in resumed(kinds):
        given, ahead = None, np.flatnonzero(kinds[:begin] == AHEAD)[-1:]
        if len(ahead) and ahead[0] > last:
            given = Given(table, ids[ahead[0] + 1 : begin])
        last = begin
        part = np.concatenate([ids[before], ids[begin:stop]])
        found.append(columns(table, part, given, len(before))[len(before) :])
    return np.concatenate(found)


def columns(table: PlanTable, ids: np.ndarray, given: Given | None = None, written: int = 0) -> np.ndarray:
    """Return the features of a sequence in which WRITE resumes nothing, (T, F).

    Args:
        table: the vocabulary's.
        ids: of a piece from its beginning, (T,).
        given: the given music of the masked span that the last ids write; None for none.
        written: index of the first of these.
    """
    kinds, index, value = table.kinds[ids], table.index[ids], table.value[ids]
    is_bar = kinds == BAR
    bar = np.cumsum(is_bar)
    begin = np.maximum.accumulate(np.where(is_bar, np.arange(len(ids)), 0))  # of the bar
    total = _latest((kinds == LENGTH) & (bar == 0), value)
    position = _latest(kinds == POSITION, value, since=begin)
    wanted = _wanted(table, ids, kinds, bar)
    is_chord = kinds == CHORD
    num_chords = np.cumsum(is_chord)
    num_chords -= (num_chords - is_chord)[begin]
    first, second = (_latest(is_chord & (num_chords == n), index, since=begin) for n in (1, 2))
    signature = _latest(kinds == SIGNATURE, ids)
    is_second = 2 * position >= np.maximum(table.bar_length[signature], 1)
    is_said = num_chords > 1
    features = [
        _latest((kinds == STYLE) & (bar == 0), index),
        np.where(total > 0, np.clip(total - np.maximum(bar, 1) + 1, 1, MAX_LEFT), 0),
        np.where(bar > 0, (bar - 1) % GROUP + 1, 0),
        *wanted[bar].T,
        _latest(kinds == SECTION, index, since=begin),
        np.where(is_said & is_second, second, first),
        np.where(is_said & ~is_second, second, 0),
        table.index[signature],
        _latest(kinds == TEMPO, index),
    ]
    of_given = np.zeros((len(ids), 4), np.int64)
    if given is not None:
        before = bar[written - 1] if written else 0
        of_given[written:] = given.at(
            bar[written:] - before - 1, np.where(bar[written:] > before, position[written:], 0)
        )
    return np.column_stack([*features, of_given])


def _latest(is_event: np.ndarray, values: np.ndarray, since: np.ndarray | None = None) -> np.ndarray:
    """Return the value of the latest event at each token, since an index where one is given; 0 where there is none."""
    at = np.maximum.accumulate(np.where(is_event, np.arange(len(is_event)), -1))
    return np.where(at >= (0 if since is None else since), values[at], 0)


def _wanted(table: PlanTable, ids: np.ndarray, kinds: np.ndarray, bar: np.ndarray) -> np.ndarray:
    """Return of each bar, from 0 for the header, the program that has been silent longest, for how long, and the number due.

    (M + 1, 3); what has played within the bar itself does not count.
    """
    num_bars = int(bar[-1]) if len(bar) else 0
    found = np.zeros((num_bars + 1, 3), np.int64)
    style = np.flatnonzero((kinds == STYLE) & (bar == 0))[-1:]
    programs = np.flatnonzero((kinds == PROGRAM) & (bar == 0))
    if not len(style) or not len(programs := programs[programs > style[0]]):
        return found
    header = np.array(list(dict.fromkeys(table.value[ids[programs]].tolist())))
    program = _latest((kinds == PROGRAM) & (bar > 0), table.value[ids])
    notes = np.flatnonzero((kinds == PITCH) | (kinds == DRUM))
    column = np.full(131, -1)
    column[header] = np.arange(len(header))
    of_note = column[program[notes]]
    notes, of_note = notes[of_note >= 0], of_note[of_note >= 0]
    last = np.zeros((num_bars + 1, len(header)), np.int64)
    last[bar[notes], of_note] = bar[notes]
    last = np.maximum.accumulate(last)[:-1]  # before bars 1 … M
    silence = np.arange(1, num_bars + 1)[:, None] - last
    longest = silence.argmax(1)
    found[1:, 0] = header[longest]
    found[1:, 1] = np.minimum(silence.max(1, initial=0), MAX_SILENCE)
    found[1:, 2] = np.minimum((last == 0).sum(1), MAX_DUE) + 1
    return found


class PlanState:
    """Streaming state of these features; see `columns`."""

    __slots__ = (
        "bar", "before", "chords", "given", "given_ids", "header", "last", "length", "position", "program", "section",
        "signature", "style", "table", "tempo", "wanted", "written",
    )  # fmt: skip

    def __init__(self, table: PlanTable) -> None:
        self.table = table
        self.style = self.length = self.bar = self.section = self.signature = self.tempo = self.position = 0
        self.program = 0  # as a feature
        self.header: tuple[int, ...] | None = None  # its programs; None without a header
        self.last: dict[int, int] = {}  # of each program the bar in which it last began a note
        self.chords: tuple[int, ...] = ()
        self.wanted = (0, 0, 0)
        self.before: PlanState | None = None  # the state at the last AHEAD, which WRITE resumes
        self.given_ids: tuple[int, ...] | None = None  # since AHEAD; None behind WRITE
        self.given: Given | None = None
        self.written = 0  # bars before the span

    def copy(self) -> PlanState:
        """Return a state of its own memory."""
        copy = PlanState(self.table)
        for name in self.__slots__:
            setattr(copy, name, getattr(self, name))
        copy.last = self.last.copy()
        return copy

    def features(self, ids: Iterable[int]) -> list[tuple[int, ...]]:
        """Return the features after each id, and advance the state past the last."""
        found = []
        for i in ids:
            self._step(i)
            found.append(self._features())
        return found

    def _step(self, i: int) -> None:
        kinds, index, value, _ = self.table.as_lists
        kind = kinds[i]
        if kind == AHEAD:
            self.before, self.given_ids = self.copy(), ()
            return
        if kind == WRITE and self.before is not None:
            given = None if self.given_ids is None else Given(self.table, np.array(self.given_ids, np.int64))
            again = self.before.copy()
            for name in self.__slots__:
                setattr(self, name, getattr(again, name))
            self.given, self.given_ids, self.written = given, None, self.bar
            return
        if self.given_ids is not None:
            self.given_ids = (*self.given_ids, i)
        if kind == BAR:
            self.bar += 1
            self.position = self.section = 0
            self.chords = ()
            self.wanted = self._now_wanted()
        elif kind == STYLE and not self.bar:
            self.style, self.header = index[i], ()
        elif kind == LENGTH and not self.bar:
            self.length = value[i]
        elif kind == PROGRAM:
            if self.bar:
                self.program = value[i]
            elif self.header is not None and value[i] not in self.header:
                self.header = (*self.header, value[i])
        elif kind in (PITCH, DRUM):
            self.last[self.program] = self.bar
        elif kind == POSITION:
            self.position = value[i]
        elif kind == SECTION:
            self.section = index[i]
        elif kind == CHORD:
            self.chords = (*self.chords, index[i])
        elif kind == SIGNATURE:
            self.signature = i
        elif kind == TEMPO:
            self.tempo = index[i]

    def _now_wanted(self) -> tuple[int, int, int]:
        if not self.header:
            return 0, 0, 0
        silence = [self.bar - self.last.get(program, 0) for program in self.header]
        longest = max(silence)
        num_due = sum(program not in self.last for program in self.header)
        return self.header[silence.index(longest)], min(longest, MAX_SILENCE), min(num_due, MAX_DUE) + 1

    def _features(self) -> tuple[int, ...]:
        _, index, _, bar_length = self.table.as_lists
        left = min(max(self.length - max(self.bar, 1) + 1, 1), MAX_LEFT) if self.length else 0
        is_second = 2 * self.position >= max(bar_length[self.signature], 1)
        first, second = (*self.chords, 0, 0)[:2]
        is_said = len(self.chords) > 1
        of_given: Sequence[int] = (0, 0, 0, 0)
        if self.given is not None:
            bar = self.bar - self.written - 1
            of_given = self.given.at(np.array([bar]), np.array([self.position if bar >= 0 else 0]))[0].tolist()
        return (
            self.style,
            left,
            (self.bar - 1) % GROUP + 1 if self.bar else 0,
            *self.wanted,
            self.section,
            second if is_said and is_second else first,
            second if is_said and not is_second else 0,
            index[self.signature],
            self.tempo,
            *of_given,
        )
