"""The base class of the note classifier's networks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn


class NoteModel(nn.Module, ABC):
    """A network from log-mel pictures to logits, one per family.

    A network whose first layer is a bank of kernels may offer `first_kernels()` and `first_layer(pictures)`: then
    `plots.kernels` and `plots.excitation` can draw it.

    Attributes:
        config: the architecture's `Config`, a dataclass with a field `num_families`.
    """

    config: Any

    @abstractmethod
    def forward(self, pictures: Tensor) -> Tensor:
        """Return logits, (B, families), of pictures in dB, (B, 64 mel bands, 64 frames)."""
