"""Finding music in folders and archives, and cleaning it."""

from __future__ import annotations

import io
import lzma
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from symusic import Note, Score, Tempo, TimeSignature, Track

from musiclm import midi
from musiclm.data import sources
from musiclm.data.clean import CUT_TO, LONGEST, clean
from musiclm.data.parse import read_piece
from musiclm.errors import CorpusError, Drop, Reason
from musiclm.tokenizers import create
from tests.data_files import folder_of, midi_bytes, piece


def tar_of(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:" + path.suffix.removeprefix(".").replace("tgz", "gz")) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def zip_of(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def found(*paths: Path) -> dict[str, bytes | None]:
    events = [e for e in sources.walk(paths) if isinstance(e, sources.Found) and e.reason is None]
    return {e.name: e.data if e.path is None else e.path.read_bytes() for e in events}


def problems(*paths: Path) -> list[str]:
    return [e.text for e in sources.walk(paths) if isinstance(e, sources.Problem)]


FILES = {
    "a.mid": b"a",
    "deep/er/b.MIDI": b"b",
    "deep/c.kar": b"c",
    "deep/c.RMI": b"c",
    "deep/d.abc": b"X:1\n",
    "deep/no.txt": b"no",
}
MUSIC = {name: data for name, data in FILES.items() if not name.endswith(".txt")}


def test_a_folder_and_archives_of_each_kind_give_the_same_files(tmp_path: Path):
    assert found(folder_of(tmp_path / "folder", FILES)) == MUSIC
    for archive in ("a.tar.gz", "b.tar.xz", "c.tgz", "d.tar"):
        assert found(tar_of(tmp_path / archive, FILES)) == MUSIC, archive
    assert found(zip_of(tmp_path / "e.zip", FILES)) == MUSIC


def test_archives_in_folders_are_read_and_archives_in_archives_are_named(tmp_path: Path):
    folder = folder_of(tmp_path / "folder", {"x.mid": b"x"})
    inner = zip_of(tmp_path / "inner.zip", {"z.mid": b"z"}).read_bytes()
    zip_of(folder / "more.zip", {"y.mid": b"y", "inner.zip": inner})
    assert found(folder) == {"more.zip/y.mid": b"y", "x.mid": b"x"}
    assert "an archive within an archive" in problems(folder)[0]


def test_names_that_lead_outside_write_nothing_there(tmp_path: Path):
    (tmp_path / "in").mkdir()
    archive = tar_of(
        tmp_path / "in" / "evil.tar.xz", {"../evil.mid": b"e", "/tmp/evil.mid": b"f", "a\n\x1b[1m.mid": b"g"}
    )
    before = sorted(tmp_path.rglob("*"))
    names = list(found(archive))
    assert len(names) == 3 and all(name.isprintable() for name in names)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("kind", ["tar.xz", "tar.gz", "zip"])
def test_a_cut_archive_gives_what_is_before_the_damage_and_says_so(tmp_path: Path, kind: str):
    rng = np.random.default_rng(0)
    files = {f"{i}.mid": rng.bytes(50_000) for i in range(10)}
    path = tmp_path / f"a.{kind}"
    whole = (zip_of if kind == "zip" else tar_of)(path, files).read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    got = found(path)
    assert all(files[name] == data for name, data in got.items())
    assert len(got) < 10 and "is damaged" in problems(path)[0]
    if kind != "zip":  # a zip has its list at the end
        assert len(got) >= 4


def test_bombs_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sources, "MAX_BYTES", 100_000)
    for path in (
        zip_of(tmp_path / "a.zip", {"big.mid": bytes(10_000_000), "small.mid": b"s"}),
        tar_of(tmp_path / "b.tar.xz", {"big.mid": bytes(10_000_000), "small.mid": b"s"}),
    ):
        events = [e for e in sources.walk([path]) if isinstance(e, sources.Found)]
        assert [e.reason is None for e in events] == [False, True]
        assert all(len(e.data or b"") <= 100_000 for e in events)


