"""Random crops of pairs as training batches for sequence-to-sequence models. A batch is a pure function of its number.

A crop is the same bars of both sides of a pair, see `tokenizers.score_pairs`. B batch, S and T tokens, F features, M bars.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..tokenizers.score_pairs import Pair, ScorePairs
from .augment import TEMPI, TRANSPOSITIONS, VELOCITIES, Augmenter, Pitches
from .crops import IGNORE, Batch, ends_by_kind, kinds_of

MAX_BARS = 32  # of a crop


class _Place(NamedTuple):
    """Where a pair is in a piece: begin, middle and end in ids; and the number of its bars."""

    begin: int
    middle: int
    end: int
    num_bars: int


class PairCrops:
    """Batches of random crops of pairs; calling it with a number gives that batch.

    A batch is a pure function of (seed, number).

    A piece is sampled by its weight and the size of its targets, then one of its pairs, then a bar line where the crop begins.
    A crop has as many bars as fit, `MAX_BARS` at most. Beginnings and ends of pieces are oversampled as in `RandomCrops`.
    Both sides are augmented alike, see `Augmenter`; what is said about the whole piece is sometimes unknown, on each side by
    itself, see `Tokenizer.with_unknown`.

    Args:
        pieces: token ids of whole pieces.
        tokenizer: for pairs, augmentation and features.
        length: the most ids that a side of a crop may have; in a crop of one bar what goes beyond is cut.
        batch_size: B.
        seed: of everything that is sampled.
        transpose: see `Augmenter`, as `faster`, `louder` and `pitches`.
        weights: sampling weight of each piece, beside its size; all alike if left out.
        joined: for decoder-only models: see `batch_of`.

    Attributes:
        tokens_an_epoch: targets of all pairs.
        tokens_a_batch: about how many targets a batch has.

    Raises:
        ValueError: there are no pieces, or no pairs in them.
    """

    def __init__(
        self,
        pieces: Sequence[np.ndarray],
        tokenizer: ScorePairs,
        *,
        length: int,
        batch_size: int,
        seed: int,
        transpose: range = TRANSPOSITIONS,
        faster: range = TEMPI,
        louder: range = VELOCITIES,
        weights: Sequence[float] | None = None,
        pitches: Pitches | None = None,
        joined: bool = False,
    ) -> None:
        if not pieces:
            raise ValueError("no pieces to train on")
        self.pieces, self.tokenizer, self.joined = pieces, tokenizer, joined
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self._places = [_places(piece, tokenizer) for piece in pieces]
        targets = [[place.end - place.middle - 1 for place in places] for places in self._places]
        sizes = np.array([sum(each) for each in targets], np.int64)
        if not sizes.any():
            raise ValueError("no pairs in the pieces to train on: build the corpus with the tokenizer 'score-pairs'")
        self.tokens_an_epoch = int(sizes.sum())
        by_weight = np.ones(len(pieces)) if weights is None else np.asarray(weights, float)
        beginnings, endings = self._ends(sizes, by_weight)
        has_pairs = sizes > 0
        positions = np.maximum(sizes, length).astype(float)
        chances = by_weight * (positions + beginnings + endings) * has_pairs
        self._p_begin, self._p_end = (ends / (positions + beginnings + endings) for ends in (beginnings, endings))
        self._cumulated = np.cumsum(chances) / chances.sum()
        expected = [_expected(places, length) for places in self._places]
        self.tokens_a_batch = batch_size * float(expected @ chances / chances.sum())
        self.augmenter = Augmenter(
            tokenizer, pieces, transpose=transpose, faster=faster, louder=louder, pitches=pitches
        )

    def _ends(self, sizes: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return for how many further positions beginning and end of each piece count, (pieces,) each."""
        kinds = kinds_of(self.pieces, self.tokenizer)
        margin = (self.length // 4 * (sizes > self.length)).astype(float)
        if not kinds.any():
            return margin, margin
        beginnings = ends_by_kind(kinds, weights, sizes)
        return beginnings, np.maximum(beginnings * (sizes > self.length), margin)

    def __call__(self, number: int, elements: slice = slice(None)) -> Batch:
        """Return batch `number`, always the same, or some elements of it."""
        rngs = [np.random.default_rng((self.seed, number, *stream)) for stream in ((), (1,), (3,), (4,))]
        pairs = [self._crop(*rngs) for _ in range(self.batch_size)][elements]
        return batch_of(pairs, self.tokenizer, joined=self.joined)

    def _crop(
        self,
        rng: np.random.Generator,
        augment_rng: np.random.Generator,
        source_rng: np.random.Generator,
        target_rng: np.random.Generator,
    ) -> Pair:
        """Return a random crop of a random pair.

        Args:
            rng: samples piece, pair, place and transposition.
            augment_rng: samples tempo and velocity.
            source_rng: samples what is unknown in the source.
            target_rng: samples it in the target.
        """
        i = min(int(np.searchsorted(self._cumulated, rng.random(), side="right")), len(self.pieces) - 1)
        place = self._places[i][int(rng.integers(len(self._places[i])))]
        crops = _Bars(_pair(self.pieces[i], place), self.tokenizer, self.length, MAX_BARS)
        last = crops.last_first()
        where, first = rng.random(), int(rng.integers(last + 1))
        if where < self._p_begin[i]:
            first = 0
        elif where < self._p_begin[i] + self._p_end[i]:
            first = last
        source, target = crops.crop(first, crops.stop(first))
        variation = self.augmenter.sample(i, rng, augment_rng)
        both = self.augmenter.apply(np.concatenate([source, target]), variation)  # both sides or none
        sides = both[: len(source)], both[len(source) :]
        unknown = zip(sides, (source_rng, target_rng), strict=True)
        return Pair(*(self.tokenizer.with_unknown(side, of_side) for side, of_side in unknown))


def windows(piece: np.ndarray, tokenizer: ScorePairs, *, length: int, max_bars: int = MAX_BARS) -> list[Pair]:
    """Return the consecutive crops of all pairs of a piece, neither augmented nor with anything unknown, for evaluation.

    Args:
        piece: its ids.
        tokenizer: of the ids.
        length: the most ids of a side.
        max_bars: of a crop.
    """
    found = []
    for place in _places(piece, tokenizer):
        crops = _Bars(_pair(piece, place), tokenizer, length, max_bars)
        first = 0
        while first < place.num_bars:
            stop = crops.stop(first)
            found.append(crops.crop(first, stop))
            first = stop
    return found


def batch_of(pairs: Sequence[Pair], tokenizer: ScorePairs, joined: bool = False) -> Batch:
    """Return a batch of pairs, as long as the longest of them.

    Args:
        pairs: B of them, both sides of each with BOS.
        tokenizer: of their ids.
        joined: whether `tokens` are source and target behind each other, as decoder-only models read them, and there is no
            `source`. Targets are the same in both cases: the ids of the target behind its BOS.
    """
    read = [np.concatenate(pair) for pair in pairs] if joined else [pair.target for pair in pairs]
    tokens, features, mask = _padded([ids[:-1] for ids in read], tokenizer)
    targets = torch.full_like(tokens, IGNORE)
    for i, (ids, pair) in enumerate(zip(read, pairs, strict=True)):
        begin = len(ids) - len(pair.target)
        targets[i, begin : len(ids) - 1] = torch.from_numpy(ids[begin + 1 :])
    if joined:
        return Batch(tokens=tokens, targets=targets, features=features)
    source, source_features, mask = _padded([pair.source for pair in pairs], tokenizer)
    return Batch(
        tokens=tokens,
        targets=targets,
        features=features,
        source=source,
        source_features=source_features,
        source_mask=mask,
    )


def _padded(sequences: Sequence[np.ndarray], tokenizer: ScorePairs) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids (B, T), their features (B, T, F), both 0 behind the end, and the mask of real ids (B, T)."""
    sizes = [len(ids) for ids in sequences]
    mask = np.arange(max(sizes)) < np.array(sizes)[:, None]
    ids = np.zeros(mask.shape, np.int64)
    ids[mask] = np.concatenate(sequences)
    features = np.zeros((*mask.shape, len(tokenizer.feature_sizes)), np.int64)
    features[mask] = tokenizer.features_of(sequences)
    return torch.from_numpy(ids), torch.from_numpy(features), torch.from_numpy(mask)


def _places(piece: np.ndarray, tokenizer: ScorePairs) -> list[_Place]:
    """Return where the pairs of a piece are."""
    piece = np.asarray(piece)
    begins = np.append(np.flatnonzero(piece == tokenizer.bos), len(piece)).tolist()
    sides = zip(begins[:-2:2], begins[1:-1:2], begins[2::2], strict=True)
    return [_Place(*side, len(tokenizer.bar_starts(piece[side[1] : side[2]])) - 1) for side in sides]


def _pair(piece: np.ndarray, place: _Place) -> Pair:
    ids = np.asarray(piece[place.begin : place.end], np.int64)
    return Pair(ids[: place.middle - place.begin], ids[place.middle - place.begin :])


def _expected(places: Sequence[_Place], length: int) -> float:
    """Return about how many targets a crop of these pairs has: as many bars as fit on average, of the longer side."""
    found = []
    for begin, middle, end, num_bars in places:
        bars = min(1.0, MAX_BARS / num_bars, length / max(middle - begin, end - middle))
        found.append(min(bars * (end - middle - 1), length - 1))
    return float(np.mean(found)) if found else 0.0


class _Bars:
    """Crops of whole bars of a pair.

    Args:
        pair: whole.
        tokenizer: of its ids.
        length: the most ids of a side of a crop.
        max_bars: of a crop.
    """

    def __init__(self, pair: Pair, tokenizer: ScorePairs, length: int, max_bars: int) -> None:
        self.pair, self.tokenizer, self.length, self.max_bars = pair, tokenizer, length, max_bars
        self.starts = [tokenizer.bar_starts(side) for side in pair]
        self.rooms = [length - int(starts[0]) - 4 for starts in self.starts]  # see `ScorePairs.crop`
        self.num_bars = len(self.starts[0]) - 1

    def stop(self, first: int) -> int:
        """Return the bar after the last of the crop that begins at a bar; there is at least one bar."""
        fitting = [
            int(np.searchsorted(starts, starts[first] + room, "right")) - 1
            for starts, room in zip(self.starts, self.rooms, strict=True)
        ]
        return max(first + 1, min(*fitting, first + self.max_bars, self.num_bars))

    def last_first(self) -> int:
        """Return the first bar of the longest crop that reaches the end of the piece."""
        fitting = [
            int(np.searchsorted(starts, starts[-1] - room, "left"))
            for starts, room in zip(self.starts, self.rooms, strict=True)
        ]
        return min(max(*fitting, self.num_bars - self.max_bars, 0), self.num_bars - 1)

    def crop(self, first: int, stop: int) -> Pair:
        """Return the bars from one to before another, of both sides."""
        sides = zip(self.pair, self.starts, strict=True)
        return Pair(*(self.tokenizer.crop(side, starts, first, stop)[: self.length] for side, starts in sides))
