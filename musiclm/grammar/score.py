"""The grammar of `score`: MidiTok's REMI with programs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..tokens.score import ScoreTokenizer
from .base import Grammar


class Place(NamedTuple):
    """Where one row of `score` tokens stands.

    Attributes:
        kind: of the last token.
        bar_start: in quarters; of the first bar 0.
        beat: length, in quarters.
        num_positions: in the bar.
        position: in the bar, -1 before the first.
        tempo: id, -1 if none was said yet.
        program: id, -1 if none was said yet.
        order: of the last note at this position: its program's place among programs, drums last; -1 if there is none.
        pitch: id of that note, -1 if there is none.
    """

    kind: str = "BOS"
    bar_start: float = 0.0
    beat: float = 1.0
    num_positions: int = 0
    position: int = -1
    tempo: int = -1
    program: int = -1
    order: int = -1
    pitch: int = -1


class ScoreGrammar(Grammar):
    """What MidiTok's REMI would itself write, and nothing else.

    Bars have a time signature; positions rise and lie within their bar; a tempo or program is said when it changes; at
    one position notes come by program, drums last, then by pitch, none twice; drums have drum pitches, and only they.
    """

    def __init__(self, tokenizer: ScoreTokenizer, not_before: float = 0.0) -> None:
        self._kinds, self._values = tokenizer.kinds, tokenizer.values
        self._positions_a_beat = tokenizer.midi_tokenizer.config.max_num_pos_per_beat
        self._not_before = not_before - 1e-6
        kinds = np.array(self._kinds)
        self._ids = {kind: np.flatnonzero(kinds == kind) for kind in set(self._kinds)}
        programs = sorted(self._ids["Program"].tolist(), key=lambda i: (self._values[i] == "-1", int(self._values[i])))
        self._order = {program: place for place, program in enumerate(programs)}
        self._programs = np.array(programs)
        by_position = sorted(self._ids["Position"].tolist(), key=lambda i: int(self._values[i]))
        self._positions = np.array(by_position)

    def beginning(self) -> Place:
        return Place()

    def allowed(self, place: Place) -> np.ndarray:
        allowed = np.zeros(len(self._kinds), bool)
        for ids in self._following(place):
            allowed[ids] = True
        return allowed

    def _following(self, p: Place) -> list[np.ndarray]:
        """Return the ids that may come next, in pieces."""
        if p.kind == "BOS":
            return [self._ids["Bar"]]
        if p.kind == "Bar":
            return [self._ids["TimeSig"]]
        if p.kind in ("Pitch", "PitchDrum"):
            return [self._ids["Velocity"]]
        if p.kind == "Velocity":
            return [self._ids["Duration"]]
        if p.kind == "Program":
            return [self._pitches(p)]
        if p.kind == "TimeSig" and p.tempo < 0:  # every piece begins with its tempo
            return [self._positions[:1]]
        later = [self._ids["Bar"], self._positions[self._first_position(p) : p.num_positions]]
        if p.kind == "TimeSig":
            return later
        sounding = [] if self._time(p, p.position) < self._not_before else self._notes(p)
        if p.kind == "Position":
            tempi = self._ids["Tempo"]
            return [*sounding, tempi[tempi != p.tempo]] if p.tempo >= 0 else [tempi]
        return later + sounding  # behind a tempo or a note

    def _time(self, p: Place, position: int) -> float:
        return p.bar_start + position * p.beat / self._positions_a_beat

    def _first_position(self, p: Place) -> int:
        """Return the first position of the bar that lies behind the last and not before the new music's beginning."""
        first = p.position + 1
        while first < p.num_positions and self._time(p, first) < self._not_before:
            first += 1
        return first

    def _notes(self, p: Place) -> list[np.ndarray]:
        """Return how another note at this position may begin: with a pitch, or with a program that comes later."""
        change = self._programs[p.order + 1 :] if p.order >= 0 else self._programs
        return [change[change != p.program], self._pitches(p)]

    def _pitches(self, p: Place) -> np.ndarray:
        if p.program < 0:
            return np.array([], np.int64)
        pitches = self._ids["PitchDrum" if self._values[p.program] == "-1" else "Pitch"]
        order = self._order[p.program]
        if order < p.order:
            return np.array([], np.int64)
        return pitches[pitches > p.pitch] if order == p.order else pitches

    def after(self, place: Place, token: int) -> Place:
        p, i = place, token
        kind, value = self._kinds[i], self._values[i]
        if kind == "Bar":
            length = p.num_positions * p.beat / self._positions_a_beat
            return p._replace(kind=kind, bar_start=p.bar_start + length, position=-1, order=-1, pitch=-1)
        if kind == "TimeSig":
            numerator, denominator = map(int, value.split("/"))
            return p._replace(kind=kind, beat=4 / denominator, num_positions=numerator * self._positions_a_beat)
        if kind == "Position":
            return p._replace(kind=kind, position=int(value), order=-1, pitch=-1)
        if kind == "Tempo":
            return p._replace(kind=kind, tempo=i)
        if kind == "Program":
            return p._replace(kind=kind, program=i)
        if kind in ("Pitch", "PitchDrum"):
            return p._replace(kind=kind, order=self._order.get(p.program, -1), pitch=i)
        return p._replace(kind=kind)
