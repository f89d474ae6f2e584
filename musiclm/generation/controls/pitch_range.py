"""The range of pitches of new music."""

from __future__ import annotations

import re
from typing import Any

from ...midi.theory import parse_pitch
from .base import Control


class PitchRange(Control):
    """ "C3-C6", "48-84" or (48, 84), both ends included; stored as MIDI pitches. C4 is 60."""

    metavar = "LOW-HIGH"
    help = "C3-C6 or 48-84; C4 is 60. Key and range do not apply to drums."

    def parse(self, given: Any) -> tuple[int, int]:
        text = given if isinstance(given, str) else "-".join(map(str, given))
        pitch = r"[A-Ga-g](?:#|♯|b|♭)?-?\d|\d+"
        found = re.fullmatch(rf"\s*({pitch})\s*(?:-|–|\.\.)\s*({pitch})\s*", text)
        if not found:
            raise ValueError(f"'{text}' is no pitch range: write C3-C6 or 48-84")
        low, high = parse_pitch(found[1]), parse_pitch(found[2])
        if not 0 <= low <= high <= 127:
            raise ValueError(f"'{text}' is no pitch range: pitches are 0 to 127, C-1 to G9, the lower first")
        return low, high

    def to_json(self, value: tuple[int, int]) -> str:
        return "{}-{}".format(*value)


CONTROL = PitchRange()
