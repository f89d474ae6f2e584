"""Contiguous crops of pieces as training batches: each batch element continues its piece from batch to batch.

A batch is a function of its number here too, but not one of constant cost: finding where each element is takes a walk
through all batches before. The walk computes no features, and continues from the last batch that was asked for.

B batch, T tokens, F features.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import torch

from ..tokenizers.base import Tokenizer
from .augment import TEMPI, TRANSPOSITIONS, VELOCITIES, Augmenter, Pitches
from .crops import IGNORE, Batch, lengths_of, sample_permutation

ORDER, PASS = 11, 12  # streams of random numbers: of the order of an epoch, and of a pass through a piece


class _Pass:
    """One pass through a piece, augmented in one way, and how far it has been read.

    Attributes:
        ids: of the whole piece.
        is_target: the loss mask of the ids behind the first, or None if all of them are targets.
        start: the first id of the crop that comes next.
    """

    def __init__(self, ids: np.ndarray, is_target: np.ndarray | None, tokenizer: Tokenizer) -> None:
        self.ids, self.is_target = ids, is_target
        self.start = 0
        self._tokenizer = tokenizer

    @cached_property
    def features(self) -> np.ndarray:
        """The features of all ids but the last, (N, F); those of the position in the piece."""
        return self._tokenizer.features_of([self.ids[:-1]])

    @property
    def is_over(self) -> bool:
        """Whether no target is left."""
        return self.start >= len(self.ids) - 1


class ContiguousCrops:
    """Batches of crops that continue those of the batch before; calling it with a number gives that batch.

    A batch is a function of (seed, number). Each epoch reads all pieces once, in a random order. A batch element reads a
    piece from its beginning to its end, `length` tokens per batch; the last crop of a piece is padded. Then it takes the
    next piece of the order, and `Batch.begins` says so: the state that it carries must be reset. Each pass through a
    piece is augmented as `RandomCrops` augments a crop, in one way from beginning to end.

    Args:
        pieces, tokenizer, length, batch_size, seed, transpose, faster, louder, pitches: see `RandomCrops`.
        weights: of each piece how often it is read, in relation to the others; all alike if left out. An epoch then reads
            about as many tokens as all pieces have, some of them several times, some not at all.

    Attributes:
        tokens_an_epoch: targets of all pieces.
        tokens_a_batch: the expected targets of a batch; fewer than B T because of the padding.
    """

    def __init__(
        self,
        pieces: Sequence[np.ndarray],
        tokenizer: Tokenizer,
        *,
        length: int,
        batch_size: int,
        seed: int,
        transpose: range = TRANSPOSITIONS,
        faster: range = TEMPI,
        louder: range = VELOCITIES,
        weights: Sequence[float] | None = None,
        pitches: Pitches | None = None,
    ) -> None:
        sizes = lengths_of(pieces) - 1
        if not sizes.any():
            raise ValueError("no pieces to train on")
        self.pieces, self.tokenizer = pieces, tokenizer
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.tokens_an_epoch = int(sizes.sum())
        self._copies: np.ndarray | None = None  # of each piece how often an epoch reads it, on average
        copies = np.ones(len(pieces))
        if weights is not None:
            by_weight = np.asarray(weights, float)
            self._copies = copies = by_weight * sizes.sum() / (by_weight @ sizes)
        self.tokens_a_batch = batch_size * float(copies @ sizes / (copies @ -(-sizes // length)))
        self.augmenter = Augmenter(
            tokenizer, pieces, transpose=transpose, faster=faster, louder=louder, pitches=pitches
        )
        self._restart()

    def __call__(self, number: int, elements: slice = slice(None)) -> Batch:
        """Return batch `number`, always the same, or some elements of it."""
        if number < self._number:
            self._restart()
        while self._number < number:
            self._advance()
        return self._batch(elements)

    def _restart(self) -> None:
        """Go back to batch 0."""
        self._number = 0
        self._order = enumerate(self._pieces_in_order())
        self._elements = [self._next_pass() for _ in range(self.batch_size)]

    def _advance(self) -> None:
        """Advance to the next batch."""
        self._number += 1
        for i, reading in enumerate(self._elements):
            reading.start += self.length
            if reading.is_over:
                self._elements[i] = self._next_pass()

    def _pieces_in_order(self) -> Iterator[int]:
        """Yield the piece of each pass, epoch by epoch, without an end."""
        each = np.arange(len(self.pieces))
        offsets = np.random.default_rng((self.seed, ORDER)).random(len(each))
        for epoch in itertools.count():
            copies = np.ones(len(each), np.int64)
            if (
                self._copies is not None
            ):  # after any number of epochs each piece was read as often as it should be, +- 1
                begin, end = (np.floor(number * self._copies + offsets) for number in (epoch, epoch + 1))
                copies = (end - begin).astype(np.int64)
            rng = np.random.default_rng((self.seed, epoch, ORDER))
            yield from rng.permutation(np.repeat(each, copies)).tolist()

    def _next_pass(self) -> _Pass:
        """Return the next pass through a piece, which is a function of (seed, number of the pass)."""
        while True:
            number, i = next(self._order)
            rng = np.random.default_rng((self.seed, number, PASS))
            ids, permutation = self.pieces[i], sample_permutation(self.tokenizer, rng)
            if permutation:
                ids = self.tokenizer.rearranged(np.asarray(ids, np.int64), permutation)
            ids = self.tokenizer.with_unknown(ids, rng)
            ids = self.augmenter.apply(ids, self.augmenter.sample(i, rng, rng))
            reading = _Pass(ids, self.tokenizer.loss_mask(ids)[1:] if permutation else None, self.tokenizer)
            if not reading.is_over:
                return reading

    def _batch(self, elements: slice) -> Batch:
        """Return some elements of the batch of the crops that come next."""
        readings = self._elements[elements]
        tokens = np.zeros((len(readings), self.length), np.int64)
        targets = np.full((len(readings), self.length), IGNORE, np.int64)
        features = np.zeros((len(readings), self.length, len(self.tokenizer.feature_sizes)), np.int64)
        for i, reading in enumerate(readings):
            crop = slice(reading.start, min(reading.start + self.length, len(reading.ids) - 1))
            size = crop.stop - crop.start
            tokens[i, :size], targets[i, :size] = reading.ids[crop], reading.ids[crop.start + 1 : crop.stop + 1]
            if reading.is_target is not None:
                targets[i, :size][~reading.is_target[crop]] = IGNORE
            if features.shape[2]:
                features[i, :size] = reading.features[crop]
        return Batch(
            tokens=torch.from_numpy(tokens),
            targets=torch.from_numpy(targets),
            features=torch.from_numpy(features) if features.shape[2] else None,
            begins=torch.tensor([reading.start == 0 for reading in readings]),
        )
