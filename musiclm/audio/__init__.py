"""The note classifier: predicts the instrument family of a recorded note from its log-mel spectrogram.

The eleven families are those of NSynth (Engel et al. 2017). Public names are loaded on first use, as in `musiclm`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

FAMILIES = (
    "bass",
    "brass",
    "flute",
    "guitar",
    "keyboard",
    "mallet",
    "organ",
    "reed",
    "string",
    "synth_lead",
    "vocal",
)

_HOME = {"NoteClassifier": "classifier", "Prediction": "classifier", "log_mel": "mel"}

__all__ = ["FAMILIES", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'musiclm.audio' has no attribute '{name}'")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
