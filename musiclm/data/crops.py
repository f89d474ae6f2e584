"""Random crops of pieces as training batches. A batch is a pure function of its number, so a resumed run sees the same ones.

B batch, T tokens, F features.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..tokenizers.base import Tokenizer, tells_kinds
from .augment import TEMPI, TRANSPOSITIONS, VELOCITIES, Augmenter, Pitches
from .store import StoredTokens

IGNORE = -100  # target id that the loss ignores
ENDS = (
    0.1  # crops that begin, and that end, with their piece for each other one, where the kinds of the pieces are known
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """Input tokens, target tokens and input features.

    Attributes:
        tokens: (B, T) int64.
        targets: (B, T) int64, the token after each; `IGNORE` where it is no target, as behind the end of a piece.
        features: (B, T, F) int64, or None if the tokenizer has none.
        begins: (B,) bool, the elements that begin a piece, where the others continue their crop of the batch before;
            None for crops by themselves.
        source: (B, S) int64, of sequence-to-sequence models what is given; None for others. See `PairCrops`.
        source_features: (B, S, F) int64, or None.
        source_mask: (B, S) bool, True for ids of the source and False for padding; None without a source.
    """

    tokens: Tensor
    targets: Tensor
    features: Tensor | None
    begins: Tensor | None = None
    source: Tensor | None = None
    source_features: Tensor | None = None
    source_mask: Tensor | None = None

    @property
    def mask(self) -> Tensor:
        """The loss mask, (B, T) bool."""
        return self.targets != IGNORE

    @property
    def num_tokens(self) -> int:
        """The number of targets."""
        return int(self.mask.sum())

    def to(self, device: torch.device) -> Batch:
        """Return the batch on another device; the copy of a pinned batch to a GPU does not wait."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=device.type == "cuda"))

    def elements(self, chosen: slice) -> Batch:
        """Return some elements of the batch."""
        return self._each(lambda tensor: tensor[chosen])

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory, from which copies to a GPU are asynchronous."""
        return self._each(Tensor.pin_memory)

    def _each(self, function: Callable[[Tensor], Tensor]) -> Batch:
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return dataclasses.replace(self, **{k: function(each) for k, each in fields.items() if each is not None})


class _Crop(NamedTuple):
    """One batch element before padding.

    Attributes:
        ids: (at most T + 1,) token ids.
        is_target: (at most T,) the loss mask of the ids behind the first, or None if all of them are targets.
        before: ids in front of the crop that its features depend on.
    """

    ids: np.ndarray
    is_target: np.ndarray | None
    before: np.ndarray


class RandomCrops:
    """Batches of random crops of pieces; calling it with a number gives that batch.

    A batch is a pure function of (seed, number).

    Crops start uniformly at random. The first and last crop of a piece are oversampled (each counts as length / 4 extra start
    positions), since uniform sampling would almost never select them. Where the tokenizer tells kinds of music
    (`Tokenizer.kind_of`), beginnings are sampled by kind: each kind has as large a share of them as of all tokens, and its
    pieces share it evenly, so that many short pieces of one kind do not have most beginnings. Features are those of the
    position in the piece; what is said about the whole piece is sometimes unknown, see `Tokenizer.with_unknown`.

    Each crop is augmented, see `Augmenter`. Where a tokenizer has permutations of a piece (`Tokenizer.rearranged`), a share
    `p_rearrange` of the crops is taken from random ones.

    Args:
        pieces: token ids of whole pieces.
        tokenizer: for augmentation and features.
        length: T, of a crop; shorter pieces are padded.
        batch_size: B.
        seed: of everything that is sampled.
        transpose: see `Augmenter`, as `faster`, `louder` and `pitches`.
        weights: sampling weight of each piece, beside its length; all alike if left out.

    Attributes:
        tokens_an_epoch: targets of all pieces.
        tokens_a_batch: the expected targets of a batch; fewer than B T where pieces are shorter than T.
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
        if not pieces:
            raise ValueError("no pieces to train on")
        self.pieces, self.tokenizer = pieces, tokenizer
        self.length, self.batch_size, self.seed = length, batch_size, seed
        sizes = lengths_of(pieces) - 1
        self.tokens_an_epoch = int(sizes.sum())
        by_weight = np.ones(len(pieces)) if weights is None else np.asarray(weights, float)
        kinds = kinds_of(pieces, tokenizer)
        margin = length // 4 * (sizes > length)
        if kinds.any():
            positions, beginnings = sizes.astype(float), ends_by_kind(kinds, by_weight, sizes)
            endings = np.maximum(beginnings * (sizes > length), margin)
        else:
            positions, beginnings, endings = np.maximum(sizes, length).astype(float), margin, margin
        chances = by_weight * (positions + beginnings + endings)
        self._beginnings, self._endings = beginnings.astype(np.int64), endings.astype(np.int64)
        self._cumulated = np.cumsum(chances) / chances.sum()
        self.tokens_a_batch = batch_size * float(np.minimum(sizes, length) @ chances / chances.sum())
        self.augmenter = Augmenter(
            tokenizer, pieces, transpose=transpose, faster=faster, louder=louder, pitches=pitches
        )

    def __call__(self, number: int, elements: slice = slice(None)) -> Batch:
        """Return batch `number`, always the same, or some elements of it."""
        rng = np.random.default_rng((self.seed, number))
        augment_rng = np.random.default_rng((self.seed, number, 1))  # so that tempo and velocity change no crop
        permutation_rng = np.random.default_rng((self.seed, number, 2))
        unknown_rng = np.random.default_rng((self.seed, number, 3))
        crops = [self._crop(rng, augment_rng, permutation_rng, unknown_rng) for _ in range(self.batch_size)][elements]
        tokens = np.zeros((len(crops), self.length), np.int64)
        targets = np.full((len(crops), self.length), IGNORE, np.int64)
        for i, crop in enumerate(crops):
            size = len(crop.ids) - 1
            tokens[i, :size], targets[i, :size] = crop.ids[:-1], crop.ids[1:]
            if crop.is_target is not None:
                targets[i, :size][~crop.is_target] = IGNORE
        features = self._features(crops) if self.tokenizer.feature_sizes else None
        return Batch(tokens=torch.from_numpy(tokens), targets=torch.from_numpy(targets), features=features)

    def _crop(
        self,
        rng: np.random.Generator,
        augment_rng: np.random.Generator,
        permutation_rng: np.random.Generator,
        unknown_rng: np.random.Generator,
    ) -> _Crop:
        """Return a random crop of a random piece.

        Args:
            rng: samples the piece, the start and the transposition.
            augment_rng: samples tempo and velocity.
            permutation_rng: samples the permutation.
            unknown_rng: samples what is unknown.
        """
        i = min(int(np.searchsorted(self._cumulated, rng.random(), side="right")), len(self.pieces) - 1)
        piece, permutation = self.pieces[i], sample_permutation(self.tokenizer, permutation_rng)
        if permutation:
            piece = self.tokenizer.rearranged(np.asarray(piece, np.int64), permutation)
        piece = self.tokenizer.with_unknown(piece, unknown_rng)
        start, last = 0, len(piece) - 1 - self.length
        if last > 0:
            start = int(rng.integers(-int(self._beginnings[i]), last + int(self._endings[i]) + 1))
            start = min(max(start, 0), last)
        variation = self.augmenter.sample(i, rng, augment_rng)
        stop = start + self.augmenter.num_ids(self.length + 1)
        ids = self.augmenter.apply(piece[start:stop], variation)[: self.length + 1]
        is_target = self.tokenizer.loss_mask(piece)[start + 1 : start + len(ids)] if permutation else None
        lead = self.tokenizer.feature_lead or start
        before = self.augmenter.apply(piece[max(0, start - lead) : start], variation)
        return _Crop(ids, is_target, before)

    def _features(self, crops: Sequence[_Crop]) -> Tensor:
        """Return the features of crops, (B, T, F) int64, 0 behind the end of a piece."""
        read = [np.concatenate([crop.before, crop.ids[:-1]]) for crop in crops]
        of_ids = self.tokenizer.features_of(read, [len(crop.before) for crop in crops])
        features = np.zeros((len(crops), self.length, of_ids.shape[1]), np.int64)
        end = 0
        for i, crop in enumerate(crops):
            begin, end = end, end + len(crop.ids) - 1
            features[i, : end - begin] = of_ids[begin:end]
        return torch.from_numpy(features)


