"""Training by several processes: what it computes does not depend on their number, and none of them can hang the others."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from musiclm import models
from musiclm.data.contiguous import ContiguousCrops
from musiclm.data.crops import RandomCrops
from musiclm.errors import RunError
from musiclm.models.layers.dropout import Dropout, by_element
from musiclm.training import ranks
from musiclm.training.language_model import train
from musiclm.training.optim import Recipe
from musiclm.training.ranks import ALONE, Ranks
from musiclm.training.resume import load
from tests.conftest import GRID, tiny
from tests.data_files import folder_of, midi_bytes

CPU = torch.device("cpu")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def group():
    """One process that is connected to itself, as `torchrun --nproc-per-node 1` would start it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=1)
    yield Ranks(is_joined=True)
    torch.distributed.destroy_process_group()


def losses_of(arch: str, crops, *, steps: int = 4, **options) -> list[float]:
    torch.manual_seed(0)
    model, average = (tiny(arch, GRID.vocab_size, dropout=0.3, **GRID.model_config) for _ in range(2))
    recipe = Recipe(steps=steps, warmup_steps=2, seed=3)
    return [step.nats for step in train(model, crops, recipe, average=average, **options)]


def random_crops(chorales, batch_size: int = 4) -> RandomCrops:
    pieces = [p.tokens for p in chorales.pieces("train")[:6]]
    return RandomCrops(pieces, GRID, length=32, batch_size=batch_size, seed=1)


@pytest.mark.parametrize("elements", [range(2), range(1, 4), range(3, 4)])
def test_the_mask_of_an_element_depends_on_no_other(elements: range):
    dropout, x = Dropout(0.4).train(), torch.ones(4, 5, 7)
    with by_element(1, 2, range(4), CPU):
        whole = [dropout(x), dropout(x)]
    chosen = slice(elements.start, elements.stop)
    with by_element(1, 2, elements, CPU):
        part = [dropout(x[chosen]), dropout(x[chosen])]
    for a, b in zip(whole, part, strict=True):
        assert torch.equal(a[chosen], b)
    assert not torch.equal(*whole)  # each call has its own mask
    assert not torch.equal(whole[0][0], whole[0][1])
    with by_element(1, 3, range(4), CPU):
        assert not torch.equal(dropout(x), whole[0])


