"""Reading aligned scores and performances: match files of both versions, links to the score MIDI, folds."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
from symusic import Note, Score, TimeSignature, Track

from musiclm import midi
from musiclm.errors import CorpusError
from musiclm.performing.asap import AsapPerformance, folds, read_asap, read_match
from musiclm.performing.notes import keyboard_notes
from musiclm.performing.parameters import parameters_of
from tests.real_data import DATA

HEAD = "info(midiClockUnits,480).\ninfo(midiClockRate,500000).\n"
VERSION_1 = (
    HEAD
    + """scoreprop(timeSignature,3/8,0:1,0,-1.0000).
scoreprop(timeSignature,2/4,2:1,0,3.0000).
snote(n1-1,[G,n],4,0:1,0,1/8,-1.0000,0.0000,[v1,staff1])-note(n0,67,480,700,64,0,0).
snote(n2-1,[C,#],5,1:1,0,3/8,0.0000,3.0000,[v1,staff1,accent])-note(n1,73,960,2000,90,0,0).
snote(n3-1,[B,b],3,1:1,0,3/8,0.0000,3.0000,[])-note(n2,58,980,2000,50,0,0).
insertion-note(n9,60,990,1000,20,0,0).
snote(n4-1,[E,n],4,2:1,0,1/4,3.0000,4.0000,[v1,staff1])-deletion.
snote(n5-1,[F,n],4,2:2,0,1/4,4.0000,5.0000,[v1,staff1])-note(n5,65,3360,3800,70,0,0).
sustain(900,127).
sustain(1500,0).
"""
)
VERSION_5 = (
    HEAD
    + """info(timeSignature,[3/8]).
meta(timeSignature,3/8,0,-1.0).
meta(timeSignature,2/4,2,3.0).
snote(n2-1,[C,#],5,1:1,0,3/8,0.0,3.0,[])-note(n1,[C,#],5,960,2000,2400,90).
snote(n1-1,[G,n],4,0:1,0,1/8,-1.0,0.0,[])-note(n0,[G,n],4,480,700,700,64).
snote(n3-1,[B,b],3,1:1,0,3/8,0.0,3.0,[])-note(n2,[B,b],3,980,2000,2400,50).
insertion-note(n9,[C,n],4,990,1000,1000,20).
snote(n4-1,[E,n],4,2:1,0,1/4,3.0,4.0,[])-deletion.
snote(n5-1,[F,n],4,2:2,0,1/4,4.0,5.0,[])-note(n5,[F,n],4,3360,3800,3800,70).
sustain(1500,0).
sustain(900,127).
"""
)
TABLE = "composer,title,midi_score,midi_performance,robust_note_alignment,match_file\n"


def score() -> Score:
    """Return the score MIDI of the match files above."""
    made = Score(480)
    for at, numerator, denominator in ((0, 1, 8), (240, 3, 8), (960, 2, 4)):
        made.time_signatures.append(TimeSignature(at, numerator, denominator))
    track = Track("Piano", 0)
    for at, duration, pitch in ((0, 240, 67), (240, 720, 73), (240, 720, 58), (960, 480, 64), (1440, 480, 65)):
        track.notes.append(Note(at, duration - 1, pitch, 80))
    made.tracks.append(track)
    return made


@pytest.fixture
def asap(tmp_path: Path) -> Path:
    folder = tmp_path / "asap"
    folder.mkdir()
    midi.write(score(), folder / "midi_score.mid")
    (folder / "A.match").write_text(VERSION_1)
    (folder / "B.match").write_text(VERSION_5)
    (folder / "C.match").write_text(HEAD)  # no alignment, as one file of ASAP
    rows = ["A.mid,1.0,A.match", "B.mid,0.0,B.match", "C.mid,1.0,C.match", "D.mid,0.0,", "E.mid,1.0,absent.match"]
    (folder / "metadata.csv").write_text(TABLE + "".join(f"Bach,Tune,midi_score.mid,{row}\n" for row in rows))
    return folder


@pytest.mark.parametrize("text", [VERSION_1, VERSION_5], ids=["1.0.0", "5.0"])
def test_a_match_file_of_either_version_has_the_aligned_notes_and_the_pedal(text: str, tmp_path: Path):
    path = tmp_path / "a.match"
    path.write_text(text)
    found = read_match(path)
    order = np.argsort(found.onset_s)
    assert found.onset[order].tolist() == [0, 0.5, 0.5, 3]  # an eighth is the beat first, then a quarter
    assert found.pitch[order].tolist() == [67, 73, 58, 65]
    assert found.onset_s[order] == pytest.approx(np.array([480, 960, 980, 3360]) / 960)
    assert found.end_s[order] == pytest.approx(np.array([700, 2000, 2000, 3800]) / 960)
    assert found.velocity[order].tolist() == [64, 90, 50, 70]
    assert found.is_down(np.array([0.0, 0.95, 1.5, 1.6])).tolist() == [False, True, True, False]


def test_the_notes_of_the_score_get_their_partners(asap: Path):
    performances = read_asap(asap, window=0)
    assert [(p.piece, p.name, p.is_robust) for p in performances] == [
        (("Bach", "Tune"), "A.mid", True),
        (("Bach", "Tune"), "B.mid", False),
    ]
    for each in performances:
        assert each.notes.pitch.tolist() == [67, 58, 73, 64, 65]
        assert each.parameters.mask.tolist() == [True, True, True, False, True]
        assert (each.parameters.velocity * 127).round().tolist() == [64, 50, 90, 0, 70]
        assert each.parameters.pedal.tolist() == [0, 1, 1, 0, 0]
        assert each.parameters.deviation == pytest.approx(np.array([0, 10, -10, 0, 0]) / 960)
        assert each.notes.position.tolist() == [1, 0, 0, 0, 1]


def test_ornaments_that_the_score_plays_one_after_the_other_are_found(asap: Path):
    made = score()
    made.tracks[0].notes.append(Note(1200, 120, 76, 80))
    midi.write(made, asap / "midi_score.mid", force=True)
    grace = "snote(n7-1,[E,n],5,2:2,0,0,4.0,4.0,[grace])-note(n7,76,3300,3350,66,0,0).\n"
    (asap / "A.match").write_text(VERSION_1 + grace)
    found = read_asap(asap)[0]
    assert found.parameters.velocity[found.notes.pitch == 76] == pytest.approx(66 / 127)


def test_a_note_far_from_its_chord_is_a_wrong_alignment(asap: Path):
    more = "snote(n7-1,[E,n],5,1:1,0,3/8,0.0,3.0,[])-note(n7,76,2900,2950,66,0,0).\n"
    made = score()
    made.tracks[0].notes.append(Note(240, 720, 76, 80))
    midi.write(made, asap / "midi_score.mid", force=True)
    (asap / "A.match").write_text(VERSION_1 + more)
    found = read_asap(asap)[0]
    assert found.parameters.mask[found.notes.pitch == 76].tolist() == [False]
    assert found.parameters.mask.sum() == 4


def test_a_bar_that_the_score_has_more_moves_what_follows(asap: Path):
    draw = np.random.default_rng(0)
    pitches = draw.integers(40, 90, 1200).tolist()
    names = ["C,n", "C,#", "D,n", "D,#", "E,n", "F,n", "F,#", "G,n", "G,#", "A,n", "A,#", "B,n"]
    lines = [
        f"snote(n{i}-1,[{names[p % 12]}],{p // 12 - 1},1:1,0,1/4,{i}.0,{i + 1}.0,[])"
        f"-note(n{i},{p},{480 * i},{480 * i + 400},60,0,0)."
        for i, p in enumerate(pitches)
    ]
    (asap / "A.match").write_text(HEAD + "scoreprop(timeSignature,4/4,1:1,0,0.0).\n" + "\n".join(lines))
    made = Score(480)
    made.tracks.append(Track("Piano", 0))
    for i, p in enumerate(pitches):
        made.tracks[0].notes.append(Note(480 * i + 1920 * (i >= 600), 480, p, 80))
    midi.write(made, asap / "midi_score.mid", force=True)
    assert read_asap(asap)[0].parameters.mask.mean() > 0.98


def test_a_chord_far_out_of_order_is_a_wrong_alignment(asap: Path):
    times = [480 * i + 2400 * (i == 20) for i in range(40)]
    lines = [
        f"snote(n{i}-1,[C,n],4,1:1,0,1/4,{i}.0,{i + 1}.0,[])-note(n{i},60,{at},{at + 400},60,0,0)."
        for i, at in enumerate(times)
    ]
    (asap / "A.match").write_text(HEAD + "scoreprop(timeSignature,4/4,1:1,0,0.0).\n" + "\n".join(lines))
    made = Score(480)
    made.tracks.append(Track("Piano", 0))
    for i in range(40):
        made.tracks[0].notes.append(Note(480 * i, 480, 60, 80))
    midi.write(made, asap / "midi_score.mid", force=True)
    with pytest.raises(CorpusError, match=r"B\.match' aligns none"):
        read_asap(asap)
    (asap / "B.match").unlink()
    found = read_asap(asap)[0].parameters
    assert np.flatnonzero(~found.mask).tolist() == [20]
    assert found.tempo == pytest.approx(np.zeros(40), abs=1e-9)


def test_only_wanted_pieces_are_read(asap: Path):
    assert read_asap(asap, [("Bach", "Another")]) == []


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("metadata.csv", "a,b\n1,2\n", "not the table of ASAP"),
        ("A.match", "nonsense\n", "not a match file"),
        ("A.match", "".join(line for line in VERSION_1.splitlines(True) if "timeSig" not in line), "no time signature"),
    ],
)
def test_damaged_files_are_named(asap: Path, file: str, content: str, message: str):
    (asap / file).write_text(content)
    with pytest.raises(CorpusError, match=message) as error:
        read_asap(asap)
    assert file in str(error.value)


def test_a_folder_without_the_table_is_named(tmp_path: Path):
    with pytest.raises(CorpusError, match="name the folder of ASAP"):
        read_asap(tmp_path)


def test_folds_are_disjoint_whole_pieces_of_about_equal_size():
    notes = keyboard_notes(score())
    assert notes is not None
    at = notes.onset
    played = parameters_of(notes, at, at + 1, np.full(5, 60), np.zeros(5, bool))
    performances = [
        AsapPerformance(piece=("A", f"{i:02}"), name=f"{i}-{j}", notes=notes, parameters=played, is_robust=True)
        for i in range(23)
        for j in range(1 + i % 4)
    ]
    found = folds(performances)
    pieces = [piece for fold in found for piece in fold]
    assert sorted(pieces) == [("A", f"{i:02}") for i in range(23)]
    sizes = [sum(p.piece in fold for p in performances) for fold in found]
    assert max(sizes) - min(sizes) <= 1
    assert folds(performances[::-1]) == found


def test_real_alignments_are_nearly_complete(tmp_path: Path):
    archive = DATA / "bench" / "asap-aligned.tar.xz"
    if not archive.is_file():
        pytest.skip("needs asap-aligned.tar.xz: set MUSICLM_DATA to the folder that has it")
    with tarfile.open(archive, "r|xz") as tar:  # its first piece, with two performances
        for member in tar:
            name = member.name.partition("/")[2]
            if member.isfile() and name.startswith(("metadata.csv", "Haydn/Keyboard_Sonatas/48-2/")):
                file = tar.extractfile(member)
                assert file is not None
                (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / name).write_bytes(file.read())
            elif member.isfile():
                break
    found = read_asap(tmp_path)
    assert len(found) == 2
    for each in found:
        assert each.parameters.mask.mean() > 0.9
        assert 0.03 < each.parameters.velocity[each.parameters.mask].std() < 0.3
        assert 0.3 < each.parameters.seconds_per_quarter < 2
