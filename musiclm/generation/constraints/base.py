"""The interface of grammars: constrained decoding by a state machine over ids.

B batch, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

MAX_CACHED = 4096  # logit masks that a grammar keeps
BANNED = np.float32("-inf")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits on the ids of new music.

    Attributes:
        permitted: which ids are allowed, (V,) booleans. Where the current tempo, time signature or program is not
            permitted, it has to change before a note begins.
        max_polyphony: how many notes may sound at once, drums excepted; None for any number.
    """

    permitted: np.ndarray
    max_polyphony: int | None = None


class Grammar(ABC):
    """A constraint that tracks the state of each batch element separately and derives a logit mask from it.

    The state of an element is immutable and hashable, so masks are cached by state. Invariant: each state that allowed
    tokens lead to allows some token; a token that would lead to a dead end is banned. Where a prompt stops within a note
    that is banned, the note is completed.

    Subclasses that `dispatch.grammar_class` returns are constructed with (tokenizer, not_before, limits).

    Args:
        vocab_size: V.

    Attributes:
        follows_notes: whether it can enforce limits on ids; else only a tempo can be asked for, which the score gets.
        counts_notes: whether it can enforce a maximum polyphony.
    """

    follows_notes: ClassVar[bool] = True
    counts_notes: ClassVar[bool] = True

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self._masks: OrderedDict[Hashable, np.ndarray] = OrderedDict()

    @abstractmethod
    def beginning(self) -> Any:
        """Return the state before the first token."""

    @abstractmethod
    def following(self, state: Any) -> Sequence[np.ndarray | slice]:
        """Return the ids that may come next, as several index arrays or slices."""

    @abstractmethod
    def after(self, state: Any, token: int) -> Any:
        """Return the state after a token."""

    def banned(self, state: Any) -> Sequence[int] | np.ndarray:
        """Return the ids that are banned next although `following` returns them."""
        return ()

    def cache_key(self, state: Any) -> Hashable:
        """Return the part of a state that determines the mask; an int where the type of the last token alone does."""
        return state

    def alike(self, token: int) -> int:
        """Return a representative of all ids that are allowed in the same states as this one and lead to the same states."""
        return token

    def mask(self, state: Any) -> np.ndarray:
        """Return the logit mask of a state, (V,) float32: 0 for allowed ids, else -inf. Read-only: it is cached."""
        key = self.cache_key(state)
        mask = self._masks.get(key)
        if mask is None:
            mask = np.full(self.vocab_size, BANNED)
            for ids in self.following(state):
                mask[ids] = 0.0
            banned = self.banned(state)
            if len(banned):
                mask[banned] = BANNED
            self._masks[key] = mask
            if len(self._masks) > MAX_CACHED:
                self._masks.popitem(last=False)
        return mask

    def allowed(self, state: Any) -> np.ndarray:
        """Return which ids may come next, (V,) booleans."""
        return self.mask(state) == 0

    def start(self, batch: int) -> list[Any]:
        return [self.beginning()] * batch

    def allow(self, state: list[Any]) -> Tensor:
        allowed = torch.empty(len(state), self.vocab_size)
        masks = allowed.numpy()
        for i, element in enumerate(state):
            masks[i] = self.mask(element)
        return allowed

    def step(self, state: list[Any], token: Tensor) -> list[Any]:
        following: list[Any] = []
        last, last_id = None, -1
        for element, i in zip(state, token.tolist(), strict=True):
            if element is not last or i != last_id:  # elements that share a prompt step through it once
                last, last_id, after = element, i, self.after(element, i)
            following.append(after)
        return following


class BannedTokens(Grammar):
    """A grammar that bans some ids everywhere.

    Args:
        vocab_size: V.
        ids: the banned ones.
    """

    def __init__(self, vocab_size: int, ids: Sequence[int]) -> None:
        super().__init__(vocab_size)
        self._others = np.setdiff1d(np.arange(vocab_size), np.asarray(ids, np.int64))

    def beginning(self) -> None:
        return None

    def following(self, state: None) -> list[np.ndarray]:
        return [self._others]

    def after(self, state: None, token: int) -> None:
        return None


class LogitBias:
    """A constraint that adds a constant bias per id.

    Args:
        weights: added to the logits, (V,).
    """

    def __init__(self, weights: np.ndarray) -> None:
        self._weights = torch.from_numpy(np.asarray(weights, np.float32))[None]

    def start(self, batch: int) -> int:
        return batch

    def allow(self, state: int) -> Tensor:
        return self._weights.expand(state, -1)

    def step(self, state: int, token: Tensor) -> int:
        return state
