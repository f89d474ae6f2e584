"""The recipes of the score model's data: styles, the bundled chorales, the split, and bands by MMA."""

from __future__ import annotations

import gzip
import random
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest
from symusic import Note, Score, Tempo, Track

from musiclm import midi, tokenizers
from musiclm.data import open_source
from musiclm.midi import parts
from musiclm.tokenizers.score import style_of
from musiclm.tokenizers.vocabulary import Kind

sys.path.append(str(Path(__file__).parents[1] / "recipes"))

import band_data
import score_data

DRUMS = -1
BEATS = b"".join(b"%.1f %d %d\n" % (0.5 * i, i % 2 == 0, i % 4 == 0) for i in range(72))  # 120 a minute


def of_programs(*programs: int) -> Score:
    """Return a score with a track of each program."""
    score = Score(480)
    score.tempos.append(Tempo(0, 120))
    for program in programs:
        track = Track("MELODY", max(program, 0), program == DRUMS)
        track.notes.extend(Note(480 * i, 480, 60 + i % 12, 80) for i in range(70))
        score.tracks.append(track)
    return score


@pytest.mark.parametrize(
    ("name", "programs", "style"),
    [
        ("openhymnal-midi", [0], "hymn"),
        ("openscore-lieder-midi", [0, 52], "lied"),
        ("openscore-orchestra-midi", [40], "orchestra"),
        ("pop909", [0, 52], "pop-piano"),
        ("groove-v1.0.0-midi", [DRUMS], "drums"),
        ("free-game-midi", [0, 33, DRUMS], "band"),
        ("free-game-midi-2", [6, 6], "piano"),
        ("free-game-midi-2", [0, 6], "band"),
        ("free-game-midi", [0, DRUMS], "band"),
        ("free-game-midi", [73], "band"),
        ("free-game-midi", [DRUMS], "drums"),
        ("pop909-bands", [0, 33, DRUMS], "band"),
        ("chopin-first-editions-midi", [0], "piano"),
        ("chopin-first-editions-midi", [42], None),
        ("polish-scores-sample-midi", [0, 2], "piano"),
        ("polish-scores-sample-midi", [0, 52], "lied"),
        ("polish-scores-sample-midi", [52, 52], "hymn"),
        ("polish-scores-sample-midi", [52], None),
        ("polish-scores-sample-midi", [19], None),
        ("polish-scores-sample-midi", [19, 52], None),
        ("polish-scores-sample-midi", [0, 40, 41, 42], None),
        ("polish-scores-sample-midi", [40, 41, 42, 68], "orchestra"),
    ],
)
def test_style_of_a_piece(name: str, programs: list[int], style: str | None):
    assert score_data.style_of(name, of_programs(*programs)) == style


def test_a_marked_style_is_read_from_the_file():
    score = of_programs(0)
    score_data.mark_style(score, "hymn")
    assert style_of(midi.parse(midi.to_bytes(score), "hymn")) == "hymn"


def test_the_set_of_chorales(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["score_data.py", str(tmp_path), "-o", str(tmp_path), "--sets", "chorales"])
    score_data.main()
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.mid"))
    table = score_data.split_table()
    assert Counter(table[name][0] for name in files) == {"train": 228, "validation": 76, "test": 77}
    assert all(table[name][0] == name.split("/")[1] for name in files)
    score = midi.read(tmp_path / files[0])
    assert [track.program for track in score.tracks] == [52] * 4
    ids, left_out = tokenizers.create("score").encode(score)
    assert left_out <= len(ids) // 100  # unisons
    assert style_of(score) == "chorale"


def test_the_table_has_no_two_rows_of_a_file_and_bands_are_for_training():
    names = gzip.decompress(score_data.SPLIT.read_bytes()).decode().splitlines()[1:]
    table = score_data.split_table()
    assert len(table) == len(names)
    songs = score_data.training_songs(table)
    assert "001" in songs and "002" not in songs and len(songs) == 724
    new = [row for name, row in table.items() if name.startswith("free-game-midi-2/")]
    assert len(new) == 107 and {split for split, copy_of in new if not copy_of} == {"train", "validation", "test"}


def test_beats_stay_where_they_are_annotated():
    beats = score_data.beats_of(of_programs(0).to("second"), BEATS)
    assert beats.numerator == 4
    assert [beats.quarters(seconds) for seconds in (0, 0.5, 1.25)] == [0, 1, 2.5]


def test_chords_of_beats_and_their_names():
    text = "0.0 1.0 N\n1.0 2.0 C#:min7/5\n2.0 3.0 F:sus4(b7)\n"
    assert band_data.chords_of_beats(text, lambda seconds: 2 * seconds) == [
        "z",
        "z",
        "C#m7",
        "C#m7",
        "F7sus4",
        "F7sus4",
    ]
    assert band_data.written(("C", "C", "Am", "Am")) == "C / Am /"


