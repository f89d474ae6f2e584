"""Runs: folders that may be killed at any moment; what they start from, and when they end."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch

from musiclm import checkpoint, evaluation, tokenizers
from musiclm.data import open_source
from musiclm.errors import DivergedError, RunError
from musiclm.training.config import TrainConfig
from musiclm.training.optim import Recipe
from musiclm.training.run import Run
from musiclm.training.setup import prepare
from tests.conftest import tiny


@pytest.mark.slow
def test_what_taught_is_kept_in_the_plan_and_on_the_card(run, tmp_path: Path):
    data = some_chorales(tmp_path / "data", 8)
    sizes = ["--tokenizer", "grid", "--arch", "gru", "--preset", "tiny", "--precision", "fp32", "--steps", 2]
    assert run("train", data, *sizes, "--teacher", "bach", "-o", tmp_path / "a", "-q")[0] == 0
    assert checkpoint.load(str(tmp_path / "a")).card["teachers"] == "bach"
    first = (tmp_path / "a" / "best.safetensors").read_bytes()
    assert run("train", "--resume", tmp_path / "a", "--steps", 3, "-q")[0] == 0  # it is found again
    assert (tmp_path / "a" / "best.safetensors").read_bytes() != first


def test_a_teacher_of_other_tokens_is_refused(run, tmp_path: Path):
    data = some_chorales(tmp_path / "data", 8)
    options = [data, "--tokenizer", "grid", "--precision", "fp32", "--steps", 2, "-o", tmp_path / "a", "-q"]
    code, _, told = run("train", *options, "--teacher", "score")
    assert code == 1
    assert "'score-infill', not of 'grid'" in told and told.count("\n") == 1
    assert not (tmp_path / "a").exists()
    assert run("train", *options, "--teacher", "nothing")[0] == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"size": -4}, "size must be at least 1"),
        ({"size": 30, "num_heads": 4}, "multiple of num_heads"),
        ({"num_layers": 1.5}, "num_layers is a whole number, not 1.5"),
        ({"size": "lstm"}, "size is a number, not lstm"),
        ({"vocab_size": 3}, "no 'vocab_size' to set"),
        ({"reference": 1}, "no 'reference' to set"),
    ],
)
def test_sizes_that_cannot_be_are_refused(given, said: str, tmp_path: Path):
    data = some_chorales(tmp_path / "data", 2)
    with pytest.raises(RunError, match=said):
        prepare(TrainConfig(arch="transformer", preset="tiny", data=data, tokenizer="grid", steps=1, config=given))


def test_a_checkpoint_keeps_its_sizes(tmp_path: Path):
    data = some_chorales(tmp_path / "data", 2)
    with pytest.raises(RunError, match="leave out --set"):
        prepare(TrainConfig(arch="gru", data=data, start_from="bach-gru", steps=1, config={"size": 32}))


def musiclm(*arguments: str, **options) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "musiclm", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **options,
    )


def some_chorales(folder: Path, count: int = 20) -> str:
    """Return a folder of some of the bundled chorales: all of them take long to read and to validate on."""
    with zipfile.ZipFile(str(resources.files("musiclm") / "chorales.zip")) as archive:
        archive.extractall(folder, [f"train/{i:03d}.mid" for i in range(count)])
    return str(folder)


def steps_saved(folder: Path) -> int:
    """Return the step that a run would be resumed from."""
    path = folder / "resume.safetensors"
    return json.loads(checkpoint.read_header(path)[0]["run"])["step"] if path.exists() else 0


@pytest.mark.slow
def test_killed_three_times_and_resumed_it_gives_the_weights_of_the_uncut_run(tmp_path: Path):
    data = some_chorales(tmp_path / "data")
    options = [data, "--tokenizer", "grid", "--arch", "gru", "--preset", "tiny", "--steps", "60", "--seed", "3"]
    options += ["--precision", "fp32"]
    assert musiclm("train", *options, "-o", str(tmp_path / "whole")).wait() == 0
    folder = tmp_path / "cut"
    seen = 0
    for start in (["train", *options, "-o", str(folder)], *2 * [["train", "--resume", str(folder)]]):
        process = musiclm(*start)
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and process.poll() is None:
            lines = (folder / "metrics.jsonl").read_text().count("\n") if (folder / "metrics.jsonl").exists() else 0
            if lines > seen:
                seen = lines
                break
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    is_over = steps_saved(folder) == 60  # a slow machine may have been too late with the third kill
    process = musiclm("train", "--resume", str(folder))
    _, told = process.communicate()
    assert process.returncode == (1 if is_over else 0), told
    for name in ("best.safetensors", "last.safetensors"):
        hashes = [checkpoint.read_header(tmp_path / run / name)[0]["sha256"] for run in ("whole", "cut")]
        assert hashes[0] == hashes[1], name
    lines = [[json.loads(line) for line in (tmp_path / run / "metrics.jsonl").open()] for run in ("whole", "cut")]
    assert [(v["step"], v["validation_nats_per_token"]) for v in lines[0]] == [
        (v["step"], v["validation_nats_per_token"]) for v in lines[1]
    ]


def test_a_run_killed_before_its_first_save_starts_again_from_its_seed(tmp_path: Path):
    data = some_chorales(tmp_path / "data", 8)
    plan = TrainConfig(
        arch="gru", preset="tiny", data=data, tokenizer="grid", steps=3, seed=4, precision="fp32", device="cpu"
    )
    Run.create(tmp_path / "a", plan).close()  # what a SIGKILL in the first second leaves
    (tmp_path / "a" / "metrics.jsonl").write_text('{"step": 1')
    run = Run.open(tmp_path / "a")
    assert [step.number for step, _ in run.train()] == [1, 2, 3]
    run.close()
    other = Run.create(tmp_path / "b", plan)
    list(other.train())
    other.close()
    hashes = [checkpoint.read_header(tmp_path / run / "best.safetensors")[0]["sha256"] for run in ("a", "b")]
    assert hashes[0] == hashes[1]


@pytest.mark.slow
def test_a_second_process_on_a_run_is_refused(tmp_path: Path):
    run = Run.create(tmp_path / "a", TrainConfig(arch="gru", steps=3))
    process = musiclm("train", "--resume", str(tmp_path / "a"))
    _, told = process.communicate()
    assert process.returncode == 1
    assert "another process" in told
    run.close()


def test_a_run_is_not_begun_over_another(tmp_path: Path):
    Run.create(tmp_path / "a", TrainConfig(arch="gru", steps=3)).close()
    with pytest.raises(RunError, match="--resume"):
        Run.create(tmp_path / "a", TrainConfig(arch="gru", steps=3))
    with pytest.raises(RunError, match="no run"):
        Run.open(tmp_path / "nowhere")


def test_a_finished_run_continues_with_a_larger_budget_and_without_one_it_is_refused(run, tmp_path: Path):
    folder, data = tmp_path / "a", some_chorales(tmp_path / "data", 8)
    sizes = ["--tokenizer", "grid", "--arch", "rnn", "--preset", "tiny", "--precision", "fp32", "--steps", 2]
    assert run("train", data, *sizes, "-o", folder, "-q")[0] == 0
    code, out, err = run("train", "--resume", folder, "-q")
    assert code == 1 and out == ""
    assert err.startswith("Error: ") and err.count("\n") == 1 and "is used up" in err
    code, out, _ = run("train", "--resume", folder, "--steps", 5, "--json")
    assert code == 0 and json.loads(out)["steps"] == 5
    kept = (folder / "best.safetensors").read_bytes()
    for same in ((), ("--steps", 5), ("--steps", 3)):  # its own budget, the same again, and a smaller one
        assert run("train", "--resume", folder, *same, "-q")[0] == 1
    assert (folder / "best.safetensors").read_bytes() == kept


@pytest.mark.slow
def test_a_run_keeps_its_model_calibrated_and_its_card_says_so(tmp_path: Path):
    data = some_chorales(tmp_path / "data")
    run = Run.create(
        tmp_path / "a", TrainConfig(arch="gru", preset="tiny", data=data, steps=20, precision="fp32", device="cpu")
    )
    lines = [validation for _, validation in run.train() if validation is not None]
    run.close()
    best = min(lines, key=lambda line: line.validation_nats_per_token)
    kept = checkpoint.load(str(tmp_path / "a"))
    assert kept.card["calibrated"].startswith(f"logits divided by {best.temperature:g},")
    source = open_source(data, kept.tokenizer())
    found = evaluation.measure_loss(kept.model(), kept.tokenizer(), source.pieces("validation"))
    assert found.nats_per_token == pytest.approx(best.validation_nats_per_token, abs=1e-4)


@pytest.mark.slow
def test_a_run_ends_when_validation_has_not_fallen_and_killed_and_resumed_it_ends_there_too(tmp_path: Path):
    data = some_chorales(tmp_path / "data")
    plan = TrainConfig(
        arch="gru", preset="tiny", data=data, tokenizer="grid", steps=200, seed=3, precision="fp32", device="cpu",
        learning_rate=0.5, dropout=0.1, patience=2,
    )  # fmt: skip
    whole = Run.create(tmp_path / "whole", plan)
    found = []
    for _, validation in whole.train():
        if validation is not None:
            found.append(validation)
            shutil.copytree(tmp_path / "whole", tmp_path / f"cut-{len(found)}")  # what a SIGKILL here leaves
    whole.close()
    assert whole.stopped_because == "validation"
    assert found[-1].step < 200
    assert [v.is_best for v in found[-3:]] == [True, False, False]  # the rate is too high: it soon rises
    assert whole.best == found[-3].validation_nats_per_token
    for number in (1, len(found) - 1, len(found)):  # early; when one more validation ends it; when it is over
        cut = Run.open(tmp_path / f"cut-{number}")
        steps = [step.number for step, _ in cut.train()]
        cut.close()
        assert cut.stopped_because == "validation"
        assert steps == list(range(found[number - 1].step + 1, found[-1].step + 1))
        for name in ("best.safetensors", "last.safetensors"):
            hashes = [checkpoint.read_header(run.folder / name)[0]["sha256"] for run in (whole, cut)]
            assert hashes[0] == hashes[1], name
    cut = Run.open(tmp_path / "cut-1")
    cut.renew(minutes=None, steps=400, epochs=None)
    assert cut.plan.patient_from == found[-1].step  # a new budget gives validation its time again
    assert not cut.is_stale
    cut.close()


@pytest.mark.slow
def test_fine_tuning_keeps_the_model_it_started_from_when_training_only_harms_it(tmp_path: Path):
    plan = TrainConfig(
        arch="gru", data=some_chorales(tmp_path / "data"), start_from="bach-gru", steps=2, precision="fp32", device="cpu",
        learning_rate=0.9, patience=5,
    )  # fmt: skip
    run = Run.create(tmp_path / "a", plan)
    (*_, (_, validation)) = run.train()
    run.close()
    assert validation.validation_nats_per_token > run.before == run.best
    kept, started = checkpoint.load(str(tmp_path / "a")), checkpoint.load("bach-gru")
    assert kept.card["figures"]["validation_nats_per_token"] == run.before
    assert kept.card["steps"] == 0
    assert started.card["licence"] in kept.card["licence"]
    again = started.model().state_dict()
    assert all(torch.equal(t, again[name]) for name, t in kept.model().state_dict().items())


def test_fine_tuning_is_gentler_than_training_and_takes_the_models_tokenizer(tmp_path: Path):
    from musiclm.training import setup

    data = some_chorales(tmp_path / "data")
    plan = TrainConfig(arch="gru", data=data, start_from="bach-gru", steps=5, precision="fp32", device="cpu")
    prepared = setup.prepare(plan)
    fresh = setup.prepare(TrainConfig(arch="gru", data=data, steps=5, precision="fp32", device="cpu"))
    assert prepared.tokenizer.name == "grid"
    assert prepared.recipe.learning_rate == pytest.approx(setup.TUNED_RATE * fresh.recipe.learning_rate)
    assert prepared.recipe.warmup_steps < fresh.recipe.warmup_steps
    assert prepared.model.config.dropout >= setup.TUNED_DROPOUT
    weights = checkpoint.load("bach-gru").model().state_dict()
    assert all(torch.equal(t, weights[name]) for name, t in prepared.model.state_dict().items())


def test_a_corpus_of_another_tokenizer_is_refused_with_the_way_out(run, tmp_path: Path):
    data, store = some_chorales(tmp_path / "data"), str(tmp_path / "store")
    assert run("corpus", "build", data, "-o", store, "-q", "--workers", 1)[0] == 0
    code, _, told = run("train", store, "--from", "bach-gru", "--steps", 1, "-o", tmp_path / "run", "-q")
    assert code == 1
    assert told.count("\n") == 1
    assert "'score'" in told and "--tokenizer grid" in told
    assert not (tmp_path / "run").exists()
    code, _, told = run("train", data, "--from", "bach-gru", "--tokenizer", "score", "-o", tmp_path / "run")
    assert code == 1 and "the model 'bach-gru' has tokens of 'grid', not of 'score'" in told


@pytest.mark.slow
def test_a_model_that_is_given_more_features_begins_as_what_it_was(chorales, tmp_path):
    """Drawn at random, what it had not learnt cost a score model half a nat a token to begin with."""
    old = tokenizers.create("grid", features=2)
    model = tiny("transformer", old.vocab_size, **old.model_config)
    path = tmp_path / "old.safetensors"
    checkpoint.save(path, model, arch="transformer", tokenizer=old, card={"data": "nothing", "figures": {}})
    newer = tmp_path / "newer.safetensors"
    third = tokenizers.create("grid", features=3)
    begun = tiny("transformer", third.vocab_size, **third.model_config)
    checkpoint.save(newer, begun, arch="transformer", tokenizer=third, card={"data": "nothing", "figures": {}})
    prepared = prepare(TrainConfig(arch="transformer", start_from=str(newer), tokenizer="grid", steps=1))
    ids = torch.from_numpy(np.asarray(chorales.pieces("validation")[0].tokens[:80], np.int64))[None]
    with torch.no_grad():
        was, _ = begun.eval()(ids, None, third.features(ids)[0])
        now, _ = prepared.model.eval()(ids, None, prepared.tokenizer.features(ids)[0])
    assert len(prepared.tokenizer.feature_sizes) > len(third.feature_sizes)
    torch.testing.assert_close(now, was)
    with pytest.raises(RunError, match="other features"):
        prepare(TrainConfig(arch="transformer", start_from=str(path), tokenizer="grid", steps=1))
    with pytest.raises(RunError, match="has tokens of 'grid', not of 'score'"):
        prepare(TrainConfig(arch="transformer", start_from=str(newer), tokenizer="score", steps=1))


@pytest.mark.slow
@pytest.mark.parametrize("within", ["validation", "step"])
def test_what_is_cut_within_a_step_or_its_validation_is_done_again(within: str, tmp_path: Path, monkeypatch):
    """A run that was saved there went on from weights half way to the next step, or never validated its last."""
    data = some_chorales(tmp_path / "data", 8)
    plan = TrainConfig(
        arch="gru", preset="tiny", data=data, tokenizer="grid", steps=12, seed=3, precision="fp32", device="cpu"
    )
    whole = Run.create(tmp_path / "whole", plan)
    list(whole.train())
    whole.close()
    of, name = (evaluation, "fit_temperature") if within == "validation" else (torch.optim.Muon, "step")
    untouched, calls = getattr(of, name), []

    def cut(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:  # of the step that ends the run; of step 2, whose other weights are there already
            raise KeyboardInterrupt
        return untouched(*arguments, **options)

    monkeypatch.setattr(of, name, cut)
    run = Run.create(tmp_path / "cut", plan)
    with pytest.raises(KeyboardInterrupt):
        list(run.train())
    run.close()
    monkeypatch.setattr(of, name, untouched)
    run = Run.open(tmp_path / "cut")
    list(run.train())
    run.close()
    hashes = [checkpoint.read_header(r.folder / "best.safetensors")[0]["sha256"] for r in (whole, run)]
    assert hashes[0] == hashes[1]
    lines = [[json.loads(line)["step"] for line in (r.folder / "metrics.jsonl").open()] for r in (whole, run)]
    assert lines[0] == lines[1]


def test_a_device_that_is_not_there_is_refused_and_leaves_nothing(run, tmp_path: Path):
    code, _, told = run("train", "--device", "mps", "--steps", 1, "-o", tmp_path / "a", "-q")
    assert code == 1 and told.count("\n") == 1 and "no device 'mps'" in told
    assert not (tmp_path / "a").exists()


def test_a_refused_run_removes_the_folders_that_it_made_and_no_others(run, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "runs").mkdir()
    for output in ("runs/one/two", "new/one/two"):
        code, _, told = run("train", tmp_path / "empty", "-o", tmp_path / output, "-q")
        assert code == 1 and "nothing to use" in told
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")) == ["empty", "runs"]


def test_resume_refuses_what_the_run_has_settled(run, tmp_path: Path):
    data = some_chorales(tmp_path / "data", 8)
    sizes = ["--tokenizer", "grid", "--arch", "gru", "--preset", "tiny", "--precision", "fp32", "--steps", 1]
    assert run("train", data, *sizes, "-o", tmp_path / "a", "-q")[0] == 0
    code, _, told = run("train", "--resume", tmp_path / "a", "--device", "cpu", "--set", "size=3", "--steps", 2)
    assert code == 2 and "leave out --set, --device" in told


@pytest.mark.slow
def test_a_run_of_other_features_than_its_tokenizer_has_now_is_refused_in_a_line(run, tmp_path: Path):
    """A plan that leaves the tokenizer to the data gets what that is by then; it was a traceback of torch's."""
    made = tmp_path / "run"
    sizes = ["--arch", "gru", "--preset", "tiny", "--precision", "fp32", "--steps", 1, "-q"]
    assert run("train", *sizes, "--tokenizer", 'grid:{"features": 3}', "-o", made)[0] == 0
    plan = json.loads((made / "run.json").read_text("utf-8"))
    (made / "run.json").write_text(json.dumps(plan | {"tokenizer": None}), "utf-8")
    code, _, err = run("train", "--resume", made, "--steps", 2, "-q")
    assert code == 1
    assert "another version of musiclm" in err and "Traceback" not in err


