"""The body of linear and performer: embeddings with sinusoidal positions, then pre-norm blocks with linear attention.

B batch, T tokens, H heads, D size of the model, F features, M size of a value, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...devices import resolve_precision
from ..base import Embedding, Head, LanguageModel, State
from . import quantized
from .blocks import Block, TransformerConfig, initialize, run_blocks
from .dropout import Dropout
from .incremental import IncrementalBlock, IncrementalModel, pack
from .linear_attention import FeatureMap, LinearAttention, attend_one
from .positions import sinusoids


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearConfig(TransformerConfig):
    """The hyperparameters of a transformer with linear attention; the size is even."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_even()


class LinearTransformer(LanguageModel):
    """Embedding and positions, then pre-norm blocks.

    The state is the number of tokens so far, (B,), then the sums S, (B, H, F, M), and z, (B, H, F), of each layer.

    Args:
        config: the hyperparameters.
        features: returns a layer's feature map; it is called with the layer's number.
    """

    def __init__(self, config: LinearConfig, features: Callable[[int], FeatureMap]) -> None:
        super().__init__(config)
        c = config
        self.embedding = Embedding(c, c.size)
        self.dropout = Dropout(c.dropout)
        attentions = [LinearAttention(c.size, c.num_heads, features(i)) for i in range(c.num_layers)]
        blocks = [Block(attention, c.size, c.dropout) for attention in attentions]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(c.size)
        self.head = Head(c, c.size)
        initialize(self, blocks)

    def encode(
        self, tokens: Tensor, state: State | None = None, features: Tensor | None = None
    ) -> tuple[Tensor, State]:
        state = self.opened(state)
        counts = torch.zeros_like(tokens[:1, 0]) if state is None else state[0]  # (1,) or (B,)
        positions = counts[:, None] + torch.arange(tokens.shape[1], device=tokens.device)
        x_BTD = self.dropout(self.placed(self.embedding(tokens, features), positions))
        x_BTD, after = run_blocks(self.blocks, x_BTD, None if state is None else state[1:])
        return self.norm(x_BTD), self.closed(((counts + tokens.shape[1]).expand(len(tokens)), *after))

    def placed(self, embedded: Tensor, positions: Tensor) -> Tensor:
        """Return scaled embeddings, (..., D), plus the sinusoids of their positions, (...) (Vaswani et al. 2017)."""
        size = self.config.size
        return embedded * size**0.5 + sinusoids(positions, size)

    def opened(self, state: State | None) -> State | None:
        """Return the counts and sums of a state; inverts `closed`."""
        return state

    def closed(self, state: State) -> State:
        """Return the state with these counts and sums."""
        return state

    def for_generation(self, precision: str = "auto") -> LanguageModel:
        return IncrementalLinear(self, resolve_precision(precision, next(self.parameters()).device))


class IncrementalLinear(IncrementalModel):
    """The form for decoding: one token at a time runs on packed weights, several as in training. The state is the same."""

    def __init__(self, whole: LinearTransformer, precision: str) -> None:
        super().__init__(whole, precision)
        self.whole: LinearTransformer = whole
        assert isinstance(whole.embedding, Embedding)
        self._embedding = quantized.fuse_embedding(whole.embedding)
        blocks: Any = whole.blocks
        self._steps = [
            IncrementalBlock(block, block.attention.out, _Attention(block.attention, precision), precision)
            for block in blocks
        ]

    def encode(
        self, tokens: Tensor, state: State | None = None, features: Tensor | None = None
    ) -> tuple[Tensor, State]:
        opened = self.whole.opened(state)
        if opened is None or tokens.shape[1] > 1:
            return self.whole.encode(tokens, state, features)
        x_BD = self.whole.placed(self._embedding(tokens, features)[:, 0], opened[0])
        for i, step in enumerate(self._steps):
            x_BD, _ = step(x_BD, opened[1 + 2 * i : 3 + 2 * i])
        return self.whole.norm(x_BD)[:, None], self.whole.closed((opened[0] + 1, *opened[1:]))


class _Attention:
    """Attention of one token per batch element; it updates the sums in place."""

    def __init__(self, attention: LinearAttention, precision: str) -> None:
        self.num_heads, self.features = attention.num_heads, attention.features
        self.queries_keys_values = pack(attention.queries_keys_values, precision)

    def __call__(self, x_BD: Tensor, sums: State) -> tuple[Tensor, State]:
        q_BHE, k_BHE, v_BHM = self.queries_keys_values(x_BD).view(len(x_BD), 3, self.num_heads, -1).unbind(1)
        return attend_one(q_BHE, k_BHE, v_BHM, self.features, sums), sums
