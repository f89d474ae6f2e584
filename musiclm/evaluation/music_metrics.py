"""Musical metrics of scores, and the distance between two sets of pieces. Independent of models and tokenizers.

Each metric is a number for one piece; its function gives the formula, what counts and the source. Metrics tell whether
samples resemble a corpus superficially, not whether they are good: a shuffled corpus would do well by most of them. A
piece that has nothing to count (no pitch, no second bar) gives None and is left out.

Two sets are compared as by Yang and Lerch (2020): the distances within the reference, and those from the samples to the
reference, are each smoothed to a density. Reported are the overlapped area of both densities (1: the samples are as far
from the reference as its pieces are from each other) and the Kullback-Leibler divergence between them.

This is own code because muspy has only some of these and was last released in 2022, pretty_midi has histograms but no
metrics, and mgeval, which came with the paper, was never released as a package.
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
from ..midi import theory

MAJOR = (0, 2, 4, 5, 7, 9, 11)
ONSETS = 12  # positions in a quarter that are distinguished: sixteenths and triplets
GROOVE = 4  # positions in a quarter for the groove: sixteenths
MAX_DISTANCES = 4000  # that a density is made of; of more, as many evenly spaced quantiles
POINTS = 1000  # at which densities are evaluated


@dataclasses.dataclass(frozen=True, kw_only=True)
class Notes:
    """The notes of a piece in the order of the file, times in quarters.

    Attributes:
        start, end: (N,) float64.
        pitch: (N,) int64.
        is_drum: (N,) bool; drums have rhythm but no pitch and no length.
        velocity: (N,) int64.
        track: (N,) int64, number of the track in the score.
        program: (N,) int64, the General MIDI program of the track, `midi.theory.DRUMS` for drums.
        bars: (bars + 1,) starts of the bars, and the end of the last one.
    """

    start: np.ndarray
    end: np.ndarray
    pitch: np.ndarray
    is_drum: np.ndarray
    velocity: np.ndarray
    track: np.ndarray
    program: np.ndarray
    bars: np.ndarray

    def pitched(self) -> np.ndarray:
        """Return which notes have a pitch, (N,) bool."""
        return ~self.is_drum

    def in_bar(self) -> np.ndarray:
        """Return the onsets counted from the bar line before each, in quarters, (N,) float64."""
        bar = np.maximum(0, np.searchsorted(self.bars, self.start + 1e-6, side="right") - 1)
        since: np.ndarray = self.start - self.bars[bar]
        return since

    def by_bar(self) -> list[np.ndarray]:
        """Return the indices of the notes that begin in each bar."""
        bar = np.searchsorted(self.bars, self.start + 1e-6, side="right") - 1
        return [np.flatnonzero(bar == i) for i in range(len(self.bars) - 1)]


def notes_of(score: Score, num_bars: int | None = None) -> Notes:
    """Return the notes of a score from the bar of its first note on, moved to begin at 0.

    Args:
        score: any.
        num_bars: number of bars, at whose end notes are cut; None for all.
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
    tracks = [(i, track) for i, track in enumerate(score.tracks) if track.notes]
    parts = [track.notes.numpy() for _, track in tracks]
    start = np.concatenate([np.zeros(0), *(p["time"] / tpq for p in parts)])
    end = start + np.concatenate([np.zeros(0), *(p["duration"] / tpq for p in parts)])
    pitch, velocity = (
        np.concatenate([np.zeros(0, np.int64), *(p[name].astype(np.int64) for p in parts)])
        for name in ("pitch", "velocity")
    )
    owner = np.repeat(np.arange(len(tracks)), [len(p["time"]) for p in parts])
    is_drum = np.array([track.is_drum for _, track in tracks], bool)[owner]
    program = np.array([theory.DRUMS if t.is_drum else t.program for _, t in tracks], np.int64)[owner]
    kept = start < stop - 1e-6
    return Notes(
        start=start[kept] - begin,
        end=np.minimum(end[kept], stop) - begin,
        pitch=pitch[kept],
        is_drum=is_drum[kept],
        velocity=velocity[kept],
        track=np.array([i for i, _ in tracks], np.int64)[owner][kept],
        program=program[kept],
        bars=np.array(lines) - begin,
    )


