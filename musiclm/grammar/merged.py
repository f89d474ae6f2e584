"""The grammar of a tokenizer with merges: that of its base, asked for each id's base ids."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np

from ..tokens.merges import MergedTokenizer
from .base import Grammar

MAX_PLACES = 4096  # for which `MergedGrammar` keeps what may follow


class MergedGrammar(Grammar):
    """A merged id may come where all its base ids may, one after the other; the places are the base grammar's.

    The merges are walked as a tree of their base ids, so that what many of them begin with is asked once.
    """

    def __init__(self, tokenizer: MergedTokenizer, grammar: Grammar) -> None:
        self._grammar, self._expansions = grammar, tokenizer.expansions
        self._num_base = tokenizer.base.vocab_size
        self._tree = _Branch()
        for i in range(self._num_base, tokenizer.vocab_size):
            branch = self._tree
            for base_id in self._expansions[i]:
                branch = branch.branches.setdefault(base_id, _Branch())
            branch.ends.append(i)
        self._known: OrderedDict[Any, np.ndarray] = OrderedDict()

    def beginning(self) -> Any:
        return self._grammar.beginning()

    def allowed(self, place: Any) -> np.ndarray:
        if place not in self._known:
            allowed = np.zeros(len(self._expansions), bool)
            self._walk(self._tree, place, allowed)
            self._known[place] = allowed
            if len(self._known) > MAX_PLACES:
                self._known.popitem(last=False)
        return self._known[place]

    def _walk(self, branch: _Branch, place: Any, allowed: np.ndarray) -> None:
        following = self._grammar.allowed(place)
        if branch is self._tree:
            allowed[: self._num_base] = following
        for base_id, next_branch in branch.branches.items():
            if following[base_id]:
                allowed[next_branch.ends] = True
                if next_branch.branches:
                    self._walk(next_branch, self._grammar.after(place, base_id), allowed)

    def after(self, place: Any, token: int) -> Any:
        for base_id in self._expansions[token]:
            place = self._grammar.after(place, base_id)
        return place


class _Branch:
    """The merges that begin with the same base ids: those that end here, and by the next base id the longer ones."""

    def __init__(self) -> None:
        self.ends: list[int] = []
        self.branches: dict[int, _Branch] = {}
