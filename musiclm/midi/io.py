"""Files of music: reading by `reader.py`, writing MIDI that every program opens.

A score is a `symusic.Score` in ticks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from symusic import Score

from ..errors import MidiError
from ..files import write_whole
from .reader import parse


def read(path: str | Path) -> Score:
    """Return the score in a file of MIDI or abc, mended; see `reader.read_music`.

    Raises:
        MidiError: the file does not exist, or cannot be used.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise MidiError(f"'{path}' cannot be read: {error.strerror or error}") from error
    return parse(data, str(path))


def to_bytes(score: Score) -> bytes:
    """Return the score as a MIDI file of type 1.

    On one track a note ends where the next note of its pitch begins, since a note-off of a MIDI file does not tell which
    of two overlapping notes it ends. Of two notes that begin together the longer one is kept.
    """
    score = score.copy()
    for track in score.tracks:
        track.notes = _without_overlaps(track.notes)
    return bytes(score.dumps_midi())


def _without_overlaps(notes: Any) -> Any:
    parts = notes.numpy()
    time, duration, pitch = (parts[k].astype(np.int64) for k in ("time", "duration", "pitch"))
    order = np.lexsort((-duration, time, pitch))  # of notes that begin together the longest first
    is_double = (np.diff(pitch[order], prepend=-1) == 0) & (np.diff(time[order], prepend=-1) == 0)
    kept = order[~is_double]
    ends = (time + duration)[kept]
    next_onset = np.where(pitch[kept][1:] == pitch[kept][:-1], time[kept][1:], 2**62)
    ends[:-1] = np.minimum(ends[:-1], next_onset)
    by_time = np.argsort(time[kept], kind="stable")
    kept, ends = kept[by_time], ends[by_time]
    lengths = np.maximum(1, ends - time[kept]).astype(np.int32)
    return type(notes).from_numpy(parts["time"][kept], lengths, parts["pitch"][kept], parts["velocity"][kept])


def write(score: Score, path: str | Path, *, force: bool = False) -> None:
    """Write a score as a MIDI file of type 1, atomically.

    Raises:
        OutputError: the file exists and `force` is false, or the place cannot be written.
    """
    write_whole(Path(path), to_bytes(score), force=force)
