"""What every grammar does: it knows for one row at a time what may follow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Grammar(ABC):
    """A rule that knows for one row at a time what may follow, by the place where the row stands.

    Places are immutable and can be compared, so that what follows from one need not be found twice.
    """

    @abstractmethod
    def beginning(self) -> Any:
        """Return the place before the first token."""

    @abstractmethod
    def allowed(self, place: Any) -> np.ndarray:
        """Return which ids may come next, (V,) booleans; not to be written to."""

    @abstractmethod
    def after(self, place: Any, token: int) -> Any:
        """Return the place behind a token."""

    def start(self, batch: int) -> list[Any]:
        return [self.beginning()] * batch

    def allow(self, state: list[Any]) -> Tensor:
        allowed = torch.from_numpy(np.stack([self.allowed(place) for place in state]))
        return torch.zeros(allowed.shape).masked_fill_(~allowed, float("-inf"))

    def step(self, state: list[Any], token: Tensor) -> list[Any]:
        return [self.after(place, i) for place, i in zip(state, token.tolist(), strict=True)]


class Never(Grammar):
    """Some ids never come."""

    def __init__(self, vocab_size: int, ids: Sequence[int]) -> None:
        self._allowed = np.ones(vocab_size, bool)
        self._allowed[list(ids)] = False

    def beginning(self) -> None:
        return None

    def allowed(self, place: None) -> np.ndarray:
        return self._allowed

    def after(self, place: None, token: int) -> None:
        return None
