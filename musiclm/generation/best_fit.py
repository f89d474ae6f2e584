"""Which of several ways to fill a span is kept: by its harmony with the notes that are kept, probability and density.

Three figures, each standardised over the candidates (less their mean, divided by their standard deviation), are added up:

- consonance: of all pairs of a new and a kept note that sound together, octaves and unisons left out, the share of thirds,
  fourths, fifths and sixths, octaves folded; a pair counts by how long it sounds;
- scale: the share of new notes in the scale of the key of the kept notes, see `harmony.best_key`;
- probability: the mean log probability of the new ids under the model.

To them is added, as it is, how usual it is for the instrument to play so many notes, in nats: see `density`. A mean over ids
prefers parts with many notes that repeat each other, and the harmony those with many notes that last: without it basses had
several times too many.

Drums count in the third alone. What a candidate does not have counts as the mean. It knows nothing of rhythm or melody.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from symusic import Score

from ..evaluation.harmony import SCALES, best_key

CONSONANT = np.isin(np.arange(12), (3, 4, 5, 7, 8, 9))

USUAL = {
    0: (3.56, 0.56),  # piano
    2: (1.19, 0.71),  # organ
    3: (2.81, 0.74),  # guitar
    4: (1.00, 0.47),  # bass
    5: (1.44, 0.97),  # strings
    6: (1.19, 0.81),  # ensemble
    7: (0.75, 1.04),  # brass
    8: (1.25, 0.84),  # reed
    9: (0.75, 0.83),  # pipe
    11: (0.50, 0.51),  # synth pad
    14: (0.94, 1.11),  # percussive
}
"""Notes per quarter of an instrument that plays with others, by family: median, and standard deviation of the logarithm.

Of 250 training pieces of `score-transformer`, in stretches of four bars: `python benchmarks/density.py CORPUS`. Families with
fewer than 100 stretches have `OTHERS`, those of all.
"""
OTHERS = (1.38, 0.96)
FAMILY = 8  # programs


def best(
    kept: Score, candidates: Sequence[Score], log_probabilities: Sequence[float], start: float, stop: float
) -> int:
    """Return the index of the best candidate, see `goodness`."""
    return int(goodness(kept, candidates, log_probabilities, start, stop).argmax())


def goodness(
    kept: Score, candidates: Sequence[Score], log_probabilities: Sequence[float], start: float, stop: float
) -> np.ndarray:
    """Return how good each candidate is beside the others, (N,); one without a note is the last to be kept.

    Args:
        kept: the notes around the new ones, and among them.
        candidates: new notes; those that begin in [start, stop) count.
        log_probabilities: of each, nats per id.
        start: of the span, in quarters.
        stop: its end.
    """
    around = pitched(kept, start, stop)
    around = around if len(around) else pitched(kept, 0.0, np.inf)
    rows = []
    for each, log_probability in zip(candidates, log_probabilities, strict=True):
        new = pitched(each, start, stop, begin_within=True)
        rows.append([consonance(new, around), in_scale(new, around), log_probability])
    figures = np.array(rows, float)
    known = np.isfinite(figures)
    counts = np.maximum(1, known.sum(0))
    deviations = np.where(known, figures - np.where(known, figures, 0.0).sum(0) / counts, 0.0)
    spreads = np.sqrt((deviations**2).sum(0) / counts)
    found: np.ndarray = (deviations / np.where(spreads > 1e-9, spreads, 1.0)).sum(1)
    found += [density(each, start, stop) for each in candidates]
    found[[not _has_notes(each, start, stop) for each in candidates]] = -np.inf
    return found


def pitched(score: Score, start: float, stop: float, *, begin_within: bool = False) -> np.ndarray:
    """Return (start, end, pitch) of the notes that sound, or begin, within a time in quarters, drums left out, (N, 3)."""
    tpq = score.ticks_per_quarter
    notes = [(n.time / tpq, n.end / tpq, n.pitch) for track in score.tracks if not track.is_drum for n in track.notes]
    found = np.array(notes, float).reshape(-1, 3)
    is_late_enough = found[:, 0] >= start - 1e-6 if begin_within else found[:, 1] > start + 1e-6
    return found[is_late_enough & (found[:, 0] < stop - 1e-6)]


def consonance(new: np.ndarray, kept: np.ndarray) -> float:
    """Return the share of consonant pairs of notes, see the module; NaN where none sound together."""
    together = np.minimum(new[:, None, 1], kept[None, :, 1]) - np.maximum(new[:, None, 0], kept[None, :, 0])
    interval = (new[:, None, 2] - kept[None, :, 2]).astype(int) % 12
    weights = np.where(interval != 0, np.maximum(0.0, together), 0.0)
    total = float(weights.sum())
    return float((weights * CONSONANT[interval]).sum()) / total if total > 1e-9 else np.nan


def in_scale(new: np.ndarray, kept: np.ndarray) -> float:
    """Return the share of new notes in the scale of the key of kept ones; NaN without notes."""
    if not len(new) or not len(kept):
        return np.nan
    return float(SCALES[key_of(kept)][new[:, 2].astype(int) % 12].mean())


def key_of(notes: np.ndarray) -> int:
    """Return the key of notes by how long each pitch class sounds, see `harmony.best_key`; `notes` as of `pitched`."""
    return best_key(np.bincount(notes[:, 2].astype(int) % 12, notes[:, 1] - notes[:, 0], 12))


def density(score: Score, start: float, stop: float) -> float:
    """Return how usual the number of notes of each instrument is, in nats, the mean over instruments; 0 is the most usual.

    The notes per quarter count as log-normal, see `USUAL`. Drums, and instruments without a note, are left out; 0 without any.
    """
    tpq, found = score.ticks_per_quarter, []
    for track in score.tracks:
        number = sum(start - 1e-6 <= n.time / tpq < stop - 1e-6 for n in track.notes)
        if number and not track.is_drum:
            usual, spread = USUAL.get(track.program // FAMILY, OTHERS)
            found.append(-0.5 * (math.log(number / (stop - start) / usual) / spread) ** 2)
    return float(np.mean(found)) if found else 0.0


def _has_notes(score: Score, start: float, stop: float) -> bool:
    tpq = score.ticks_per_quarter
    return any(start - 1e-6 <= n.time / tpq < stop - 1e-6 for track in score.tracks for n in track.notes)
