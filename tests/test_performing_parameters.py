"""The parameters of performances: that they give the performance back, and what they say of known performances."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from symusic import Note, Score, TimeSignature, Track

from musiclm.performing.notes import ScoreNotes, keyboard_notes, onset_numbers
from musiclm.performing.parameters import Parameters, parameters_of, times_of


def score_of(notes: list[tuple[float, float, int]], upbeat: float = 0.0) -> ScoreNotes:
    """Return the notes (onset, duration, pitch), times in quarters, of a piano piece in 4/4 with an upbeat of eighths."""
    score = Score(480)
    if upbeat:
        score.time_signatures.append(TimeSignature(0, round(upbeat * 2), 8))
    score.time_signatures.append(TimeSignature(round(upbeat * 480), 4, 4))
    track = Track("Piano", 0)
    for onset, duration, pitch in notes:
        track.notes.append(Note(round(onset * 480), round(duration * 480), pitch, 80))
    score.tracks.append(track)
    found = keyboard_notes(score)
    assert found is not None
    return found


def play(notes: ScoreNotes, onset_s: list[float] | np.ndarray, end_s: list[float] | np.ndarray, **more) -> Parameters:
    given = {"velocity": np.full(len(notes), 64), "pedal_down": np.zeros(len(notes), bool)} | more
    return parameters_of(notes, np.asarray(onset_s, float), np.asarray(end_s, float), **given)


BEATS = [(0.0, 1.0, 60), (1.0, 1.0, 62), (2.0, 1.0, 64), (3.0, 1.0, 65)]


@st.composite
def performances(draw: st.DrawFn) -> tuple[ScoreNotes, np.ndarray, np.ndarray]:
    """Draw a score of chords, and a performance of it in which chords come one after the other, within the tempo's bounds."""
    steps = draw(st.lists(st.sampled_from([0.25, 0.5, 1.0, 1.5, 2.0]), min_size=1, max_size=20))
    chords = [draw(st.sets(st.integers(40, 80), min_size=1, max_size=4)) for _ in steps]
    at = np.cumsum(steps)
    notes = score_of([(float(t), 0.5, p) for t, chord in zip(at, chords, strict=True) for p in chord])
    tempo = np.array([draw(st.floats(0.25, 1.5)) for _ in steps])
    centre = draw(st.floats(0, 10)) + np.cumsum(np.array(steps) * tempo)
    off = np.array([draw(st.floats(-0.02, 0.02)) for _ in range(len(notes))])
    onset_s = centre[onset_numbers(notes)] + off
    return notes, onset_s, onset_s + np.array([draw(st.floats(0.05, 2.0)) for _ in range(len(notes))])


@given(performances(), st.sampled_from([0.0, 0.5, 1.0, 4.0]))
def test_parameters_give_the_performance_back(performance: tuple[ScoreNotes, np.ndarray, np.ndarray], window: float):
    notes, onset_s, end_s = performance
    found = play(notes, onset_s, end_s, window=window)
    onset, end = times_of(notes, found)
    later = onset_s[0] - onset[0]
    assert np.abs(onset + later - onset_s).max() < 1e-3
    assert np.abs(end + later - end_s).max() < 1e-3
    for number in np.unique(onset_numbers(notes)):
        chord = onset_numbers(notes) == number
        assert len(np.unique(found.tempo[chord])) == 1
        assert window > 0 or abs(found.deviation[chord].mean()) < 1e-9


def test_within_a_window_the_tempo_is_one_and_deviations_are_from_it():
    notes = score_of([(i / 2, 0.5, 60 + i) for i in range(8)])
    swung = [0.0, 0.6, 1.0, 1.6, 2.0, 2.6, 3.0, 3.6]
    found = play(notes, swung, np.array(swung) + 0.2, window=1.0)
    assert found.tempo[:6] == pytest.approx(np.log2(np.full(6, 1.0) / found.seconds_per_quarter))
    assert found.deviation[:6] == pytest.approx([0, 0.1] * 3)


