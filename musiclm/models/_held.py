"""Weights as generation holds them: a step of one row reads each of them once, and that is most of what it costs.

On x86 torch has FBGEMM's products of float32 with packed weights. In float16 they are exact but for the weights' last
bits, read half the memory of float32, and each row is computed by itself. In int8 (a scale for each output; activations
are quantised to 8 bits as they come) they read a quarter; a step of several rows shares one scale of activations, so rows
are not independent of each other to the last bit.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

PRECISIONS = ("fp32", "bf16", "fp16", "int8")
Product = Callable[[Tensor], Tensor]
"""(..., in) float32 -> (..., out) float32."""


def packs(device: torch.device | str) -> bool:
    """Return whether weights can be held in fp16 and int8 on a device."""
    return torch.device(device).type == "cpu" and "fbgemm" in torch.backends.quantized.supported_engines


def resolve(precision: str, device: torch.device | str, num_rows: int = 1) -> str:
    """Return how to hold weights: `precision`, or for "auto" the fastest here that harms no music.

    That is on x86 int8 for one row (it costs the bundled models less than 0.0002 nats a token:
    benchmarks/precision.py) and fp16 for several, whose draws must not depend on each other; bf16 on a GPU of NVIDIA's;
    fp32 elsewhere.

    Raises:
        ValueError: there is no such precision, or not on this device.
    """
    if precision == "auto":
        if packs(device):
            return "int8" if num_rows == 1 else "fp16"
        return "bf16" if torch.device(device).type == "cuda" else "fp32"
    if precision not in PRECISIONS:
        raise ValueError(f"no precision '{precision}': one of auto, {', '.join(PRECISIONS)}")
    if precision in ("fp16", "int8") and not packs(device):
        raise ValueError(f"no precision '{precision}' here: it needs an x86 CPU; fp32 works everywhere")
    return precision


def hold(weight: Tensor, bias: Tensor, precision: str) -> Product:
    """Return x -> x weight^T + bias, with the weight held in a precision.

    Args:
        weight: (out, in) float32.
        bias: (out,) float32.
        precision: one of `PRECISIONS`.
    """
    weight, bias = weight.detach().float().contiguous(), bias.detach().float().contiguous()
    if precision == "fp32":
        return lambda x: F.linear(x, weight, bias)
    if precision == "bf16":
        weight, bias = weight.bfloat16(), bias.bfloat16()
        return lambda x: F.linear(x.bfloat16(), weight, bias).float()
    with _fbgemm():
        if precision == "fp16":
            packed = torch.ops.quantized.linear_prepack_fp16(weight, bias)
            product = torch.ops.quantized.linear_dynamic_fp16.default
            return lambda x: product(x, packed)
        scales = weight.abs().amax(1).clamp_min(1e-12).double() / 127
        zeros = torch.zeros(len(scales), dtype=torch.int64)
        quantised = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
        packed = torch.ops.quantized.linear_prepack(quantised, bias)
        product = torch.ops.quantized.linear_dynamic.default
        return lambda x: product(x, packed)


@contextmanager
def _fbgemm() -> Iterator[None]:
    """Pack for FBGEMM: torch's default on x86 takes oneDNN for int8 where it can, 1.6 times as slow at one row."""
    engine = torch.backends.quantized.engine
    torch.backends.quantized.engine = "fbgemm"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch wants quantised tensors to be made by torchao one day
            yield
    finally:
        torch.backends.quantized.engine = engine
