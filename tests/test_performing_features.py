"""The features of notes: what they say of a small score, their bounds, and their cost for long pieces."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from symusic import Note, Score, TimeSignature, Track

from musiclm import midi
from musiclm.performing.features import FEATURE_SIZES, FEATURES, INTERVALS, NO_INTERVAL, note_features
from musiclm.performing.notes import ScoreNotes, drum_notes, keyboard_notes
from tests.real_data import real_files


def score_of(notes: list[tuple[float, float, int]], sign: tuple[int, int] = (4, 4)) -> ScoreNotes:
    """Return the notes (onset, duration, pitch), times in quarters, of a piano piece."""
    score = Score(480)
    score.time_signatures.append(TimeSignature(0, *sign))
    track = Track("Piano", 0)
    for onset, duration, pitch in notes:
        track.notes.append(Note(round(onset * 480), round(duration * 480), pitch, 80))
    score.tracks.append(track)
    found = keyboard_notes(score)
    assert found is not None
    return found


def column(notes: ScoreNotes, name: str) -> list[int]:
    return note_features(notes)[:, list(FEATURES).index(name)].tolist()


def intervals(notes: ScoreNotes, name: str) -> list[int | None]:
    return [None if i == NO_INTERVAL else i - INTERVALS for i in column(notes, name)]


# a held bass under a tune, a chord at the end
PIECE = [(0, 2, 48), (0, 1, 72), (1, 1, 76), (1, 0.5, 60), (1.5, 0.5, 64), (2, 2, 43), (2, 2, 55), (2, 2, 74)]


def test_the_top_line_leaves_out_what_a_higher_note_sounds_over():
    notes = score_of(PIECE)  # 48 72 | 60 76 | 64 | 43 55 74
    assert column(notes, "outer") == [2, 1, 0, 1, 0, 2, 0, 1]
    assert intervals(notes, "top_before") == [None, None, -12, 4, -12, -24, -21, -2]
    assert intervals(notes, "top_after") == [24, 4, 14, -2, 10, None, None, None]
    assert intervals(notes, "bottom_before")[5] == -5


def test_neighbours_are_the_nearest_pitches_beside_a_note():
    notes = score_of(PIECE)
    assert intervals(notes, "line_before") == [None, None, 12, 4, 4, -21, -9, 10]
    assert intervals(notes, "line_after") == [12, 4, 4, -12, -9, None, None, None]


def test_ranks_count_from_the_top_and_from_the_bottom_of_a_chord():
    notes = score_of(PIECE)
    assert column(notes, "rank_from_bottom") == [0, 1, 0, 1, 0, 0, 1, 2]
    assert column(notes, "rank_from_top") == [1, 0, 1, 0, 0, 2, 1, 0]
    assert column(notes, "chord_size") == [1, 1, 1, 1, 0, 2, 2, 2]


@pytest.mark.parametrize(
    ("sign", "onsets", "expected"),
    [
        ((4, 4), [0, 1, 2, 2.5, 2.75, 3 + 1 / 3], [0, 2, 1, 3, 4, 5]),
        ((3, 4), [0, 1, 2, 2.5], [0, 2, 2, 3]),
        ((6, 8), [0, 0.5, 1.5, 2, 2.25], [0, 3, 1, 3, 4]),
        ((9, 8), [0, 1.5, 3, 3.5], [0, 2, 2, 3]),
    ],
)
def test_metrical_strength(sign: tuple[int, int], onsets: list[float], expected: list[int]):
    assert column(score_of([(t, 0.25, 60) for t in onsets], sign), "strength") == expected


def test_places_in_the_bar_and_in_the_piece():
    notes = score_of([(t, 1, 60) for t in (0, 1.25, 4, 38.5)])
    assert column(notes, "beat") == [0, 1, 0, 2]
    assert column(notes, "subdivision") == [0, 6, 0, 12]
    assert column(notes, "bars_from_start") == [0, 0, 1, 9]
    assert column(notes, "bars_to_end") == [9, 9, 8, 0]
    assert column(notes, "in_four") == [0, 0, 1, 1]
    assert column(notes, "in_eight") == [0, 0, 1, 1]


def test_density_counts_onsets_and_lengths_are_in_the_order_of_time():
    notes = score_of([(0, 4, 60), (0.5, 0.5, 62), (0.5, 0.5, 70), (1, 1, 64), (3, 0.25, 65)])
    assert column(notes, "density") == [2, 2, 2, 2, 0]
    lengths = column(notes, "duration")
    assert lengths[0] > lengths[3] > lengths[1] == lengths[2] > lengths[4]
    until, since = column(notes, "time_until"), column(notes, "time_since")
    assert until[0] == until[1] == since[1] == since[3] < until[3] == since[4]
    assert until[4] == since[0] == FEATURES["time_until"] - 1


@given(
    st.lists(
        st.tuples(st.integers(0, 400), st.integers(1, 200), st.integers(0, 127)), min_size=1, max_size=40, unique=True
    ),
    st.tuples(st.integers(1, 32), st.sampled_from([1, 2, 4, 8, 16, 32])),
)
def test_features_are_within_their_sizes(events: list[tuple[int, int, int]], sign: tuple[int, int]):
    notes = score_of([(t / 12, d / 12, p) for t, d, p in events], sign)
    found = note_features(notes)
    assert found.shape == (len(notes), len(FEATURE_SIZES))
    assert found.dtype == np.int64
    assert (found >= 0).all()
    assert (found < np.array(FEATURE_SIZES)).all()


def test_real_pieces_and_drums_have_features_within_their_sizes():
    for archive, of in (("openscore-lieder-midi", keyboard_notes), ("groove-v1.0.0-midi", drum_notes)):
        for name, data in real_files(archive, 4):
            notes = of(midi.parse(data, name))
            if notes is not None:
                found = note_features(notes)
                assert (found >= 0).all() and (found < np.array(FEATURE_SIZES)).all(), name


def test_ten_thousand_notes_take_little_memory_and_time():
    draw = np.random.default_rng(0)
    notes = score_of([(float(i // 4) / 4, 4.0, int(p)) for i, p in enumerate(draw.integers(21, 109, 10_000))])
    tracemalloc.start()
    began = time.process_time()
    note_features(notes)
    seconds, peak = time.process_time() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20
    assert seconds < 5
