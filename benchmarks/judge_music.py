"""What the judge apart looks at: the first bars of a piece as arrays, the same for every kind. See docs/concepts/judge.md.

Frozen. This module reads notes by itself, so that a change of `musiclm.evaluation` does not change the judge.
Legend of shapes: N notes, K onsets, Q quarters, B bars, S sixteenths.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property

import numpy as np
from symusic import Score

from musiclm import midi

CHORD = 0.05  # quarters: notes that begin closer together are one onset (25 ms at 120; a triplet sixteenth is 0.17)
NAN = float("nan")

Values = dict[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Music:
    """The first bars of a piece, from the bar of its first note on, which begins at 0. Times are quarters.

    Attributes:
        start, end: (N,) float64 of the pitched notes, by start, then pitch.
        pitch, velocity, track: (N,) int64; tracks are counted in the order of the file.
        drums: (M,) float64 starts of drum notes.
        bars: (B + 1,) float64 bar lines.
    """

    start: np.ndarray
    end: np.ndarray
    pitch: np.ndarray
    velocity: np.ndarray
    track: np.ndarray
    drums: np.ndarray
    bars: np.ndarray

    @property
    def length(self) -> float:
        """Length in quarters: the last bar line."""
        return float(self.bars[-1])

    @cached_property
    def onsets(self) -> np.ndarray:
        """(K,) times of onsets: of each group of notes that begin within `CHORD` of its first."""
        times: list[float] = []
        for start in self.start.tolist():
            if not times or start - times[-1] > CHORD:
                times.append(start)
        return np.array(times)

    @cached_property
    def group(self) -> np.ndarray:
        """(N,) the onset of each note."""
        return np.searchsorted(self.onsets, self.start + 1e-9, side="right") - 1

    @cached_property
    def sounding(self) -> list[np.ndarray]:
        """For each onset the notes that sound right after it, as indices in rising order of pitch."""
        found = []
        for i, time in enumerate(self.onsets):
            on = np.flatnonzero((self.group <= i) & ((self.end > time + CHORD) | (self.group == i)))
            found.append(on[np.argsort(self.pitch[on], kind="stable")])
        return found

    @cached_property
    def outer(self) -> np.ndarray:
        """(K, 2) the lowest and the highest sounding pitch at each onset."""
        return np.array([[self.pitch[on[0]], self.pitch[on[-1]]] for on in self.sounding], np.int64).reshape(-1, 2)

    def line(self, end: int) -> tuple[np.ndarray, np.ndarray]:
        """Return onsets (L,) and pitches (L,) of the top line (`end` -1) or the bass (0).

        Its notes are those that begin while no higher (lower) note sounds.
        """
        new = [i for i, on in enumerate(self.sounding) if self.group[on[end]] == i]
        return self.onsets[new], self.outer[new, end]

    @cached_property
    def top(self) -> tuple[np.ndarray, np.ndarray]:
        return self.line(-1)

    @cached_property
    def bass(self) -> tuple[np.ndarray, np.ndarray]:
        return self.line(0)

    @cached_property
    def steps(self) -> np.ndarray:
        """(S,) number of notes, drums included, that begin nearest to each sixteenth."""
        count = max(1, round(self.length * 4))
        at = np.rint(np.concatenate([self.start, self.drums]) * 4).astype(int)
        return np.bincount(np.minimum(at, count - 1), minlength=count)[:count].astype(float)

    @cached_property
    def chroma(self) -> np.ndarray:
        """(Q, 12) how long each pitch class sounds in each quarter, summed over notes."""
        edges = np.arange(int(np.ceil(self.length - 1e-6)))[:, None]
        shared = np.minimum(self.end, edges + 1) - np.maximum(self.start, edges)
        one_hot = np.eye(12)[self.pitch % 12]
        return np.asarray(np.maximum(shared, 0.0) @ one_hot)

    @cached_property
    def bar_of(self) -> np.ndarray:
        """(N,) the bar of each note, counted from 0."""
        return np.minimum(np.searchsorted(self.bars, self.start + 1e-6, side="right") - 1, len(self.bars) - 2)


def music_of(score: Score, num_bars: int) -> Music:
    """Return the first bars of a score, fewer if it has fewer; notes that sound on are cut."""
    tpq = score.ticks_per_quarter
    first = min((n.time for t in score.tracks for n in t.notes), default=0) / tpq
    stop = max(midi.end(score), first + 1e-3)
    bars = midi.BarMap(score)
    lines = [bars.last_bar_line(first)]
    while len(lines) <= num_bars and lines[-1] < stop - 1e-6:
        lines.append(bars.bar_line(lines[-1] + 1e-3))
    rows = [
        (n.time / tpq, n.end / tpq, n.pitch, n.velocity, i, t.is_drum)
        for i, t in enumerate(score.tracks)
        for n in t.notes
    ]
    table = np.array(rows, float).reshape(-1, 6)
    table = table[(table[:, 0] >= lines[0] - 1e-6) & (table[:, 0] < lines[-1] - 1e-6)]
    pitched = table[table[:, 5] == 0]
    pitched = pitched[np.lexsort((pitched[:, 4], pitched[:, 2], pitched[:, 0]))]
    whole = pitched[:, 2:5].astype(np.int64)
    return Music(
        start=pitched[:, 0] - lines[0],
        end=np.minimum(pitched[:, 1], lines[-1]) - lines[0],
        pitch=whole[:, 0],
        velocity=whole[:, 1],
        track=whole[:, 2],
        drums=table[table[:, 5] == 1, 0] - lines[0],
        bars=np.array(lines) - lines[0],
    )


def share(hits: np.ndarray) -> float:
    """Return the share of true elements; NaN of none."""
    return float(np.mean(hits)) if len(hits) else NAN


def mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else NAN


def deviation(values: np.ndarray) -> float:
    """Return the standard deviation (n); NaN of fewer than two."""
    return float(np.std(values)) if len(values) > 1 else NAN


def autocorrelation(values: np.ndarray, lag: int) -> float:
    """Return sum_t (x_t - m)(x_{t+lag} - m) / sum_t (x_t - m)²; NaN of a constant, or of fewer than lag + 2 values."""
    if len(values) < lag + 2:
        return NAN
    away = values - values.mean()
    power = float(away @ away)
    return float(away[:-lag] @ away[lag:]) / power if power > 1e-9 else NAN


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return Pearson's correlation; NaN of fewer than three pairs or of a constant."""
    if len(a) < 3 or np.std(a) < 1e-9 or np.std(b) < 1e-9:
        return NAN
    return float(np.corrcoef(a, b)[0, 1])


def lempel_ziv(symbols: list[int]) -> float:
    """Return c log_a(n) / n: c phrases of Lempel and Ziv (1976), n symbols, a different ones (at least 2); 1 is random.

    NaN of fewer than eight symbols. Counted by the algorithm of Kaspar and Schuster (1987).
    """
    n = len(symbols)
    if n < 8:
        return NAN
    text = "".join(chr(256 + s) for s in symbols)
    phrases, at = 0, 0
    while at < n:
        size = 1
        while at + size <= n and text.find(text[at : at + size], 0, at + size - 1) >= 0:
            size += 1
        phrases, at = phrases + 1, at + size
    return phrases * float(np.log(n)) / float(np.log(max(2, len(set(symbols))))) / n
