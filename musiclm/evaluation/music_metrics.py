"""Musical statistics of scores, and how far a set of pieces is from another. Knows no model and no tokenizer.

Each statistic is a number for one piece; see its function for formula, what counts and its source. They say whether
samples look like a corpus from outside, not whether they are good: a shuffled corpus would do well by most of them. A
piece that has nothing to count (no pitch, no second bar) gives None and stands aside.

Two sets are compared as Yang and Lerch (2020) do: the distances between pieces of the reference with each other, and
those from the samples to the reference, each smoothed to a density; the area under both (1: the samples are as far from
the reference's pieces as those are from each other) and the Kullback-Leibler divergence between them.

Own code: muspy has some of these and was last released in 2022, pretty_midi has histograms but no measure made of
them, and mgeval, which came with the paper, was never released as a package.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from symusic import Score

from .. import midi

MAJOR = (0, 2, 4, 5, 7, 9, 11)
ONSETS = 12  # places in a quarter at which onsets are told apart: sixteenths and triplets
GROOVE = 4  # of the groove: sixteenths
MAX_DISTANCES = 4000  # that a density is made of; of more, as many evenly spaced in rank
POINTS = 1000  # at which densities are compared


@dataclasses.dataclass(frozen=True, kw_only=True)
class Notes:
    """The notes of a piece in the order of the file, times in quarters.

    Attributes:
        start, end: (N,) float64.
        pitch: (N,) int64.
        is_drum: (N,) booleans; drums have rhythm but no pitch and no length.
        bars: where bars begin, and where the last one ends.
    """

    start: np.ndarray
    end: np.ndarray
    pitch: np.ndarray
    is_drum: np.ndarray
    bars: np.ndarray

    def sung(self) -> np.ndarray:
        """Return which notes have a pitch, (N,) booleans."""
        return ~self.is_drum

    def by_bar(self) -> list[np.ndarray]:
        """Return the indices of the notes that begin in each bar."""
        bar = np.searchsorted(self.bars, self.start + 1e-6, side="right") - 1
        return [np.flatnonzero(bar == i) for i in range(len(self.bars) - 1)]


def notes_of(score: Score, num_bars: int | None = None) -> Notes:
    """Return the notes of a score from the bar of its first note on, moved to begin at 0.

    Args:
        score: any.
        num_bars: only so many bars, notes that ring on being cut; None for all.
    """
    tpq = score.ticks_per_quarter
    first = min((n.time for t in score.tracks for n in t.notes), default=0) / tpq
    bars = midi.BarMap(score)
    begin = bars.last_bar_line(first)
    stop = max(midi.end(score), begin)
    lines = [begin]
    for bar in bars:
        if bar.start < begin - 1e-6:
            continue
        if bar.start >= stop - 1e-6 or (num_bars is not None and len(lines) > num_bars):
            break
        lines.append(bar.end)
    stop = min(stop, lines[-1])
    parts = [(track.notes.numpy(), track.is_drum) for track in score.tracks if track.notes]
    start = np.concatenate([np.zeros(0), *(p["time"] / tpq for p, _ in parts)])
    end = start + np.concatenate([np.zeros(0), *(p["duration"] / tpq for p, _ in parts)])
    pitch = np.concatenate([np.zeros(0, np.int64), *(p["pitch"].astype(np.int64) for p, _ in parts)])
    is_drum = np.concatenate([np.zeros(0, bool), *(np.full(len(p["time"]), drums) for p, drums in parts)])
    kept = start < stop - 1e-6
    return Notes(
        start=start[kept] - begin,
        end=np.minimum(end[kept], stop) - begin,
        pitch=pitch[kept],
        is_drum=is_drum[kept],
        bars=np.array(lines) - begin,
    )


def pitch_class_entropy(notes: Notes) -> float | None:
    """Return -sum_c p(c) log2 p(c) in bits over the twelve pitch classes, p(c) being their share of the notes.

    0 for one pitch class, 3.58 for all alike; drums do not count; None without a pitch. Wu and Yang (2020).
    """
    pitches = notes.pitch[notes.sung()] % 12
    if not len(pitches):
        return None
    share = np.bincount(pitches, minlength=12) / len(pitches)
    share = share[share > 0]
    return float(abs(-(share * np.log2(share)).sum()))


def scale_consistency(notes: Notes) -> float | None:
    """Return the largest share of notes that lie in one scale, of the twelve major ones (natural minor has the same).

    At least 7/12 of evenly spread notes; drums do not count; None without a pitch. Mogren (2016).
    """
    pitches = notes.pitch[notes.sung()] % 12
    if not len(pitches):
        return None
    counts = np.bincount(pitches, minlength=12)
    return float(max(counts[[(root + step) % 12 for step in MAJOR]].sum() for root in range(12)) / len(pitches))


def note_density(notes: Notes) -> float | None:
    """Return notes a quarter: how many there are by the time from the first bar line to the end of the last note.

    Drums count. A tokenizer that counts real time has 120 quarters a minute. None without a note.
    """
    length = float(notes.end.max()) if len(notes.end) else 0.0
    return len(notes.start) / length if length > 0 else None


def polyphony(notes: Notes) -> float | None:
    """Return how many notes sound together, on average over the time in which any does: sum of lengths / their union.

    Drums do not count; None without a pitch. Dong et al. (2018) take the share of time with three or more instead.
    """
    sung = notes.sung()
    start, end = notes.start[sung], notes.end[sung]
    if not len(start):
        return None
    order = np.argsort(start)
    start, end = start[order], end[order]
    before = np.append(-np.inf, np.maximum.accumulate(end)[:-1])  # until when any earlier note sounds
    union = np.maximum(0.0, end - np.maximum(start, before)).sum()
    return float((end - start).sum() / union) if union > 0 else None


def note_length(notes: Notes) -> float | None:
    """Return the mean length of a note in quarters. Drums do not count; None without a pitch. Yang and Lerch (2020)."""
    sung = notes.sung()
    return float((notes.end - notes.start)[sung].mean()) if sung.any() else None


def bar_repetition(notes: Notes) -> float | None:
    """Return the share of bars that say again, note for note, what an earlier bar of the piece said.

    A bar says its onsets (in twelfths of a quarter), pitches and what is a drum; lengths and instruments may differ.
    Bars without an onset do not count, nor does the first of the others; None if that leaves none. A definition of our
    own, plain enough to be counted by hand; Wu and Yang (2020) look for repetition with fitness scape plots.
    """
    said: set[frozenset[tuple[int, int, bool]]] = set()
    num_bars = num_again = 0
    for begin, inside in zip(notes.bars, notes.by_bar(), strict=False):
        if len(inside):
            onsets = np.round((notes.start[inside] - begin) * ONSETS).astype(int).tolist()
            bar = frozenset(zip(onsets, notes.pitch[inside].tolist(), notes.is_drum[inside].tolist(), strict=True))
            num_bars, num_again = num_bars + 1, num_again + (bar in said)
            said.add(bar)
    return num_again / (num_bars - 1) if num_bars > 1 else None


def groove_consistency(notes: Notes) -> float | None:
    """Return 1 - the mean share of sixteenths at which one of two neighbouring bars has an onset and the other has none.

    Reported because others do: it tells little, and on the finer grids that are usual it is near 0.97 for anything, since
    most places have no onset in any bar. Bars without an onset do not count, nor do neighbours of different length; None
    if that leaves none. Wu and Yang (2020).
    """
    grooves: list[np.ndarray] = []
    for begin, end, inside in zip(notes.bars, notes.bars[1:], notes.by_bar(), strict=False):
        steps = max(1, round((end - begin) * GROOVE))
        groove = np.zeros(steps, bool)
        groove[np.minimum(np.round((notes.start[inside] - begin) * GROOVE).astype(int), steps - 1)] = True
        if len(inside):
            grooves.append(groove)
    differ = [float((a != b).mean()) for a, b in itertools.pairwise(grooves) if len(a) == len(b)]
    return 1 - sum(differ) / len(differ) if differ else None


STATISTICS: dict[str, Callable[[Notes], float | None]] = {
    statistic.__name__: statistic
    for statistic in (
        pitch_class_entropy,
        scale_consistency,
        note_density,
        polyphony,
        note_length,
        bar_repetition,
        groove_consistency,
    )
}
LEANED_ON = tuple(name for name in STATISTICS if name != "groove_consistency")  # in means over statistics

Values = dict[str, float | None]


def of_score(score: Score, num_bars: int | None = None) -> Values:
    """Return each of `STATISTICS` of a score, or of its first bars, counted from that of its first note."""
    notes = notes_of(score, num_bars)
    return {name: statistic(notes) for name, statistic in STATISTICS.items()}


def of_set(pieces: Iterable[Values]) -> dict[str, dict[str, Any]]:
    """Return `mean`, `deviation` (of the sample, n - 1) and `num_pieces` of each statistic; None where too few have it."""
    pieces = list(pieces)
    told = {}
    for name in STATISTICS:
        values = _present(pieces, name)
        told[name] = {
            "mean": float(values.mean()) if len(values) else None,
            "deviation": float(values.std(ddof=1)) if len(values) > 1 else None,
            "num_pieces": len(values),
        }
    return told


def against(pieces: Sequence[Values], reference: Sequence[Values]) -> dict[str, dict[str, Any]]:
    """Return what `of_set` tells of pieces, and for each statistic `overlapped_area` and `divergence` to the reference.

    Both are None where either set has fewer than three pieces with that statistic; see `overlap`.
    """
    told = of_set(pieces)
    for name in STATISTICS:
        area, divergence = overlap(_present(pieces, name), _present(reference, name))
        told[name] |= {"overlapped_area": area, "divergence": divergence}
    return told


def mean_overlap(told: dict[str, dict[str, Any]]) -> float | None:
    """Return the mean overlapped area of what `against` told, over the statistics to lean on that have one."""
    areas = [told[name]["overlapped_area"] for name in LEANED_ON if told[name]["overlapped_area"] is not None]
    return sum(areas) / len(areas) if areas else None


def overlap(values: np.ndarray, reference: np.ndarray) -> tuple[float | None, float | None]:
    """Return the overlapped area and the divergence of a statistic of some pieces and of a reference.

    With p the density of |a - b| over all pairs of reference pieces and q that over all pairs of a piece and a reference
    piece: integral min(p, q), 0 … 1; and KL(p, q) = integral p ln(p / q), in nats. Densities are sums of Gaussians of
    width deviation * n**(-1/5), Scott's rule. Yang and Lerch (2020), without their cross-validation, and with a least
    width of a hundredth of the reference's mean: else 3.998 notes at once, where chorales have 4.000, would be a world.

    Returns:
        None, None for fewer than three values on either side. Where one set of distances has no width (all of the
        reference is 0): 1, 0 if the other is that same single number, else 0 and None. A density counts as 1e-300 at
        least, so no divergence is above 691.
    """
    if len(values) < 3 or len(reference) < 3:
        return None, None
    within = np.abs(reference[:, None] - reference)[np.triu_indices(len(reference), 1)]
    across = np.abs(values[:, None] - reference).ravel()
    least = abs(float(reference.mean())) / 100
    widths = [max(least, _width(distances)) for distances in (within, across)]
    if min(widths) < 1e-9:
        same = max(widths) < 1e-9 and math.isclose(within[0], across[0], abs_tol=1e-9)
        return (1.0, 0.0) if same else (0.0, None)
    margin = 4 * max(widths)
    points = np.linspace(min(within.min(), across.min()) - margin, max(within.max(), across.max()) + margin, POINTS)
    p, q = (_density(points, distances, width) for distances, width in zip((within, across), widths, strict=True))
    step = points[1] - points[0]
    p, q = p / (p.sum() * step), q / (q.sum() * step)
    p, q = np.maximum(p, 1e-300), np.maximum(q, 1e-300)
    return float(np.minimum(p, q).sum() * step), float(max(0.0, (p * np.log(p / q)).sum() * step))


def _present(pieces: Iterable[Values], name: str) -> np.ndarray:
    return np.array([value for piece in pieces if (value := piece[name]) is not None])


def _width(distances: np.ndarray) -> float:
    return float(distances.std(ddof=1) * len(distances) ** -0.2)


def _density(points: np.ndarray, distances: np.ndarray, width: float) -> np.ndarray:
    """Return the density at points: a Gaussian of this width around each distance."""
    if len(distances) > MAX_DISTANCES:
        distances = np.sort(distances)[np.linspace(0, len(distances) - 1, MAX_DISTANCES).round().astype(int)]
    away = (points[:, None] - distances) / width
    return np.asarray(np.exp(-away * away / 2).mean(1) / (width * math.sqrt(2 * math.pi)))
