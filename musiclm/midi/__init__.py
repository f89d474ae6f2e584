"""Scores: reading and writing MIDI, musical time, edits, pedal and music theory. Independent of tokenizers and models.

A score is a `symusic.Score` in ticks. Names are loaded on first use, so that `midi.theory` does not import symusic.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .controllers import RELEASED, in_force, release
    from .edit import add_text, carry_over, cut, fill_bars, retimed, set_tempo, without_before
    from .io import parse, read, to_bytes, write
    from .pedal import pedal_release
    from .timing import (
        Bar,
        BarMap,
        TempoMap,
        bar_line,
        bars,
        end,
        last_bar_line,
        num_bars,
        quarters_at,
        seconds,
        seconds_at,
    )

_HOME = {
    "controllers": "RELEASED in_force release",
    "edit": "add_text carry_over cut fill_bars retimed set_tempo without_before",
    "io": "parse read to_bytes write",
    "pedal": "pedal_release",
    "timing": "Bar BarMap TempoMap bar_line bars end last_bar_line num_bars quarters_at seconds seconds_at",
}
_MODULE = {name: module for module, names in _HOME.items() for name in names.split()}

__all__ = [
    "RELEASED", "Bar", "BarMap", "TempoMap", "add_text", "bar_line", "bars", "carry_over", "cut", "end", "fill_bars",
    "in_force", "last_bar_line", "num_bars", "parse", "pedal_release", "quarters_at", "read", "release", "retimed",
    "seconds", "seconds_at", "set_tempo", "to_bytes", "without_before", "write",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module 'musiclm.midi' has no attribute '{name}'")
    return getattr(import_module(f".{_MODULE[name]}", __name__), name)
