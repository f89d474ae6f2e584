"""The style of new music."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import TokenizerError
from ...midi.theory import DRUMS
from .base import Control

if TYPE_CHECKING:
    import numpy as np

    from ...tokenizers.base import Tokenizer


PROGRAMS = {
    "chorale": (52,), "hymn": (0, 52), "lied": (0, 2, 52, 70, 71, 73), "piano": (0, 2), "pop-piano": (0, 52),
    "drums": (DRUMS,),
}  # fmt: skip
"""The instruments of styles that have few: those of at least one training piece in a hundred of the style, as General MIDI
programs (52 is the choir, which is also the voice of a song). Orchestras and bands have any."""

ENSEMBLES = {
    "band": "drums,bass,piano+organ+guitar",
    "orchestra": "violin+48+49,viola+cello+contrabass,reed+pipe,brass",
}
"""The ensembles of the other styles, see `ensemble`: the sections that most of their training pieces have."""


class Style(Control):
    """One of `score_plan.STYLES`; with a prompt, of the whole of it and the new music.

    Unconditional music of a style in `PROGRAMS` has these instruments, and one in `ENSEMBLES` has this ensemble, where none are
    asked for.
    """

    metavar = "STYLE"
    help = "chorale, hymn, lied, piano, orchestra, pop-piano, band or drums."

    def parse(self, given: str) -> str:
        from ...tokenizers.score_plan import STYLES  # imports numpy

        if (word := given.strip().lower()) not in STYLES:
            raise ValueError(f"no style '{given}': one of {', '.join(STYLES)}")
        return word

    def apply(self, value: str, tokenizer: Tokenizer, permitted: np.ndarray) -> None:
        from ...tokenizers.vocabulary import Kind, find, is_kind

        wanted = find(tokenizer.vocabulary, Kind.STYLE, value)
        if wanted < 0:
            raise TokenizerError(
                f"the tokenizer '{tokenizer.name}' of this model has no styles: take a model whose 'score' tokens have "
                "a header (features of version 5)"
            )
        permitted[is_kind(tokenizer.vocabulary, Kind.STYLE)] = False
        permitted[wanted] = True


CONTROL = Style()