def test_the_program_of_mma():
    chords = ["z"] * 6 + ["C", "C"] + (["F"] * 8 + ["G"] * 8) * 8
    melody = Track("MELODY", 0, False)
    melody.notes.append(Note(6 * band_data.TICKS, 240, 60, 80))
    lead = band_data.Lead(melody, chords, 92.5)
    arranged = band_data.arrange(lead, band_data.FAMILIES[0], random.Random(1))
    lines = arranged.text.splitlines()
    assert (arranged.first_bar, arranged.bars) == (1, len(chords) // 4 - 1)
    assert lines[1] == "Tempo 92.5" and lines[2].startswith("Groove ")
    bars = [line for line in lines if line[0].isdigit()]
    assert len(bars) == arranged.bars
    assert bars[0] == "1 z / C /" and bars[1] == "2 F / / /" and bars[-1].endswith("G / / /")
    assert arranged == band_data.arrange(lead, band_data.FAMILIES[0], random.Random(1))


def test_alike_blocks_have_one_groove():
    verse, chorus = [("C",) * 4] * 8, [("F",) * 4] * 8
    assert band_data.block_grooves([*verse, *chorus, *verse, *chorus[:5]], ["one", "two"]) == [
        "one",
        "two",
        "one",
        "two",
    ]


def test_without_mma_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["band_data.py", str(tmp_path), "-o", str(tmp_path)])
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(SystemExit, match="'mma' is missing"):
        band_data.main()


def test_bands_need_four_in_a_bar():
    in_three = b"".join(b"%.1f 0 %d\n" % (0.5 * i, i % 3 == 0) for i in range(72))
    song = band_data.Song("001", midi.to_bytes(of_programs(0)), in_three, b"0.0 35.0 C:maj\n")
    assert band_data.band(song, seed=1) is None


CHORDS = b"".join(
    b"%d %d %s\n" % (2 * i, 2 * i + 2, [b"C:maj", b"A:min7", b"F:maj7", b"G:7"][i % 4]) for i in range(17)
)


@pytest.mark.skipif(shutil.which("mma") is None, reason="the program mma is not installed")
def test_a_band_plays_the_melody_over_its_chords():
    song = band_data.Song("001", midi.to_bytes(of_programs(0)), BEATS, CHORDS)
    score = band_data.band(song, seed=1)
    assert score is not None
    melody = score.tracks[-1]
    assert melody.program in band_data.MELODIES
    assert melody.program not in {track.program for track in score.tracks[:-1] if not track.is_drum}
    assert [note.time for note in melody.notes] == [480 * i for i in range(68)]
    assert any(track.is_drum for track in score.tracks)
    assert score.tempos[0].qpm == pytest.approx(120, abs=0.1)
    assert style_of(score) == "band"
    again = band_data.band(song, seed=1)
    assert again is not None and midi.to_bytes(again) == midi.to_bytes(score)


def test_aligned_songs_are_all_for_training(tmp_path: Path):
    (tmp_path / band_data.ALIGNED).mkdir()
    for i in range(30):
        midi.write(of_programs(i % 4, 40), tmp_path / band_data.ALIGNED / f"{i:03}.mid")
    band_data.write_split(tmp_path, [path.name for path in (tmp_path / band_data.ALIGNED).iterdir()])
    corpus = open_source(str(tmp_path), tokenizers.create("score"))
    assert len(corpus.pieces("train")) > 0
    assert not corpus.pieces("validation") and not corpus.pieces("test")


@pytest.mark.skipif(shutil.which("mma") is None, reason="the program mma is not installed")
def test_two_aligned_bands_are_one_pair_with_the_same_bars_and_chords():
    song = band_data.Song("001", midi.to_bytes(of_programs(0)), BEATS, CHORDS)
    score = band_data.aligned_bands(song, seed=1)
    assert score is not None
    again = band_data.aligned_bands(song, seed=1)
    assert again is not None and midi.to_bytes(again) == midi.to_bytes(score)
    ((kind, source, target),) = parts.extract_pairs(score)
    assert kind == "style"
    assert source.tracks[-1].name == "source: Melody"
    assert not any(track.name.startswith("source") for track in target.tracks)
    assert {t.name.removeprefix("source: ") for t in source.tracks} != {t.name for t in target.tracks}
    tokenizer = tokenizers.create("score-pairs")
    (pair,) = tokenizer.split(tokenizer.encode(score)[0])
    chords = [[i for i in side.tolist() if tokenizer.vocabulary[i].kind is Kind.CHORD] for side in pair]
    assert chords[0] == chords[1] and len(set(chords[0])) >= 4


@pytest.mark.skipif(shutil.which("mma") is None, reason="the program mma is not installed")
@pytest.mark.parametrize("family", band_data.FAMILIES, ids=lambda family: family.grooves[0])
def test_mma_knows_each_groove(family: band_data.Family):
    grooves = [groove for groove in (*family.grooves, family.fill, family.ending) if groove]
    score = band_data.play("Tempo 100\n" + "".join(f"Groove {groove}\n1 C\n" for groove in grooves))
    assert any(track.is_drum for track in score.tracks)
    assert len(score.tracks) > 2
