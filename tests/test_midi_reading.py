"""Reading held against independent readers: a channel-wise player, mido and pretty_midi, on generated files."""

from __future__ import annotations

import io
import struct
from collections import Counter
from random import Random
from typing import Any

import mido
import pretty_midi
from hypothesis import given, settings
from hypothesis import strategies as st
from symusic import Score

from musiclm import midi
from musiclm.errors import MidiError
from musiclm.midi.snapping import NEAR, RAMP
from tests.midi_player import Heard, play
from tests.test_midi_faults import control, key, number, off, on, program, tempo, time_signature

# Notes, programs and "all notes off" never share a tick here: what then comes first differs between players.
NOTES, PROGRAMS, OFFS = 0, 1, 2
TICKS = [24, 96, 120, 480, 960, 1000]
SEEDS = st.integers(0, 2**32)
Timed = tuple[int, bytes]  # tick and event


def track(draw: Random, index: int, channels: list[int], *, alone: bool) -> list[Timed]:
    """Return the events of one track by tick; `alone`: its notes are on one channel. No two tracks share a program's tick."""
    own = draw.choice(channels)
    found: list[Timed] = []
    for _ in range(draw.randint(0, 12)):
        channel, at = (own if alone else draw.choice(channels)), 3 * draw.randint(0, 60) + NOTES
        pitch = draw.randint(60, 64)
        found.append((at, on(pitch, channel, draw.randint(1, 127))))
        if draw.randint(0, 7):  # else it never ends
            end = at + 3 * draw.randint(0, 20)
            found.append((end, off(pitch, channel) if draw.randint(0, 1) else on(pitch, channel, 0)))
    for _ in range(draw.randint(0, 3)):
        found.append(
            (15 * draw.randint(0, 12) + 3 * index + PROGRAMS, program(draw.randint(0, 127), draw.choice(channels)))
        )
    for _ in range(draw.randint(0, 3)):
        found.append((draw.randint(0, 180), control(draw.choice([1, 7, 64]), draw.randint(0, 127), own)))
    if not draw.randint(0, 5) and alone and own != 9:
        found.append((3 * draw.randint(0, 60) + OFFS, control(draw.choice([120, 123]), 0, own)))
    return sorted(found, key=lambda each: each[0])


def written(draw: Random, events: list[Timed], lie: int) -> bytes:
    """Return a track chunk: with running status or not, an end behind the last event, a length that is too long."""
    body, before, status = b"", 0, b""
    for tick, event in events:
        body += number(tick - before)
        runs = event[:1] == status and draw.randint(0, 1)
        body += event[1:] if runs else event
        before, status = tick, event[:1]
        if not draw.randint(0, 9):
            body += draw.choice([b"\0\xff\x01\x02hi", b"\0\xf0\x03\x7e\x7f\xf7"])
    body += number(draw.randint(1, 300)) + b"\xff\x2f\x00"
    return b"MTrk" + struct.pack(">I", len(body) + lie) + body


def file(seed: int, form: int | None = None) -> bytes:
    """Return a file: of format 0, 1 or 2, with headers of several lengths, in a RIFF wrapper or not."""
    draw = Random(seed)
    kind = draw.choice([0, 1, 2]) if form is None else form
    count, alone = 1 if kind == 0 else draw.randint(1, 5), draw.random() < 0.5
    events = [track(draw, i, [i, 9] if alone else [0, 1, 9, 15], alone=alone) for i in range(count)]
    more, counted = draw.choice([b"", b"", b"\0\0\0"]), draw.choice([count, 1])
    header = b"MThd" + struct.pack(">IHHH", 6 + len(more), kind, counted, draw.choice(TICKS)) + more
    data = header + b"".join(written(draw, each, 0) for each in events[:-1])
    data += written(draw, events[-1], draw.choice([0, 0, 7]))
    if draw.randint(0, 7):
        return data
    return b"RIFF" + struct.pack("<I", len(data) + 12) + b"RMIDdata" + struct.pack("<I", len(data)) + data


