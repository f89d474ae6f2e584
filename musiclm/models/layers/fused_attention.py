"""Causal attention to the last tokens, by torch's `scaled_dot_product_attention`.

B batch, H heads, T new tokens, S cached and new tokens, E size of a head.
"""

from __future__ import annotations

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
