"""New music while it is sampled: notes, tempi and time signatures in the order of their beginnings, once they are certain."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from symusic import Score

from .. import midi
from ..midi.pedal import PEDAL
from ..tokenizers.base import TICKS
from . import seam
from .prompt import Prompt
from .session import Continuation, GenerationSession

ROUNDING = 0.6 / TICKS  # quarters, by which a note may differ from the time of its ids
DECODE_EVERY = 64  # all notes are decoded whenever the music has grown by 1/64: constant work for each token


@dataclasses.dataclass(frozen=True, kw_only=True)
class Note:
    """A note: seconds from the beginning of the music, pitch and velocity 0 … 127, General MIDI program, or drum.

    Its end is where it ends to the ear: where the pedal of its track releases it.
    """

    event = "note"
    start: float
    end: float
    pitch: int
    velocity: int
    program: int
    drum: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tempo:
    """The tempo from here on, in quarters/minute; start in seconds."""

    event = "tempo"
    start: float
    quarters_a_minute: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metre:
    """The time signature from here on; start in seconds. The event's name in JSON is "metre"."""

    event = "metre"
    start: float
    numerator: int
    denominator: int


Event = Note | Tempo | Metre


def to_json(event: Event) -> dict[str, Any]:
    """Return an event as JSON."""
    return {"event": event.event} | dataclasses.asdict(event)


class Stream:
    """A variation that is yielded while it is sampled: an iterator over its notes, or over its `events`.

    It has the notes of the same seed's composition, with two exceptions. A stream cannot rewind, so the loop guard only
    raises the temperature, and silences drums that have been alone. And silence is not resampled.

    Args:
        session: how to sample; live.
        prompt: what it continues.
        only_new: leave the prompt's notes out.

    Attributes:
        prompt: as given.
        only_new: as given.
        continuation: what was sampled so far; its `reason` is None until the music has ended.
    """

    def __init__(self, session: GenerationSession, prompt: Prompt, *, only_new: bool = False) -> None:
        self.continuation = Continuation(number=0)
        self.prompt, self.only_new, self._session = prompt, only_new, session
        self._begin = 0.0  # where the music begins, in quarters
        self._certain = 0.0  # up to where all was yielded

    def __iter__(self) -> Iterator[Note]:
        return (event for event in self.events() if isinstance(event, Note))

    def events(self) -> Iterator[Event]:
        """Yield notes, tempi and time signatures by their beginnings; of those at one time the notes come last."""
        prompt, music = self.prompt, self.continuation
        if prompt.score is not None:
            if self.only_new:
                self._begin = self._certain = midi.last_bar_line(prompt.score, prompt.quarters)
            yield from self._up_to(min(prompt.quarters, prompt.reached(music.ids)))
        decoded = 0
        for _ in self._session.extend(music):
            if music.reason is None and len(music.ids) - decoded >= len(music.ids) // DECODE_EVERY:
                decoded = len(music.ids)
                yield from self._up_to(prompt.reached(music.ids))
        yield from self._up_to(float("inf"))

    def _up_to(self, reached: float) -> Iterator[Event]:
        """Yield what begins before a time, in quarters, and cannot change any more."""
        music, prompt = self.continuation, self.prompt
        score = prompt.continued(music.ids, only_new=self.only_new)
        tempo = midi.TempoMap(score)
        tpq = score.ticks_per_quarter
        stop = music.stop if music.reason or not self._session.config.finish else None
        limit = reached if stop is None else min(reached, stop)
        # by program and pitch, as in a file; a note that still sounds where the ids end may become longer
        notes = sorted(
            (n.time / tpq, t.is_drum, t.program, n.pitch, end / tpq, n.velocity)
            for t in score.tracks
            for n, end in zip(t.notes, _ends(t), strict=True)
            if n.time / tpq >= self._certain - ROUNDING
        )
        if not prompt.tokenizer.says_durations and music.reason is None:
            # a prompt's note that ends half a step before its cell does may go on, too
            slack = 2 * ROUNDING if prompt.tokenizer.in_seconds else seam.SAME_ONSET + ROUNDING
            limit = min([limit, *(n[0] for n in notes if n[4] >= reached - slack)])
        changes = self._changes(score, tempo, limit)
        for start, is_drum, program, pitch, end, velocity in notes:
            if start >= limit - ROUNDING:
                break
            while changes and changes[0][0] <= start + ROUNDING:
                yield changes.pop(0)[1]
            end = end if stop is None else min(end, stop)
            yield Note(
                start=self._seconds(tempo, start),
                end=self._seconds(tempo, max(end, start + 1 / tpq)),
                pitch=pitch,
                velocity=velocity,
                program=program,
                drum=is_drum,
            )
        yield from (change for _, change in changes)
        self._certain = max(self._certain, limit)

    def _changes(self, score: Score, tempo: midi.TempoMap, limit: float) -> list[tuple[float, Event]]:
        """Return the tempi and time signatures from where all was yielded to a limit, each with its time in quarters."""
        found: list[tuple[float, Event]] = []
        tpq = score.ticks_per_quarter
        for events in (score.time_signatures, score.tempos):
            known: Event | None = None
            for e in sorted(events, key=lambda e: e.time):
                at = max(self._begin, e.time / tpq)
                start = self._seconds(tempo, at)
                change = _change(e, start)
                is_same = known is not None and dataclasses.replace(known, start=start) == change
                known = change
                if is_same or not self._certain - ROUNDING <= at < limit - ROUNDING:
                    continue
                if found and found[-1][0] == at and type(found[-1][1]) is type(change):
                    found.pop()  # of those before the beginning the last is in force
                found.append((at, change))
        return sorted(found, key=lambda pair: pair[0])

    def _seconds(self, tempo: midi.TempoMap, quarters: float) -> float:
        return round(tempo.seconds_at(quarters) - tempo.seconds_at(self._begin), 6)


def _ends(track: Any) -> list[int]:
    """Return when each note of a track ends to the ear, in ticks: a stream has no pedal, which sustains a prompt's notes."""
    notes = track.notes.numpy()
    ends = notes["time"] + notes["duration"]
    if not len(ends) or not any(c.number == PEDAL for c in track.controls):
        return list(map(int, ends))
    sustained = midi.pedal_release(track, ends)
    order = np.lexsort((notes["time"], notes["pitch"]))
    onsets, pitches = notes["time"][order], notes["pitch"][order]
    again = np.where(np.diff(pitches) == 0, onsets[1:], np.iinfo(np.int32).max)  # the key's next strike
    struck = np.append(again, np.iinfo(np.int32).max)[np.argsort(order)]
    return list(map(int, np.maximum(ends, np.minimum(sustained, struck))))


def _change(event: Any, start: float) -> Event:
    if hasattr(event, "numerator"):
        return Metre(start=start, numerator=event.numerator, denominator=event.denominator)
    return Tempo(start=start, quarters_a_minute=round(event.qpm, 3))
