"""How many notes may sound at once."""

from __future__ import annotations

from .base import Control


class MaxPolyphony(Control):
    """A number of notes, all instruments together, drums excepted."""

    metavar = "N"
    help = "At most N notes sound at once, drums not counted."

    def parse(self, given: int) -> int:
        if given < 1:
            raise ValueError(f"max polyphony must be at least 1, not {given}")
        return given


CONTROL = MaxPolyphony()
