"""The streaming state that training carries from crop to crop of the same pieces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..data.crops import Batch
from ..models.base import State, detach, reset
from .ranks import ALONE, Ranks

PREFIX = "carried."


class CarriedState:
    """The state of each batch element between contiguous crops: truncated back-propagation (Williams and Peng 1990).

    No gradient flows from a crop into the one before. The state of an element is reset where it begins a piece. Batches
    without `Batch.begins` are crops by themselves: nothing is carried.

    Args:
        tensors: the training state of the run to resume, which has those of `tensors`; empty for a new run.
        device: of the model.
        parts: the elements of each part of a batch that this process computes; left out, all of them in one part.
        ranks: the processes that compute the batch.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        device: torch.device,
        parts: Sequence[range] | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self._ranks = ranks
        num_carried = sum(name.startswith(PREFIX) for name in tensors)
        whole = tuple(tensors[f"{PREFIX}{i}"] for i in range(num_carried))
        slices = [slice(None)] if parts is None else [slice(part.start, part.stop) for part in parts]
        self._states: list[State | None] = [tuple(t[each].to(device) for t in whole) or None for each in slices]

    def before(self, batch: Batch, part: int = 0) -> State | None:
        """Return the state that a part of a batch continues, of zeros in elements that begin a piece.

        None if nothing was kept so far, or if the batch's elements are crops by themselves.
        """
        state = self._states[part]
        if batch.begins is None or state is None:
            return None
        return reset(state, batch.begins)

    def keep(self, batch: Batch, state: State, part: int = 0) -> None:
        """Keep the state after a part of a batch."""
        if batch.begins is not None:
            self._states[part] = detach(state)

    def tensors(self) -> dict[str, Tensor]:
        """Return what a run saves of it, by name: the state of all elements, of all processes."""
        states = [state for state in self._states if state is not None]
        whole = (self._ranks.gathered(torch.cat(parts)) for parts in zip(*states, strict=True))
        return {f"{PREFIX}{i}": t for i, t in enumerate(whole)}
