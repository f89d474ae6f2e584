"""Causal attention to the last tokens, by torch's `scaled_dot_product_attention`.

On CUDA, sequences that are longer than the context are processed by FlexAttention (Dong et al. 2024), which leaves out what
is outside the window and needs no mask in memory. That has not been run on a GPU.

B batch, H heads, T new tokens, S cached and new tokens, E size of a head.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .attention_recording import recordable


@recordable
def attention(q_BHTE: Tensor, k_BHSE: Tensor, v_BHSE: Tensor, context: int) -> Tensor:
    """Return causal attention, (B, H, T, E). The last T of the S keys are at the queries' own positions.

    At most `context` queries are processed at once, so that a mask grows with the context, not with the music.
    """
    num_queries, num_keys = q_BHTE.shape[2], k_BHSE.shape[2]
    if num_queries == num_keys <= context:
        return F.scaled_dot_product_attention(q_BHTE, k_BHSE, v_BHSE, is_causal=True)
    if q_BHTE.is_cuda and num_queries == num_keys and q_BHTE.shape[3] in (16, 32, 64, 128):
        return sliding_window(q_BHTE, k_BHSE, v_BHSE, context, compiled=True)
    parts = []
    for begin in range(0, num_queries, context):
        end = min(begin + context, num_queries)
        last = num_keys - num_queries + end  # these queries attend to keys first:last
        first = max(0, last - (end - begin) - context + 1)
        behind = last - first - (end - begin)
        mask = torch.ones(end - begin, last - first, dtype=torch.bool, device=q_BHTE.device)
        mask = mask.tril(behind).triu(behind - context + 1)
        parts.append(
            F.scaled_dot_product_attention(
                q_BHTE[:, :, begin:end], k_BHSE[:, :, first:last], v_BHSE[:, :, first:last], attn_mask=mask
            )
        )
    return parts[0] if len(parts) == 1 else torch.cat(parts, 2)


def sliding_window(q_BHTE: Tensor, k_BHTE: Tensor, v_BHTE: Tensor, context: int, *, compiled: bool) -> Tensor:
    """Return causal attention to the last `context` tokens by FlexAttention, (B, H, T, E), without cached keys.

    Args:
        q_BHTE: queries.
        k_BHTE: keys, as many.
        v_BHTE: values, as many.
        context: number of keys that a query attends to, its own included.
        compiled: by a kernel that torch.compile makes; otherwise with all scores in memory.
    """
    from torch.nn.attention.flex_attention import flex_attention

    attend: Any = _compiled_flex() if compiled else flex_attention
    y_BHTE: Tensor = attend(q_BHTE, k_BHTE, v_BHTE, block_mask=_window(q_BHTE.shape[2], context, q_BHTE.device))
    return y_BHTE


@functools.cache
def _compiled_flex() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


@functools.lru_cache(maxsize=8)
def _window(length: int, context: int, device: torch.device) -> Any:
    """Return which blocks of queries and keys have a pair that is attended to, for all batch elements and heads."""
    from torch.nn.attention.flex_attention import create_block_mask

    def is_seen(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (query - key < context)

    with torch.inference_mode(mode=False):  # for training too
        return create_block_mask(is_seen, None, None, length, length, device=device)