def pitch_class_entropy(notes: Notes) -> float | None:
    """Return -sum_c p(c) log2 p(c) in bits over the twelve pitch classes, p(c) being their share of the notes.

    0 for one pitch class, 3.58 for a uniform distribution; drums do not count; None without a pitch. Wu and Yang (2020).
    """
    pitches = notes.pitch[notes.pitched()] % 12
    if not len(pitches):
        return None
    share = np.bincount(pitches, minlength=12) / len(pitches)
    share = share[share > 0]
    return float(abs(-(share * np.log2(share)).sum()))


def scale_consistency(notes: Notes) -> float | None:
    """Return the largest share of notes that lie in one scale, of the twelve major ones (natural minor has the same).

    At least 7/12 of evenly spread notes; drums do not count; None without a pitch. Mogren (2016).
    """
    pitches = notes.pitch[notes.pitched()] % 12
    if not len(pitches):
        return None
    counts = np.bincount(pitches, minlength=12)
    return float(max(counts[[(root + step) % 12 for step in MAJOR]].sum() for root in range(12)) / len(pitches))


def note_density(notes: Notes) -> float | None:
    """Return notes per quarter: their number / the time from the first bar line to the end of the last note.

    Drums count. A tokenizer in real time has 120 quarters per minute. None without a note.
    """
    length = float(notes.end.max()) if len(notes.end) else 0.0
    return len(notes.start) / length if length > 0 else None


def polyphony(notes: Notes) -> float | None:
    """Return the mean number of simultaneous notes while any note sounds: sum of lengths / length of their union.

    Drums do not count; None without a pitch. Dong et al. (2018) take the share of time with three or more instead.
    """
    pitched = notes.pitched()
    start, end = notes.start[pitched], notes.end[pitched]
    if not len(start):
        return None
    order = np.argsort(start)
    start, end = start[order], end[order]
    before = np.append(-np.inf, np.maximum.accumulate(end)[:-1])  # until when any of the earlier notes sounds
    union = np.maximum(0.0, end - np.maximum(start, before)).sum()
    return float((end - start).sum() / union) if union > 0 else None


def note_length(notes: Notes) -> float | None:
    """Return the mean length of a note in quarters. Drums do not count; None without a pitch. Yang and Lerch (2020)."""
    pitched = notes.pitched()
    return float((notes.end - notes.start)[pitched].mean()) if pitched.any() else None


def bar_repetition(notes: Notes) -> float | None:
    """Return the share of bars that repeat an earlier bar of the piece note for note.

    Compared are onsets (in twelfths of a quarter), pitches and whether a note is a drum; lengths and instruments may
    differ. Bars without an onset do not count, nor does the first of the others; None if that leaves none. This
    definition is our own and can be counted by hand; Wu and Yang (2020) use fitness scape plots.
    """
    seen: set[frozenset[tuple[int, int, bool]]] = set()
    num_bars = num_again = 0
    for begin, inside in zip(notes.bars, notes.by_bar(), strict=False):
        if len(inside):
            onsets = np.round((notes.start[inside] - begin) * ONSETS).astype(int).tolist()
            bar = frozenset(zip(onsets, notes.pitch[inside].tolist(), notes.is_drum[inside].tolist(), strict=True))
            num_bars, num_again = num_bars + 1, num_again + (bar in seen)
            seen.add(bar)
    return num_again / (num_bars - 1) if num_bars > 1 else None


