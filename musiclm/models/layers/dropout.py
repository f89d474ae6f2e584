"""Dropout (Srivastava et al. 2014) whose mask costs a CPU a quarter of what torch's does."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 2**16  # a random integer of 64 bits is four masks of 16: p is met to within 1 / LEVELS


class Dropout(nn.Module):
    """While training, zeros in a part `p` of the numbers and the others over 1 - p; else what comes in.

    Drawn from torch's global generator, as torch's own is: the same seed, the same masks.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        dropped = round(self.p * LEVELS)
        if not self.training or not dropped:
            return x
        if x.device.type != "cpu":  # fused there
            return F.dropout(x, self.p)
        drawn = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        keeps = drawn[: x.numel()].view(x.shape) >= dropped - LEVELS // 2
        return x * keeps.to(x.dtype).mul_(LEVELS / (LEVELS - dropped))
