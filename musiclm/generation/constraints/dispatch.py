"""Which grammar a tokenizer has. A grammar registers itself, by the class of the tokenizer that it is made for.

    @grammar_class.register
    def _(tokenizer: MyTokenizer) -> type[Grammar]:
        return MyGrammar

A tokenizer without a grammar of its own gets `LimitedGrammar`, which reads its vocabulary table alone.
"""

from __future__ import annotations

from functools import singledispatch

from ...tokenizers.base import Tokenizer
from .base import Grammar
from .limited import LimitedGrammar


@singledispatch
def grammar_class(tokenizer: Tokenizer) -> type[Grammar]:
    """Return the class of a tokenizer's grammar, of a tokenizer without merges."""
    return LimitedGrammar
