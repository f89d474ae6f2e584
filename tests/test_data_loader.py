"""The loader: batches in the order of their numbers, from any number on, by this process or by others."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from musiclm.data import loader
from tests.conftest import windows

CPU = torch.device("cpu")
forks = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked")


def equal(one, other) -> bool:
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("tokens", "targets", "features"))


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=forks)])
@pytest.mark.parametrize("start", [0, 7])
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_batches_come_in_the_order_of_their_numbers_from_any_number_on(chorales, workers: int, start: int):
    made = windows(chorales.pieces("train"))
    loaded = list(itertools.islice(loader.load(made, start, CPU, workers=workers), 6))
    assert len(loaded) == 6
    for number, batch in enumerate(loaded, start):
        assert equal(batch, made(number))


def test_a_loader_takes_nothing_from_the_global_random_numbers(chorales):
    """The same seed has to give the same weights and dropout, whether batches are loaded before or not."""
    made = windows(chorales.pieces("train"))
    torch.manual_seed(5)
    next(iter(loader.load(made, 0, CPU)))
    after = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(3))


def test_training_on_the_cpu_has_no_other_processes():
    assert loader.num_workers(CPU) == 0


@forks
def test_an_error_of_a_worker_is_raised_where_the_batch_is_wanted():
    def fails(number: int):
        raise ValueError(f"no batch {number}")

    with pytest.raises(ValueError, match="no batch 3"):
        next(iter(loader.load(fails, 3, CPU, workers=1)))


PROGRAM = """
    import os, signal, sys, time, torch
    from musiclm.data import loader
    from musiclm.data.crops import Batch

    def batch(number):
        time.sleep(0.05)
        return Batch(tokens=torch.tensor([[os.getpid()]]), targets=torch.tensor([[number]]), features=None)

    interrupted = []
    for number in (signal.SIGINT, signal.SIGTERM):  # as a training run does: the step is finished first
        signal.signal(number, lambda *_: interrupted.append(1))
    batches = iter(loader.load(batch, 0, torch.device("cpu"), workers=WORKERS))
    for count in range(40):
        found = next(batches)
        assert int(found.targets) == count
        print(int(found.tokens), flush=True)
    print("interrupted" if interrupted else "never interrupted", flush=True)
"""


FAILING = """
    import os, torch
    from musiclm.data import loader
    from musiclm.data.crops import Batch

    def batch(number):
        return Batch(tokens=torch.tensor([[os.getpid()]]), targets=torch.tensor([[number]]), features=None)

    batches = iter(loader.load(batch, 0, torch.device("cpu"), workers=WORKERS))
    for count in range(4):
        print(int(next(batches).tokens), flush=True)
    raise ValueError("a step failed")  # its traceback keeps the loader alive until Python ends the workers
"""


def begun(program: str, workers: int = 2) -> tuple[subprocess.Popen, list[int]]:
    """Return a process in a group of its own that loads batches by some workers, and the workers' ids."""
    program = textwrap.dedent(program).replace("WORKERS", str(workers))
    command = [sys.executable, "-W", "ignore", "-c", program]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=Path(__file__).parent,
    )
    assert process.stdout is not None
    pids = sorted({int(process.stdout.readline()) for _ in range(4)})
    assert len(pids) == workers and process.pid not in pids
    return process, pids


@pytest.mark.slow
@forks
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_leave_signals_to_the_process_that_trains(number: signal.Signals):
    """A terminal, and torchrun, sends it to all of them; the loader still gives every batch, so that the step can be saved.

    SIGTERM ended the workers: the step that was to be saved never got its batch.
    """
    process, _ = begun(PROGRAM, 1)
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out.splitlines()[-1] == "interrupted" and "Traceback" not in err


@pytest.mark.slow
@forks
def test_workers_end_with_a_process_that_fails():
    """Python ends them with SIGTERM and waits for them: workers that ignored it would never end."""
    process, workers = begun(FAILING)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "a step failed" in err
    assert not any(is_running(pid) for pid in workers)


@forks
def test_workers_end_with_a_process_that_is_killed():
    process, workers = begun(PROGRAM)
    process.kill()
    process.wait(timeout=60)
    until = time.monotonic() + 4  # PyTorch itself looks every 5 seconds
    while any(is_running(pid) for pid in workers) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(is_running(pid) for pid in workers)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
