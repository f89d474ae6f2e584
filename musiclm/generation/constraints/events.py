"""The grammars of MidiTok's tokenizers with time shifts: TSD, MIDILike and Structured."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...tokenizers.miditok import MidiTokTokenizer
from ...tokenizers.vocabulary import Kind, find, has, ids_of
from .band import BOS, DURATION, NONE, OFF, PITCH, PROGRAM, SHIFT, TEMPO, TIME_SIGNATURE, VELOCITY, MultiTrackGrammar
from .base import Limits

ENDLESS = 2**40  # ticks


class Moment(NamedTuple):
    """The state of one batch element; times are ticks from now.

    Attributes:
        kind: of the last token.
        signature: id of the time signature, -1 if there was none yet.
        since: the last bar line.
        room: in a run of shifts, the bound below which the rest has to stay, since MidiTok writes the longest shifts first.
        tempo: id, -1 if there was none yet.
        program: id, -1 if there was none yet.
        order: of the last note now: the rank of its program among programs, drums last; -1 if there is none.
        pitch: id of that note, -1 if there is none.
        silent: the time before which no new note may begin.
        ends: ends of the notes that sound longest, at most as many as may sound at once, latest first; empty without a limit.
        sounding: notes without an end, as (program, id of the end), in the order in which they began.
        first: index among those of the program of the first that may still end now: ends come in that order.
    """

    kind: int = BOS
    signature: int = -1
    since: int = 0
    room: int = ENDLESS
    tempo: int = -1
    program: int = -1
    order: int = -1
    pitch: int = -1
    silent: int = 0
    ends: tuple[int, ...] = ()
    sounding: tuple[tuple[int, int], ...] = ()
    first: int = 0


class TsdGrammar(MultiTrackGrammar):
    """Exactly the sequences that MidiTok's TSD would encode; see `MultiTrackGrammar` too.

    A silence is a run of shifts, each the longest that fits. A time signature comes only at a bar line, when it changes,
    before the tempo, and the tempo before notes. A silence ends where some note may begin.
    """

    def __init__(self, tokenizer: MidiTokTokenizer, not_before: float = 0.0, limits: Limits | None = None) -> None:
        super().__init__(tokenizer, not_before, limits)
        table = tokenizer.vocabulary
        self._has_signatures, self._has_tempi = has(table, Kind.TIME_SIGNATURE), has(table, Kind.TEMPO)
        shifts = ids_of(table, Kind.TIME_SHIFT).tolist()
        self._shifts: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        for beat in {beat for beat, _ in self._beats.values()}:
            ticks = {i: self._ticks(i, beat) for i in shifts}
            ids = np.array(sorted(shifts, key=ticks.__getitem__))
            times = np.array([ticks[i] for i in ids.tolist()])
            self._shifts[beat] = ids, times, np.append(np.diff(times), ENDLESS)

    def _ticks(self, token: int, beat: int) -> int:
        parts, parts_per_beat = self._lengths[token]
        return parts * beat // parts_per_beat

    def beginning(self) -> Moment:
        return Moment(silent=self._not_before)

    def cache_key(self, state: Moment) -> Moment | int:
        return state.kind if state.kind in (PITCH, VELOCITY) else state

    def following(self, state: Moment) -> list[np.ndarray]:
        p = state
        if p.kind == PITCH:
            return [self._velocities]
        if p.kind == VELOCITY:
            return [self._durations]
        if p.kind == PROGRAM and any(map(len, begun := self._begun(p))):
            return begun
        return self._between(p)

    def _between(self, p: Moment) -> list[np.ndarray]:
        """Return the ids allowed where no note is incomplete."""
        if self._has_signatures and p.signature < 0:
            return [self._time_signatures]
        if self._has_tempi and p.tempo < 0:
            return [self._tempi]
        following = [self._later(p)]
        if p.silent <= 0:
            if p.kind == SHIFT and self._has_signatures and p.since % self._bar(p) == 0:
                following.append(self._time_signatures[self._time_signatures != p.signature])
            if p.kind in (SHIFT, TIME_SIGNATURE) and self._has_tempi:
                changes = self._tempi[self._tempi != p.tempo]
                if not self._tempo_permitted[p.tempo]:
                    return [changes]
                following.append(changes)
        return following + self._events(p)

    def _events(self, p: Moment) -> list[np.ndarray]:
        if p.silent > 0 or not self._tempo_permitted[p.tempo]:
            return []
        return self._notes(p.program, p.order, p.pitch, self._is_full(p))

    def _begun(self, p: Moment) -> list[np.ndarray]:
        """Return the ids allowed after a program."""
        return [self._pitches(p.program, p.order, p.pitch, self._is_full(p))]

    def _is_full(self, p: Moment) -> bool:
        return self._max_polyphony is not None and len(p.ends) >= self._max_polyphony

    def _bar(self, p: Moment) -> int:
        beat, beats = self._beats[p.signature]
        return beat * beats

    def _target(self, p: Moment) -> int:
        """Return the time before which no note may begin."""
        return max(p.silent, p.ends[-1]) if self._is_full(p) and not self._drums_play else p.silent

    def _later(self, p: Moment) -> np.ndarray:
        """Return the shifts to a time at which a note may begin, or to one from which more shifts lead there."""
        ids, times, gaps = self._shifts[self._beats[p.signature][0]]
        target = self._target(p)
        for room in (p.room, ENDLESS) if p.kind == SHIFT else (ENDLESS,):
            reached = times + np.maximum(0, np.minimum(room - times, gaps) - times[0])
            leading = ids[(times < room) & (reached >= target)]
            if len(leading) or target <= 0:  # else the prompt stopped within a silence
                break
        return leading

    def after(self, state: Moment, token: int) -> Moment:
        p, i = state, token
        kind = self._kinds[i]
        if kind == SHIFT:
            return self._shifted(p, i)
        if kind == PITCH:
            return p._replace(kind=kind, order=self._order[p.program], pitch=i)
        if kind == DURATION:
            if self._max_polyphony is None or p.program == self._drums:
                return p._replace(kind=kind)
            return p._replace(kind=kind, ends=self._ended(p.ends, self._ticks(i, self._beats[p.signature][0])))
        if kind == TIME_SIGNATURE:
            return p._replace(kind=kind, signature=i, since=0)
        if kind == TEMPO:
            return p._replace(kind=kind, tempo=i)
        if kind == PROGRAM:
            return p._replace(kind=kind, program=i)
        return p._replace(kind=kind) if kind != BOS else p

    def _shifted(self, p: Moment, token: int) -> Moment:
        beat = self._beats[p.signature][0]
        _, times, gaps = self._shifts[beat]
        by = self._ticks(token, beat)
        gap = int(gaps[int(np.searchsorted(times, by))])
        room = min((p.room if p.kind == SHIFT else ENDLESS) - by, gap)
        since = (p.since + by) % self._bar(p) if self._has_signatures else 0
        ends = tuple(end - by for end in p.ends if end > by) if p.ends else ()
        silent = max(0, p.silent - by)
        return Moment(SHIFT, p.signature, since, room, p.tempo, p.program, -1, -1, silent, ends, p.sounding, 0)


class MidiLikeGrammar(TsdGrammar):
    """Exactly the sequences that MidiTok's MIDILike would encode; see `TsdGrammar` too.

    Only sounding notes end and only silent ones begin; at one time, program by program, ends come first, in the order in
    which the notes began.
    """

    def __init__(self, tokenizer: MidiTokTokenizer, not_before: float = 0.0, limits: Limits | None = None) -> None:
        super().__init__(tokenizer, not_before, limits)
        table, end_kind = tokenizer.vocabulary, {Kind.NOTE_ON: Kind.NOTE_OFF, Kind.DRUM_ON: Kind.DRUM_OFF}
        self._end_of = {
            i: find(table, end_kind[kind], pitch) for i, (kind, pitch) in enumerate(table) if kind in end_kind
        }
        self._begin_of = {end: begin for begin, end in self._end_of.items()}

    def cache_key(self, state: Moment) -> Moment | int:
        return state.kind if state.kind == PITCH else state

    def following(self, state: Moment) -> list[np.ndarray]:
        if state.kind == PITCH:
            return [self._velocities]
        if state.kind == PROGRAM and any(map(len, begun := self._begun(state))):
            return begun
        return self._between(state)

    def _is_full(self, p: Moment) -> bool:
        if self._max_polyphony is None:
            return False
        return sum(program != self._drums for program, _ in p.sounding) >= self._max_polyphony

    def _target(self, p: Moment) -> int:
        return 0 if p.sounding else p.silent

    def _events(self, p: Moment) -> list[np.ndarray]:
        if p.silent <= 0 and not self._tempo_permitted[p.tempo] and p.kind in (SHIFT, TIME_SIGNATURE):
            return []
        programs = np.array([program for program, _ in p.sounding], np.int64)
        if self._may_begin(p):
            begin = self._programs[self._programs == self._drums] if self._is_full(p) else self._programs
            programs = np.concatenate([programs, begin])
        return [programs[(self._orders[programs] > p.order) & (programs != p.program)], *self._begun(p)]

    def _may_begin(self, p: Moment) -> bool:
        return p.silent <= 0 and self._tempo_permitted[p.tempo]

    def _begun(self, p: Moment) -> list[np.ndarray]:
        if self._order[p.program] < p.order:
            return []
        sounding = [end for program, end in p.sounding if program == p.program]
        is_later = self._order[p.program] > p.order
        ends = sounding if is_later else sounding[p.first :] if p.pitch < 0 else []
        begins = NONE
        if self._may_begin(p):
            begins = self._pitches(p.program, p.order, p.pitch, self._is_full(p))
        return [np.array(ends, np.int64), begins]

    def banned(self, state: Moment) -> list[int]:
        return [self._begin_of[end] for program, end in state.sounding if program == state.program]

    def after(self, state: Moment, token: int) -> Moment:
        p, kind = state, self._kinds[token]
        if kind == PITCH:
            sounding = (*p.sounding, (p.program, self._end_of[token]))
            return p._replace(kind=kind, order=self._order[p.program], pitch=token, sounding=sounding)
        if kind == OFF and (p.program, token) in p.sounding:
            i = p.sounding.index((p.program, token))
            first = sum(program == p.program for program, _ in p.sounding[:i])
            rest = p.sounding[:i] + p.sounding[i + 1 :]
            return p._replace(kind=kind, order=self._order[p.program], pitch=-1, sounding=rest, first=first)
        return super().after(p, token)


class StructuredGrammar(MultiTrackGrammar):
    """Exactly the sequences that MidiTok's Structured would encode; see `MultiTrackGrammar` too.

    Shift, program, pitch, velocity and duration alternate in this order. A shift leads to a time at which some note may begin.
    """

    def __init__(self, tokenizer: MidiTokTokenizer, not_before: float = 0.0, limits: Limits | None = None) -> None:
        super().__init__(tokenizer, not_before, limits)
        self._program_per_note = True
        beat = self._beats[-1][0]
        self._ticks = {i: parts * beat // parts_per_beat for i, (parts, parts_per_beat) in self._lengths.items()}
        self._none = find(tokenizer.vocabulary, Kind.TIME_SHIFT, 0)
        self._ticks[self._none] = 0
        shifts = [i for i in ids_of(tokenizer.vocabulary, Kind.TIME_SHIFT).tolist() if i != self._none]
        self._shifts = np.array(sorted(shifts, key=self._ticks.__getitem__))
        self._times = np.array([self._ticks[i] for i in self._shifts.tolist()])

    def beginning(self) -> Moment:
        return Moment(silent=self._not_before)

    def cache_key(self, state: Moment) -> Moment | int:
        return state.kind if state.kind in (PITCH, VELOCITY) else state

    def following(self, state: Moment) -> list[np.ndarray]:
        p = state
        if p.kind == PITCH:
            return [self._velocities]
        if p.kind == VELOCITY:
            return [self._durations]
        is_full = self._max_polyphony is not None and len(p.ends) >= self._max_polyphony
        if p.kind == PROGRAM and len(pitches := self._pitches(p.program, p.order, p.pitch, is_full)):
            return [pitches]
        now = self._notes(p.program, p.order, p.pitch, is_full)
        if p.kind == SHIFT and any(map(len, now)):
            return now
        begin = max(p.silent, p.ends[-1]) if is_full and not self._drums_play else p.silent
        later = self._shifts[self._times >= min(begin, self._times[-1])]
        return [later, np.array([self._none])] if begin <= 0 and any(map(len, now)) else [later]

    def after(self, state: Moment, token: int) -> Moment:
        p, i = state, token
        kind = self._kinds[i]
        if kind == SHIFT:
            by = self._ticks[i]
            if by == 0:
                return p._replace(kind=kind)
            ends = tuple(end - by for end in p.ends if end > by) if p.ends else ()
            return Moment(kind, silent=max(0, p.silent - by), ends=ends)
        if kind == PITCH:
            return p._replace(kind=kind, order=self._order[p.program], pitch=i)
        if kind == DURATION and self._max_polyphony is not None and p.program != self._drums:
            return p._replace(kind=kind, ends=self._ended(p.ends, self._ticks[i]))
        if kind == PROGRAM:
            return p._replace(kind=kind, program=i)
        return p._replace(kind=kind) if kind != BOS else p
