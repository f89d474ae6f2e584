"""Which of several ways to fill a span is kept: by its harmony with the notes that are kept, and its probability.

Three figures, each standardised over the candidates (less their mean, divided by their standard deviation), are added up:

- consonance: of all pairs of a new and a kept note that sound together, octaves and unisons left out, the share of thirds,
  fourths, fifths and sixths, octaves folded; a pair counts by how long it sounds;
- scale: the share of new notes in the scale of the key of the kept notes, see `harmony.best_key`;
- probability: the mean log probability of the new ids under the model.

Drums count in the last one alone. What a candidate does not have counts as the mean. It knows nothing of rhythm or melody, and
a sparse part has it easier: it keeps what clashes least of what the model offers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from symusic import Score

from ..evaluation.harmony import SCALES, best_key

CONSONANT = np.isin(np.arange(12), (3, 4, 5, 7, 8, 9))


def best(
    kept: Score, candidates: Sequence[Score], log_probabilities: Sequence[float], start: float, stop: float
) -> int:
    """Return the index of the best candidate; one without a note is the last to be kept.

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
    goodness = (deviations / np.where(spreads > 1e-9, spreads, 1.0)).sum(1)
    goodness[[not _has_notes(each, start, stop) for each in candidates]] = -np.inf
    return int(goodness.argmax())


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
    weights = np.bincount(kept[:, 2].astype(int) % 12, kept[:, 1] - kept[:, 0], 12)
    return float(SCALES[best_key(weights)][new[:, 2].astype(int) % 12].mean())


def _has_notes(score: Score, start: float, stop: float) -> bool:
    tpq = score.ticks_per_quarter
    return any(start - 1e-6 <= n.time / tpq < stop - 1e-6 for track in score.tracks for n in track.notes)
