"""The base class of grammars for MidiTok's tokenizers: several instruments in one stream of ids, in MidiTok's order."""

from __future__ import annotations

import math

import numpy as np

from ...midi.theory import DRUMS
from ...tokenizers.miditok import MidiTokTokenizer
from ...tokenizers.vocabulary import BEGINS, ENDS, SPECIAL, Kind, ids_of
from .base import Grammar, Limits

NONE = np.array([], np.int64)
BOS, BAR, TIME_SIGNATURE, POSITION, SHIFT, TEMPO = map(
    int, (Kind.BOS, Kind.BAR, Kind.TIME_SIGNATURE, Kind.POSITION, Kind.TIME_SHIFT, Kind.TEMPO)
)  # plain integers: states are hashed and compared once or more per token
PROGRAM, PITCH, VELOCITY, DURATION, OFF = map(
    int, (Kind.PROGRAM, Kind.NOTE_ON, Kind.VELOCITY, Kind.DURATION, Kind.NOTE_OFF)
)
ALIKE = dict.fromkeys(SPECIAL, BOS) | dict.fromkeys(BEGINS, PITCH) | dict.fromkeys(ENDS, OFF)


class MultiTrackGrammar(Grammar):
    """Notes at one time are ordered by program, drums last, then by pitch, and none comes twice; only drums have drum pitches.

    A tempo comes when it changes; a program when it changes, or before each note. Times are in ticks.

    Args:
        tokenizer: one for which `miditok.is_followed`.
        not_before: in quarters; no note begins before it.
        limits: the limits on new music.
    """

    def __init__(self, tokenizer: MidiTokTokenizer, not_before: float = 0.0, limits: Limits | None = None) -> None:
        super().__init__(tokenizer.vocab_size)
        table = tokenizer.vocabulary
        permitted = limits.permitted if limits else np.ones(self.vocab_size, bool)
        self._kinds = [ALIKE.get(token.kind, int(token.kind)) for token in table]
        self._max_polyphony = limits.max_polyphony if limits else None
        self._program_per_note = not tokenizer.midi_tokenizer.config.program_changes
        self._beats, ticks = _beats(tokenizer)
        self._not_before = math.ceil(not_before * ticks - 1e-6)
        self._lengths = {
            i: (value.numerator, value.denominator)
            for i, (kind, value) in enumerate(table)
            if kind in (Kind.DURATION, Kind.TIME_SHIFT)
        }
        self._velocities, self._durations = ids_of(table, Kind.VELOCITY), ids_of(table, Kind.DURATION)
        self._time_signatures = _permitted(ids_of(table, Kind.TIME_SIGNATURE), permitted)
        tempi = ids_of(table, Kind.TEMPO)
        self._tempi = _permitted(tempi, permitted)
        self._tempo_permitted = {-1: not len(tempi)} | {i: bool(permitted[i]) for i in tempi.tolist()}
        programs = {i: table[i].value for i in ids_of(table, Kind.PROGRAM).tolist()}
        every = sorted(programs, key=lambda i: (programs[i] == DRUMS, programs[i]))
        self._order = {program: rank for rank, program in enumerate(every)} | {-1: -1}
        self._orders = np.full(self.vocab_size, -1)
        self._orders[every] = np.arange(len(every))
        self._drums = next((i for i in every if programs[i] == DRUMS), -2)
        tuned, drums = (_permitted(ids_of(table, kind), permitted) for kind in (Kind.NOTE_ON, Kind.DRUM_ON))
        self._pitches_of = {i: (drums if i == self._drums else tuned) if permitted[i] else NONE for i in every} | {
            -1: NONE
        }
        self._programs = np.array([i for i in every if len(self._pitches_of[i])], np.int64)
        self._drums_play = self._drums in self._programs

    def alike(self, token: int) -> int:
        if self._kinds[token] == VELOCITY:
            return int(self._velocities[0])
        if self._kinds[token] == DURATION and self._max_polyphony is None:
            return int(self._durations[0])
        return token

    def _pitches(self, program: int, order: int, pitch: int, is_full: bool) -> np.ndarray:
        """Return the pitches that a note of a program may have after a note of this order and pitch at the same time."""
        if self._order[program] < order or (is_full and program != self._drums):
            return NONE
        pitches = self._pitches_of[program]
        return pitches[pitches > pitch] if self._order[program] == order else pitches

    def _notes(
        self, program: int, order: int, pitch: int, is_full: bool, players: np.ndarray | None = None
    ) -> list[np.ndarray]:
        """Return the ids with which another note at the same time may begin: pitches, or later programs.

        Args:
            program: id of the last one; with `order`, `pitch` and `is_full` see `_pitches`.
            order: of the last note.
            pitch: of the last note.
            is_full: whether only drums may begin.
            players: ids of the programs that may play; all that are permitted if left out.
        """
        players = self._programs if players is None else players
        programs = players[self._orders[players] > order]
        if is_full:
            programs = programs[programs == self._drums]
        pitches = self._pitches(program, order, pitch, is_full)
        if not self._program_per_note:
            return [programs[programs != program], pitches]
        again = order >= 0 and len(pitches) > 0
        return [programs, np.array([program])] if again else [programs]

    def _ended(self, ends: tuple[int, ...], end: int) -> tuple[int, ...]:
        """Return the ends of the notes that sound longest, at most as many as may sound at once, latest first."""
        return tuple(sorted((*ends, end), reverse=True)[: self._max_polyphony])


def _permitted(ids: np.ndarray, permitted: np.ndarray) -> np.ndarray:
    return ids[permitted[ids]]


def _beats(tokenizer: MidiTokTokenizer) -> tuple[dict[int, tuple[int, int]], int]:
    """Return ticks per beat and beats per bar, by the id of the time signature, -1 for 4/4; and ticks per quarter."""
    table = tokenizer.vocabulary
    signatures = {-1: (4, 4)} | {i: token.value for i, token in enumerate(table) if token.kind == Kind.TIME_SIGNATURE}
    finest = max(4, *(denominator for _, denominator in signatures.values()))
    ticks = int(tokenizer.midi_tokenizer.config.max_num_pos_per_beat) * finest // 4
    return {i: (4 * ticks // denominator, numerator) for i, (numerator, denominator) in signatures.items()}, ticks
