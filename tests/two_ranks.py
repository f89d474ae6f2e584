"""Two ranks for tests: forked processes that are connected by Gloo, without `torchrun`."""

from __future__ import annotations

import multiprocessing
import pickle
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from musiclm.training.ranks import Ranks

SECONDS = 60


def in_two(function: Callable[[Ranks], Any], folder: Path) -> list[Any]:
    """Return what a function returns in each of two ranks, or the text of its error; the folder is for their connection."""
    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe() for _ in range(2)]
    store = f"file://{folder / 'connection'}"
    processes = [
        context.Process(target=_rank, args=(function, rank, store, pipes[rank][1]), daemon=True) for rank in range(2)
    ]
    for process in processes:
        process.start()
    try:
        assert all(ours.poll(SECONDS) for ours, _ in pipes), "a rank hangs"
        return [pickle.loads(ours.recv_bytes()) for ours, _ in pipes]
    finally:
        for process in processes:
            process.join(5)
            process.kill()


def _rank(function: Callable[[Ranks], Any], rank: int, store: str, connection: Any) -> None:
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    try:
        found = function(Ranks(rank=rank, size=2, is_joined=True))
    except Exception as error:
        traceback.print_exc()
        found = f"{type(error).__name__}: {error}"
    connection.send_bytes(pickle.dumps(found))  # `send` would share the memory of tensors, which ends with this process
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
