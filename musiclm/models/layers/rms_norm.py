"""Root mean square normalization (Zhang and Sennrich 2019): x / sqrt(mean(x^2) + EPSILON), times a learned scale.

torch's own takes three times as long as its layer norm on a CPU, forwards and backwards; this one keeps no intermediate.

D size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

EPSILON = 1e-6


class RMSNorm(nn.Module):
    """(..., D) -> (..., D)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        normalize = _RMSNorm.apply
        y: Tensor = normalize(x, self.weight)
        return y


def inverse_rms(x: Tensor) -> Tensor:
    """Return 1 / sqrt(mean(x^2) + EPSILON) over the last dimension, which is kept."""
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(EPSILON).rsqrt_()


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor) -> Tensor:
        scale = inverse_rms(x)
        ctx.save_for_backward(x, weight_D, scale)
        return (x * scale).mul_(weight_D)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator,unused-ignore]
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        x, weight_D, scale = ctx.saved_tensors
        normed = x * scale
        dnormed = dy * weight_D
        dweight_D = (dy * normed).flatten(0, -2).sum(0)
        along = (dnormed * normed).mean(-1, keepdim=True)
        return dnormed.addcmul_(normed, along, value=-1).mul_(scale), dweight_D
