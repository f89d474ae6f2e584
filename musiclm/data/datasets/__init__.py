"""Known data sets, one a file: `datasets/NAME.py` holds a `DATASET`, see `Dataset`.

A file that is added here is listed by `musiclm corpus datasets` and accepted by `musiclm corpus build --dataset`.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

from ...errors import CorpusError
from .base import Dataset

__all__ = ["Dataset", "get", "names"]


def names() -> list[str]:
    """Return the names of all known data sets, found by their file names."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "base")


def get(name: str) -> Dataset:
    """Return a known data set.

    Raises:
        CorpusError: none has this name.
    """
    if name not in names():
        raise CorpusError(f"no data set '{name}': one of {', '.join(names())}")
    dataset: Dataset = import_module(f".{name}", __name__).DATASET
    return dataset
