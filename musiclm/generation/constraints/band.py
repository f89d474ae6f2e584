"""What the grammars of MidiTok's tokenizers share: several instruments in one stream of ids, in MidiTok's order."""

from __future__ import annotations

import math

import numpy as np

from ...tokenizers.miditok import MidiTokTokenizer
from .base import Grammar
from .limits import Limits

NONE = np.array([], np.int64)
BOS, BAR, TIME_SIGNATURE, POSITION, SHIFT, TEMPO, PROGRAM, PITCH, VELOCITY, DURATION, OFF = range(11)
KINDS = {
    "Bar": BAR, "TimeSig": TIME_SIGNATURE, "Position": POSITION, "TimeShift": SHIFT, "Tempo": TEMPO, "Program": PROGRAM,
    "Pitch": PITCH, "PitchDrum": PITCH, "NoteOn": PITCH, "DrumOn": PITCH, "Velocity": VELOCITY, "Duration": DURATION,
    "NoteOff": OFF, "DrumOff": OFF,
}  # fmt: skip


class MultiTrackGrammar(Grammar):
    """At one time notes come by program, drums last, then by pitch, none twice; drums have drum pitches, and only they.

    A tempo is said when it changes; so is a program, or else before each note. Times are in ticks.

    Args:
        tokenizer: of those that `limits.is_followed`.
        not_before: in quarters; no note begins before it.
        limits: what new music keeps to.
    """

    def __init__(self, tokenizer: MidiTokTokenizer, not_before: float = 0.0, limits: Limits | None = None) -> None:
        super().__init__(tokenizer.vocab_size)
        kinds, values, config = tokenizer.kinds, tokenizer.values, tokenizer.midi_tokenizer.config
        permitted = limits.permitted if limits else np.ones(self.vocab_size, bool)
        self._kinds = [KINDS.get(kind, BOS) for kind in kinds]
        self._max_polyphony = limits.max_polyphony if limits else None
        self._says_each_program = not config.program_changes
        self._metres, ticks = _metres(tokenizer)
        self._not_before = math.ceil(not_before * ticks - 1e-6)
        self._lengths = {
            i: (int(beats) * int(parts) + int(part), int(parts))
            for i, kind in enumerate(kinds)
            if kind in ("Duration", "TimeShift")
            for beats, part, parts in [values[i].split(".")]
        }
        self._velocities, self._durations = np.flatnonzero(_is(tokenizer, "Velocity")), _ids(tokenizer, "Duration")
        self._time_signatures = np.flatnonzero(_is(tokenizer, "TimeSig") & permitted)
        self._tempi = np.flatnonzero(_is(tokenizer, "Tempo") & permitted)
        tempi = _ids(tokenizer, "Tempo").tolist()
        self._tempo_holds = {-1: not tempi} | {i: bool(permitted[i]) for i in tempi}
        every = sorted(_ids(tokenizer, "Program").tolist(), key=lambda i: (values[i] == "-1", int(values[i])))
        self._order = {program: place for place, program in enumerate(every)} | {-1: -1}
        self._orders = np.full(self.vocab_size, -1)
        self._orders[every] = np.arange(len(every))
        self._drums = next((i for i in every if values[i] == "-1"), -2)
        tuned, drums = (np.flatnonzero(_is(tokenizer, *names) & permitted) for names in BEGIN)
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
        """Return the pitches that a note of a program may have behind one of an order and pitch at the same time."""
        if self._order[program] < order or (is_full and program != self._drums):
            return NONE
        pitches = self._pitches_of[program]
        return pitches[pitches > pitch] if self._order[program] == order else pitches

    def _notes(self, program: int, order: int, pitch: int, is_full: bool) -> list[np.ndarray]:
        """Return how another note at the same time may begin: with a pitch, or with a program that comes later."""
        programs = self._programs[self._orders[self._programs] > order]
        if is_full:
            programs = programs[programs == self._drums]
        pitches = self._pitches(program, order, pitch, is_full)
        if not self._says_each_program:
            return [programs[programs != program], pitches]
        again = order >= 0 and len(pitches) > 0
        return [programs, np.array([program])] if again else [programs]

    def _ended(self, ends: tuple[int, ...], end: int) -> tuple[int, ...]:
        """Return when the notes that sound longest end, as many as may sound at once, the latest first."""
        return tuple(sorted((*ends, end), reverse=True)[: self._max_polyphony])


BEGIN = ("Pitch", "NoteOn"), ("PitchDrum", "DrumOn")


def _is(tokenizer: MidiTokTokenizer, *kinds: str) -> np.ndarray:
    return np.isin(tokenizer.kinds, kinds)


def _ids(tokenizer: MidiTokTokenizer, kind: str) -> np.ndarray:
    return np.flatnonzero(_is(tokenizer, kind))


def _metres(tokenizer: MidiTokTokenizer) -> tuple[dict[int, tuple[int, int]], int]:
    """Return ticks a beat and beats a bar, by time signature's id, -1 for 4/4; and ticks a quarter."""
    signs = {i: tokenizer.values[i] for i in _ids(tokenizer, "TimeSig").tolist()} | {-1: "4/4"}
    parts = {i: tuple(map(int, sign.split("/"))) for i, sign in signs.items()}
    finest = max(4, *(denominator for _, denominator in parts.values()))
    ticks = int(tokenizer.midi_tokenizer.config.max_num_pos_per_beat) * finest // 4
    return {i: (4 * ticks // denominator, numerator) for i, (numerator, denominator) in parts.items()}, ticks
