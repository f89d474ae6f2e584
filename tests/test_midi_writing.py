"""What is written plays right: any number of instruments on the channels of MIDI, heard by players that share no code."""

from __future__ import annotations

import io
import itertools
import logging
import random
from collections import Counter, defaultdict
from importlib.metadata import version

import mido
import pretty_midi
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from symusic import (
    ControlChange,
    KeySignature,
    Note,
    Pedal,
    PitchBend,
    Score,
    Tempo,
    TextMeta,
    TimeSignature,
    Track,
)

from musiclm import midi
from tests import midi_player

NUMBERS = (0, 1, 7, 10, 11, 32, 64, 74, 91)  # controllers of the generated scores
DEFAULTS = {7: 100, 10: 64, 11: 127, 74: 64}
SPAN = 64  # ticks of a generated score: few, so that much falls onto one tick
Plain = tuple[int, int, int, int, int]  # start, end, pitch, velocity, program


def kept_notes(track: Track) -> list[tuple[int, int, int, int]]:
    """Return (start, end, pitch, velocity) of the notes without overlaps: cut at the next of the pitch, longest first."""
    by_pitch: dict[int, dict[int, Note]] = defaultdict(dict)
    for note in track.notes:
        first = by_pitch[note.pitch].get(note.time)
        if first is None or note.duration > first.duration:
            by_pitch[note.pitch][note.time] = note
    kept = []
    for pitch, found in by_pitch.items():
        times = [*sorted(found), 10**9]
        for time, following in itertools.pairwise(times):
            note = found[time]
            kept.append((time, max(time + 1, min(note.end, following)), pitch, note.velocity))
    return kept


def pitched(score: Score) -> list[Track]:
    return [track for track in score.tracks if not track.is_drum]


def programs_at_once(score: Score) -> int:
    """Return how many programs of pitched tracks sound at once at most."""
    sounding: dict[int, set[int]] = defaultdict(set)
    for track in pitched(score):
        for start, end, _, _ in kept_notes(track):
            for tick in range(start, end):
                sounding[tick].add(track.program)
    return max(map(len, sounding.values()), default=0)


def thinned(score: Score, most: int, by_program: bool = False) -> None:
    """Take notes out until at most so many pitched tracks, or programs of tracks, sound at once."""
    busy: list[set[int]] = [set() for _ in range(3 * SPAN)]
    for number, track in enumerate(score.tracks):
        kept, own = [], track.program if by_program else number
        for note in track.notes:
            ticks = busy[note.time : max(note.time + 1, note.end)]
            if track.is_drum or all(len(tick - {own}) < most for tick in ticks):
                kept.append(note)
                for tick in ticks if not track.is_drum else []:
                    tick.add(own)
        track.notes = type(track.notes)(kept)


def made(seed: int, num_tracks: int, num_drums: int, most_notes: int, steps: tuple[int, ...] = (1, 2)) -> Score:
    """Return a score of random tracks, with controllers, bends and pedals; several of a program, some without notes."""
    draw = random.Random(seed)
    score = Score(48)
    pitches = draw.choice([range(60, 64), range(30, 90)])
    longest = draw.choice([4, 16, 40])
    step = draw.choice(steps)
    programs = draw.sample(range(128), draw.choice([10, 20, 128]))
    for number in range(num_tracks + num_drums):
        track = Track(draw.choice(["", f"Stimme {number}", "Flöte"]), draw.choice(programs), number >= num_tracks)
        for _ in range(draw.randrange(most_notes + 1)):
            time, duration = draw.randrange(0, SPAN, step), draw.randrange(2 * (step - 1), longest, step)
            track.notes.append(Note(time, duration, draw.choice(pitches), draw.randint(1, 127)))
        for _ in range(draw.choice([0, 3, 10])):
            track.controls.append(ControlChange(draw.randrange(SPAN), draw.choice(NUMBERS), draw.randrange(128)))
        for _ in range(draw.choice([0, 3])):
            track.pitch_bends.append(PitchBend(draw.randrange(SPAN), draw.randint(-8192, 8191)))
        score.tracks.append(track)
    draw.shuffle(order := list(score.tracks))
    score.tracks = type(score.tracks)(order)
    for _ in range(draw.randrange(4)):
        score.tempos.append(Tempo(draw.randrange(SPAN), draw.choice([60, 97.3, 240])))
        score.time_signatures.append(TimeSignature(draw.randrange(SPAN), draw.randint(1, 9), draw.choice([2, 4, 8])))
    return score


