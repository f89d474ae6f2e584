"""Files of MIDI as they are met in the world, and what is right for each: a kind of fault a test, with several of its kind.

`smf` and `chunk` write the bytes, so that no writer mends them.
"""

from __future__ import annotations

import io
import logging
import struct

import mido
import pretty_midi
import pytest

from musiclm import midi
from musiclm.errors import MidiError, Reason

QUARTER = 480
TEMPO_100 = b"\xff\x51\x03\x09\x27\xc0"
Event = tuple[int, bytes]  # ticks after the event before it, and the bytes of the event


def number(value: int) -> bytes:
    """Return a number of variable length."""
    data = bytes([value & 127])
    while value := value >> 7:
        data = bytes([value & 127 | 128]) + data
    return data


def chunk(*events: Event, end: int | None = 0, length: int = 0) -> bytes:
    """Return a track; `end` is when it ends after its last event (None: never), `length` a lie about its length."""
    body = b"".join(number(delta) + event for delta, event in events)
    body += b"" if end is None else number(end) + b"\xff\x2f\x00"
    return b"MTrk" + struct.pack(">I", len(body) + length) + body


def smf(*chunks: bytes, form: int = 1, ticks: int = QUARTER, count: int | None = None, more: bytes = b"") -> bytes:
    header = struct.pack(">IHHH", 6 + len(more), form, len(chunks) if count is None else count, ticks)
    return b"MThd" + header + more + b"".join(chunks)


def on(pitch: int, channel: int = 0, velocity: int = 80) -> bytes:
    return bytes([0x90 | channel, pitch, velocity])


def off(pitch: int, channel: int = 0) -> bytes:
    return bytes([0x80 | channel, pitch, 64])


def program(number: int, channel: int = 0) -> bytes:
    return bytes([0xC0 | channel, number])


def control(number: int, value: int, channel: int = 0) -> bytes:
    return bytes([0xB0 | channel, number, value])


def time_signature(numerator: int, power: int) -> bytes:
    return bytes([0xFF, 0x58, 4, numerator, power, 24, 8])


def tempo(microseconds: int) -> bytes:
    return b"\xff\x51\x03" + microseconds.to_bytes(3, "big")


def key(sharps: int, mode: int) -> bytes:
    return bytes([0xFF, 0x59, 2, sharps % 256, mode])


def quarters(*pitches: int, channel: int = 0) -> list[Event]:
    """Return the events of one quarter after the other."""
    return [each for pitch in pitches for each in ((0, on(pitch, channel)), (QUARTER, off(pitch, channel)))]


SCALE = (60, 62, 64, 65, 67, 65, 64, 62) * 2


def heard(data: bytes) -> list[tuple[float, float, int, int, bool]]:
    """Return (start, end, pitch, program, is_drum) of each note, in quarters."""
    score = midi.parse(data, "a test")
    tpq = score.ticks_per_quarter
    return sorted((n.time / tpq, n.end / tpq, n.pitch, t.program, t.is_drum) for t in score.tracks for n in t.notes)


def mended(data: bytes) -> dict[str, int]:
    return dict(midi.read_music(data, "a test").mended)


def opens_elsewhere(data: bytes, num_notes: int) -> None:
    """Check that what is written of a file has all notes for mido and pretty_midi."""
    written = midi.to_bytes(midi.parse(data, "a test"))
    starts = [m for m in mido.MidiFile(file=io.BytesIO(written)) if m.type == "note_on" and m.velocity > 0]
    assert len(starts) == num_notes
    assert sum(len(i.notes) for i in pretty_midi.PrettyMIDI(io.BytesIO(written)).instruments) == num_notes


@pytest.mark.parametrize("numerator, power", [(0, 2), (0, 0), (4, 8), (4, 30), (3, 255)])
def test_time_signatures_without_meaning_are_dropped(numerator: int, power: int):
    data = smf(chunk((0, TEMPO_100), (0, time_signature(numerator, power)), *quarters(*SCALE)))
    score = midi.parse(data, "a test")
    assert midi.num_bars(score) == 4 and midi.bar_line(score, 0.0, 2) == 8.0  # 4/4
    assert mended(data) == {"time signatures without meaning dropped": 1}
    opens_elsewhere(data, 16)