def test_dropout_keeps_the_share_and_the_mean():
    with by_element(1, 2, range(8), CPU):
        y = Dropout(0.3).train()(torch.ones(8, 100, 100))
    assert float((y == 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    assert float(y.mean()) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("kind", [RandomCrops, ContiguousCrops])
def test_elements_of_a_batch_are_those_of_the_whole(kind, chorales):
    pieces = [p.tokens for p in chorales.pieces("train")[:6]]
    whole, parts = (kind(pieces, GRID, length=32, batch_size=4, seed=1) for _ in range(2))
    for number in range(3):
        batch, part = whole(number), parts(number, slice(1, 3))
        assert torch.equal(batch.tokens[1:3], part.tokens)
        assert torch.equal(batch.targets[1:3], part.targets)
        assert torch.equal(batch.features[1:3], part.features)


@pytest.mark.parametrize("arch", models.names())
def test_a_batch_in_parts_is_the_whole(arch: str, chorales):
    whole = losses_of(arch, random_crops(chorales))
    parts = losses_of(arch, random_crops(chorales), accumulation=2)
    assert parts == pytest.approx(whole, rel=3e-4)  # Muon's steps are computed in bfloat16
    assert len(set(whole)) > 1


@pytest.mark.parametrize("arch", ["lstm", "transformer_xl"])
def test_parts_carry_the_state_of_their_own_elements(arch: str, chorales):
    pieces = [p.tokens for p in chorales.pieces("train")[:6]]
    crops = [ContiguousCrops(pieces, GRID, length=32, batch_size=4, seed=1) for _ in range(3)]
    torch.manual_seed(0)
    whole, parts = losses_of(arch, crops[0], steps=6), losses_of(arch, crops[1], steps=6, accumulation=4)
    assert parts == pytest.approx(whole, rel=3e-4)


@pytest.mark.parametrize("arch", models.names())
def test_every_architecture_trains_in_parallel(arch: str, group: Ranks, chorales):
    whole = losses_of(arch, random_crops(chorales))
    assert losses_of(arch, random_crops(chorales), ranks=group) == pytest.approx(whole, rel=1e-5)
    assert losses_of(arch, random_crops(chorales), ranks=group, accumulation=2) == pytest.approx(whole, rel=3e-4)


def test_elements_are_divided_evenly_or_not_at_all():
    shares = [Ranks(rank=rank, size=2).elements(12, 3) for rank in range(2)]
    assert [i for share in shares for part in share for i in part] == list(range(12))
    with pytest.raises(RunError, match="2 x 4 parts"):
        Ranks(size=2).elements(12, 4)
    with pytest.raises(RunError, match="16 processes"):
        Ranks(size=16).elements(8, 1)


def test_one_process_needs_no_connection():
    assert ALONE.total([1.5, 2]) == [1.5, 2]
    assert ALONE.of_first("x") == "x"
    assert torch.equal(ALONE.gathered(torch.ones(2)), torch.ones(2))
    assert not ranks.are_launched()
    assert ranks.join() is ALONE


def launch(folder: Path, *options: str, processes: int = 2) -> subprocess.Popen:
    arguments = ["--nproc-per-node", str(processes), "--standalone", "-m", "musiclm", "train", *options]
    command = [sys.executable, "-m", "torch.distributed.run", *arguments]
    return subprocess.Popen(
        command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def alone(folder: Path, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "musiclm", "train", *options]
    return subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)


def validations(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]


MODEL = [
    "--arch",
    "gru",
    "--preset",
    "tiny",
    "--window",
    "32",
    "--batch-size",
    "4",
    "--seed",
    "1",
    "--precision",
    "fp32",
]


@pytest.mark.slow
def test_two_processes_train_what_one_does_and_one_resumes_it(tmp_path: Path):
    whole = alone(tmp_path, *MODEL, "--steps", "20", "-o", "one")
    assert whole.returncode == 0, whole.stderr
    both = launch(tmp_path, *MODEL, "--steps", "20", "-o", "two")
    out, err = both.communicate(timeout=240)
    assert both.returncode == 0, err
    assert out.count("best.safetensors") == 1  # one process writes
    assert "by 2 processes" in err
    one, two = validations(tmp_path / "one"), validations(tmp_path / "two")
    for key in ("train_nats_per_token", "validation_nats_per_token"):
        assert [each[key] for each in two] == pytest.approx([each[key] for each in one], rel=1e-3)
    assert [each["tokens"] for each in two] == [each["tokens"] for each in one]
    resumed = alone(tmp_path, "--resume", "two", "--steps", "30")
    assert resumed.returncode == 0, resumed.stderr
    assert validations(tmp_path / "two")[-1]["step"] == 30


def wait_for(path: Path, run: subprocess.Popen) -> None:
    """Wait until a run has written a file."""
    deadline = time.monotonic() + 240
    while not path.exists():
        assert run.poll() is None and time.monotonic() < deadline, run.communicate()[1]
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_run_with_a_message_and_the_run_resumes(victim: int, tmp_path: Path):
    run = launch(tmp_path, *MODEL, "--steps", "2000", "-o", "run")
    wait_for(tmp_path / "run" / "resume.safetensors", run)
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    os.kill(int(children[victim]), signal.SIGKILL)
    _, err = run.communicate(timeout=240)  # 30 minutes, if the other one waited for the timeout of its connection
    assert run.returncode != 0
    assert "SIGKILL" in err or "another process of the run has ended" in err
    step = validations(tmp_path / "run")[-1]["step"]
    resumed = alone(tmp_path, "--resume", "run", "--steps", str(step + 5))
    assert resumed.returncode == 0, resumed.stderr


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_saves_the_step_that_was_taken(processes: int, tmp_path: Path):
    run = launch(tmp_path, *MODEL, "--steps", "2000", "-o", "run", processes=processes)
    wait_for(tmp_path / "run" / "resume.safetensors", run)  # 100 steps were taken
    run.send_signal(signal.SIGTERM)
    _, err = run.communicate(timeout=240)
    assert err.count("Stopped and saved") == 1
    assert load(tmp_path / "run" / "resume.safetensors")[0].step >= validations(tmp_path / "run")[-1]["step"]


@pytest.mark.slow
def test_what_is_wrong_is_said_once_and_ends_all(tmp_path: Path):
    run = launch(tmp_path, *MODEL, "--steps", "5", "--resume", "missing")
    _, err = run.communicate(timeout=240)
    assert run.returncode != 0
    assert err.count("leave out") == 1
    run = launch(tmp_path, *MODEL[:-4], "--batch-size", "3", "--steps", "5", "-o", "run")
    _, err = run.communicate(timeout=240)
    assert run.returncode != 0
    assert err.count("cannot be divided among 2 processes") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_first_process_prepares_midi_files_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Both built the same corpus at once, and one of them ended: another process builds it."""
    monkeypatch.setitem(ENVIRONMENT, "XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder_of(tmp_path / "music", {f"{i:02d}.mid": midi_bytes(i, num_bars=4) for i in range(60)})
    run = launch(tmp_path, "music", *MODEL, "--steps", "2", "-o", "run")
    _, err = run.communicate(timeout=240)
    assert run.returncode == 0, err
    assert len(list((tmp_path / "cache" / "musiclm" / "corpora").glob("music-*"))) == 1
    assert validations(tmp_path / "run")[-1]["step"] == 2
    folder_of(tmp_path / "broken", {f"{i:02d}.mid": b"no music" for i in range(60)})
    run = launch(tmp_path, "broken", *MODEL, "--steps", "2", "-o", "other")
    _, err = run.communicate(timeout=240)
    said = [
        line for line in err.splitlines() if line.startswith(("Error: ", "process 1: "))
    ]  # torchrun has a report, too
    assert run.returncode != 0 and len(said) == 1, err
    assert not (tmp_path / "other").exists()