def groove_consistency(notes: Notes, positions: int = GROOVE) -> float | None:
    """Return 1 - the mean share of positions at which exactly one of two consecutive bars has an onset.

    There are `positions` in a quarter, sixteenths by default.

    Reported because it is common, but it discriminates little: on the usual finer grids it is near 0.97 for any music,
    since most positions have no onset in any bar. Bars without an onset do not count, nor do consecutive bars of
    different length; None if that leaves none. Wu and Yang (2020).
    """
    grooves: list[np.ndarray] = []
    for begin, end, inside in zip(notes.bars, notes.bars[1:], notes.by_bar(), strict=False):
        steps = max(1, round((end - begin) * positions))
        groove = np.zeros(steps, bool)
        groove[np.minimum(np.round((notes.start[inside] - begin) * positions).astype(int), steps - 1)] = True
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
AVERAGED = tuple(name for name in STATISTICS if name != "groove_consistency")  # in the mean overlapped area

Values = dict[str, float | None]


def of_score(score: Score, num_bars: int | None = None) -> Values:
    """Return each of `STATISTICS` of a score, or of its first bars, counted from the bar of its first note."""
    notes = notes_of(score, num_bars)
    return {name: statistic(notes) for name, statistic in STATISTICS.items()}


def of_set(pieces: Iterable[Values]) -> dict[str, dict[str, Any]]:
    """Return `mean`, `deviation` (standard, n - 1) and `num_pieces` of each statistic; None where too few pieces have it."""
    pieces = list(pieces)
    summary: dict[str, dict[str, Any]] = {}
    for name in STATISTICS:
        values = _present(pieces, name)
        summary[name] = {
            "mean": float(values.mean()) if len(values) else None,
            "deviation": float(values.std(ddof=1)) if len(values) > 1 else None,
            "num_pieces": len(values),
        }
    return summary


def against(pieces: Sequence[Values], reference: Sequence[Values]) -> dict[str, dict[str, Any]]:
    """Return `of_set` of the pieces, and for each statistic `overlapped_area` and `divergence` to the reference.

    Both are None where either set has fewer than three pieces with that statistic; see `overlap`.
    """
    summary = of_set(pieces)
    for name in STATISTICS:
        area, divergence = overlap(_present(pieces, name), _present(reference, name))
        summary[name] |= {"overlapped_area": area, "divergence": divergence}
    return summary


def mean_overlap(compared: dict[str, dict[str, Any]]) -> float | None:
    """Return the mean overlapped area in the result of `against`, over those of `AVERAGED` that have one."""
    areas = [compared[name]["overlapped_area"] for name in AVERAGED if compared[name]["overlapped_area"] is not None]
    return sum(areas) / len(areas) if areas else None


def overlap(values: np.ndarray, reference: np.ndarray) -> tuple[float | None, float | None]:
    """Return the overlapped area and the divergence of a statistic between some pieces and a reference.

    Let p be the density of |a - b| over all pairs of reference pieces, and q that over all pairs of a piece and a
    reference piece. The area is the integral of min(p, q), 0 … 1; the divergence is KL(p, q) = integral of p ln(p / q),
    in nats. Densities are Gaussian kernel estimates of width deviation * n**(-1/5) (Scott's rule). Yang and Lerch (2020),
    without their cross-validation and with a minimal width of a hundredth of the reference's mean: else a polyphony of
    3.998 would have no overlap with the chorales' 4.000.

    Returns:
        None, None for fewer than three values on either side. If one set of distances has no width (the reference is
        constantly 0): 1, 0 if the other has the same single value, else 0, None. Densities are clipped to at least
        1e-300, so no divergence is above 691.
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
    """Return the kernel density estimate at points: the mean of Gaussians of this width around the distances."""
    if len(distances) > MAX_DISTANCES:
        distances = np.sort(distances)[np.linspace(0, len(distances) - 1, MAX_DISTANCES).round().astype(int)]
    away = (points[:, None] - distances) / width
    return np.asarray(np.exp(-away * away / 2).mean(1) / (width * math.sqrt(2 * math.pi)))
