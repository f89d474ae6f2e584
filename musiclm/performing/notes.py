"""The notes of a score that one player plays, with their places in the bar."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
from symusic import Score

from ..midi.timing import TOLERANCE, BarMap

KEYBOARDS = frozenset([*range(8), *range(16, 24)])  # General MIDI programs: pianos and organs
TOGETHER = 1 / 48  # quarters: notes that begin nearer to the first of them are one onset
GRID = 24  # positions per quarter on which the notes of a score begin
ON_GRID = 2 / 480  # quarters: how far from such a position a note may begin
SHARE_ON_GRID = (
    0.5  # of a score's onsets on the grid: of those of 90 piano scores 0.64 to 1, of 65 performances at most 0.31
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreNotes:
    """N notes sorted by onset, then pitch.

    An upbeat is the end of a bar: a first bar shorter than the next one has the time signature of that one, and its
    positions count so that it ends where a bar ends. Two short bars between longer ones as long as both, as programs that
    write notation have them at repeats, are one bar in two parts.

    Attributes:
        onset, duration: quarters, (N,) float64.
        pitch: (N,) int64.
        bar: number of the bar, from 0, (N,) int64.
        position: from the bar line, quarters, (N,) float64.
        bar_length: of the bar, quarters, (N,) float64.
        numerator, denominator: of the time signature, (N,) int64.
        track: number of the track in the score, (N,) int64.
        index: number of the note in its track, (N,) int64.
        velocity: as written, which in many scores stands for dynamics, 0 to 127, (N,) int64.
    """

    onset: np.ndarray
    duration: np.ndarray
    pitch: np.ndarray
    bar: np.ndarray
    position: np.ndarray
    bar_length: np.ndarray
    numerator: np.ndarray
    denominator: np.ndarray
    track: np.ndarray
    index: np.ndarray
    velocity: np.ndarray

    def __len__(self) -> int:
        """Return N."""
        return len(self.onset)

    def take(self, which: np.ndarray) -> ScoreNotes:
        """Return some of the notes: (K,) int64, rising, or (N,) bool."""
        return ScoreNotes(**{f.name: getattr(self, f.name)[which] for f in dataclasses.fields(self)})


def keyboard_notes(score: Score) -> ScoreNotes | None:
    """Return the notes of the pianos and organs of a score; None if there are none.

    A file whose tracks name no program plays the piano throughout (program 0), so all its pitched notes are meant.
    """
    return _notes(score, [i for i, t in enumerate(score.tracks) if not t.is_drum and t.program in KEYBOARDS])


def drum_notes(score: Score) -> ScoreNotes | None:
    """Return the notes of the drums of a score; None if there are none."""
    return _notes(score, [i for i, t in enumerate(score.tracks) if t.is_drum])


def is_score(notes: ScoreNotes) -> bool:
    """Return whether onsets, or the intervals between them, are on a grid of 24 per quarter; else it is real time.

    Intervals, because programs that write notation put all that follows an ornament off the grid by a few ticks.
    """
    at = np.unique(notes.onset)
    found = [on_grid(notes.onset), on_grid(np.diff(at))]
    return max(float(each.mean()) for each in found if len(each)) >= SHARE_ON_GRID


def on_grid(onset: np.ndarray) -> np.ndarray:
    """Return which onsets (N,), in quarters, are on the grid of 24 per quarter, (N,) bool."""
    near: np.ndarray = np.abs(onset * GRID - np.round(onset * GRID)) <= ON_GRID * GRID + TOLERANCE
    return near


def onset_numbers(notes: ScoreNotes) -> np.ndarray:
    """Return which onset each note belongs to, counted from 0, (N,) int64."""
    starts_new = np.diff(notes.onset, prepend=-np.inf) > TOGETHER
    number: np.ndarray = np.cumsum(starts_new) - 1
    return number


def onset_times(notes: ScoreNotes) -> np.ndarray:
    """Return when each onset is, in quarters, rising, (M,) float64."""
    return notes.onset[np.diff(notes.onset, prepend=-np.inf) > TOGETHER]


def in_bars(score: Score, onset: np.ndarray) -> dict[str, np.ndarray]:
    """Return the fields of `ScoreNotes` that say where in the bar onsets (N,), in quarters, are."""
    bars = _Bars(score, float(onset.max(initial=0.0)))
    which = np.searchsorted(bars.start, onset + TOLERANCE, side="right") - 1
    return {
        "bar": bars.number[which],
        "position": np.maximum(onset - bars.start[which], 0.0) + bars.missing[which],
        "bar_length": bars.length[which],
        "numerator": bars.numerator[which],
        "denominator": bars.denominator[which],
    }


class _Bars:
    """The bars of a score up to a time, B of them, upbeats given what they lack.

    Attributes:
        start: quarters, (B,) float64.
        missing: what an upbeat lacks at its beginning, quarters, (B,) float64.
        length: quarters, (B,) float64.
        number, numerator, denominator: (B,) int64.
    """

    def __init__(self, score: Score, until: float) -> None:
        found = list(itertools.takewhile(lambda bar: bar.start <= until + TOLERANCE, BarMap(score)))
        behind = BarMap(score)[len(found)]
        self.start = np.array([bar.start for bar in found])
        own = np.array([bar.end - bar.start for bar in [*found, behind]])
        sign = np.array([(bar.numerator, bar.denominator) for bar in [*found, behind]], np.int64)
        length, after = own[:-1], own[1:]
        one, two = (
            np.concatenate([np.full(n, np.inf), own[: -1 - n]])[: len(found)] for n in (1, 2)
        )  # before each bar
        is_rest = _same(one + length, after) & _same(two, after) & (one < after - TOLERANCE)  # of a bar in two parts
        is_upbeat = is_rest | ((length < after - TOLERANCE) & (np.arange(len(found)) == 0))
        is_first_part = np.append(is_rest[1:], False)
        self.missing = np.where(is_upbeat, after - length, 0.0)
        self.length = np.where(is_upbeat, after, np.where(is_first_part, one, length))
        self.numerator, self.denominator = np.where(
            is_upbeat[:, None], sign[1:], np.where(is_first_part[:, None], np.roll(sign[:-1], 1, 0), sign[:-1])
        ).T
        self.number = np.cumsum(np.append(0, ~is_rest[1:]))


def _same(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    near: np.ndarray = np.abs(one - other) < TOLERANCE
    return near


def _notes(score: Score, tracks: list[int]) -> ScoreNotes | None:
    columns = [(i, score.tracks[i].notes.numpy()) for i in tracks if len(score.tracks[i].notes)]
    if not columns:
        return None
    pitch, velocity = (np.concatenate([c[name].astype(np.int64) for _, c in columns]) for name in ("pitch", "velocity"))
    onset, duration = (
        np.concatenate([c[name].astype(np.float64) for _, c in columns]) / score.ticks_per_quarter
        for name in ("time", "duration")
    )
    track = np.concatenate([np.full(len(c["time"]), i, np.int64) for i, c in columns])
    index = np.concatenate([np.arange(len(c["time"]), dtype=np.int64) for _, c in columns])
    order = np.lexsort((index, track, pitch, onset))
    onset = onset[order]
    return ScoreNotes(
        onset=onset,
        duration=duration[order],
        pitch=pitch[order],
        track=track[order],
        index=index[order],
        velocity=velocity[order],
        **in_bars(score, onset),
    )
