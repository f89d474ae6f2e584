"""Which instruments have to play."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import TokenizerError
from ...midi.theory import DRUMS, programs
from .base import Control

if TYPE_CHECKING:
    import numpy as np

    from ...tokenizers.base import Tokenizer

AUTO, NONE = "auto", "none"

Groups = tuple[tuple[int, ...], ...]


class Ensemble(Control):
    """Instruments as in `instruments`; each enters within four bars and goes on. See `constraints.ensemble`.

    Of a word that stands for several, such as a family, one has to play. Stored as one sorted tuple of program numbers for
    each word, written with + between them in a record. "auto": those of the prompt's last bars, or of the header that the
    model has sampled, where tokens have one. "none": nobody has to play.
    """

    metavar = "NAMES"
    help = "Each of these plays and goes on: by default each of the instruments named. auto: the prompt's own; none."
    off = NONE

    def parse(self, given: Any) -> str | Groups:
        if isinstance(given, str) and (word := given.strip().lower()) in (AUTO, NONE):
            return word
        each = [given] if isinstance(given, int) else given.split(",") if isinstance(given, str) else list(given)
        return tuple(dict.fromkeys(_group(one) for one in each))

    def to_json(self, value: str | Groups) -> str:
        if isinstance(value, str):
            return value
        return ",".join("+".join("drums" if p == DRUMS else str(p) for p in group) for group in value)

    def apply(self, value: str | Groups, tokenizer: Tokenizer, permitted: np.ndarray) -> None:
        """Refuse other instruments than that of a tokenizer with one; `constraints.ensemble` does the rest."""
        if tokenizer.program is None or isinstance(value, str) or all(tokenizer.program in group for group in value):
            return
        raise TokenizerError(
            f"the tokenizer '{tokenizer.name}' has one instrument, General MIDI program {tokenizer.program}: "
            "take a model of 'score' tokens"
        )


def _group(given: Any) -> tuple[int, ...]:
    return programs(given.split("+") if isinstance(given, str) else given)


CONTROL = Ensemble()
