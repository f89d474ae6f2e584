"""The style of new music."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import TokenizerError
from .base import Control

if TYPE_CHECKING:
    import numpy as np

    from ...tokenizers.base import Tokenizer


class Style(Control):
    """One of `score_plan.STYLES`; with a prompt, of the whole of it and the new music."""

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
