"""Scores: reading and writing MIDI, musical time, edits, pedal and music theory. Independent of tokenizers and models.

A score is a `symusic.Score` in ticks. Names are loaded on first use, so that `midi.theory` does not import symusic.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .controllers import RELEASED, in_force, release
    from .edit import add_text, carry_over, cut, fill_bars, retimed, set_tempo, without_before
    from .pedal import pedal_release
    from .reader import Reading, parse, read, read_music
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
    from .writer import to_bytes, write

_HOME = {
    "controllers": "RELEASED in_force release",
    "edit": "add_text carry_over cut fill_bars retimed set_tempo without_before",
    "pedal": "pedal_release",
    "reader": "Reading parse read read_music",
    "timing": "Bar BarMap TempoMap bar_line bars end last_bar_line num_bars quarters_at seconds seconds_at",
    "writer": "to_bytes write",
}
_MODULE = {name: module for module, names in _HOME.items() for name in names.split()}

__all__ = [
    "RELEASED", "Bar", "BarMap", "Reading", "TempoMap", "add_text", "bar_line", "bars", "carry_over", "cut", "end",
    "fill_bars", "in_force", "last_bar_line", "num_bars", "parse", "pedal_release", "quarters_at", "read", "read_music",
    "release", "retimed", "seconds", "seconds_at", "set_tempo", "to_bytes", "without_before", "write",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module 'musiclm.midi' has no attribute '{name}'")
    return getattr(import_module(f".{_MODULE[name]}", __name__), name)
