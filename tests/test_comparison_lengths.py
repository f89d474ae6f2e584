"""Memory and speed against context length: exponents, what a measurement counts, baselines, and the command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from musiclm import devices, models
from musiclm.comparison import cost, lengths, naive
from musiclm.comparison.cost import Cost, CostConfig
from musiclm.plotting import lengths as plots
from tests import test_cli

MB = 10**6
PRECISIONS = {"naive": "fp32", "absolute": "fp32", "transformer": "int8", "lstm": "int8", "gru": "int8"}


def costs_of(config: lengths.LengthsConfig, memory) -> list[Cost]:
    """Return made-up costs of all architectures: memory by (arch, length), speeds that fall as 1 / length."""
    return [
        Cost(
            arch=arch,
            length=length,
            activation_bytes=memory(arch, length),
            training_tokens_per_second=1e6 / length,
            generation_tokens_per_second=100.0,
        )
        for arch in config.names
        for length in config.lengths
    ]


def test_an_exponent_is_that_of_the_power_law_behind_the_last_lengths():
    at = [512, 1024, 2048, 4096, 8192]
    assert lengths.exponent(at, [7 * x**2 for x in at]) == pytest.approx(2)
    assert lengths.exponent(at, [3 / x for x in at]) == pytest.approx(-1)
    late = [1.0, 1.0, *(x**1.5 for x in at[2:])]  # the first two are outside of the fit
    assert lengths.exponent(at, late) == pytest.approx(1.5)
    noisy = [x * factor for x, factor in zip(at, (9, 9, 1.02, 0.98, 1.02), strict=True)]
    assert lengths.exponent(at, noisy) == pytest.approx(1, abs=0.02)


def test_an_exponent_leaves_out_what_was_not_measured_and_needs_two_lengths():
    assert lengths.exponent([1, 2, 4, 8], [1, 4, 16, None]) == pytest.approx(2)
    assert lengths.exponent([512], [3.0]) is None
    assert lengths.exponent([512, 1024], [3.0, None]) is None
    assert lengths.exponent([512, 1024], [0, 5]) is None


def test_naive_attention_gives_the_logits_of_absolute_whole_and_in_chunks():
    torch.manual_seed(0)
    sizes = models.preset("absolute", "tiny") | {"context": 6, "dropout": 0.0}
    stored, fused = naive.create(20, **sizes).eval(), models.create("absolute", 20, **sizes).eval()
    fused.load_state_dict(stored.state_dict())
    tokens = torch.randint(0, 20, (2, 15))
    expected, _ = fused(tokens)
    assert torch.allclose(stored(tokens)[0], expected, atol=1e-5)
    state, parts = None, []
    for chunk in tokens.split(4, 1):
        logits, state = stored(chunk, state)
        parts.append(logits)
    assert torch.allclose(torch.cat(parts, 1), expected, atol=1e-5)


def test_naive_attention_is_no_architecture():
    assert naive.NAME not in models.names()
    config = lengths.LengthsConfig(archs=["gru", "absolute"])
    assert config.names == ["naive", "absolute", "transformer", "gru"]


@pytest.mark.parametrize("arch", models.names())
def test_every_architecture_can_be_made_for_a_length_and_a_context_is_that_length(arch: str):
    config = cost.create(arch, "tiny", 333).config
    assert getattr(config, "context", 333) == 333
    preset = models.preset(arch, "tiny")
    assert {name: getattr(config, name) for name in preset if name != "context"} == {
        name: value for name, value in preset.items() if name != "context"
    }


def test_about_one_random_token_in_32_is_global_where_an_architecture_has_global_tokens():
    having = [arch for arch in models.names() if "global_ids" in models.fields(arch)]
    assert "longformer" in having
    tokens = torch.randint(0, cost.VOCAB_SIZE, (1, 32_000), generator=torch.Generator().manual_seed(0))
    for arch in having:
        ids = cost.create(arch, "tiny", 333).config.global_ids
        assert torch.isin(tokens, torch.tensor(ids)).sum().item() == pytest.approx(1000, rel=0.1)


def test_the_peak_sees_an_allocation_that_is_freed_again():
    def allocate() -> None:
        torch.ones(60 * MB // 4).sum()

    assert cost.peak_of(lambda: None, torch.device("cpu")) < 5 * MB
    assert cost.peak_of(allocate, torch.device("cpu")) == pytest.approx(60 * MB, rel=0.1)
    assert cost.peak_of(lambda: None, torch.device("cpu")) < 5 * MB  # an earlier peak is not seen


@pytest.mark.slow
def test_naive_attention_takes_its_scores_more_than_fused_attention_and_grows_faster():
    found = {
        (arch, length): cost.measure_apart(CostConfig(arch=arch, length=length, preset="tiny"))
        for arch, length in [("naive", 1024), ("naive", 2048), ("absolute", 2048), ("lstm", 1024), ("lstm", 2048)]
    }
    memory = {key: each.activation_bytes for key, each in found.items()}
    sizes = models.preset("absolute", "tiny")
    weights = 4 * sizes["num_layers"] * sizes["num_heads"] * 2048**2  # float32, kept for the backward pass
    assert memory["naive", 2048] - memory["absolute", 2048] > 0.9 * weights
    assert (
        lengths.exponent([1024, 2048], [memory["naive", n] for n in (1024, 2048)]) > 1.25
    )  # 1.37: other layers are linear
    assert lengths.exponent([1024, 2048], [memory["lstm", n] for n in (1024, 2048)]) == pytest.approx(1, abs=0.35)
    for each in found.values():
        assert each.training_tokens_per_second > 0 and each.generation_tokens_per_second > 0
        assert each.update_seconds > 0 and each.problem is None
    assert found["naive", 1024].generation_precision == found["absolute", 2048].generation_precision == "fp32"
    assert found["lstm", 1024].generation_precision == devices.resolve_precision("auto", "cpu")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory can be limited on Linux")
def test_what_does_not_fit_into_memory_is_a_problem_and_no_crash(monkeypatch):
    monkeypatch.setattr(cost, "free_memory", lambda: 150 * MB)
    monkeypatch.setattr(cost, "MIN_STEPS", 1)
    monkeypatch.setattr(cost, "STEP_SECONDS", 0.0)
    found = cost.measure(CostConfig(arch="naive", length=4096, preset="tiny"))
    assert found.activation_bytes is None and found.training_tokens_per_second is None
    assert "training does not fit into 0.1 GB" in found.problem


def kill_itself(connection, config) -> None:
    signal.raise_signal(signal.SIGKILL)


def test_a_killed_process_is_a_problem_and_no_crash(monkeypatch):
    monkeypatch.setattr(cost, "_answer", kill_itself)
    found = cost.measure_apart(CostConfig(arch="gru", length=64, preset="tiny"))
    assert found.problem == "the process was killed by signal 9: probably out of memory"
    assert found.activation_bytes is None


def fail(connection, config) -> None:
    sys.exit(3)


def abort(connection, config) -> None:
    signal.raise_signal(signal.SIGTERM)


def test_a_process_that_fails_or_is_ended_otherwise_is_not_said_to_be_out_of_memory(monkeypatch):
    """Every process without an answer was "probably out of memory"."""
    for ending, problem in ((fail, "failed with exit code 3"), (abort, "was killed by signal 15")):
        monkeypatch.setattr(cost, "_answer", ending)
        found = cost.measure_apart(CostConfig(arch="gru", length=64, preset="tiny"))
        assert found.problem == f"the process {problem}"


def test_a_device_without_a_measurement_of_memory_is_the_reason(monkeypatch):
    monkeypatch.setattr(cost, "peak_of", lambda run, device: None)
    monkeypatch.setattr(cost, "STEP_SECONDS", 0.0)
    found = cost.measure(CostConfig(arch="gru", length=64, preset="tiny"))
    assert found.problem == "memory cannot be measured on cpu"
    assert found.activation_bytes is None and found.training_tokens_per_second > 0


PROGRAM = """
    import os, time
    from musiclm.comparison import cost

    def measure(config):
        print(os.getpid(), flush=True)
        time.sleep(600)

    cost.measure = measure  # in the new process, too, which imports this file
    if __name__ == "__main__":
        cost.measure_apart(cost.CostConfig(arch="gru", length=64))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the signal is Linux's")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=lambda s: s.name)
