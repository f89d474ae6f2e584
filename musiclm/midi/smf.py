"""Standard MIDI files as events: bytes in, the events of each track out. Independent of symusic.

The parser follows the Standard MIDI Files 1.0 specification (MIDI Manufacturers Association, 1988) and reads what common
software makes of it: RIFF wrappers (.rmi), longer headers, wrong lengths of chunks, more tracks than the header counts,
tracks without an end, running status behind system exclusive events. What it mended is counted; what it cannot read it
refuses with the reason.
"""

from __future__ import annotations

import dataclasses
import struct
from collections import Counter

from ..errors import Drop, MidiError, Reason

NOTE_OFF, NOTE_ON, CONTROL, PROGRAM, PRESSURE, BEND = (
    0x8,
    0x9,
    0xB,
    0xC,
    0xD,
    0xE,
)  # kinds of channel events: the status / 16
TEXT, NAME, LYRIC, MARKER, CUE, PORT, END, TEMPO, TIME, KEY = 0x01, 0x03, 0x05, 0x06, 0x07, 0x21, 0x2F, 0x51, 0x58, 0x59
SYSTEM_BYTES = {0xF1: 1, 0xF2: 2, 0xF3: 1}  # of system messages, which no file should have; all others have none
MOST_JUNK = 1024  # bytes before the header that are skipped: MacBinary has 128
LATEST = 1 << 30  # ticks

Event = tuple[int, int, int, int]
"""Tick, kind (`NOTE_ON` …), and two data bytes."""


@dataclasses.dataclass
class TrackChunk:
    """The events of one track in the order of the file.

    Attributes:
        events: by channel, (tick, kind, data, data) of each event; the channels of a port p are 16 p … 16 p + 15.
        metas: (tick, type, content) of each meta event.
        end: the tick at which the track ends.
    """

    events: dict[int, list[Event]] = dataclasses.field(default_factory=dict)
    metas: list[tuple[int, int, bytes]] = dataclasses.field(default_factory=list)
    end: int = 0


@dataclasses.dataclass
class MidiFile:
    """A parsed file.

    Attributes:
        format: 0, 1 or 2.
        ticks: per quarter.
        qpm: of a file in SMPTE time, whose tempi have no meaning: the tempo at which its ticks are as long as they should be;
            else None.
        tracks: in the order of the file.
        mended: how often each repair was made.
    """

    format: int
    ticks: int
    qpm: float | None
    tracks: list[TrackChunk]
    mended: Counter[str]


def parse(data: bytes, name: str) -> MidiFile:
    """Return the events in the bytes of a MIDI file; errors call the file `name`.

    Raises:
        MidiError: the bytes are not MIDI, or are damaged beyond repair; its `drop` says which.
    """
    mended: Counter[str] = Counter()
    at = _header_at(data, name, mended)
    if len(data) < at + 14:
        raise unusable(name, Reason.HEADER_CUT)
    length, form, count, division = struct.unpack(">IHHH", data[at + 4 : at + 14])
    if length < 6 or at + 8 + length > len(data):
        raise unusable(name, Reason.HEADER_LENGTH)
    if form > 2:
        raise unusable(name, Reason.DAMAGED, f"there is no format {form}")
    ticks, qpm = (division, None) if division < 0x8000 else _smpte(division >> 8, division & 0xFF)
    if not ticks:
        raise unusable(name, Reason.DAMAGED, f"its division of time is {division:#06x}")
    if qpm is not None:
        mended["files in SMPTE time read at 120 quarters per minute"] += 1
    found = MidiFile(form, ticks, qpm, [], mended)
    _read_tracks(data, at + 8 + length, name, found)
    if not found.tracks:
        raise unusable(name, Reason.NO_TRACK)
    if form != 2 and len(found.tracks) > max(1, count):
        mended["tracks read that the header does not count"] += len(found.tracks) - count
    return found


def _smpte(rate: int, ticks: int) -> tuple[int, float]:
    """Return ticks per quarter, and the tempo that makes a quarter about half a second; 0 if there is no such rate.

    Args:
        rate: frames per second as a negative byte; -29 stands for 29.97.
        ticks: per frame.
    """
    frames = {-24: 24.0, -25: 25.0, -29: 30 / 1.001, -30: 30.0}.get(rate - 256, 0.0)
    per_quarter = round(frames) * ticks // 2
    return per_quarter, 60 * frames * ticks / max(1, per_quarter)


def unusable(name: str, reason: Reason, detail: str = "") -> MidiError:
    """Return the error that a file cannot be used, with the reason."""
    drop = Drop(reason, detail)
    return MidiError(f"'{name}' {drop.text}", drop)


def _header_at(data: bytes, name: str, mended: Counter[str]) -> int:
    """Return where the header chunk begins: at the beginning, or in a RIFF file, or behind a few foreign bytes."""
    if not data:
        raise unusable(name, Reason.EMPTY)
    if data[:4] == b"MThd":
        return 0
    is_riff = data[:4] == b"RIFF" and data[8:12] in (b"RMID", b"RMI ")
    at = data.find(b"MThd", 0, len(data) if is_riff else MOST_JUNK)
    if at < 0:
        if is_riff:
            raise unusable(name, Reason.DAMAGED, "its RIFF wrapper holds no MIDI")
        raise unusable(name, Reason.NOT_MIDI)
    mended["RIFF files unwrapped" if is_riff else "bytes before the header skipped"] += 1 if is_riff else at
    return at


