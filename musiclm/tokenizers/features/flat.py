"""Array operations over sequences laid end to end, for features of many crops at once.

N tokens of all sequences, E events among them. An event is a token that satisfies a condition. What is computed at a token
depends on the tokens of the same sequence up to and including it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class Flat:
    """Sequences laid end to end.

    Attributes:
        ids: (N,) int64.
        sequence: (N,) which sequence each token belongs to.
        first: (N,) the index of the first token of that sequence.
        index: (N,) 0 … N - 1.
        slices: where each sequence is.
    """

    def __init__(self, sequences: Sequence[np.ndarray]) -> None:
        sizes = np.array([len(s) for s in sequences], np.int64)
        self.ids = np.concatenate([np.asarray(s, np.int64) for s in sequences] or [np.zeros(0, np.int64)])
        self.sequence = np.repeat(np.arange(len(sizes)), sizes)
        self.first = np.repeat(np.cumsum(sizes) - sizes, sizes)
        self.index = np.arange(len(self.ids))
        ends = np.cumsum(sizes).tolist()
        self.slices = [slice(end - size, end) for end, size in zip(ends, sizes.tolist(), strict=True)]

    def running_sum(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of values, (N,), from the beginning of the sequence up to and including each token."""
        sums = np.cumsum(values)
        return sums - (sums - values)[self.first]


class Latest:
    """The latest events at each token.

    Args:
        is_event: (N,) booleans.
        first: (N,) the index of the first token of each token's sequence.

    Attributes:
        at: (E,) indices of the events.
        num: (N,) how many events the sequence has had at each token.
    """

    def __init__(self, is_event: np.ndarray, first: np.ndarray) -> None:
        self.at = np.flatnonzero(is_event)
        count = np.cumsum(is_event)
        self.num = count - (count - is_event)[first]
        self._last = count
        self._places: dict[int, np.ndarray] = {}

    def place(self, back: int = 0) -> np.ndarray:
        """Return the number, counted from 1, of the event `back` events before the latest, (N,); 0 where there is none."""
        if back not in self._places:
            self._places[back] = np.where(self.num > back, self._last - back, 0)
        return self._places[back]

    def value(self, of_events: np.ndarray, back: int = 0, missing: int = 0) -> np.ndarray:
        """Return the value, of (E,), of the event `back` events before the latest, (N,); `missing` where there is none."""
        return np.concatenate(([missing], of_events))[self.place(back)]


class Grouped:
    """Items by key: how many of its key each token has seen, and the items of a key in their order.

    Args:
        keys: (N,) of each token, non-negative int64; distinct between sequences.
        is_item: (N,) booleans, which tokens are items.
        ids: (N,) the items' values.

    Attributes:
        keys: (G,) the different keys, rising.
        group: (N,) the index of each token's key in these.
        seen: (N,) items of the token's key up to and including the token.
    """

    def __init__(self, keys: np.ndarray, is_item: np.ndarray, ids: np.ndarray) -> None:
        is_sorted = bool((keys[1:] >= keys[:-1]).all())  # music in the order of time mostly is
        order = slice(None) if is_sorted else np.argsort(keys, kind="stable")
        keys, is_item = keys[order], is_item[order]
        starts = np.append(True, keys[1:] != keys[:-1])[: len(keys)]
        count = np.cumsum(is_item)
        before = (count - is_item)[starts]
        group = np.cumsum(starts) - 1
        self.keys = keys[starts]
        self.group, self.seen = np.empty_like(group), np.empty_like(count)
        self.group[order], self.seen[order] = group, count - before[group]
        self._items = np.append(ids[order][is_item], 0)
        self._begin = before
        self._size = np.diff(np.append(before, count[-1:])) if len(keys) else before

    def find(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where the items of each of some keys begin, and how many there are: 0 for a key that is not there."""
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return self._begin[at], np.where(self.keys[at] == keys, self._size[at], 0)

    def following(self, keys: np.ndarray) -> np.ndarray:
        """Return the lowest key of all above each of some keys; -1 where there is none."""
        at = np.searchsorted(self.keys, keys, side="right")
        return np.append(self.keys, -1)[at]

    def item(self, begin: np.ndarray, size: np.ndarray, number: np.ndarray, other: np.ndarray | int) -> np.ndarray:
        """Return item `number` of groups found by `find`; `other` where a group has no such item."""
        has = number < size
        return np.where(has, self._items[np.where(has, begin + number, 0)], other)
