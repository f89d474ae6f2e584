"""Comparison of architectures: it can be interrupted, and its report agrees with its parts."""

from __future__ import annotations

import contextlib
import json
import zipfile
from importlib import resources
from pathlib import Path

import pytest

from musiclm import checkpoint, evaluation, midi, tokenizers
from musiclm.comparison import Comparison, ComparisonConfig
from musiclm.data import open_source
from musiclm.errors import RunError, TokenizerError
from musiclm.generation.composer import Composer
from tests import test_cli

QUICK = ["--tokenizer", "grid", "--preset", "tiny", "--steps", 2, "--samples", 3, "--bars", 2, "--seed", 1]


@pytest.fixture(scope="module")
def chorales(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of some of the bundled chorales in folders named after the splits."""
    folder = tmp_path_factory.mktemp("data") / "chorales"
    with zipfile.ZipFile(str(resources.files("musiclm") / "chorales.zip")) as archive:
        for split, count in (("train", 8), ("validation", 2), ("test", 3)):
            archive.extractall(folder, [n for n in sorted(archive.namelist()) if n.startswith(split)][:count])
    return str(folder)


def request(data: str, **options) -> ComparisonConfig:
    options = {"archs": ["rnn", "gru"], "preset": "tiny", "steps": 6, "samples": 3, "bars": 2, "seed": 3} | options
    return ComparisonConfig(data=data, tokenizer="grid", precision="fp32", **options)


@pytest.mark.slow
def test_a_comparison_reports_the_same_as_its_parts(run, chorales):
    code, out, err = run("compare", chorales, "--archs", "rnn,gru", *QUICK, "-o", "lecture", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert json.loads(Path("lecture/results.json").read_text()) == report
    assert [model["arch"] for model in report["models"]] == ["rnn", "gru"]
    pieces = open_source(chorales, tokenizers.create("grid")).pieces("test")
    for model in report["models"]:
        loaded = checkpoint.load(f"lecture/{model['arch']}")
        assert model["num_parameters"] == loaded.num_parameters
        found = evaluation.measure_loss(loaded.model(), loaded.tokenizer(), pieces)
        assert model["test_nats_per_token"] == pytest.approx(found.nats_per_token, rel=1e-6)
        assert model["bits_per_note"] == pytest.approx(found.bits_per_note, rel=1e-6)
        assert model["tokens"] > 0
        assert model["statistics"]["polyphony"]["num_pieces"] == 3
    uniform = report["baselines"]["uniform"]
    assert set(report["baselines"]) == {"uniform", "unigram", "repeat", "5-gram"}
    share = uniform["test_nats_per_token"] / report["models"][0]["test_nats_per_token"]
    assert uniform["bits_per_second"] == pytest.approx(share * report["models"][0]["bits_per_second"])
    prompt = midi.read("lecture/prompt.mid")
    assert midi.num_bars(prompt) == 4
    for arch in ("rnn", "gru"):
        code, _, err = run(
            "generate", "--model", f"lecture/{arch}", "--prompt", "lecture/prompt.mid", "--bars", 2, "--seed", 1,
            "-o", f"{arch}.mid",
        )  # fmt: skip
        assert code == 0, err
        written, again = midi.read(f"lecture/{arch}.mid"), midi.read(f"{arch}.mid")
        assert [t.notes for t in written.tracks] == [t.notes for t in again.tracks]
        assert midi.num_bars(written) > 4
    code, out, err = run("compare", "--resume", "lecture")  # finished: the report is shown again
    assert code == 0, err
    assert "step" not in err.split("measuring")[0].replace("2 steps each", "")
    assert max(map(len, out.splitlines())) <= 80
    for name in ("rnn", "gru", "uniform", "unigram", "repeat", "5-gram", "test pieces", "training pieces"):
        assert any(line.startswith(name) for line in out.splitlines()), name


@pytest.mark.slow
def test_a_comparison_stopped_in_the_second_run_gives_the_weights_of_an_uncut_one(chorales, tmp_path: Path):
    whole = Comparison.create(tmp_path / "whole", request(chorales))
    for arch in whole.request.archs:
        assert [step.number for step, _ in whole.train(arch)] == [1, 2, 3, 4, 5, 6]
    cut = Comparison.create(tmp_path / "cut", request(chorales))
    list(cut.train("rnn"))
    cut.measure("rnn")
    steps = cut.train("gru")
    assert [next(steps)[0].number for _ in range(3)] == [1, 2, 3]
    steps.close()
    again = Comparison.open(tmp_path / "cut")
    assert again.measured("rnn") is not None
    assert again.measured("gru") is None
    assert [step.number for step, _ in again.train("gru")] == [4, 5, 6]
    for arch in ("rnn", "gru"):
        hashes = {checkpoint.load(str(tmp_path / run / arch)).sha256 for run in ("whole", "cut")}
        assert len(hashes) == 1, arch


def test_a_run_killed_before_run_json_was_written_begins_again(chorales, tmp_path: Path):
    comparison = Comparison.create(tmp_path / "a", request(chorales, archs=["rnn"], steps=1))
    (tmp_path / "a" / "rnn").mkdir()
    (tmp_path / "a" / "rnn" / "lock").touch()
    assert [step.number for step, _ in comparison.train("rnn")] == [1]


@pytest.mark.slow
def test_a_larger_budget_continues_every_run_and_measures_again(run, chorales):
    assert run("compare", chorales, "--archs", "gru", *QUICK, "-o", "a", "-q")[0] == 0
    code, out, err = run("compare", "--resume", "a", "--steps", 4, "--json")
    assert code == 0, err
    assert json.loads(out)["models"][0]["steps"] == 4
    assert json.loads(out)["budget"]["steps"] == 4


@pytest.mark.slow
def test_ctrl_c_prints_how_to_continue(run, chorales, monkeypatch):
    train = Comparison.train

    def interrupted(self, arch):
        with contextlib.closing(train(self, arch)) as steps:
            yield next(steps)
            raise KeyboardInterrupt

    monkeypatch.setattr(Comparison, "train", interrupted)
    code, out, err = run("compare", chorales, "--archs", "gru", *QUICK, "-o", "a")
    assert code == 130
    assert out == ""
    assert err.splitlines()[-1].endswith("musiclm compare --resume a")


@pytest.mark.slow
def test_a_model_that_cannot_write_does_not_stop_the_others(run, chorales, monkeypatch):
    generate = Composer.generate

    def silent(self, *arguments, **options):
        if self.checkpoint.arch == "rnn":
            raise TokenizerError("nothing but silence here")
        return generate(self, *arguments, **options)

    monkeypatch.setattr(Composer, "generate", silent)
    assert run("compare", chorales, "--archs", "rnn,gru", *QUICK, "-o", "a", "-q")[0] == 0
    report = json.loads(Path("a/results.json").read_text())
    assert report["models"][0]["problem"] == "nothing but silence here"
    assert report["models"][0]["statistics"] is None
    assert report["models"][1]["statistics"] is not None


def test_every_model_continues_the_given_prompt(chorales, tmp_path: Path, song):
    comparison = Comparison.create(tmp_path / "a", request(chorales, archs=["gru"], steps=1), midi.cut(song, 0, 6))
    list(comparison.train("gru"))
    told = comparison.measure("gru")
    written = midi.read(told["midi"])
    assert midi.num_bars(written) == 4
    assert midi.read(tmp_path / "a" / "prompt.mid").note_num() == midi.cut(song, 0, 6).note_num()


def test_compare_refuses_contradictory_options(run, chorales, tmp_path: Path):
    assert run("compare", "--archs", "mamba")[0] == 2
    assert run("compare", "--archs", "gru,gru")[0] == 2
    assert run("compare", "--resume", "a", "--archs", "gru")[0] == 2
    assert run("compare", "--prompt-bars", 2)[0] == 2
    for arguments in (["nowhere"], ["--resume", "nowhere"], ["--prompt", "nowhere.mid"], ["--tokenizer", "morse"]):
        code, _, err = run("compare", *arguments)
        assert code == 1, arguments
        assert test_cli.one_line(err)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    code, _, err = run("compare", chorales, "-o", "full")
    assert code == 1
    assert "choose another place" in err
    assert not list(tmp_path.glob("compare-*"))


def test_data_without_a_test_piece_is_one_line_and_leaves_no_folder(run, chorales, tmp_path: Path):
    data = tmp_path / "two"
    for split in ("train", "test"):
        (data / split).mkdir(parents=True)
        (data / split / "a.mid").write_bytes(Path(chorales, split, "000.mid").read_bytes())
    code, _, err = run("compare", data, *QUICK, "-o", "a", "-q")
    assert code == 1
    assert "no validation pieces" in err
    assert not (tmp_path / "a").exists()


def test_a_damaged_comparison_is_one_line(tmp_path: Path):
    for text in ("", "[]", '{"format": 99}', '{"format": 1, "nonsense": 2}'):
        (tmp_path / "compare.json").write_text(text)
        with pytest.raises(RunError):
            Comparison.open(tmp_path)


def test_evaluate_compares_samples_with_the_measured_pieces(run, untrained, chorales):
    code, out, err = run(
        "evaluate", untrained("grid"), chorales, "--samples", 3, "--bars", 2, "--seed", 4, "--split", "test", "--json"
    )
    assert code == 0, err
    told = json.loads(out)["statistics"]
    assert told["seed"] == 4
    assert told["samples"]["note_length"]["num_pieces"] == 3
    assert told["reference"]["note_length"]["num_pieces"] == 3
    assert 0 <= told["samples"]["note_length"]["overlapped_area"] <= 1
    assert told["kind"] == "chorale"
    crossed, rule = told["measures"]["crossed"], told["by_rule"]["reference"]
    assert 0 < crossed["samples"]["mean"] < 1  # the model is untrained
    assert crossed["samples"]["num_pieces"] == rule["num_pieces"] == 3
    command = ["evaluate", untrained("grid"), chorales, "--samples", 3, "--bars", 2, "--seed", 4, "--split", "test"]
    code, out, _ = run(*command)
    assert code == 0 and "voices crossed" in out and "of 3 samples break no rule" in out
    assert max(map(len, out[out.index("notes a bar") :].splitlines())) <= 80
    assert run("evaluate", untrained("grid"), chorales, "--bars", 2)[0] == 2


def test_statistics_of_a_folder_beside_another(run, chorales, tmp_path: Path):
    (tmp_path / "mine").mkdir()
    for name in ("000", "001", "002"):
        (tmp_path / "mine" / f"{name}.mid").write_bytes(Path(chorales, "test", f"{name}.mid").read_bytes())
    (tmp_path / "mine" / "broken.mid").write_text("no")
    code, out, err = run("statistics", "mine", chorales, "--bars", 8, "--each", "--json")
    assert code == 0, err
    document = json.loads(out)
    assert document["num_pieces"] == 3
    assert sum(document["left_out"].values()) == 1
    assert "1 × is not a MIDI file" in err
    assert document["reference"]["num_pieces"] == 13
    assert [piece["name"] for piece in document["pieces"]] == ["000.mid", "001.mid", "002.mid"]
    mean = sum(piece["polyphony"] for piece in document["pieces"]) / 3
    assert document["statistics"]["polyphony"]["mean"] == pytest.approx(mean)
    code, out, _ = run("statistics", "mine")
    assert code == 0
    assert "reference" not in out
    assert max(map(len, out.splitlines())) <= 80
    (tmp_path / "empty").mkdir()
    for wrong in (["empty"], ["nowhere"], ["mine", "nowhere"], ["mine/broken.mid"]):
        code, _, err = run("statistics", *wrong, "-q")
        assert code == 1, wrong
        assert test_cli.one_line(err)
    assert run("statistics", "mine", "--each")[0] == 2


def test_an_architecture_that_diverges_is_reported_and_the_others_are_compared(run, chorales, monkeypatch):
    from musiclm import models

    training = models.training
    monkeypatch.setattr(
        models, "training", lambda arch: {**training(arch), **({"learning_rate": 1e20} if arch == "gru" else {})}
    )
    code, out, err = run("compare", chorales, "--archs", "gru,rnn", *QUICK, "-o", "lecture", "--json")
    assert code == 1
    report = json.loads(out)
    assert [model["arch"] for model in report["models"]] == ["rnn"]
    assert "the loss of step 2 was not finite" in report["diverged"]["gru"]
    assert [line for line in err.splitlines() if line.startswith("Error: gru: training diverged")]
    code, out, err = run("compare", chorales, "--archs", "gru", *QUICK, "-o", "alone")
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith("Error: gru: training diverged")
