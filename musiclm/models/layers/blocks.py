"""What transformers share around their attention: config, pre-norm blocks, heads, initialization, the walk through layers.

An architecture's file has its attention module: `(x, cache) -> (y, cache)`, with its last linear layer named `out`. A cache
is what that module keeps of the tokens so far, None at the beginning.

B batch, T tokens, D size of the model, H heads, E size of a head.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..base import BaseConfig, State
from .dropout import Dropout

INIT_STD = 0.02


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerConfig(BaseConfig):
    """The hyperparameters that transformers have in common.

    Attributes:
        size: of the residual stream; a multiple of `num_heads`.
        num_layers: blocks of attention and feed-forward.
        num_heads: attention heads per layer.
        dropout: of embeddings and of the output of each sub-layer.
    """

    size: int = 256
    num_layers: int = 4
    num_heads: int = 4
    dropout: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_size(1)

    def check_size(self, multiple: int) -> None:
        """Check that the size of a head, and so the size, is a multiple of a number.

        Raises:
            ValueError: it is not.
        """
        if self.size % (multiple * self.num_heads):
            times = f"{multiple} " if multiple > 1 else ""
            raise ValueError(f"size must be a multiple of {times}num_heads: not {self.size} with {self.num_heads}")

    def check_even(self) -> None:
        """Check that the size is even, as sines and cosines need it.

        Raises:
            ValueError: it is not.
        """
        if self.size % 2:
            raise ValueError(f"size must be even, not {self.size}")


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x)) (pre-norm, Xiong et al. 2020; GELU, four times as wide).

    Args:
        attention: `(x_BTD, cache) -> (y_BTD, cache)`.
        size: D.
        dropout: of the output of each sub-layer.
    """

    def __init__(self, attention: nn.Module, size: int, dropout: float) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(size)
        self.attention = attention
        self.norm_forward = nn.LayerNorm(size)
        self.up = nn.Linear(size, 4 * size)
        self.down = nn.Linear(4 * size, size)
        self.dropout = Dropout(dropout)

    def forward(self, x_BTD: Tensor, cache: Any = None) -> tuple[Tensor, Any]:
        """Return the residual stream after the block, (B, T, D), and the new cache."""
        attended_BTD, cache = self.attention(self.norm_attention(x_BTD), cache)
        x_BTD = x_BTD + self.dropout(attended_BTD)
        return x_BTD + self.dropout(self.feed_forward(self.norm_forward(x_BTD))), cache

    def feed_forward(self, x_BTD: Tensor) -> Tensor:
        y_BTD: Tensor = self.down(F.gelu(self.up(x_BTD)))
        return y_BTD


def run_blocks(blocks: nn.ModuleList, x_BTD: Tensor, state: State | None) -> tuple[Tensor, State]:
    """Return the residual stream after all blocks, (B, T, D), and their new caches, one behind the other.

    Args:
        blocks: each takes and returns a cache of equally many tensors.
        x_BTD: the embedded tokens.
        state: the caches that an earlier call returned, or None at the beginning.
    """
    each = 0 if state is None else len(state) // len(blocks)
    after: list[Tensor] = []
    for i, block in enumerate(blocks):
        x_BTD, cache = block(x_BTD, None if state is None else state[each * i : each * (i + 1)])
        after += cache
    return x_BTD, tuple(after)


def initialize(model: nn.Module, blocks: Iterable[Any]) -> None:
    """Initialize the linear layers of a model: normal with a standard deviation of 0.02, biases 0.

    The deviation of the last layer of each sub-layer, `block.attention.out` and `block.down`, is divided by the square root
    of the number of sub-layers, which keeps the scale of the residual stream at any depth (Radford et al. 2019).
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=INIT_STD)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    last_layers = [last for block in blocks for last in (block.attention.out, block.down)]
    for last in last_layers:
        nn.init.normal_(last.weight, std=INIT_STD / len(last_layers) ** 0.5)


def split_heads(x_BTD: Tensor, num_heads: int) -> Tensor:
    """Return (B, H, T, E), a view."""
    return x_BTD.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def merge_heads(x_BHTE: Tensor) -> Tensor:
    """Return (B, T, D) with D = H E."""
    return x_BHTE.transpose(1, 2).flatten(2)
