"""How strictly new music keeps to its key."""

from __future__ import annotations

from .base import Control

STRICT = 1.0
AUTO_STRENGTH = 0.5  # of "auto", where a checkpoint recommends no other


class KeyStrength(Control):
    """From 0, no preference, to 1, no note outside the key."""

    metavar = "0…1"
    help = f"Below 1 notes outside the key are only less likely ({STRICT:g} if left out; for auto {AUTO_STRENGTH:g})."
    off = STRICT

    def parse(self, given: float) -> float:
        if not 0 <= given <= 1:
            raise ValueError(f"key strength must be 0 to 1, not {given:g}")
        return given


CONTROL = KeyStrength()
