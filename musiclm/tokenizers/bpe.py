"""Byte-pair encoding of ids (Gage 1994, Sennrich et al. 2016): frequent pairs of ids become ids of their own.

A tokenizer with merges has the base tokenizer's vocabulary, followed by one id for each merge in the order of learning.
Special tokens are never merged. All questions about a merged id are answered through its base ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from symusic import Score

from ..errors import TokenizerError
from .base import Tokenizer
from .vocabulary import Kind, Token, Vocabulary

MAX_TOKENS = 2_000_000  # to learn from: an even choice of the sequences; 1,000 merges then take a minute or so
MIN_COUNT = 2  # a pair that comes once is no pattern


class MergedTokenizer(Tokenizer):
    """A tokenizer that replaces frequent pairs of another tokenizer's ids by ids of their own.

    Args:
        base: any tokenizer without input features.
        merges: the pair of ids that each new id stands for, base ids or earlier merges.

    Raises:
        TokenizerError: the base's ids cannot be merged, or the merges do not fit it.
    """

    varies_by_id = False

    def __init__(self, base: Tokenizer, merges: Sequence[Sequence[int]]) -> None:
        if base.feature_sizes or isinstance(base, MergedTokenizer):
            raise TokenizerError(f"the tokenizer '{base.name}' cannot be given a BPE vocabulary")
        self.base, self.name, self.in_seconds = base, base.name, base.in_seconds
        self.bos, self.eos = base.bos, base.eos
        self.merges = [(int(left), int(right)) for left, right in merges]
        self.vocab_size = base.vocab_size + len(self.merges)
        self.expansions: list[tuple[int, ...]] = [(i,) for i in range(base.vocab_size)]
        for left, right in self.merges:
            if not (0 <= left < len(self.expansions) and 0 <= right < len(self.expansions)):
                raise TokenizerError(f"the tokenizer '{self.name}' has merges of ids that it does not have")
            self.expansions.append(self.expansions[left] + self.expansions[right])
        self._sizes = np.array([len(e) for e in self.expansions])
        self._flat = np.array([i for e in self.expansions for i in e])
        self._first = np.cumsum(self._sizes) - self._sizes
        keys = np.array([left * self.vocab_size + right for left, right in self.merges], dtype=np.int64)
        self._ranks = np.argsort(keys, kind="stable")
        self._keys = keys[self._ranks]
        self._joins = np.zeros((base.vocab_size, base.vocab_size), bool)  # can a merge span this pair of base ids
        for left, right in self.merges:
            self._joins[self.expansions[left][-1], self.expansions[right][0]] = True

    @cached_property
    def vocabulary(self) -> Vocabulary:
        merged = self.expansions[self.base.vocab_size :]
        return [*self.base.vocabulary, *(Token(Kind.MERGED, expansion) for expansion in merged)]

    @property
    def unmerged(self) -> Tokenizer:
        return self.base

    def describe(self) -> dict[str, Any]:
        return self.base.describe() | {"merges": [list(pair) for pair in self.merges]}

    def base_ids(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        ids = np.asarray(ids, dtype=np.int64)
        sizes = self._sizes[ids]
        within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return self._flat[np.repeat(self._first[ids], sizes) + within]

    def merged_ids(self, ids: np.ndarray) -> np.ndarray:
        """Return base ids merged, (T',) int64: merges apply in the order of learning, each from left to right.

        Pairs that no merge can span split the ids into independent words. Each pass applies the next merge of every word at
        once, which takes about twenty passes instead of one for each of a thousand merges.
        """
        ids = np.array(ids, dtype=np.int64)
        joined = self._joins[ids[:-1], ids[1:]]
        none = len(self.merges)
        while joined.any():
            at = np.flatnonzero(joined)
            keys = ids[at] * self.vocab_size + ids[at + 1]
            place = np.minimum(np.searchsorted(self._keys, keys), none - 1)
            ranks = np.full(len(ids), none)
            ranks[at] = np.where(self._keys[place] == keys, self._ranks[place], none)
            starts = np.flatnonzero(np.append(True, ~joined))
            lowest = np.minimum.reduceat(ranks, starts)
            if lowest.min() == none:
                break
            word = np.cumsum(np.append(False, ~joined))
            at = _leftmost(np.flatnonzero((ranks < none) & (ranks == lowest[word])))
            ids[at] = self.base.vocab_size + ranks[at]
            ids, joined = np.delete(ids, at + 1), np.delete(joined, at)
        return ids

    def encode(self, score: Score) -> tuple[np.ndarray, int]:
        ids, left_out = self.base.encode(score)
        return self.merged_ids(ids), left_out

    def unexpressed(self, score: Score) -> list[str]:
        return self.base.unexpressed(score)

    def decode(self, ids: Sequence[int] | np.ndarray) -> Score:
        return self.base.decode(self.base_ids(ids))

    def quarters(self, ids: Sequence[int] | np.ndarray) -> float:
        return self.base.quarters(self.base_ids(ids))

    def pad_with_silence(self, ids: np.ndarray, quarters: float) -> np.ndarray:
        return self.merged_ids(self.base.pad_with_silence(self.base_ids(ids), quarters))

    def without_open_bar(self, ids: np.ndarray, quarters: float) -> np.ndarray:
        return self.merged_ids(self.base.without_open_bar(self.base_ids(ids), quarters))

    def suffix_from_bar(self, ids: np.ndarray, quarters: float) -> tuple[np.ndarray, float]:
        since, start = self.base.suffix_from_bar(self.base_ids(ids), quarters)
        return (self.merged_ids(since), start) if start else (ids, 0.0)

    @property
    def is_in_time(self) -> bool:
        return self.base.is_in_time

    def num_events(self, ids: Sequence[int] | np.ndarray) -> int:
        return self.base.num_events(self.base_ids(ids))

    def transposed(self, semitones: int) -> np.ndarray:
        return self._table(self.base.transposed(semitones))

    def faster(self, steps: int) -> np.ndarray:
        return self._table(self.base.faster(steps))

    def louder(self, steps: int) -> np.ndarray:
        return self._table(self.base.louder(steps))

    def _table(self, base: np.ndarray) -> np.ndarray:
        """Return the base's table extended to merges: the id of what the base ids become, -1 if there is none."""
        known = {expansion: i for i, expansion in reversed(list(enumerate(self.expansions)))}
        moved = [known.get(tuple(base[list(expansion)].tolist()), -1) for expansion in self.expansions]
        return np.array(moved, dtype=np.int64)

    def varied(self, ids: np.ndarray, *, semitones: int = 0, faster: int = 0, louder: int = 0) -> np.ndarray | None:
        """See the base class: the base ids are varied and then merged again."""
        if not (semitones or faster or louder):
            return np.asarray(ids, dtype=np.int64)
        varied = self.base.varied(self.base_ids(ids), semitones=semitones, faster=faster, louder=louder)
        return None if varied is None else self.merged_ids(varied)


def learn_merges(base: Tokenizer, sequences: Iterable[np.ndarray], num_merges: int) -> MergedTokenizer:
    """Return a tokenizer with merges trained on ids of a base tokenizer; fewer of them where no pair occurs twice.

    The same sequences in the same order give the same merges: of equally frequent pairs the lowest ids win.

    Hugging Face's `tokenizers` (0.23.3) is up to 80 times faster (16.1 s against 1.5 s for 1,000 merges of the bundled
    chorales, 14.2 s against 0.2 s of examples/) but learns other merges: it counts a pair of equal ids at each
    position of a run, so four of them count as three pairs, of which only two can be merged. On the chorales all
    1,000 merges are equal; on the 15 files of examples/ merge 96 of the tokenizer TSD and merge 962 of `performance`
    differ (a pair of equal ids counted 12 times that can be merged 6 times).

    Args:
        base: the tokenizer that made the ids.
        sequences: ids of whole pieces. Of more than `MAX_TOKENS` every second, third, … piece is read.
        num_merges: the largest number of merges.

    Raises:
        ValueError: `num_merges` is below 1.
        TokenizerError: the ids of the base cannot be merged.
    """
    if num_merges < 1:
        raise ValueError(f"num_merges must be at least 1, not {num_merges}")
    is_special = ~base.eval_mask(np.arange(base.vocab_size))
    ids = np.concatenate([np.where(is_special[s], -1, s) for s in _some(sequences)] or [np.zeros(0, np.int64)])
    merges: list[tuple[int, int]] = []
    for _ in range(num_merges):
        size = base.vocab_size + len(merges)
        is_pair = (ids[:-1] >= 0) & (ids[1:] >= 0)
        alike = ids[:-1] == ids[1:]
        at = np.append(np.flatnonzero(is_pair & ~alike), _leftmost(np.flatnonzero(is_pair & alike)))
        counted = np.bincount(ids[at] * size + ids[at + 1], minlength=1)
        best = int(counted.argmax())
        if counted[best] < MIN_COUNT:
            break
        merges.append((best // size, best % size))
        at = _leftmost(np.flatnonzero((ids[:-1] == best // size) & (ids[1:] == best % size)))
        ids[at] = size
        ids = np.delete(ids, at + 1)
    return MergedTokenizer(base, merges)


def _some(sequences: Iterable[np.ndarray]) -> list[np.ndarray]:
    """Return evenly spaced sequences with at most `MAX_TOKENS` tokens, but at least one, in constant memory."""
    chosen: list[np.ndarray] = []
    every, total = 1, 0
    for number, sequence in enumerate(sequences):
        if number % every:
            continue
        chosen.append(np.asarray(sequence, dtype=np.int64))
        total += len(sequence)
        while total > MAX_TOKENS and len(chosen) > 1:
            chosen, every = chosen[::2], 2 * every
            total = sum(map(len, chosen))
    return chosen


def _leftmost(at: np.ndarray) -> np.ndarray:
    """Return the starts of pairs without those that overlap the pair before: of a run every second one."""
    number = np.arange(len(at))
    opens = np.append(True, np.diff(at) > 1)[: len(at)]
    run_start = np.maximum.accumulate(np.where(opens, number, 0))
    return at[(number - run_start) % 2 == 0]
