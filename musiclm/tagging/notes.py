"""What a tagger reads: a neutral copy of a piece, so that no habit of one source's files can give a label away.

Of each note remain pitch, onset and duration on a grid, and the instrument family. Velocity, tempo, time and key signatures,
controllers, names, markers and lyrics do not, and neither do programs within a family, nor how notes are spread over tracks.
Any tokenizer reads the copy: it is a score of 4/4 at 120 quarters per minute.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from symusic import Note, Score, Tempo, TimeSignature, Track

TICKS = 480  # per quarter, of the copy
STEPS = 12  # per quarter, of the grid: it has sixteenths and triplets
VELOCITY, QPM = 64, 120.0
FAMILY_SIZE = 8  # programs: a family of General MIDI is piano, chromatic percussion, organ, ...
LONGEST = 32  # quarters; a longer note is cut
DRUMS = -1  # a family


def neutral(score: Score, steps: int = STEPS, *, start: int | None = None) -> Score:
    """Return the neutral copy of a score; the copy of a copy is the same.

    Notes of one family, pitch and onset are one, as long as the longest.

    Args:
        score: any score in ticks; it is not changed.
        steps: of the grid, per quarter; a divisor of `TICKS`.
        start: the quarter of the score that the copy begins with; left out, that of the first note, see `first_quarter`.

    Raises:
        ValueError: `steps` does not divide `TICKS`.
    """
    if steps < 1 or TICKS % steps:
        raise ValueError(f"a grid has steps that divide a quarter of {TICKS} ticks, not {steps}")
    found = _by_family(score, steps)
    copy = Score(TICKS)
    copy.tempos.append(Tempo(0, QPM))
    copy.time_signatures.append(TimeSignature(0, 4, 4))
    if not found:
        return copy
    first = (_first_quarter(found, steps) if start is None else start) * steps
    unit = TICKS // steps
    for family, (onset, duration, pitch) in sorted(found.items()):
        onset, duration, pitch = _merged(onset - first, duration, pitch)
        track = Track("", max(family, 0) * FAMILY_SIZE, family == DRUMS)
        track.notes = Note.from_numpy(
            time=(onset * unit).astype(np.int32),
            duration=(duration * unit).astype(np.int32),
            pitch=pitch.astype(np.int8),
            velocity=np.full(len(onset), VELOCITY, np.int8),
        )
        copy.tracks.append(track)
    return copy


def first_quarter(score: Score, steps: int = STEPS) -> int:
    """Return the number of the quarter in which the first note of a score begins on the grid; 0 without notes."""
    found = _by_family(score, steps)
    return _first_quarter(found, steps) if found else 0


def _first_quarter(found: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]], steps: int) -> int:
    return min(int(onset.min()) for onset, _, _ in found.values()) // steps


def _by_family(score: Score, steps: int) -> dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return onsets and durations in steps, and pitches, of the notes of each family, (N,) int64 each."""
    columns: dict[int, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = defaultdict(list)
    for track in score.tracks:
        if not len(track.notes):
            continue
        notes = track.notes.numpy()
        onset, end = (_steps(ticks, score.ticks_per_quarter, steps) for ticks in _spans(notes))
        duration = np.clip(end - onset, 1, LONGEST * steps)
        family = DRUMS if track.is_drum else track.program // FAMILY_SIZE
        if track.is_drum:
            duration = np.ones_like(duration)  # a drum hit has no length, whatever a file says
        columns[family].append((onset, duration, notes["pitch"].astype(np.int64)))
    return {family: _joined(parts) for family, parts in columns.items()}


def _spans(notes: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    time = notes["time"].astype(np.int64)
    return time, time + notes["duration"].astype(np.int64)


def _steps(ticks: np.ndarray, ticks_per_quarter: int, steps: int) -> np.ndarray:
    """Return the nearest step of times in ticks; a time halfway between two is rounded up."""
    nearest: np.ndarray = (2 * ticks * steps + ticks_per_quarter) // (2 * ticks_per_quarter)
    return nearest


def _joined(parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    onset, duration, pitch = (np.concatenate(column) for column in zip(*parts, strict=True))
    return onset, duration, pitch


def _merged(onset: np.ndarray, duration: np.ndarray, pitch: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return notes by onset and pitch, of equal ones the longest."""
    order = np.lexsort((-duration, pitch, onset))
    onset, duration, pitch = onset[order], duration[order], pitch[order]
    is_first = np.ones(len(onset), bool)
    is_first[1:] = (np.diff(onset) != 0) | (np.diff(pitch) != 0)
    return onset[is_first], duration[is_first], pitch[is_first]
