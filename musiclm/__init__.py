"""musiclm: symbolic (MIDI) music from the command line, and from Python.

Public names are loaded on first use (PEP 562), so that importing the package does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

try:
    __version__ = version("musiclm")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"

_HOME = {
    "Composer": "generation.composer",
    "Controls": "generation.controls",
    "GenerationConfig": "generation.config",
    "Length": "generation.config",
    "MusicLMError": "errors",
    "Sampler": "generation.sampler",
    "SamplerConfig": "generation.config",
    "sample_ids": "generation.decode",
    "load": "checkpoint",
    "open_source": "data",
    "read": "midi",
    "write": "midi",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'musiclm' has no attribute '{name}'")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