def test_windows_begin_at_beats_after_an_upbeat_too():
    notes = score_of([(i / 2, 0.5, 60 + i) for i in range(7)], upbeat=0.5)
    times = np.array([0.0, 0.5, 1.1, 1.5, 2.1, 2.5, 3.1])
    assert play(notes, times, times + 0.2, window=1.0).deviation[:6] == pytest.approx([0, 0, 0.1, 0, 0.1, 0])


def test_a_steady_performance_has_no_tempo_and_no_deviation():
    found = play(score_of(BEATS), [5.0, 5.6, 6.2, 6.8], [5.6, 6.2, 6.8, 7.4])
    assert found.seconds_per_quarter == pytest.approx(0.6)
    for name in ("tempo", "deviation", "articulation"):
        assert getattr(found, name) == pytest.approx(np.zeros(4), abs=1e-9), name
    assert found.velocity == pytest.approx(np.full(4, 64 / 127))


def test_slower_beats_staccato_and_early_notes_have_the_signs_that_the_format_says():
    notes = score_of([(0.0, 1.0, 60), (1.0, 1.0, 62), (1.0, 1.0, 74), (2.0, 1.0, 64)])
    found = play(notes, [0.0, 0.52, 0.48, 1.5], [0.5, 1.02, 0.98, 1.75])
    assert found.tempo == pytest.approx(np.log2(np.array([0.5, 1.0, 1.0, 1.0]) / 0.75))
    assert found.deviation == pytest.approx([0, 0.02, -0.02, 0])
    assert found.articulation == pytest.approx([0, -1, -1, -2])


def test_a_new_tempo_stretches_onsets_and_lengths_but_not_deviations():
    notes = score_of([(0.0, 1.0, 60), (1.0, 1.0, 62), (1.0, 1.0, 74)])
    found = play(notes, [0.0, 0.52, 0.48], [0.25, 1.02, 0.98])
    onset, end = times_of(notes, found, 1.0)
    assert onset == pytest.approx([0, 1.02, 0.98])
    assert end - onset == pytest.approx([0.5, 1, 1])


def test_notes_without_a_partner_are_masked_and_the_tempo_goes_on_through_them():
    nan = float("nan")
    found = play(score_of(BEATS), [0.0, nan, 1.0, nan], [0.5, nan, 1.5, nan])
    assert found.mask.tolist() == [True, False, True, False]
    assert found.tempo == pytest.approx(np.zeros(4))
    assert found.velocity[1] == found.deviation[1] == found.articulation[1] == 0
    assert times_of(score_of(BEATS), found)[0] == pytest.approx([0, 0.5, 1, 1.5])


def test_onsets_in_the_wrong_order_keep_their_times_by_their_deviations():
    notes = score_of(BEATS)
    onset_s = np.array([0.0, 0.6, 0.55, 1.5])
    onset, _ = times_of(notes, play(notes, onset_s, onset_s + 0.3))
    assert onset == pytest.approx(onset_s)


def test_the_pedal_is_one_where_it_is_down():
    down = np.array([True, False, True, False])
    assert play(score_of(BEATS), [0, 1, 2, 3], [1, 2, 3, 4], pedal_down=down).pedal.tolist() == [1, 0, 1, 0]


def test_a_piece_with_one_onset_has_the_default_tempo():
    found = play(score_of([(0.0, 2.0, 60)]), [3.0], [4.0])
    assert found.tempo.tolist() == [0]
    assert found.articulation == pytest.approx([0])


def test_wrong_arguments_are_named():
    notes = score_of(BEATS)
    with pytest.raises(ValueError, match="no note of the score was performed"):
        play(notes, [float("nan")] * 4, [0.0] * 4)
    with pytest.raises(ValueError, match="differ in length"):
        play(notes, [0.0, 1.0], [1.0, 2.0])
