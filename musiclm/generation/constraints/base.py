"""What every grammar does: it knows for one row at a time what may follow.

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

MAX_PLACES = 4096  # for which a grammar keeps what may follow
CLOSED = np.float32("-inf")


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
    """A rule that knows for one row at a time what may follow, by the place where the row stands.

    Places are immutable and can be compared, so that what follows from one need not be found twice. From each place that
    allowed tokens lead to, some token is allowed: what would leave no way on is closed before it. Where a prompt stops
    within a note that may not come, the note is left as it is.

    Those that `dispatch.grammar_class` returns are made as (tokenizer, not_before, limits); see `constraints`.

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
        self._rows: OrderedDict[Hashable, np.ndarray] = OrderedDict()

    @abstractmethod
    def beginning(self) -> Any:
        """Return the place before the first token."""

    @abstractmethod
    def following(self, place: Any) -> Sequence[np.ndarray | slice]:
        """Return which ids may come next, in pieces."""

    @abstractmethod
    def after(self, place: Any, token: int) -> Any:
        """Return the place behind a token."""

    def closed(self, place: Any) -> Sequence[int] | np.ndarray:
        """Return which ids may not come next, though they are among those that `following` returns."""
        return ()

    def seen(self, place: Any) -> Hashable:
        """Return what of a place decides what may follow: a number where that is the kind of the last token alone."""
        return place

    def alike(self, token: int) -> int:
        """Return an id that may come wherever this one may, and leads to the same places: one for all that are alike."""
        return token

    def row(self, place: Any) -> np.ndarray:
        """Return what to add to the logits, (V,) float32: 0 for what may come, else -inf. Not to be written to."""
        key = self.seen(place)
        row = self._rows.get(key)
        if row is None:
            row = np.full(self.vocab_size, CLOSED)
            for ids in self.following(place):
                row[ids] = 0.0
            closed = self.closed(place)
            if len(closed):
                row[closed] = CLOSED
            self._rows[key] = row
            if len(self._rows) > MAX_PLACES:
                self._rows.popitem(last=False)
        return row

    def allowed(self, place: Any) -> np.ndarray:
        """Return which ids may come next, (V,) booleans."""
        return self.row(place) == 0

    def start(self, batch: int) -> list[Any]:
        return [self.beginning()] * batch

    def allow(self, state: list[Any]) -> Tensor:
        allowed = torch.empty(len(state), self.vocab_size)
        rows = allowed.numpy()
        for i, place in enumerate(state):
            rows[i] = self.row(place)
        return allowed

    def step(self, state: list[Any], token: Tensor) -> list[Any]:
        behind: list[Any] = []
        last, last_id = None, -1
        for place, i in zip(state, token.tolist(), strict=True):
            if place is not last or i != last_id:  # rows that share a prompt walk through it as one
                last, last_id, after = place, i, self.after(place, i)
            behind.append(after)
        return behind


class BannedTokens(Grammar):
    """Some ids never come."""

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
    """The same for each token, wherever it comes: a rule that weighs ids and never changes its mind.

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
