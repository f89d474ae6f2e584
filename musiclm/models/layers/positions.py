"""Encodings of positions: sinusoids, and the rotations of rotary embeddings (Su et al. 2021).

Positions are tensors of integers of any shape, so that each batch element may have its own.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

BASE = 10000.0  # the wavelengths are 2 pi to 2 pi BASE tokens
TURN = 2**32  # parts of a turn, in which angles are computed


def sinusoids(positions: Tensor, size: int) -> Tensor:
    """Return the encodings of positions, (..., size): sines, then cosines.

    The angles of position p are p / 10000^(2i / size).
    The wavelengths are 2 pi to 20000 pi tokens (Vaswani et al. 2017, 3.5, where sines and cosines alternate).
    """
    rates = torch.exp(torch.arange(0, size, 2, device=positions.device) * (-math.log(BASE) / size))
    angles = positions[..., None] * rates
    return torch.cat([angles.sin(), angles.cos()], -1)


def rotations(positions: Tensor, size: int) -> Tensor:
    """Return the rotations of positions, (..., size / 2) complex64: e^(i p r), with the rates r of `sinusoids`.

    Rates are rounded to 1 / 2^32 of a turn, and angles are integers of that unit until whole turns are dropped. So products
    of two rotated vectors depend on the distance alone, to less than 1e-6 rad at any position; a float32 angle would be off
    by 0.03 rad at a position of a million. The rounding of the rates shifts an angle by up to 7e-10 rad per position.
    """
    parts = (positions[..., None] * _rates(size, positions.device)) % TURN
    angles = parts.float() * (2 * math.pi / TURN)
    return torch.complex(angles.cos(), angles.sin())


@functools.lru_cache(maxsize=8)  # made again, it would be copied to the device in each step, which waits for it
def _rates(size: int, device: torch.device) -> Tensor:
    """Return the parts of a turn per position, (size / 2,) int64."""
    rates = [round(BASE ** (-2 * i / size) / (2 * math.pi) * TURN) for i in range(size // 2)]
    with torch.inference_mode(mode=False):  # for training too
        return torch.tensor(rates, device=device)


def rotate(x: Tensor, rotations: Tensor) -> Tensor:
    """Return vectors (..., E) whose pairs of neighbouring numbers are rotated in the plane, in their own dtype.

    Products of two rotated vectors depend on the difference of their positions only.

    Args:
        x: (..., E); the last dimension has stride 1.
        rotations: (..., E / 2), broadcast.
    """
    pairs = x if x.dtype == torch.float64 else x.float()
    rotated = torch.view_as_complex(pairs.unflatten(-1, (-1, 2))) * rotations
    return torch.view_as_real(rotated).flatten(-2).to(x.dtype)
