"""Drum performances quantized to scores: hits on grids, what is merged, the official split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from symusic import Note, Score, Tempo, TimeSignature, Track

from musiclm import midi
from musiclm.errors import CorpusError
from musiclm.performing.groove import quantized, read_groove
from musiclm.performing.notes import is_score
from musiclm.performing.parameters import times_of
from tests.real_data import real_files

KICK, SNARE, HAT = 36, 38, 42


def played(hits: list[tuple[float, int, int]], qpm: float = 120) -> Score:
    """Return a drum performance of hits (onset in quarters, drum, velocity)."""
    score = Score(480)
    score.tempos.append(Tempo(0, qpm))
    score.time_signatures.append(TimeSignature(0, 4, 4))
    drums = Track("Drums", 0, True)
    for onset, drum, velocity in hits:
        drums.notes.append(Note(round(onset * 480), 40, drum, velocity))
    score.tracks.append(drums)
    return score


def test_hits_go_to_the_grid_and_what_they_are_early_or_late_is_kept():
    found = quantized(played([(0.02, KICK, 127), (0.98, SNARE, 90), (1.23, HAT, 60), (1.52, HAT, 80)], qpm=100))
    assert found is not None
    notes, parameters = found
    assert notes.onset.tolist() == [0, 1, 1.25, 1.5]
    assert parameters.seconds_per_quarter == pytest.approx(0.6)
    assert parameters.deviation == pytest.approx(np.array([0.02, -0.02, -0.02, 0.02]) * 0.6, abs=1e-3)
    assert (parameters.velocity * 127).round().tolist() == [127, 90, 60, 80]
    assert not parameters.tempo.any() and not parameters.articulation.any() and not parameters.pedal.any()
    onset_s, _ = times_of(notes, parameters)
    assert onset_s == pytest.approx(np.array([0.02, 0.98, 1.23, 1.52]) * 0.6, abs=1e-3)


def test_triplets_and_rolls_have_grids_of_their_own():
    swing = [(beat + part, HAT, 80) for beat in range(2) for part in (0.01, 0.34, 0.66)]
    roll = [(2 + i / 8 + 0.005, SNARE, 80) for i in range(8)]
    found = quantized(played(swing + roll))
    assert found is not None
    assert found[0].onset == pytest.approx([0, 1 / 3, 2 / 3, 1, 4 / 3, 5 / 3] + [2 + i / 8 for i in range(8)])
    assert is_score(found[0])


def test_two_hits_of_one_drum_at_one_place_are_one_the_loudest():
    found = quantized(played([(0.0, SNARE, 30), (0.03, SNARE, 110), (0.0, HAT, 60), (1.0, KICK, 90)]))
    assert found is not None
    notes, parameters = found
    assert notes.pitch.tolist() == [SNARE, HAT, KICK]
    assert (parameters.velocity * 127).round().tolist() == [110, 60, 90]
    assert notes.index.tolist() == [1, 2, 3]


def test_a_score_without_drums_has_no_groove():
    assert quantized(Score(480)) is None


@pytest.fixture
def groove(tmp_path: Path) -> Path:
    folder = tmp_path / "groove"
    (folder / "drummer1").mkdir(parents=True)
    for i, split in enumerate(("train", "validation", "test")):
        midi.write(played([(0.01 * i, KICK, 90), (1, SNARE, 100)]), folder / "drummer1" / f"{i}_{split}.mid")
    rows = [f"drummer1/{i}_{split}.mid,{split}" for i, split in enumerate(("train", "validation", "test"))]
    (folder / "info.csv").write_text("midi_filename,split\n" + "\n".join(rows) + "\n")
    return folder


def test_the_split_is_the_official_one(groove: Path):
    found = read_groove(groove)
    assert [(p.name, p.split) for p in found] == [
        ("drummer1/0_train.mid", "train"),
        ("drummer1/1_validation.mid", "validation"),
        ("drummer1/2_test.mid", "test"),
    ]


def test_a_folder_without_the_split_or_without_drums_is_named(groove: Path, tmp_path: Path):
    (groove / "info.csv").unlink()
    with pytest.raises(CorpusError, match="has no file info"):
        read_groove(groove)
    with pytest.raises(CorpusError, match="nowhere"):
        read_groove(tmp_path / "nowhere")


def test_real_grooves_keep_most_hits_and_come_back_to_a_millisecond():
    for name, data in real_files("groove-v1.0.0-midi", 6, stand_in=False):
        score = midi.parse(data, name)
        found = quantized(score)
        assert found is not None
        notes, parameters = found
        hits = np.concatenate([t.notes.numpy()["time"] for t in score.tracks])
        assert 0.85 * len(hits) < len(notes) <= len(hits), name
        onset_s, _ = times_of(notes, parameters)
        kept = np.array(
            [score.tracks[int(t)].notes[int(i)].time for t, i in zip(notes.track, notes.index, strict=True)]
        )
        assert np.abs(onset_s - kept / score.ticks_per_quarter * parameters.seconds_per_quarter).max() < 1e-3
        assert np.abs(parameters.deviation).max() < parameters.seconds_per_quarter / 8 + 1e-3
