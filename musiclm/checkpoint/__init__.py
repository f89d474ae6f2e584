"""Checkpoints: the file format, their names, and the user's folder of installed ones."""

from .format import SUFFIX, Checkpoint, load_weights, pack, read, read_tensors, rename_tensors, save, with_critic
from .header import MAX_HEADER, read_header
from .registry import (
    bundled,
    bundled_path,
    default,
    find,
    infilling,
    installed,
    installed_path,
    load,
    load_exactly,
    user_folder,
)

__all__ = [
    "MAX_HEADER", "SUFFIX", "Checkpoint", "bundled", "bundled_path", "default", "find", "infilling", "installed",
    "installed_path", "load", "load_exactly", "load_weights", "pack", "read", "read_header", "read_tensors",
    "rename_tensors", "save", "user_folder", "with_critic",
]  # fmt: skip
