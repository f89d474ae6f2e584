"""Sinusoidal encodings of positions and of distances."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sinusoids(first: int, count: int, size: int, device: torch.device) -> Tensor:
    """Return the encodings of positions first … first + count - 1, (count, size): sines, then cosines.

    The angles of position p are p / 10000^(2i / size).
    The wavelengths are 2 pi to 20000 pi tokens (Vaswani et al. 2017, 3.5, where sines and cosines alternate).
    """
    rates = torch.exp(torch.arange(0, size, 2, device=device) * (-math.log(10000.0) / size))
    angles = torch.arange(first, first + count, device=device)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], -1)
