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
    """What new music of a tokenizer is limited to.

    Attributes:
        permitted: which ids may come, (V,) booleans. Where the tempo, time signature or program that holds is not
            permitted, it has to change before a note begins.
        max_polyphony: how many notes may sound at once, drums excepted; None for any number.
    """

    permitted: np.ndarray
    max_polyphony: int | None = None


class Grammar(ABC):
    """A constraint that tracks the state of each batch element separately and derives a logit mask from it.

    States, called places, are immutable and hashable, so masks are cached by place. Invariant: from each place that allowed
    tokens lead to, some token is allowed; a token that would lead to a dead end is banned before it. Where a prompt stops
    within a note that is banned, the note is completed.

    Subclasses that `dispatch.grammar_class` returns are constructed with (tokenizer, not_before, limits).

    Args:
        vocab_size: V.

    Attributes:
        follows_notes: whether it can hold limits on the ids that may come; else only a tempo can be asked for, of the score.
        counts_notes: whether it can hold a maximal polyphony.
    """

    follows_notes: ClassVar[bool] = True
    counts_notes: ClassVar[bool] = True

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self._masks: OrderedDict[Hashable, np.ndarray] = OrderedDict()

    @abstractmethod
    def beginning(self) -> Any:
        """Return the place before the first token."""

    @abstractmethod
    def following(self, place: Any) -> Sequence[np.ndarray | slice]:
        """Return the ids that may come next, as several index arrays or slices."""

    @abstractmethod
    def after(self, place: Any, token: int) -> Any:
        """Return the place after a token."""

    def banned(self, place: Any) -> Sequence[int] | np.ndarray:
        """Return the ids that may not come next although `following` returns them."""
        return ()

    def cache_key(self, place: Any) -> Hashable:
        """Return the part of a place that determines the mask; an int where the kind of the last token alone does."""
        return place

    def alike(self, token: int) -> int:
        """Return a representative of all ids that are allowed at the same places as this one and lead to the same places."""
        return token

    def mask(self, place: Any) -> np.ndarray:
        """Return the logit mask of a place, (V,) float32: 0 for allowed ids, else -inf. Read-only: it is cached."""
        key = self.cache_key(place)
        mask = self._masks.get(key)
        if mask is None:
            mask = np.full(self.vocab_size, BANNED)
            for ids in self.following(place):
                mask[ids] = 0.0
            banned = self.banned(place)
            if len(banned):
                mask[banned] = BANNED
            self._masks[key] = mask
            if len(self._masks) > MAX_CACHED:
                self._masks.popitem(last=False)
        return mask

    def allowed(self, place: Any) -> np.ndarray:
        """Return which ids may come next, (V,) booleans."""
        return self.mask(place) == 0

    def start(self, batch: int) -> list[Any]:
        return [self.beginning()] * batch

    def allow(self, state: list[Any]) -> Tensor:
        allowed = torch.empty(len(state), self.vocab_size)
        rows = allowed.numpy()
        for i, place in enumerate(state):
            rows[i] = self.mask(place)
        return allowed

    def step(self, state: list[Any], token: Tensor) -> list[Any]:
        following: list[Any] = []
        last, last_id = None, -1
        for place, i in zip(state, token.tolist(), strict=True):
            if place is not last or i != last_id:  # elements that share a prompt step through it once
                last, last_id, after = place, i, self.after(place, i)
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

    def following(self, place: None) -> list[np.ndarray]:
        return [self._others]

    def after(self, place: None, token: int) -> None:
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
