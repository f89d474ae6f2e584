"""The contract of encoders: a hidden state of each note of a sequence that knows the notes before and after it.

B batch, N notes, F features, D size.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from .base import BaseConfig, Embedding


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderConfig(BaseConfig):
    """The hyperparameters that every encoder has.

    Attributes:
        both: whether a hidden state knows the notes after its own too, 1 or 0; without them the comparison of "past only"
            with "past and future".
    """

    both: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "both", bool(self.both))
        super().__post_init__()


class EncoderModel(nn.Module, ABC):
    """Hidden states of notes, for heads of regression or of distributions per note.

    Attributes:
        config: the architecture's `Config`.
        embedding: of ids and features.
        size: D, of a hidden state.
    """

    embedding: Embedding

    def __init__(self, config: EncoderConfig, size: int) -> None:
        super().__init__()
        self.config: Any = config
        self.size = size
        self.embedding = Embedding(config, size)

    @abstractmethod
    def forward(self, notes: Tensor, features: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Return the hidden state of each note, (B, N, D); undefined behind the end of a sequence.

        Args:
            notes: (B, N) int64, ids: pitches, for one.
            features: (B, N, F) int64; may be left out if F is 0.
            mask: (B, N) bool, False for padding behind the notes; all are notes if left out. Padding changes nothing.
        """

    @property
    def num_parameters(self) -> int:
        """Return the number of parameters."""
        return sum(p.numel() for p in self.parameters())


def mask_of(notes: Tensor, mask: Tensor | None) -> Tensor:
    """Return a mask, (B, N) bool; all True if there is none."""
    return torch.ones_like(notes, dtype=torch.bool) if mask is None else mask
