"""The Transformer (Vaswani et al. 2017): positions are sines and cosines, added to the embeddings.

This is the baseline of the Music Transformer. Positions are part of the contents that attention compares, and distances
between tokens are not given. Positions count from the beginning of the state and are unbounded, but the model was trained
on those of its crops only: it extrapolates to later ones (benchmarks/memory.py plots it). Train it with a `context` as long
as the pieces. The block is that of the relative transformer (pre-norm, GELU), so that only positions differ. Attention is
torch's `scaled_dot_product_attention`. Each token attends to itself and the `context - 1` tokens before it.

B batch, H heads, T new tokens, S cached and new tokens, D size of the model, E size of a head,
V vocabulary.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from .base import Embedding, Head, LanguageModel, State, host_counts
from .layers.blocks import Block, TransformerConfig, initialize, merge_heads, run_blocks, split_heads
from .layers.dropout import Dropout
from .layers.fused_attention import attention
from .layers.positions import sinusoids


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(TransformerConfig):
    """The hyperparameters of a Transformer; the size is even.

    Attributes:
        context: number of tokens that a token attends to, including itself.
    """

    context: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_even()


PRESETS = {
    "tiny": {"size": 128, "num_layers": 2, "num_heads": 2, "context": 256, "dropout": 0.1},
    "small": {"size": 256, "num_layers": 4, "num_heads": 4, "context": 512, "dropout": 0.1},
    "base": {"size": 384, "num_layers": 6, "num_heads": 6, "context": 1024, "dropout": 0.1},
}
TRAINING = {"learning_rate": 1.5e-3, "batch_size": 4, "window": 512}


class Model(LanguageModel):
    """Embedding and positions, then pre-norm blocks.

    The state is the number of tokens so far, (B,), then the last `context - 1` keys and values of each layer,
    (B, H, S, E) each.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.embedding = Embedding(config, config.size)
        self.dropout = Dropout(config.dropout)
        blocks = [Block(Attention(config), config.size, config.dropout) for _ in range(config.num_layers)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(config.size)
        self.head = Head(config, config.size)
        initialize(self, blocks)

    def encode(
        self, tokens: Tensor, state: State | None = None, features: Tensor | None = None
    ) -> tuple[Tensor, State]:
        size = self.config.size
        num_before = 0 if state is None else int(state[0][0])
        positions_T = torch.arange(num_before, num_before + tokens.shape[1], device=tokens.device)
        x_BTD = self.dropout(self.embedding(tokens, features) * size**0.5 + sinusoids(positions_T, size))
        x_BTD, after = run_blocks(self.blocks, x_BTD, None if state is None else state[1:])
        return self.norm(x_BTD), (host_counts(num_before + tokens.shape[1], len(tokens)), *after)


class Attention(nn.Module):
    """Causal attention to the last `context` tokens."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.num_heads, self.context = config.num_heads, config.context
        self.queries_keys_values = nn.Linear(config.size, 3 * config.size)
        self.out = nn.Linear(config.size, config.size)

    def forward(self, x_BTD: Tensor, cache: State | None) -> tuple[Tensor, State]:
        """Return the output, (B, T, D), and the keys and values that the next tokens attend to."""
        q_BHTE, k_BHSE, v_BHSE = (split_heads(t, self.num_heads) for t in self.queries_keys_values(x_BTD).chunk(3, -1))
        if cache is not None:
            k_BHSE, v_BHSE = torch.cat([cache[0], k_BHSE], 2), torch.cat([cache[1], v_BHSE], 2)
        y_BHTE = attention(q_BHTE, k_BHSE, v_BHSE, self.context)
        first = max(0, k_BHSE.shape[2] - self.context + 1)
        return self.out(merge_heads(y_BHTE)), (k_BHSE[:, :, first:], v_BHSE[:, :, first:])
