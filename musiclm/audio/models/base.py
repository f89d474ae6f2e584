"""The base class of the note classifier's networks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn


class NoteModel(nn.Module, ABC):
    """A network from log-mel pictures to logits, one per family.

    A network whose first layer is a bank of kernels may have the methods of `HasKernels`, too, and a transformer over
    patches those of `HasPatches`: the plots ask for these abilities, not for names.

    Attributes:
        config: the architecture's `Config`, a dataclass with a field `num_families`.
    """

    config: Any

    @abstractmethod
    def forward(self, pictures: Tensor) -> Tensor:
        """Return logits, (B, families), of pictures in dB, (B, 64 mel bands, 64 frames)."""

    def embeddings(self) -> list[Tensor]:
        """Return the parameters that are embeddings: they have no weight decay."""
        return []


@runtime_checkable
class HasKernels(Protocol):
    """A network whose first kernels can be plotted: see `plots.kernels` and `plots.excitation`."""

    def first_kernels(self) -> Tensor:
        """Return the kernels of the first layer, (kernels, mel bands, frames)."""
        ...

    def first_layer(self, pictures: Tensor) -> Tensor:
        """Return the response of each first kernel to pictures in dB, (B, kernels, 32, 32)."""
        ...


@runtime_checkable
class HasPatches(Protocol):
    """A transformer over patches of the picture: see `plots.patches`, `plots.positions` and `plots.rollout`."""

    def patch_filters(self) -> Tensor:
        """Return the filters of the patch embedding, (width, mel bands, frames)."""
        ...

    def patch_positions(self) -> Tensor:
        """Return the positional embeddings of the patches, (patches up, patches right, width)."""
        ...

    def patch_stride(self) -> int:
        """Return how many bands and frames there are from one patch to the next."""
        ...

    def attention(self, pictures: Tensor) -> Tensor:
        """Return the attention of each layer to pictures in dB, (B, layers, heads, tokens, tokens).

        Rows sum to 1. The last tokens are the patches, low bands and early frames first; class tokens are before them.
        """
        ...
