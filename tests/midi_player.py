"""A small player of MIDI files that shares no code with musiclm: what a listener hears, one program per channel.

For property tests of writing and of reading:

    play(data)                       as a synthesizer: a program change holds for its channel, whatever track it stands in
    play(data, own_programs=True)    as a reader of tracks: a note takes the last program that its own track has set on its
                                     channel before it; a track that has set none there yet takes the channel's

All tracks are read side by side: by tick, at one tick in the order of the tracks, within a track in the order of the file.
So a program change holds for the notes behind it in that order. "The last event of a tick wins" for a whole tick, also for
notes before the change, with `whole_ticks=True`.

Notes pair by channel and pitch over all tracks, the first note-on with the first note-off (FIFO); with own_programs the
pairs are those of each track. A note-on of velocity 0 is a note-off. A note-off at the tick of its note-on counts: such a
note has length 0. All-sound-off and all-notes-off (controllers 120 and 123) end what sounds on their channel. What is never
ended lasts until the end of its own track. Formats 0 and 1 play together; the tracks of
format 2 one after the other. RIFF is unwrapped. Running status goes on after meta and system exclusive events. A chunk
that is cut, or a byte that is no event, ends its track. Nothing is repaired otherwise.
"""

from __future__ import annotations

import struct
from collections import defaultdict, deque
from typing import NamedTuple

LENGTHS = {0x80: 2, 0x90: 2, 0xA0: 2, 0xB0: 2, 0xC0: 1, 0xD0: 1, 0xE0: 2}
DRUM_CHANNEL = 9


class Heard(NamedTuple):
    """A note as it is heard: ticks, pitch, velocity and program 0 to 127, channel 0 to 15. `track` counts the chunks."""

    start: int
    end: int
    pitch: int
    velocity: int
    program: int
    is_drum: bool
    channel: int
    track: int


class Event(NamedTuple):
    """A channel event: its status without the channel, its data bytes (the second is 0 where there is none)."""

    tick: int
    track: int
    kind: int
    channel: int
    first: int
    second: int


def events(data: bytes) -> tuple[list[Event], list[int]]:
    """Return the channel events of a file as a player meets them, and the tick at which each track ends."""
    if data[:4] == b"RIFF":
        data = data[data.index(b"MThd") :]
    assert data[:4] == b"MThd", "no MIDI file"
    length, kind = struct.unpack(">IH", data[4:10])
    at, found, ends = 8 + length, [], []
    while at + 8 <= len(data):
        size = struct.unpack(">I", data[at + 4 : at + 8])[0]
        if data[at : at + 4] == b"MTrk":
            start = ends[-1] if kind == 2 and ends else 0
            new, end = _track(data[at + 8 : at + 8 + size], len(ends), start)
            found += new
            ends.append(end)
        at += 8 + size
    return sorted(found, key=lambda event: (event.tick, event.track)), ends  # stable within a track


def _track(chunk: bytes, track: int, tick: int) -> tuple[list[Event], int]:
    found, at, status = [], 0, 0
    try:
        while at < len(chunk):
            delta, at = _quantity(chunk, at)
            tick += delta
            if chunk[at] in (0xFF, 0xF0, 0xF7):
                is_end = chunk[at : at + 2] == b"\xff\x2f"
                size, at = _quantity(chunk, at + 1 + (chunk[at] == 0xFF))
                at += size
                if is_end:
                    break
                continue
            if chunk[at] & 0x80:
                status, at = chunk[at], at + 1
            count = LENGTHS[status & 0xF0]
            values = [*chunk[at : at + count], 0]
            found.append(Event(tick, track, status & 0xF0, status & 15, values[0], values[1]))
            at += count
    except (IndexError, KeyError):  # cut, or no event
        pass
    return found, tick


def _quantity(chunk: bytes, at: int) -> tuple[int, int]:
    value = 0
    while True:
        value, at = value << 7 | chunk[at] & 0x7F, at + 1
        if not chunk[at - 1] & 0x80:
            return value, at


def play(data: bytes, *, own_programs: bool = False, whole_ticks: bool = False) -> list[Heard]:
    """Return the notes that are heard, sorted; see the module."""
    found, ends = events(data)
    of_channel: dict[int, int] = defaultdict(int)
    of_track: dict[tuple[int, int], int] = {}
    sounding: dict[tuple[int, int, int], deque[tuple[Event, int]]] = defaultdict(deque)
    heard = []

    def end(key: tuple[int, int, int], tick: int | None) -> None:
        on, program = sounding[key].popleft()
        stop = max(on.tick, ends[on.track]) if tick is None else tick
        is_drum = on.channel == DRUM_CHANNEL
        heard.append(Heard(on.tick, stop, on.first, on.second, program, is_drum, on.channel, on.track))

    if whole_ticks:
        found = sorted(found, key=lambda event: (event.tick, event.kind != 0xC0))
    for event in found:
        key = (event.channel, event.first, event.track if own_programs else 0)
        if event.kind == 0xC0:
            of_channel[event.channel] = of_track[event.track, event.channel] = event.first
        elif event.kind == 0x90 and event.second:
            own = of_track.get((event.track, event.channel)) if own_programs else None
            sounding[key].append((event, of_channel[event.channel] if own is None else own))
        elif event.kind in (0x80, 0x90) and sounding[key]:
            end(key, event.tick)
        elif event.kind == 0xB0 and event.first in (120, 123):
            for each in [k for k in sounding if k[0] == event.channel]:
                while sounding[each]:
                    end(each, event.tick)
    for key, notes in sounding.items():
        while notes:
            end(key, None)
    return sorted(heard)


def controllers(data: bytes) -> list[tuple[Heard, dict[int, int], int]]:
    """Return, for each note as `play` hears it, its channel's controllers at its note-on and its pitch bend."""
    values: dict[int, dict[int, int]] = defaultdict(dict)
    bends: dict[int, int] = defaultdict(int)
    at_note: dict[tuple[int, int, int, int], deque[tuple[dict[int, int], int]]] = defaultdict(deque)
    for event in events(data)[0]:
        if event.kind == 0xB0:
            values[event.channel][event.first] = event.second
        elif event.kind == 0xE0:
            bends[event.channel] = event.first + (event.second << 7) - 8192
        elif event.kind == 0x90 and event.second:
            key = (event.tick, event.track, event.channel, event.first)
            at_note[key].append((dict(values[event.channel]), bends[event.channel]))
    return [(note, *at_note[note.start, note.track, note.channel, note.pitch].popleft()) for note in play(data)]
