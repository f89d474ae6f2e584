"""The key of new music."""

from __future__ import annotations

from ...midi.theory import parse_key
from .base import Control


class Key(Control):
    """ "C major", "a minor", "f# dorian", …; stored by its usual name. Minor is the natural one; see `theory.MODES`."""

    metavar = "KEY"
    help = "'C major', 'f# minor', 'd dorian', …: no notes outside it."

    def parse(self, given: str) -> str:
        return parse_key(given)[0]


CONTROL = Key()
