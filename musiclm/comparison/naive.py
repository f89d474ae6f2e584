"""Attention that stores its scores, as a textbook writes it: the baseline of `compare --lengths`. It is no architecture.

It is the transformer `absolute` with softmax(Q K^T / sqrt(E)) V computed step by step, so that a training step keeps
matrices of T x T for each layer and head. Parameters and logits are those of `absolute`, whose fused attention never
stores them (FlashAttention, Dao et al. 2022).

B batch, H heads, T new tokens, S cached and new tokens, D size of the model, E size of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..models import absolute
from ..models.base import State
from ..models.layers.blocks import merge_heads, split_heads

NAME = "naive"
BASED_ON = "absolute"


def create(vocab_size: int, **config: Any) -> absolute.Model:
    """Return the model; the fields are those of `absolute.Config`."""
    model = absolute.Model(absolute.Config(vocab_size=vocab_size, **config))
    for block in model.blocks:
        fused: Any = block.attention
        attention = NaiveAttention(model.config)
        attention.load_state_dict(fused.state_dict())
        block.attention = attention
    return model


class NaiveAttention(absolute.Attention):
    """Causal attention to the last `context` tokens, with all scores in memory."""

    def forward(self, x_BTD: Tensor, cache: State | None) -> tuple[Tensor, State]:
        """Return the output, (B, T, D), and the keys and values that the next tokens attend to."""
        q_BHTE, k_BHSE, v_BHSE = (split_heads(t, self.num_heads) for t in self.queries_keys_values(x_BTD).chunk(3, -1))
        if cache is not None:
            k_BHSE, v_BHSE = torch.cat([cache[0], k_BHSE], 2), torch.cat([cache[1], v_BHSE], 2)
        num_queries, num_keys, size = q_BHTE.shape[2], k_BHSE.shape[2], q_BHTE.shape[3]
        num_before = num_keys - num_queries
        seen_TS = torch.ones(num_queries, num_keys, dtype=torch.bool, device=x_BTD.device).tril(num_before)
        seen_TS = seen_TS.triu(num_before - self.context + 1)
        scores_BHTS = q_BHTE @ k_BHSE.transpose(2, 3) * size**-0.5
        weights_BHTS = scores_BHTS.masked_fill(~seen_TS, float("-inf")).softmax(-1)
        y_BHTE = weights_BHTS.to(v_BHSE.dtype) @ v_BHSE
        first = max(0, num_keys - self.context + 1)
        return self.out(merge_heads(y_BHTE)), (k_BHSE[:, :, first:], v_BHSE[:, :, first:])
