"""Writing MIDI files that every program opens and every player plays with the right instruments.

A file has one chunk a track; the events of the whole score stand in the first one. Channels are dealt out by `channels`.
The bytes are made here: mido takes 1.1 s for 25,000 notes, this 0.1 s.
"""

from __future__ import annotations

import dataclasses
import logging
import struct
from bisect import bisect_right
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from symusic import Score, Track

from ..files import write_whole
from . import channels, controllers
from .channels import Part
from .pedal import DOWN, PEDAL, pedal_release
from .timing import TOLERANCE, BarMap

log = logging.getLogger(__name__)

# events at one tick stand in this order: a note-off before the pedal that would hold the note, a program before its notes
META, NAME, OFF, BANK, PROGRAM, CONTROL, ON = range(7)
RANKS = 8
Event = tuple[int, int, bytes]  # tick * RANKS + rank, status byte, data
META_STATUS = 0xFF
LONGEST_TEMPO = 0xFFFFFF  # microseconds a quarter, in three bytes
LONGEST_DELTA = 0x0FFFFFFF  # ticks, in four bytes of seven bits


def write(score: Score, path: str | Path, *, force: bool = False) -> None:
    """Write a score as a MIDI file of type 1, atomically.

    Raises:
        OutputError: the file exists and `force` is false, or the place cannot be written.
        ValueError: see `to_bytes`.
    """
    write_whole(Path(path), to_bytes(score), force=force)


def to_bytes(score: Score) -> bytes:
    """Return the score as a MIDI file of type 1.

    On one track a note ends where the next note of its pitch begins, since a note-off of a MIDI file does not tell which
    of two overlapping notes it ends. Of two notes that begin together the longer one is kept.

    Up to 15 pitched tracks have a channel each, drums have channel 9 (counted from 0). More tracks share the channels over
    time: a track that takes a channel over sends its program, controllers and bend before its note, so that a player with
    one program per channel hears each note with the program of its track. What a track without a channel sends is kept
    until it has one again. Where more than 15 tracks sound at once, the nearest sounding instrument plays the extra notes;
    one message is logged. See `channels.share` and `channels.drums`.

    Left out is what a file cannot say and other programs refuse: keys outside -7 to 7 or of a mode above 1, time
    signatures with a numerator of 0 or a denominator that is no power of two up to 128, tempi of 0 microseconds. Values
    and times out of range become the nearest in range.

    Raises:
        ValueError: a quarter has no ticks, or more than the 32,767 that a file can say.
    """
    if not 0 < score.ticks_per_quarter < 2**15:
        raise ValueError(f"a quarter of a MIDI file has 1 to 32767 ticks, not {score.ticks_per_quarter}")
    voices = [_voice(number, track) for number, track in enumerate(score.tracks)]
    _deal(score, voices)
    chunks = [_track_events(voice, voices) for voice in voices] or [[]]
    chunks[0] = _score_events(score) + chunks[0]
    header = b"MThd" + struct.pack(">IHHH", 6, 1, len(chunks), score.ticks_per_quarter)
    return header + b"".join(_chunk(events) for events in chunks)


@dataclasses.dataclass(kw_only=True)
class _Voice:
    """A track with its numbers in range.

    Attributes:
        track: it.
        part: its notes, as `channels` deals them out.
        velocity: of its notes, 1 to 127.
        controls: (tick, number, value) in order of time.
        bends: (tick, value) in order of time.
    """

    track: Track
    part: Part
    velocity: list[int]
    controls: list[tuple[int, int, int]]
    bends: list[tuple[int, int]]

    @cached_property
    def touched(self) -> controllers.State:
        """The controllers and parameters that the track ever sends; their values mean nothing."""
        state = controllers.State()
        for _, number, value in self.controls:
            if number != controllers.RESET:
                state.control(number, value)
        return state


def _voice(number: int, track: Track) -> _Voice:
    notes = track.notes.numpy()
    kept, end = _without_overlaps(notes)
    time = np.maximum(0, notes["time"][kept].astype(np.int64))
    end = np.maximum(time + 1, end)
    rings = pedal_release(track, end) if len(end) else end
    part = Part(
        number=number,
        program=_within(track.program, 0, 127),
        time=time.tolist(),
        end=end.tolist(),
        pitch=notes["pitch"][kept].tolist(),
        rings=rings.tolist(),
        channels=[0] * len(kept),
    )
    velocity = np.maximum(1, notes["velocity"][kept]).tolist()
    bends = [(max(0, b.time), _within(b.value, -8192, 8191)) for b in track.pitch_bends]
    bends.sort(key=lambda bend: bend[0])
    return _Voice(track=track, part=part, velocity=velocity, controls=_controls(track), bends=bends)


