"""Scores: reading MIDI that may be damaged, writing MIDI that opens anywhere, bars and cuts.

A score is a `symusic.Score` in ticks.
"""

from __future__ import annotations

import dataclasses
import math
import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from symusic import Note, Score, Tempo, TextMeta, TimeSignature, Track

from .errors import MidiError
from .files import write_whole


def read(path: str | Path) -> Score:
    """Return the score in a MIDI file.

    Raises:
        MidiError: not there, not MIDI, damaged, or without a single note.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise MidiError(f"'{path}' cannot be read: {error.strerror or error}") from error
    return parse(data, str(path))


def parse(data: bytes, name: str) -> Score:
    """Return the score in the bytes of a MIDI file; `name` is what errors call it.

    The outline of the file is checked first: a C++ parser reads it, and what kills that cannot be caught.

    Raises:
        MidiError: not MIDI, damaged, or without a single note.
    """
    if not data:
        raise MidiError(f"'{name}' is empty: give a MIDI file")
    problem = _outline_problem(data)
    if problem:
        raise MidiError(f"'{name}' {problem}")
    try:
        score = Score.from_midi(data)
    except Exception as error:  # symusic raises RuntimeError, ValueError and others of its own
        raise MidiError(f"'{name}' is damaged MIDI: {str(error).splitlines()[0] or type(error).__name__}") from error
    if score.note_num() == 0:
        raise MidiError(f"'{name}' holds no notes")
    if score.start() < 0 or score.end() > 2**30:
        raise MidiError(f"'{name}' is damaged MIDI: times beyond all bounds")
    for events in (score.tempos, score.time_signatures, score.key_signatures):
        for event in events:
            if (
                event.time < score.ticks_per_quarter / 16
            ):  # some programs write them a tick late, which makes a bar of it
                event.time = 0
    return score


def _outline_problem(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"RMID":
        return "is RIFF MIDI: convert it to a standard MIDI file"
    if data[:4] != b"MThd":
        return "is not a MIDI file"
    if len(data) < 14:
        return "is damaged MIDI: it ends within its header"
    length, _, num_tracks, division = struct.unpack(">IHHH", data[4:14])
    if length < 6 or 8 + length > len(data):
        return "is damaged MIDI: its header lies about its length"
    if division == 0 or division & 0x8000:
        return f"has no beats (division {division:#06x}): SMPTE time is not supported"
    at, found = 8 + length, 0
    while at + 8 <= len(data) and found < num_tracks:
        size = struct.unpack(">I", data[at + 4 : at + 8])[0]
        if at + 8 + size > len(data):
            return "is damaged MIDI: it ends within a track"
        found += data[at : at + 4] == b"MTrk"
        at += 8 + size
    if not found:
        return "is damaged MIDI: it has no track"
    return None


def to_bytes(score: Score) -> bytes:
    """Return the score as a MIDI file of type 1.

    On one track a note ends where the next of its pitch begins, since a MIDI file cannot say which of two that overlap
    a note-off means; of two that begin together the longer one stays.
    """
    score = score.copy()
    for track in score.tracks:
        track.notes = _without_overlaps(track.notes)
    return bytes(score.dumps_midi())


def _without_overlaps(notes: Any) -> Any:
    parts = notes.numpy()
    time, duration, pitch = (parts[k].astype(np.int64) for k in ("time", "duration", "pitch"))
    order = np.lexsort((-duration, time, pitch))  # of those that begin together the longest first
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
    """Write a score as a MIDI file of type 1, whole or not at all.

    Raises:
        OutputError: the file is there already and `force` is false, or the place cannot be written.
    """
    write_whole(Path(path), to_bytes(score), force=force)


@dataclasses.dataclass(frozen=True)
class Bar:
    """One bar: where it begins and ends, in quarters, and its time signature."""

    start: float
    end: float
    numerator: int
    denominator: int


def bars(score: Score) -> Iterator[Bar]:
    """Yield the bars of a score for ever: behind its end they go on in the last time signature (4/4 if there is none)."""
    changes = sorted((t.time / score.ticks_per_quarter, t.numerator, t.denominator) for t in score.time_signatures)
    start, numerator, denominator = 0.0, 4, 4
    while True:
        while changes and changes[0][0] <= start + 1e-6:
            _, numerator, denominator = changes.pop(0)
        end = start + 4 * numerator / denominator
        if changes and changes[0][0] < end - 1e-6:  # a change within a bar cuts it short
            end = changes[0][0]
        yield Bar(start, end, numerator, denominator)
        start = end


def bar_line(score: Score, quarters: float, num_bars: int = 0) -> float:
    """Return the first bar line at or behind a time, or the one `num_bars` bars after it, in quarters."""
    left = num_bars
    for bar in bars(score):
        if bar.start >= quarters - 1e-6:
            if left == 0:
                return bar.start
            left -= 1
    raise AssertionError("bars go on for ever")


def fill_bars(score: Score, signs: Collection[tuple[int, int]]) -> None:
    """Give the part of a bar before a change of metre within it a time signature of its own, as upbeats have it.

    Args:
        score: changed in place.
        signs: those that there are. Where none is as long as that part, the score is left as it is.
    """
    ticks = score.ticks_per_quarter
    said = {t.time: t for t in sorted(score.time_signatures, key=lambda t: t.time)}
    filled = dict(said)
    start, bar = 0, 4.0 * ticks
    for sign in said.values():
        if (sign.numerator, sign.denominator) not in signs:
            continue
        part = (sign.time - start) % bar
        for denominator in (4, 8, 16):
            numerator = round(part * denominator / 4 / ticks)
            is_as_long = abs(numerator * 4 * ticks / denominator - part) <= ticks / 24
            if (numerator, denominator) in signs and is_as_long and part < bar - ticks / 24:
                at = round(sign.time - part)
                filled[at] = TimeSignature(at, numerator, denominator)
                break
        start, bar = sign.time, 4.0 * ticks * sign.numerator / sign.denominator
    if filled != said:
        score.time_signatures = type(score.time_signatures)([filled[at] for at in sorted(filled)])


def end(score: Score) -> float:
    """Return where the last note ends, in quarters."""
    return max((n.end for t in score.tracks for n in t.notes), default=0) / score.ticks_per_quarter


def num_bars(score: Score) -> int:
    """Return in how many bars there are notes, counted from the first bar of the file."""
    last = end(score)
    for i, bar in enumerate(bars(score)):
        if bar.end >= last - 1e-6:
            return i + 1
    raise AssertionError("bars go on for ever")


def seconds(score: Score) -> float:
    """Return how long the music sounds, in seconds by the score's own tempi, from the beginning of the file."""
    timed = score.to("second")
    return max((n.end for t in timed.tracks for n in t.notes), default=0.0)


