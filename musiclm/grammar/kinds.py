"""What MidiTok itself knows of its tokens: which kind may follow which."""

from __future__ import annotations

import numpy as np

from ..tokens._miditok import MARKS, MidiTokTokenizer
from .base import Grammar


class TypeGraph(Grammar):
    """A kind of token follows a kind of token as MidiTok says; marks never come. The place is the last id's kind."""

    def __init__(self, tokenizer: MidiTokTokenizer) -> None:
        self._kinds = tokenizer.kinds
        kinds = np.array(tokenizer.kinds)
        graph = tokenizer.midi_tokenizer.tokens_types_graph
        marks = np.isin(kinds, MARKS)
        self._following: dict[str, np.ndarray] = {}
        for kind in set(tokenizer.kinds):
            following = np.isin(kinds, list(graph.get(kind, ()))) & ~marks
            self._following[kind] = following if following.any() else ~marks

    def beginning(self) -> str:
        return "BOS"

    def allowed(self, place: str) -> np.ndarray:
        return self._following[place]

    def after(self, place: str, token: int) -> str:
        return self._kinds[token]
