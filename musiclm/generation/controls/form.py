"""The form of new music."""

from __future__ import annotations

import re

from .base import Control

LETTERS = "ABCDEFGH"
MOST = 16


class Form(Control):
    """ "AABA": the new bars are divided evenly among the letters, and a letter that comes again repeats its music."""

    metavar = "LETTERS"
    help = "AABA: a letter for each of several equal parts; a letter that comes again brings its music back."

    def parse(self, given: str) -> str:
        letters = given.strip().upper()
        if not re.fullmatch(f"[{LETTERS}]{{2,{MOST}}}", letters):
            raise ValueError(f"'{given}' is no form: write 2 to {MOST} letters from A to H, as AABA")
        return letters


CONTROL = Form()
