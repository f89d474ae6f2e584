"""What one training step and one generated token cost at one length, measured in a process of its own.

Activation memory: the peak of resident memory in the forward and backward pass of one sequence of T tokens (batch size 1),
less what the process held before them: the imports, the parameters, their gradients and the optimizer's state are all in
place after a warm-up step of `WARM_UP` tokens. What is counted is what the pass keeps for its gradients, its temporary
tensors and the logits. On Linux the peak is VmHWM, reset by /proc/self/clear_refs; on CUDA it is that of torch's allocator;
on other systems it is how far the peak of the process rises. A new process for each measurement keeps peaks apart.

Training speed: tokens/s of forward pass, loss and backward pass, the median of some steps. The optimizer's update is not in
it: its cost does not depend on the length, and would hide how the cost per token grows. It is reported beside it.

Generation speed: tokens/s of the generation engine (`LanguageModel.for_generation`, sampling included), the median of
`NEW_TOKENS` tokens around position T. Its precision is that of "auto" on this machine; a model without a form for generation
(`absolute`, `naive`) runs in fp32.

The model has no input features and `VOCAB_SIZE` ids; tokens are random. In an architecture with `global_ids` about one token
in `GLOBAL_EVERY` is global, as where a bar has so many tokens. The clock counts CPU seconds with one thread on a
CPU, so that other programs do not distort it, and wall-clock seconds otherwise.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import math
import multiprocessing
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..devices import resolve_precision
from ..processes import end_with_parent
from . import naive

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..models.base import LanguageModel

VOCAB_SIZE = 512
GLOBAL_EVERY = 32  # tokens
WARM_UP = 64  # tokens
NEW_TOKENS = 64  # generated around the position
MIN_STEPS, MAX_STEPS, STEP_SECONDS = 3, 20, 2.0  # timed training steps: until the seconds are used
SHARE_OF_FREE_MEMORY = 0.8  # that a measurement may take
MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD, see mallopt(3)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CostConfig:
    """What to measure.

    Attributes:
        arch: one of `musiclm.models.names()`, or `naive.NAME`.
        length: T, tokens.
        preset: the size of the model; a field `context` becomes T, and every other field keeps its value.
        bf16: whether to train in bfloat16.
        threads, device, seed: as for training.
    """

    arch: str
    length: int
    preset: str = "small"
    bf16: bool = False
    threads: int = 1
    device: str = "cpu"
    seed: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost at one length.

    Attributes:
        arch, length: what was measured.
        num_parameters: of the model at this length.
        activation_bytes: of a training step; None where it was not measured.
        training_tokens_per_second, generation_tokens_per_second: None where they were not measured.
        update_seconds: of the optimizer's update, which is not in the training speed.
        generation_precision: of the weights in generation.
        problem: why something was not measured, or None.
    """

    arch: str
    length: int
    num_parameters: int | None = None
    activation_bytes: int | None = None
    training_tokens_per_second: float | None = None
    update_seconds: float | None = None
    generation_tokens_per_second: float | None = None
    generation_precision: str | None = None
    problem: str | None = None


