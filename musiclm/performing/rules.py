"""Trivial rules of performance, as baselines: what a model has to beat.

N notes, M onsets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .features import FEATURES, note_features
from .notes import ScoreNotes, onset_numbers
from .parameters import Parameters

TOP = 8  # velocity steps that a top note is louder
ENDING = 0.07  # of the onsets, that are slowed
SLOWEST = 1.0  # log2 of the last beat period over the mean one


def flat(notes: ScoreNotes) -> Parameters:
    """Return a performance of one velocity, in strict time, legato."""
    return _parameters(notes, np.full(len(notes), 64.0))


def by_pitch(notes: ScoreNotes) -> Parameters:
    """Return a performance whose velocity is the pitch."""
    return _parameters(notes, notes.pitch.astype(np.float64))


def top_of_chord(notes: ScoreNotes) -> Parameters:
    """Return a performance whose velocity is the pitch, and `TOP` more for the highest note of each onset."""
    return _parameters(notes, notes.pitch + TOP * (_feature(notes, "rank_from_top") == 0))


def top_line(notes: ScoreNotes) -> Parameters:
    """Return a performance whose velocity is the pitch, and `TOP` more for notes above which none sounds."""
    return _parameters(notes, notes.pitch + TOP * (_feature(notes, "outer") % 2 == 1))


def slow_ending(notes: ScoreNotes) -> Parameters:
    """Return a performance in strict time, whose last 7 % of onsets slow down linearly in the logarithm of the period."""
    number = onset_numbers(notes)
    count = number[-1] + 1
    slowed = max(1, round(ENDING * count))
    ramp = np.clip((np.arange(count) - (count - slowed) + 1) / slowed, 0, 1)
    return _parameters(notes, np.full(len(notes), 64.0), tempo=SLOWEST * ramp[number])


RULES: dict[str, Callable[[ScoreNotes], Parameters]] = {
    "flat": flat,
    "pitch": by_pitch,
    "pitch, top of chord": top_of_chord,
    "pitch, top line": top_line,
    "slow ending": slow_ending,
}


class DrumMeans:
    """The mean of each parameter per drum and position in the bar, over training performances.

    Positions are twenty-fourths of a quarter. What was seen fewer than `LEAST` times has the mean of its drum, and a drum
    that was not seen that of all hits.
    """

    LEAST = 5

    def __init__(self, played: Sequence[tuple[ScoreNotes, Parameters]]) -> None:
        sums: dict[tuple[int, ...], list[np.ndarray]] = {}
        for notes, parameters in played:
            values = np.stack([parameters.velocity, parameters.deviation], axis=1)
            for (drum, place), value in zip(_places(notes), values, strict=True):
                for key in ((drum, place), (drum,), ()):
                    total = sums.setdefault(key, [np.zeros(2), np.zeros(1)])
                    total[0] += value
                    total[1] += 1
        self._mean = {key: total / count for key, (total, count) in sums.items() if count[0] >= self.LEAST or not key}

    def __call__(self, notes: ScoreNotes) -> Parameters:
        """Return the means of each hit."""
        found = [
            next(self._mean[key] for key in ((drum, place), (drum,), ()) if key in self._mean)
            for drum, place in _places(notes)
        ]
        velocity, deviation = np.array(found).T
        return _parameters(notes, velocity * 127, deviation=deviation)


def _places(notes: ScoreNotes) -> list[tuple[int, int]]:
    place = np.round(notes.position * 24).astype(int)
    return list(zip(notes.pitch.tolist(), place.tolist(), strict=True))


def _feature(notes: ScoreNotes, name: str) -> np.ndarray:
    column: np.ndarray = note_features(notes)[:, tuple(FEATURES).index(name)]
    return column


def _parameters(
    notes: ScoreNotes, velocity: np.ndarray, *, tempo: np.ndarray | None = None, deviation: np.ndarray | None = None
) -> Parameters:
    zeros = np.zeros(len(notes))
    return Parameters(
        velocity=np.clip(velocity, 1, 127) / 127,
        tempo=zeros if tempo is None else tempo,
        deviation=zeros if deviation is None else deviation,
        articulation=zeros,
        pedal=zeros,
        mask=np.ones(len(notes), bool),
        seconds_per_quarter=0.5,
    )
