"""Rules made from a tokenizer: what may follow what, so that every sample is music that can be played and written.

What a user asks for is built into the same grammar: rules that know nothing of each other can leave no way on when they
come together, and this one looks ahead (see `base.Grammar`).

B batch, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...tokenizers.base import Tokenizer
from ...tokenizers.bpe import MergedTokenizer
from ...tokenizers.grid import Grid
from ...tokenizers.miditok import MidiTokTokenizer
from ...tokenizers.performance import Performance
from ..controls import Controls
from ..sampler import Constraint
from .base import BannedTokens, Grammar, LogitBias
from .events import MidiLikeGrammar, StructuredGrammar, TsdGrammar
from .grid import GridGrammar
from .kept import KeptCells
from .kinds import TypeGraph
from .limits import Limits, is_followed, limits, logit_bias
from .merged import MergedGrammar
from .performance import PerformanceGrammar
from .score import ScoreGrammar

__all__ = [
    "BannedTokens",
    "Grammar",
    "GridGrammar",
    "KeptCells",
    "Limits",
    "LogitBias",
    "MergedGrammar",
    "MidiLikeGrammar",
    "PerformanceGrammar",
    "ScoreGrammar",
    "StructuredGrammar",
    "TsdGrammar",
    "TypeGraph",
    "constraints",
    "grammar",
]  # fmt: skip

FOLLOWING: dict[str, Any] = {
    "REMI": ScoreGrammar,
    "TSD": TsdGrammar,
    "MIDILike": MidiLikeGrammar,
    "Structured": StructuredGrammar,
}


def constraints(
    tokenizer: Tokenizer,
    *,
    not_before: float = 0.0,
    heard: np.ndarray | None = None,
    controls: Controls | None = None,
) -> list[Constraint]:
    """Return the rules that keep a tokenizer's ids playable, the music going on, and what was asked for.

    Args:
        tokenizer: any.
        not_before: no new note may begin before this time, in the tokenizer's quarters; only those tokenizers hold to it
            whose notes could lie before the prompt's end.
        heard: ids of the prompt, whose instruments, metre and tempi are kept; None for no such rule.
        controls: what new music keeps to; it wins over what is heard.

    Raises:
        TokenizerError: the tokenizer cannot express one of the controls.
    """
    controls = controls or Controls()
    base, heard_ids = tokenizer, heard
    if isinstance(tokenizer, MergedTokenizer):
        base = tokenizer.base
        heard_ids = None if heard is None else tokenizer.base_ids(heard)
    made: Grammar = grammar(base, not_before, limits(base, controls, heard_ids))
    if isinstance(tokenizer, MergedTokenizer):
        made = MergedGrammar(tokenizer, made)
    weights = logit_bias(tokenizer, controls)
    return [made] if weights is None else [made, LogitBias(weights)]


def grammar(tokenizer: Tokenizer, not_before: float = 0.0, limits: Limits | None = None) -> Grammar:
    """Return the grammar of a tokenizer without merges."""
    if isinstance(tokenizer, Performance):
        return PerformanceGrammar(not_before, limits)
    if isinstance(tokenizer, Grid):
        return GridGrammar(tokenizer.vocab_size, limits)
    if isinstance(tokenizer, MidiTokTokenizer) and is_followed(tokenizer):
        return FOLLOWING[tokenizer.tokenization](tokenizer, not_before, limits)
    if isinstance(tokenizer, MidiTokTokenizer):
        return TypeGraph(tokenizer, limits)
    return BannedTokens(tokenizer.vocab_size, [tokenizer.bos, tokenizer.eos])