def scores(most: int | None, by_program: bool = False) -> st.SearchStrategy[Score]:
    """Give scores of 1 to 40 pitched tracks and up to 4 of drums, of which at most so many pitched ones sound at once.

    With `most` no note is a single tick long. Such a note cannot be shortened where the next track needs its channel.
    """

    def build(seed: int, num_tracks: int, num_drums: int, most_notes: int) -> Score:
        score = made(seed, num_tracks, num_drums, most_notes, steps=(1, 2) if most is None else (2,))
        if most is not None:
            thinned(score, most, by_program)
        return score

    counts = (st.integers(1, 15) | st.integers(16, 40) | st.integers(16, 40), st.integers(0, 4), st.integers(1, 8))
    return st.builds(build, st.integers(0, 2**32), *counts)


def same_but_a_tick(found: list[Plain], wanted: list[Plain]) -> bool:
    """Return whether notes are those wanted, where a note may end a tick before its end."""
    ends: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for note in sorted(wanted):
        ends[note[:1] + note[2:]].append(note[1])
    for note in sorted(found):
        expected = ends[note[:1] + note[2:]]
        if not expected or expected.pop(0) - note[1] not in (0, 1):
            return False
    return not any(ends.values())


def wanted_notes(score: Score) -> list[Plain]:
    return [(*note, track.program) for track in pitched(score) for note in kept_notes(track)]


def wanted_hits(score: Score) -> Counter:
    """Count the hits of the drums by time, pitch, velocity and kit."""
    drums = [track for track in score.tracks if track.is_drum]
    return Counter((a, pitch, velocity, t.program) for t in drums for a, _, pitch, velocity in kept_notes(t))


def read_by_pretty_midi(data: bytes) -> tuple[list[Plain], Counter]:
    opened = pretty_midi.PrettyMIDI(io.BytesIO(data))
    tick = opened.time_to_tick
    notes = [(tick(n.start), tick(n.end), n.pitch, n.velocity, i) for i in opened.instruments for n in i.notes]
    hits = Counter((a, pitch, velocity, i.program) for a, _, pitch, velocity, i in notes if i.is_drum)
    return [(*note, i.program) for *note, i in notes if not i.is_drum], hits


def read_by_symusic(data: bytes) -> tuple[list[Plain], Counter]:
    notes = [(n.time, n.end, n.pitch, n.velocity, t) for t in Score.from_midi(data).tracks for n in t.notes]
    hits = Counter((a, pitch, velocity, t.program) for a, _, pitch, velocity, t in notes if t.is_drum)
    return [(*note, t.program) for *note, t in notes if not t.is_drum], hits


def heard(data: bytes, **how: bool) -> tuple[list[Plain], Counter]:
    notes = midi_player.play(data, **how)
    hits = Counter((n.start, n.pitch, n.velocity, n.program) for n in notes if n.is_drum)
    return [(n.start, n.end, n.pitch, n.velocity, n.program) for n in notes if not n.is_drum], hits


@settings(max_examples=200)
@given(scores(15))
def test_players_and_readers_hear_each_note_with_the_program_of_its_track(score: Score):
    data = midi.to_bytes(score)
    wanted = wanted_notes(score), wanted_hits(score)
    assert len(mido.MidiFile(file=io.BytesIO(data)).tracks) == len(score.tracks)
    for notes, hits in (
        heard(data), heard(data, own_programs=True), read_by_pretty_midi(data), read_by_symusic(data)
    ):  # fmt: skip
        assert same_but_a_tick(notes, wanted[0])
        assert hits == wanted[1]
    assert same_but_a_tick(heard(data, whole_ticks=True)[0], wanted[0])