def test_a_measurement_ends_with_the_process_that_asked_for_it(how: signal.Signals, tmp_path: Path):
    """It used to go on for minutes after a SIGTERM, and took the CPU from whatever was started next."""
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    process = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    stat = Path(f"/proc/{child}/stat")
    process.send_signal(how)
    process.wait(timeout=60)
    until = time.monotonic() + 10
    while is_running(stat) and time.monotonic() < until:
        time.sleep(0.05)
    try:
        assert not is_running(stat)
    finally:
        if is_running(stat):
            os.kill(child, signal.SIGKILL)


def is_running(stat: Path) -> bool:
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_report_and_its_legends_name_what_was_measured():
    config = lengths.LengthsConfig(archs=["lstm"], lengths=[256, 512, 1024, 2048])
    costs = costs_of(config, lambda arch, n: None if (arch, n) == ("naive", 2048) else n**2 if arch == "naive" else n)
    report = lengths.report(config, costs)
    by_arch = {model["arch"]: model for model in report["models"]}
    assert list(by_arch) == ["naive", "absolute", "transformer", "lstm"]
    assert by_arch["naive"]["activation_bytes"] == [256**2, 512**2, 1024**2, None]
    assert by_arch["naive"]["exponents"]["activation_bytes"] == pytest.approx(2)
    assert by_arch["lstm"]["exponents"]["training_tokens_per_second"] == pytest.approx(-1)
    assert not by_arch["naive"]["is_architecture"] and by_arch["lstm"]["is_architecture"]
    assert report["fitted_lengths"] == 3
    labels = plots.labels(report, "activation_bytes")
    assert labels["naive"] == "naive (all scores stored): T^2.00 (through 256, 512, 1,024)"
    assert labels["lstm"] == "lstm: T^1.00"
    assert by_arch["naive"]["fitted_lengths"]["activation_bytes"] == [256, 512, 1024]
    assert by_arch["naive"]["fitted_lengths"]["training_tokens_per_second"] == [512, 1024, 2048]
    assert by_arch["lstm"]["fitted_lengths"]["activation_bytes"] == [512, 1024, 2048]
    for picture in (plots.memory_picture, plots.speed_picture):
        assert picture(report).startswith(b"\x89PNG")
        assert b"T^" in picture(report, ".svg") and picture(report, ".svg") == picture(report, ".svg")