def quarters_at(score: Score, time: float) -> float:
    """Return the musical time, in quarters, that is reached after so many seconds."""
    tempi = sorted((t.time / score.ticks_per_quarter, t.qpm) for t in score.tempos)
    at, passed, qpm = 0.0, 0.0, 120.0
    for change, new_qpm in tempi:
        here = passed + (change - at) * 60 / qpm
        if here > time:
            break
        at, passed, qpm = change, here, new_qpm
    return at + (time - passed) * qpm / 60


def cut(score: Score, start: float, stop: float) -> Score:
    """Return what begins within [start, stop) quarters, moved to begin at 0; notes that ring on are cut at `stop`.

    Tempo, time signature and key that hold at `start` stand at its beginning.
    """
    tpq = score.ticks_per_quarter
    first, last = round(start * tpq), round(stop * tpq)
    piece = Score(tpq)
    for track in score.tracks:
        new = Track(track.name, track.program, track.is_drum)
        for n in track.notes:
            if first <= n.time < last:
                new.notes.append(Note(n.time - first, max(1, min(n.end, last) - n.time), n.pitch, n.velocity))
        for c in track.controls:
            if first <= c.time < last:
                copied = c.copy()
                copied.time = c.time - first
                new.controls.append(copied)
        piece.tracks.append(new)
    for name in ("tempos", "time_signatures", "key_signatures"):
        events = sorted(getattr(score, name), key=lambda e: e.time)
        before = [e for e in events if e.time <= first][-1:]
        for event in before + [e for e in events if first < e.time < last]:
            copied = event.copy()
            copied.time = max(0, event.time - first)
            getattr(piece, name).append(copied)
    return piece


def add_text(score: Score, text: str) -> None:
    """Write a text into the score, as a marker at its beginning."""
    score.markers.append(TextMeta(0, text))


