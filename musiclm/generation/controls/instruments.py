"""Which instruments play."""

from __future__ import annotations

from typing import Any

from ...midi.theory import DRUMS, programs
from .base import Control


class Instruments(Control):
    """General MIDI families ("strings"), instruments ("violin"), program numbers 0 … 127 and "drums".

    Given with commas between them, or as a sequence; stored as sorted program numbers, -1 for drums.
    """

    metavar = "NAMES"
    help = "Only these play, and each of them: piano,bass / violin / 0,33 / drums."

    def parse(self, given: Any) -> tuple[int, ...]:
        return programs(given)

    def to_json(self, value: tuple[int, ...]) -> str:
        return ",".join("drums" if program == DRUMS else str(program) for program in value)


CONTROL = Instruments()