def diverges(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Make the gradient of a step (counted from 1) NaN, as too high a learning rate does some steps later."""
    from musiclm.training import loop

    update = loop._update

    def broken(model, optimizers, clip):
        if broken.calls == step:
            for parameter in model.parameters():
                parameter.grad.mul_(float("nan"))
        broken.calls += 1
        return update(model, optimizers, clip)

    broken.calls = 1
    monkeypatch.setattr(loop, "_update", broken)


GRU = ["--tokenizer", "grid", "--arch", "gru", "--preset", "tiny", "--precision", "fp32", "--seed", 1]


def finite_json(folder: Path) -> list[dict]:
    """Return the lines of metrics.jsonl; NaN and Infinity, which JSON does not have, fail."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in {folder}")

    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


@pytest.mark.parametrize("arch", ["rnn", "gru", "transformer"])
def test_training_that_diverges_at_once_is_an_error_and_leaves_nothing(run, tmp_path: Path, arch: str):
    """It was exit 0, named a checkpoint that was not there, and wrote NaN into metrics.jsonl."""
    data = some_chorales(tmp_path / "data", 8)
    code, out, told = run(
        "train", data, *GRU, "--arch", arch, "--steps", 5, "--learning-rate", 1e20, "-o", "a", "--json", "-q"
    )
    assert (code, out) == (1, "")
    assert told.count("\n") == 1
    assert "the loss of step 2 was not finite" in told and "--learning-rate 0.00" in told
    assert not Path("a").exists()