def seconds_at(score: Score, quarters: float) -> float:
    """Return how many seconds pass before a musical time, given in quarters."""
    tempi = sorted((t.time / score.ticks_per_quarter, t.qpm) for t in score.tempos)
    at, passed, qpm = 0.0, 0.0, 120.0
    for change, new_qpm in tempi:
        if change >= quarters:
            break
        passed += (change - at) * 60 / qpm
        at, qpm = change, new_qpm
    return passed + (quarters - at) * 60 / qpm


def last_bar_line(score: Score, quarters: float) -> float:
    """Return the last bar line at or before a time, in quarters."""
    for bar in bars(score):
        if bar.end > quarters + 1e-6:
            return bar.start
    raise AssertionError("bars go on for ever")


def without_before(score: Score, quarters: float) -> Score:
    """Return the score without the notes that begin before a time, in quarters; all else stays where it is."""
    first = round(quarters * score.ticks_per_quarter)
    copied = score.copy()
    for track in copied.tracks:
        track.notes = type(track.notes)([n for n in track.notes if n.time >= first])
    return copied


def carry_over(source: Score, target: Score, tempi: list[float], behind: float | None = None) -> None:
    """Give a decoded score what the tokenizer could not keep of the source's tempo, metre and key.

    Args:
        source: the score as it was read.
        target: its tokens decoded, and more; changed in place.
        tempi: those that the tokenizer has, in quarters a minute. A tokenizer without tempi has no metre either: both are
            the source's.
        behind: where the source ends and new music begins, in quarters, if any does. The source's tempi stand before; new
            ones are the source's in the place of their nearest of the tokenizer's.
    """
    scale = target.ticks_per_quarter / source.ticks_per_quarter
    if not tempi:
        target.tempos.clear()
        target.time_signatures.clear()
        for name in ("tempos", "time_signatures"):
            for event in getattr(source, name):
                _add(target, name, event, scale)
    else:
        said = sorted(source.tempos, key=lambda t: t.time)
        if not said or said[0].time > 0:
            said.insert(0, Tempo(0, 120.0))  # what a MIDI file means that says nothing
        asked = {min(tempi, key=lambda t: abs(math.log(t / s.qpm))): s.mspq for s in said}
        first_new = math.inf if behind is None else round(behind * target.ticks_per_quarter)
        new = [t for t in target.tempos if t.time >= first_new]
        for tempo in new:
            nearest = min(tempi, key=lambda t: abs(math.log(t / tempo.qpm)))
            tempo.mspq = asked.get(nearest, tempo.mspq)
        target.tempos.clear()
        for tempo in said:
            _add(target, "tempos", tempo, scale)
        for tempo in new:
            target.tempos.append(tempo)
    for event in source.key_signatures:
        _add(target, "key_signatures", event, scale)


def set_tempo(score: Score, quarters: float, qpm: float) -> None:
    """Have a score go on at this tempo, in quarters a minute, from a time on, in quarters; changed in place."""
    at = round(quarters * score.ticks_per_quarter)
    score.tempos = type(score.tempos)([t for t in score.tempos if t.time < at])
    score.tempos.append(Tempo(at, qpm))


def retimed(score: Score, source: Score) -> Score:
    """Return a score of 120 quarters a minute with its notes moved to sound at the same second by a source's tempi."""
    changes = sorted({t.time: t.qpm for t in source.tempos}.items())
    at = np.array([0.0] + [time / source.ticks_per_quarter for time, _ in changes])  # quarters
    pace = np.array([120.0] + [qpm for _, qpm in changes]) / 60  # quarters a second
    passed = np.append(0.0, np.cumsum(np.diff(at) / pace[:-1]))  # seconds
    ticks = score.ticks_per_quarter
    copied = score.copy()
    for track in copied.tracks:
        if track.notes:
            notes = track.notes.numpy()
            start, stop = notes["time"], notes["time"] + notes["duration"]
            for times in (start, stop):
                second = times / ticks / 2
                last = np.searchsorted(passed, second, side="right") - 1
                times[:] = np.floor((at[last] + (second - passed[last]) * pace[last]) * ticks + 0.5)
            notes["time"], notes["duration"] = start, np.maximum(1, stop - start)
            track.notes = Note.from_numpy(**notes)
    return copied


def _add(score: Score, name: str, event: Any, scale: float) -> None:
    copied = event.copy()
    copied.time = round(event.time * scale)
    getattr(score, name).append(copied)
