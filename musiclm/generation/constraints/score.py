"""The grammar of `score`: MidiTok's REMI with programs, and the plan of version 5."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

import numpy as np

from ...tokenizers.miditok import MidiTokTokenizer
from ...tokenizers.vocabulary import PLAN, Kind, Vocabulary, find, has, ids_of
from .band import BAR, BOS, DURATION, PITCH, POSITION, PROGRAM, TEMPO, TIME_SIGNATURE, VELOCITY, MultiTrackGrammar
from .base import Limits

STYLE, LENGTH, SECTION, REPEAT, CHORD = map(int, PLAN)
PLANNED = -1  # stands for the last attribute of a bar


class Header(NamedTuple):
    """What the header of a piece says, as ids.

    Attributes:
        style: -1 where it is left out, and the same below.
        signature: of the first bar.
        tempo: of the first bar.
        programs: of all notes, in their order; empty where they are left out.
    """

    style: int = -1
    signature: int = -1
    tempo: int = -1
    programs: tuple[int, ...] = ()


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
        bars: how many have begun, at most as many as change what may come.
        header: of the piece; empty without a plan.
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
    bars: int = 0
    header: Header = Header()


class ScoreGrammar(MultiTrackGrammar):
    """Exactly the sequences that MidiTok's REMI would encode; see `MultiTrackGrammar` too.

    Bars have a time signature; positions rise and lie within their bar. A position is allowed only if some note may begin
    there.

    Where the vocabulary has a plan (see `tokenizers.score_plan`), a header comes first, and each bar has its attributes. New
    headers and attributes say all that they can: the value "unknown" is allowed only where no other is permitted. A prompt's
    header may leave out what it likes. The first bar has the time signature and the tempo of the header, and only programs of
    the header play, as far as they are permitted. Drums are alone in the header only in the style of drums, or where
    nothing else is permitted. A bar repeats only a bar that there is.
    """

    def __init__(self, tokenizer: MidiTokTokenizer, not_before: float = 0.0, limits: Limits | None = None) -> None:
        super().__init__(tokenizer, not_before, limits)
        table = tokenizer.vocabulary
        self._positions_per_beat = int(tokenizer.midi_tokenizer.config.max_num_pos_per_beat)
        self._has_signatures, self._has_tempi = has(table, Kind.TIME_SIGNATURE), has(table, Kind.TEMPO)
        self._position_of = {i: token.value for i, token in enumerate(table) if token.kind == Kind.POSITION}
        self._positions = np.array(sorted(self._position_of, key=self._position_of.__getitem__))
        self._bar = ids_of(table, Kind.BAR)
        self._has_plan = has(table, Kind.STYLE)
        permitted = limits.permitted if limits else np.ones(self.vocab_size, bool)
        self._styles, self._lengths_in_bars, self._sections, self._repeats, self._chords = (
            _known([i for i in ids_of(table, kind).tolist() if permitted[i]], table) for kind in PLAN
        )
        self._back = np.array([table[i].value or 0 for i in self._repeats.tolist()], np.int64)
        self._most_bars = int(self._back.max(initial=0)) + 1
        self._drum_style = find(table, Kind.STYLE, "drums")
        self._players: dict[tuple[int, ...], np.ndarray] = {(): self._programs}  # of each header

    def beginning(self) -> ScoreState:
        beat, beats = self._beats[-1]
        return ScoreState(
            beat=beat,
            num_positions=0 if self._has_signatures else beats * self._positions_per_beat,
            silent=self._not_before,
        )

    def cache_key(self, state: ScoreState) -> Hashable:
        if state.kind in (BOS, PITCH, VELOCITY):
            return state.kind
        if self._has_plan and state.bars == 0:
            return state.kind, state.header
        if state.kind == BAR and self._has_signatures:
            return state.kind if state.bars > 1 or state.header.signature < 0 else (BAR, state.header.signature)
        if state.kind == PROGRAM and not state.ends:
            return state.program, state.order, state.pitch
        if self._has_plan:
            if state.kind == SECTION:
                return state.kind, state.bars
            if state.kind in (TIME_SIGNATURE, REPEAT, CHORD):
                return state.kind
        return state._replace(bars=1)

    def following(self, state: ScoreState) -> list[np.ndarray]:
        p = state
        if p.kind == PITCH:
            return [self._velocities]
        if p.kind == VELOCITY:
            return [self._durations]
        if self._has_plan and (planned := self._plan(p)) is not None:
            return planned
        if p.kind == BOS:
            return [self._bar]
        if p.kind == BAR and self._has_signatures:
            return [_only(self._time_signatures, p.header.signature if p.bars == 1 else -1)]
        now = self._time(p, p.position)
        is_full = self._is_full(p) and p.ends[-1] > now
        if p.kind == PROGRAM and len(pitches := self._pitches(p.program, p.order, p.pitch, is_full)):
            return [pitches]
        if p.kind in (BAR, TIME_SIGNATURE, PLANNED):
            if p.tempo < 0 and self._has_tempi:  # every piece begins with its tempo
                return [self._positions[:1]]
            return self._later(p)
        silent = now < p.silent or not self._tempo_permitted[p.tempo]
        notes = [] if silent else self._notes(p.program, p.order, p.pitch, is_full, self.players(p))
        if p.kind == POSITION:
            tempi = self._tempi if p.tempo >= 0 else _only(self._tempi, p.header.tempo)
            notes.append(tempi[tempi != p.tempo])
            if any(map(len, notes)):
                return notes
        return [*notes, *self._later(p)]

    def order_of(self, program: int) -> int:
        """Return the rank of a program, an id, in the order of the stream: drums last."""
        return self._order[program]

    def players(self, state: ScoreState) -> np.ndarray:
        """Return the ids of the programs that may play: those of the header, or all that are permitted."""
        programs = state.header.programs
        if programs not in self._players:
            found = self._programs[np.isin(self._programs, programs)]
            self._players[programs] = found if len(found) else self._programs
        return self._players[programs]

    def free_position(self, state: ScoreState, *, drums: bool) -> int:
        """Return the next position of the bar at which a note may begin; a pitched one, or one of drums."""
        begin = state.silent
        if self._is_full(state) and not drums:
            begin = max(begin, state.ends[-1])
        return max(state.position + 1, -(-begin * self._positions_per_beat // state.beat))

    def _plan(self, p: ScoreState) -> list[np.ndarray] | None:
        """Return the ids of a header or of a bar's attributes that may come next; None where there are none."""
        if p.bars == 0:
            return self._header(p)
        if p.kind == (TIME_SIGNATURE if self._has_signatures else BAR):
            return [self._sections]
        if p.kind == SECTION:
            return [self._repeats[self._back < p.bars]]
        return [self._chords] if p.kind in (REPEAT, CHORD) else None

    def _header(self, p: ScoreState) -> list[np.ndarray]:
        if p.kind == BOS:
            return [self._styles]
        if p.kind == STYLE:
            return [self._lengths_in_bars]
        if p.kind == LENGTH and len(self._time_signatures):
            return [self._time_signatures]
        if p.kind in (LENGTH, TIME_SIGNATURE) and len(self._tempi):
            return [self._tempi]
        said = p.header.programs
        if said:
            return [self._programs[self._orders[self._programs] > self._order[said[-1]]], self._bar]
        pitched = self._programs[self._programs != self._drums]
        return [pitched if len(pitched) and p.header.style != self._drum_style else self._programs]

    def _later(self, p: ScoreState) -> list[np.ndarray]:
        """Return the next bar, and the later positions of this bar at which a note may begin."""
        drums_play = self._drums_play and (not p.header.programs or self._drums in self.players(p))
        first = self.free_position(p, drums=drums_play)
        return [self._bar, self._positions[first : p.num_positions]]

    def _is_full(self, p: ScoreState) -> bool:
        return self._max_polyphony is not None and len(p.ends) >= self._max_polyphony

    def _time(self, p: ScoreState, position: int) -> int:
        return position * p.beat // self._positions_per_beat

    def after(self, state: ScoreState, token: int) -> ScoreState:
        kind = self._kinds[token]
        if kind == BOS:
            return state
        last, beat, num_positions, position, tempo, program, order, pitch, silent, ends, bars, header = state
        if self._has_plan and bars == 0 and kind != BAR:
            return state._replace(kind=kind, header=self._said(header, kind, token))
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
            length = self._time(state, num_positions) if bars else 0
            position, order, pitch = -1, -1, -1
            ends = tuple(end - length for end in ends if end > length) if ends else ()
            silent = max(0, silent - length)
            bars = min(bars + 1, self._most_bars)
        elif kind == TIME_SIGNATURE:
            beat, beats = self._beats[token]
            num_positions = beats * self._positions_per_beat
        elif kind == TEMPO:
            tempo = token
        elif kind == PROGRAM:
            program = token
        elif kind == CHORD and last == CHORD:
            kind = PLANNED
        return ScoreState(kind, beat, num_positions, position, tempo, program, order, pitch, silent, ends, bars, header)

    @staticmethod
    def _said(header: Header, kind: int, token: int) -> Header:
        """Return a header with one more token."""
        if kind == STYLE:
            return header._replace(style=token)
        if kind == TIME_SIGNATURE:
            return header._replace(signature=token)
        if kind == TEMPO:
            return header._replace(tempo=token)
        return header._replace(programs=(*header.programs, token)) if kind == PROGRAM else header


def _known(ids: list[int], table: Vocabulary) -> np.ndarray:
    """Return the ids whose value is known; all of them where none is."""
    return np.array([i for i in ids if table[i].value is not None] or ids, np.int64)


def _only(ids: np.ndarray, wanted: int) -> np.ndarray:
    """Return one of some ids alone; all of them where it is not among them."""
    return ids[ids == wanted] if wanted in ids else ids