def lengths_of(pieces: Sequence[np.ndarray]) -> np.ndarray:
    """Return the length of each piece in ids, (pieces,) int64; those of a store without reading it."""
    if isinstance(pieces, StoredTokens):
        return pieces.lengths
    return np.fromiter((len(piece) for piece in pieces), np.int64, len(pieces))


def kinds_of(pieces: Sequence[np.ndarray], tokenizer: Tokenizer) -> np.ndarray:
    """Return the kind of music of each piece, (pieces,); those that a store has without reading its ids."""
    if isinstance(pieces, StoredTokens) and pieces.kinds is not None:
        return pieces.kinds
    if not tells_kinds(tokenizer):
        return np.zeros(len(pieces), np.int64)
    return np.fromiter((tokenizer.kind_of(piece) for piece in pieces), np.int64, len(pieces))


def sample_permutation(tokenizer: Tokenizer, rng: np.random.Generator) -> int:
    """Return the number of a permutation of a piece, 0 for none; takes no random number if there is only one."""
    num = tokenizer.num_rearrangements
    return int(rng.integers(num)) if num > 1 and rng.random() < tokenizer.p_rearrange else 0


def ends_by_kind(kinds: np.ndarray, weights: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return for how many further positions the beginning, or the end, of each piece counts, (pieces,) float.

    Times the weights they sum to `ENDS` times the tokens of each kind, evenly over its pieces.

    Args:
        kinds: of each piece, (pieces,).
        weights: sampling weight of each piece.
        sizes: tokens of each piece.
    """
    of_kind = np.unique(kinds, return_inverse=True)[1]
    tokens, pieces = np.bincount(of_kind, weights * sizes), np.bincount(of_kind)
    return (ENDS * tokens / pieces)[of_kind] / np.maximum(weights, 1e-9)
