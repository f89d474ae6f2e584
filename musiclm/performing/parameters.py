"""What a performance adds to a score, per note, and the performance that comes of it.

The tempo is a curve through the onsets of the score, or some of them: there the notes are played on average. The curve always
rises, so a chord whose notes come before those of the chord before it stands a little after that one.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from .notes import TOGETHER, ScoreNotes, onset_numbers, onset_times

MAX_TEMPO = 4.0  # log2 of the longest beat period over the mean: a fermata; less this much: the shortest
MAX_ARTICULATION = 5.0  # log2 of played over notated duration: a 32nd of it to 32 times it
DEFAULT_PERIOD = 0.5  # seconds per quarter of a piece with one onset, which has no tempo
MIN_DURATION = 1e-3  # seconds that a played note sounds
NAMES = ("velocity", "tempo", "deviation", "articulation", "pedal")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parameters:
    """The parameters of N notes; 0 where a note has no performed partner, but tempo, which every onset has.

    Attributes:
        velocity: MIDI velocity over 127, (N,) float64.
        tempo: log2 of the beat period from this onset to the next over `seconds_per_quarter`, one for all notes of an onset,
            (N,) float64: above 0 is slower than the mean. The last onset has that of the one before it.
        deviation: performed onset less the curve's, seconds, (N,) float64; without a window less the mean of its chord.
        articulation: log2 of the performed duration over what the notated one lasts on the curve, (N,) float64.
        pedal: 1 where the sustain pedal is down at the onset, else 0, (N,) float64.
        mask: whether the note has a performed partner, (N,) bool.
        seconds_per_quarter: the mean beat period of the performance.
    """

    velocity: np.ndarray
    tempo: np.ndarray
    deviation: np.ndarray
    articulation: np.ndarray
    pedal: np.ndarray
    mask: np.ndarray
    seconds_per_quarter: float


def parameters_of(
    notes: ScoreNotes,
    onset_s: np.ndarray,
    end_s: np.ndarray,
    velocity: np.ndarray,
    pedal_down: np.ndarray,
    *,
    window: float = 0.0,
) -> Parameters:
    """Return the parameters of a performance.

    Args:
        notes: of the score, N.
        onset_s, end_s: when each note begins and its key goes up, seconds, (N,); NaN where the performance lacks the note.
        velocity: 1 to 127, (N,).
        pedal_down: whether the sustain pedal is down at the onset, (N,) bool.
        window: quarters, counted from the bar line, in which the tempo does not change; 0 for a tempo at each onset. The
            curve goes through the first chord in each, and what others are early or late is in their deviations: a tempo
            from one onset to the next is mostly the unevenness of fingers. Of 55 pairs of pianists who play one piece,
            tempi correlate by 0.54 without a window, 0.67 with half a quarter, 0.75 with a quarter.

    Raises:
        ValueError: arrays differ in length, or no note was performed.
    """
    shapes = {np.shape(each) for each in (notes.onset, onset_s, end_s, velocity, pedal_down)}
    if len(shapes) > 1:
        raise ValueError(f"notes and their performance differ in length: {sorted(shapes)}")
    mask = np.isfinite(onset_s) & np.isfinite(end_s)
    if not mask.any():
        raise ValueError("no note of the score was performed")
    number, at = onset_numbers(notes), onset_times(notes)
    count = np.bincount(number[mask], minlength=len(at))
    mean = np.bincount(number[mask], onset_s[mask], len(at))[count > 0] / count[count > 0]
    known = at[count > 0]
    period = _mean_period(known, mean)
    first = np.unique(number, return_index=True)[1]
    nodes = _nodes(known, notes.position[first][count > 0], window)
    seconds = _between(at, known[nodes], _rising(known[nodes], mean[nodes], period), period)
    periods = _periods(at, seconds, period)
    curve = _Curve(at, seconds, float(periods[-1]))
    tempo = np.log2(periods / period)
    notated = curve(notes.onset + notes.duration) - curve(notes.onset)
    played = np.maximum(np.where(mask, end_s - onset_s, 1.0), MIN_DURATION)
    articulation = np.log2(played / np.maximum(notated, MIN_DURATION))
    return Parameters(
        velocity=np.where(mask, velocity, 0) / 127,
        tempo=tempo[number],
        deviation=np.where(mask, onset_s - seconds[number], 0.0),
        articulation=np.where(mask, np.clip(articulation, -MAX_ARTICULATION, MAX_ARTICULATION), 0.0),
        pedal=np.where(mask, pedal_down, False).astype(np.float64),
        mask=mask,
        seconds_per_quarter=period,
    )


def times_of(
    notes: ScoreNotes, parameters: Parameters, seconds_per_quarter: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return when each note begins and when its key goes up, seconds, both (N,) float64.

    The first onset of the score comes as late as it would at the mean tempo. Nothing keeps an onset from being before 0, or
    a note from sounding into the next one of its pitch.

    Args:
        notes: of the score, N.
        parameters: of the same notes.
        seconds_per_quarter: the mean beat period; the performance's own by default.
    """
    period = parameters.seconds_per_quarter if seconds_per_quarter is None else seconds_per_quarter
    number, at = onset_numbers(notes), onset_times(notes)
    first = np.unique(number, return_index=True)[1]
    periods = period * 2.0 ** parameters.tempo[first]
    seconds = at[0] * period + np.append(0.0, np.cumsum(np.diff(at) * periods[:-1]))
    curve = _Curve(at, seconds, float(periods[-1]))
    onset_s = seconds[number] + parameters.deviation
    notated = np.maximum(curve(notes.onset + notes.duration) - curve(notes.onset), MIN_DURATION)
    return onset_s, onset_s + notated * 2.0**parameters.articulation


