"""Rules made from a tokenizer: what may follow what, so that every sample is music that can be played and written.

B batch, V vocabulary.
"""

from __future__ import annotations

import numpy as np

from ..sampling import Rule
from ..tokens._miditok import MidiTokTokenizer
from ..tokens.base import Tokenizer
from ..tokens.merges import MergedTokenizer
from ..tokens.performance import Performance
from ..tokens.score import ScoreTokenizer
from .base import Grammar, Never
from .kinds import TypeGraph
from .merged import MergedGrammar
from .performance import PerformanceGrammar
from .score import ScoreGrammar

__all__ = ["Grammar", "MergedGrammar", "Never", "PerformanceGrammar", "ScoreGrammar", "TypeGraph", "rules"]


def rules(tokenizer: Tokenizer, *, not_before: float = 0.0, heard: np.ndarray | None = None) -> list[Rule]:
    """Return the rules that keep a tokenizer's ids playable and the music going on.

    Args:
        tokenizer: any.
        not_before: no new note may begin before this time, in the tokenizer's quarters; `score` and `performance` could
            lie before the prompt's end, the others cannot.
        heard: ids of the prompt, whose instruments, metre and tempi are kept; None for no such rule.
    """
    strange: list[int] = tokenizer.strange_to(heard).tolist() if heard is not None else []
    kept: list[Rule] = [Never(tokenizer.vocab_size, strange)] if strange else []
    return [_grammar(tokenizer, not_before), *kept]


def _grammar(tokenizer: Tokenizer, not_before: float) -> Grammar:
    if isinstance(tokenizer, MergedTokenizer):
        return MergedGrammar(tokenizer, _grammar(tokenizer.base, not_before))
    if isinstance(tokenizer, Performance):
        return PerformanceGrammar(not_before)
    if isinstance(tokenizer, ScoreTokenizer):
        return ScoreGrammar(tokenizer, not_before)
    if isinstance(tokenizer, MidiTokTokenizer):
        return TypeGraph(tokenizer)
    return Never(tokenizer.vocab_size, [tokenizer.bos, tokenizer.eos])
