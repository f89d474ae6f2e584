"""The judge apart and its discriminator: frozen features, and classifiers that find what is there and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from symusic import Note, Score, Track

from musiclm import midi

from .data_files import ROOT

sys.path.append(str(ROOT / "benchmarks"))
import judge_features
import judge_harmony
import judge_lines
import judge_music
import judge_rhythm

FROZEN = json.loads((Path(__file__).parent / "data" / "judge.json").read_text())
FILES = sorted(FROZEN["values"])


def test_the_names_of_the_features_are_frozen() -> None:
    assert {kind: list(names) for kind, names in judge_features.FEATURES.items()} == FROZEN["features"]
    assert all(40 <= len(names) == len(set(names)) <= 70 for names in judge_features.FEATURES.values())


@pytest.mark.parametrize("kind", list(judge_features.FEATURES))
@pytest.mark.parametrize("file", FILES)
def test_the_values_of_the_features_are_frozen(file: str, kind: str) -> None:
    """A new value is a new judge, which makes all figures before it worthless: see docs/concepts/judge.md."""
    found = judge_features.features(midi.read(ROOT / "tests" / "data" / file), kind)
    assert found is not None
    frozen = np.array([np.nan if v is None else v for v in FROZEN["values"][file][kind]])
    np.testing.assert_allclose(found, frozen, rtol=1e-5, atol=1e-7)


def test_the_values_of_a_chorale_are_frozen() -> None:
    from musiclm import tokenizers
    from musiclm.data import bundled

    source = bundled(tokenizers.create("grid"))
    found = judge_features.features(source.tokenizer.decode(source.pieces("validation")[0].tokens), "chorale")
    np.testing.assert_allclose(found, FROZEN["chorale"], rtol=1e-5, atol=1e-7)


def test_no_feature_has_the_name_of_a_statistic_that_tools_use() -> None:
    from musiclm.evaluation.music_metrics import STATISTICS

    shared = {name for names in judge_features.FEATURES.values() for name in names} & set(STATISTICS)
    assert not shared


def piece(rows: list[tuple[float, float, int]], velocity: int = 64) -> judge_music.Music:
    """Return the music of notes: start and length in quarters, pitch."""
    score = Score(480)
    track = Track()
    for start, length, pitch in rows:
        track.notes.append(Note(round(start * 480), round(length * 480), pitch, velocity))
    score.tracks.append(track)
    return judge_music.music_of(score, 16)


def test_lines_are_the_notes_that_begin_outermost() -> None:
    music = piece([(0, 4, 48), (0, 1, 72), (1, 1, 60), (1, 1, 71), (2, 2, 40), (2, 1, 69)])
    assert music.top[1].tolist() == [72, 71, 69]
    assert music.bass[1].tolist() == [48, 40]
    assert judge_lines.outer_intervals(music)["outer_octave"] == pytest.approx(1 / 3)
    assert judge_lines.bass_motion(music)["bass_step"] == 0.0


def test_motion_is_contrary_where_top_and_bass_part() -> None:
    music = piece([(0, 1, 60), (0, 1, 64), (1, 1, 59), (1, 1, 65), (2, 1, 59), (2, 1, 67)])
    assert judge_lines.outer_motion(music) == {"outer_contrary": 0.5, "outer_oblique": 0.5}


def test_a_figure_comes_back_at_another_pitch() -> None:
    figure = [0, 2, 4, 2, 0]
    sequence = piece([(i + 5 * j, 1, 60 + p + 2 * j) for j in range(4) for i, p in enumerate(figure)])
    random = np.random.RandomState(1).randint(48, 84, 20).tolist()
    assert judge_lines.figures(sequence)["figure_share"] > 0.6
    assert judge_lines.figures(piece([(i, 1, p) for i, p in enumerate(random)]))["figure_share"] < 0.3


def test_a_regular_pulse_is_clear_and_its_ratios_are_one_to_one() -> None:
    music = piece([(i / 2, 0.5, 60 + i % 3) for i in range(64)])
    assert judge_rhythm.ratios(music)["ratio_1_1"] == 1.0
    assert judge_rhythm.onset_autocorrelation(music)["onset_autocorr_4"] > 0.9
    assert judge_rhythm.legato(music)["legato_median"] == pytest.approx(1.0)


def test_a_standing_chord_does_not_move_and_a_cluster_is_rougher_than_a_fifth() -> None:
    chord = piece([(i, 1, p) for i in range(16) for p in (60, 64, 67)])
    assert judge_harmony.tonnetz(chord)["tonnetz_mean"] == pytest.approx(0.0, abs=1e-9)
    table = judge_harmony.pair_roughness()
    assert table[60, 61] > table[60, 62] > table[60, 67]


def test_tension_does_not_depend_on_the_key() -> None:
    rows = [(float(i), 1.0, p) for i, p in enumerate([60, 64, 67, 65, 62, 59, 60, 66])]
    here = judge_harmony.spiral(piece(rows)) | judge_harmony.pitch_class_spectrum(piece(rows))
    there = piece([(start, length, pitch + 5) for start, length, pitch in rows])
    assert judge_harmony.spiral(there) | judge_harmony.pitch_class_spectrum(there) == pytest.approx(here)


def test_lempel_ziv_complexity_is_low_for_a_period_and_near_one_for_chance() -> None:
    assert judge_music.lempel_ziv([0, 1] * 128) < 0.15
    assert 0.8 < judge_music.lempel_ziv(np.random.RandomState(1).randint(0, 2, 2048).tolist()) < 1.2


@pytest.mark.parametrize("kind", list(judge_features.FEATURES))
def test_strange_pieces_have_finite_or_missing_features_without_warnings(kind: str) -> None:
    """One pitch, one onset, and notes of no regular time; warnings are errors here."""
    random = np.random.RandomState(3)
    strange = [
        [(i / 2, 0.5, 60) for i in range(40)],
        [(0.0, 4.0, 40 + i) for i in range(20)] + [(1.0, 1.0, 60), (2.0, 1.0, 60)],
        [(float(s), 0.3, int(p)) for s, p in zip(random.rand(40) * 50, random.randint(0, 128, 40), strict=True)],
        [(0.0, 0.1, 0), *((60 + i / 8, 0.1, 127) for i in range(20))],
    ]
    with np.errstate(all="raise", under="ignore"):
        for rows in strange:
            values = judge_features.values_of(piece(rows), kind)
            assert values.shape == (len(judge_features.FEATURES[kind]),) and not np.isinf(values).any()
    assert judge_features.features(Score(480), kind) is None


def discriminator():  # type: ignore[no-untyped-def]
    pytest.importorskip("sklearn", reason="an extra: pip install -e .[bench]")
    import discriminator as module

    return module


def test_the_discriminator_finds_a_difference_and_the_feature_that_has_it() -> None:
    module = discriminator()
    random = np.random.RandomState(1)
    real, sampled = random.randn(40, 4), random.randn(40, 4)
    sampled[:, 2] += 3
    sampled[::4, 0] = np.nan
    found = module.discriminate(real, sampled, ["a", "b", "c", "d"], n=30)
    assert (found.n, found.of) == (30, (40, 40)) and found.chance_se == pytest.approx((0.25 / 60) ** 0.5)
    assert all(s["accuracy"] > 0.85 and s["auc"] > 0.9 for s in found.scores.values())
    assert next(iter(found.importance)) == "c"


def test_the_discriminator_guesses_where_both_sides_are_alike() -> None:
    module = discriminator()
    random = np.random.RandomState(2)
    found = module.discriminate(random.randn(60, 5), random.randn(60, 5), list("abcde"), importance=False)
    assert all(0.3 < s["accuracy"] < 0.7 for s in found.scores.values())
    with pytest.raises(ValueError, match="at least 10"):
        module.discriminate(random.randn(5, 5), random.randn(60, 5), list("abcde"))


def test_halves_keep_a_work_on_one_side() -> None:
    module = discriminator()
    groups = np.random.RandomState(1).randint(0, 20, 100)
    first, second = module.halves(groups.tolist(), seed=1)
    assert not set(groups[first]) & set(groups[second])
    assert sorted([*first, *second]) == list(range(100)) and abs(len(first) - len(second)) < 15


@pytest.mark.slow
def test_the_judge_reads_folders_and_says_where_there_are_fewer(tmp_path: Path) -> None:
    """Real chorales against chorales of random pitches, through the script as users run it."""
    discriminator()
    from musiclm import tokenizers
    from musiclm.data import bundled

    source = bundled(tokenizers.create("grid"))
    random = np.random.RandomState(1)
    for i, p in enumerate(source.pieces("train")[:12]):
        score = source.tokenizer.decode(p.tokens)
        for track in score.tracks:
            for note in track.notes:
                note.pitch = int(np.clip(note.pitch + random.randint(-2, 3), 36, 81))
        midi.write(score, tmp_path / f"{i}.mid")
    command = [sys.executable, str(ROOT / "benchmarks" / "judge_apart.py"), "--kind", "chorale", "--samples"]
    done = subprocess.run([*command, str(tmp_path), "-n", "12", "--json"], capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    assert report["verdict"]["n"] == 12 and report["split"] == "validation"
    assert report["verdict"]["scores"]["random forest"]["accuracy"] > 0.8
    assert next(p["name"] for p in report["pieces"]["sampled"]).endswith(".mid")