def test_a_time_signature_without_meaning_does_not_overrule_the_one_before_it():
    data = smf(chunk((0, time_signature(3, 2)), (0, time_signature(0, 2)), *quarters(*SCALE)))
    assert midi.bar_line(midi.parse(data, "a test"), 0.0, 2) == 6.0


@pytest.mark.parametrize("event", [tempo(0), b"\xff\x51\x00", b"\xff\x51\x02\x07\xa1"])
def test_a_tempo_of_0_is_dropped(event: bytes):
    data = smf(chunk((0, event), *quarters(*SCALE)))
    assert midi.seconds(midi.parse(data, "a test")) == 8.0
    assert mended(data) == {"tempi of 0 dropped": 1}
    opens_elsewhere(data, 16)


@pytest.mark.parametrize("late", [0, 1, 20, 29])
def test_of_time_signatures_at_nearly_one_tick_the_last_one_holds(late: int):
    data = smf(chunk((0, time_signature(4, 2)), (late, time_signature(3, 2))), chunk(*quarters(*SCALE)))
    score = midi.parse(data, "a test")
    assert [(t.time, t.numerator) for t in score.time_signatures] == [(0, 3)]
    assert midi.bar_line(score, 0.0, 2) == 6.0


def test_of_tempi_at_nearly_one_tick_the_last_one_holds():
    data = smf(chunk((0, tempo(500_000)), (20, tempo(750_000))), chunk(*quarters(*SCALE)))
    assert midi.quarters_at(midi.parse(data, "a test"), 6.0) == 8.0


def test_what_is_late_at_a_bar_line_moves_there_and_a_ramp_does_not():
    events = [(0, time_signature(3, 2)), (3 * QUARTER + 20, tempo(600_000)), (3 * QUARTER - 10, time_signature(4, 2))]
    data = smf(chunk(*events), chunk(*quarters(*SCALE)))
    score = midi.parse(data, "a test")
    assert [(t.time, t.numerator) for t in score.time_signatures] == [(0, 3), (6 * QUARTER, 4)]
    assert [(t.time, t.mspq) for t in score.tempos] == [(3 * QUARTER, 600_000)]
    times = [4 * QUARTER - 20, 4 * QUARTER, 4 * QUARTER + 20, 4 * QUARTER + 40]  # at a bar line, and around it
    ramp = [(b - a, tempo(500_000 + b)) for a, b in zip([0, *times], times, strict=False)]
    score = midi.parse(smf(chunk(*ramp), chunk(*quarters(*SCALE))), "a test")
    assert [t.time for t in score.tempos] == times


def test_a_track_without_a_program_plays_its_channels():
    setup = chunk((0, program(73)), (0, program(33, 1)))
    data = smf(chunk(*quarters(*SCALE)), chunk(*quarters(*SCALE, channel=1)), setup)
    assert {note[3] for note in heard(data)} == {73, 33}
    assert len({t.program for t in midi.parse(data, "a test").tracks}) == 2
    opens_elsewhere(data, 32)


def test_a_track_with_a_program_of_its_own_keeps_it():
    tracks = [chunk((0, program(40 + i)), *quarters(60 + i)) for i in range(3)]  # all on channel 0
    assert sorted(note[2:4] for note in heard(smf(*tracks, chunk((0, program(5)))))) == [(60, 40), (61, 41), (62, 42)]


def test_the_hands_of_a_piano_share_the_pedal_of_their_channel():
    """Notation programs write programs and controllers of a piano into the track of its right hand alone."""
    right = chunk((0, program(4)), (0, control(7, 90)), (0, control(64, 127)), *quarters(60), (0, control(64, 0)))
    score = midi.parse(smf(right, chunk(*quarters(48))), "a test")
    for track in score.tracks:
        assert track.program == 4
        assert [(c.time, c.number, c.value) for c in track.controls] == [(0, 7, 90), (0, 64, 127), (480, 64, 0)]


