"""Architectures of the note classifier, one a file: a frozen keyword-only `Config`, a `Model`, `PRESETS`, `TRAINING`.

A file that is added here is an architecture everywhere: in training, in classifier files and in tests. `base` and files
whose names begin with an underscore are not architectures.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ...errors import CheckpointError

if TYPE_CHECKING:
    from .base import NoteModel

DEFAULT = "cnn"  # the architecture of classifier files that do not name one
SHARED = ("base",)


def names() -> list[str]:
    """Return the names of all architectures, found by their file names, without importing torch."""
    files = (m.name for m in pkgutil.iter_modules(__path__) if not m.ispkg)
    return sorted(name for name in files if not name.startswith("_") and name not in SHARED)


def make_config(name: str, fields: Mapping[str, Any]) -> Any:
    """Return the `Config` of architecture `name`; lists, as JSON has them, become tuples.

    Raises:
        CheckpointError: no such architecture.
        ValueError: a field that the architecture does not have, or an impossible value.
    """
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    try:
        return _architecture(name).Config(**given)
    except TypeError as error:
        raise ValueError(f"architecture '{name}': {error}") from error


def create(name: str, **fields: Any) -> NoteModel:
    """Return a new network with weights sampled from torch's global generator; for the arguments see `make_config`."""
    model: NoteModel = _architecture(name).Model(make_config(name, fields))
    return model


def arch_of(model: NoteModel) -> str:
    """Return the name of a network's architecture: that of the file which defines its class."""
    return type(model).__module__.rpartition(".")[2]


def preset(name: str, size: str) -> dict[str, Any]:
    """Return the fields of `Config` that make architecture `name` tiny, small or base.

    Raises:
        ValueError: no such preset.
    """
    presets = _architecture(name).PRESETS
    if size not in presets:
        raise ValueError(f"no preset '{size}' for '{name}': one of {', '.join(presets)}")
    return dict(presets[size])


def training(name: str) -> dict[str, Any]:
    """Return the fields of `audio.training.Recipe` with which architecture `name` trains best."""
    return dict(_architecture(name).TRAINING)


def _architecture(name: str) -> ModuleType:
    if name not in names():
        raise CheckpointError(f"no architecture '{name}' of note classifiers: one of {', '.join(names())}")
    return import_module(f".{name}", __name__)
