"""The grammar of `score`: MidiTok's REMI with programs."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ..tokens._miditok import MidiTokTokenizer
from .base import Grammar
from .limits import Limits

NONE = np.array([], np.int64)
BOS, BAR, TIME_SIGNATURE, POSITION, TEMPO, PROGRAM, PITCH, VELOCITY, DURATION = range(9)
KINDS = {
    "Bar": BAR, "TimeSig": TIME_SIGNATURE, "Position": POSITION, "Tempo": TEMPO, "Program": PROGRAM, "Pitch": PITCH,
    "PitchDrum": PITCH, "Velocity": VELOCITY, "Duration": DURATION,
}  # fmt: skip


class Place(NamedTuple):
    """Where one row of `score` tokens stands; times are ticks from the beginning of its bar.

    Attributes:
        kind: of the last token.
        beat: length, in ticks.
        num_positions: in the bar.
        position: in the bar, -1 before the first.
        tempo: id, -1 if none was said yet.
        program: id, -1 if none was said yet.
        order: of the last note at this position: its program's place among programs, drums last; -1 if there is none.
        pitch: id of that note, -1 if there is none.
        silent: until when no new note may begin.
        ends: of the notes that sound longest, as many as may sound at once, the latest first; empty if any number may.
    """

    kind: int = BOS
    beat: int = 0
    num_positions: int = 0
    position: int = -1
    tempo: int = -1
    program: int = -1
    order: int = -1
    pitch: int = -1
    silent: int = 0
    ends: tuple[int, ...] = ()


class ScoreGrammar(Grammar):
    """What MidiTok's REMI would itself write, and nothing else.

    Bars have a time signature; positions rise and lie within their bar; a tempo or program is said when it changes; at
    one position notes come by program, drums last, then by pitch, none twice; drums have drum pitches, and only they.
    A position comes only if some note may begin there.

    Args:
        tokenizer: REMI, of those that `limits.is_followed`.
        not_before: in quarters; no note begins before it.
        limits: what new music keeps to.
    """

    def __init__(self, tokenizer: MidiTokTokenizer, not_before: float = 0.0, limits: Limits | None = None) -> None:
        super().__init__(tokenizer.vocab_size)
        kinds, values, config = tokenizer.kinds, tokenizer.values, tokenizer.midi_tokenizer.config
        permitted = limits.permitted if limits else np.ones(self.vocab_size, bool)
        self._max_polyphony = limits.max_polyphony if limits else None
        self._kinds = [KINDS.get(kind, BOS) for kind in kinds]
        self._says_each_program = not config.program_changes
        self._positions_a_beat = int(config.max_num_pos_per_beat)
        self._metres, ticks = _metres(tokenizer)
        self._has_metres, self._has_tempi = "TimeSig" in kinds, "Tempo" in kinds
        self._not_before = math.ceil(not_before * ticks - 1e-6)
        self._position_of = {i: int(values[i]) for i, kind in enumerate(kinds) if kind == "Position"}
        self._lengths = {i: tuple(map(int, values[i].split("."))) for i, kind in enumerate(kinds) if kind == "Duration"}

        def ids(kind: str) -> np.ndarray:
            return np.array([i for i, k in enumerate(kinds) if k == kind and permitted[i]], np.int64)

        self._bar, self._velocities, self._durations = ids("Bar"), ids("Velocity"), ids("Duration")
        self._time_signatures, self._tempi = ids("TimeSig"), ids("Tempo")
        self._positions = np.array(sorted(self._position_of, key=self._position_of.__getitem__))
        pitches = {False: ids("Pitch"), True: ids("PitchDrum")}
        every = [i for i, kind in enumerate(kinds) if kind == "Program"]
        every.sort(key=lambda i: (values[i] == "-1", int(values[i])))
        self._order = {program: place for place, program in enumerate(every)}
        self._orders = np.full(self.vocab_size, -1)
        self._orders[every] = np.arange(len(every))
        self._drums = next((i for i in every if values[i] == "-1"), -1)
        self._pitches_of = {i: pitches[i == self._drums] if permitted[i] else NONE for i in every}
        self._programs = np.array([i for i in every if len(self._pitches_of[i])], np.int64)
        self._drums_play = self._drums in self._programs
        self._tempo_holds = {-1: not self._has_tempi} | {
            i: bool(permitted[i]) for i, k in enumerate(kinds) if k == "Tempo"
        }

    def beginning(self) -> Place:
        return Place(beat=self._metres[-1][0], silent=self._not_before)

    def seen(self, place: Place) -> Place | int:
        if place.kind in (BOS, PITCH, VELOCITY) or (place.kind == BAR and self._has_metres):
            return place.kind
        return place

    def following(self, place: Place) -> list[np.ndarray]:
        p = place
        if p.kind == BOS:
            return [self._bar]
        if p.kind == BAR and self._has_metres:
            return [self._time_signatures]
        if p.kind == PITCH:
            return [self._velocities]
        if p.kind == VELOCITY:
            return [self._durations]
        if p.kind == PROGRAM:
            return [self._pitches(p)]
        if p.kind in (BAR, TIME_SIGNATURE):
            if p.tempo < 0 and self._has_tempi:  # every piece begins with its tempo
                return [self._positions[:1]]
            return self._later(p)
        is_silent = self._time(p, p.position) < p.silent
        if p.kind == POSITION:
            changes = self._tempi[self._tempi != p.tempo]
            if is_silent or not self._tempo_holds[p.tempo]:
                return [changes]
            return [changes, *self._notes(p)]
        if is_silent or not self._tempo_holds[p.tempo]:
            return self._later(p)
        return self._later(p) + self._notes(p)

    def _later(self, p: Place) -> list[np.ndarray]:
        """Return the next bar, and the positions that are left of this one and where a note may begin."""
        begin = p.silent
        if self._is_full(p.ends) and not self._drums_play:
            begin = max(begin, p.ends[-1])
        first = max(p.position + 1, -(-begin * self._positions_a_beat // p.beat))
        return [self._bar, self._positions[first : p.num_positions]]

    def _is_full(self, ends: tuple[int, ...]) -> bool:
        return self._max_polyphony is not None and len(ends) >= self._max_polyphony

    def _time(self, p: Place, position: int) -> int:
        return position * p.beat // self._positions_a_beat

    def _notes(self, p: Place) -> list[np.ndarray]:
        """Return how another note at this position may begin: with a pitch, or with a program that comes later."""
        programs = self._programs
        if self._is_full(p.ends) and p.ends[-1] > self._time(p, p.position):
            programs = programs[programs == self._drums]
        programs = programs[self._orders[programs] > p.order]
        pitches = self._pitches(p)
        if not self._says_each_program:
            return [programs[programs != p.program], pitches]
        again = p.order >= 0 and len(pitches) > 0
        return [programs, np.array([p.program])] if again else [programs]

    def _pitches(self, p: Place) -> np.ndarray:
        """Return the pitches that a note of the program that holds may have now."""
        if p.program < 0 or self._order[p.program] < p.order:
            return NONE
        if p.program != self._drums and self._is_full(p.ends) and p.ends[-1] > self._time(p, p.position):
            return NONE
        pitches = self._pitches_of[p.program]
        return pitches[pitches > p.pitch] if self._order[p.program] == p.order else pitches

    def after(self, place: Place, token: int) -> Place:
        p, i = place, token
        kind = self._kinds[i]
        if kind in (PITCH, VELOCITY):
            if kind == VELOCITY:
                return p._replace(kind=kind)
            return p._replace(kind=kind, order=self._order.get(p.program, -1), pitch=i)
        if kind == DURATION:
            if self._max_polyphony is None or p.program == self._drums:
                return p._replace(kind=kind)
            beats, part, parts = self._lengths[i]
            end = self._time(p, p.position) + (beats * parts + part) * p.beat // parts
            return p._replace(kind=kind, ends=tuple(sorted((*p.ends, end), reverse=True)[: self._max_polyphony]))
        if kind == POSITION:
            now = self._time(p, self._position_of[i])
            ends = tuple(end for end in p.ends if end > now) if p.ends else ()
            silent = p.silent if p.silent > now else 0
            return p._replace(kind=kind, position=self._position_of[i], order=-1, pitch=-1, ends=ends, silent=silent)
        if kind == BAR:
            length = self._time(p, p.num_positions)
            ends = tuple(end - length for end in p.ends if end > length) if p.ends else ()
            num_positions = p.num_positions if self._has_metres else self._metres[-1][1]
            silent = max(0, p.silent - length)
            return Place(BAR, p.beat, num_positions, -1, p.tempo, p.program, -1, -1, silent, ends)
        if kind == TIME_SIGNATURE:
            beat, num_positions = self._metres[i]
            return p._replace(kind=kind, beat=beat, num_positions=num_positions)
        if kind == TEMPO:
            return p._replace(kind=kind, tempo=i)
        if kind == PROGRAM:
            return p._replace(kind=kind, program=i)
        return p


def _metres(tokenizer: MidiTokTokenizer) -> tuple[dict[int, tuple[int, int]], int]:
    """Return a beat in ticks and the positions of a bar, by time signature's id, -1 for 4/4; and ticks a quarter."""
    config = tokenizer.midi_tokenizer.config
    positions = int(config.max_num_pos_per_beat)
    signs = {i: tokenizer.values[i] for i, kind in enumerate(tokenizer.kinds) if kind == "TimeSig"} | {-1: "4/4"}
    parts = {i: tuple(map(int, sign.split("/"))) for i, sign in signs.items()}
    ticks = positions * max(4, *(denominator for _, denominator in parts.values())) // 4
    return {
        i: (4 * ticks // denominator, numerator * positions) for i, (numerator, denominator) in parts.items()
    }, ticks
