"""Batches in the order of their numbers, made ahead of time by a `torch.utils.data.DataLoader`.

Batches are pure functions of their number, so the only state of a loader is the number that comes next: a run resumes at any
step without a sampler to restore.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ..processes import end_with_parent

MAX_WORKERS = 4  # each makes about half a million tokens a second

T = TypeVar("T")


class Numbered(Dataset[T]):
    """Items by their number, without an end.

    Args:
        item: returns item `number`, always the same.
    """

    def __init__(self, item: Callable[[int], T]) -> None:
        self.item = item

    def __getitem__(self, number: int) -> T:
        return self.item(number)


class NumbersFrom(Sampler[int]):
    """The numbers from `start` on, without an end."""

    def __init__(self, start: int) -> None:
        self.start = start

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self.start)


def num_workers(device: torch.device) -> int:
    """Return how many processes should make the batches for training on a device.

    None for training on the CPU: the processes would take the cores that train, and making batches costs less than a
    hundredth of a step. On a GPU up to `MAX_WORKERS`, where processes can be forked.
    """
    if device.type != "cuda" or "fork" not in multiprocessing.get_all_start_methods():
        return 0
    return min(MAX_WORKERS, max(1, (os.cpu_count() or 1) - 1))


def load(batches: Callable[[int], T], start: int, device: torch.device, *, workers: int | None = None) -> DataLoader[T]:
    """Return a loader of batches `start`, `start` + 1, …: iterate over it for as many as are wanted.

    Workers are forked, so that they share what the batches are made of: pickled, a memory-mapped corpus would be read into
    the memory of each. They ignore Ctrl-C and SIGTERM, which are for the process that trains, and end with it, however it ends.

    Args:
        batches: returns batch `number`, always the same.
        start: number of the first batch.
        device: that the batches are for; those for a GPU are in pinned memory.
        workers: how many processes make batches, two ahead each; 0 for this one. `num_workers` if left out.
    """
    workers = num_workers(device) if workers is None else workers
    return DataLoader(
        Numbered(batches),
        batch_size=None,  # an item is a batch already
        sampler=NumbersFrom(start),
        num_workers=workers,
        pin_memory=device.type == "cuda",
        multiprocessing_context="fork" if workers else None,
        worker_init_fn=_begin_worker if workers else None,
        generator=torch.Generator(),  # PyTorch takes a number from it, which else came from the global one
    )


def _begin_worker(_: int) -> None:
    """Leave signals to the parent process, and end with it: a worker would keep the lock of its run.

    A terminal sends SIGINT, and `torchrun` SIGTERM, to all processes of a group.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey_parent, args=(os.getppid(),), daemon=True).start()
    end_with_parent()


def _obey_parent(parent: int) -> None:
    """End this process when its parent sends SIGTERM, which it does where it ends with an error; ignore that of others."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
