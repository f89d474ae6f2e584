"""Edits of scores: cuts, tempo changes, and copying tempo, time signature and key to another score."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import numpy as np
from symusic import Note, Score, Tempo, TextMeta, TimeSignature, Track

from .controllers import in_force


def fill_bars(score: Score, signs: Collection[tuple[int, int]]) -> None:
    """Give a partial bar before a change of the time signature a time signature of its own, as upbeats have it.

    Args:
        score: changed in place.
        signs: the allowed time signatures. If none is as long as the partial bar, the score is not changed there.
    """
    ticks = score.ticks_per_quarter
    given = {t.time: t for t in sorted(score.time_signatures, key=lambda t: t.time)}
    filled = dict(given)
    start, bar = 0, 4.0 * ticks
    for sign in given.values():
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
    if filled != given:
        score.time_signatures = type(score.time_signatures)([filled[at] for at in sorted(filled)])


def cut(score: Score, start: float, stop: float) -> Score:
    """Return the events within [start, stop) quarters, moved to begin at 0; notes that sound longer end at `stop`.

    What is in force at `start` is written at the beginning: tempo, time signature, key, controllers and pitch bend.
    """
    tpq = score.ticks_per_quarter
    first, last = round(start * tpq), round(stop * tpq)
    piece = Score(tpq)
    for track in score.tracks:
        piece.tracks.append(_cut_track(track, first, last))
    for name in ("tempos", "time_signatures", "key_signatures"):
        events = sorted(getattr(score, name), key=lambda e: e.time)
        before = [e for e in events if e.time <= first][-1:]
        for event in before + [e for e in events if first < e.time < last]:
            copied = event.copy()
            copied.time = max(0, event.time - first)
            getattr(piece, name).append(copied)
    _copy_within(score.markers, piece.markers, first, last)
    return piece


def _cut_track(track: Track, first: int, last: int) -> Track:
    new = Track(track.name, track.program, track.is_drum)
    for n in track.notes:
        if first <= n.time < last:
            new.notes.append(Note(n.time - first, max(1, min(n.end, last) - n.time), n.pitch, n.velocity))
    behind = first
    if first > 0:  # at the very beginning all events stay, in their order
        controls, bends = in_force(track, first, at=0)
        new.controls.extend(controls)
        new.pitch_bends.extend(bends)
        behind = first + 1
    _copy_within(track.controls, new.controls, behind, last, first)
    _copy_within(track.pitch_bends, new.pitch_bends, behind, last, first)
    _copy_within(track.lyrics, new.lyrics, first, last)
    return new


def _copy_within(events: Any, target: Any, start: int, stop: int, zero: int | None = None) -> None:
    """Append copies of events within [start, stop) ticks, moved so that the tick `zero` (`start` by default) becomes 0."""
    for event in events:
        if start <= event.time < stop:
            copied = event.copy()
            copied.time = event.time - (start if zero is None else zero)
            target.append(copied)


def add_text(score: Score, text: str) -> None:
    """Add a text to the score, as a marker at its beginning."""
    score.markers.append(TextMeta(0, text))


def without_before(score: Score, quarters: float) -> Score:
    """Return the score without the notes that begin before a time, in quarters; the rest keeps its times."""
    first = round(quarters * score.ticks_per_quarter)
    copied = score.copy()
    for track in copied.tracks:
        track.notes = type(track.notes)([n for n in track.notes if n.time >= first])
    return copied


def carry_over(source: Score, target: Score, tempi: list[float], behind: float | None = None) -> None:
    """Restore in a decoded score what the tokenizer did not keep of the source's tempo, time signature and key.

    Args:
        source: the score as it was read.
        target: its tokens decoded, with new music; changed in place.
        tempi: those of the tokenizer, in quarters per minute. A tokenizer without tempi has no time signatures either:
            both are then copied from the source.
        behind: where the source ends and new music begins, in quarters; None without new music. Before it the tempi are
            those of the source. Behind it a new tempo is replaced by the source's tempo that the tokenizer rounds to it.
    """
    scale = target.ticks_per_quarter / source.ticks_per_quarter
    if not tempi:
        target.tempos.clear()
        target.time_signatures.clear()
        for name in ("tempos", "time_signatures"):
            for event in getattr(source, name):
                _add(target, name, event, scale)
    else:
        given = sorted(source.tempos, key=lambda t: t.time)
        if not given or given[0].time > 0:
            given.insert(0, Tempo(0, 120.0))  # the default of MIDI files
        original = {min(tempi, key=lambda t: abs(math.log(t / s.qpm))): s.mspq for s in given}
        first_new = math.inf if behind is None else round(behind * target.ticks_per_quarter)
        new = [t for t in target.tempos if t.time >= first_new]
        for tempo in new:
            nearest = min(tempi, key=lambda t: abs(math.log(t / tempo.qpm)))
            tempo.mspq = original.get(nearest, tempo.mspq)
        target.tempos.clear()
        for tempo in given:
            _add(target, "tempos", tempo, scale)
        for tempo in new:
            target.tempos.append(tempo)
    for event in source.key_signatures:
        _add(target, "key_signatures", event, scale)


def set_tempo(score: Score, quarters: float, qpm: float) -> None:
    """Set the tempo of a score, in quarters per minute, from a time on, in quarters; changed in place."""
    at = round(quarters * score.ticks_per_quarter)
    score.tempos = type(score.tempos)([t for t in score.tempos if t.time < at])
    score.tempos.append(Tempo(at, qpm))


def retimed(score: Score, source: Score) -> Score:
    """Return a score of 120 quarters per minute, its notes moved so that they keep their seconds at a source's tempi.

    This does not use `TempoMap`. Its product (quarters per second) differs from that in the last bit, which moves one
    note in 3,400 by a tick, and of two tempi at one tick it takes the later one; both are part of the results.
    """
    changes = sorted({t.time: t.qpm for t in source.tempos}.items())
    at = np.array([0.0] + [time / source.ticks_per_quarter for time, _ in changes])  # quarters
    pace = np.array([120.0] + [qpm for _, qpm in changes]) / 60  # quarters per second
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
