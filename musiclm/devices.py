"""Where to compute, and how exactly: what names mean on this machine."""

from __future__ import annotations

import math
import time

from .errors import MusicLMError


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
    for dtype in (torch.float32, torch.bfloat16):
        a, b = torch.ones(1024, 512, dtype=dtype), torch.ones(512, 1024, dtype=dtype)
        a @ b
        best = math.inf
        for _ in range(5):
            began = time.perf_counter()
            a @ b
            best = min(best, time.perf_counter() - began)
        took[dtype] = best
    return took[torch.bfloat16] < 0.7 * took[torch.float32]
