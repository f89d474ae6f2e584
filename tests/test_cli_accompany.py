"""musiclm accompany and restyle: files, JSON, reproduction, and one line for each song or option that cannot be used."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from musiclm import midi
from musiclm.checkpoint import registry
from musiclm.generation import provenance
from tests.songs import events, song

SONG = song([(4, 4)] * 4, tracks="melody chords drums")
FAST = ("--draw", 1, "--seed", 3)


@pytest.fixture
def model(untrained) -> tuple[str, str]:
    return "--model", untrained("score-pairs")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    midi.write(SONG, tmp_path / "song.mid")
    return tmp_path / "song.mid"


def test_accompany_writes_the_song_with_the_parts_and_repro_makes_it_again(run, path: Path, model):
    code, out, err = run("accompany", path, "--parts", "piano,bass", *FAST, *model, "-o", "out.mid")
    assert (code, out) == (0, "out.mid\n"), err
    assert "writes acoustic grand piano, electric bass (finger)" in err and "seed 3" in err
    made = midi.read("out.mid")
    assert events(made)[: len(events(SONG))] == events(SONG)
    assert f"4 bars, {made.note_num()} notes ({made.note_num() - SONG.note_num()} new)" in err
    assert [track.program for track in made.tracks[3:]] == [0, 33]
    code, _, err = run("repro", "out.mid", "--prompt", path, *model)
    assert code == 0 and "the same" in err
    code, _, _ = run("accompany", path, "--parts", "piano,bass", *FAST, *model, "-o", "again.mid")
    assert code == 0 and Path("again.mid").read_bytes() == Path("out.mid").read_bytes()


def test_restyle_writes_the_melody_with_the_parts_of_a_style(run, path: Path, model):
    code, _, err = run("restyle", path, "--style", "band", "--chords", "Am F", *FAST, *model, "-o", "out.mid")
    assert code == 0 and "in the style 'band'" in err, err
    made = midi.read("out.mid")
    assert [-1 if t.is_drum else t.program for t in made.tracks] == [65, 0, 33, -1]
    record = provenance.read(made, "out.mid").request.to_record()
    assert record["task"] == "restyle" and record["chords"] == "Am F" and record["style"] == "band"
    assert run("repro", "out.mid", "--prompt", path, *model)[0] == 0


def test_the_help_speaks_of_the_options_that_there_are(run):
    """Texts of generate stood there: "see above" without anything above, and an automatic key of the new music."""
    for command in ("accompany", "restyle"):
        code, out, _ = run(command, "--help")
        text = " ".join(out.split())
        assert code == 0 and "see above" not in text and "those of --chords are" not in text
        assert "fewer outside the key of SONG" in text and "Each 8 bars are the best of D" in text


def test_json_says_what_was_written(run, path: Path, model):
    code, out, _ = run(
        "accompany", path, "--parts", "drums,7", "-n", 3, "--keep", 2, "--seed", 1, *model, "--json", "-o", "new"
    )
    document = json.loads(out)
    assert code == 0 and document["parts"] == ["clavinet", "drums"]
    assert len(document["outputs"]) == 2 == len({each["index"] for each in document["outputs"]})
    for each in document["outputs"]:
        made = midi.read(each["path"])
        assert each["num_notes"] == made.note_num() and each["bars"] == 4 and each["num_tokens"] > 0
        assert each["num_new_notes"] == made.note_num() - SONG.note_num() > 0


def test_bars_a_to_b_alone_get_new_notes(run, path: Path, model):
    assert run("accompany", path, "--parts", "bass", "--bars", "2-3", *FAST, *model, "-o", "out.mid")[0] == 0
    (bass,) = midi.read("out.mid").tracks[3:]
    assert {note.time // 1920 for note in bass.notes} <= {1, 2}


def test_a_page_shows_the_given_notes_pale(run, path: Path, model):
    code, out, _ = run("accompany", path, "--parts", "bass", *FAST, *model, "--html", "-o", "out.mid")
    assert code == 0 and out.split() == ["out.mid", "out.html"]
    assert "<svg" in Path("out.html").read_text("utf-8") or "<canvas" in Path("out.html").read_text("utf-8")


def test_a_song_comes_by_standard_input_and_goes_to_standard_output(path: Path, model, tmp_path: Path):
    arguments = ["accompany", "-", "--parts", "bass", *map(str, FAST), *model, "-o", "-"]
    done = subprocess.run(
        [sys.executable, "-m", "musiclm", *arguments], input=path.read_bytes(), capture_output=True, check=True
    )
    assert len(midi.parse(done.stdout, "out").tracks) == 4


@pytest.mark.parametrize(
    ("command", "options", "code", "said"),
    [
        ("accompany", ["--parts", "kazoo"], 2, "no instrument 'kazoo'"),
        ("accompany", ["--parts", ""], 2, "--parts names no instrument"),
        ("accompany", ["--parts", " ,"], 2, "--parts names no instrument"),
        ("accompany", ["--style", "jazz"], 2, "no style 'jazz': one of chorale, hymn, lied"),
        ("accompany", ["--chords", "Am Xb"], 2, "'Xb' is no chord"),
        ("accompany", ["--bars", "3-2"], 2, "--bars takes bars"),
        ("accompany", ["--bars", "3-9"], 1, "there are no bars 3 to 9: the piece has 4"),
        ("accompany", ["--keep", "2"], 2, "--keep must be from 1 to -n"),
        ("accompany", ["--keep", "2", "-n", "3", "--draw", "4"], 2, "not with --keep"),
        ("accompany", ["--json", "-o", "-"], 2, "one MIDI file"),
        ("accompany", ["--style", "drums"], 1, "has all that the style 'drums' has"),
        ("restyle", [], 2, "restyled to a --style"),
        ("restyle", ["--style", "drums"], 1, "has no melody"),
        ("restyle", ["--style", "band", "--parts", "bass"], 2, "No such option"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line_and_nothing_is_written(
    run, path: Path, model, command: str, options: list[str], code: int, said: str
):
    found, out, err = run(command, path, *options, *model)
    assert (found, out) == (code, "")
    (line,) = [line for line in err.splitlines() if line.startswith("Error")]
    assert said in line
    assert code == 2 or err == line + "\n"
    assert not list(Path().glob("musiclm-*.mid"))


def test_songs_that_cannot_be_used_are_refused_in_one_line(run, tmp_path: Path, model):
    midi.write(song([(4, 4)] * 3, tracks="drums"), tmp_path / "drums.mid")
    midi.write(song([(4, 4), (17, 16)]), tmp_path / "odd.mid")
    silent = song([(4, 4)])
    silent.tracks = type(silent.tracks)([])
    midi.write(silent, tmp_path / "silent.mid")
    late = song([(4, 4)] * 4)
    late.tracks[0].notes = type(late.tracks[0].notes)([n for n in late.tracks[0].notes if n.time >= 1920])
    midi.write(late, tmp_path / "late.mid")
    for name, options, said in (
        ("late.mid", ["restyle", "--style", "lied", "--bars", "1"], "silent in these bars: choose others with --bars"),
        ("drums.mid", ["restyle", "--style", "lied"], "no melody"),
        ("odd.mid", ["accompany", "--parts", "bass"], "17/16"),
        ("silent.mid", ["accompany"], "no notes"),
        ("none.mid", ["accompany"], "none.mid"),
    ):
        code, out, err = run(*options, tmp_path / name, *model)
        assert (code, out) == (1, "") and said in err and err.count("\n") == 1, (name, err)
    assert not list(Path().glob("musiclm-*.mid"))


def test_without_a_bundled_model_both_commands_say_how_to_get_one(run, path: Path, monkeypatch):
    monkeypatch.setattr(registry, "bundled", lambda: ["bach-gru"])
    for options in (["accompany"], ["restyle", "--style", "lied"]):
        code, _, err = run(*options, path)
        assert code == 1 and "--arch seq2seq_transformer" in err and err.count("\n") == 1


def test_generate_names_the_commands_for_a_model_of_pairs(run, path: Path, model):
    for options in ([], ["--prompt", path, "--infill", "2-3"], ["--prompt", path]):
        code, _, err = run("generate", *model, *options)
        assert code == 1 and "musiclm accompany and musiclm restyle" in err and err.count("\n") == 1
    code, _, err = run(
        "generate", *model, "--prompt", path, "--accompany", "--instruments", "bass", *FAST, "-o", "out.mid"
    )
    assert code == 0 and len(midi.read("out.mid").tracks) == 4, err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--time-signature", "3/4"), "--time-signature is the song's own"),
        (("--tempo", 90), "--tempo is the song's own"),
        (("--ensemble", "none"), "not with --ensemble"),
        (("--form", "AB"), "--form is for music from a bar on"),
    ],
)
def test_generate_accompany_refuses_what_parts_beside_a_song_cannot_have(run, path: Path, model, options, said: str):
    """A time signature besides the song's left nothing to sample, and the others were ignored."""
    code, out, err = run("generate", *model, "--prompt", path, "--accompany", "--instruments", "bass", *options)
    (line,) = [line for line in err.splitlines() if line.startswith("Error")]
    assert (code, out) == (2, "") and said in line


def test_a_model_of_anything_else_is_refused(run, path: Path, untrained):
    code, _, err = run("accompany", path, "--model", untrained("score 2"))
    assert code == 1 and "neither on pairs of parts" in err
