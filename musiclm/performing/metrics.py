"""How near a performance of a score is to a human's: correlations, spreads, and distances of distributions.

N notes, M onsets.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .notes import ScoreNotes, onset_numbers
from .parameters import Parameters, tempo_curve, times_of

BINS = 40
VELOCITIES = np.linspace(0, 1, BINS + 1)
LOG_SECONDS = np.linspace(np.log(0.01), np.log(8.0), BINS + 1)


def pearson(one: np.ndarray, other: np.ndarray) -> float:
    """Return Pearson's correlation of two arrays, (K,); 0 where one of them is constant, or K is below 3."""
    if len(one) < 3 or one.std() < 1e-9 or other.std() < 1e-9:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def compare(notes: ScoreNotes, mine: Parameters, human: Parameters) -> dict[str, float]:
    """Return how near a performance is to a human's.

    Only notes that the human played count. Times are taken at the human's mean tempo.

    Returns:
        velocity_r, tempo_r: Pearson's correlation over the notes; over the onsets, of the logarithm of the beat period.
        velocity_std, tempo_std, deviation_std, articulation_std: standard deviation over the human's.
        velocity_js, interval_js, duration_js: Jensen-Shannon distance (the root of the divergence in bits, 0 … 1) of the
            distributions of velocities, of logarithms of inter-onset times and of durations.
        velocity_error: mean absolute error of the velocity, 0 … 127.
        deviation_error_ms: of the deviation from the tempo curve, milliseconds.
    """
    known = human.mask & mine.mask
    tempi = [tempo_curve(notes, each) for each in (mine, human)]
    found = {
        "velocity_r": pearson(mine.velocity[known], human.velocity[known]),
        "tempo_r": pearson(*tempi),
        "velocity_error": 127 * float(np.abs(mine.velocity - human.velocity)[known].mean()),
        "deviation_error_ms": 1e3 * float(np.abs(mine.deviation - human.deviation)[known].mean()),
        "tempo_std": _ratio(*tempi),
    }
    for name in ("velocity", "deviation", "articulation"):
        found[f"{name}_std"] = _ratio(getattr(mine, name)[known], getattr(human, name)[known])
    period = human.seconds_per_quarter
    begins, ends = zip(*(times_of(notes, each, period) for each in (mine, human)), strict=True)
    number = onset_numbers(notes)[known]
    intervals = [_log(np.diff(_chords(begin[known], number))) for begin in begins]
    durations = [_log((end - begin)[known]) for begin, end in zip(begins, ends, strict=True)]
    found["velocity_js"] = js_distance(mine.velocity[known], human.velocity[known], VELOCITIES)
    found["interval_js"] = js_distance(intervals[0], intervals[1], LOG_SECONDS)
    found["duration_js"] = js_distance(durations[0], durations[1], LOG_SECONDS)
    return found


def js_distance(one: np.ndarray, other: np.ndarray, edges: np.ndarray) -> float:
    """Return the Jensen-Shannon distance of two samples in bins, 0 … 1: the root of the divergence in bits (Lin 1991)."""
    shares = [np.histogram(np.clip(each, edges[0], edges[-1]), edges)[0] / max(len(each), 1) for each in (one, other)]
    middle = (shares[0] + shares[1]) / 2
    bits = sum(float((p[p > 0] * np.log2(p[p > 0] / middle[p > 0])).sum()) for p in shares) / 2
    return max(bits, 0.0) ** 0.5


def mean_human(humans: Sequence[Parameters]) -> Parameters:
    """Return the mean of several performances of the same notes; a note counts where at least one has it.

    Raises:
        ValueError: there are none.
    """
    if not humans:
        raise ValueError("no performances to average")
    masks = np.stack([each.mask for each in humans])
    count = np.maximum(masks.sum(axis=0), 1)
    values = {}
    for name in ("velocity", "tempo", "deviation", "articulation", "pedal"):
        stacked = np.stack([getattr(each, name) for each in humans])
        values[name] = stacked.mean(axis=0) if name == "tempo" else (stacked * masks).sum(axis=0) / count
    period = float(np.exp(np.mean([np.log(each.seconds_per_quarter) for each in humans])))
    return Parameters(**values, mask=np.asarray(masks.any(axis=0)), seconds_per_quarter=period)


def _ratio(mine: np.ndarray, human: np.ndarray) -> float:
    return float(mine.std() / max(float(human.std()), 1e-9))


def _log(seconds: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(seconds, 1e-3))


def _chords(begin: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Return the mean onset of each chord of known notes, seconds, (M,)."""
    count = np.bincount(number)
    sums = np.bincount(number, begin)
    mean: np.ndarray = sums[count > 0] / count[count > 0]
    return mean
