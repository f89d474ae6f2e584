"""The Music Transformer (Huang et al. 2018): self-attention with relative positions.

Each token attends to itself and the `context - 1` tokens before it, in one pass and step by step alike. So music can be
longer than the context, at a constant cost per token. Relative positions are distances 0 … context - 1, each with a learned
vector per layer and head. On a CPU in bf16 a layer of 8 x 512 tokens trains faster than with torch's fused attention without
positions (34 ms against 45 ms), see `layers.relative_attention`.

B batch, H heads, T new tokens, S cached and new tokens, D size of the model, E size of a head, R distances,
V vocabulary.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from ..devices import resolve_precision
from .base import Embedding, Head, LanguageModel, State, host_counts
from .layers.blocks import Block, TransformerConfig, initialize, merge_heads, split_heads
from .layers.dropout import Dropout
from .layers.relative_attention import relative_attention
from .layers.transformer_decoder import BlockWeights, IncrementalTransformer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(TransformerConfig):
    """The hyperparameters of a Music Transformer.

    Attributes:
        context: number of tokens that a token attends to, including itself.
    """

    context: int = 512


PRESETS = {
    "tiny": {"size": 128, "num_layers": 2, "num_heads": 2, "context": 256, "dropout": 0.1},
    "small": {"size": 256, "num_layers": 4, "num_heads": 4, "context": 512, "dropout": 0.1},
    "base": {"size": 384, "num_layers": 6, "num_heads": 6, "context": 1024, "dropout": 0.1},
}
TRAINING = {"learning_rate": 1.5e-3, "batch_size": 4, "window": 512}


class Model(LanguageModel):
    """Embedding, then pre-norm blocks.

    The state is the number of cached tokens, (B,), then keys and values of each layer, (B, H, capacity, E). The first
    `count` of them are filled, and the last `context - 1` of those are attended to.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.embedding = Embedding(config, config.size)
        self.dropout = Dropout(config.dropout)
        blocks = [Block(RelativeAttention(config), config.size, config.dropout) for _ in range(config.num_layers)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(config.size)
        self.head = Head(config, config.size)
        initialize(self, blocks)

    def encode(
        self, tokens: Tensor, state: State | None = None, features: Tensor | None = None
    ) -> tuple[Tensor, State]:
        x_BTD = self.dropout(self.embedding(tokens, features))
        num_cached = 0 if state is None else int(state[0][0])
        after: list[Tensor] = []
        count = num_cached
        for i, block in enumerate(self.blocks):
            cache = None if state is None else (state[1 + 2 * i], state[2 + 2 * i], num_cached)
            x_BTD, (keys, values, count) = block(x_BTD, cache)
            after += keys, values
        return self.norm(x_BTD), (host_counts(count, len(tokens)), *after)

    def for_generation(self, precision: str = "auto") -> LanguageModel:
        precision = resolve_precision(precision, next(self.parameters()).device)
        blocks = [block_weights(block) for block in self.blocks]
        return IncrementalTransformer(self, blocks, self.norm, precision)


def block_weights(block: Any) -> BlockWeights:
    """Return the parameters of a block for decoding one token at a time; they are shared, not copied."""
    return BlockWeights(
        norm_attention=block.norm_attention,
        queries_keys_values=block.attention.queries_keys_values,
        distances_HRE=block.attention.distances_HRE,
        out=block.attention.out,
        norm_forward=block.norm_forward,
        up=block.up,
        down=block.down,
    )


class RelativeAttention(nn.Module):
    """Causal attention to the last `context` tokens, with learned vectors for distances."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.num_heads, self.context = config.num_heads, config.context
        self.queries_keys_values = nn.Linear(config.size, 3 * config.size)
        self.out = nn.Linear(config.size, config.size)
        head_size = config.size // config.num_heads
        self.distances_HRE = nn.Parameter(torch.empty(config.num_heads, config.context, head_size))
        nn.init.normal_(self.distances_HRE, std=0.02)

    def forward(
        self, x_BTD: Tensor, cache: tuple[Tensor, Tensor, int] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor, int]]:
        """Return the output, (B, T, D), and the KV cache: keys, values and how many of them are filled."""
        q, k, v = (
            split_heads(t, self.num_heads).contiguous()  # otherwise each block of queries copies them
            for t in self.queries_keys_values(x_BTD).chunk(3, -1)
        )
        if cache is None:
            keys, values, count = k, v, k.shape[2]
        else:
            keys, count = _append(cache[0], cache[2], k, self.context)
            values, _ = _append(cache[1], cache[2], v, self.context)
        seen = max(0, count - k.shape[2] - self.context + 1)  # keys that no new token attends to
        y_BHTE = relative_attention(q, keys[:, :, seen:count], values[:, :, seen:count], self.distances_HRE)
        return self.out(merge_heads(y_BHTE)), (keys, values, count)


def _append(cache: Tensor, count: int, new: Tensor, context: int) -> tuple[Tensor, int]:
    """Return keys (or values) with the new ones after the first `count`, and the new count.

    Without gradients the cache has spare capacity and is written in place. When it is full, the part that is still attended
    to moves to a new one with capacity for another `context`, at a constant cost per token.
    """
    num_new = new.shape[2]
    if torch.is_grad_enabled() and (cache.requires_grad or new.requires_grad):
        return torch.cat([cache[:, :, :count], new], 2), count + num_new
    if count + num_new > cache.shape[2]:
        last = cache[:, :, max(0, count - context + 1) : count]
        count = last.shape[2]
        larger = cache.new_empty(*cache.shape[:2], max(2 * context, count + num_new), cache.shape[3])
        larger[:, :, :count] = last
        cache = larger
    cache[:, :, count : count + num_new] = new
    return cache, count + num_new
