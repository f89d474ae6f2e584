"""Reading what may be damaged, writing what opens anywhere, bars, cuts and tempi."""

from __future__ import annotations

import io
import struct

import mido
import pretty_midi
import pytest
from symusic import Note, Score, Tempo, TimeSignature, Track

from musiclm import midi
from musiclm.errors import MidiError, OutputError


def one_track(*notes: tuple[int, int, int]) -> Score:
    score = Score(480)
    track = Track("Piano", 0)
    for time, duration, pitch in notes:
        track.notes.append(Note(time, duration, pitch, 80))
    score.tracks.append(track)
    return score


def test_notes_that_overlap_on_one_pitch_end_where_the_next_begins():
    score = one_track((0, 100, 60), (50, 100, 60), (0, 200, 60), (0, 10, 61), (300, 5, 60))
    again = midi.parse(midi.to_bytes(score), "a test")
    assert [(n.time, n.duration, n.pitch) for n in again.tracks[0].notes] == [
        (0, 50, 60), (0, 10, 61), (50, 100, 60), (300, 5, 60)
    ]  # fmt: skip


def test_a_written_song_opens_in_three_libraries(song: Score):
    data = midi.to_bytes(song)
    assert midi.parse(data, "song").note_num() == song.note_num()
    assert sum(m.type == "note_on" and m.velocity > 0 for m in mido.MidiFile(file=io.BytesIO(data))) == song.note_num()
    assert sum(len(i.notes) for i in pretty_midi.PrettyMIDI(io.BytesIO(data)).instruments) == song.note_num()


@pytest.mark.parametrize(
    "data, told",
    [
        (b"", "is empty"),
        (b"hello, I am a text", "is not a MIDI file"),
        (b"MThd\0\0\0\6", "ends within its header"),
        (b"MThd" + struct.pack(">IHHH", 6, 1, 1, 480), "has no track"),
        (
            b"MThd" + struct.pack(">IHHH", 6, 1, 1, 480) + b"MTrk" + struct.pack(">I", 100) + b"abc",
            "ends within a track",
        ),
        (b"MThd" + struct.pack(">IHHH", 6, 1, 1, 0) + b"MTrk\0\0\0\0", "division of time is 0x0000"),
        (b"MThd" + struct.pack(">IHHH", 6, 1, 1, 0xFF28) + b"MTrk\0\0\0\0", "division of time is 0xff28"),
        (b"MThd" + struct.pack(">IHHH", 2**31, 1, 1, 480) + b"MTrk\0\0\0\0", "lies about its length"),
        (b"RIFF\0\0\0\0RMID", "RIFF"),
    ],
)
def test_what_is_no_midi_is_told_in_one_line(data: bytes, told: str):
    with pytest.raises(MidiError, match=told) as caught:
        midi.parse(data, "x.mid")
    assert "\n" not in str(caught.value)
    assert "x.mid" in str(caught.value)


def test_a_file_cut_anywhere_is_refused_or_read_but_never_crashes(song: Score):
    data = midi.to_bytes(song)
    for stop in range(0, len(data), 7):
        try:
            assert midi.parse(data[:stop], "cut").note_num() > 0
        except MidiError as error:
            assert "cut" in str(error)


def test_a_file_without_notes_is_refused(tmp_path):
    path = tmp_path / "silent.mid"
    path.write_bytes(midi.to_bytes(one_track()))
    with pytest.raises(MidiError):
        midi.read(path)


def test_bars_follow_the_time_signatures():
    score = one_track((0, 480 * 20, 60))
    score.time_signatures.append(TimeSignature(0, 3, 4))
    score.time_signatures.append(TimeSignature(480 * 6, 6, 8))
    found = [(b.start, b.end) for b, _ in zip(midi.bars(score), range(4), strict=False)]
    assert found == [(0, 3), (3, 6), (6, 9), (9, 12)]
    assert midi.bar_line(score, 4.0) == 6
    assert midi.bar_line(score, 6.0, 2) == 12
    assert midi.last_bar_line(score, 8.5) == 6
    assert midi.num_bars(score) == 7


def test_a_metre_that_is_written_a_tick_late_begins_the_first_bar():
    """Hymns of Open Hymnal had a first bar of one tick."""
    score = one_track((0, 480 * 12, 60))
    score.time_signatures.append(TimeSignature(1, 3, 4))
    score.tempos.append(Tempo(1, 100))
    again = midi.parse(midi.to_bytes(score), "a test")
    assert next(midi.bars(again)).end == 3
    assert midi.num_bars(again) == 4


def test_seconds_and_quarters_are_each_other_undone():
    score = one_track((0, 480 * 20, 60))
    score.tempos.append(Tempo(0, 60))
    score.tempos.append(Tempo(480 * 4, 120))
    assert midi.seconds_at(score, 4) == pytest.approx(4)
    assert midi.seconds_at(score, 6) == pytest.approx(5)
    assert midi.quarters_at(score, 5) == pytest.approx(6)
    assert midi.seconds(score) == pytest.approx(12)


def test_a_cut_keeps_what_begins_in_it_and_the_tempo_that_holds(song: Score):
    piece = midi.cut(song, 3.0, 9.0)
    assert midi.end(piece) == 6.0
    assert piece.tempos[0].qpm == pytest.approx(90, abs=0.01)
    assert piece.time_signatures[0].numerator == 3
    kept = sum(1440 <= n.time < 4320 for t in song.tracks for n in t.notes)
    assert piece.note_num() == kept


def test_nothing_is_overwritten_unasked(song: Score, tmp_path):
    path = tmp_path / "out.mid"
    midi.write(song, path)
    with pytest.raises(OutputError, match="--force"):
        midi.write(song, path)
    midi.write(song, path, force=True)
    with pytest.raises(OutputError, match="no folder"):
        midi.write(song, tmp_path / "nowhere" / "out.mid")
    assert [p.name for p in tmp_path.iterdir()] == ["out.mid"]