@settings(max_examples=150)
@given(scores(15, by_program=True))
def test_any_number_of_tracks_keep_their_programs_while_15_programs_sound_at_once(score: Score):
    data = midi.to_bytes(score)
    wanted = Counter(note[:1] + note[2:] for note in wanted_notes(score))
    for notes, hits in (heard(data), heard(data, own_programs=True), read_by_symusic(data)):
        assert Counter(note[:1] + note[2:] for note in notes) == wanted
        assert hits == wanted_hits(score)


@settings(max_examples=100)
@given(scores(15))
def test_no_two_tracks_sound_one_pitch_on_one_channel(score: Score):
    sounding: dict[tuple[int, int], int] = {}  # (channel, pitch) -> how many notes
    for event in midi_player.events(midi.to_bytes(score))[0]:
        key = (event.channel, event.first)
        if event.channel != midi_player.DRUM_CHANNEL and event.kind in (0x80, 0x90):
            sounding[key] = sounding.get(key, 0) + (1 if event.kind == 0x90 else -1)
            assert sounding[key] in (0, 1)


@settings(max_examples=100)
@given(scores(None))
def test_tracks_that_must_share_a_channel_do_not_cut_each_other_short(score: Score):
    """A note-off ends all of its pitch: so what sounds a pitch together on one channel begins and ends together."""
    last: dict[tuple[int, int], midi_player.Heard] = {}
    for note in midi_player.play(midi.to_bytes(score)):
        before = last.get((note.channel, note.pitch), note)
        is_unison = note.start == before.start and abs(note.end - before.end) <= 1
        assert is_unison or before.end <= note.start
        last[note.channel, note.pitch] = note


def state_of(track: Track, tick: int) -> tuple[dict[int, int], int]:
    """Return the controllers of a track behind the events of a tick, and its pitch bend."""
    values = {number: DEFAULTS.get(number, 0) for number in NUMBERS}
    values.update({c.number: c.value for c in sorted(track.controls, key=lambda c: c.time) if c.time <= tick})
    bends = [b.value for b in sorted(track.pitch_bends, key=lambda b: b.time) if b.time <= tick]
    return values, (bends or [0])[-1]


@settings(max_examples=100)
@given(scores(15))
def test_at_each_note_the_controllers_are_those_of_its_track(score: Score):
    for note, values, bend in midi_player.controllers(midi.to_bytes(score)):
        if not note.is_drum:
            wanted, wanted_bend = state_of(score.tracks[note.track], note.start)
            assert {number: values.get(number, DEFAULTS.get(number, 0)) for number in NUMBERS} == wanted
            assert bend == wanted_bend


@settings(max_examples=100)
@given(scores(None))
def test_where_too_many_sound_at_once_nothing_is_lost_and_one_line_says_so(score: Score):
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("musiclm.midi.writer")
    log.addHandler(handler)
    level = log.level
    log.setLevel(logging.INFO)
    try:
        data = midi.to_bytes(score)
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
    wanted = Counter((a, pitch, velocity) for t in pitched(score) for a, _, pitch, velocity in kept_notes(t))
    for notes, hits in (heard(data), heard(data, own_programs=True), read_by_pretty_midi(data), read_by_symusic(data)):
        assert Counter((a, pitch, velocity) for a, _, pitch, velocity, _ in notes) == wanted
        assert hits == wanted_hits(score)
    assert Counter(n[4] for n in heard(data)[0]) == Counter(n[4] for n in heard(data, own_programs=True)[0])
    strange = Counter(n[:1] + n[2:] for n in heard(data)[0]) - Counter(n[:1] + n[2:] for n in wanted_notes(score))
    assert len(lines) == bool(strange)
    if lines:
        assert programs_at_once(score) > 15
        assert "instruments at once, more than the 15 channels of MIDI" in lines[0]


def band(programs: list[int], length: int = 48, step: int = 0) -> Score:
    """Return a score of one note a program, each at another pitch; each begins `step` ticks after the one before."""
    score = Score(48)
    for number, program in enumerate(programs):
        track = Track(f"T{number}", program)
        track.notes.append(Note(number * step, length, 20 + number, 80))
        score.tracks.append(track)
    return score


def programs_heard(data: bytes) -> list[int]:
    return [note.program for note in sorted(midi_player.play(data), key=lambda note: note.track)]


