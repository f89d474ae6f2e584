"""Musical statistics: numbers that can be counted by hand, and densities that agree with their definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from symusic import Note, Score, TimeSignature, Track

from musiclm import midi
from musiclm.evaluation import music_metrics
from musiclm.evaluation.music_metrics import notes_of

QUARTER = 480


def score_of(*notes: tuple[float, float, int], drums: tuple[tuple[float, int], ...] = (), metre=(4, 4)) -> Score:
    """Return a score of (start, length, pitch) in quarters, and drums of (start, pitch)."""
    score = Score(QUARTER)
    score.time_signatures.append(TimeSignature(0, *metre))
    for is_drum, given in ((False, notes), (True, tuple((start, 0.25, pitch) for start, pitch in drums))):
        track = Track("Drums" if is_drum else "Piano", 0, is_drum)
        for start, length, pitch in given:
            track.notes.append(Note(round(start * QUARTER), round(length * QUARTER), pitch, 80))
        score.tracks.append(track)
    return score


def test_pitch_class_entropy_is_that_of_the_shares():
    assert music_metrics.pitch_class_entropy(notes_of(score_of((0, 1, 60), (1, 1, 72)))) == 0
    half = notes_of(score_of((0, 1, 60), (1, 4, 62)))
    assert music_metrics.pitch_class_entropy(half) == pytest.approx(1)
    chromatic = notes_of(score_of(*[(i, 1, 60 + i) for i in range(12)]))
    assert music_metrics.pitch_class_entropy(chromatic) == pytest.approx(math.log2(12))


def test_scale_consistency_finds_the_scale_in_any_key():
    for key in range(12):
        scale = [(i, 1, 50 + key + step) for i, step in enumerate(music_metrics.MAJOR)]
        assert music_metrics.scale_consistency(notes_of(score_of(*scale))) == 1
        assert music_metrics.scale_consistency(notes_of(score_of(*scale, (7, 1, 51 + key)))) == pytest.approx(7 / 8)
    chromatic = notes_of(score_of(*[(i, 1, 60 + i) for i in range(12)]))
    assert music_metrics.scale_consistency(chromatic) == pytest.approx(7 / 12)


def test_density_counts_drums_and_polyphony_and_length_do_not():
    chord = score_of((0, 2, 60), (0, 2, 64), (2, 2, 67), drums=((0, 36), (1, 42), (2, 36), (3, 42)))
    notes = notes_of(chord)
    assert music_metrics.note_density(notes) == pytest.approx(7 / 4)
    assert music_metrics.polyphony(notes) == pytest.approx(6 / 4)
    assert music_metrics.note_length(notes) == 2


def test_silence_between_notes_does_not_make_music_thinner():
    assert music_metrics.polyphony(notes_of(score_of((0, 1, 60), (0, 1, 64), (3, 1, 60), (3, 1, 64)))) == 2
    overlapping = notes_of(score_of((0, 3, 60), (1, 1, 64), (2, 2, 62)))
    assert music_metrics.polyphony(overlapping) == pytest.approx(6 / 4)


@pytest.mark.parametrize(("metre", "beats"), [((4, 4), 4), ((3, 4), 3), ((6, 8), 3)])
def test_a_bar_that_comes_again_is_found_in_any_metre(metre, beats):
    bars = "ABAAC"
    tunes = {"A": (60, 62), "B": (64, 65), "C": (60, 64)}
    notes = [(i * beats + j, 1, pitch) for i, bar in enumerate(bars) for j, pitch in enumerate(tunes[bar])]
    found = notes_of(score_of(*notes, metre=metre))
    assert music_metrics.bar_repetition(found) == pytest.approx(2 / 4)
    assert music_metrics.groove_consistency(found) == 1


def test_empty_bars_do_not_count_as_repetition():
    notes = notes_of(score_of((0, 1, 60), (12, 1, 62)))
    assert music_metrics.bar_repetition(notes) == 0


def test_grooves_differ_where_one_bar_has_an_onset_and_the_other_none():
    notes = notes_of(score_of((0, 1, 60), (4, 1, 60), (5, 1, 60)))
    assert music_metrics.groove_consistency(notes) == pytest.approx(15 / 16)


def test_a_piece_with_nothing_to_count_stands_aside():
    drums = music_metrics.of_score(score_of(drums=((0, 36),)))
    assert drums["note_density"] is not None
    assert [name for name, value in drums.items() if value is None] == [
        "pitch_class_entropy", "scale_consistency", "polyphony", "note_length", "bar_repetition", "groove_consistency",
    ]  # fmt: skip
    empty = music_metrics.of_score(Score(QUARTER))
    assert set(empty.values()) == {None}
    told = music_metrics.of_set([drums, empty])
    assert told["polyphony"] == {"mean": None, "deviation": None, "num_pieces": 0}
    assert told["note_density"]["num_pieces"] == 1
    assert music_metrics.mean_overlap(music_metrics.against([drums], [empty])) is None


def test_leading_rests_and_bars_beyond_the_number_asked_for_change_nothing(song):
    late = song.shift_time(3 * 2 * QUARTER)
    late.time_signatures[0].time = 0
    assert music_metrics.of_score(late) == pytest.approx(music_metrics.of_score(song))
    four = midi.cut(song, 0.0, 12.0)
    assert music_metrics.of_score(song, 4) == pytest.approx(music_metrics.of_score(four))
    assert music_metrics.of_score(song, 100) == music_metrics.of_score(song)


def test_transposition_and_tempo_change_no_statistic(song):
    higher = song.copy()
    for track in higher.tracks:
        if not track.is_drum:
            track.notes = type(track.notes)([n.shift_pitch(3) for n in track.notes])
    higher.tempos[0].qpm = 40
    assert music_metrics.of_score(higher) == pytest.approx(music_metrics.of_score(song))


def test_the_overlap_of_two_sets_from_one_source_is_high_and_falls_as_they_part():
    draw = np.random.default_rng(0)
    reference = draw.normal(size=80)
    areas, divergences = zip(
        *(music_metrics.overlap(draw.normal(loc, 1, 60), reference) for loc in (0, 1, 3, 9)), strict=True
    )
    assert areas[0] > 0.95
    assert list(areas) == sorted(areas, reverse=True)
    assert areas[-1] < 0.05
    assert list(divergences) == sorted(divergences)


def test_the_overlap_is_that_of_sums_of_gaussians():
    """By the definition, point by point, without the tricks."""
    draw = np.random.default_rng(1)
    values, reference = draw.normal(size=12), draw.normal(0.5, 2, 9)
    within = [abs(a - b) for i, a in enumerate(reference) for b in reference[:i]]
    across = [abs(a - b) for a in values for b in reference]

    def density(x: float, distances: list[float]) -> float:
        width = np.std(distances, ddof=1) * len(distances) ** -0.2
        return np.mean([math.exp(-(((x - d) / width) ** 2) / 2) for d in distances]) / width / math.sqrt(2 * math.pi)

    points = np.arange(-6, 14, 0.04)
    p, q = (np.maximum([density(x, d) for x in points], 1e-300) for d in (within, across))
    area, divergence = music_metrics.overlap(values, reference)
    assert area == pytest.approx(np.minimum(p, q).sum() * 0.04, abs=1e-3)
    assert divergence == pytest.approx((p * np.log(p / q)).sum() * 0.04, abs=1e-3)


def test_sets_without_width_overlap_if_they_are_the_same_number():
    none, other = np.zeros(5), np.arange(5.0)
    assert music_metrics.overlap(none, none) == (1.0, 0.0)
    assert music_metrics.overlap(np.full(5, 3.0), none) == (0.0, None)
    assert music_metrics.overlap(other, none) == (0.0, None)
    assert music_metrics.overlap(other[:2], other) == (None, None)


def test_a_hair_beside_a_reference_that_hardly_varies_is_no_difference():
    """All chorales have four notes at once; 76 of them against 77 others had an overlap of 0.25."""
    reference = np.array([4.0] * 20 + [3.999])
    assert music_metrics.overlap(np.full(10, 3.998), reference)[0] > 0.9
    assert music_metrics.overlap(np.full(10, 3.5), reference)[0] < 0.1


@pytest.mark.slow
def test_chorales_look_like_chorales():
    from musiclm import tokenizers
    from musiclm.data import bundled

    grid = tokenizers.create("grid")
    chorales = bundled(grid)
    sets = [
        [music_metrics.of_score(grid.decode(p.tokens), 16) for p in chorales.pieces(s)] for s in ("validation", "test")
    ]
    found = music_metrics.against(*sets)
    assert found["polyphony"]["mean"] == pytest.approx(4, abs=0.01)
    assert found["scale_consistency"]["mean"] > 0.9
    assert music_metrics.mean_overlap(found) > 0.9
