"""New notes of a program that several tracks play: which track each goes to."""

from __future__ import annotations

from symusic import Note, Track

from musiclm.generation.same_program import Voice, distributed, voice

VIOLINS = [Voice(70.0, 1), Voice(76.0, 1)]  # the second one is higher


def pitches(notes: list[tuple[float, int]], voices: list[Voice]) -> list[list[int]]:
    return [[n[2] for n in part] for part in distributed([(at, at + 1, p, 80) for at, p in notes], voices)]


def test_a_single_note_goes_to_the_nearer_voice() -> None:
    assert pitches([(0, 71), (1, 78), (2, 55), (3, 90)], VIOLINS) == [[71, 55], [78, 90]]


def test_notes_at_once_keep_the_order_of_the_voices() -> None:
    assert pitches([(0, 66), (0, 68)], VIOLINS) == [[66], [68]]
    assert pitches([(0, 79), (0, 81)], VIOLINS) == [[79], [81]]


def test_a_voice_has_chords_if_it_has_them_elsewhere() -> None:
    hands = [Voice(72.0, 2), Voice(48.0, 4)]
    assert pitches([(0, p) for p in (43, 50, 55, 59, 67, 74)], hands) == [[74, 67], [59, 55, 50, 43]]
    assert pitches([(0, p) for p in (36, 48)], hands) == [[], [48, 36]]


def test_nothing_is_lost_with_many_voices_and_notes() -> None:
    voices = [Voice(float(p), 1) for p in range(40, 80, 2)]
    notes = [(0, p) for p in range(30, 90)]
    found = pitches(notes, voices)
    assert sorted(p for part in found for p in part) == list(range(30, 90))
    tops = [max(part) for part in found if part]
    assert tops == sorted(tops)


def test_the_voice_of_a_track() -> None:
    track = Track()
    for at, pitch in ((0, 60), (0, 64), (0, 68), (480, 72)):
        track.notes.append(Note(at, 100, pitch, 80))
    assert voice(track) == Voice(66.0, 3)
