"""Measures of rhythm, dynamics and redundancy. One number per piece; None where there is nothing to count."""

from __future__ import annotations

import zlib

import numpy as np

from .music_metrics import ONSETS, Notes, groove_consistency
from .texture import on_grid

DISTANCES = 8  # positions in a quarter for the distances between onsets


def entropy(values: np.ndarray) -> float:
    """Return -sum p log2 p in bits over the shares p of the different values; 0 for a single value (Shannon 1948)."""
    _, counts = np.unique(values, return_counts=True)
    share = counts / counts.sum()
    return float(abs(-(share * np.log2(share)).sum()))


def length_entropy(notes: Notes) -> float | None:
    """Return the entropy of the lengths of notes in bits, lengths rounded to twelfths of a quarter.

    Drums do not count; None without a pitched note.
    """
    pitched = notes.pitched()
    return entropy(_twelfths(notes.end - notes.start)[pitched]) if pitched.any() else None


def distance_entropy(notes: Notes) -> float | None:
    """Return the entropy of the distances between successive different onsets in bits.

    Onsets are rounded to eighths of a quarter first (62.5 ms in piano music in real time, so that the notes of a chord that
    is not quite together are one onset). Drums do not count; None with fewer than two onsets.
    """
    onsets = np.unique(np.round(notes.start[notes.pitched()] * DISTANCES))
    return entropy(np.diff(onsets)) if len(onsets) > 1 else None


def fine_groove(notes: Notes) -> float | None:
    """Return `music_metrics.groove_consistency` on twelfths of a quarter, where triplets differ from sixteenths.

    Its values are high for any music, because most positions are empty in any bar. Wu and Yang (2020) use 64 in a bar.
    """
    return groove_consistency(notes, ONSETS)


def on_sixteenths(notes: Notes) -> float | None:
    """Return the share of notes, drums too, that begin within 0.01 quarters of a sixteenth; None without a note."""
    return float(on_grid(notes.in_bar(), 4).mean()) if len(notes.start) else None


def on_beat(notes: Notes) -> float | None:
    """Return the share of notes that begin on a quarter of the bar, of those on a sixteenth; None without one."""
    return _share(notes, 0)


def on_eighth(notes: Notes) -> float | None:
    """Return the share of notes that begin on the eighth between quarters, of those on a sixteenth; None without one."""
    return _share(notes, 2)


def on_sixteenth(notes: Notes) -> float | None:
    """Return the share of notes that begin on a sixteenth between eighths, of those on a sixteenth; None without one."""
    return _share(notes, 1, 3)


def velocity_spread(notes: Notes) -> float | None:
    """Return the standard deviation of the velocities (1 to 127, n in the denominator); None without a note."""
    return float(notes.velocity.std()) if len(notes.start) else None


def compressed_size(notes: Notes) -> float | None:
    """Return bytes after zlib (level 9) / bytes before, of the notes as four bytes each; None without a note.

    The bytes are the distance to the note before, in twelfths of a quarter, program (drums: 128), pitch, and length in
    twelfths (drums: 0), times capped at 255; in the order of onset, program, pitch. Low is redundant. A short piece
    compresses worse than a long one with the same repetitions: only excerpts of one number of bars can be compared.
    """
    if not len(notes.start):
        return None
    program = np.where(notes.is_drum, 128, notes.program)
    start = _twelfths(notes.start)
    order = np.lexsort((notes.pitch, program, start))
    length = np.where(notes.is_drum, 0, _twelfths(notes.end - notes.start))
    columns = np.stack(
        [np.diff(start[order], prepend=start[order][:1]), program[order], notes.pitch[order], length[order]]
    )
    data = np.minimum(columns.T, 255).astype(np.uint8).tobytes()
    return len(zlib.compress(data, 9)) / len(data)


def _share(notes: Notes, *steps: int) -> float | None:
    """Return the share of onsets at these sixteenths of a quarter, of those on any sixteenth."""
    onsets = notes.in_bar()[on_grid(notes.in_bar(), 4)]
    return float(np.isin(np.round(onsets * 4).astype(int) % 4, steps).mean()) if len(onsets) else None


def _twelfths(quarters: np.ndarray) -> np.ndarray:
    rounded: np.ndarray = np.round(quarters * ONSETS).astype(np.int64)
    return rounded
