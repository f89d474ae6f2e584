"""Attention of a target's tokens to an encoded source: additive (Bahdanau et al. 2015), and by products in several heads.

`weights` of each module returns what `forward` computes with, for pictures.

B batch, T tokens of the target, S tokens of the source, D size, A size of a comparison, H heads, E size of a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .blocks import merge_heads, split_heads

CHUNK = 64  # queries that are compared with all keys at once: bounds the memory of additive attention


class AdditiveAttention(nn.Module):
    """The score of a query and a key is v · tanh(W q + U k): (B, T, D) and an encoded source -> (B, T, D)."""

    def __init__(self, size: int, comparison: int) -> None:
        super().__init__()
        self.query = nn.Linear(size, comparison)
        self.key = nn.Linear(size, comparison, bias=False)
        self.score = nn.Linear(comparison, 1, bias=False)

    def keys(self, memory_BSD: Tensor) -> Tensor:
        """Return U k of the encoded source, (B, S, A), which is the same for all queries."""
        keys_BSA: Tensor = self.key(memory_BSD)
        return keys_BSA

    def forward(self, x_BTD: Tensor, memory_BSD: Tensor, keys_BSA: Tensor, added_B1TS: Tensor) -> Tensor:
        """Return the mean of the encoded source that each query attends to, (B, T, D).

        Args:
            x_BTD: the queries.
            memory_BSD: the encoded source.
            keys_BSA: its `keys`.
            added_B1TS: added to the scores, -inf for what is no part of the source; the same for all queries where T is 1.
        """
        parts = []
        for chunk_BND, added_BNS in self._chunks(x_BTD, added_B1TS):
            if torch.is_grad_enabled() and x_BTD.shape[1] > CHUNK:
                parts.append(checkpoint(self._attend, chunk_BND, memory_BSD, keys_BSA, added_BNS, use_reentrant=False))
            else:
                parts.append(self._attend(chunk_BND, memory_BSD, keys_BSA, added_BNS))
        return torch.cat(parts, 1)

    def _chunks(self, x_BTD: Tensor, added_B1TS: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        added_BTS = added_B1TS[:, 0].expand(-1, x_BTD.shape[1], -1)
        yield from zip(x_BTD.split(CHUNK, 1), added_BTS.split(CHUNK, 1), strict=True)

    def _attend(self, x_BND: Tensor, memory_BSD: Tensor, keys_BSA: Tensor, added_BNS: Tensor) -> Tensor:
        weights_BNS = self._weights(x_BND, keys_BSA, added_BNS)
        return weights_BNS.to(memory_BSD.dtype) @ memory_BSD

    def _weights(self, x_BND: Tensor, keys_BSA: Tensor, added_BNS: Tensor) -> Tensor:
        compared_BNSA = torch.tanh(self.query(x_BND)[:, :, None] + keys_BSA[:, None])
        scores_BNS = self.score(compared_BNSA)[..., 0].float()
        return (scores_BNS + added_BNS).softmax(-1)

    def weights(self, x_BTD: Tensor, memory_BSD: Tensor, keys_BSA: Tensor, added_B1TS: Tensor) -> Tensor:
        """Return the attention weights, (B, 1, T, S)."""
        chunks = [self._weights(chunk, keys_BSA, added) for chunk, added in self._chunks(x_BTD, added_B1TS)]
        return torch.cat(chunks, 1)[:, None]


class CrossAttention(nn.Module):
    """Scaled products of queries and keys in several heads (Vaswani et al. 2017): (B, T, D) -> (B, T, D)."""

    def __init__(self, size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(size, size)
        self.keys_values = nn.Linear(size, 2 * size)
        self.out = nn.Linear(size, size)

    def cache(self, memory_BSD: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values of the encoded source, (B, H, S, E) each, which are the same for all queries."""
        keys, values = (split_heads(t, self.num_heads) for t in self.keys_values(memory_BSD).chunk(2, -1))
        return keys, values

    def forward(self, x_BTD: Tensor, keys_BHSE: Tensor, values_BHSE: Tensor, added_BHTS: Tensor) -> Tensor:
        """Return what each query attends to, (B, T, D).

        Args:
            x_BTD: the queries.
            keys_BHSE: see `cache`, as the values.
            values_BHSE: of the encoded source.
            added_BHTS: added to the scores, -inf for what is no part of the source; the same for all heads, or queries, where
                that dimension is 1.
        """
        q_BHTE = split_heads(self.query(x_BTD), self.num_heads)
        y_BHTE = F.scaled_dot_product_attention(q_BHTE, keys_BHSE, values_BHSE, attn_mask=added_BHTS.to(q_BHTE.dtype))
        y_BTD: Tensor = self.out(merge_heads(y_BHTE))
        return y_BTD

    def weights(self, x_BTD: Tensor, keys_BHSE: Tensor, values_BHSE: Tensor, added_BHTS: Tensor) -> Tensor:
        """Return the attention weights, (B, H, T, S)."""
        q_BHTE = split_heads(self.query(x_BTD), self.num_heads)
        scores_BHTS = q_BHTE @ keys_BHSE.transpose(-1, -2) * q_BHTE.shape[-1] ** -0.5
        return (scores_BHTS.float() + added_BHTS).softmax(-1)


def record_weights(model: nn.Module, run: Any) -> list[Tensor]:
    """Return the attention weights to the source, (B, H, T, S), of each layer that attends to one, while a function runs.

    Args:
        model: with `AdditiveAttention` or `CrossAttention` layers; a model without has none to return.
        run: called without arguments; it runs the model once.
    """
    found: list[Tensor] = []

    def keep(layer: Any, inputs: Sequence[Tensor], _: Tensor) -> None:
        found.append(layer.weights(*inputs))

    layers = [layer for layer in model.modules() if isinstance(layer, (AdditiveAttention, CrossAttention))]
    handles = [layer.register_forward_hook(keep) for layer in layers]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return found
