"""Edits of scores: cuts, tempo changes, and carrying tempo, time signature and key over to another score."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import numpy as np
from symusic import Note, Score, Tempo, TextMeta, TimeSignature, Track


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
    """Return a score of 120 quarters a minute with its notes moved to sound at the same second by a source's tempi.

    This does not use `TempoMap`. Its product (quarters per second) differs from that in the last bit, which moves one
    note in 3,400 by a tick, and of two tempi at one tick it takes the later one; both are part of the results.
    """
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
