"""The yardstick: hand-made pieces whose measures can be counted, the verdict by rule, and real chorales."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from symusic import Note, Score, Tempo, TimeSignature, Track

from musiclm import midi, tokenizers
from musiclm.data import bundled
from musiclm.evaluation import cadences, chorale, harmony, rhythm, texture, yardstick
from musiclm.evaluation.music_metrics import notes_of

QUARTER = 480
ROOT = Path(__file__).parents[1]
DRUMS = -1
Part = tuple[int, list[tuple[float, float, int]]]  # program, (start, length, pitch) in quarters


def score_of(*parts: Part, metre: tuple[int, int] = (4, 4), qpm: float = 120, velocity: int = 80) -> Score:
    score = Score(QUARTER)
    score.time_signatures.append(TimeSignature(0, *metre))
    score.tempos.append(Tempo(0, qpm))
    for program, notes in parts:
        track = Track(f"{program}", max(program, 0), program == DRUMS)
        for start, length, pitch in notes:
            track.notes.append(Note(round(start * QUARTER), round(length * QUARTER), pitch, velocity))
        score.tracks.append(track)
    return score


def notes(*parts: Part, metre: tuple[int, int] = (4, 4)):
    return notes_of(score_of(*parts, metre=metre))


def line(*pitches: int, length: float = 1.0, start: float = 0.0) -> list[tuple[float, float, int]]:
    """Return notes of one length one after the other; 0 is a rest."""
    return [(start + i * length, length, pitch) for i, pitch in enumerate(pitches) if pitch]


def chords(*each: tuple[int, ...], length: float = 1.0) -> list[tuple[float, float, int]]:
    return [(i * length, length, pitch) for i, chord in enumerate(each) for pitch in chord]


def voices(*each: str | list[int], length: float = 1.0):
    """Return four voices, soprano first, each a list of pitches a quarter (or `length`) long."""
    found = chorale.voices_of(notes(*[(0, line(*pitches, length=length)) for pitches in each]))
    assert found is not None
    return found


def test_who_plays_is_counted_by_program_and_drums_are_one():
    band = notes(
        (0, line(60, 62, 64, 65)), (0, line(72, 74, 76, 77)), (33, line(36, 38)), (DRUMS, line(36, 38, 36, 38))
    )
    assert texture.instruments(band) == 3
    assert (texture.drums_only(band), texture.one_instrument(band), texture.drums_with_pitched(band)) == (0, 0, 1)
    assert texture.short_tracks(band) == pytest.approx(1 / 4)
    drums = notes((DRUMS, line(36, 38)))
    assert (texture.drums_only(drums), texture.one_instrument(drums), texture.drums_with_pitched(drums)) == (1, 1, 0)
    assert texture.notes_per_bar(drums) is None
    pianos = notes((0, line(60, 62)), (0, line(72)))
    assert texture.one_instrument(pianos) == 1
    assert texture.short_tracks(pianos) == 1


def test_notes_a_bar_count_pitched_notes_and_empty_bars_are_those_without_sound():
    gap = notes((0, [(0, 1, 60), (1, 1, 60), (8, 1, 60)]), (DRUMS, [(0, 1, 36)]))
    assert texture.notes_per_bar(gap) == 1
    assert texture.empty_bars(gap) == pytest.approx(1 / 3)
    assert texture.empty_beats(gap) == pytest.approx(6 / 9)
    held = notes((0, [(0, 8, 60), (8, 1, 60)]))
    assert (texture.empty_bars(held), texture.empty_beats(held)) == (0, 0)
    drums = notes((DRUMS, [(0, 8, 36), (8, 1, 36)]))
    assert texture.empty_bars(drums) == pytest.approx(1 / 3), "a drum does not last"


def test_drum_bars_come_back_by_their_hits_and_the_grid_has_sixteenths_and_triplets():
    a, b = [(0, 1, 36), (2, 1, 38)], [(0, 1, 36), (3, 1, 38)]
    bars = [(4 * i + start, length, drum) for i, bar in enumerate((a, b, a, a)) for start, length, drum in bar]
    assert texture.drum_bars_again(notes((DRUMS, bars))) == pytest.approx(2 / 3)
    assert texture.drum_bars_again(notes((DRUMS, a), (0, line(60) * 8))) is None
    hits = [(t, 0.1, 42) for t in (0, 0.25, 1 / 3, 2 / 3, 0.75, 1 / 12, 0.6, 1.5)]
    assert texture.drums_off_grid(notes((DRUMS, hits))) == pytest.approx(2 / 8)


def test_harmony_stands_if_the_chords_of_successive_bars_are_nearly_one():
    c, f, g = (60, 64, 67), (65, 69, 72), (67, 71, 74)
    stuck = notes((0, chords(c, c, c, c, c, f, g, length=4)))
    assert (harmony.stuck_bars(stuck), harmony.harmony_stuck(stuck)) == (4, 1)
    moving = notes((0, chords(c, c, c, c, f, f, f, f, length=4)))
    assert (harmony.stuck_bars(moving), harmony.harmony_stuck(moving)) == (3, 0)
    rests = notes((0, [(4 * bar, 4, 60) for bar in (0, 1, 2, 4, 5)]))
    assert harmony.stuck_bars(rests) == 2, "a bar of silence ends a run"
    assert harmony.harmony_stuck(notes((0, line(60)))) is None
    assert harmony.harmony_stuck(notes((DRUMS, line(36) * 9))) is None


def test_chord_changes_are_counted_by_quarters():
    c, f, g = (60, 64, 67), (65, 69, 72), (67, 71, 74)
    assert harmony.chord_changes(notes((0, chords(c, c, f, f, g, g, c, c)))) == pytest.approx(3 / 2)
    assert harmony.chord_changes(notes((0, chords(c, length=8)))) == 0
    assert harmony.chord_changes(notes((0, chords(c, (), c, f)))) == 1, "silence keeps the chord"
    assert harmony.chord_changes(notes((DRUMS, line(36, 36)))) is None


def test_a_leading_tone_of_minor_is_in_its_scale_and_a_foreign_note_is_not():
    minor = [69, 72, 76, 69, 71, 74, 76, 68, 69, 76, 72, 69, 77, 76, 67, 69]  # A minor with g sharp and g
    assert harmony.out_of_scale(notes((0, line(*minor)))) == 0
    major = [60, 64, 67, 72, 65, 69, 71, 60, 67, 64, 60, 62, 64, 60, 67]
    assert harmony.out_of_scale(notes((0, line(*major, 66)))) == pytest.approx(1 / 16)
    assert harmony.out_of_scale(notes((DRUMS, line(36)))) is None


def test_a_modulation_leaves_the_scale_of_the_piece_but_not_its_local_one():
    c = [60, 64, 67, 72, 65, 69, 71, 60, 67, 64, 60, 62, 64, 60, 67, 60]
    there_and_far = [*c, *c, *[pitch + 6 for pitch in c]]
    far = notes((0, line(*there_and_far)))
    assert harmony.out_of_local_scale(far) == 0
    assert harmony.out_of_scale(far) > 0.1
    assert harmony.local_key_changes(notes((0, line(*c, *c)))) == 0
    assert harmony.local_key_changes(notes((0, line(*c)))) is None
    assert harmony.local_key_changes(far) >= 1 / 4, "windows begin every other bar: at least one step has two keys"


@pytest.mark.parametrize("tonic", range(12))
def test_the_best_key_of_a_scale_with_its_triad_is_its_own(tonic):
    weights = np.zeros(12)
    for step, weight in zip((0, 2, 4, 5, 7, 9, 11), (5, 2, 3, 2, 4, 2, 2), strict=True):
        weights[(tonic + step) % 12] = weight
    assert harmony.best_key(weights) == tonic


def test_semitones_clash_in_any_octave_on_eighths():
    pairs = chords((60, 61), (60, 73), (60, 71), (60, 64), (60, 62), (60,), length=0.5)
    assert harmony.semitone_clash(notes((0, pairs))) == pytest.approx(3 / 5)
    between = notes((0, [(0, 1, 60), (0, 1, 64), (0.25, 0.125, 61)]))
    assert harmony.semitone_clash(between) == 0, "not heard on an eighth"
    assert harmony.semitone_clash(notes((0, line(60, 61)))) is None


def test_the_top_line_repeats_its_pitch():
    top = chords((60, 72), (48, 72), (50, 72), (60, 74), (60, 74))
    assert harmony.same_top_pitch(notes((0, top))) == pytest.approx(3 / 4)
    assert harmony.same_top_pitch(notes((0, line(60)))) is None


def test_bars_equal_their_neighbour_only_with_the_same_onsets_and_pitches():
    a, b = [60, 62, 64, 65], [60, 62, 64, 67]
    assert harmony.bar_again_at_once(notes((0, line(*a, *a, *b, *a)))) == pytest.approx(1 / 3)
    assert harmony.bar_again_at_once(notes((0, line(*a)))) is None


def test_four_bar_form_is_likeness_four_bars_back_less_three():
    phrase = [(60, 64, 67), (65, 69, 72), (67, 71, 74), (62, 66, 69)]
    found = notes((0, chords(*phrase, *phrase, length=4)))
    vectors = [np.isin(np.arange(12), [p % 12 for p in chord]) * 1.0 for chord in phrase * 2]
    three = np.mean([vectors[i] @ vectors[i + 3] / 3 for i in range(5)])
    assert harmony.four_bar_form(found) == pytest.approx(1 - three)
    assert harmony.four_bar_form(notes((0, chords(*phrase, length=4)))) is None
    assert harmony.best_earlier_bar(found) == pytest.approx((0 * 1 + 4 * 1 + _best_first(phrase)) / 5)


def _best_first(phrase: list[tuple[int, ...]]) -> float:
    """Return the likeness of the fourth chord to the first, the only one that is three bars earlier."""
    return len(set(phrase[0]) & set(phrase[3])) / 3


def test_entropies_of_lengths_and_distances_are_those_of_their_shares():
    one = notes((0, line(60, 62, 64, 65)))
    assert (rhythm.length_entropy(one), rhythm.distance_entropy(one)) == (0, 0)
    two = notes((0, [(0, 1, 60), (1, 1, 62), (2, 0.5, 64), (2.5, 0.5, 65), (3, 1, 67)]))
    shares = (3 / 5, 2 / 5)
    assert rhythm.length_entropy(two) == pytest.approx(-sum(p * math.log2(p) for p in shares))
    assert rhythm.distance_entropy(two) == 1  # 1, 1, 0.5, 0.5
    assert rhythm.distance_entropy(notes((0, chords((60, 64, 67))))) is None
    assert rhythm.length_entropy(notes((DRUMS, line(36)))) is None


def test_onsets_are_shared_out_by_their_place_in_the_quarter_of_the_bar():
    found = notes((0, [(t, 0.1, 60) for t in (0, 1, 2.5, 3.25, 3.75, 1 / 3)]))
    assert rhythm.on_sixteenths(found) == pytest.approx(5 / 6)
    shares = rhythm.on_beat(found), rhythm.on_eighth(found), rhythm.on_sixteenth(found)
    assert shares == pytest.approx((2 / 5, 1 / 5, 2 / 5))
    seven = notes((0, [(0, 0.5, 60), (3.5, 0.5, 60), (7, 0.5, 60)]), metre=(7, 8))
    assert rhythm.on_beat(seven) == 1, "a bar of 7/8 begins on its beat"


def test_triplets_are_told_from_sixteenths_by_the_fine_groove():
    straight, swung = [(0, 0.5, 60), (0.5, 0.5, 60)], [(4, 0.5, 60), (4 + 2 / 3, 1 / 3, 60)]
    assert rhythm.fine_groove(notes((0, straight + swung))) == pytest.approx(1 - 2 / 48)


def test_velocities_spread_and_repetition_compresses():
    score = score_of((0, line(60, 62)))
    score.tracks[0].notes[1].velocity = 100
    assert rhythm.velocity_spread(notes_of(score)) == 10
    draw = np.random.default_rng(0)
    chance = rhythm.compressed_size(notes((0, line(*draw.integers(30, 90, 200).tolist()))))
    again = rhythm.compressed_size(notes((0, line(*[60, 62, 64, 65] * 50))))
    assert again < 0.1 < 0.2 < chance
    assert rhythm.compressed_size(notes()) is None


def test_exactly_one_parallel_fifth_is_found_among_the_motions():
    """Soprano and bass go from c-g to d-a, the inner voices stay: one motion. Then three pairs move."""
    one = voices([67, 69], [64, 64], [60, 60], [48, 50])
    assert len(list(chorale.motions(one))) == 1
    assert (chorale.parallel_fifths(one), chorale.parallel_octaves(one)) == (100, 0)
    third = voices([67, 69], [64, 65], [60, 60], [48, 50])  # the alto's motions are in thirds and tenths
    assert chorale.parallel_fifths(third) == pytest.approx(100 / 3)
    contrary = voices([67, 76], [64, 64], [60, 60], [48, 45])  # a fifth to a fifth, but apart
    assert chorale.parallel_fifths(contrary) == 0
    assert chorale.parallel_fifths(voices([67, 67], [64, 64], [60, 60], [48, 48])) is None


def test_octaves_and_unisons_are_counted_together():
    octave = voices([72, 74], [67, 67], [64, 64], [48, 50])
    unison = voices([72, 72], [60, 62], [60, 62], [48, 48])
    for found in (octave, unison):
        assert (chorale.parallel_octaves(found), chorale.parallel_fifths(found)) == (100, 0)


def test_a_repeated_fifth_is_no_parallel_and_a_rest_is_no_motion():
    assert chorale.parallel_fifths(voices([67, 67, 65], [64, 64, 64], [60, 60, 60], [48, 48, 50])) == 0
    assert chorale.parallel_fifths(voices([67, 0, 69], [64, 64, 64], [60, 60, 60], [48, 0, 50])) is None


def test_crossings_ranges_and_the_sopranos_range():
    found = voices([72, 74, 76, 60], [67, 67, 67, 67], [60, 60, 60, 60], [48, 48, 48, 35])
    assert chorale.crossed(found) == pytest.approx(1 / 4)
    assert chorale.out_of_range(found) == pytest.approx(1 / 16)
    assert chorale.soprano_range(found) == 16


def test_beats_are_named_triads_sevenths_or_nothing():
    triad, seventh, cluster = [72, 67, 64, 48], [71, 65, 62, 55], [72, 71, 62, 48]
    diminished, bare = [71, 65, 62, 50], [72, 67, 60, 48]
    found = voices(*zip(triad, seventh, cluster, diminished, bare, strict=True))
    assert chorale.triads(found) == pytest.approx(1 / 5)
    assert chorale.sevenths(found) == pytest.approx(1 / 5)
    assert chorale.no_chord(found) == pytest.approx(1 / 5), "diminished triads and two pitch classes are no such chord"
    assert chorale.clash_on_beat(found) == pytest.approx(1 / 5)


def test_the_sopranos_bars_come_back_and_changes_and_sixteenths_are_counted():
    tune, other = [72, 74, 76, 77], [72, 71, 69, 67]
    found = voices([*tune, *other, *tune], [60] * 12, [55] * 12, [48] * 12)
    assert chorale.soprano_bars_again(found) == pytest.approx(1 / 2)
    assert chorale.changes_per_quarter(found) == pytest.approx(11 / 12)
    tenor = [(0, 1, 55), (1, 0.25, 57), (1.25, 0.75, 55), (2, 2, 53)]
    parts = [(0, [(0, 4, pitch)]) for pitch in (72, 64)]
    quick = chorale.voices_of(notes(*parts, (0, tenor), (0, [(0, 4, 40)])))
    assert chorale.tenor_sixteenths(quick) == pytest.approx(1 / 4)


def test_four_voices_are_four_pitched_tracks_in_the_order_of_their_pitch():
    score = score_of((0, line(48)), (0, line(72)), (0, line(55)), (0, line(64)))
    assert chorale.voices_of(notes_of(score)).pitch[:, 0].tolist() == [72, 64, 55, 48]
    assert chorale.voices_of(notes((0, line(60)))) is None
    assert chorale.voices_of(notes()) is None


def cadence() -> list[list[int]]:
    """Return the voices of C: I IV V7 I, quarters, with the last chord held for three."""
    return [[72, 72, 71, 72, 72, 72], [67, 69, 67, 67, 67, 67], [64, 65, 65, 64, 64, 64], [48, 53, 55, 48, 48, 48]]


def test_a_cadence_holds_on_the_tonic_by_a_fifth_and_resolves_its_leading_tone():
    found = voices(*cadence())
    assert cadences.holds(found) == [(12, 24)]
    assert cadences.holds_per_16_bars(found) == 16 / 2
    assert (cadences.holds_on_triads(found), cadences.holds_by_fifth(found)) == (1, 1)
    assert (cadences.ends_on_tonic(found), cadences.ends_held(found)) == (1, 1)
    assert (cadences.leading_tone_soprano(found), cadences.leading_tone_all(found)) == (1, 1)
    assert cadences.regular_gaps(found) is None
    soprano, *others = cadence()
    falling = voices([*soprano[:3], 67, 67, 67], *others)
    assert cadences.leading_tone_soprano(falling) == 0
    plagal = voices(*[[voice[i] for i in (0, 2, 3, 1)] for voice in cadence()])
    assert (cadences.ends_on_tonic(plagal), cadences.ends_held(plagal)) == (0, 0)


def test_gaps_between_holds_are_regular_in_half_bars():
    def at(*starts: int):
        soprano = [60 + i % 2 for i in range(24)]
        for start in starts:
            soprano[start : start + 2] = [64, 64]
        return voices(soprano, [57] * 24, [52] * 24, [45] * 24)

    assert cadences.regular_gaps(at(2, 8, 14)) == 1
    assert cadences.regular_gaps(at(2, 9, 13)) == pytest.approx(1 / 2)


def test_a_piece_returns_to_its_first_key():
    c, e = [72, 71, 72, 67] * 2, [76, 75, 76, 71] * 2

    def piece(*keys: list[int]):
        """Return I V I V in the keys whose soprano is given, two bars each."""
        roots = [key[0] - 72 for key in keys for _ in range(4)]
        soprano = [pitch for key in keys for pitch in key]
        alto = [p + r for r in roots for p in (67, 67)]
        tenor = [p + r for r in roots for p in (64, 62)]
        bass = [p + r for r in roots for p in (48, 43)]
        return voices(soprano, alto, tenor, bass)

    assert cadences.returns_to_key(piece(c, e, c)) == 1
    assert cadences.returns_to_key(piece(c, c, e)) == 0
    assert cadences.returns_to_key(piece(c)) is None


def rule(*parts: Part, **kind: str) -> list[str]:
    return yardstick.verdict(score_of(*parts), **kind)


def test_the_verdict_by_rule_names_its_reasons():
    c, f, g = (48, 60, 64, 67), (53, 60, 65, 69), (55, 59, 62, 67)
    good = chords(*[c, c, f, f, g, g, c, g, c, f, g, c, f, f, g, c] * 2)
    assert rule((0, good)) == []
    assert rule((DRUMS, line(36, 38) * 8)) == ["drums only"]
    assert rule() == ["empty"]
    assert rule((0, line(*[60, 62, 64, 65, 67, 69] * 4))) == ["thin"]
    assert rule((0, chords(c, f, g, c, length=4))) == ["thin"], "four notes a bar"
    assert rule((0, chords(*[c] * 24))) == ["stuck"]
    clusters = [(48 + i % 3, 49 + i % 3, 60 + i % 5, 67 + i % 7) for i in range(24)]
    assert "messy" in rule((0, chords(*clusters)))


def test_piano_is_measured_in_seconds_at_any_tempo():
    slow = score_of((0, line(*[60, 64, 67, 72] * 8, length=0.5)), qpm=60)
    fast = score_of((0, line(*[60, 64, 67, 72] * 8)), qpm=120)
    assert yardstick.values(slow, "piano") == pytest.approx(yardstick.values(fast, "piano"))
    assert yardstick.values(slow, "piano")["notes_per_bar"] == 4
    assert midi.seconds(yardstick.in_real_time(slow)) == pytest.approx(midi.seconds(slow))


def test_every_measure_has_a_description_and_a_silent_piece_counts_nothing():
    described = (ROOT / "docs" / "concepts" / "metrics.md").read_text("utf-8")
    for name, measure in yardstick.MEASURES.items():
        assert (measure.function.__doc__ or "").startswith("Return "), name
        assert f"`{name}`" in described, name
    for kind in yardstick.KINDS:
        assert set(yardstick.values(Score(QUARTER), kind).values()) == {None}
    with pytest.raises(ValueError, match="no kind of music 'jazz'"):
        yardstick.names("jazz")


def test_the_first_bars_alone_count_but_a_chorales_end_is_that_of_the_whole():
    head = [line(*[voice[i % 4] for i in range(64)]) for voice in cadence()]
    tail = [line(*voice, start=64) for voice in cadence()]
    score = score_of(*[(0, a + b) for a, b in zip(head, tail, strict=True)])
    found = yardstick.values(score, "chorale", 16)
    assert found["holds_per_16_bars"] == 15, "the tonic at the bar line between two bars, not the end behind them"
    assert (found["ends_on_tonic"], found["ends_held"]) == (1, 1)
    cut = midi.cut(score, 0.0, 64.0)
    assert yardstick.values(cut, "chorale", 16)["ends_held"] == 0
    names, table = yardstick.table_of([score, Score(QUARTER)], "chorale", 16)
    assert table.shape == (2, len(names))
    assert table[0, names.index("triads")] == found["triads"]
    assert np.isnan(table[1]).all()


def test_means_have_standard_errors():
    rows = [{"x": value} for value in (1.0, 2.0, 3.0, None)]
    assert yardstick.mean_and_error(rows, "x") == pytest.approx((2.0, 1 / math.sqrt(3), 3))
    assert yardstick.mean_and_error(rows[:1], "x") == (1.0, None, 1)
    assert yardstick.mean_and_error(rows[3:], "x") == (None, None, 0)


@pytest.mark.slow
def test_bachs_test_chorales_measure_as_they_were_found_to():
    """Figures that were measured with another program before; each within a standard error or two of it."""
    grid = tokenizers.create("grid")
    rows = [yardstick.values(grid.decode(p.tokens), "chorale") for p in bundled(grid).pieces("test")]
    expected = {
        "parallel_fifths": (0.10, 0.04), "parallel_octaves": (0.05, 0.02), "crossed": (0.021, 0.003),
        "out_of_range": (0.0, 0.0005), "soprano_range": (11.8, 0.3), "triads": (0.723, 0.008), "sevenths": (0.108, 0.006),
        "no_chord": (0.113, 0.008), "clash_on_beat": (0.028, 0.003), "out_of_scale": (0.049, 0.004),
        "returns_to_key": (0.40, 0.06), "leading_tone_soprano": (0.78, 0.05), "leading_tone_all": (0.56, 0.04),
        "holds_per_16_bars": (4.2, 0.3), "regular_gaps": (0.90, 0.04), "holds_on_triads": (0.96, 0.02),
        "holds_by_fifth": (0.69, 0.04), "soprano_bars_again": (0.198, 0.021), "tenor_sixteenths": (0.049, 0.008),
        "changes_per_quarter": (1.50, 0.03), "ends_on_tonic": (0.75, 0.05), "ends_held": (0.92, 0.03),
    }  # fmt: skip
    for name, (mean, error) in expected.items():
        assert yardstick.mean_and_error(rows, name)[0] == pytest.approx(mean, abs=error + 0.001), name


@pytest.mark.slow
def test_the_program_compares_a_folder_with_a_folder_as_a_table_and_as_json(tmp_path):
    c, f, g = (48, 60, 64, 67), (53, 60, 65, 69), (55, 59, 62, 67)
    good = chords(*[c, c, f, f, g, g, c, g, c, f, g, c, f, f, g, c] * 2)
    drums = [(DRUMS, line(36, 38, 42, 42) * 8)]
    for folder, pieces in (
        ("samples", [drums, drums]),
        ("real", [[(0, good)], [(0, chords(*[c, g, f, c, g, g, f, c] * 4))]]),
    ):
        (tmp_path / folder).mkdir()
        for number, parts in enumerate(pieces):
            (tmp_path / folder / f"{number}.mid").write_bytes(midi.to_bytes(score_of(*parts)))
    command = [sys.executable, "benchmarks/music.py", tmp_path / "samples", "--reference", tmp_path / "real"]
    table = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "decent by rule, samples: 0 of 2 (0%); broken: drums only 2" in table.stdout
    assert "decent by rule, reference: 2 of 2 (100%)" in table.stdout
    found = json.loads(subprocess.run([*command, "--json"], cwd=ROOT, capture_output=True, check=True).stdout)
    assert found["measures"]["drums_only"]["samples"] == {"mean": 1.0, "standard_error": 0.0, "num_pieces": 2}
    assert found["measures"]["drums_only"]["reference"]["mean"] == 0
    assert [piece["by_rule"] for piece in found["pieces"]["samples"]] == [["drums only"]] * 2
    wrong = subprocess.run([*command[:3]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert wrong.returncode == 1
    assert "name a --reference" in wrong.stderr
