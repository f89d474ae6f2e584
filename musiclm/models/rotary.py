"""A decoder like LLaMA (Touvron et al. 2023): rotary positions, RMS norm, a gated feed-forward layer, no biases.

Positions rotate queries and keys, so that their products depend on distances (RoPE, Su et al. 2021): nothing is learned, and
nothing is added to the embeddings. The norm is the root mean square alone (RMSNorm, Zhang and Sennrich 2019). The feed-forward
layer is down(silu(gate(x)) up(x)) (SwiGLU, Shazeer 2020), 8/3 as wide as the model, so that its three matrices have as many
parameters as the two of the other transformers. Each token attends to itself and the `context - 1` tokens before it, by
torch's `scaled_dot_product_attention`. The key of a token is rotated once, by its own position, and cached so. Products of
queries and keys depend on the distance alone at any position (`layers.positions.rotations`).

B batch, H heads, T new tokens, S cached and new tokens, D size of the model, E size of a head, R rotations (E / 2 of them),
G gate and up, V vocabulary.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..devices import resolve_precision
from .base import Embedding, Head, LanguageModel, State, host_counts, on_device
from .layers.blocks import TransformerConfig, initialize, merge_heads
from .layers.dropout import Dropout
from .layers.fused_attention import attention
from .layers.positions import rotate, rotations
from .layers.rms_norm import RMSNorm
from .layers.rotary_decoder import IncrementalRotary


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(TransformerConfig):
    """The hyperparameters of a rotary transformer; the size of a head is even.

    Attributes:
        context: number of tokens that a token attends to, including itself.
    """

    context: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_size(2)


PRESETS = {
    "tiny": {"size": 128, "num_layers": 2, "num_heads": 2, "context": 256, "dropout": 0.1},
    "small": {"size": 256, "num_layers": 4, "num_heads": 4, "context": 512, "dropout": 0.1},
    "base": {"size": 384, "num_layers": 6, "num_heads": 6, "context": 1024, "dropout": 0.1},
}
TRAINING = {"learning_rate": 1.5e-3, "batch_size": 4, "window": 512}


class Model(LanguageModel):
    """Embedding, then pre-norm blocks.

    The state is the number of tokens so far, (B,), then the last `context - 1` rotated keys and values of each layer,
    (B, H, S, E) each.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.embedding = Embedding(config, config.size)
        self.dropout = Dropout(config.dropout)
        blocks = [Block(config) for _ in range(config.num_layers)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = RMSNorm(config.size)
        self.head = Head(config, config.size)
        initialize(self, blocks)

    def encode(
        self, tokens: Tensor, state: State | None = None, features: Tensor | None = None
    ) -> tuple[Tensor, State]:
        x_BTD = self.dropout(self.embedding(tokens, features))
        counts = host_counts(0, 1) if state is None else state[0]  # (1,) or (B,)
        positions = on_device(counts, tokens.device)[:, None] + torch.arange(tokens.shape[1], device=tokens.device)
        rotations_BTR = rotations(positions, self.config.size // self.config.num_heads)
        after: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            x_BTD, cache = block(x_BTD, rotations_BTR, None if state is None else state[1 + 2 * i : 3 + 2 * i])
            after += cache
        return self.norm(x_BTD), ((counts + tokens.shape[1]).expand(len(tokens)), *after)

    def for_generation(self, precision: str = "auto") -> LanguageModel:
        precision = resolve_precision(precision, next(self.parameters()).device)
        return IncrementalRotary(self, self.blocks, self.norm, precision)


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = feed_forward_width(config.size)
        self.norm_attention = RMSNorm(config.size)
        self.attention = RotaryAttention(config)
        self.norm_forward = RMSNorm(config.size)
        self.gate_up = nn.Linear(config.size, 2 * width, bias=False)
        self.down = nn.Linear(width, config.size, bias=False)
        self.dropout = Dropout(config.dropout)

    def forward(self, x_BTD: Tensor, rotations_BTR: Tensor, cache: State | None) -> tuple[Tensor, State]:
        """Return the residual stream after the block, (B, T, D), and the new cache."""
        attended_BTD, cache = self.attention(self.norm_attention(x_BTD), rotations_BTR, cache)
        x_BTD = x_BTD + self.dropout(attended_BTD)
        gate, up = self.gate_up(self.norm_forward(x_BTD)).chunk(2, -1)
        return x_BTD + self.dropout(self.down(F.silu(gate) * up)), cache


class RotaryAttention(nn.Module):
    """Causal attention to the last `context` tokens, with rotated queries and keys."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.num_heads, self.context = config.num_heads, config.context
        self.queries_keys_values = nn.Linear(config.size, 3 * config.size, bias=False)
        self.out = nn.Linear(config.size, config.size, bias=False)

    def forward(self, x_BTD: Tensor, rotations_BTR: Tensor, cache: State | None) -> tuple[Tensor, State]:
        """Return the output, (B, T, D), and the keys and values that the next tokens attend to."""
        qkv = self.queries_keys_values(x_BTD).unflatten(-1, (3, self.num_heads, -1))  # (B, T, 3, H, E)
        q_BHTE, k_BHSE = rotate(qkv[:, :, :2], rotations_BTR[:, :, None, None]).permute(2, 0, 3, 1, 4)
        v_BHSE = qkv[:, :, 2].transpose(1, 2)
        if cache is not None:
            k_BHSE, v_BHSE = torch.cat([cache[0], k_BHSE], 2), torch.cat([cache[1], v_BHSE], 2)
        y_BHTE = attention(q_BHTE, k_BHSE, v_BHSE, self.context)
        first = max(0, k_BHSE.shape[2] - self.context + 1)
        return self.out(merge_heads(y_BHTE)), (k_BHSE[:, :, first:], v_BHSE[:, :, first:])


def feed_forward_width(size: int) -> int:
    """Return 8/3 of a size, rounded up to a multiple of 8."""
    return -(-8 * size // 24) * 8
