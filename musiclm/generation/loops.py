"""Loop detection: how much music repeats itself, and when that is a loop.

Music is reduced to its onsets. An onset is what begins at one time (programs and pitches, whatever their velocity and
duration) and its distance from the onset before, in sixteenths. Repetition is the share of runs of four onsets that
occurred before: 1 - different runs / runs. Two runs are equal if their onsets and the distances between them are. Eight
equal bars of 4/4 in quavers have 0.87, two bars four times 0.74, one note repeated for ever nearly 1. Fewer than `FEWEST`
onsets have 0.

Real music rarely exceeds `LOOP` in `WINDOW` quarters: of 1,043 pieces of all kinds (songs, orchestras, piano, pop, games,
drums, hymns; up to 80 of each kind from each of the training and the validation pieces of `score-transformer`) 10 did so
somewhere, 7 of them among the 104 of games, in 0.1 % of all windows; of the 382 chorales none did. Nor does it stand still,
with no new onset for `STILL` quarters: 16 of the 1,043 did, none of the chorales.
`python benchmarks/repetition.py [CORPUS --splits train,validation --most 80]` counts again.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from symusic import Score

from .. import midi

RUN = 4  # onsets
FEWEST = 8  # onsets; fewer are no loop
WINDOW = 32.0  # quarters of a window: eight bars of 4/4
STEP = 4.0  # quarters between the windows of a longer piece
LOOP = 0.7
STILL = 16.0  # quarters: four bars of 4/4

Onset = tuple[int, bytes]
"""Sixteenths since the onset before, and what begins."""


def onsets(score: Score) -> tuple[np.ndarray, list[Onset]]:
    """Return the times of onsets, in quarters, (N,) rising, and the onsets."""
    times, names = [np.zeros(0)], [np.zeros(0, np.int64)]
    for track in score.tracks:
        notes = track.notes.numpy()
        times.append(notes["time"] / score.ticks_per_quarter)
        names.append(notes["pitch"].astype(np.int64) + 128 * (128 if track.is_drum else track.program))
    time, name = np.concatenate(times), np.concatenate(names)
    order = np.lexsort((name, time))
    time, name = time[order], name[order]
    starts = np.flatnonzero(np.diff(time, prepend=-1.0) > 0)
    gaps = np.rint(np.diff(time[starts], prepend=time[:1]) * 4).astype(int).tolist()
    edges = [*starts.tolist(), len(time)]
    what = [np.unique(name[i:j]).tobytes() for i, j in pairwise(edges)]
    return time[starts], list(zip(gaps, what, strict=True))


def share(found: list[Onset]) -> float:
    """Return the repetition of onsets: see the module."""
    num_runs = len(found) - RUN + 1
    if len(found) < FEWEST:
        return 0.0
    return 1 - len({_run(found, i) for i in range(num_runs)}) / num_runs


def _run(found: list[Onset], i: int) -> tuple[bytes | Onset, ...]:
    """Return the run that begins at an onset; its distance from the onset before is no part of it."""
    return (found[i][1], *found[i + 1 : i + RUN])


def windows(score: Score, start: float = 0.0, stop: float | None = None) -> list[float]:
    """Return the repetition of each window of a score, one for each `STEP`; of the whole score if it is shorter.

    Args:
        score: any.
        start: where the first begins, in quarters.
        stop: where the last ends at the latest, in quarters; the end of the score if left out.
    """
    times, what = onsets(score)
    stop = midi.end(score) if stop is None else stop
    found = []
    for end in np.arange(min(start + WINDOW, stop), stop + 1e-6, STEP):
        first, last = np.searchsorted(times, [max(start, end - WINDOW) - 1e-6, end - 1e-6])
        found.append(share(what[first:last]))
    return found


def repetition(score: Score, start: float = 0.0, stop: float | None = None) -> float:
    """Return the mean of `windows`; 0 where there is none."""
    found = windows(score, start, stop)
    return float(np.mean(found)) if found else 0.0


def stands_still(score: Score) -> bool:
    """Return whether nothing new begins for `STILL` quarters somewhere between the first onset and the end."""
    times, _ = onsets(score)
    return len(times) > 0 and float(np.diff(times, append=midi.end(score)).max()) >= STILL


def loop_start(score: Score, start: float, stop: float) -> float | None:
    """Return from where a stretch is to be resampled, in quarters, if its end loops or stands still; None if it does not.

    For a loop that is where the first repetition begins, for a standstill the last onset (`start` if there is none).

    Args:
        score: any.
        start: of the stretch, in quarters; of a stretch longer than `WINDOW` only the end is looked at.
        stop: its end, in quarters. A stretch shorter than half of `WINDOW` is no loop yet.
    """
    start = max(start, stop - WINDOW)
    if stop - start < WINDOW / 2 - 1e-6:
        return None
    times, what = onsets(score)
    first, last = np.searchsorted(times, [start - 1e-6, stop - 1e-6])
    latest = what[first:last]
    newest = float(times[last - 1]) if last > first else start
    if stop - newest >= STILL - 1e-6:
        return newest
    if share(latest) <= LOOP:
        return None
    known = set[tuple[bytes | Onset, ...]]()
    for i in range(len(latest) - RUN + 1):
        run = _run(latest, i)
        if run in known:
            return float(times[first + i])
        known.add(run)
    raise AssertionError("repetition without a repeated run")
