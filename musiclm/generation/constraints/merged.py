"""The grammar of a tokenizer with merges: its base's grammar, applied to the base ids of each id."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...tokenizers.base import Tokenizer
from ...tokenizers.vocabulary import Kind, expansions, ids_of
from .base import Grammar


class MergedGrammar(Grammar):
    """A merged id is allowed where its base ids are, one after the other; the states are those of the base's grammar.

    The merges form a prefix tree of base ids, so a common prefix is checked once. What does not depend on the state
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
        """Check below a branch what does not depend on the state: those merges are allowed wherever the branch is, or never."""
        for next_id, next_branch in branch.branches.items():
            self._prune(next_branch, next_id)
        state = self._grammar.after(self._grammar.beginning(), base_id)
        if not isinstance(self._grammar.cache_key(state), int):
            return
        mask = self._grammar.mask(state)
        branch.branches = {i: b for i, b in branch.branches.items() if mask[i] == 0}
        for next_branch in branch.branches.values():
            branch.ends += next_branch.ends
            next_branch.ends = []
        branch.branches = {i: b for i, b in branch.branches.items() if b.branches}

    def beginning(self) -> Any:
        return self._grammar.beginning()

    def following(self, state: Any) -> list[np.ndarray]:
        merged: list[int] = []
        self._walk(self._tree, state, merged)
        return [np.flatnonzero(self._grammar.mask(state) == 0), np.array(merged, np.int64)]

    def _walk(self, branch: _Branch, state: Any, found: list[int]) -> None:
        """Add the merges of a branch that are allowed in a state."""
        may_come = (self._grammar.mask(state) == 0).tobytes()
        for base_id, next_branch in branch.branches.items():
            if may_come[base_id]:
                found += next_branch.ends
                if next_branch.branches:
                    self._walk(next_branch, self._grammar.after(state, base_id), found)

    def after(self, state: Any, token: int) -> Any:
        for base_id in self._expansions[token]:
            state = self._grammar.after(state, base_id)
        return state


class _Branch:
    """A node of the prefix tree: the merges that end here, and the branches of the longer ones by the next base id."""

    def __init__(self) -> None:
        self.ends: list[int] = []
        self.branches: dict[int, _Branch] = {}
