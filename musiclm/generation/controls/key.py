"""The key of new music."""

from __future__ import annotations

from ...midi.theory import parse_key
from .base import Control

AUTO, NONE = "auto", "none"


class Key(Control):
    """ "C major", "a minor", "f# dorian", …; stored by its usual name. Minor is the natural one; see `theory.MODES`.

    "auto" is the key that the music turns out to have, see `constraints.key_leaning`; "none" is none.
    """

    metavar = "KEY"
    help = "'C major', 'f# minor', 'd dorian', …: no notes outside it; auto: fewer outside the music's own; none."
    off = NONE

    def parse(self, given: str) -> str:
        word = given.strip().lower()
        if word in (AUTO, NONE):
            return word
        try:
            return parse_key(given)[0]
        except ValueError as error:
            raise ValueError(f"{error}; or '{AUTO}', the music's own, or '{NONE}'") from None


CONTROL = Key()
