"""The notes of a score that a player plays: which they are, and where in the bar."""

from __future__ import annotations

import numpy as np
import pytest
from symusic import Note, Score, TimeSignature, Track

from musiclm import midi
from musiclm.performing.notes import ScoreNotes, drum_notes, is_score, keyboard_notes, onset_numbers, onset_times
from tests.real_data import real_files


def score(signs: list[tuple[float, int, int]], *tracks: Track) -> Score:
    made = Score(480)
    for at, numerator, denominator in signs:
        made.time_signatures.append(TimeSignature(round(at * 480), numerator, denominator))
    for each in tracks:
        made.tracks.append(each)
    return made


def track(program: int, onsets: list[float], *, is_drum: bool = False, pitch: int = 60) -> Track:
    made = Track("", program, is_drum)
    for onset in onsets:
        made.notes.append(Note(round(onset * 480), 240, pitch, 80))
    return made


def keyboard(of: Score) -> ScoreNotes:
    found = keyboard_notes(of)
    assert found is not None
    return found


def test_keyboards_and_drums_are_told_apart_and_each_note_knows_where_it_comes_from():
    made = score(
        [(0, 4, 4)],
        track(73, [0, 1]),
        track(0, [2, 0], pitch=72),
        track(19, [0, 3], pitch=48),
        track(0, [0, 1], is_drum=True),
    )
    found = keyboard(made)
    assert list(zip(found.onset, found.pitch, found.track, strict=True)) == [
        (0, 48, 2),
        (0, 72, 1),
        (2, 72, 1),
        (3, 48, 2),
    ]
    for i in range(len(found)):
        note = made.tracks[int(found.track[i])].notes[int(found.index[i])]
        assert (note.time, note.pitch) == (found.onset[i] * 480, found.pitch[i])
    drums = drum_notes(made)
    assert drums is not None and drums.onset.tolist() == [0, 1]


def test_a_score_without_keyboards_or_drums_has_none():
    made = score([(0, 4, 4)], track(73, [0, 1]), Track("", 0))
    assert keyboard_notes(made) is None
    assert drum_notes(made) is None


def test_positions_are_counted_from_the_bar_line():
    found = keyboard(score([(0, 3, 4), (3, 6, 8)], track(0, [0, 2.5, 3, 4.5, 6])))
    assert found.bar.tolist() == [0, 0, 1, 1, 2]
    assert found.position.tolist() == [0, 2.5, 0, 1.5, 0]
    assert found.bar_length.tolist() == [3] * 5
    assert list(zip(found.numerator, found.denominator, strict=True)) == [(3, 4)] * 2 + [(6, 8)] * 3


def test_an_upbeat_is_the_end_of_a_bar():
    found = keyboard(score([(0, 1, 4), (1, 4, 4)], track(0, [0, 0.5, 1, 5])))
    assert found.bar.tolist() == [0, 0, 1, 2]
    assert found.position.tolist() == [3, 3.5, 0, 0]
    assert found.bar_length.tolist() == [4] * 4
    assert found.numerator.tolist() == [4] * 4


def test_two_parts_of_a_bar_at_a_repeat_are_one_bar():
    signs = [(0, 4, 4), (4, 3, 4), (7, 1, 4), (8, 4, 4), (16, 2, 4), (18, 4, 4)]  # and a bar of 2/4
    found = keyboard(score(signs, track(0, [0, 4, 6, 7, 8, 12, 17, 18])))
    assert found.bar.tolist() == [0, 1, 1, 1, 2, 3, 4, 5]
    assert found.position.tolist() == [0, 0, 2, 3, 0, 0, 1, 0]
    assert found.numerator.tolist() == [4] * 6 + [2, 4]


def test_notes_that_begin_nearly_together_are_one_onset():
    found = keyboard(score([], track(0, [0, 0.01, 0.5, 0.515, 0.6])))
    assert onset_numbers(found).tolist() == [0, 0, 1, 1, 2]
    assert onset_times(found).tolist() == [found.onset[0], found.onset[2], found.onset[4]]


def test_a_score_is_on_the_grid_and_real_time_is_not():
    draw = np.random.default_rng(0)
    steps = [i / 4 for i in range(60)] + [20 + i / 3 for i in range(40)]
    assert is_score(keyboard(score([], track(0, steps))))
    assert not is_score(keyboard(score([], track(0, np.sort(draw.uniform(0, 60, 100)).tolist()))))
    a_few_off = [*steps[:-8], *(s + 0.02 for s in steps[-8:])]
    assert is_score(keyboard(score([], track(0, a_few_off))))


@pytest.mark.parametrize(("archive", "expected"), [("openscore-lieder-midi", True), ("maestro-v3.0.0-midi", False)])
def test_real_scores_are_told_from_real_performances(archive: str, expected: bool):
    for name, data in real_files(archive, 5, stand_in=False):
        notes = keyboard_notes(midi.parse(data, name))
        assert notes is None or is_score(notes) == expected, name
