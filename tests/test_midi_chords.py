"""Chord labels of `midi.chords`, and the script that measures them."""

from __future__ import annotations

import numpy as np
import pytest

from musiclm.midi import chords
from tests.data_files import benchmark


def labelled(pitches: list[int], bass: int | None = None, lengths: list[float] | None = None) -> tuple[int, str]:
    """Return the label of pitches that sound for so long, over a bass pitch; the lowest if left out."""
    weights = np.zeros((1, 12))
    for pitch, length in zip(pitches, lengths or [1.0] * len(pitches), strict=True):
        weights[0, pitch % 12] += length
    lowest = bass if bass is not None else min(pitches, default=-1)
    index = int(chords.label(weights, np.array([lowest % 12 if lowest >= 0 else -1]))[0])
    return chords.NO_CHORD if index < 0 else chords.CHORDS[index]


@pytest.mark.parametrize("root", range(12))
@pytest.mark.parametrize("quality", chords.QUALITIES)
def test_each_chord_in_root_position_is_labelled(root: int, quality: str):
    assert labelled([36 + root + interval for interval in chords.QUALITIES[quality]]) == (root, quality)


def test_the_bass_tells_chords_of_the_same_notes_apart():
    notes = [69, 72, 76, 79]  # a c e g
    assert labelled(notes, bass=45) == (9, "min7")
    assert labelled(notes, bass=36)[0] == 0
    assert labelled([60, 65, 67], bass=48) == (0, "sus4")


def test_an_inversion_keeps_its_root():
    assert labelled([52, 60, 67]) == (0, "maj")
    assert labelled([55, 60, 64, 72]) == (0, "maj")


def test_a_short_passing_note_makes_no_seventh():
    assert labelled([48, 60, 64, 67, 71], lengths=[2, 2, 2, 2, 0.25]) == (0, "maj")


def test_silence_one_note_and_a_cluster_are_no_chords():
    assert labelled([]) == chords.NO_CHORD
    assert labelled([60, 72]) == chords.NO_CHORD
    assert labelled(list(range(60, 72))) == chords.NO_CHORD


def test_labels_move_with_the_notes():
    rng = np.random.default_rng(3)
    weights, bass = (
        rng.gamma(0.3, size=(200, 12)),
        rng.integers(-1, 12, 200),
    )  # nothing is zero: no two chords score alike
    first = chords.label(weights, bass)
    moved = chords.label(np.roll(weights, 5, 1), np.where(bass >= 0, (bass + 5) % 12, -1))
    assert (first >= 0).sum() > 50
    for one, other in zip(first, moved, strict=True):
        assert (one < 0) == (other < 0)
        if one >= 0 and chords.CHORDS[one][1] not in ("aug", "dim7"):  # of these another root has the same notes
            root, quality = chords.CHORDS[one]
            assert chords.CHORDS[other] == ((root + 5) % 12, quality)


def test_annotations_are_mapped_and_weighed_by_time():
    script = benchmark("chord_labels")
    assert script.annotated("C#:min7/5") == (1, "min7")
    assert script.annotated("Bb:sus2") == (10, "sus4")
    assert script.annotated("N") == chords.NO_CHORD
    found = script.accuracy(
        [
            script.Half(2.0, (0, "maj"), (0, "maj7")),
            script.Half(1.0, (9, "min"), (0, "maj")),
            script.Half(1.0, (0, "sus4"), (0, "sus4")),
            script.Half(2.0, chords.NO_CHORD, chords.NO_CHORD),
        ]
    )
    expected = {"quarters": 4, "root": 3 / 4, "major/minor": 2 / 3, "quality": 1 / 4, "no chord": 1}
    assert found == pytest.approx(expected)