def test_tracks_of_several_instruments_on_one_channel_keep_their_own_volumes():
    tracks = [chunk((0, program(40 + i)), (0, control(7, 50 + i)), *quarters(60 + i)) for i in range(2)]
    score = midi.parse(smf(*tracks), "a test")
    assert [[c.value for c in t.controls] for t in score.tracks] == [[50], [51]]


def test_ports_are_channels_of_their_own():
    def port(n: int) -> bytes:
        return bytes([0xFF, 0x21, 1, n])

    one = chunk((0, port(0)), (0, program(40)), *quarters(60))
    late = chunk((0, program(56)), (0, port(1)), *quarters(62))  # as MuseScore writes it
    data = smf(one, late, chunk((0, port(1)), *quarters(64)))
    assert [note[2:4] for note in heard(data)] == [(60, 40), (62, 56), (64, 56)]


def test_many_programs_on_one_channel_are_many_tracks():
    events = [e for i in range(17) for e in ((0, program(7 * i)), (0, on(60)), (QUARTER, off(60)))]
    notes = heard(smf(chunk(*events), form=0))
    assert [note[3] for note in notes] == [7 * i for i in range(17)]


@pytest.mark.parametrize("event", [key(8, 0), key(-8, 1), key(0, 2), b"\xff\x59\x00", b"\xff\x59\x01\x00"])
def test_key_signatures_without_meaning_are_dropped(event: bytes):
    data = smf(chunk((0, event), (960, key(-3, 1)), *quarters(*SCALE)))
    assert [(k.time, k.key, k.tonality) for k in midi.parse(data, "a test").key_signatures] == [(960, -3, 1)]
    assert mended(data) == {"key signatures without meaning dropped": 1}
    opens_elsewhere(data, 16)


def test_notes_that_never_end_last_to_the_end_of_their_track():
    chord = [(0, on(48)), (0, on(52)), (0, on(55))]
    data = smf(chunk(*quarters(60, 62), *chord, end=1920), chunk((9600, on(72)), (10, off(72))))
    assert heard(data)[2:5] == [(2.0, 6.0, pitch, 0, False) for pitch in (48, 52, 55)]
    assert mended(data) == {"notes that never end given the end of their track": 3}
    opens_elsewhere(data, 6)


@pytest.mark.parametrize("number", [120, 123])
def test_notes_that_never_end_last_to_all_notes_off(number: int):
    data = smf(chunk((0, on(48)), (0, on(50, 1)), (960, control(number, 0)), (960, on(60)), (480, off(60)), end=480))
    assert heard(data) == [(0.0, 2.0, 48, 0, False), (0.0, 6.0, 50, 0, False), (4.0, 5.0, 60, 0, False)]


def test_notes_that_never_end_in_a_track_that_ends_with_them_get_a_quarter():
    assert heard(smf(chunk(*quarters(60), (0, on(48))))) == [(0.0, 1.0, 60, 0, False), (1.0, 2.0, 48, 0, False)]


def test_drum_hits_without_length_are_kept_and_other_notes_are_not():
    hits = [each for _ in range(32) for each in ((0, on(36, 9)), (0, off(36, 9)), (240, control(7, 100, 9)))]
    data = smf(chunk(*hits[:-1]), chunk((0, on(60)), (0, off(60)), *quarters(62)))
    notes = heard(data)
    assert sum(note[4] for note in notes) == 32 and notes[-1] == (15.5, 15.625, 36, 0, True)
    assert [note[2] for note in notes if not note[4]] == [62]
    assert mended(data) == {"drum hits without length given one": 32, "notes without length dropped": 1}
    opens_elsewhere(data, 33)


def test_the_patterns_of_format_2_follow_each_other():
    patterns = [chunk((0, tempo(500_000)), *quarters(*SCALE[:8])), chunk((0, tempo(666_667)), *quarters(*SCALE[8:]))]
    notes = heard(smf(*patterns, form=2))
    assert [note[0] for note in notes] == [float(i) for i in range(16)]
    assert midi.seconds(midi.parse(smf(*patterns, form=2), "a test")) == pytest.approx(4 + 8 * 2 / 3, abs=1e-4)