def test_forty_programs_one_after_the_other_keep_their_sounds(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    assert programs_heard(midi.to_bytes(band(list(range(0, 120, 3)), step=48))) == list(range(0, 120, 3))
    assert caplog.messages == []


def test_an_extra_instrument_is_played_by_the_nearest_of_its_family(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    score = band([0, 8, 16, 24, 32, 40, 47, 56, 64, 71, 73, 80, 88, 96, 104, 72, 41])
    score.time_signatures.append(TimeSignature(0, 3, 4))
    for track in score.tracks:
        track.notes[0].time = 48 * 6
    score.tracks[15].name, score.tracks[10].name = "", "Flute"
    found = programs_heard(midi.to_bytes(score))
    assert found[:15] == [track.program for track in score.tracks][:15]
    assert found[15:] == [
        73,
        40,
    ]  # the piccolo on the flute, although the clarinet (71) is as near; viola on the violin
    assert caplog.messages == [
        "bar 3: 17 instruments at once, more than the 15 channels of MIDI: 'Piccolo' is played by 'Flute' there, "
        "and 1 more place"
    ]


def test_an_extra_track_of_a_sounding_program_joins_it_without_a_word(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    assert programs_heard(midi.to_bytes(band([*range(0, 120, 8), 48])))[15] == 48
    assert caplog.messages == []


def test_where_tracks_join_on_a_channel_a_pitch_sounds_as_long_as_any_of_them_plays_it():
    score = band([*range(0, 120, 8), 48])
    score.tracks[6].notes.append(Note(10, 20, 35, 80))  # within the note of the last track, of program 48 too
    notes = [(n.start, n.end, n.program, n.track) for n in midi_player.play(midi.to_bytes(score)) if n.pitch == 35]
    assert notes == [(0, 9, 48, 15), (10, 48, 48, 6)]


def test_an_orchestra_of_more_tracks_than_channels_keeps_its_instruments(caplog: pytest.LogCaptureFixture):
    """Strings in unison were played by the timpani: their own channels sounded the pitch already."""
    caplog.set_level(logging.INFO)
    programs = [73, 73, 68, 68, 71, 71, 70, 70, 60, 60, 56, 56, 47, 40, 40, 41, 42, 43]
    score = band(programs)
    for track in list(score.tracks)[13:]:
        track.notes[0].pitch = 60
    assert programs_heard(midi.to_bytes(score)) == programs
    assert caplog.messages == []


def test_a_unison_of_forty_instruments_keeps_forty_notes():
    score = band(list(range(40)))
    for track in score.tracks:
        track.notes[0].pitch = 60
    data = midi.to_bytes(score)
    assert len(midi_player.play(data)) == 40
    assert {(note.start, note.end) for note in midi_player.play(data)} == {(0, 48)}
    assert len(read_by_pretty_midi(data)[0]) == len(read_by_symusic(data)[0]) == 40


def test_chords_that_follow_each_other_without_a_gap_need_no_more_channels(caplog: pytest.LogCaptureFixture):
    """Tracks 15 to 29 end where tracks 0 to 14 begin, but their note-offs stand later in the file."""
    caplog.set_level(logging.INFO)
    score = band(list(range(30)))
    for track in list(score.tracks)[:15]:
        track.notes[0].time = 48
    data = midi.to_bytes(score)
    assert programs_heard(data) == list(range(30))
    assert caplog.messages == []
    assert {note.end for note in midi_player.play(data) if note.start == 0} == {47}


def test_a_held_pedal_keeps_its_channel_while_another_is_free():
    score = band([*range(15), 100], length=10, step=20)
    score.tracks[0].controls.append(ControlChange(0, 64, 127))
    score.tracks[0].controls.append(ControlChange(400, 64, 0))
    score.tracks[0].notes.append(Note(390, 5, 60, 80))
    data = midi.to_bytes(score)
    assert programs_heard(data) == [0, 0, *range(1, 15), 100]
    last = next(note for note in midi_player.play(data) if note.program == 100)
    assert last.channel == next(note.channel for note in midi_player.play(data) if note.program == 1)


def test_a_bend_range_does_not_leak_to_the_next_track_on_a_channel():
    score = band(list(range(16)), step=48)
    for number, value in ((101, 0), (100, 0), (6, 12), (38, 0)):
        score.tracks[0].controls.append(ControlChange(0, number, value))
    score.tracks[0].pitch_bends.append(PitchBend(1, 8191))
    data = midi.to_bytes(score)
    note, values, bend = next(each for each in midi_player.controllers(data) if each[0].program == 15)
    assert note.channel == 0
    assert bend == 0
    sent = [(e.first, e.second) for e in midi_player.events(data)[0] if e.kind == 0xB0 and e.track == 15]
    assert sent[sent.index((101, 0)) :][:4] == [(101, 0), (100, 0), (6, 2), (38, 0)]
    assert (values[101], values[100]) == (127, 127)


def test_two_drum_kits_share_the_channel_hit_by_hit():
    score = Score(48)
    for program, times in ((0, (0, 48, 96)), (25, (0, 10, 96))):
        track = Track("", program, True)
        for time in times:
            track.notes.append(Note(time, 60, 36, 80))
        score.tracks.append(track)
    data = midi.to_bytes(score)
    notes = [(note.start, note.end, note.program) for note in midi_player.play(data)]
    assert notes == [(0, 10, 0), (0, 10, 25), (10, 47, 25), (48, 96, 0), (96, 156, 0), (96, 156, 25)]
    assert read_by_pretty_midi(data)[1] == read_by_symusic(data)[1] == wanted_hits(score)


def test_what_is_no_note_survives(song: Score):
    song.markers.append(TextMeta(96, "Übergang — 次"))
    song.tracks[0].lyrics.append(TextMeta(480, "schö-"))
    song.tracks[0].controls.append(ControlChange(480, 64, 127))
    song.tracks[0].pitch_bends.append(PitchBend(480, -8192))
    song.key_signatures.append(KeySignature(0, -7, 1))
    song.tempos.append(Tempo(960, mspq=500_001))
    song.tracks.append(Track("silent", 42))
    again = Score.from_midi(midi.to_bytes(song))
    assert [m.text for m in again.markers] == ["Übergang — 次"]
    assert [(t.time, t.mspq) for t in again.tempos] == [(t.time, t.mspq) for t in song.tempos]
    assert [(k.key, k.tonality) for k in again.key_signatures] == [(-7, 1)]
    assert [(t.numerator, t.denominator) for t in again.time_signatures] == [(3, 4)]
    assert again.tracks[0].name == song.tracks[0].name
    assert [(c.time, c.number, c.value) for c in again.tracks[0].controls] == [(480, 64, 127)]
    assert [(b.time, b.value) for b in again.tracks[0].pitch_bends] == [(480, -8192)]
    silent = mido.MidiFile(file=io.BytesIO(midi.to_bytes(song)), charset="utf-8").tracks[3]
    assert [m.name for m in silent if m.type == "track_name"] == ["silent"]
    assert [m.program for m in silent if m.type == "program_change"] == [42]
    lyrics = [m for m in mido.MidiFile(file=io.BytesIO(midi.to_bytes(song)), charset="utf-8") if m.type == "lyrics"]
    assert [m.text for m in lyrics] == ["schö-"]


def test_silent_tracks_beyond_the_channels_keep_their_programs():
    score = band(list(range(15)))
    for program in (100, 101):
        score.tracks.append(Track("silent", program))
    data = midi.to_bytes(score)
    assert programs_heard(data) == list(range(15))
    found = [m.program for t in mido.MidiFile(file=io.BytesIO(data)).tracks for m in t if m.type == "program_change"]
    assert found == [*range(15), 100, 101]


def test_pedals_that_stand_apart_are_written_once():
    score = band([0])
    score.tracks[0].pedals.append(Pedal(0, 10))
    score.tracks[0].pedals.append(Pedal(10, 10))
    written = [(e.tick, e.second) for e in midi_player.events(midi.to_bytes(score))[0] if e.kind == 0xB0]
    assert written == [(0, 127), (10, 0), (10, 127), (20, 0)]
    again = Score.from_midi(midi.to_bytes(score))  # has both the pedals and their controllers
    assert len(again.tracks[0].pedals) == 2
    assert midi.to_bytes(again) == midi.to_bytes(score)


def test_a_note_ends_before_the_pedal_of_its_tick_goes_down():
    score = band([0])
    score.tracks[0].controls.append(ControlChange(48, 64, 127))
    score.tracks[0].notes.append(Note(48, 10, 60, 80))
    kinds = [e.kind for e in midi_player.events(midi.to_bytes(score))[0] if e.tick == 48]
    assert kinds == [0x80, 0xB0, 0x90]


def test_events_that_no_file_can_hold_are_left_out():
    score = band([0])
    score.key_signatures.append(KeySignature(0, 8, 0))
    score.key_signatures.append(KeySignature(0, -8, 0))
    score.key_signatures.append(KeySignature(0, 0, 2))
    for sign in ((0, 4), (3, 0), (3, 5), (4, 4)):
        score.time_signatures.append(TimeSignature(0, *sign))
    score.tempos.append(Tempo(0, mspq=0))
    score.tempos.append(Tempo(0, qpm=1))
    score.tracks[0].controls.append(ControlChange(-5, 200, 3))
    score.tracks[0].controls.append(ControlChange(-5, 7, 200))
    score.tracks[0].pitch_bends.append(PitchBend(0, 9000))
    score.tracks[0].notes.append(Note(-10, 20, 90, 0))
    data = midi.to_bytes(score)
    again = Score.from_midi(data)
    assert not again.key_signatures
    assert [(t.numerator, t.denominator) for t in again.time_signatures] == [(4, 4)]
    assert [t.mspq for t in again.tempos] == [2**24 - 1]
    assert [(c.time, c.number, c.value) for c in again.tracks[0].controls] == [(0, 7, 127)]
    assert [b.value for b in again.tracks[0].pitch_bends] == [8191]
    assert [(n.start, n.end, n.velocity) for n in again.tracks[0].notes] == [(0, 10, 1), (0, 48, 80)]
    assert len(mido.MidiFile(file=io.BytesIO(data)).tracks) == 1
    assert len(pretty_midi.PrettyMIDI(io.BytesIO(data)).instruments[0].notes) == 2


def test_a_rest_longer_than_a_delta_time_is_written():
    score = band([0])
    score.tracks[0].notes.append(Note(2**30, 5, 60, 80))
    data = midi.to_bytes(score)
    assert [note.start for note in midi_player.play(data)] == [0, 2**30]
    assert [note.time for note in Score.from_midi(data).tracks[0].notes] == [0, 2**30]


@pytest.mark.parametrize("ticks", [0, 2**15])
def test_a_quarter_of_too_many_ticks_is_refused(ticks: int):
    with pytest.raises(ValueError, match="1 to 32767 ticks"):
        midi.to_bytes(Score(ticks))


def test_an_empty_score_opens():
    data = midi.to_bytes(Score(480))
    assert len(mido.MidiFile(file=io.BytesIO(data)).tracks) == 1
    assert pretty_midi.PrettyMIDI(io.BytesIO(data)).instruments == []


def test_writing_changes_nothing_and_gives_the_same_bytes_again():
    for seed in range(20):
        score = made(seed, 30, 2, 6)
        before = score.copy()
        assert midi.to_bytes(score) == midi.to_bytes(score)
        assert score == before


@pytest.mark.skipif(version("symusic") != "0.5.9", reason="its bytes are what files of older versions hold")
@pytest.mark.parametrize("seed", range(10))
def test_ordinary_scores_have_the_bytes_that_older_versions_wrote(seed: int):
    score = made(seed, 10, 1, 10)
    for track in score.tracks:
        ends = {(start, pitch): end for start, end, pitch, _ in kept_notes(track)}
        kept = sorted(kept_notes(track), key=lambda note: (note[0], note[2]))
        track.notes = type(track.notes)([Note(a, ends[a, pitch] - a, pitch, v) for a, _, pitch, v in kept])
        track.controls.clear()
        track.pitch_bends.clear()
    assert midi.to_bytes(score) == bytes(score.dumps_midi())