def _without_overlaps(notes: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return which notes are kept, in order of time, and where they end."""
    time, duration, pitch = (notes[k].astype(np.int64) for k in ("time", "duration", "pitch"))
    order = np.lexsort((-duration, time, pitch))  # of notes that begin together the longest first
    order = order[pitch[order] >= 0]
    is_double = (np.diff(pitch[order], prepend=-1) == 0) & (np.diff(time[order], prepend=-1) == 0)
    kept = order[~is_double]
    ends = (time + duration)[kept]
    next_onset = np.where(pitch[kept][1:] == pitch[kept][:-1], time[kept][1:], 2**62)
    ends[:-1] = np.minimum(ends[:-1], next_onset)
    by_time = np.argsort(time[kept], kind="stable")
    return kept[by_time], ends[by_time]


def _controls(track: Track) -> list[tuple[int, int, int]]:
    """Return (tick, number, value) of the control changes; the pedals of a track that has them only apart count too."""
    found = [(max(0, c.time), c.number, min(c.value, 127)) for c in track.controls if c.number < 128]
    if len(track.pedals) and not any(number == PEDAL for _, number, _ in found):  # symusic's reader gives both
        found += [(max(0, p.time + p.duration), PEDAL, 0) for p in track.pedals]
        found += [(max(0, p.time), PEDAL, 2 * DOWN - 1) for p in track.pedals]
    found.sort(key=lambda control: control[0])
    return found


def _within(value: int, least: int, most: int) -> int:
    return max(least, min(value, most))


def _deal(score: Score, voices: list[_Voice]) -> None:
    """Give all notes their channels, and log where a note is played by another instrument than its own."""
    pitched = [v.part for v in voices if not v.track.is_drum]
    channels.drums([v.part for v in voices if v.track.is_drum])
    if len(voices) <= len(channels.PITCHED):  # as symusic numbers them: drums pass over a number too
        channels.fixed(pitched, [channels.PITCHED[part.number] for part in pitched])
    elif len(pitched) <= len(channels.PITCHED):
        channels.fixed(pitched, list(channels.PITCHED[: len(pitched)]))
    else:
        replaced = channels.share(pitched)
        if replaced:
            _report(score, pitched, replaced)


def _report(score: Score, pitched: list[Part], replaced: list[tuple[int, Part, Part]]) -> None:
    signs = Score(score.ticks_per_quarter)
    signs.time_signatures = type(score.time_signatures)([t for t in score.time_signatures if _is_sign(t)])
    bars = BarMap(signs)
    places: dict[tuple[int, int, int], int] = {}
    for tick, part, heard in replaced:
        bar = bars.num_bars(tick / score.ticks_per_quarter + 2 * TOLERANCE)
        places.setdefault((bar, part.number, heard.number), tick)
    (bar, part_number, heard_number), tick = next(iter(places.items()))
    count = len({p.program for p in pitched if any(a <= tick < b for a, b in zip(p.time, p.end, strict=True))})
    count = max(count, len(channels.PITCHED) + 1)  # a note of one tick may end here and yet stand later in the file
    more = len(places) - 1
    log.info(
        f"bar {bar}: {count} instruments at once, more than the 15 channels of MIDI: '{_name(score, part_number)}' is played "
        f"by '{_name(score, heard_number)}' there" + (f", and {more} more place{'s' * (more > 1)}" if more else "")
    )


def _name(score: Score, number: int) -> str:
    from pretty_midi import program_to_instrument_name

    track = score.tracks[number]
    return track.name.strip() or str(program_to_instrument_name(_within(track.program, 0, 127)))


def _is_sign(sign: Any) -> bool:
    """Return whether a file can say a time signature, and other programs take it."""
    return 1 <= sign.numerator <= 255 and sign.denominator in (1, 2, 4, 8, 16, 32, 64, 128)


def _score_events(score: Score) -> list[Event]:
    """Return the events that belong to no track."""
    found = [
        (t.time, 0x58, bytes((t.numerator, t.denominator.bit_length() - 1, 24, 8)))
        for t in score.time_signatures
        if _is_sign(t)
    ]
    for key in score.key_signatures:
        if -7 <= key.key <= 7 and 0 <= key.tonality <= 1:
            found.append((key.time, 0x59, struct.pack("bb", key.key, key.tonality)))
    for tempo in score.tempos:
        if tempo.mspq > 0:
            found.append((tempo.time, 0x51, min(tempo.mspq, LONGEST_TEMPO).to_bytes(3, "big")))
    found += [(marker.time, 0x06, marker.text.encode("utf-8", "replace")) for marker in score.markers]
    return [_meta(time, META, kind, data) for time, kind, data in found]


def _meta(time: int, rank: int, kind: int, data: bytes) -> Event:
    return max(0, time) * RANKS + rank, META_STATUS, bytes((kind,)) + _quantity(len(data)) + data


def _track_events(voice: _Voice, voices: list[_Voice]) -> list[Event]:
    """Return the events of a track, unsorted."""
    part, track = voice.part, voice.track
    events = [_meta(0, NAME, 0x03, track.name.encode("utf-8", "replace"))] if track.name else []
    for tick, channel, program in part.programs:
        events.append((tick * RANKS + PROGRAM, 0xC0 | channel, bytes((program,))))
    events += _takeovers(voice, voices)
    starts = [stay.start for stay in part.stays]
    for tick, number, value in voice.controls:
        events += [_control(tick, channel, number, value) for channel in _owned(part, starts, tick)]
    for tick, bend in voice.bends:
        events += [_pitch_bend(tick, channel, bend) for channel in _owned(part, starts, tick)]
    events += [_meta(t.time, CONTROL, 0x05, t.text.encode("utf-8", "replace")) for t in track.lyrics]
    for time, end, pitch, velocity, channel in zip(
        part.time, part.end, part.pitch, voice.velocity, part.channels, strict=True
    ):
        data = bytes((pitch, velocity))
        events.append((time * RANKS + ON, 0x90 | channel, data))
        events.append((end * RANKS + OFF, 0x80 | channel, data))
    return events


def _owned(part: Part, starts: list[channels.Position], tick: int) -> list[int]:
    """Return the channel that a part owns at a tick, if any; `starts` are those of its stays."""
    position = (tick, part.number)
    at = bisect_right(starts, position) - 1
    return [part.stays[at].channel] if at >= 0 and position < part.stays[at].end else []


def _takeovers(voice: _Voice, voices: list[_Voice]) -> list[Event]:
    """Return what a track sends to bring each channel that it takes over into its own state."""
    events: list[Event] = []
    state, bend, at, bend_at = controllers.State(), 0, 0, 0
    for stay in voice.part.stays:
        if not stay.previous:
            continue
        tick = int(stay.start[0])  # the track's own events of this tick follow as they are
        while at < len(voice.controls) and voice.controls[at][0] < tick:
            state.control(*voice.controls[at][1:])
            at += 1
        while bend_at < len(voice.bends) and voice.bends[bend_at][0] < tick:
            bend = voice.bends[bend_at][1]
            bend_at += 1
        before = [voices[number].touched for number in stay.previous]
        numbers = set().union(*(each.values for each in before))
        parameters = set().union(*(each.parameters for each in before))
        events += [_control(tick, stay.channel, *each) for each in state.to_send(numbers, parameters)]
        events.append(_pitch_bend(tick, stay.channel, bend))
    return events


def _control(tick: int, channel: int, number: int, value: int) -> Event:
    rank = BANK if number in controllers.BANK else CONTROL
    return tick * RANKS + rank, 0xB0 | channel, bytes((number, value))


def _pitch_bend(tick: int, channel: int, value: int) -> Event:
    return tick * RANKS + CONTROL, 0xE0 | channel, bytes(((value + 8192) & 0x7F, (value + 8192) >> 7))


def _quantity(value: int) -> bytes:
    """Return a number in bytes of seven bits, the upper ones first, all but the last marked."""
    found = [value & 0x7F]
    while value := value >> 7:
        found.append(0x80 | (value & 0x7F))
    return bytes(reversed(found))


def _chunk(events: list[Event]) -> bytes:
    """Return the bytes of a track, its events sorted; a status byte like the last one is left out (running status)."""
    events.sort(key=lambda event: event[0])  # stable
    data, now, running = bytearray(), 0, META_STATUS
    for order, status, content in events:
        tick = order // RANKS
        while tick - now > LONGEST_DELTA:  # an empty text lies between
            data += _quantity(LONGEST_DELTA) + b"\xff\x01\x00"
            now, running = now + LONGEST_DELTA, META_STATUS
        data += _quantity(tick - now) if tick - now > 127 else bytes((tick - now,))
        now = tick
        if status != running or status == META_STATUS:
            data.append(status)
            running = status
        data += content
    data += b"\x01\xff\x2f\x00"  # the track ends a tick after its last event
    return b"MTrk" + struct.pack(">I", len(data)) + bytes(data)
