"""How strictly new music keeps to its chords."""

from __future__ import annotations

from .base import Control

DEFAULT_STRENGTH = 0.5  # where chords are given


class ChordStrength(Control):
    """From 0, no preference, to 1, only notes of the chord begin while it lasts."""

    metavar = "0…1"
    help = f"Other notes than those of --chords are 1 - this times as likely ({DEFAULT_STRENGTH:g} if left out)."
    off = 0.0

    def parse(self, given: float) -> float:
        if not 0 <= given <= 1:
            raise ValueError(f"chord strength must be 0 to 1, not {given:g}")
        return given


CONTROL = ChordStrength()