def test_a_pattern_of_format_2_does_not_take_over_what_the_one_before_it_set():
    first = chunk((0, tempo(250_000)), (0, time_signature(3, 2)), (0, program(9)), *quarters(60, 62))
    score = midi.parse(smf(first, chunk(*quarters(64, 65)), form=2), "a test")
    assert [(t.time, t.mspq) for t in score.tempos] == [(0, 250_000), (1440, 500_000)]  # from the next bar line on
    assert [(t.time, t.numerator) for t in score.time_signatures] == [(0, 3), (1440, 4)]
    assert [t.program for t in score.tracks] == [9, 0]


@pytest.mark.parametrize("gap", [QUARTER << 17, (1 << 28) - 1])
def test_music_beyond_the_bound_is_refused_at_once(gap: int):
    with pytest.raises(MidiError, match="longer than 65,536 quarters") as error:
        midi.parse(smf(chunk(*quarters(60), (gap, on(60)), (QUARTER, off(60)))), "a test")
    assert error.value.drop is not None and error.value.drop.reason == Reason.TOO_LONG


def test_riff_is_unwrapped():
    plain = smf(chunk(*quarters(*SCALE)))
    inner = b"data" + struct.pack("<I", len(plain)) + plain
    for more in (b"", b"LIST\x04\0\0\0INFO"):
        data = b"RIFF" + struct.pack("<I", 4 + len(more) + len(inner)) + b"RMID" + more + inner
        assert heard(data) == heard(plain)
        assert mended(data) == {"RIFF files unwrapped": 1}


def test_a_few_foreign_bytes_before_the_header_are_skipped():
    plain = smf(chunk(*quarters(*SCALE)))
    assert heard(bytes(128) + plain) == heard(plain)  # MacBinary


def test_longer_headers_are_legal():
    data = smf(chunk(*quarters(*SCALE)), more=bytes(4))
    assert len(heard(data)) == 16 and not mended(data)


@pytest.mark.parametrize("lie", [-40, -5, -1, 1, 5, 400])
@pytest.mark.parametrize("at", [0, 1])
def test_lengths_that_are_some_bytes_off_are_read_as_far_as_the_music_goes(lie: int, at: int):
    tracks = [chunk(*quarters(*SCALE, channel=i), length=lie if i == at else 0) for i in range(2)]
    assert len(heard(smf(*tracks))) == 32
    assert mended(smf(*tracks)) == {"lengths of tracks corrected": 1}


def test_padding_and_foreign_chunks_are_skipped():
    padded = bytearray(chunk(*quarters(*SCALE)))
    padded[4:8] = struct.pack(">I", len(padded) - 8 + 3)
    foreign = b"XFIH" + struct.pack(">I", 5) + b"hello"
    data = smf(foreign, bytes(padded) + bytes(3), foreign, chunk(*quarters(*SCALE, channel=1)), count=2)
    assert len(heard(data)) == 32 and not mended(data)


def test_a_track_without_an_end_ends_where_it_was_declared_to():
    tracks = [chunk(*quarters(*SCALE), end=None), chunk(*quarters(*SCALE, channel=1), end=None)]
    assert len(heard(smf(*tracks))) == 32
    assert mended(smf(*tracks)) == {"tracks without an end": 2}
    assert len(heard(smf(*tracks) + b"\xff\xff\xff\xff\xff junk")) == 32


def test_a_file_that_ends_within_a_track_is_refused_for_that():
    with pytest.raises(MidiError, match="ends within a track"):
        midi.parse(smf(chunk(*quarters(*SCALE)))[:-30], "a test")


def test_tracks_that_the_header_does_not_count_are_read():
    data = smf(chunk((0, TEMPO_100)), chunk(*quarters(*SCALE)), chunk(*quarters(*SCALE, channel=1)), count=1)
    assert len(heard(data)) == 32
    assert mended(data) == {"tracks read that the header does not count": 2}


