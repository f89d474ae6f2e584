"""The processes of a training run: one, or several that `torchrun` starts (`torch.distributed`).

Each process, a *rank*, has a copy of the model and computes some elements of each batch; gradients are summed over the ranks
(`DistributedDataParallel`, Li et al. 2020). What decides about the run, its clock, when it stops and what it measures, is the
same in all of them, and only the first one writes.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ..devices import resolve_device
from ..errors import RunError

if TYPE_CHECKING:  # run.json is written before torch is imported
    from torch import Tensor, nn

TIMEOUT = datetime.timedelta(minutes=30)  # of a rank that hangs; one that dies is noticed at once
PATIENCE = datetime.timedelta(days=7)  # while others prepare their data
LOST = (  # of Gloo, then of NCCL; "gloo" and "nccl" are also in the messages of other errors
    "connection closed by peer",
    "connection reset by peer",
    "broken pipe",
    "connection refused",
    "timed out waiting",
    "pair closure",
    "remote process exited",
    "communicator was aborted",
)

T = TypeVar("T")


class FailedElsewhere(RunError):
    """Another process of the run failed. It has the error, and says it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ranks:
    """The processes of a run.

    Attributes:
        rank: the number of this one.
        size: how many there are.
        is_joined: whether they are connected; a process by itself needs no connection.
        patient: the process group in which some processes wait for long; None for the default group.
    """

    rank: int = 0
    size: int = 1
    is_joined: bool = False
    patient: Any = dataclasses.field(default=None, repr=False, compare=False)

    @property
    def is_first(self) -> bool:
        """Whether this process writes the run."""
        return self.rank == 0

    def elements(self, batch_size: int, num_parts: int) -> list[range]:
        """Return which elements of a batch this process computes, part by part.

        Args:
            batch_size: of the whole batch.
            num_parts: in which each process computes its share, one after the other.

        Raises:
            RunError: the batch cannot be divided evenly.
        """
        size, rest = divmod(batch_size, self.size * num_parts)
        if rest or not size:
            parts = f"{num_parts} parts" if self.size == 1 else f"{self.size} x {num_parts} parts"
            share = f"{self.size} processes" if num_parts == 1 else parts
            raise RunError(f"a batch of {batch_size} sequences cannot be divided among {share}: choose --batch-size")
        first = self.rank * num_parts
        return [range((first + i) * size, (first + i + 1) * size) for i in range(num_parts)]

    def total(self, values: Sequence[float]) -> list[float]:
        """Return the sums of numbers over all processes, the same in each."""
        if not self.is_joined:
            return list(values)
        import torch

        numbers = torch.tensor(values, dtype=torch.float64)
        torch.distributed.all_reduce(numbers)
        return cast("list[float]", numbers.tolist())

    def of_first(self, value: T) -> T:
        """Return what the first process has; anything that can be pickled."""
        if not self.is_joined:
            return value
        import torch

        values = [value]
        torch.distributed.broadcast_object_list(values, src=0)
        return values[0]

    def agreed(self, make: Callable[[], T]) -> T:
        """Return what `make` returns, once it has succeeded in all processes; it may not communicate.

        Raises:
            Exception: what `make` raised, in the first process in which it failed.
            FailedElsewhere: `make` failed in another process.
        """
        if not self.is_joined:
            return make()
        import torch

        error: Exception | None = None
        try:
            made = make()
        except Exception as caught:
            error = caught
        failed = torch.tensor(self.size if error is None else self.rank)
        torch.distributed.all_reduce(failed, op=torch.distributed.ReduceOp.MIN, group=self.patient)
        first = int(failed)
        if first == self.size:
            return made
        if error is not None and first == self.rank:
            raise error
        raise FailedElsewhere(f"process {first} of the run failed") from error

    def in_turns(self, make: Callable[[], T]) -> T:
        """Return what `make` returns in each process; the others call it when the first one has written its files.

        The first process of each other machine comes second, since machines may not share a cache. See `agreed`.
        """
        turn = 0 if self.is_first else 1 if os.environ.get("LOCAL_RANK") == "0" else 2
        made: list[T] = []
        for now in range(3 if self.is_joined else 1):
            self.agreed(lambda is_mine=turn == now: made.append(make()) if is_mine else None)  # type: ignore[misc]
        return made[0]

    def require_same(self, value: object, problem: str) -> None:
        """Check that all processes have the value of the first one; it can be pickled.

        Raises:
            RunError: they do not; with `problem` as message in the first process that differs.
            FailedElsewhere: another process differs.
        """
        of_first = self.of_first(value)

        def check() -> None:
            if value != of_first:
                raise RunError(problem)

        self.agreed(check)

    def gathered(self, tensor: Tensor) -> Tensor:
        """Return the tensors of all processes behind each other, of equal shapes, on the CPU."""
        if not self.is_joined:
            return tensor
        import torch

        tensor = tensor.detach().cpu().contiguous()
        found = [torch.empty_like(tensor) for _ in range(self.size)]
        torch.distributed.all_gather(found, tensor)
        return torch.cat(found)

    def parallel(self, module: nn.Module) -> Any:
        """Return a module whose gradients are averaged over the processes; the module itself for one process."""
        if not self.is_joined:
            return module
        from torch import nn

        return nn.parallel.DistributedDataParallel(module)

    def leave(self) -> None:
        """Close the connections."""
        if self.is_joined:
            import torch

            torch.distributed.destroy_process_group()


ALONE = Ranks()


def are_launched() -> bool:
    """Return whether `torchrun` started this process; others leave variables such as RANK in the environment, too."""
    names = ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    return all(name in os.environ for name in names)


def join(device: str = "auto") -> Ranks:
    """Return the ranks that `torchrun` started, connected: by Gloo, and by NCCL if they train on CUDA.

    Args:
        device: of the run: auto, cpu, cuda or mps.

    Raises:
        RunError: the others cannot be reached.
    """
    if not are_launched():
        return ALONE
    import torch

    has_cuda = resolve_device(device) == "cuda"
    try:
        if has_cuda:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if has_cuda else "gloo", timeout=TIMEOUT)
        patient = torch.distributed.new_group(backend="gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise RunError(f"the other processes of the run cannot be reached: {error}") from error
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    return Ranks(rank=rank, size=size, is_joined=True, patient=patient)


def is_loss_of_a_rank(error: RuntimeError) -> bool:
    """Return whether an error means that the connection to another process broke."""
    text = str(error).lower()
    return any(sign in text for sign in LOST)