def test_one_length_has_no_exponent_and_an_unfinished_report_is_one():
    config = lengths.LengthsConfig(archs=["gru"], lengths=[512])
    report = lengths.report(config, costs_of(config, lambda arch, n: n)[:2])
    assert {value for model in report["models"] for value in model["exponents"].values()} == {None}
    assert report["fitted_lengths"] == 0
    assert report["models"][3]["activation_bytes"] == [None]
    assert plots.labels(report, "activation_bytes")["gru"] == "gru"
    assert plots.speed_picture(report).startswith(b"\x89PNG")


def test_the_command_writes_table_plots_and_json(run, monkeypatch):
    def measured(config: CostConfig) -> Cost:
        if config.arch == "naive" and config.length == 4096:
            return Cost(arch="naive", length=4096, problem="training does not fit into 3.0 GB")
        values = {"activation_bytes": 1000 * config.length, "training_tokens_per_second": 5e6 / config.length}
        values |= {"generation_tokens_per_second": 321.0, "generation_precision": PRECISIONS[config.arch]}
        return Cost(arch=config.arch, length=config.length, **values)

    monkeypatch.setattr(cost, "measure_apart", measured)
    command = ["compare", "--lengths", "4096,1024,2048", "--archs", "lstm,gru", "--preset", "tiny"]
    code, out, err = run(*command, "--json", "-o", "cost")
    assert code == 0, err
    document = json.loads(out)
    assert document.pop("folder") == "cost"
    assert json.loads(Path("cost/results.json").read_text()) == document
    assert document["lengths"] == [1024, 2048, 4096] and document["preset"] == "tiny" and document["threads"] == 1
    assert [model["arch"] for model in document["models"]] == ["naive", "absolute", "transformer", "lstm", "gru"]
    assert all((Path("cost") / name).read_bytes().startswith(b"\x89PNG") for name in ("memory.png", "speed.png"))
    assert {model["arch"]: model["generation_precision"] for model in document["models"]} == PRECISIONS
    assert "naive at 4,096 tokens: training does not fit into 3.0 GB" in err
    code, out, err = run(*command)
    assert code == 0, err
    assert Path("compare-001/results.json").exists()
    assert max(map(len, out.splitlines())) <= 80
    table = [line.split() for line in out.splitlines()]
    assert ["lstm", "1.0", "2.0", "4.1", "1.00"] in table and ["naive", "1.0", "2.0", "-", "1.00*"] in table
    assert ["gru", "4,883", "2,441", "1,221", "-1.00"] in table
    assert "quadratic time is left, not quadratic memory" in " ".join(out.split())
    assert "* naive, memory: fitted through 1,024, 2,048" in out and "* gru" not in out
    assert "not measured, for the reason below" in out and "naive at 4,096 tokens: training does not fit" in out
    assert "weights in generation: fp32 naive, absolute; int8 transformer, lstm, gru" in out


