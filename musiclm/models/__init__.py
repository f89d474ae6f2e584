"""Architectures, one a file: `models/NAME.py` holds a frozen keyword-only `Config`, a `Model`, `PRESETS` and `TRAINING`.

A file that is added here is an architecture everywhere: in training, sampling, evaluation, checkpoints and tests.
Files whose names begin with an underscore, those in `SHARED` and packages are not architectures.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError

if TYPE_CHECKING:
    from .base import LanguageModel

SHARED = ("base", "ensemble", "weights")  # files that are no architecture
SIZES = ("tiny", "small", "base")  # each architecture's PRESETS has these keys


def names() -> list[str]:
    """Return the names of all architectures, found by their file names, without importing torch."""
    files = (m.name for m in pkgutil.iter_modules(__path__) if not m.ispkg)
    return sorted(name for name in files if not name.startswith("_") and name not in SHARED)


def create(name: str, vocab_size: int, **config: Any) -> LanguageModel:
    """Return a new model with weights drawn from torch's global generator.

    Args:
        name: one of `names()`.
        vocab_size: number of token ids.
        config: fields of the architecture's `Config`; those left out have its defaults.

    Raises:
        CheckpointError: no such architecture.
        ValueError: a field that the architecture does not have, or an impossible value.
    """
    architecture = _architecture(name)
    try:
        return architecture.Model(architecture.Config(vocab_size=vocab_size, **config))
    except TypeError as error:
        raise ValueError(f"architecture '{name}': {error}") from error


@contextmanager
def meta_init() -> Iterator[None]:
    """Make modules on torch's meta device, to be given weights: they take no memory and no numbers are drawn.

    Drawing numbers, like any arithmetic, on the meta device would make torch import its compiler: a second.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class Undrawn(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name, kwargs = getattr(function, "__name__", ""), kwargs or {}
            if name in ("normal_", "uniform_") or getattr(function, "__module__", "") == "torch.nn.init":
                return args[0] if args else kwargs["tensor"]
            return function(*args, **kwargs)

    with torch.device("meta"), Undrawn():
        yield


def preset(name: str, size: str) -> dict[str, Any]:
    """Return the fields of `Config` that make architecture `name` tiny, small or base."""
    presets = _architecture(name).PRESETS
    if size not in presets:
        raise ValueError(f"no preset '{size}' for '{name}': one of {', '.join(presets)}")
    return dict(presets[size])


def training(name: str) -> dict[str, Any]:
    """Return what architecture `name` is best trained with: learning_rate, batch_size and window (tokens)."""
    return dict(_architecture(name).TRAINING)


def _architecture(name: str) -> ModuleType:
    if name not in names():
        raise CheckpointError(f"no architecture '{name}': one of {', '.join(names())}")
    return import_module(f".{name}", __name__)
