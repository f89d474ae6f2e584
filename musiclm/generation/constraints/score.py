"""The grammar of `score`: MidiTok's REMI with programs."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

import numpy as np

from ...tokenizers.miditok import MidiTokTokenizer
from ...tokenizers.vocabulary import Kind, has, ids_of
from .band import BAR, BOS, DURATION, PITCH, POSITION, PROGRAM, TEMPO, TIME_SIGNATURE, VELOCITY, MultiTrackGrammar
from .base import Limits


class ScoreState(NamedTuple):
    """The state of one batch element of `score` ids; times are ticks from the bar line.

    Attributes:
        kind: of the last token.
        beat: length, in ticks.
        num_positions: in the bar.
        position: in the bar, -1 before the first.
        tempo: id, -1 if there was none yet.
        program: id, -1 if there was none yet.
        order: of the last note at this position: the rank of its program among programs, drums last; -1 if there is none.
        pitch: id of that note, -1 if there is none.
        silent: the time before which no new note may begin.
        ends: ends of the notes that sound longest, at most as many as may sound at once, latest first; empty without a limit.
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


class ScoreGrammar(MultiTrackGrammar):
    """Exactly the sequences that MidiTok's REMI would encode; see `MultiTrackGrammar` too.

    Bars have a time signature; positions rise and lie within their bar. A position is allowed only if some note may begin
    there.
    """

    def __init__(self, tokenizer: MidiTokTokenizer, not_before: float = 0.0, limits: Limits | None = None) -> None:
        super().__init__(tokenizer, not_before, limits)
        table = tokenizer.vocabulary
        self._positions_per_beat = int(tokenizer.midi_tokenizer.config.max_num_pos_per_beat)
        self._has_signatures, self._has_tempi = has(table, Kind.TIME_SIGNATURE), has(table, Kind.TEMPO)
        self._position_of = {i: token.value for i, token in enumerate(table) if token.kind == Kind.POSITION}
        self._positions = np.array(sorted(self._position_of, key=self._position_of.__getitem__))
        self._bar = ids_of(table, Kind.BAR)

    def beginning(self) -> ScoreState:
        beat, beats = self._beats[-1]
        return ScoreState(
            beat=beat,
            num_positions=0 if self._has_signatures else beats * self._positions_per_beat,
            silent=self._not_before,
        )

    def cache_key(self, state: ScoreState) -> Hashable:
        if state.kind in (BOS, PITCH, VELOCITY) or (state.kind == BAR and self._has_signatures):
            return state.kind
        if state.kind == PROGRAM and not state.ends:
            return state.program, state.order, state.pitch
        return state

    def following(self, state: ScoreState) -> list[np.ndarray]:
        p = state
        if p.kind == BOS:
            return [self._bar]
        if p.kind == BAR and self._has_signatures:
            return [self._time_signatures]
        if p.kind == PITCH:
            return [self._velocities]
        if p.kind == VELOCITY:
            return [self._durations]
        now = self._time(p, p.position)
        is_full = self._is_full(p) and p.ends[-1] > now
        if p.kind == PROGRAM and len(pitches := self._pitches(p.program, p.order, p.pitch, is_full)):
            return [pitches]
        if p.kind in (BAR, TIME_SIGNATURE):
            if p.tempo < 0 and self._has_tempi:  # every piece begins with its tempo
                return [self._positions[:1]]
            return self._later(p)
        silent = now < p.silent or not self._tempo_permitted[p.tempo]
        notes = [] if silent else self._notes(p.program, p.order, p.pitch, is_full)
        if p.kind == POSITION:
            notes.append(self._tempi[self._tempi != p.tempo])
            if any(map(len, notes)):
                return notes
        return [*notes, *self._later(p)]

    def _later(self, p: ScoreState) -> list[np.ndarray]:
        """Return the next bar, and the later positions of this bar at which a note may begin."""
        begin = p.silent
        if self._is_full(p) and not self._drums_play:
            begin = max(begin, p.ends[-1])
        first = max(p.position + 1, -(-begin * self._positions_per_beat // p.beat))
        return [self._bar, self._positions[first : p.num_positions]]

    def _is_full(self, p: ScoreState) -> bool:
        return self._max_polyphony is not None and len(p.ends) >= self._max_polyphony

    def _time(self, p: ScoreState, position: int) -> int:
        return position * p.beat // self._positions_per_beat

    def after(self, state: ScoreState, token: int) -> ScoreState:
        kind = self._kinds[token]
        if kind == BOS:
            return state
        last, beat, num_positions, position, tempo, program, order, pitch, silent, ends = state
        if kind == PITCH:
            order, pitch = self._order[program], token
        elif kind == DURATION:
            if self._max_polyphony is not None and program != self._drums:
                parts, parts_per_beat = self._lengths[token]
                ends = self._ended(ends, self._time(state, position) + parts * beat // parts_per_beat)
        elif kind == POSITION:
            position, order, pitch = self._position_of[token], -1, -1
            now = self._time(state, position)
            ends = tuple(end for end in ends if end > now) if ends else ()
            silent = silent if silent > now else 0
        elif kind == BAR:
            length = 0 if last == BOS else self._time(state, num_positions)
            position, order, pitch = -1, -1, -1
            ends = tuple(end - length for end in ends if end > length) if ends else ()
            silent = max(0, silent - length)
        elif kind == TIME_SIGNATURE:
            beat, beats = self._beats[token]
            num_positions = beats * self._positions_per_beat
        elif kind == TEMPO:
            tempo = token
        elif kind == PROGRAM:
            program = token
        return ScoreState(kind, beat, num_positions, position, tempo, program, order, pitch, silent, ends)
