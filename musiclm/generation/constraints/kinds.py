"""What MidiTok itself knows of its tokens: which kind may follow which."""

from __future__ import annotations

import numpy as np

from ...tokenizers.miditok import MARKS, MidiTokTokenizer
from .base import Grammar
from .limits import Limits


class TypeGraph(Grammar):
    """A kind of token follows a kind of token as MidiTok says; marks never come. The place is the last id's kind.

    It knows no bars, no programs and no notes: a note may come twice, or earlier than the one before it.

    Args:
        tokenizer: any of MidiTok's.
        limits: what new music keeps to.
    """

    def __init__(self, tokenizer: MidiTokTokenizer, limits: Limits | None = None) -> None:
        super().__init__(tokenizer.vocab_size)
        self._kinds = tokenizer.kinds
        kinds = np.array(tokenizer.kinds)
        graph = tokenizer.midi_tokenizer.tokens_types_graph
        permitted = ~np.isin(kinds, MARKS)
        if limits is not None:
            permitted &= limits.permitted
        self._following: dict[str, np.ndarray] = {}
        for kind in set(tokenizer.kinds):
            following = np.isin(kinds, list(graph.get(kind, ()))) & permitted
            self._following[kind] = np.flatnonzero(following if following.any() else permitted)

    def beginning(self) -> str:
        return "BOS"

    def following(self, place: str) -> list[np.ndarray]:
        return [self._following[place]]

    def after(self, place: str, token: int) -> str:
        return self._kinds[token]
