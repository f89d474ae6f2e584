"""Biases of attention to a source by how far apart two tokens are in the piece.

Source and target are sequences of different lengths, so that the distance between two of their tokens says nothing. Some
input features say where in the piece a token is: its bar, its position in the bar. A learned bias for each head and clipped
difference of such a feature is added to the scores, as relative positions are within one sequence (Shaw et al. 2018; Raffel
et al. 2020). At first it falls with the difference, at another slope in each head (Press et al. 2022).

B batch, H heads, T tokens of the target, S tokens of the source, A aligned features, N values of one of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FARTHEST = 64  # difference; larger ones have the same bias


class AlignmentBias(nn.Module):
    """The sum of the biases of some features, and -inf for tokens that are no part of the source.

    Args:
        sizes: the number of values of each aligned feature, A of them; none for no bias.
        slopes: of each of them by how much the first head's bias falls with a difference of 1; each further head has half
            of the slope before.
        num_heads: H.
    """

    def __init__(self, sizes: Sequence[int], slopes: Sequence[float], num_heads: int) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        distances = torch.arange(-FARTHEST, FARTHEST + 1).abs().float()
        of_head = 0.5 ** torch.arange(num_heads)
        self.tables = nn.ParameterList(nn.Parameter(-slope * of_head[:, None] * distances) for slope in slopes)

    def forward(self, target_BTA: Tensor, source_BSA: Tensor, mask_BS: Tensor) -> Tensor:
        """Return what is added to the scores, (B, H, T, S), or (B, 1, 1, S) where there are no aligned features.

        Args:
            target_BTA: the aligned features of each token of the target, int64.
            source_BSA: those of each token of the source.
            mask_BS: which tokens are part of the source, bool.
        """
        added = torch.zeros_like(mask_BS, dtype=torch.float32).masked_fill(~mask_BS, float("-inf"))[:, None, None]
        for i, (size, table_HR) in enumerate(zip(self.sizes, self.tables, strict=True)):
            values_N = torch.arange(size, device=source_BSA.device)
            difference_BTN = (target_BTA[..., i, None] - values_N).clamp(-FARTHEST, FARTHEST) + FARTHEST
            by_value_BHTN = table_HR[:, difference_BTN].transpose(0, 1)
            if target_BTA.shape[1] == 1:
                index_BHTS = source_BSA[:, None, None, :, i].expand(*by_value_BHTN.shape[:3], -1)
                added = added + by_value_BHTN.gather(-1, index_BHTS)
            else:  # a product with one-hot vectors: its gradient is another product, that of gather a sum of scattered parts
                one_hot_BNS = F.one_hot(source_BSA[..., i], size).transpose(1, 2).to(by_value_BHTN.dtype)
                added = added + (by_value_BHTN.flatten(1, 2) @ one_hot_BNS).unflatten(1, by_value_BHTN.shape[1:3])
        return added