def test_running_status_goes_on_behind_system_and_meta_events():
    events = [(0, on(60)), (480, bytes([60, 0])), (0, b"\xf0\x05\x7e\x7f\x09\x01\xf7"), (0, bytes([64, 80]))]
    events += [(480, bytes([64, 0])), (0, b"\xff\x01\x02hi"), (0, bytes([67, 80])), (480, bytes([67, 0]))]
    assert [note[2] for note in heard(smf(chunk(*events), form=0))] == [60, 64, 67]


def test_velocities_above_127_are_clipped_and_other_bytes_that_are_no_data_are_refused():
    score = midi.parse(smf(chunk((0, bytes([0x90, 60, 200])), (480, off(60)))), "a test")
    assert score.tracks[0].notes[0].velocity == 127
    with pytest.raises(MidiError, match=r"damaged MIDI: the byte 0xc8 where data belong in track 1"):
        midi.parse(smf(chunk((0, bytes([0x90, 200, 60])), (480, off(60)))), "a test")


@pytest.mark.parametrize("rate, per_frame, seconds", [(25, 40, 1.0), (24, 4, 96 / 96), (30, 80, 1.0), (29, 100, 1.001)])
def test_smpte_time_is_read_in_seconds(rate: int, per_frame: int, seconds: float):
    frames = 30 if rate == 29 else rate
    note = ((0, tempo(100_000)), (0, on(60)), (frames * per_frame, off(60)))
    score = midi.parse(smf(chunk(*note), ticks=(256 - rate) << 8 | per_frame), "a test")
    assert midi.seconds(score) == pytest.approx(seconds, abs=1e-5)


def test_lyrics_markers_names_bends_and_controllers_are_read():
    words = [(0, b"\xff\x03\x05Vo\xeax!"), (0, b"\xff\x05\x02la"), (0, b"\xff\x06\x01A"), (0, b"\xe0\x00\x60")]
    score = midi.parse(smf(chunk(*words, (0, control(1, 64)), *quarters(60))), "a test")
    (track,) = score.tracks
    assert (track.name, [x.text for x in track.lyrics], [x.text for x in score.markers]) == ("Voêx!", ["la"], ["A"])
    assert [(b.time, b.value) for b in track.pitch_bends] == [(0, 4096)]
    assert [(c.number, c.value) for c in track.controls] == [(1, 64)]


def test_the_texts_of_karaoke_files_are_lyrics():
    words = [(0, b"\xff\x01\x05@TSon"), (0, b"\xff\x01\x03/la"), (240, b"\xff\x01\x02la")]
    score = midi.parse(smf(chunk(*words), chunk(*quarters(60))), "a test.kar")
    assert [(x.time, x.text) for t in score.tracks for x in t.lyrics] == [(0, "/la"), (240, "la")]


def test_every_repair_is_logged(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.DEBUG, "musiclm"):
        midi.parse(smf(chunk((0, key(9, 0)), *quarters(60), (0, on(62)), end=9)), "a.mid")
    assert [record.message for record in caplog.records] == [
        "'a.mid': 1 × notes that never end given the end of their track",
        "'a.mid': 1 × key signatures without meaning dropped",
    ]


TUNE = "X:1\nT:t\nM:4/4\nL:1/8\nK:D\nDEFG ABcd|d4 D4|]\n"


@pytest.mark.parametrize("name", ["tune.abc", "-", "tune"])
def test_abc_is_read_by_its_name_or_its_content(name: str):
    assert [n.pitch for n in midi.parse(TUNE.encode(), name).tracks[0].notes][:3] == [62, 64, 66]


def test_of_a_collection_of_abc_tunes_the_first_is_read(caplog: pytest.LogCaptureFixture):
    other = TUNE.replace("X:1", "X:2").replace("K:D", "K:F")
    with caplog.at_level(logging.INFO, "musiclm"):
        score = midi.parse((TUNE + "\n" + other).encode(), "tunes.abc")
    assert score.note_num() == 10
    assert "2 tunes: the first one is read" in caplog.text
