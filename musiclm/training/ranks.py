"""The processes of a training run: one, or several that `torchrun` starts (`torch.distributed`).

Each process, a *rank*, has a copy of the model and computes some elements of each batch; gradients are summed over the ranks
(`DistributedDataParallel`, Li et al. 2020). What decides about the run, its clock, when it stops and what it measures, is the
same in all of them, and only the first one writes.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ..errors import RunError

if TYPE_CHECKING:  # run.json is written before torch is imported
    from torch import Tensor, nn

TIMEOUT = datetime.timedelta(minutes=30)  # of a rank that hangs; one that dies is noticed at once
LOST = ("closed by peer", "connection reset", "broken pipe", "connection refused", "gloo", "nccl", "remote process")

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ranks:
    """The processes of a run.

    Attributes:
        rank: the number of this one.
        size: how many there are.
        is_joined: whether they are connected; a process by itself needs no connection.
    """

    rank: int = 0
    size: int = 1
    is_joined: bool = False

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
            share = f"{self.size} processes" if num_parts == 1 else f"{self.size} x {num_parts} parts"
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
    """Return whether `torchrun` started this process."""
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))


def join() -> Ranks:
    """Return the ranks that `torchrun` started, connected: by NCCL where there is CUDA, and by Gloo.

    Raises:
        RunError: the others cannot be reached.
    """
    if not are_launched():
        return ALONE
    import torch

    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        backend = "cpu:gloo,cuda:nccl"
    try:
        torch.distributed.init_process_group(backend, timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise RunError(f"the other processes of the run cannot be reached: {error}") from error
    return Ranks(rank=torch.distributed.get_rank(), size=torch.distributed.get_world_size(), is_joined=True)


def is_loss_of_a_rank(error: RuntimeError) -> bool:
    """Return whether an error means that the connection to another process broke."""
    text = str(error).lower()
    return any(sign in text for sign in LOST)
