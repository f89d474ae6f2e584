"""The tempo of new music."""

from __future__ import annotations

from .base import Control

SLOWEST, FASTEST = 4.0, 1000.0  # quarters/minute; a MIDI file cannot store less than 3.6


class Tempo(Control):
    """Quarters/minute."""

    metavar = "BPM"
    help = "Quarters/minute, exactly this in the file."

    def parse(self, given: float) -> float:
        if not SLOWEST <= given <= FASTEST:
            raise ValueError(f"tempo must be {SLOWEST:g} to {FASTEST:g} quarters/minute, not {given:g}")
        return given


CONTROL = Tempo()
