"""Measures of who plays and how much: instruments, polyphony, notes per bar, drums. One number per piece.

A measure takes the `Notes` of a piece or of its first bars and returns None where there is nothing to count. The measures
have no paper as their source unless it is named: they are counts that can be checked by hand.
"""

from __future__ import annotations

import itertools

import numpy as np

from .music_metrics import ONSETS, Notes

FEW_NOTES = 4  # a track with fewer is an instrument that entered and was forgotten
GRID_TOLERANCE = 0.01  # quarters; a sixteenth triplet lies 0.083 quarters from a sixteenth
SILENCE = 1e-6  # quarters


def drums_only(notes: Notes) -> float | None:
    """Return 1 if all notes are drums, else 0; None without a note."""
    return float(notes.is_drum.all()) if len(notes.start) else None


def one_instrument(notes: Notes) -> float | None:
    """Return 1 if a single instrument plays (all drums are one), else 0; None without a note."""
    found = instruments(notes)
    return None if found is None else float(found == 1)


def drums_with_pitched(notes: Notes) -> float | None:
    """Return 1 if both drums and pitched notes occur, else 0; None without a note."""
    return float(notes.is_drum.any() and not notes.is_drum.all()) if len(notes.start) else None


def instruments(notes: Notes) -> float | None:
    """Return the number of different General MIDI programs that have a note, all drums being one; None without a note."""
    return float(len(np.unique(notes.program))) if len(notes.start) else None


def short_tracks(notes: Notes) -> float | None:
    """Return the share of tracks that have 1 to 3 notes, of those that have any; None without a note."""
    if not len(notes.start):
        return None
    _, counts = np.unique(notes.track, return_counts=True)
    return float((counts < FEW_NOTES).mean())


def notes_per_bar(notes: Notes) -> float | None:
    """Return pitched notes / bars, empty bars included; None without a pitched note."""
    count = int(notes.pitched().sum())
    return count / (len(notes.bars) - 1) if count and len(notes.bars) > 1 else None


def empty_bars(notes: Notes) -> float | None:
    """Return the share of bars in which nothing sounds: no note overlaps them, drums at their onset; None without a note.

    The excerpt ends with the bar of its last note, so that an early end is no empty bar.
    """
    return _silent(notes, notes.bars)


def empty_beats(notes: Notes) -> float | None:
    """Return the share of quarters in which nothing sounds, up to the last note's end; None without a note.

    As `empty_bars`. MusPy's (Dong et al. 2020) lets a note that ends on a quarter's beginning sound in that quarter.
    """
    return _silent(notes, np.arange(0.0, np.ceil(notes.end.max() - SILENCE) + 0.5)) if len(notes.start) else None


def _silent(notes: Notes, edges: np.ndarray) -> float | None:
    """Return the share of the stretches between edges in which nothing sounds; None without a note."""
    if not len(notes.start):
        return None
    end = np.where(notes.is_drum, notes.start + GRID_TOLERANCE, notes.end)
    sounding = [
        ((notes.start < stop - SILENCE) & (end > begin + SILENCE)).any()
        for begin, stop in itertools.pairwise(edges.tolist())
    ]
    return 1 - float(sum(sounding)) / len(sounding)


def drum_bars_again(notes: Notes) -> float | None:
    """Return the share of bars with drums, the first one left out, that repeat an earlier one hit for hit.

    Compared are onsets (in twelfths of a quarter) and drums, not velocities. None with fewer than two bars with drums.
    """
    seen: set[frozenset[tuple[int, int]]] = set()
    count = again = 0
    for begin, inside in zip(notes.bars, notes.by_bar(), strict=False):
        hits = inside[notes.is_drum[inside]]
        if len(hits):
            onsets = np.round((notes.start[hits] - begin) * ONSETS).astype(int).tolist()
            bar = frozenset(zip(onsets, notes.pitch[hits].tolist(), strict=True))
            count, again = count + 1, again + (bar in seen)
            seen.add(bar)
    return again / (count - 1) if count > 1 else None


def drums_off_grid(notes: Notes) -> float | None:
    """Return the share of drum hits that lie neither on a sixteenth nor on an eighth triplet; None without drums.

    On the grid is what lies within 0.01 quarters of a multiple of 1/4 or 1/3 quarter from the bar line.
    """
    hits = notes.in_bar()[notes.is_drum]
    return float((~(on_grid(hits, 4) | on_grid(hits, 3))).mean()) if len(hits) else None


def on_grid(times: np.ndarray, per_quarter: int) -> np.ndarray:
    """Return which times, in quarters, lie within `GRID_TOLERANCE` of a multiple of 1 / per_quarter, (N,) bool."""
    steps = times * per_quarter
    on: np.ndarray = np.abs(steps - np.round(steps)) <= GRID_TOLERANCE * per_quarter
    return on
