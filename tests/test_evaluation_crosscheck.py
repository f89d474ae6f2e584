"""The measures beside those of other programs: MusPy, smg-metrics and music21, where they are installed.

    pip install -c constraints.txt -e ".[test,crosscheck]" && pytest tests/test_evaluation_crosscheck.py

Where definitions agree, values agree to rounding. Where they do not, the test makes the other's definition from ours.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from symusic import Note, Score, TimeSignature, Track

from musiclm import midi, tokenizers
from musiclm.data import bundled
from musiclm.evaluation import cadences, chorale, harmony, music_metrics, rhythm, texture
from musiclm.evaluation.music_metrics import notes_of

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

FOLDER = Path(__file__).parent / "data"
FIFTHS = ["F", "C", "G", "D", "A", "E", "B", "F#", "C#", "G#", "D#", "A#", "E#"]
RESOLUTION = 24  # ticks in a quarter, so that every tick is on the grids of all programs


def random_score(seed: int, num_notes: int = 120, *, is_silent: bool = True) -> Score:
    """Return two tracks and drums in 4/4 with a bar of silence or without.

    No two notes of a pitch overlap, and none ends on a quarter.
    """
    draw = np.random.default_rng(seed)
    score = Score(RESOLUTION)
    score.time_signatures.append(TimeSignature(0, 4, 4))
    for program, is_drum in ((0, False), (40, False), (0, True)):
        track = Track("", program, is_drum)
        taken: dict[int, int] = {}
        for step in np.sort(draw.integers(0, 40 * 4, num_notes // 3)).tolist():
            start = step * RESOLUTION // 4
            length = min(int(draw.integers(1, 5)) * RESOLUTION // 4, 40 * RESOLUTION - start) - 1
            pitch = (
                int(draw.integers(36, 84))
                if is_drum
                else int(draw.choice([48, 50, 52, 53, 55, 57, 59, 60, 64, 66])) + program // 10
            )
            if (is_silent and 64 <= step < 80) or taken.get(pitch, -1) >= start:
                continue
            taken[pitch] = start + length
            track.notes.append(Note(start, length, pitch, 80))
        score.tracks.append(track)
    score.tracks[0].notes.insert(0, Note(0, RESOLUTION // 2, 45, 80))
    return score


def written(score: Score, folder: Path) -> str:
    path = folder / "piece.mid"
    score.dump_midi(str(path))
    return str(path)


def chorales(count: int) -> list[Any]:
    grid = tokenizers.create("grid")
    return [grid.decode(piece.tokens) for piece in bundled(grid).pieces("test")[:count]]


@pytest.mark.parametrize("seed", range(8))
def test_muspy_finds_the_same(seed: int, tmp_path: Path):
    muspy = pytest.importorskip("muspy")
    score = random_score(seed)
    music, notes = muspy.read_midi(written(score, tmp_path)), notes_of(score)
    assert music.resolution == RESOLUTION
    assert music_metrics.pitch_class_entropy(notes) == pytest.approx(muspy.pitch_class_entropy(music))
    assert music_metrics.scale_consistency(notes) == pytest.approx(muspy.scale_consistency(music))
    assert texture.empty_bars(notes_without_drums(score)) == pytest.approx(
        muspy.empty_measure_rate(without_drums(music), 4 * RESOLUTION)
    )
    assert texture.empty_beats(notes_without_drums(score)) == pytest.approx(muspy.empty_beat_rate(without_drums(music)))


def notes_without_drums(score: Score) -> music_metrics.Notes:
    """Return the notes of the pitched tracks: MusPy lets drums last, here they do not."""
    pitched = score.copy()
    pitched.tracks = type(score.tracks)([track for track in score.tracks if not track.is_drum])
    return notes_of(pitched)


def without_drums(music: Any) -> Any:
    music = music.deepcopy()
    music.tracks = [track for track in music.tracks if not track.is_drum]
    return music


@pytest.mark.parametrize("seed", range(4))
def test_muspys_polyphony_is_ours_where_no_pitch_is_doubled(seed: int, tmp_path: Path):
    """MusPy counts pitches and we notes: the tracks' pitches here are apart by four semitones' register."""
    muspy = pytest.importorskip("muspy")
    score = random_score(seed)
    score.tracks[1].notes = type(score.tracks[1].notes)([n.shift_pitch(36) for n in score.tracks[1].notes])
    music = muspy.read_midi(written(score, tmp_path))
    assert music_metrics.polyphony(notes_of(score)) == pytest.approx(muspy.polyphony(music))


def test_muspys_groove_is_ours_on_its_positions(tmp_path: Path):
    """MusPy also compares empty bars, here there are none."""
    muspy = pytest.importorskip("muspy")
    for seed in range(8):
        score = random_score(seed, 300, is_silent=False)
        notes, music = notes_of(score), muspy.read_midi(written(score, tmp_path))
        assert all(len(bar) for bar in notes.by_bar())
        theirs = muspy.groove_consistency(music, 4 * RESOLUTION)
        assert music_metrics.groove_consistency(notes, RESOLUTION) == pytest.approx(theirs)


@pytest.mark.parametrize("seed", range(4))
def test_smg_metrics_finds_the_same(seed: int, tmp_path: Path):
    smg = pytest.importorskip("smg_metrics")
    score = random_score(seed)
    found, notes = smg.single_file_harmony(written(score, tmp_path)), notes_of(score)
    assert music_metrics.pitch_class_entropy(notes) == pytest.approx(found.pce)
    assert music_metrics.scale_consistency(notes) == pytest.approx(found.sc)


@pytest.mark.slow
def test_the_figures_of_real_songs_agree_with_smg_metrics(tmp_path: Path):
    smg = pytest.importorskip("smg_metrics")
    for path in sorted(FOLDER.glob("*.mid"))[:4]:
        score = midi.read(path)
        found, notes = smg.single_file_harmony(written(score, tmp_path)), notes_of(score)
        assert music_metrics.pitch_class_entropy(notes) == pytest.approx(found.pce, abs=1e-3), path.name
        assert music_metrics.scale_consistency(notes) == pytest.approx(found.sc, abs=1e-3), path.name


@pytest.mark.slow
def test_music21_finds_the_same_parallels_in_every_motion():
    """All motions of test chorales, and of those with two voices exchanged for faulty ones; antiparallels left out."""
    pytest.importorskip("music21")
    from music21.note import Note as Pitch
    from music21.voiceLeading import VoiceLeadingQuartet

    def spelled(upper: int, lower: int) -> tuple[Any, Any]:
        """Return two notes with a fifth spelled as one: MIDI has no names, and music21 goes by them."""
        place = {5 + 7 * i - 12 * ((5 + 7 * i) // 12): i for i in range(12)}  # on the line of fifths from F
        below = place[lower % 12]
        above = below + 1 if (upper - lower) % 12 == 7 else place[upper % 12]
        return Pitch(f"{FIFTHS[above]}{upper // 12 - 1}"), Pitch(f"{FIFTHS[below]}{lower // 12 - 1}")

    counts = np.zeros(3, int)
    seen = set()
    for score in [*chorales(8), *(spoilt(score) for score in chorales(4))]:
        voices = chorale.voices_of(notes_of(score, 16))
        assert voices is not None
        for upper, lower, upper_after, lower_after in chorale.motions(voices):
            if (upper, lower, upper_after, lower_after) in seen:
                continue
            seen.add((upper, lower, upper_after, lower_after))
            (first, below), (second, below_after) = spelled(upper, lower), spelled(upper_after, lower_after)
            quartet = VoiceLeadingQuartet(first, second, below, below_after)
            similar = (upper_after > upper) == (lower_after > lower)
            fifth = similar and (upper - lower) % 12 == 7 == (upper_after - lower_after) % 12
            octave = similar and (upper - lower) % 12 == 0 == (upper_after - lower_after) % 12
            if upper >= lower and upper_after >= lower_after:  # crossed voices have no fifth above the bass in music21
                assert (quartet.parallelFifth() and similar) == fifth, (upper, lower, upper_after, lower_after)
                assert (quartet.parallelUnisonOrOctave() and similar) == octave, (
                    upper,
                    lower,
                    upper_after,
                    lower_after,
                )
                counts += (1, fifth, octave)
    assert counts[0] > 500, "different motions"
    assert counts[1] > 5
    assert counts[2] > 5


def spoilt(score: Score) -> Score:
    """Return a chorale whose alto is the bass an octave and a fifth up, and whose tenor is the bass an octave up."""
    copied = score.copy()
    bass = min((t for t in copied.tracks), key=lambda t: np.mean([n.pitch for n in t.notes]))
    for track, up in zip([t for t in copied.tracks if t is not bass][1:3], (19, 12), strict=True):
        track.notes = type(track.notes)([n.shift_pitch(up) for n in bass.notes])
    return copied


@pytest.mark.slow
def test_music21_finds_the_same_key_by_the_same_profiles():
    pytest.importorskip("music21")
    from music21.analysis.discrete import KrumhanslKessler
    from music21.note import Note as Pitch
    from music21.stream import Stream

    agree = total = 0
    for score in chorales(20):
        voices = chorale.voices_of(notes_of(score))
        assert voices is not None
        stream = Stream()
        for row in voices.pitch:
            for begin, end, pitch in chorale.voice_notes(row):
                stream.insert(begin / 4, Pitch(pitch, quarterLength=(end - begin) / 4))
        theirs = KrumhanslKessler(stream).getSolution(stream)
        tonic, mode = theirs.tonic.pitchClass, theirs.mode
        total, agree = total + 1, agree + (cadences.key_of(voices) == tonic + 12 * (mode == "minor"))
    assert agree == total


@pytest.mark.slow
def test_music21_names_the_same_chords():
    pytest.importorskip("music21")
    from music21.chord import Chord

    seen: set[frozenset[int]] = set()
    for score in chorales(20):
        voices = chorale.voices_of(notes_of(score, 16))
        assert voices is not None
        seen |= {frozenset(p % 12 for p in pitches) for pitches in voices.beats()}
    assert len(seen) > 100
    for classes in seen:
        forte = Chord(sorted(classes)).forteClass
        assert (classes in chorale.TRIAD_CLASSES) == (forte in ("3-11A", "3-11B")), classes
        assert (classes in chorale.SEVENTH_CLASSES) == (forte in ("4-27A", "4-27B", "4-20", "4-26", "4-28")), classes
        assert harmony.has_semitone(set(classes)) == any(
            (a - b) % 12 in (1, 11) for a, b in itertools.combinations(classes, 2)
        )


def test_scipys_entropy_is_ours():
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(0).integers(0, 9, 200)
    _, counts = np.unique(values, return_counts=True)
    assert rhythm.entropy(values) == pytest.approx(stats.entropy(counts, base=2))