def tempo_curve(notes: ScoreNotes, parameters: Parameters) -> np.ndarray:
    """Return log2 of the beat period over the mean one at each onset, (M,) float64."""
    first = np.unique(onset_numbers(notes), return_index=True)[1]
    curve: np.ndarray = parameters.tempo[first]
    return curve


class _Curve:
    """Seconds as a function of quarters: linear between M onsets, and at the period `last` behind them."""

    def __init__(self, at: np.ndarray, seconds: np.ndarray, last: float) -> None:
        self.at, self.seconds, self.last = at, seconds, last

    def __call__(self, quarters: np.ndarray) -> np.ndarray:
        behind = np.maximum(quarters - self.at[-1], 0.0) * self.last
        seconds: np.ndarray = np.interp(quarters, self.at, self.seconds) + behind
        return seconds


def _periods(at: np.ndarray, seconds: np.ndarray, alone: float) -> np.ndarray:
    """Return the beat period from each onset on, seconds per quarter, (M,); `alone` if there is one onset."""
    found = np.diff(seconds) / np.diff(at)
    return np.append(found, found[-1] if len(found) else alone)


def _mean_period(at: np.ndarray, seconds: np.ndarray) -> float:
    """Return the seconds per quarter from the first to the last onset."""
    if len(at) < 2 or seconds[-1] <= seconds[0]:
        return DEFAULT_PERIOD
    return float((seconds[-1] - seconds[0]) / (at[-1] - at[0]))


def _nodes(at: np.ndarray, position: np.ndarray, window: float) -> np.ndarray:
    """Return which onsets (M,) the curve goes through: the first ones in each window of a bar, the first, and the last.

    Args:
        at: quarters, rising, (M,).
        position: quarters from the bar line, (M,).
        window: quarters. Two of them are at least half of it apart.
    """
    if window <= 0:
        return np.arange(len(at))
    cell = np.floor((position + TOGETHER) / window)
    is_new = (np.diff(cell, prepend=-1) != 0) | (np.diff(position, prepend=np.inf) <= 0)
    found: list[int] = [0]
    for i in np.flatnonzero(is_new).tolist():
        if at[i] - at[found[-1]] >= window / 2 - TOGETHER:
            found.append(i)
    if len(found) > 1 and at[-1] - at[found[-1]] < window / 2 - TOGETHER:
        found.pop()
    return np.unique([*found, len(at) - 1])


def _rising(at: np.ndarray, seconds: np.ndarray, period: float) -> np.ndarray:
    """Return times of onsets (M,) that rise within the bounds of the tempo, and else are the given ones."""
    least = (np.diff(at) * period * 2.0**-MAX_TEMPO).tolist()
    most = (np.diff(at) * period * 2.0**MAX_TEMPO).tolist()
    found = [float(seconds[0])]
    for given, low, high in zip(seconds[1:].tolist(), least, most, strict=True):
        found.append(found[-1] + min(max(given - found[-1], low), high))
    return np.array(found)


def _between(at: np.ndarray, known: np.ndarray, seconds: np.ndarray, period: float) -> np.ndarray:
    """Return the seconds of all onsets (M,): linear between the known ones, and at the mean tempo outside them."""
    inside = np.interp(at, known, seconds)
    outside = np.minimum(at - known[0], 0.0) + np.maximum(at - known[-1], 0.0)
    return inside + outside * period