def measure_apart(config: CostConfig) -> Cost:
    """Return the cost, measured in a new process, which ends with this call however that ends.

    A length that does not fit into memory, or whose process was killed or failed, is a `problem` of the cost.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, config), daemon=True, name="musiclm cost")
    try:
        with _ignored_interrupts():  # the new process inherits that; Ctrl-C is for this one
            process.start()
        sender.close()
        cost: Cost = receiver.recv()
        return cost
    except EOFError:
        process.join()
        return Cost(arch=config.arch, length=config.length, problem=_how_it_ended(process.exitcode or 0))
    finally:
        if process.pid is not None:
            process.kill()
            process.join()
        receiver.close()


def _how_it_ended(code: int) -> str:
    """Return why a process with this exit code gave no answer. SIGKILL is what Linux sends where memory runs out."""
    if code >= 0:
        return f"the process failed with exit code {code}"
    return f"the process was killed by signal {-code}" + ": probably out of memory" * (-code == signal.SIGKILL)


@contextlib.contextmanager
def _ignored_interrupts() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _answer(connection: Connection, config: CostConfig) -> None:
    """Measure and send the cost: the main function of the process."""
    end_with_parent()
    import torch

    torch.set_num_threads(config.threads)
    connection.send(measure(config))


def measure(config: CostConfig) -> Cost:
    """Return the cost, measured in this process; its peak of memory must not have been reached before."""
    import torch

    torch.manual_seed(config.seed)
    model = create(config.arch, config.preset, config.length).to(config.device)
    found: dict[str, Any] = {}
    problems = []
    for part in (_training, _generation):
        room = SHARE_OF_FREE_MEMORY * free_memory()
        try:
            with _limited_memory(room):
                found |= part(model, config)
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            problems.append(f"{part.__name__.strip('_')} does not fit into {_memory_of(config.device, room)}")
    if found.get("activation_bytes", 0) is None:
        problems.append(f"memory cannot be measured on {config.device}")
    return Cost(
        arch=config.arch,
        length=config.length,
        num_parameters=model.num_parameters,
        problem="; ".join(problems) or None,
        **found,
    )


def create(arch: str, preset: str, length: int) -> LanguageModel:
    """Return an untrained model of a preset's size; if it has a `context`, that is the length.

    Of an architecture with `global_ids`, one id in `GLOBAL_EVERY` is global: without them it would attend to less than it
    does on music.
    """
    from .. import models

    based_on = naive.BASED_ON if arch == naive.NAME else arch
    config = models.preset(based_on, preset)
    if "context" in config:
        config["context"] = length
    if "global_ids" in models.fields(based_on):
        config["global_ids"] = tuple(range(0, VOCAB_SIZE, GLOBAL_EVERY))
    if arch == naive.NAME:
        return naive.create(VOCAB_SIZE, **config)
    return models.create(arch, VOCAB_SIZE, **config)


def _training(model: LanguageModel, config: CostConfig) -> dict[str, Any]:
    """Return activation memory, speed and the seconds of an update."""
    import torch

    from ..training.optim import Recipe, make_optimizers

    recipe = Recipe(steps=1, bf16=config.bf16)
    optimizers = make_optimizers(model.train(), recipe)
    device = torch.device(config.device)
    now = clock(config)
    ids = torch.randint(0, VOCAB_SIZE, (1, config.length + 1), device=device)

    def step(length: int) -> float:
        began = now()
        with recipe.autocast(device):
            logits, _ = model(ids[:, :length])
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), ids[0, 1 : length + 1])
        loss.backward()
        return now() - began

    def update() -> float:
        began = now()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        for optimizer in optimizers:
            optimizer.step()
        return now() - began

    step(min(WARM_UP, config.length))
    update()  # makes the moments
    update_seconds = update()
    seconds: list[float] = []
    activation_bytes = peak_of(lambda: step(config.length), device)
    while len(seconds) < MIN_STEPS or (len(seconds) < MAX_STEPS and sum(seconds) < STEP_SECONDS):
        seconds.append(step(config.length))  # gradients add up where they are, and are not allocated again
    return {
        "activation_bytes": activation_bytes,
        "training_tokens_per_second": config.length / statistics.median(seconds),
        "update_seconds": update_seconds,
    }


def _generation(model: LanguageModel, config: CostConfig) -> dict[str, Any]:
    """Return the speed of the generation engine around the position."""
    import torch

    from ..generation.decode import sample_ids

    model.zero_grad(set_to_none=True)
    form = model.eval().for_generation()
    num_before = max(1, config.length - NEW_TOKENS // 2)
    prompt = torch.randint(0, VOCAB_SIZE, (1, num_before), device=config.device)
    stream = sample_ids(form, prompt, seed=config.seed)
    next(stream)  # reads the prompt
    seconds = time_tokens(stream, NEW_TOKENS, clock(config))
    stream.close()  # type: ignore[attr-defined]
    return {
        "generation_tokens_per_second": 1 / statistics.median(seconds),
        "generation_precision": "fp32" if form is model else resolve_precision("auto", config.device),
    }


def time_tokens(stream: Iterator[Tensor], count: int, now: Callable[[], float]) -> list[float]:
    """Return the seconds of each of the next tokens."""
    seconds = []
    for _ in range(count):
        began = now()
        next(stream)
        seconds.append(now() - began)
    return seconds


def clock(config: CostConfig) -> Callable[[], float]:
    """Return the clock, in seconds: CPU time with one thread on a CPU, else the wall clock, behind all work of a GPU."""
    import torch

    if config.device == "cpu":
        return time.process_time if config.threads == 1 else time.perf_counter
    synchronize = torch.cuda.synchronize if config.device == "cuda" else torch.mps.synchronize

    def now() -> float:
        synchronize()
        return time.perf_counter()

    return now


def peak_of(run: Callable[[], object], device: torch.device) -> int | None:
    """Return by how many bytes memory rises while something runs, at its peak; None where that cannot be measured."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    if device.type != "cpu":
        return None
    with _returned_when_freed():
        is_reset = _reset_peak()
        before = _resident("VmRSS" if is_reset else "VmHWM")
        run()
        return max(0, _resident("VmHWM") - before)


@contextlib.contextmanager
def _returned_when_freed() -> Iterator[None]:
    """Let glibc return each tensor's memory to the system when it is freed, so that what is resident is in use.

    By default tensors below 32 MB are in a heap with gaps: the peak of one model differed by 15 % between runs.
    """
    try:
        libc = ctypes.CDLL(None)
        libc.malloc_trim(0)  # what was freed before must not be counted as free room
        libc.mallopt(MMAP_THRESHOLD, 64 << 10)
    except (OSError, AttributeError):  # not glibc
        yield
        return
    try:
        yield
    finally:
        libc.mallopt(MMAP_THRESHOLD, 32 << 20)


def _reset_peak() -> bool:
    """Set the peak of resident memory to what is resident now; return whether the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _resident(field: str) -> int:
    """Return the resident memory of this process, or its peak, in bytes: the fields VmRSS and VmHWM of Linux."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith(field)).split()[1]) * 1024
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def free_memory() -> float:
    """Return the bytes that this process may still take, of the machine, its cgroup and `ulimit -v`; infinity if unknown."""
    free = math.inf
    with contextlib.suppress(ImportError):
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        free = math.inf if limit == resource.RLIM_INFINITY else limit - _resident("VmSize")
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = min(free, int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) * 1024)
    with contextlib.suppress(OSError, ValueError):
        most, used = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current"))
        free = min(free, most - used)
    return free


@contextlib.contextmanager
def _limited_memory(room: float) -> Iterator[None]:
    """Let allocations fail that need more bytes than `room`, so that the system need not kill a process (Linux)."""
    if not math.isfinite(room):
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    limits = [_resident("VmSize") + int(room), *(each for each in before if each != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _is_out_of_memory(error: Exception) -> bool:
    """Return whether an error says that memory could not be allocated; on a CPU torch raises a plain RuntimeError."""
    import torch

    texts = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc")
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(t in str(error) for t in texts)


def _memory_of(device: str, room: float) -> str:
    if device != "cpu" or not math.isfinite(room):
        return f"the memory of {device}"
    return f"{room / 1e9:.1f} GB ({SHARE_OF_FREE_MEMORY:.0%} of the free memory)"