def _read_tracks(data: bytes, at: int, name: str, found: MidiFile) -> None:
    """Read all track chunks from a position on, and add them to the file."""
    while 0 <= at <= len(data) - 8:
        declared = at + 8 + int.from_bytes(data[at + 4 : at + 8], "big")
        if data[at : at + 4] != b"MTrk":  # a chunk of another kind, or something behind the music
            at = declared if _is_chunk(data, declared) else data.find(b"MTrk", at + 1)
            continue
        track = TrackChunk()
        end = _read_events(data, at + 8, declared, track, name, len(found.tracks) + 1, found.mended)
        found.tracks.append(track)
        at = end
        if end != declared and not (end < declared and _is_chunk(data, declared)):
            found.mended["lengths of tracks corrected"] += 1
            at = data.find(b"MTrk", end)
        elif end < declared:  # between the end of a track and its declared end is padding
            at = declared


def _is_chunk(data: bytes, at: int) -> bool:
    """Return whether a chunk can begin at a position: four letters and a length, or the end of the file."""
    return at == len(data) or (data[at : at + 4].isalnum() and at + 8 <= len(data))


def _read_events(
    data: bytes, at: int, declared: int, track: TrackChunk, name: str, number: int, mended: Counter[str]
) -> int:
    """Read the events of one track, and return the position behind its last one.

    A track ends at its end-of-track event, even behind its declared length. Without that event it ends where it was
    declared to end.
    """
    border: list[
        tuple[dict[int, int], int, int]
    ] = []  # numbers of events and meta events, and tick, at the declared end
    try:
        return _events(data, at, declared, track, border, mended)
    except (IndexError, _Damage) as error:
        if border:  # what follows the declared end is no music
            num_events, num_metas, track.end = border[0]
            track.events = {channel: track.events[channel][:number] for channel, number in num_events.items()}
            del track.metas[num_metas:]
            mended["tracks without an end"] += 1
            return declared
        if isinstance(error, IndexError) or declared > len(data):
            raise unusable(name, Reason.TRACK_CUT) from error
        raise unusable(name, Reason.DAMAGED, f"{error} in track {number}") from error


class _Damage(Exception):
    """An event that cannot be read."""


def _events(
    data: bytes,
    at: int,
    declared: int,
    track: TrackChunk,
    border: list[tuple[dict[int, int], int, int]],
    mended: Counter[str],
) -> int:
    """Read events until the end of the track; one long loop, since it runs once per event."""
    events, metas = track.events, track.metas
    nothing: list[Event] = []
    add = nothing.append  # of the channel's events, as soon as there is a status
    tick = running = port = 0
    while True:
        if at >= declared:
            _pass_border(data, at, declared, track, border, tick)
        byte = data[at]
        at += 1
        if byte < 0x80:
            tick += byte
        else:
            delta, at = _number(data, at - 1)
            tick += delta
            if tick > LATEST:
                raise _Damage("a time beyond all bounds")
        status = data[at]
        if status < 0x80:
            status = running
            if not status:
                raise _Damage(f"no event, but the byte {data[at]:#04x}")
        else:
            at += 1
            if status < 0xF0:
                running = status  # also behind system events, where the standard wants the status again
                add = events.setdefault((status & 15) + port, []).append
        kind = status >> 4
        if kind != 0xF:
            first = data[at]
            second = 0
            at += 1
            if kind != PROGRAM and kind != PRESSURE:
                second = data[at]
                at += 1
            if first > 127 or second > 127:
                first, second = _clipped(kind, first, second)
                mended["data bytes above 127 clipped"] += 1
            add((tick, kind, first, second))
        else:
            kind, content, at = _system(data, at, status)
            if kind == END:
                track.end = tick
                return at
            if kind == PORT and content:
                port = _changed_port(events, port, content[0])
                add = events.setdefault((running & 15) + port, []).append
            elif kind >= 0:
                metas.append((tick, kind, content))


def _pass_border(
    data: bytes,
    at: int,
    declared: int,
    track: TrackChunk,
    border: list[tuple[dict[int, int], int, int]],
    tick: int,
) -> None:
    """Record what a track has at its declared end, where an event is about to be read there.

    Raises:
        IndexError: no event can follow, but the end of the file or another track.
    """
    if at == declared:
        numbers = {channel: len(of_channel) for channel, of_channel in track.events.items()}
        border.append((numbers, len(track.metas), tick))
    if at >= len(data) or data[at : at + 4] == b"MTrk":
        raise IndexError


def _changed_port(events: dict[int, list[Event]], before: int, number: int) -> int:
    """Return the first channel of a track's new port.

    What is before the first port of a track is moved to it: MuseScore writes it behind the programs it is meant for.
    """
    first = 16 * number
    if before == 0:
        moved = {channel + first: of_channel for channel, of_channel in events.items()}
        events.clear()
        events.update(moved)
    return first


def _system(data: bytes, at: int, status: int) -> tuple[int, bytes, int]:
    """Return the type of a meta event and its content, -1 and nothing for other system events, and the position behind."""
    if status not in (0xFF, 0xF0, 0xF7):
        return -1, b"", at + SYSTEM_BYTES.get(status, 0)
    kind = -1
    if status == 0xFF:
        kind = data[at]
        at += 1
    length, at = _number(data, at)
    if at + length > len(data):
        raise IndexError
    return kind, data[at : at + length] if kind >= 0 else b"", at + length


def _number(data: bytes, at: int) -> tuple[int, int]:
    """Return the number of variable length at a position, and the position behind it.

    The standard allows four bytes; some software writes five.
    """
    number = 0
    for _ in range(5):
        byte = data[at]
        at += 1
        number = number << 7 | byte & 0x7F
        if byte < 0x80:
            return number, at
    raise _Damage("a number of more than five bytes")


def _clipped(kind: int, first: int, second: int) -> tuple[int, int]:
    if first > 127 and kind != PROGRAM:
        raise _Damage(f"the byte {first:#04x} where data belong")
    return min(first, 127), min(second, 127)