def test_a_tar_whose_header_grows_without_end_is_not_read(tmp_path: Path):
    header = tarfile.TarInfo("././@PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, 1 << 40
    path = tmp_path / "a.tar.xz"
    path.write_bytes(lzma.compress(header.tobuf() + bytes(30_000_000)))
    assert found(path) == {}
    assert len(problems(path)) == 1


def test_a_collection_of_abc_tunes_is_one_file_a_tune(tmp_path: Path):
    tunes = "".join(f"X:{i}\nT:t\nM:4/4\nL:1/8\nK:{key}\nDEFG ABcd|d4 D4|]\n\n" for i, key in enumerate("DGA"))
    folder = folder_of(tmp_path, {"tunes.abc": tunes.encode(), "one.abc": tunes.split("\n\n")[0].encode()})
    read = found(folder)
    assert list(read) == ["one.abc", "tunes.abc#00001", "tunes.abc#00002", "tunes.abc#00003"]
    for name, data in read.items():
        assert data is not None
        record = read_piece(data, name, create("grid"))
        assert record.reason is None and record.facts["num_notes_read"] == 10, name


def test_missing_and_unknown_sources_are_named(tmp_path: Path):
    with pytest.raises(CorpusError, match="no folder or file"):
        sources.check([tmp_path / "nowhere"])
    (tmp_path / "a.txt").touch()
    with pytest.raises(CorpusError, match="neither a folder nor a file"):
        sources.check([tmp_path / "a.txt"])


def test_a_clean_piece_stays_as_it_is():
    score = piece(1)
    before = midi.to_bytes(score)
    assert not clean(score)
    assert midi.to_bytes(score) == before


def test_what_is_not_music_is_taken_out_and_counted():
    score = Score(480)
    tune, drums = Track("", 0), Track("", 0, True)
    for note in (Note(7700, 480, 62, 64), Note(7700, 480 * 500, 64, 64)):
        tune.notes.append(note)
    drums.notes.append(Note(8000, 60, 36, 64))
    score.tracks.append(tune)
    score.tracks.append(drums)
    for tempo in (Tempo(0, 5000), Tempo(100, 1), Tempo(200, 90)):
        score.tempos.append(tempo)
    score.time_signatures.append(TimeSignature(0, 0, 4))
    score.time_signatures.append(TimeSignature(0, 4, 4))
    done = clean(score)
    assert done == {
        "stuck notes cut": 1,
        "tempi out of reason mended": 2,
        "metres out of reason dropped": 1,
        "silent beginnings cut": 1,
    }
    notes = sorted((n.time, n.duration, n.pitch) for t in score.tracks for n in t.notes)
    assert notes == [(20, 480, 62), (20, CUT_TO * 480, 64), (320, 60, 36)]
    assert [(t.time, round(t.qpm)) for t in score.tempos] == [(0, 90)]
    assert LONGEST * 480 < 480 * 500


def test_music_beside_the_grid_by_one_shift_is_moved_onto_it_and_a_performance_is_not():
    score = piece(2)
    shifted = piece(2)
    for track in shifted.tracks:
        track.notes = type(track.notes)([Note(n.time + 47, n.duration, n.pitch, n.velocity) for n in track.notes])
    assert clean(shifted) == {"pieces moved onto the grid": 1}
    assert [n for t in shifted.tracks for n in t.notes] == [n for t in score.tracks for n in t.notes]
    draw = np.random.default_rng(0)
    performed = piece(2)
    for track in performed.tracks:
        times = draw.integers(0, 15_000, len(track.notes))
        track.notes = type(track.notes)(
            [Note(int(at), 100, n.pitch, 64) for at, n in zip(times, track.notes, strict=True)]
        )
    assert "pieces moved onto the grid" not in clean(performed)


def test_programs_are_changed_and_drums_are_not():
    score = piece(3)
    assert clean(score, {73: 52, 0: 1}) == {"tracks given another program": 2}
    assert [(t.program, t.is_drum) for t in score.tracks] == [(52, False), (1, False), (0, True)]


def test_facts_of_a_piece():
    score = Score(480)
    track = Track("", 40)
    for i, pitch in enumerate((60, 62, 64, 65, 67, 69, 71, 72)):  # C major, a quarter each
        track.notes.append(Note(i * 480, 480, pitch, 70))
    track.notes.append(Note(8 * 480 + 50, 960, 60, 70))
    score.tracks.append(track)
    score.tempos.append(Tempo(0, 60))
    facts = read_piece(midi.to_bytes(score), "x.mid", create("score")).facts
    assert facts["key"] == "C major" and facts["programs"] == {"40": 9} and facts["flat"]
    assert (facts["low"], facts["high"], facts["off_grid"], facts["onsets"]) == (60, 72, 1, 9)
    assert facts["seconds"] == pytest.approx(10 + 50 / 480, abs=0.01)
    assert facts["tempo"] == 60 and facts["metre"] == "none"
    assert facts["lengths"] == {"3": 8, "4": 1}


def test_an_empty_or_drum_only_piece_has_no_key():
    score = Score(480)
    track = Track("", 0, True)
    track.notes.append(Note(0, 10, 36, 70))
    score.tracks.append(track)
    facts = read_piece(midi.to_bytes(score), "x.mid", create("score")).facts
    assert facts["key"] is None and facts["low"] is None
    assert read_piece(b"", "x.mid", create("score")).reason == Drop(Reason.EMPTY)
    assert read_piece(midi_bytes(1)[:100], "x.mid", create("score")).reason == Drop(Reason.TRACK_CUT)
