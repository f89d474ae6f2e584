"""The time signature of new music."""

from __future__ import annotations

import re
from typing import Any

from .base import Control


class TimeSignature(Control):
    """ "3/4" or (3, 4); stored as numbers."""

    metavar = "N/D"
    help = "3/4, 6/8, …; from the next bar line on."

    def parse(self, given: Any) -> tuple[int, int]:
        text = given if isinstance(given, str) else "/".join(map(str, given))
        found = re.fullmatch(r"\s*(\d{1,2})\s*/\s*(\d{1,2})\s*", text)
        if not found or int(found[1]) == 0 or int(found[2]) not in (1, 2, 4, 8, 16, 32, 64):
            raise ValueError(f"'{text}' is no time signature: write 3/4, 6/8, …")
        return int(found[1]), int(found[2])

    def to_json(self, value: tuple[int, int]) -> str:
        return "{}/{}".format(*value)


CONTROL = TimeSignature()