def test_ctrl_c_keeps_what_was_measured(run, monkeypatch):
    def stopped_at(count: int):
        def measured(config: CostConfig) -> Cost:
            nonlocal count
            count -= 1
            if count < 0:
                raise KeyboardInterrupt
            return Cost(arch=config.arch, length=config.length, activation_bytes=10 * MB)

        return measured

    monkeypatch.setattr(cost, "measure_apart", stopped_at(2))
    code, out, err = run("compare", "--lengths", "256,512", "--archs", "gru", "-o", "cost")
    assert (code, out) == (130, "")
    assert err.splitlines()[-1] == f"Stopped. What was measured so far: {Path('cost', 'results.json')}"
    stored = json.loads(Path("cost/results.json").read_text())
    assert [m["activation_bytes"] for m in stored["models"]][:3] == [[10 * MB, None], [10 * MB, None], [None, None]]
    monkeypatch.setattr(cost, "measure_apart", stopped_at(0))
    code, _, err = run("compare", "--lengths", "256,512", "--archs", "gru", "-o", "other")
    assert code == 130 and err.splitlines()[-1] == "Stopped before anything was measured."
    assert not Path("other").exists()


def test_silly_lengths_are_one_line(run, tmp_path: Path):
    for wrong in ("0", "abc", "", "512,", "-3,5", "1.5", "512,512", "99999999"):
        code, _, err = run("compare", "--lengths", wrong)
        assert code == 2, wrong
        assert "--lengths" in err.splitlines()[-1]
    assert run("compare", "--lengths", "512", "--archs", "mamba")[0] == 2
    for other in (["--minutes", 3], ["--resume", "a"], ["--bars", 4], ["--tokenizer", "grid"]):
        code, _, err = run("compare", "--lengths", "512", *other)
        assert code == 2 and f"leave out {other[0]}" in err, other
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    code, _, err = run("compare", "--lengths", "512", "-o", "full")
    assert code == 1 and test_cli.one_line(err)
    assert not list(tmp_path.glob("compare-*"))
