"""Measures of harmony, key and repetition in pitched music of any texture. One number per piece, None with nothing to count.

Pitch-class vectors ("chroma") are weighted by sounding time and fold octaves; drums never count.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from ..midi import theory
from .music_metrics import MAJOR, ONSETS, Notes

STUCK_COSINE = 0.97
STUCK_BARS = 4
KEY_BARS = 4  # in a window of the local scale
FAR_BARS = 3  # a bar this far back is no immediate repetition
SILENCE = 1e-9

MINOR = (0, 2, 3, 5, 7, 8, 10, 11)  # natural, and the raised seventh
SCALES = np.array(  # (24, 12), in the order of `theory.key_profiles`
    [[float((pc - tonic) % 12 in mode) for pc in range(12)] for mode in (MAJOR, MINOR) for tonic in range(12)]
)
TRIADS = np.array(
    [[float((pc - root) % 12 in (0, third, 7)) for pc in range(12)] for third in (4, 3) for root in range(12)]
) / np.sqrt(3)


def chroma(notes: Notes, edges: np.ndarray) -> np.ndarray:
    """Return how long each pitch class sounds between successive edges, in quarters, (edges - 1, 12).

    Notes that sound together in octaves or unisons add up.
    """
    pitched = notes.pitched()
    return sounding_time(notes.start[pitched], notes.end[pitched], notes.pitch[pitched], edges)


def sounding_time(start: np.ndarray, end: np.ndarray, pitch: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return `chroma` of pitched notes given by their starts, ends and pitches, (N,) each; all times in one unit."""
    vectors = np.zeros((max(0, len(edges) - 1), 12))
    for row, begin, stop in zip(vectors, edges, edges[1:], strict=False):
        sounding = np.minimum(end, stop) - np.maximum(start, begin)
        row += np.bincount(pitch % 12, np.maximum(0.0, sounding), minlength=12)
    return vectors


def standing_runs(vectors: np.ndarray) -> np.ndarray:
    """Return how many bars in a row, up to each, have much the harmony of the bar before them, (bars,) int64.

    That is a cosine above `STUCK_COSINE` of their chroma, (bars, 12). A bar without pitch ends a run.
    """
    sizes = np.linalg.norm(vectors, axis=1)
    runs = np.zeros(len(vectors), np.int64)
    for i in range(1, len(vectors)):
        product = sizes[i - 1] * sizes[i]
        if product > SILENCE and vectors[i - 1] @ vectors[i] > STUCK_COSINE * product:
            runs[i] = runs[i - 1] + 1
    return runs


def stuck_bars(notes: Notes) -> float | None:
    """Return the longest run of bars whose chroma has a cosine above 0.97 with that of the bar before.

    n such bars in a row are n + 1 bars of one harmony. A bar without pitch ends a run; None with fewer than two bars with
    a pitch.
    """
    vectors = chroma(notes, notes.bars)
    if (np.linalg.norm(vectors, axis=1) > SILENCE).sum() < 2:
        return None
    return float(standing_runs(vectors).max())


def harmony_stuck(notes: Notes) -> float | None:
    """Return 1 if `stuck_bars` is 4 or more, else 0; None as there."""
    longest = stuck_bars(notes)
    return None if longest is None else float(longest >= STUCK_BARS)


def chord_changes(notes: Notes) -> float | None:
    """Return changes of the chord per bar, of the chords that sound on each quarter.

    The chord of a quarter is the major or minor triad (of 24) whose binary pitch-class template has the largest cosine
    with the chroma of that quarter (Fujishima 1999); a quarter without pitch keeps the chord before. Changes / bars; None
    with fewer than two quarters with a pitch. Passing notes can change the label, so that real music has more changes
    than an analyst would write. Of equal templates the first one in the order C major to B major, C minor to B minor counts.
    """
    bars = len(notes.bars) - 1
    vectors = chroma(notes, np.arange(0.0, notes.bars[-1] + 0.5))
    vectors = vectors[vectors.sum(1) > SILENCE]
    if len(vectors) < 2:
        return None
    labels = np.round(vectors @ TRIADS.T, 9).argmax(1)
    return float((labels[1:] != labels[:-1]).sum()) / bars


def out_of_scale(notes: Notes) -> float | None:
    """Return the share of notes outside the scale of the piece's key; None without a pitch.

    The key is `best_key` of the numbers of notes per pitch class; minor has both sevenths, so that a leading tone is not
    outside. As 1 - scale consistency (Mogren 2016), which takes the scale that holds the most notes instead of the key's
    and has none for minor: see `music_metrics.scale_consistency`.
    """
    return _outside(_windows(notes, max(1, len(notes.bars) - 1)))


def out_of_local_scale(notes: Notes) -> float | None:
    """Return the share of notes outside the scale of the key of their own four bars; None without a pitch.

    As `out_of_scale`. The windows of four bars do not overlap; the last one may be shorter.
    """
    return _outside(_windows(notes, KEY_BARS))


