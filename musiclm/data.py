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

from .tokens.base import Tokenizer

IGNORE = -100  # a target that does not count
TRANSPOSITIONS = range(-5, 7)  # semitones: each of the twelve keys once
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
    def num_tokens(self) -> int:
        """How many targets count."""
        return int((self.targets != IGNORE).sum())

    def to(self, device: torch.device) -> Batch:
        """Return the batch on another device."""
        features = None if self.features is None else self.features.to(device)
        return Batch(tokens=self.tokens.to(device), targets=self.targets.to(device), features=features)


class Windows:
    """Batches of windows, drawn at random over whole pieces; `windows(number)` gives batch `number`.

    A window begins anywhere in its piece; a quarter of a window's length of extra chance goes to the very beginning and
    the very end, which a plain draw would hardly ever show. Features are those of the place in the piece. Each window is
    transposed by a random number of semitones that keeps the piece within the pitches of the training pieces as they are.

    Args:
        pieces: token ids of whole pieces.
        tokenizer: for transposition and features.
        length: T, of a window; shorter pieces are padded.
        batch_size: B.
        seed: of all that is drawn.
        transpose: semitones to draw from; `range(1)` for none.
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
    ) -> None:
        if not pieces:
            raise ValueError("no pieces to train on")
        self.pieces, self.tokenizer = pieces, tokenizer
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.tokens_an_epoch = sum(len(p) - 1 for p in pieces)
        sizes = np.array([len(p) - 1 for p in pieces], dtype=np.float64)
        self._margin = length // 4
        weights = np.maximum(sizes, length) + 2 * self._margin * (sizes > length)
        self._cumulated = np.cumsum(weights) / weights.sum()
        self._tables = {s: tokenizer.transposed(s) for s in transpose}
        used = np.zeros(tokenizer.vocab_size, bool)
        for piece in pieces:
            used[np.unique(piece)] = True
        self._allowed = [self._shifts(piece, used) for piece in pieces]
        self._features: OrderedDict[tuple[int, int], Tensor] = OrderedDict()

    def _shifts(self, piece: np.ndarray, used: np.ndarray) -> list[int]:
        """Return the transpositions that bring no id which the training pieces do not have."""
        ids = np.unique(piece)
        moved = {s: table[ids] for s, table in self._tables.items()}
        return [s for s, m in moved.items() if s == 0 or ((m >= 0).all() and used[m].all())] or [0]

    def __call__(self, number: int) -> Batch:
        """Return batch `number`, always the same."""
        draw = np.random.default_rng((self.seed, number))
        tokens = np.zeros((self.batch_size, self.length), np.int64)
        targets = np.full((self.batch_size, self.length), IGNORE, np.int64)
        num_features = len(self.tokenizer.feature_sizes)
        features = torch.zeros(self.batch_size, self.length, num_features, dtype=torch.int64) if num_features else None
        for row in range(self.batch_size):
            i = int(np.searchsorted(self._cumulated, draw.random(), side="right"))
            i = min(i, len(self.pieces) - 1)
            size = len(self.pieces[i]) - 1
            start = 0
            if size > self.length:
                start = int(draw.integers(-self._margin, size - self.length + self._margin + 1))
                start = min(max(start, 0), size - self.length)
            shift = self._allowed[i][int(draw.integers(len(self._allowed[i])))]
            piece = self.pieces[i][start : start + self.length + 1]
            if shift:
                piece = self._tables[shift][piece]
            tokens[row, : len(piece) - 1] = piece[:-1]
            targets[row, : len(piece) - 1] = piece[1:]
            if features is not None:
                features[row, : len(piece) - 1] = self._of_piece(i, shift)[start : start + len(piece) - 1]
        return Batch(tokens=torch.from_numpy(tokens), targets=torch.from_numpy(targets), features=features)

    def _of_piece(self, i: int, shift: int) -> Tensor:
        """Return the features of a whole transposed piece, (T, F) int64, kept in a small type."""
        if (i, shift) not in self._features:
            ids = torch.from_numpy(self._tables[shift][self.pieces[i]] if shift else np.asarray(self.pieces[i]))
            features, _ = self.tokenizer.features(ids[None].long(), None)
            self._features[i, shift] = features[0].to(torch.int16)
            if len(self._features) > MAX_CACHED:
                self._features.popitem(last=False)
        return self._features[i, shift].long()
