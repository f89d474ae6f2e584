"""The grammar of MidiTok's tokenizers that no other grammar follows: MidiTok's own graph of token types."""

from __future__ import annotations

import numpy as np

from ...tokenizers.miditok import MidiTokTokenizer
from ...tokenizers.vocabulary import is_special
from .base import Grammar, Limits


class TypeGraph(Grammar):
    """A token type may follow another as MidiTok's graph says; special tokens are banned.

    The state is the type of the last token. Bars, programs and notes are not tracked: a note may come twice, or earlier than
    the one before it.

    Args:
        tokenizer: any of MidiTok's.
        not_before: not used.
        limits: the limits on new music; here only those that follow from the prompt.
    """

    follows_notes = False

    def __init__(self, tokenizer: MidiTokTokenizer, not_before: float = 0.0, limits: Limits | None = None) -> None:
        super().__init__(tokenizer.vocab_size)
        self._kinds = tokenizer.kinds
        kinds = np.array(tokenizer.kinds)
        graph = tokenizer.midi_tokenizer.tokens_types_graph
        permitted = ~is_special(tokenizer.vocabulary)
        if limits is not None:
            permitted &= limits.permitted
        self._following: dict[str, np.ndarray] = {}
        for kind in set(tokenizer.kinds):
            following = np.isin(kinds, list(graph.get(kind, ()))) & permitted
            self._following[kind] = np.flatnonzero(following if following.any() else permitted)

    def beginning(self) -> str:
        return "BOS"

    def following(self, state: str) -> list[np.ndarray]:
        return [self._following[state]]

    def after(self, state: str, token: int) -> str:
        return self._kinds[token]
