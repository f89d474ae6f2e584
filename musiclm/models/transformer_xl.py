"""Transformer-XL (Dai et al. 2019): recurrence over segments, and relative positions with global biases.

A segment is what one forward pass processes. It attends to itself and to a memory of the tokens before it, which is the
streaming state. No gradient flows into the memory (truncated back-propagation), so a crop is trained on more context than it
has tokens: with `--crops contiguous`, the default for this architecture, the memory is carried from crop to crop of a piece.

The score of query i and key j is (q_i + u)·k_j + (q_i + v)·(W r_(i-j)), divided by sqrt(E), where r are sinusoids of
distances. The content bias u, the position bias v and the matrix W are learned, per head and untied: each layer has its own.
Each token attends to itself and the `memory - 1` tokens before it, in training and in generation (the paper's code calls
this `same_length`). So logits do not depend on where a segment ends.

Unlike the paper: blocks are pre-norm with GELU, as in the other transformers here. The memory holds keys and values as they
were computed, where the paper's holds hidden states and projects these again: nothing is computed twice, and a generated
token costs no more than with a KV cache.

B batch, H heads, T new tokens, S tokens in memory and new tokens, D size of the model, E size of a head, R distances,
V vocabulary.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from ..devices import resolve_precision
from .base import Embedding, Head, LanguageModel, State, detach, on_device
from .layers.blocks import INIT_STD, Block, TransformerConfig, initialize, merge_heads, split_heads
from .layers.dropout import Dropout
from .layers.positions import sinusoids
from .layers.relative_attention import relative_attention
from .layers.transformer_decoder import BlockWeights, IncrementalTransformer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(TransformerConfig):
    """The hyperparameters of a Transformer-XL; the size is even.

    Attributes:
        memory: number of tokens that a token attends to, including itself.
    """

    memory: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_even()


PRESETS = {
    "tiny": {"size": 128, "num_layers": 2, "num_heads": 2, "memory": 256, "dropout": 0.1},
    "small": {"size": 256, "num_layers": 4, "num_heads": 4, "memory": 512, "dropout": 0.1},
    "base": {"size": 384, "num_layers": 6, "num_heads": 6, "memory": 1024, "dropout": 0.1},
}
TRAINING = {"learning_rate": 1.5e-3, "batch_size": 4, "window": 512, "crops": "contiguous"}


class Model(LanguageModel):
    """Embedding, then pre-norm blocks.

    The state is the number of tokens in memory, (B,), at most `memory`, then keys and values of each layer,
    (B, H, S, E). The last tokens in memory are at the end; what is in front of them is masked, so that batch elements
    may have memories of different lengths.
    """

    starts_from_zeros = True

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
        c = self.config
        x_BTD = self.dropout(self.embedding(tokens, features))
        distances_RD = sinusoids(torch.arange(c.memory, device=tokens.device), c.size).to(x_BTD.dtype)
        num_before_B = tokens.new_zeros(len(tokens)) if state is None else on_device(state[0], tokens.device)
        num_absent_B = None if state is None else state[1].shape[2] - num_before_B
        after: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            memory = None if state is None else state[1 + 2 * i : 3 + 2 * i]
            x_BTD, memory = block(x_BTD, (memory, distances_RD, num_absent_B))
            after += memory
        num_after_B = (num_before_B + tokens.shape[1]).clamp(max=c.memory)
        return self.norm(x_BTD), detach((num_after_B, *after))

    def for_generation(self, precision: str = "auto") -> LanguageModel:
        precision = resolve_precision(precision, next(self.parameters()).device)
        blocks = [block_weights(block) for block in self.blocks]
        return IncrementalTransformer(self, blocks, self.norm, precision)


@torch.no_grad()
def block_weights(block: Any) -> BlockWeights:
    """Return the parameters of a block for decoding one token at a time.

    With q' = q + u the score is q'·k + q'·(W r) + (v - u)·(W r): u becomes the bias of the queries, and the last term is a
    number for each head and distance.
    """
    attention = block.attention
    qkv = attention.queries_keys_values
    biased = nn.Linear(qkv.in_features, qkv.out_features, device=qkv.weight.device)
    biased.weight.copy_(qkv.weight)
    biased.bias.zero_()
    biased.bias[: qkv.in_features] = attention.content_bias_H1E.flatten()
    positions = torch.arange(attention.memory, device=qkv.weight.device)
    distances_HRE = attention.distances(sinusoids(positions, qkv.in_features))
    difference_H1E = attention.position_bias_H1E - attention.content_bias_H1E
    return BlockWeights(
        norm_attention=block.norm_attention,
        queries_keys_values=biased,
        distances_HRE=distances_HRE,
        distance_bias_HR=(difference_H1E @ distances_HRE.transpose(1, 2))[:, 0],
        out=attention.out,
        norm_forward=block.norm_forward,
        up=block.up,
        down=block.down,
    )


class Attention(nn.Module):
    """Causal attention to the last `memory` tokens, in memory or new, by content and by distance."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.num_heads, self.memory = config.num_heads, config.memory
        self.queries_keys_values = nn.Linear(config.size, 3 * config.size, bias=False)  # u, v are biases of queries
        self.of_distances = nn.Linear(config.size, config.size, bias=False)
        self.out = nn.Linear(config.size, config.size)
        shape = config.num_heads, 1, config.size // config.num_heads
        self.content_bias_H1E = nn.Parameter(torch.empty(shape))
        self.position_bias_H1E = nn.Parameter(torch.empty(shape))
        nn.init.normal_(self.content_bias_H1E, std=INIT_STD)
        nn.init.normal_(self.position_bias_H1E, std=INIT_STD)

    def distances(self, distances_RD: Tensor) -> Tensor:
        """Return the vector of each head and distance, (H, R, E), from the sinusoids of the distances."""
        projected_RD: Tensor = self.of_distances(distances_RD)
        return projected_RD.unflatten(1, (self.num_heads, -1)).transpose(0, 1)

    def forward(self, x_BTD: Tensor, cache: tuple[State | None, Tensor, Tensor | None]) -> tuple[Tensor, State]:
        """Return the output, (B, T, D), and the new memory: keys and values of the last tokens, at most `memory`.

        Args:
            x_BTD: the new tokens.
            cache: the memory, None at the beginning; the sinusoids of all distances, (R, D); and how many tokens of
                the memory each batch element does not have, (B,).
        """
        memory, distances_RD, num_absent_B = cache
        q_BHTE, k_BHSE, v_BHSE = (
            split_heads(t, self.num_heads).contiguous()  # otherwise each block of queries copies them
            for t in self.queries_keys_values(x_BTD).chunk(3, -1)
        )
        if memory is not None:  # no gradient flows into it: a state is detached
            k_BHSE, v_BHSE = torch.cat([memory[0], k_BHSE], 2), torch.cat([memory[1], v_BHSE], 2)
        y_BHTE = relative_attention(
            q_BHTE + self.content_bias_H1E.to(q_BHTE.dtype),
            k_BHSE,
            v_BHSE,
            self.distances(distances_RD),
            position_q_BHTE=q_BHTE + self.position_bias_H1E.to(q_BHTE.dtype),
            num_absent_B=num_absent_B,
        )
        return self.out(merge_heads(y_BHTE)), (k_BHSE[:, :, -self.memory :], v_BHSE[:, :, -self.memory :])