def local_key_changes(notes: Notes) -> float | None:
    """Return the share of successive windows of four bars whose `best_key` differs.

    The windows begin every second bar, so that neighbours share two bars. Windows without pitch are left out; None with
    fewer than two others.
    """
    keys = [best_key(counts) for counts in _windows(notes, KEY_BARS, KEY_BARS // 2) if counts.sum()]
    return sum(a != b for a, b in itertools.pairwise(keys)) / (len(keys) - 1) if len(keys) > 1 else None


def best_key(weights: np.ndarray) -> int:
    """Return the key that correlates best with weights of the pitch classes, (12,): 0 to 11 C to B major, 12 to 23 minor.

    Krumhansl and Schmuckler's algorithm with the profiles of `theory.key_profiles` (Krumhansl 1990, chapter 4).
    """
    return int((theory.key_profiles() @ (weights - weights.mean())).argmax())


def semitone_clash(notes: Notes) -> float | None:
    """Return the share of eighths at which two sounding pitched notes are a semitone apart, octaves folded.

    Counted are the eighths, from the first bar line on, at which two or more pitches sound; a minor ninth and a major
    seventh are clashes like the minor second. None without such an eighth.
    """
    pitched = notes.pitched()
    start, end, pitch = notes.start[pitched], notes.end[pitched], notes.pitch[pitched]
    clashes = total = 0
    for time in np.arange(0.0, notes.bars[-1], 0.5):
        sounding = set(pitch[(start <= time + 1e-6) & (end > time + 1e-6)].tolist())
        if len(sounding) > 1:
            total, clashes = total + 1, clashes + has_semitone(sounding)
    return clashes / total if total else None


def has_semitone(pitches: set[int]) -> bool:
    """Return whether two pitches are a semitone apart when octaves are folded."""
    classes = {pitch % 12 for pitch in pitches}
    return any((pc + 1) % 12 in classes for pc in classes)


def same_top_pitch(notes: Notes) -> float | None:
    """Return the share of steps of the top line that repeat its pitch.

    The top line is the highest pitch that begins at each different onset (the "skyline", Uitdenbogerd and Zobel 1998);
    None with fewer than two onsets.
    """
    tops: dict[int, int] = {}
    pitched = notes.pitched()
    for time, pitch in zip(notes.start[pitched], notes.pitch[pitched].tolist(), strict=True):
        onset = round(time * ONSETS)
        tops[onset] = max(pitch, tops.get(onset, 0))
    line = [tops[onset] for onset in sorted(tops)]
    return sum(a == b for a, b in itertools.pairwise(line)) / (len(line) - 1) if len(line) > 1 else None


def bar_again_at_once(notes: Notes) -> float | None:
    """Return the share of bars that are equal to the bar before: the same onsets (twelfths of a quarter) and pitches.

    Drums count. A bar without onsets equals none; counted are bars with onsets from the second bar on, None without one.
    """
    bars = _bars(notes)
    pairs = [(a, b) for a, b in itertools.pairwise(bars) if b]
    return sum(a == b for a, b in pairs) / len(pairs) if pairs else None


def four_bar_form(notes: Notes) -> float | None:
    """Return the mean likeness of bars to those four bars back less that to those three bars back.

    Above 0, harmony comes back by four-bar phrases. The likeness of two bars is the cosine of their chroma. Counted are
    pairs of bars that both have a pitch; None if there are none four or none three bars apart.
    """
    vectors = chroma(notes, notes.bars)
    sizes = np.linalg.norm(vectors, axis=1)
    means = []
    for lag in (4, 3):
        pairs = [(i, i + lag) for i in range(len(sizes) - lag) if min(sizes[i], sizes[i + lag]) > SILENCE]
        means += [np.mean([vectors[i] @ vectors[j] / (sizes[i] * sizes[j]) for i, j in pairs])] if pairs else []
    return float(means[0] - means[1]) if len(means) == 2 else None


def best_earlier_bar(notes: Notes) -> float | None:
    """Return the mean over bars of the best cosine of its pitches with a bar three or more bars earlier.

    The vectors are the numbers of notes per pitch (not folded) that begin in a bar, without rhythm, so that music without
    metre can be measured. None without a bar of pitched notes three bars after another.
    """
    pitched = notes.pitched()
    bars = [np.bincount(notes.pitch[i][pitched[i]], minlength=128).astype(float) for i in notes.by_bar()]
    sizes = [float(np.linalg.norm(bar)) for bar in bars]
    best = []
    for i, bar in enumerate(bars):
        earlier = [
            float(bar @ bars[j]) / sizes[i] / sizes[j] for j in range(i - FAR_BARS + 1) if sizes[i] * sizes[j] > 0
        ]
        best += [max(earlier)] if earlier else []
    return sum(best) / len(best) if best else None


def _bars(notes: Notes) -> list[frozenset[tuple[int, int]]]:
    """Return for each bar its (onset in twelfths of a quarter, pitch) pairs; drums have negative pitches."""
    onset = np.round(notes.in_bar() * ONSETS).astype(int)
    pitch = np.where(notes.is_drum, -1 - notes.pitch, notes.pitch)
    return [frozenset(zip(onset[i].tolist(), pitch[i].tolist(), strict=True)) for i in notes.by_bar()]


def _windows(notes: Notes, size: int, hop: int | None = None) -> list[np.ndarray]:
    """Return the numbers of pitched notes per pitch class in windows of bars, (12,) each; a hop of None is the size."""
    bars = [np.bincount(notes.pitch[i][~notes.is_drum[i]] % 12, minlength=12) for i in notes.by_bar()]
    stop = len(bars) if hop is None else max(1, len(bars) - size + 1)  # windows that overlap are whole
    starts = range(0, stop, hop or size)
    return [np.sum(bars[i : i + size], axis=0) for i in starts]


def _outside(windows: Sequence[np.ndarray]) -> float | None:
    """Return the share of notes outside the scales of the windows' keys."""
    counted = [counts for counts in windows if counts.sum()]
    inside = sum(float(SCALES[best_key(counts)] @ counts) for counts in counted)
    return 1 - inside / float(sum(counts.sum() for counts in counted)) if counted else None
