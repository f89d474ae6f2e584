"""The streaming state that training carries from crop to crop of the same pieces."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..data.crops import Batch
from ..models.base import State, detach, reset

PREFIX = "carried."


class CarriedState:
    """The state of each batch element between contiguous crops: truncated back-propagation (Williams and Peng 1990).

    No gradient flows from a crop into the one before. The state of an element is reset where it begins a piece. Batches
    without `Batch.begins` are crops by themselves: nothing is carried.

    Args:
        tensors: the training state of the run to resume, which has those of `tensors`; empty for a new run.
        device: of the model.
    """

    def __init__(self, tensors: Mapping[str, Tensor], device: torch.device) -> None:
        num_carried = sum(name.startswith(PREFIX) for name in tensors)
        self._state: State | None = tuple(tensors[f"{PREFIX}{i}"].to(device) for i in range(num_carried)) or None

    def before(self, batch: Batch) -> State | None:
        """Return the state that the batch continues, of zeros in elements that begin a piece.

        None if nothing was kept so far, or if the batch's elements are crops by themselves.
        """
        if batch.begins is None or self._state is None:
            return None
        return reset(self._state, batch.begins)

    def keep(self, batch: Batch, state: State) -> None:
        """Keep the state after a batch."""
        if batch.begins is not None:
            self._state = detach(state)

    def tensors(self) -> dict[str, Tensor]:
        """Return what a run saves of it, by name."""
        return {f"{PREFIX}{i}": t for i, t in enumerate(self._state or ())}