def test_training_that_diverges_late_keeps_the_best_checkpoint_and_can_go_on_with_a_lower_rate(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    data = some_chorales(tmp_path / "data", 8)
    with monkeypatch.context() as patch:
        diverges(patch, 25)
        code, _, told = run("train", data, *GRU, "--steps", 40, "-o", "a")
    assert code == 1
    (line,) = [each for each in told.splitlines() if each.startswith("Error")]
    assert "the loss of step 25 was not finite" not in line and "the gradient of step 25 was not finite" in line
    metrics = finite_json(Path("a"))
    best = min(metrics, key=lambda each: each["validation_nats_per_token"])
    assert [each["step"] for each in metrics] == [10, 20] and steps_saved(Path("a")) == 20
    assert f"best.safetensors' of step {best['step']} is kept" in line
    assert f"validation {best['validation_nats_per_token']:.4f} nats/token" in line
    assert "musiclm train --resume a --learning-rate" in line
    kept = {path.name: path.read_bytes() for path in Path("a").glob("*.safetensors")}
    with monkeypatch.context() as patch:  # the same state gives the same end
        diverges(patch, 5)
        code, _, told = run("train", "--resume", "a")
    assert code == 1 and "step 25 was not finite" in told
    assert kept == {path.name: path.read_bytes() for path in Path("a").glob("*.safetensors")}
    assert run("train", "--resume", "a", "--learning-rate", 1e-4, "-q")[0] == 0
    after = finite_json(Path("a"))
    assert [each["step"] for each in after] == [10, 20, 30, 40]
    assert after[-1]["learning_rate"] < 1e-4 < after[0]["learning_rate"]


def test_a_validation_loss_that_is_not_finite_is_never_saved(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """NaN was taken for the lowest loss of all temperatures."""
    data = some_chorales(tmp_path / "data", 8)
    found = evaluation.fit_temperature

    def broken(*arguments, **options):
        temperature, report = found(*arguments, **options)
        broken.calls += 1
        return temperature, dataclasses.replace(report, nats=report.nats if broken.calls < 2 else float("nan"))

    broken.calls = 0
    monkeypatch.setattr(evaluation, "fit_temperature", broken)
    code, _, told = run("train", data, *GRU, "--steps", 30, "-o", "a", "-q")
    assert code == 1 and "the validation loss of step 20 was not finite" in told
    assert [each["step"] for each in finite_json(Path("a"))] == [10] and steps_saved(Path("a")) == 10
    assert checkpoint.load("a").card["steps"] == 10


def test_weights_that_overflow_in_the_last_step_are_not_saved_without_validation_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Without pieces to validate on, the validation loss is 0 whatever the weights are."""
    run = Run.create(
        tmp_path / "a", TrainConfig(arch="gru", preset="tiny", data=some_chorales(tmp_path / "d", 2), steps=1)
    )
    monkeypatch.setattr(evaluation, "sample_pieces", lambda *_: [])
    monkeypatch.setattr(Recipe, "rate", lambda *_: float("nan"))
    with pytest.raises(DivergedError, match="a weight of step 1 was not finite"):
        list(run.train())
    run.close()
    assert not list((tmp_path / "a").glob("*.safetensors"))


def test_a_checkpoint_that_is_not_finite_is_no_start(run, tmp_path: Path):
    data = some_chorales(tmp_path / "data", 8)
    model = tiny("gru", tokenizers.create("grid").vocab_size, **tokenizers.create("grid").model_config)
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    checkpoint.save(Path("nan.safetensors"), model, arch="gru", tokenizer=tokenizers.create("grid"), card={})
    code, _, told = run("train", data, "--from", "nan.safetensors", "--steps", 3, "-o", "a", "-q")
    assert code == 1 and "is not finite" in told and told.count("\n") == 1
