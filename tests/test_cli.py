"""The command line as users type it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import mido
import pretty_midi
import pytest
from musiclm.cli import app

from musiclm import checkpoint, midi
from musiclm.checkpoint.model_file import bundled_models

pytestmark = pytest.mark.filterwarnings("ignore")


def one_line(err: str) -> bool:
    return err.startswith("Error: ") and err.count("\n") == 1


def test_generate_alone_writes_a_new_file_and_prints_its_path_and_seed(run, tmp_path):
    code, out, err = run("generate", "--seed", 1)
    assert code == 0
    path = tmp_path / out.strip()
    assert path.name == "musiclm-001.mid"
    assert "seed" in err
    assert run("generate", "--bars", 1)[1].strip() == "musiclm-002.mid"
    data = path.read_bytes()
    count = midi.read(path).note_num()
    assert count > 20
    assert sum(m.type == "note_on" and m.velocity > 0 for m in mido.MidiFile(file=io.BytesIO(data))) == count
    assert sum(len(i.notes) for i in pretty_midi.PrettyMIDI(io.BytesIO(data)).instruments) == count


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in checkpoint.bundled() if not checkpoint.load(name).tokenizer().is_paired]
)
def test_each_bundled_model_goes_on_with_a_song(run, song_file, name: str):
    code, out, err = run("generate", "--model", name, "--prompt", song_file, "--bars", 8, "-o", "out.mid", "--json")
    assert code == 0, err
    (output,) = json.loads(out)["outputs"]
    assert output["bars"] in (15, 16)  # the last bar may be a rest
    assert midi.num_bars(midi.read("out.mid")) == output["bars"]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_under_another_name(run):
    for name in ("a.mid", "b.mid"):
        assert run("generate", "--bars", 2, "--seed", 7, "-o", name)[0] == 0
    assert Path("a.mid").read_bytes() == Path("b.mid").read_bytes()
    run("generate", "--bars", 2, "--seed", 8, "-o", "c.mid")
    assert Path("a.mid").read_bytes() != Path("c.mid").read_bytes()
    _code, _, err = run("generate", "--bars", 2, "-o", "d.mid")
    seed = err.rsplit("seed ", 1)[1].split()[0]
    run("generate", "--bars", 2, "--seed", seed, "-o", "e.mid")
    assert Path("d.mid").read_bytes() == Path("e.mid").read_bytes()
    texts = [m.text for m in mido.MidiFile("d.mid").tracks[0] if m.type in ("marker", "text")]
    told = [json.loads(text) for text in texts if text.startswith("{")]  # another one may say the style
    assert told[0]["seed"] == int(seed)


def test_variations_go_into_a_folder_and_differ(run):
    code, out, _ = run("generate", "-n", 3, "--bars", 2, "-o", "ideas/", "--json")
    assert code == 0
    document = json.loads(out)
    assert document.keys() == {"model", "seed", "outputs", "tokens_per_second", "seconds_elapsed"}
    paths = [Path(o["path"]) for o in document["outputs"]]
    assert [p.name for p in paths] == ["musiclm-001.mid", "musiclm-002.mid", "musiclm-003.mid"]
    assert len({p.read_bytes() for p in paths}) == 3


@pytest.mark.slow
def test_a_pipe_in_and_a_pipe_out(song_file):
    command = [sys.executable, "-m", "musiclm", "generate", "--prompt", "-", "-o", "-", "--bars", "2", "--seed", "1"]
    found = subprocess.run(command, input=song_file.read_bytes(), capture_output=True, check=True)
    assert midi.num_bars(midi.parse(found.stdout, "out")) in (9, 10)  # the last bar may be a rest


def test_only_new_is_the_rest_of_the_output(run, song_file):
    options = ["--prompt", song_file, "--prompt-bars", 4, "--bars", 2, "--seed", 1]
    run("generate", *options, "-o", "whole.mid")
    run("generate", *options, "-o", "new.mid", "--only-new")
    whole, new = midi.read("whole.mid"), midi.read("new.mid")
    rest = midi.cut(whole, 12.0, 18.0)
    assert sorted((n.time, n.pitch) for t in new.tracks for n in t.notes) == sorted(
        (n.time, n.pitch) for t in rest.tracks for n in t.notes
    )
    assert midi.num_bars(new) == 2


@pytest.mark.parametrize(
    "options",
    [
        ["--bars", 2, "--seconds", 3],
        ["--prompt-bars", 2],
        ["--only-new"],
        ["-o", "-", "-n", 2],
        ["-o", "-", "--json"],
        ["--bars", 0],
        ["--bars", -3],
        ["--top-p", 2],
        ["--temperature", -1],
        ["--temperature", "nan"],
        ["--seconds", "inf"],
        ["-n", 0],
        ["--nonsense"],
    ],
    ids=str,
)
def test_wrong_usage_exits_with_2(run, options):
    code, out, err = run("generate", *options)
    assert code == 2
    assert out == ""
    assert "Error" in err


@pytest.mark.parametrize(
    "content", [b"", b"I am a text\n", b"MThd\0\0\0\6\0\1\0\1\1\xe0MTrk\0\0\xff\xff\0\x90"], ids=repr
)
def test_a_damaged_prompt_is_one_line_and_nothing_is_written(run, tmp_path, content: bytes):
    (tmp_path / "bad.mid").write_bytes(content)
    code, _, err = run("generate", "--prompt", "bad.mid", "-o", "out.mid")
    assert code == 1
    assert one_line(err)
    assert "bad.mid" in err
    assert not (tmp_path / "out.mid").exists()


def test_a_prompt_that_is_missing_or_a_folder_is_one_line(run):
    for prompt in ("nowhere.mid", "."):
        code, _, err = run("generate", "--prompt", prompt)
        assert code == 1
        assert one_line(err)


def test_a_prompt_with_nothing_the_tokenizer_can_say_is_one_line(run, song):
    song.tracks = type(song.tracks)([t for t in song.tracks if t.is_drum])
    midi.write(song, "drums.mid")
    code, _, err = run("generate", "--model", "bach", "--prompt", "drums.mid")
    assert code == 1
    assert one_line(err)


def test_an_unknown_model_and_a_checkpoint_cut_in_half_are_one_line(run, tmp_path, untrained):
    code, _, err = run("generate", "--model", "nope")
    assert code == 1
    assert one_line(err)
    data = Path(untrained("grid")).read_bytes()
    (tmp_path / "half.safetensors").write_bytes(data[: len(data) // 2])
    for command in (["generate", "--model", "half.safetensors"], ["evaluate", "half.safetensors"]):
        code, _, err = run(*command)
        assert code == 1
        assert one_line(err)


def test_nothing_is_overwritten_without_force(run, tmp_path):
    (tmp_path / "mine.mid").write_text("mine")
    code, _, err = run("generate", "--bars", 1, "-o", "mine.mid")
    assert code == 1
    assert one_line(err)
    assert (tmp_path / "mine.mid").read_text() == "mine"
    assert run("generate", "--bars", 1, "-o", "mine.mid", "--force")[0] == 0


def test_a_place_that_cannot_be_written_is_one_line(run):
    for place in ("nowhere/out.mid", "/proc/out.mid"):
        code, _, err = run("generate", "--bars", 1, "-o", place)
        assert code == 1
        assert one_line(err)


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="needs /dev/full")
def test_a_full_disk_is_one_line_and_a_device_stays_a_device(run):
    """A temporary file was once renamed over /dev/full."""
    code, _, err = run("generate", "--bars", 1, "-o", "/dev/full", "--force")
    assert code == 1
    assert one_line(err)
    assert Path("/dev/full").is_char_device()


@pytest.mark.slow
def test_train_evaluate_and_generate_from_a_folder_of_midi(run, song, tmp_path):
    draw = random.Random(0)
    for i in range(4):
        for track in song.tracks:
            if not track.is_drum:
                track.notes = type(track.notes)([n.shift_pitch(draw.randrange(-4, 5)) for n in track.notes])
        (tmp_path / "midis" / str(i)).mkdir(parents=True)
        midi.write(song, tmp_path / "midis" / str(i) / "song.mid")
    (tmp_path / "midis" / "broken.mid").write_text("no")
    code, out, err = run("train", "midis", "--arch", "gru", "--preset", "tiny", "--steps", 3, "-o", "run", "--json")
    assert code == 0, err
    document = json.loads(out.splitlines()[-1])
    assert document["steps"] == 3
    assert document["stopped_because"] == "budget"
    assert document.keys() == {
        "checkpoint", "arch", "num_parameters", "steps", "tokens", "tokens_per_second",
        "best_validation_nats_per_token", "stopped_because",
    }  # fmt: skip
    code, out, err = run("evaluate", "run", "midis", "--json")
    assert code == 0
    assert "not a MIDI file" in err
    report = json.loads(out)
    assert report["split"] == "all"
    assert report["num_pieces"] == 4
    assert report.keys() == {
        "model", "corpus", "split", "num_pieces", "num_tokens", "num_notes", "nats_per_token", "bits_per_note",
        "bits_per_second", "baselines", "baselines_counted",
    }  # fmt: skip
    assert run("generate", "--model", "run", "--bars", 1, "-o", "new.mid")[0] == 0
    code, out, err = run("evaluate", "run", "--json", "--split", "train")
    assert code == 0, err
    assert json.loads(out)["num_pieces"] >= 1
    code, _, err = run("evaluate", "run/best.safetensors")
    assert code == 1
    assert one_line(err)
    code, out, err = run("train", "midis", "--from", "run", "--steps", 2, "-o", "tuned", "-q")
    assert code == 0, err
    assert checkpoint.load("tuned").arch == "gru"


def test_data_without_music_is_one_line_and_starts_no_run(run, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.mid").write_text("no")
    for data in ("empty", "texts", "nowhere", "texts/a.mid"):
        code, _, err = run("train", data, "--steps", 1, "-o", f"run-{len(data)}", "-q")
        assert code == 1, data
        assert err.splitlines()[-1].startswith("Error: ")
        assert not (tmp_path / f"run-{len(data)}").exists()


def test_train_refuses_what_it_cannot_mean(run):
    assert run("train", "--arch", "mamba")[0] == 2
    assert run("train", "--resume", "nowhere")[0] == 1
    assert run("train", "--resume", "nowhere", "--arch", "gru")[0] == 2
    assert run("train", "--tokenizer", "morse")[0] == 1
    assert run("train", "--from", "nope")[0] == 1


def test_models_lists_what_is_bundled(run):
    code, out, _ = run("models", "--json")
    assert code == 0
    listed = json.loads(out)
    assert {m["name"] for m in listed} == {*checkpoint.bundled(), *bundled_models()}
    assert all(m["licence"] and m["data"] and m["figures"] for m in listed)
    code, out, _ = run("models")
    assert all(m["name"] in out for m in listed)


@pytest.mark.slow
def test_a_ctrl_c_that_a_library_swallows_still_stops_training(run, song_file, monkeypatch):
    """Ctrl-C during `import torch` was lost, and the run went on to its end."""
    from musiclm.training.run import Run

    train = Run.train

    def swallowing(self, **how):
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            signal.getsignal(signal.SIGINT)  # a moment for the handler to run in
        yield from train(self, **how)

    monkeypatch.setattr(Run, "train", swallowing)
    code, _, err = run("train", song_file, "--arch", "gru", "--preset", "tiny", "--steps", 50, "-o", "run")
    assert code == 130
    assert err.splitlines()[-1] == "Stopped. Nothing was saved."
    assert not Path("run").exists()


@pytest.mark.slow
def test_ctrl_c_in_the_middle_of_a_step_waits_for_its_end(run, song_file, monkeypatch):
    """It stopped there and then, and weights that were half way to the next step were what was saved."""
    import torch

    options = (song_file, "--arch", "gru", "--preset", "tiny", "--steps", 6, "--seed", 1, "-q", "--precision", "fp32")
    assert run("train", *options, "-o", "whole")[0] == 0
    step, calls = torch.optim.Muon.step, []

    def pressed(*arguments, **told):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return step(*arguments, **told)

    monkeypatch.setattr(torch.optim.Muon, "step", pressed)
    assert run("train", *options, "-o", "cut")[0] == 130
    assert len(calls) == 3
    assert run("train", "--resume", "cut", "-q")[0] == 0
    hashes = [checkpoint.read_header(Path(name) / "best.safetensors")[0]["sha256"] for name in ("whole", "cut")]
    assert hashes[0] == hashes[1]


def test_v_tells_how_it_was_done_and_q_nothing_of_it(run):
    for given, tells in (("-v", True), ("-q", False)):
        code, _, err = run("generate", "--bars", 1, "--seed", 1, given, "-o", f"a{given}.mid")
        assert code == 0
        assert ("sampling with" in err and "parameters in" in err) == tells


@pytest.mark.parametrize("name", ["a.wav", "b" * 300 + ".mid"], ids=["sound", "long"])
def test_a_name_that_cannot_be_is_one_line(run, name: str):
    code, _, err = run("generate", "--bars", 1, "-o", name)
    assert code == 1 and one_line(err)


def test_without_a_compiler_training_says_so_and_goes_on(run, song_file, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda _name: None)
    options = ("--arch", "gru", "--preset", "tiny", "--steps", 1, "--compile", "-o", "plain")
    code, _, err = run("train", song_file, *options)
    assert code == 0, err
    assert "no" in err and "C++ compiler" in err


def test_one_piece_is_no_pieces(run, song_file):
    """evaluate said "1 pieces"."""
    from musiclm.cli import _console

    assert [_console.counted(n, "bar") for n in (0, 1, 2, 1200, 1.0, 0.5)] == [
        "0 bars", "1 bar", "2 bars", "1,200 bars", "1 bar", "0.5 bars",
    ]  # fmt: skip
    code, out, err = run("evaluate", "bach-gru", song_file)
    assert code == 0
    assert "1 piece\n" in out
    assert "1 pieces" not in out + err
    assert "1 bar, " in run("generate", "--model", "bach-gru", "--bars", 1, "-o", "a.mid")[2]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in checkpoint.bundled() if name.startswith("bach")])
def test_bundled_models_of_chorales_are_evaluated_on_them_if_nothing_else_is_named(run, name: str):
    """New cards called their data by another name, and evaluate no longer knew where it was."""
    code, out, err = run("evaluate", name, "--split", "validation", "--most-tokens", 900, "--json")
    assert code == 0, err
    assert 0 < json.loads(out)["nats_per_token"] < 1


@pytest.mark.parametrize(
    ("said", "platform", "expected"),
    [
        ({}, "linux", {"GOMP_SPINCOUNT": "1000"}),
        ({"GOMP_SPINCOUNT": "7"}, "linux", {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "linux", {"OMP_WAIT_POLICY": "ACTIVE"}),
        ({}, "darwin", {"OMP_WAIT_POLICY": "PASSIVE"}),
    ],
)
def test_threads_spin_briefly_unless_the_environment_says_how_they_wait(monkeypatch, said, platform, expected):
    """Sleeping at once made `generate` three times slower on quiet cores, spinning for long thirty times on busy ones."""
    environment = dict(said)
    monkeypatch.setattr("os.environ", environment)
    monkeypatch.setattr("sys.platform", platform)
    app.wait_briefly()
    assert environment == expected