def repaired(notes: list[Heard], ticks: int) -> Counter[tuple[Any, ...]]:
    """Return what a reader makes of the notes that a player hears: lengths of 0 as documented in `read_music`."""
    found: Counter[tuple[Any, ...]] = Counter()
    for note in notes:
        if note.is_drum or note.end > note.start:
            end = note.end if note.end > note.start else note.start + max(1, ticks // 8)
            found[note.start, end, note.pitch, note.velocity, note.program, note.is_drum] += 1
    return found


def read(data: bytes) -> Counter[tuple[Any, ...]]:
    try:
        score = midi.parse(data, "a test")
    except MidiError:
        return Counter()
    notes = ((n, t) for t in score.tracks for n in t.notes)
    return Counter((n.time, n.end, n.pitch, n.velocity, t.program, t.is_drum) for n, t in notes)


def ticks_of(data: bytes) -> int:
    at = data.index(b"MThd")
    return int(struct.unpack(">H", data[at + 12 : at + 14])[0])


@settings(max_examples=300, deadline=None)
@given(SEEDS)
def test_a_file_of_one_track_is_read_as_it_is_played(seed: int):
    data = file(seed, form=0)
    assert read(data) == repaired(play(data), ticks_of(data))


@settings(max_examples=300, deadline=None)
@given(SEEDS)
def test_a_track_has_its_own_program_or_else_its_channels(seed: int):
    """One track alone on a channel is played as a player does; of several on a channel each keeps its own program."""
    data = file(seed, form=1)
    users: dict[int, set[int]] = {}
    for note in play(data, own_programs=True):
        users.setdefault(note.channel, set()).add(note.track)
    shared = {channel for channel, tracks in users.items() if len(tracks) > 1}
    notes = [n for n in play(data, own_programs=True) if n.channel in shared]
    notes += [n for n in play(data) if n.channel not in shared]
    assert read(data) == repaired(notes, ticks_of(data))


@settings(max_examples=200, deadline=None)
@given(SEEDS)
def test_the_patterns_of_format_2_are_read_one_by_one(seed: int):
    data = file(seed, form=2)
    notes = play(data, own_programs=True)
    assert sum(read(data).values()) == sum(repaired(notes, ticks_of(data)).values())
    first = Counter(n[:1] + n[2:6] for n in notes if n.track == 0 and (n.start < n.end or n.is_drum))
    assert not first - Counter(n[:1] + n[2:] for n in read(data).elements())


@settings(max_examples=200, deadline=None)
@given(SEEDS)
def test_what_is_read_is_written_and_read_again_the_same(seed: int):
    try:
        score = midi.parse(file(seed), "a test")
    except MidiError:
        return
    again = midi.parse(midi.to_bytes(score), "a test")

    def starts(of: Score) -> Counter[tuple[int, int, int, bool]]:
        return Counter((n.time, n.pitch, 0 if t.is_drum else t.program, t.is_drum) for t in of.tracks for n in t.notes)

    assert starts(again).keys() == starts(score).keys()
    for name in ("tempos", "time_signatures", "key_signatures"):
        assert [str(e) for e in getattr(again, name)] == [str(e) for e in getattr(score, name)]


def signs_of(draw: Random) -> list[Timed]:
    """Return tempi, time signatures and keys, some of them without meaning, at, around and off bar lines of 4/4 and 3/4."""
    found = []
    for _ in range(draw.randint(0, 12)):
        tick = max(0, 48 * draw.randint(0, 40) + draw.choice([-3, -1, 0, 0, 1, 2, 3, 24]))
        sign = time_signature(draw.choice([0, 2, 3, 4, 6, 12]), draw.choice([1, 2, 3, 4, 8, 30]))
        speed = tempo(draw.choice([0, 300_000, 500_000, 750_000, 999_999]))
        found.append((tick, draw.choice([sign, speed, key(draw.randint(-9, 9), draw.randint(0, 2))])))
    return found


@settings(max_examples=300, deadline=None)
@given(SEEDS)
def test_tempi_time_signatures_and_keys_stand_where_they_mean_to(seed: int):
    """At most one of a kind a tick, none just behind a bar line but in ramps, none moved further than that."""
    draw = Random(seed)
    signs, split = signs_of(draw), draw.randint(0, 3)
    ticks = 48
    notes = [(0, on(60)), (48 * 44, off(60))]
    parts = [sorted(signs[:split], key=lambda e: e[0]), sorted([*signs[split:], *notes], key=lambda e: e[0])]
    chunks = b""
    for part in parts:
        body, before = b"", 0
        for tick, event in part:
            body, before = body + number(tick - before) + event, tick
        body += b"\0\xff\x2f\x00"
        chunks += b"MTrk" + struct.pack(">I", len(body)) + body
    score = midi.parse(b"MThd" + struct.pack(">IHHH", 6, 1, 2, ticks) + chunks, "a test")
    bars = [bar.start * ticks for bar, _ in zip(midi.bars(score), range(200), strict=False)]

    def late(tick: int) -> bool:
        return any(1e-6 < tick - bar < NEAR * ticks - 1e-6 for bar in bars)

    for name in ("tempos", "time_signatures", "key_signatures"):
        times = [e.time for e in getattr(score, name)]
        assert times == sorted(set(times))
        if name == "key_signatures":
            assert not any(map(late, times))
            assert all(abs(k.key) <= 7 and k.tonality in (0, 1) for k in score.key_signatures)
    kinds = {0x58: "time_signatures", 0x51: "tempos", 0x59: "key_signatures"}
    for tick, event in signs:
        sharps = (event[3] + 128) % 256 - 128
        has_meaning = {
            0x58: event[3] > 0 and event[4] < 8,
            0x51: any(event[3:]),
            0x59: abs(sharps) < 8 and event[4] < 2,
        }
        there = [e.time for e in getattr(score, kinds[event[1]])]
        assert not has_meaning[event[1]] or any(0 <= tick - at < NEAR * ticks or at == tick for at in there)
    tempi = [t.time for t in score.tempos]
    for i, at in enumerate(tempi):
        if late(at):  # then it belongs to a ramp
            near = [t for t in tempi[max(0, i - 2) : i + 3] if t != at and abs(t - at) < (RAMP + NEAR) * ticks]
            assert near


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 127), st.booleans()), min_size=1, max_size=9), st.data())
def test_pretty_midi_and_mido_read_well_formed_files_alike(programs: list[tuple[int, bool]], data: st.DataObject):
    """Each track on its own channel, with its program at its beginning; every note ends."""
    chunks = [b"MTrk" + struct.pack(">I", 11) + b"\0" + tempo(500_000) + b"\0\xff\x2f\x00"]
    expected: Counter[tuple[int, int, int]] = Counter()
    for i, (of, _) in enumerate(programs):
        body = b"\0" + program(of, i)
        for pitch, length, gap in data.draw(
            st.lists(st.tuples(st.integers(0, 127), st.integers(1, 900), st.integers(0, 900)), min_size=1, max_size=8)
        ):
            body += number(gap) + on(pitch, i) + number(length) + off(pitch, i)
        body += b"\0\xff\x2f\x00"
        chunks.append(b"MTrk" + struct.pack(">I", len(body)) + body)
    whole = b"MThd" + struct.pack(">IHHH", 6, 1, len(chunks), 480) + b"".join(chunks)
    mine = Counter((n.time, n.pitch, t.program) for t in midi.parse(whole, "a test").tracks for n in t.notes)
    theirs = pretty_midi.PrettyMIDI(io.BytesIO(whole))
    expected.update((theirs.time_to_tick(n.start), n.pitch, i.program) for i in theirs.instruments for n in i.notes)
    assert mine == expected
    messages = [
        m for t in mido.MidiFile(file=io.BytesIO(whole)).tracks for m in t if m.type == "note_on" and m.velocity
    ]
    assert len(messages) == sum(mine.values())


@settings(max_examples=300, deadline=None)
@given(SEEDS)
def test_damaged_files_are_read_or_refused_with_a_reason(seed: int):
    draw, data = Random(seed), bytearray(file(seed))
    for _ in range(draw.randint(0, 6)):
        data[draw.randrange(len(data))] = draw.randrange(256)
    cut = bytes(data[: draw.randint(0, len(data))] if draw.randint(0, 1) else data)
    try:
        score = midi.parse(cut, "a test")
    except MidiError as error:
        assert error.drop is not None and "\n" not in str(error)
    else:
        assert score.note_num() > 0 and all(n.duration > 0 for t in score.tracks for n in t.notes)
        midi.to_bytes(score)
