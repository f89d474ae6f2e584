"""Pieces as crops of tokens: random and class-balanced for training, spread over the whole piece for predictions.

B batch, T tokens, F features.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data.augment import TEMPI, TRANSPOSITIONS, Augmenter
from ..tokenizers.base import Tokenizer

BATCH = 16  # crops in one forward pass of a prediction or a validation


class Crop(NamedTuple):
    """Ids (T,) and their input features (T, F), int64 each."""

    ids: np.ndarray
    features: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class TagBatch:
    """Crops, padded behind their ends.

    Attributes:
        tokens: (B, T) int64.
        features: (B, T, F) int64, or None if the tokenizer has none.
        mask: (B, T) bool, False for padding.
        targets: numbers of the labels, (B,) int64; empty for predictions.
    """

    tokens: Tensor
    features: Tensor | None
    mask: Tensor
    targets: Tensor

    def to(self, device: torch.device) -> TagBatch:
        """Return the batch on another device."""
        features = None if self.features is None else self.features.to(device)
        tokens, mask, targets = (each.to(device) for each in (self.tokens, self.mask, self.targets))
        return TagBatch(tokens=tokens, features=features, mask=mask, targets=targets)


def batch_of(crops: Sequence[Crop], targets: Sequence[int] = ()) -> TagBatch:
    """Return crops as a batch, padded to the longest."""
    sizes = [len(crop.ids) for crop in crops]
    tokens = np.zeros((len(crops), max(sizes)), np.int64)
    features = np.zeros((*tokens.shape, crops[0].features.shape[1]), np.int64)
    for i, (crop, size) in enumerate(zip(crops, sizes, strict=True)):
        tokens[i, :size], features[i, :size] = crop.ids, crop.features
    return TagBatch(
        tokens=torch.from_numpy(tokens),
        features=torch.from_numpy(features) if features.shape[2] else None,
        mask=torch.arange(tokens.shape[1]) < torch.tensor(sizes)[:, None],
        targets=torch.tensor(list(targets), dtype=torch.int64),
    )


def spread_crops(ids: np.ndarray, tokenizer: Tokenizer, *, length: int, most: int) -> list[Crop]:
    """Return crops that cover a piece evenly from beginning to end, overlapping where they have to.

    Args:
        ids: of the piece, at least one.
        tokenizer: of the ids.
        length: T, of a crop; a shorter piece is one crop.
        most: the largest number of crops; a piece that needs more has gaps between them.
    """
    return cut(ids, tokenizer, spread(len(ids), length=length, most=most))


def spread(size: int, *, length: int, most: int) -> list[tuple[int, int]]:
    """Return beginning and end of the crops of a piece of so many ids; see `spread_crops`."""
    number = min(most, max(1, math.ceil(size / length)))
    starts = np.linspace(0, max(0, size - length), number).round().astype(int).tolist()
    return [(start, min(size, start + length)) for start in starts]


def cut(ids: np.ndarray, tokenizer: Tokenizer, ranges: Sequence[tuple[int, int]]) -> list[Crop]:
    """Return the crops of a piece at some places, (first id, end) each, with the features that they have in the piece."""
    ids = np.asarray(ids, np.int64)
    features = _features(tokenizer, [ids])
    return [Crop(ids[start:stop], features[start:stop]) for start, stop in ranges]


def _features(tokenizer: Tokenizer, sequences: Sequence[np.ndarray], begins: Sequence[int] | None = None) -> np.ndarray:
    """Return the features of sequences from `begins` on, (N, F) int64; F may be 0."""
    if not tokenizer.feature_sizes:
        begins = begins or [0] * len(sequences)
        return np.zeros((sum(len(s) - b for s, b in zip(sequences, begins, strict=True)), 0), np.int64)
    return tokenizer.features_of(sequences, begins)


class LabelledCrops:
    """Batches of random crops with labels; calling it with a number gives that batch, a function of (seed, number).

    A label is sampled first, then one of its pieces, then where the crop begins. Crops are transposed; where the tokenizer
    counts seconds, half of them are up to 10 % faster or slower.

    Args:
        pieces: token ids of whole pieces.
        targets: the number of each one's label.
        tokenizer: of the ids.
        length: T.
        batch_size: B.
        seed: of everything that is sampled.
        balance: 1 samples all labels alike, 0 in proportion to their pieces.
        transpose: semitones to choose from.
    """

    def __init__(
        self,
        pieces: Sequence[np.ndarray],
        targets: Sequence[int],
        tokenizer: Tokenizer,
        *,
        length: int,
        batch_size: int,
        seed: int,
        balance: float = 1.0,
        transpose: range = TRANSPOSITIONS,
    ) -> None:
        if not pieces:
            raise ValueError("no pieces to train on")
        self.pieces, self.targets, self.tokenizer = pieces, np.asarray(targets), tokenizer
        self.length, self.batch_size, self.seed = length, batch_size, seed
        counts = np.bincount(self.targets).astype(float)
        of_label = np.where(counts > 0, np.maximum(counts, 1) ** (1 - balance), 0.0)
        chances = (of_label / np.maximum(counts, 1))[self.targets]
        self._cumulated = np.cumsum(chances) / chances.sum()
        faster = TEMPI if tokenizer.in_seconds else range(1)
        self.augmenter = Augmenter(tokenizer, pieces, transpose=transpose, faster=faster, louder=range(1))

    def __call__(self, number: int) -> TagBatch:
        """Return batch `number`, always the same."""
        rng = np.random.default_rng((self.seed, number))
        chosen = np.searchsorted(self._cumulated, rng.random(self.batch_size), side="right")
        chosen = np.minimum(chosen, len(self.pieces) - 1)
        parts = [self._part(int(i), rng) for i in chosen]
        of_ids = _features(self.tokenizer, [np.concatenate(part) for part in parts], [len(b) for b, _ in parts])
        ends = np.cumsum([len(ids) for _, ids in parts]).tolist()
        crops = [Crop(ids, of_ids[end - len(ids) : end]) for (_, ids), end in zip(parts, ends, strict=True)]
        return batch_of(crops, self.targets[chosen].tolist())

    def _part(self, i: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids in front of a random crop that its features depend on, and those of the crop."""
        piece = self.pieces[i]
        length = self.augmenter.num_ids(self.length)
        start = int(rng.integers(max(1, len(piece) - length + 1)))
        variation = self.augmenter.sample(i, rng, rng)
        ids = self.augmenter.apply(np.asarray(piece[start : start + length], np.int64), variation)[: self.length]
        lead = (self.tokenizer.feature_lead or start) if self.tokenizer.feature_sizes else 0
        before = self.augmenter.apply(np.asarray(piece[max(0, start - lead) : start], np.int64), variation)
        return before, ids
