"""Melodies and pairs of parts: which notes are which, and that no note is lost or changed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from symusic import Note, Score, Tempo, TimeSignature, Track

from musiclm import midi
from musiclm.midi import parts
from tests.tokenizers_data import real_scores

BEAT = 480


def track(name: str, program: int, pitches: list[int], *, is_drum: bool = False, length: int = 1) -> Track:
    """Return a track with one note for each pitch, one after the other, each so many beats long; 0 is a rest."""
    made = Track(name, program, is_drum)
    for i, pitch in enumerate(pitches):
        if pitch:
            made.notes.append(Note(i * length * BEAT, length * BEAT, pitch, 80))
    return made


def score(*tracks: Track) -> Score:
    made = Score(BEAT)
    made.tempos.append(Tempo(0, 100))
    made.time_signatures.append(TimeSignature(0, 4, 4))
    midi.add_text(made, "style: band")
    for each in tracks:
        made.tracks.append(each)
    return made


TUNE = [72, 74, 76, 77, 79, 77, 76, 74] * 2
LOW = [48, 43, 48, 43] * 4
BEATS = [36, 42, 38, 42] * 4


def band() -> Score:
    return score(
        track("Drums", 0, BEATS, is_drum=True),
        track("Piano", 0, LOW, length=1),
        track("Fingered", 33, [p - 12 for p in LOW]),
        track("Vocals", 65, [p - 40 for p in TUNE]),  # the melody need not be high
    )


def notes(of: Score) -> list[tuple[int, ...]]:
    return sorted((n.time, n.duration, n.pitch, n.velocity, t.program, t.is_drum) for t in of.tracks for n in t.notes)


@pytest.mark.parametrize("name", ["MELODY", "Lead guitar", "voice 1", "Sopran", "1. Vocals (dry)"])
def test_a_track_whose_name_has_the_word_is_the_melody(name: str):
    found = parts.melody(score(track("Piano", 0, TUNE), track(name, 30, LOW)))
    assert found is not None
    assert found.found_by == "name"
    assert found.notes.tolist() == [[1, i] for i in range(16)]


@pytest.mark.parametrize("name", ["Invoice", "Soloist's piano", "Leader", ""])
def test_words_within_other_words_name_no_melody(name: str):
    found = parts.melody(score(track("Piano", 0, TUNE), track(name, 30, LOW)))
    assert found is not None
    assert found.found_by == "skyline"


def test_melody_is_preferred_to_lead_and_the_higher_of_two_alike():
    tracks = track("Lead", 80, TUNE), track("Melody 2", 0, LOW), track("Melody 1", 0, [p + 7 for p in LOW])
    found = parts.melody(score(*tracks))
    assert found is not None
    assert set(found.notes[:, 0].tolist()) == {2}


def test_a_voice_is_the_melody_if_it_is_monophonic_and_a_choir_is_not():
    voice = track("", 52, [p - 24 for p in TUNE])
    found = parts.melody(score(track("", 0, TUNE), voice))
    assert found is not None
    assert (found.found_by, set(found.notes[:, 0].tolist())) == ("program", {1})
    for note in list(voice.notes):
        voice.notes.append(Note(note.time, note.duration, note.pitch + 4, 80))
    found = parts.melody(score(track("", 0, TUNE), voice))
    assert found is not None
    assert found.found_by == "skyline"


def test_the_skyline_of_one_piano_track_is_its_upper_voice():
    piano = track("Melody", 0, TUNE)  # a name that says nothing, as this track is all there is
    for note in track("", 0, LOW).notes:
        piano.notes.append(note)
        piano.notes.append(Note(note.time + BEAT // 2, BEAT // 2, note.pitch + 7, 60))  # while the melody is held
    found = parts.melody(score(piano))
    assert found is not None
    assert found.found_by == "skyline"
    assert [piano.notes[i].pitch for _, i in found.notes.tolist()] == TUNE


def test_of_two_tracks_in_unison_the_longer_note_is_the_skyline():
    long, short = Track("", 0), Track("", 1)
    for i in range(8):
        short.notes.append(Note(i * BEAT, 100, 60 + i, 80))
        long.notes.append(Note(i * BEAT, 400, 60 + i, 80))
    assert parts.skyline(score(short, long)).tolist() == [[1, i] for i in range(8)]


def test_drums_alone_and_silence_have_no_melody_and_no_pairs():
    for empty in (score(track("Melody", 0, BEATS, is_drum=True)), score(track("Melody", 0, [])), Score(480)):
        assert parts.melody(empty) is None
        assert parts.extract_pairs(empty) == []


def test_a_band_has_a_pair_for_each_family_in_a_fixed_order():
    pairs = parts.extract_pairs(band())
    assert [kind for kind, _, _ in pairs] == ["melody", "drums", "bass", "keys", "winds"]
    names = {kind: ([t.name for t in s.tracks], [t.name for t in t_.tracks]) for kind, s, t_ in pairs}
    assert names["melody"] == (["Vocals"], ["Drums", "Piano", "Fingered"])
    assert names["drums"] == (["Piano", "Fingered", "Vocals"], ["Drums"])
    assert names["bass"] == (["Drums", "Piano", "Vocals"], ["Fingered"])
    assert names["keys"] == (["Drums", "Fingered", "Vocals"], ["Piano"])
    assert names["winds"] == (["Drums", "Piano", "Fingered"], ["Vocals"])  # on a saxophone


def test_a_song_with_piano_has_one_pair_since_keys_split_it_as_the_melody_does():
    pairs = parts.extract_pairs(score(track("Voice", 52, TUNE), track("Piano", 0, LOW)))
    assert [kind for kind, _, _ in pairs] == ["melody"]


def test_marked_tracks_are_the_source_of_one_aligned_pair():
    whole = score(*(track("Source: " + t.name, t.program, TUNE) for t in band().tracks[1:]), *band().tracks)
    before = notes(whole)
    ((kind, source, target),) = parts.extract_pairs(whole)
    assert kind == "style"
    assert [t.name for t in source.tracks] == ["Source: Piano", "Source: Fingered", "Source: Vocals"]
    assert notes(target) == notes(band())
    assert notes(whole) == before
    kinds = [kind for kind, _, _ in parts.extract_pairs(whole, 1)]  # the first version knows no marks
    assert "style" not in kinds and len(kinds) > 1
    assert parts.extract_pairs(score(track("source: a", 0, TUNE))) == []  # nothing is left for the target


def test_both_sides_keep_tempo_time_signature_and_style_and_the_score_is_unchanged():
    whole = band()
    before = notes(whole)
    for _, source, target in parts.extract_pairs(whole):
        for side in (source, target):
            assert [t.qpm for t in side.tempos] == [pytest.approx(100)]
            assert [(t.numerator, t.denominator) for t in side.time_signatures] == [(4, 4)]
            assert [m.text for m in side.markers] == ["style: band"]
    assert notes(whole) == before


def test_a_target_of_seven_notes_or_in_fewer_than_a_quarter_of_the_bars_is_no_pair():
    tune = track("Melody", 30, TUNE * 4)  # sixteen bars, on a guitar
    assert parts.extract_pairs(score(tune, track("", 33, [36] * 8))) == []  # in two bars
    in_four = [p for _ in range(4) for p in (36, 36, 0, 0)]
    assert [kind for kind, *_ in parts.extract_pairs(score(tune, track("", 33, in_four)))] == ["melody"]
    assert parts.extract_pairs(score(tune, track("", 33, in_four[:13]))) == []  # seven notes
    assert (
        parts.extract_pairs(score(track("", 30, TUNE[:7]), track("", 0, BEATS, is_drum=True))) == []
    )  # a source of seven


@pytest.mark.parametrize("archive", ["free-game-midi", "pop909", "openscore-lieder-midi"])
def test_sides_of_real_pairs_have_each_note_once(archive: str):
    for whole in real_scores(archive, 6):
        pairs = parts.extract_pairs(whole)
        assert len({kind for kind, _, _ in pairs}) == len(pairs)
        for _, source, target in pairs:
            assert sorted(notes(source) + notes(target)) == notes(whole)


NOTES = st.lists(
    st.tuples(st.integers(0, 40), st.integers(1, 12), st.integers(30, 90)), min_size=1, max_size=40
)  # start and length in eighths of a beat, pitch


@given(NOTES)
def test_no_note_sounds_above_one_of_the_skyline_when_it_begins(found: list[tuple[int, int, int]]):
    piano = Track("", 0)
    for start, length, pitch in found:
        piano.notes.append(Note(start * 60, length * 60, pitch, 80))
    chosen = {i for _, i in parts.skyline(score(piano)).tolist()}
    assert chosen
    times = piano.notes.numpy()
    for i in range(len(piano.notes)):
        at, pitch = times["time"][i], times["pitch"][i]
        sounds = (times["time"] <= at) & (times["time"] + times["duration"] > at)
        is_top = not (sounds & (times["pitch"] > pitch)).any()
        assert is_top or i not in chosen
        if is_top:  # itself, or another one on its pitch that begins with it
            same = np.flatnonzero((times["time"] == at) & (times["pitch"] == pitch)).tolist()
            assert chosen.intersection(same)
