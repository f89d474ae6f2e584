"""The grammar of a tokenizer with merges: its base's grammar, applied to the base ids of each id."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...tokenizers.base import Tokenizer
from ...tokenizers.vocabulary import Kind, expansions, ids_of
from .base import Grammar


class MergedGrammar(Grammar):
    """A merged id is allowed where its base ids are, one after the other; the places are those of the base's grammar.

    The merges form a prefix tree of base ids, so a common prefix is checked once. What does not depend on the place
    (velocities after a pitch) is checked when the tree is built.

    Args:
        tokenizer: with merges.
        grammar: of its base ids.
    """

    def __init__(self, tokenizer: Tokenizer, grammar: Grammar) -> None:
        super().__init__(tokenizer.vocab_size)
        self._grammar, self._expansions = grammar, expansions(tokenizer.vocabulary)
        self._tree = _Branch()
        for i in ids_of(tokenizer.vocabulary, Kind.MERGED).tolist():
            branch = self._tree
            for base_id in self._expansions[i]:
                branch = branch.branches.setdefault(grammar.alike(base_id), _Branch())
            branch.ends.append(i)
        for base_id, branch in self._tree.branches.items():
            self._prune(branch, base_id)

    def _prune(self, branch: _Branch, base_id: int) -> None:
        """Check below a branch what does not depend on the place: those merges are allowed wherever it is, or never."""
        for next_id, next_branch in branch.branches.items():
            self._prune(next_branch, next_id)
        place = self._grammar.after(self._grammar.beginning(), base_id)
        if not isinstance(self._grammar.cache_key(place), int):
            return
        row = self._grammar.mask(place)
        branch.branches = {i: b for i, b in branch.branches.items() if row[i] == 0}
        for next_branch in branch.branches.values():
            branch.ends += next_branch.ends
            next_branch.ends = []
        branch.branches = {i: b for i, b in branch.branches.items() if b.branches}

    def beginning(self) -> Any:
        return self._grammar.beginning()

    def following(self, place: Any) -> list[np.ndarray]:
        merged: list[int] = []
        self._walk(self._tree, place, merged)
        return [np.flatnonzero(self._grammar.mask(place) == 0), np.array(merged, np.int64)]

    def _walk(self, branch: _Branch, place: Any, found: list[int]) -> None:
        """Add the merges of a branch that are allowed at a place."""
        may_come = (self._grammar.mask(place) == 0).tobytes()
        for base_id, next_branch in branch.branches.items():
            if may_come[base_id]:
                found += next_branch.ends
                if next_branch.branches:
                    self._walk(next_branch, self._grammar.after(place, base_id), found)

    def after(self, place: Any, token: int) -> Any:
        for base_id in self._expansions[token]:
            place = self._grammar.after(place, base_id)
        return place


class _Branch:
    """A node of the prefix tree: the merges that end here, and the branches of the longer ones by the next base id."""

    def __init__(self) -> None:
        self.ends: list[int] = []
        self.branches: dict[int, _Branch] = {}
