"""Attention to a whole sequence in both directions, with a learned bias for each head and bucket of distances.

The bias is added to the scores; buckets grow with the distance (Raffel et al. 2020).

B batch, H heads, S tokens, D size, E size of a head.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import merge_heads, split_heads

NUM_BUCKETS, FAR = 32, 512  # of distances in one direction; distances from FAR on share the last one


class BidirectionalAttention(nn.Module):
    """Attention to all tokens of a sequence, or to those up to the query.

    Args:
        size: D.
        num_heads: H.
        both: whether tokens after the query are attended to.
    """

    def __init__(self, size: int, num_heads: int, *, both: bool = True) -> None:
        super().__init__()
        self.num_heads, self.both = num_heads, both
        self.queries_keys_values = nn.Linear(size, 3 * size)
        self.out = nn.Linear(size, size)
        self.bias = nn.Embedding(2 * NUM_BUCKETS, num_heads)
        nn.init.zeros_(self.bias.weight)

    def forward(self, x_BSD: Tensor, mask_BS: Tensor) -> tuple[Tensor, None]:
        """Return the output, (B, S, D), and no cache.

        Args:
            x_BSD: the tokens.
            mask_BS: which of them are attended to, bool.
        """
        q, k, v = (split_heads(t, self.num_heads) for t in self.queries_keys_values(x_BSD).chunk(3, -1))
        num_tokens = x_BSD.shape[1]
        bias_HSS = self.bias(buckets(num_tokens, x_BSD.device)).permute(2, 0, 1).to(q.dtype)
        allowed = mask_BS[:, None, None]
        if not self.both:
            allowed = allowed & torch.ones(num_tokens, num_tokens, dtype=torch.bool, device=x_BSD.device).tril()
        scores_BHSS = bias_HSS.masked_fill(~allowed, float("-inf"))
        y_BHSE = F.scaled_dot_product_attention(q, k, v, attn_mask=scores_BHSS)
        return self.out(merge_heads(y_BHSE)), None


def buckets(num_tokens: int, device: torch.device) -> Tensor:
    """Return the bucket of the distance from each query to each key, (S, S): exact up to half of the buckets, then by ratio.

    Keys behind the query have the second half of the 2 NUM_BUCKETS buckets.
    """
    indices = torch.arange(num_tokens, device=device)
    distance = indices[None] - indices[:, None]
    away, exact = distance.abs(), NUM_BUCKETS // 2
    ratio = (away.clamp(min=1).float() / exact).log() / math.log(FAR / exact)
    far = exact + (ratio * (NUM_BUCKETS - exact)).long()
    return torch.where(away < exact, away, far.clamp(max=NUM_BUCKETS - 1)) + NUM_BUCKETS * (distance > 0)
