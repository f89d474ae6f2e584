"""What every tokenizer does: a score to ids and back, and what it knows of ids on the way.

A score is a `symusic.Score` in ticks. Knows nothing of models.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from symusic import Score
from torch import Tensor

TICKS = 480  # a quarter, in every score that is decoded


class Tokenizer(ABC):
    """Score <-> ids.

    decode(encode(score)) is the score on what the vocabulary can express, and encode(decode(ids)) is the ids.

    Attributes:
        name: what users call it.
        vocab_size: ids are 0 … vocab_size - 1.
        bos: the id before the first of a piece.
        eos: the id behind the last of a piece.
        feature_sizes: how many values each feature of a token has; see `features`.
        repeat_lag: how many ids before stands the one that a trivial guess would repeat.
    """

    name: ClassVar[str]
    vocab_size: int
    bos: int
    eos: int
    feature_sizes: tuple[int, ...] = ()
    repeat_lag: int = 1

    @abstractmethod
    def encode(self, score: Score) -> tuple[np.ndarray, int]:
        """Return the ids of a whole piece, (T,) int64, with bos and eos around them; and the number of notes left out.

        Raises:
            MidiError: not one note can be expressed.
        """

    @abstractmethod
    def decode(self, ids: Sequence[int] | np.ndarray) -> Score:
        """Return the score of any beginning of a piece, at `TICKS` ticks a quarter; bos and eos may be there or not."""

    @abstractmethod
    def quarters(self, ids: Sequence[int] | np.ndarray) -> float:
        """Return the musical time, in quarters, that the next note of a piece that begins so cannot lie before."""

    @abstractmethod
    def advance(self, ids: np.ndarray, quarters: float) -> np.ndarray:
        """Return ids with silence behind them, as near to a later musical time as the vocabulary comes without a note."""

    @property
    def tempi(self) -> list[float]:
        """The tempi that the vocabulary has, in quarters a minute; none if it has no tempo and no metre."""
        return []

    @abstractmethod
    def counts(self, ids: np.ndarray) -> np.ndarray:
        """Return for each id whether it is music (and counts in evaluation) or only a mark, as booleans."""

    @abstractmethod
    def transposed(self, semitones: int) -> np.ndarray:
        """Return what each id becomes under transposition, (V,) int64; -1 where it leaves the vocabulary."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return what makes this tokenizer again, as JSON: `musiclm.tokens.from_description` takes it."""

    def features(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Return what is known about each token to come, and the state after the last: a streaming function.

        Args:
            tokens: (B, T) int64.
            state: what an earlier call returned, or None at the beginning of a piece.

        Returns:
            (B, T, F) int64, position t being about token t + 1 and made from tokens 0 … t alone.
        """
        return tokens.new_zeros(*tokens.shape, 0), None
