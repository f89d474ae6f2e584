"""The grammar of a tokenizer with merges: that of its base, asked for each id's base ids."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...tokenizers.base import Tokenizer
from ...tokenizers.vocabulary import Kind, expansions, ids_of
from .base import Grammar


class MergedGrammar(Grammar):
    """A merged id may come where all its base ids may, one after the other; the places are the base grammar's.

    The merges are walked as a tree of their base ids, so that what many of them begin with is asked once; what follows
    from some base ids wherever they stand (velocities from a pitch) is asked when the tree is made.
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
        """Ask below a branch what can be asked without a place: those merges come wherever it comes, or never."""
        for next_id, next_branch in branch.branches.items():
            self._prune(next_branch, next_id)
        place = self._grammar.after(self._grammar.beginning(), base_id)
        if not isinstance(self._grammar.seen(place), int):
            return
        row = self._grammar.row(place)
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
        return [np.flatnonzero(self._grammar.row(place) == 0), np.array(merged, np.int64)]

    def _walk(self, branch: _Branch, place: Any, found: list[int]) -> None:
        """Add the merges of a branch that may come at a place."""
        may_come = (self._grammar.row(place) == 0).tobytes()
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
    """The merges that begin with the same base ids: those that end here, and by the next base id the longer ones."""

    def __init__(self) -> None:
        self.ends: list[int] = []
        self.branches: dict[int, _Branch] = {}
