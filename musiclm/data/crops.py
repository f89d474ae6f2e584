"""Windows of pieces as training batches. A batch is a function of its number, so a resumed run sees the same ones.

B batch, T tokens, F features.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..tokenizers.base import Tokenizer

IGNORE = -100  # a target that does not count
TRANSPOSITIONS = range(-5, 7)  # semitones: each of the twelve keys once
TEMPI = range(-2, 3)  # places of tempo: some 6 % each
VELOCITIES = range(-2, 3)  # places of velocity: 8 of 128 each, where there are 16
MAX_CACHED = 8192  # (piece, transposition) pairs whose features are kept


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """What goes in and what should come out.

    Attributes:
        tokens: (B, T) int64.
        targets: (B, T) int64, the token after each; `IGNORE` behind the end of a piece.
        features: (B, T, F) int64, or None if the tokenizer has none.
    """

    tokens: Tensor
    targets: Tensor
    features: Tensor | None

    @property
    def mask(self) -> Tensor:
        """Which targets count, (B, T) bool."""
        return self.targets != IGNORE

    @property
    def num_tokens(self) -> int:
        """How many targets count."""
        return int(self.mask.sum())

    def to(self, device: torch.device) -> Batch:
        """Return the batch on another device."""
        features = None if self.features is None else self.features.to(device)
        return Batch(tokens=self.tokens.to(device), targets=self.targets.to(device), features=features)


class RandomCrops:
    """Batches of windows, drawn at random over whole pieces; `windows(number)` gives batch `number`.

    A window begins anywhere in its piece; a quarter of a window's length of extra chance goes to the very beginning and
    the very end, which a plain draw would hardly ever show. Features are those of the place in the piece.

    Each window is varied: transposed by a random number of semitones that keeps the piece within the pitches of the
    training pieces as they are, and, half of the time each, made a little quicker or slower and louder or softer, where
    the tokenizer has ids that say so. What would leave the vocabulary is not varied. Where a piece may be written in several
    ways (`Tokenizer.rearranged`), `p_rearrange` of the windows are of any of them, the others as it is.

    Args:
        pieces: token ids of whole pieces.
        tokenizer: for variations and features.
        length: T, of a window; shorter pieces are padded.
        batch_size: B.
        seed: of all that is drawn.
        transpose: semitones to draw from; `range(1)` for none.
        faster: places of tempo to draw from, see `Tokenizer.faster`; `range(1)` for none.
        louder: velocities to draw from, see `Tokenizer.louder`; `range(1)` for none.
        weights: how much more often than its length says each piece is drawn; left out, all alike.
        pitches: the lowest and highest pitch of each piece, None for one without; left out, all ids are looked at.

    Attributes:
        tokens_an_epoch: targets of all pieces.
        tokens_a_batch: those of a batch, the mean; fewer than B T where pieces are shorter than T.
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
        pitches: Sequence[tuple[int, int] | None] | None = None,
    ) -> None:
        if not pieces:
            raise ValueError("no pieces to train on")
        self.pieces, self.tokenizer = pieces, tokenizer
        self.length, self.batch_size, self.seed = length, batch_size, seed
        sizes = np.fromiter((len(p) - 1 for p in pieces), np.int64, len(pieces))
        self.tokens_an_epoch = int(sizes.sum())
        self._margin = length // 4
        chances = np.maximum(sizes, length) + 2.0 * self._margin * (sizes > length)
        if weights is not None:
            chances *= np.asarray(weights)
        self._cumulated = np.cumsum(chances) / chances.sum()
        self.tokens_a_batch = batch_size * float(np.minimum(sizes, length) @ chances / chances.sum())
        by_id = type(tokenizer).varied is Tokenizer.varied  # else one id may become several
        self._tables = {s: tokenizer.transposed(s) for s in transpose} if by_id else None
        self._reach = length + 1 if by_id else length * 5 // 4 + 1  # ids that make a window: they may become fewer
        self._faster = {s: tokenizer.faster(s) for s in faster} if by_id else None
        self._louder = {s: tokenizer.louder(s) for s in louder} if by_id else None
        whole = np.arange(tokenizer.vocab_size)
        says_tempo = any((tokenizer.faster(s) != whole).any() for s in (-1, 1))
        says_velocity = any((tokenizer.louder(s) != whole).any() for s in (-1, 1))
        # features of whole pieces are of those as they are, transposed: variations that they might know of are left alone
        can_vary = not tokenizer.feature_sizes or tokenizer.feature_lead > 0
        self._tempi = list(faster) if says_tempo and can_vary else []
        self._velocities = list(louder) if says_velocity and can_vary else []
        if pitches is not None and any(p is not None for p in pitches):
            self._first, self._last = _ranges(pitches, transpose)
            self._allowed: list[list[int]] | None = None
        else:
            self._allowed = self._looked_up(transpose)
        self._features: OrderedDict[tuple[int, int, int], Tensor] = OrderedDict()

    def _looked_up(self, transpose: range) -> list[list[int]]:
        """Return the transpositions of each piece that bring no id which the training pieces do not have."""
        tables = self._tables or {s: self.tokenizer.transposed(s) for s in transpose}
        ids = [np.unique(piece) for piece in self.pieces]
        used = np.zeros(self.tokenizer.vocab_size, bool)
        for each in ids:
            used[each] = True
        allowed = []
        for each in ids:
            moved = {s: table[each] for s, table in tables.items()}
            allowed.append([s for s, m in moved.items() if s == 0 or ((m >= 0).all() and used[m].all())] or [0])
        return allowed

    def _shifts(self, i: int) -> Sequence[int]:
        """Return the transpositions that a piece may be given."""
        if self._allowed is not None:
            return self._allowed[i]
        return range(int(self._first[i]), int(self._last[i]) + 1)

    def __call__(self, number: int) -> Batch:
        """Return batch `number`, always the same."""
        draw = np.random.default_rng((self.seed, number))
        also = np.random.default_rng((self.seed, number, 1))  # so that tempo and velocity change no window
        ways = np.random.default_rng((self.seed, number, 2))
        tokens = np.zeros((self.batch_size, self.length), np.int64)
        targets = np.full((self.batch_size, self.length), IGNORE, np.int64)
        num_features = len(self.tokenizer.feature_sizes)
        features = torch.zeros(self.batch_size, self.length, num_features, dtype=torch.int64) if num_features else None
        for row in range(self.batch_size):
            i = int(np.searchsorted(self._cumulated, draw.random(), side="right"))
            i = min(i, len(self.pieces) - 1)
            whole, arrangement = self.pieces[i], self._arrangement(ways)
            if arrangement:
                whole = self.tokenizer.rearranged(np.asarray(whole, np.int64), arrangement)
            size = len(whole) - 1
            start = 0
            if size > self.length:
                start = int(draw.integers(-self._margin, size - self.length + self._margin + 1))
                start = min(max(start, 0), size - self.length)
            shifts = self._shifts(i)
            shift = shifts[int(draw.integers(len(shifts)))]
            varied = shift, _some(also, self._tempi), _some(also, self._velocities)
            piece = self._varied(whole[start : start + self._reach], *varied)[: self.length + 1]
            tokens[row, : len(piece) - 1] = piece[:-1]
            targets[row, : len(piece) - 1] = piece[1:]
            if arrangement:
                targets[row, : len(piece) - 1][~self.tokenizer.loss_mask(whole)[start + 1 : start + len(piece)]] = (
                    IGNORE
                )
            if features is not None and self.tokenizer.feature_lead:
                before = self._varied(whole[max(0, start - self.tokenizer.feature_lead) : start], *varied)
                read = torch.from_numpy(np.concatenate([before, piece[:-1]]).astype(np.int64))
                features[row, : len(piece) - 1] = self.tokenizer.features(read[None])[0][0, len(before) :]
            elif features is not None:
                features[row, : len(piece) - 1] = self._of_piece(i, shift, arrangement)[start : start + len(piece) - 1]
        return Batch(tokens=torch.from_numpy(tokens), targets=torch.from_numpy(targets), features=features)

    def _arrangement(self, draw: np.random.Generator) -> int:
        """Return the number of a way to write a piece; draws nothing where there is only one."""
        ways = self.tokenizer.num_rearrangements
        return int(draw.integers(ways)) if ways > 1 and draw.random() < self.tokenizer.p_rearrange else 0

    def _varied(self, ids: np.ndarray, shift: int, faster: int, louder: int) -> np.ndarray:
        """Return ids varied as far as the vocabulary goes; they may become fewer or more."""
        if self._tables is None or self._faster is None or self._louder is None:
            for how in ((shift, faster, louder), (shift, 0, 0)):
                if any(how):
                    varied = self.tokenizer.varied(ids, semitones=how[0], faster=how[1], louder=how[2])
                    if varied is not None:
                        return varied
            return np.asarray(ids)
        for table in (self._tables[shift], self._faster.get(faster), self._louder.get(louder)):
            if table is not None and len(ids):
                moved = table[ids]
                if moved.min() >= 0:
                    ids = moved
        return ids

    def _of_piece(self, i: int, shift: int, arrangement: int) -> Tensor:
        """Return the features of a whole transposed piece, (T, F) int64, kept in a small type."""
        if (i, shift, arrangement) not in self._features:
            piece = np.asarray(self.pieces[i], dtype=np.int64)
            if shift:
                moved = self.tokenizer.transposed(shift) if self._tables is None else self._tables[shift]
                piece = moved[piece]
            piece = self.tokenizer.rearranged(piece, arrangement)
            features, _ = self.tokenizer.features(torch.from_numpy(piece)[None], None)
            self._features[i, shift, arrangement] = features[0].to(torch.int16)
            if len(self._features) > MAX_CACHED:
                self._features.popitem(last=False)
        return self._features[i, shift, arrangement].long()


def _some(draw: np.random.Generator, steps: Sequence[int]) -> int:
    """Return one of the steps half of the time, else 0; draws nothing if there are none."""
    return steps[int(draw.integers(len(steps)))] if steps and draw.random() < 0.5 else 0


def _ranges(pitches: Sequence[tuple[int, int] | None], transpose: range) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and the highest transposition of each piece that stays within the pitches of all, (N,) each."""
    ends = np.array([(0, 0) if p is None else p for p in pitches], np.int16).reshape(-1, 2)
    has_pitch = np.fromiter((p is not None for p in pitches), bool, len(pitches))
    low, high = ends[has_pitch, 0].min(), ends[has_pitch, 1].max()
    first = np.where(has_pitch, np.maximum(min(transpose), low - ends[:, 0]), 0)
    last = np.where(has_pitch, np.minimum(max(transpose), high - ends[:, 1]), 0)
    return np.minimum(first, 0), np.maximum(last, 0)
