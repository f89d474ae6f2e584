"""An n-gram model of token ids with interpolated modified Kneser-Ney smoothing (Chen and Goodman 1999).

It is a baseline for networks. Counting sorts with numpy: 2 million tokens take 0.7 s on one core. This is own code because
no maintained Python library does it for integers: nltk.lm has a single discount that is given by hand, and looks n-grams
up in dictionaries one at a time; KenLM estimates by a compiled command, from text.

For a context h and the next token w, from the highest order down:

    p(w | h) = max(0, c(h w) - D(c(h w))) / sum_v c(h v)  +  g(h) p(w | h without its first token)

c is the count at the highest order; below it, the number of different tokens that precede the n-gram (for an n-gram at
the beginning of a piece: its count). D(1), D(2), D(3 and more) follow from the numbers n1 to n4 of n-grams with the counts
1 to 4: Y = n1 / (n1 + 2 n2), D(i) = i - (i + 1) Y n(i+1) / n(i). g(h) is the discounted probability mass of h, so that the
sum over w is 1. Below the unigram is the uniform distribution. An unseen context backs off to the shorter one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

FALLBACK = (0.5, 1.0, 1.5)  # discounts where they cannot be estimated, as on a corpus of a few tokens


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Order:
    """The n-grams of one length, sorted; each is identified by its index.

    Attributes:
        keys: (G,) index of the n-gram without its last token, among those one shorter, times V, plus its last token.
        counts: (G,) c in the formula.
        totals: (C,) of each context, the sum of its counts; 0 if no token follows it.
        left: (C,) of each context, g(h).
        discounts: D(0), D(1), D(2), D(3).
    """

    keys: np.ndarray
    counts: np.ndarray
    totals: np.ndarray
    left: np.ndarray
    discounts: np.ndarray

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Return the indices of keys, -1 for an unknown or negative key."""
        if not len(self.keys):
            return np.full(len(keys), -1)
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[place] == keys, place, -1)


class NGram:
    """A model of each token given the `order` - 1 tokens before it in its piece.

    Args:
        pieces: ids of whole pieces. The first id of each, bos, is context only.
        vocab_size: ids are 0 … vocab_size - 1.
        order: 1 for unigrams.

    Raises:
        ValueError: an order below 1, or no piece of two tokens.
    """

    def __init__(self, pieces: Sequence[np.ndarray], vocab_size: int, order: int = 5) -> None:
        if order < 1:
            raise ValueError(f"the order must be at least 1, not {order}")
        pieces = [np.asarray(piece) for piece in pieces if len(piece) > 1]
        if not pieces:
            raise ValueError("no pieces to count")
        self.vocab_size, self.order = vocab_size, order
        self.num_tokens = sum(len(piece) - 1 for piece in pieces)
        ids = np.concatenate(pieces).astype(np.int64)
        place = np.concatenate([np.arange(len(piece)) for piece in pieces])
        self._orders: list[_Order] = []
        keys: list[np.ndarray] = []
        counts: list[np.ndarray] = []
        shorter = np.zeros(len(ids), np.int64)  # index of the n-gram that ends with each token
        for length in range(1, order + 1):
            context = np.append(0, shorter[:-1]) if length > 1 else shorter
            inside = place >= length - 1
            if not inside.any():  # no piece is that long
                break
            found, inverse = np.unique(context[inside] * vocab_size + ids[inside], return_inverse=True)
            here = np.full(len(ids), -1)
            here[inside] = inverse
            is_counted = inside & (place > 0)
            if length > 1:  # the n-grams one shorter count the different tokens before them
                suffix = np.zeros(len(found), np.int64)
                suffix[inverse] = shorter[inside]
                begins = np.bincount(shorter[place == length - 2], minlength=len(keys[-1])) if length > 2 else 0
                counts[-1] = np.bincount(suffix, minlength=len(keys[-1])) + begins
            keys.append(found)
            counts.append(np.bincount(here[is_counted], minlength=len(found)))
            shorter = here
        num_contexts = 1
        for found, counted in zip(keys, counts, strict=True):
            self._orders.append(_order(found, counted, found // vocab_size, num_contexts))
            num_contexts = len(found)

    def nats(self, ids: np.ndarray) -> np.ndarray:
        """Return the loss -ln p of each token of a piece but the first, (T - 1,) float64."""
        ids = np.asarray(ids, dtype=np.int64)
        tokens = ids[1:]
        p = np.full(len(tokens), 1 / self.vocab_size)
        context = np.zeros(len(tokens), np.int64)  # the one context of length 0
        for length, order in enumerate(self._orders, 1):
            place = order.find(np.where(context >= 0, context * self.vocab_size + tokens, -1))
            p = _interpolated(order, context, np.where(place >= 0, order.counts[place], 0), p)
            if length < len(self._orders):
                context = self._ending(ids, length)[:-1]
        return -np.log(p)

    def probabilities(self, context: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the distribution of the next token after the first ids of a piece, (V,) float64."""
        ids = np.asarray(context, dtype=np.int64)
        p = np.full(self.vocab_size, 1 / self.vocab_size)
        for length, order in enumerate(self._orders, 1):
            if length - 1 > len(ids):
                break
            at = int(self._ending(ids, length - 1)[-1]) if length > 1 else 0
            if at < 0:
                break
            first, last = np.searchsorted(order.keys, [at * self.vocab_size, (at + 1) * self.vocab_size])
            counts = np.zeros(self.vocab_size, np.int64)
            counts[order.keys[first:last] % self.vocab_size] = order.counts[first:last]
            p = _interpolated(order, np.full(self.vocab_size, at), counts, p)
        return p

    def _ending(self, ids: np.ndarray, length: int) -> np.ndarray:
        """Return the index of the n-gram that ends with each token, (T,); -1 if it is unknown or would begin before."""
        here = np.zeros(len(ids), np.int64)
        for order in self._orders[:length]:
            context = np.append(-1, here[:-1]) if order is not self._orders[0] else here
            here = order.find(np.where(context >= 0, context * self.vocab_size + ids, -1))
        return here


def _order(keys: np.ndarray, counts: np.ndarray, context: np.ndarray, num_contexts: int) -> _Order:
    discounts = _discounts(counts)
    totals = np.bincount(context, weights=counts, minlength=num_contexts)
    taken = np.bincount(context, weights=discounts[np.minimum(counts, 3)], minlength=num_contexts)
    left = np.divide(taken, totals, out=np.ones(num_contexts), where=totals > 0)
    return _Order(keys=keys, counts=counts, totals=totals, left=left, discounts=discounts)


def _discounts(counts: np.ndarray) -> np.ndarray:
    """Return D(0), D(1), D(2), D(3 and more); `FALLBACK` if they cannot be estimated."""
    n = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].astype(float)
    if (n > 0).all():
        y = n[0] / (n[0] + 2 * n[1])
        estimated = [i - (i + 1) * y * n[i] / n[i - 1] for i in (1, 2, 3)]
        if all(0 < d <= i for i, d in enumerate(estimated, 1)):
            return np.array([0.0, *estimated])
    return np.array([0.0, *FALLBACK])


def _interpolated(order: _Order, context: np.ndarray, counts: np.ndarray, shorter: np.ndarray) -> np.ndarray:
    """Return p of the formula above; that of the shorter context where this one is unknown (-1) or unseen."""
    total = np.where(context >= 0, order.totals[context], 0.0)
    own = np.divide(counts - order.discounts[np.minimum(counts, 3)], total, out=np.zeros(len(total)), where=total > 0)
    return np.where(total > 0, own + order.left[context] * shorter, shorter)
