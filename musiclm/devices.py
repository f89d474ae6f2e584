"""Where to compute: what a name means on this machine."""

from __future__ import annotations

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
