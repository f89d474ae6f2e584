"""Cleaning of scores for corpora, beyond what reading mends (`midi.reader`); each repair is counted.

Repaired are: stuck notes, whole bars of silence at the beginning, impossible tempi and time signatures, programs that the
user wants replaced, and onsets that lie beside the grid by one constant shift.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from symusic import Note, Score, Tempo

from .. import midi

LONGEST = 64  # quarters that a note may last: sixteen bars, a long pedal point
CUT_TO = 16  # quarters: the new length of a longer note
SLOWEST, FASTEST = 10.0, 500.0  # quarters per minute
ON_GRID = 0.1  # of a sixteenth


def clean(score: Score, programs: Mapping[int, int] | None = None) -> Counter[str]:
    """Clean a score in place; return how often each repair was made.

    - Notes longer than `LONGEST` quarters are stuck: they are cut to `CUT_TO` quarters.
    - Tempi are clipped to 10 … 500 quarters per minute. Time signatures beyond 64/64 are removed.
    - Whole bars of silence at the beginning are cut: the music then begins in the first bar.
    - Onsets that all lie beside the grid of sixteenths by the same shift are moved onto it (POP909).

    Args:
        score: as it was read, in ticks.
        programs: MIDI programs to replace by others, in tracks that are not drums.
    """
    done: Counter[str] = Counter()
    for track in score.tracks:
        if programs and not track.is_drum and track.program in programs:
            track.program = programs[track.program]
            done["tracks given another program"] += 1
        arrays = track.notes.numpy()
        stuck = arrays["duration"] > LONGEST * score.ticks_per_quarter
        if stuck.any():
            arrays["duration"][stuck] = CUT_TO * score.ticks_per_quarter
            track.notes = Note.from_numpy(**arrays)
            done["stuck notes cut"] += int(stuck.sum())
    done.update(_tempi(score))
    done.update(_time_signatures(score))
    if score.note_num():
        done.update(_start(score))
        done.update(_align(score))
    return +done


def _tempi(score: Score) -> Counter[str]:
    bad = [t for t in score.tempos if t.mspq <= 0 or not SLOWEST <= t.qpm <= FASTEST]
    if not bad:
        return Counter()
    kept = []
    for tempo in score.tempos:
        if tempo.mspq > 0:
            kept.append(Tempo(tempo.time, min(max(tempo.qpm, SLOWEST), FASTEST)))
    score.tempos = type(score.tempos)(kept)
    return Counter({"tempi out of reason mended": len(bad)})


def _time_signatures(score: Score) -> Counter[str]:
    kept = [t for t in score.time_signatures if 1 <= t.numerator <= 64 and t.denominator in (1, 2, 4, 8, 16, 32, 64)]
    gone = len(score.time_signatures) - len(kept)
    if gone:
        score.time_signatures = type(score.time_signatures)(kept)
    return Counter({"metres out of reason dropped": gone})


def _start(score: Score) -> Counter[str]:
    first = min(int(t.notes.numpy()["time"].min()) for t in score.tracks if len(t.notes))
    bar = midi.last_bar_line(score, first / score.ticks_per_quarter)
    shift = round(bar * score.ticks_per_quarter)
    if shift <= 0:
        return Counter()
    _move(score, -shift)
    # some software writes everything at tick 1, the time signature and the notes
    return Counter({"silent beginnings cut" if shift >= score.ticks_per_quarter else "starts moved by some ticks": 1})


def _align(score: Score) -> Counter[str]:
    """Move a score whose onsets share one offset from the grid, by less than half a sixteenth.

    The offset is the circular mean of the onsets within a sixteenth. The score is moved only if nine in ten onsets then
    lie on the grid and less than half of them did before. A performance without a common grid stays as it is.
    """
    sixteenth = score.ticks_per_quarter / 4
    if sixteenth < 8:
        return Counter()
    onsets = np.concatenate([t.notes.numpy()["time"] for t in score.tracks]) / sixteenth
    if _on_grid(onsets) >= 0.5:
        return Counter()
    shift = float(np.angle(np.exp(2j * np.pi * onsets).mean()) / (2 * np.pi))
    if _on_grid(onsets - shift) < 0.9:
        return Counter()
    ticks = -round(shift * sixteenth)
    if onsets.min() * sixteenth + ticks < 0:
        ticks += round(sixteenth)
    _move(score, ticks)
    return Counter({"pieces moved onto the grid": 1})


def _on_grid(onsets: np.ndarray) -> float:
    return float((np.abs(onsets - np.round(onsets)) <= ON_GRID).mean())


def _move(score: Score, ticks: int) -> None:
    """Move all notes and events; of tempi, time signatures and keys before the beginning the last one moves to it."""
    for track in score.tracks:
        arrays = track.notes.numpy()
        arrays["time"] = arrays["time"] + np.int32(ticks)
        track.notes = Note.from_numpy(**arrays)
        for name in ("controls", "pitch_bends", "pedals", "lyrics"):
            setattr(track, name, _moved(getattr(track, name), ticks, keep_last=False))
    for name in ("tempos", "time_signatures", "key_signatures"):
        setattr(score, name, _moved(getattr(score, name), ticks, keep_last=True))
    score.markers = _moved(score.markers, ticks, keep_last=False)


def _moved(events: Any, ticks: int, *, keep_last: bool) -> Any:
    before: list[Any] = []
    after: list[Any] = []
    for event in events:
        event.time += ticks
        (before if event.time <= 0 else after).append(event)
    before.sort(key=lambda e: e.time)
    if keep_last:
        before = before[-1:]
    for event in before:
        event.time = 0
    return type(events)(before + after)
