"""How strictly a bar keeps to the bar that it is said to repeat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import TokenizerError
from .base import Control

if TYPE_CHECKING:
    import numpy as np

    from ...tokenizers.base import Tokenizer

DEFAULT_STRENGTH = 0.9  # where tokens have a plan


class RepeatStrength(Control):
    """From 0, as the model has it, to 1, only copies. See `constraints.repeats`."""

    metavar = "0…1"
    help = (
        f"In a bar that repeats another, other tokens than its own are 1 - this times as likely ({DEFAULT_STRENGTH:g})."
    )
    off = 0.0

    def parse(self, given: float) -> float:
        if not 0 <= given <= 1:
            raise ValueError(f"repeat strength must be 0 to 1, not {given:g}")
        return given

    def apply(self, value: float, tokenizer: Tokenizer, permitted: np.ndarray) -> None:
        """Refuse a tokenizer whose ids do not say repeats; `constraints.repeats` does the rest."""
        from ...tokenizers.vocabulary import Kind, has  # imports numpy, which a help does not need

        if value and not has(tokenizer.vocabulary, Kind.REPEAT):
            raise TokenizerError(
                f"tokens of '{tokenizer.name}' in this model do not say which bars repeat others: take a model of 'score' "
                "tokens of version 5"
            )


CONTROL = RepeatStrength()
