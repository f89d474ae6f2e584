"""Where to compute, and how exactly: what names mean on this machine."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from .errors import MusicLMError

if TYPE_CHECKING:
    import torch

PRECISIONS = ("fp32", "bf16", "fp16", "int8")


def resolve_device(name: str) -> str:
    """Return cpu, cuda or mps; auto is cuda if it is there, else cpu.

    Raises:
        MusicLMError: it was asked for by name and is not there.
    """
    import torch

    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return "cuda" if present["cuda"] else "cpu"
    if not present[name]:
        raise MusicLMError(f"no device '{name}' on this machine: --device cpu works everywhere")
    return name


def resolve_bf16(precision: str | None, device: str) -> bool:
    """Return whether to compute in bfloat16; auto (None) does on cuda, and on a CPU that is faster in it."""
    if precision in (None, "auto"):
        return device == "cuda" or (device == "cpu" and faster_in_bf16())
    return precision == "bf16"


def faster_in_bf16() -> bool:
    """Return whether this CPU multiplies matrices faster in bfloat16 than in float32: one product timed in both.

    Without instructions for it bfloat16 is emulated and slower.
    """
    import torch

    took = {}
    for size in (128, 512):  # an emulated product takes seconds at the full size: the small one is enough to tell
        for dtype in (torch.float32, torch.bfloat16):
            a, b = torch.ones(2 * size, size, dtype=dtype), torch.ones(size, 2 * size, dtype=dtype)
            a @ b
            best = math.inf
            for _ in range(5):
                began = time.perf_counter()
                a @ b
                best = min(best, time.perf_counter() - began)
            took[dtype] = best
        if took[torch.bfloat16] > 4 * took[torch.float32]:
            return False
    return took[torch.bfloat16] < 0.7 * took[torch.float32]


def has_fbgemm(device: torch.device | str) -> bool:
    """Return whether weights can be held in fp16 and int8 on a device."""
    import torch

    return torch.device(device).type == "cpu" and "fbgemm" in torch.backends.quantized.supported_engines


def resolve_precision(precision: str, device: torch.device | str) -> str:
    """Return how to hold weights: `precision`, or for "auto" the fastest here that harms no music.

    That is int8 on x86 (it costs the bundled models less than 0.0002 nats a token: benchmarks/precision.py), bf16 on a
    GPU of NVIDIA's, fp32 elsewhere.

    Raises:
        ValueError: there is no such precision, or not on this device.
    """
    import torch

    if precision == "auto":
        if has_fbgemm(device):
            return "int8"
        return "bf16" if torch.device(device).type == "cuda" else "fp32"
    if precision not in PRECISIONS:
        raise ValueError(f"no precision '{precision}': one of auto, {', '.join(PRECISIONS)}")
    if precision in ("fp16", "int8") and not has_fbgemm(device):
        raise ValueError(f"no precision '{precision}' here: it needs an x86 CPU; fp32 works everywhere")
    return precision
