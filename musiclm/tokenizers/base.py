"""What every tokenizer does: a score to ids and back, and what it knows of ids on the way.

A score is a `symusic.Score` in ticks. Knows nothing of models.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from symusic import Score
from torch import Tensor

from ..errors import TokenizerError
from . import vocabulary as tables
from .vocabulary import Kind, Vocabulary

TICKS = 480  # a quarter, in every score that is decoded


class Tokenizer(ABC):
    """Score <-> ids.

    decode(encode(score)) is the score on what the vocabulary can express, and encode(decode(ids)) is the ids.

    Attributes:
        name: what users call it.
        in_seconds: whether it counts real time; its scores then run at 120 quarters a minute, whatever the tempo was.
        vocab_size: ids are 0 … vocab_size - 1.
        bos: the id before the first of a piece.
        eos: the id behind the last of a piece.
        feature_sizes: how many values each feature of a token has; see `features`.
        feature_lead: how many ids in front of a stretch are enough to make its features from; 0 if all of them have to be
            read. Stretches are then varied as a whole, with what their features know of.
        references: ids that stand in a row as pitches do, the first and the last of them, and which feature is the one that
            the next token, if it is of these, is likely to be near.
        program: the one General MIDI program that plays all notes, where that is all that can be asked for; else None.
        num_voices: how many voices take turns, one cell each; 1 where tokens are no cells.
        says_durations: whether a note's length is known when it begins; else it lasts until ids say that it ends.
        repeat_lag: how many ids before stands the one that a trivial guess would repeat.
        num_arrangements: in how many ways a piece may be written, see `rearranged`; 1 for only one.
        fills: whether arrangements have holes, so that models learn to fill those; then these are what they are measured on.
        share_arranged: of training windows, those drawn from all these ways; the others are of pieces as they are.
    """

    name: str
    in_seconds: bool = False
    vocab_size: int
    bos: int
    eos: int
    feature_sizes: tuple[int, ...] = ()
    feature_lead: int = 0
    references: tuple[tuple[int, int, int], ...] = ()
    program: int | None = None
    num_voices: int = 1
    says_durations: bool = False
    repeat_lag: int = 1
    num_rearrangements: int = 1
    p_rearrange: float = 0.75
    supports_infilling: bool = False

    @property
    def model_config(self) -> dict[str, Any]:
        """What a model of these ids should know of them: fields of its `Config`, besides the number of ids."""
        return {"feature_sizes": self.feature_sizes, "references": self.references}

    @property
    @abstractmethod
    def vocabulary(self) -> Vocabulary:
        """The vocabulary table: the `Token` of each id, V of them. It is what other packages read; see `vocabulary.py`."""

    @property
    def unmerged(self) -> Tokenizer:
        """The tokenizer whose ids merged ids stand for; this one where there are no merges."""
        return self

    @property
    def plain_size(self) -> int:
        """How many ids a piece as it is may have; those from there on are marks of arrangements alone."""
        return self.vocab_size

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
    def pad_with_silence(self, ids: np.ndarray, quarters: float) -> np.ndarray:
        """Return ids with silence behind them, as near to a later time as the vocabulary comes without a note."""

    def without_open_bar(self, ids: np.ndarray, quarters: float) -> np.ndarray:
        """Return ids without a bar that begins at or behind a time and has nothing in it: its metre may be another."""
        return ids

    def suffix_from_bar(self, ids: np.ndarray, quarters: float) -> tuple[np.ndarray, float]:
        """Return the end of ids from a bar line at or before a time, and when that is, in quarters: a piece of its own.

        Its notes are those that begin there in the whole, so many quarters earlier. A tokenizer that cannot begin
        anywhere returns all, and 0.
        """
        return ids, 0.0

    @property
    def is_in_time(self) -> bool:
        """Whether the music comes in the order of time, so that `quarters` can say how far ids have come."""
        return True

    @property
    def tempi(self) -> list[float]:
        """The tempi of the vocabulary, in quarters per minute; empty if it has none."""
        return [token.value for token in self.vocabulary if token.kind == Kind.TEMPO]

    @cached_property
    def _is_special(self) -> np.ndarray:
        return tables.is_special(self.vocabulary)

    def eval_mask(self, ids: np.ndarray) -> np.ndarray:
        """Return which ids are music and count in evaluation, (T,) booleans; the others are special tokens."""
        return ~self._is_special[np.asarray(ids, dtype=np.int64)]

    @abstractmethod
    def transposed(self, semitones: int) -> np.ndarray:
        """Return what each id becomes under transposition, (V,) int64; -1 where it leaves the vocabulary."""

    def faster(self, steps: int) -> np.ndarray:
        """Return what each id becomes at a tempo so many places quicker, (V,) int64; -1 where it leaves the vocabulary.

        A place is one of the tempi that the vocabulary has, in their order; ids that say no tempo stay as they are.
        """
        return np.arange(self.vocab_size)

    def louder(self, steps: int) -> np.ndarray:
        """Return what each id becomes so many velocities louder, (V,) int64; -1 where it leaves the vocabulary."""
        return np.arange(self.vocab_size)

    def varied(self, ids: np.ndarray, *, semitones: int = 0, faster: int = 0, louder: int = 0) -> np.ndarray | None:
        """Return ids transposed, quicker and louder, (T',) int64; None where they would leave the vocabulary.

        The tables do the same an id at a time, and here that is all; where an id stands for several (`trained_bpe`),
        or tempo lies in the times themselves (`performance`), only this is right, and T' may differ from T.
        """
        ids = np.asarray(ids, dtype=np.int64)
        for table, steps in ((self.transposed, semitones), (self.faster, faster), (self.louder, louder)):
            if steps:
                ids = table(steps)[ids]
                if (ids < 0).any():
                    return None
        return ids

    def transpose_ids(self, ids: np.ndarray, semitones: int) -> np.ndarray | None:
        """Return ids transposed, (T',) int64; None where they would leave the vocabulary. See `varied`."""
        return self.varied(ids, semitones=semitones)

    def rearranged(self, ids: np.ndarray, number: int) -> np.ndarray:
        """Return a piece, or a stretch of it, written in another way, (T',) int64: 0 as it is, then up to `num_rearrangements`.

        The music stays the same, but what comes before what does not.
        """
        return ids

    def loss_mask(self, ids: np.ndarray) -> np.ndarray:
        """Return which ids of an arranged piece a model is to guess in training, (T,) booleans; the others are told."""
        return np.ones(len(ids), bool)

    def new_to_prompt(self, ids: np.ndarray) -> np.ndarray:
        """Return the ids that would bring what a prompt does not have: another instrument, metre or tempo.

        Args:
            ids: of the prompt. Its last time signature stays; what it says nothing of is not strange.
        """
        return tables.new_to_prompt(self.vocabulary, self.base_ids(ids))

    def unexpressed(self, score: Score) -> list[str]:
        """Return what of a score, beside notes, these ids cannot say and a listener would miss: a sentence each."""
        return []

    def base_ids(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return ids without merges, (T',) int64: each merged one as those that it was learnt from."""
        return np.asarray(ids, dtype=np.int64)

    def num_events(self, ids: Sequence[int] | np.ndarray) -> int:
        """Return how many tokens published tables would count in ids: what `eval_mask` marks, if not said otherwise."""
        return int(self.eval_mask(self.base_ids(ids)).sum())

    def trained_bpe(self, sequences: Iterable[np.ndarray], num_merges: int) -> Tokenizer:
        """Return this tokenizer with a vocabulary longer by pairs learnt from ids; see `musiclm.tokenizers.bpe`.

        Args:
            sequences: ids of whole pieces, of training pieces only.
            num_merges: how many to learn at most.

        Raises:
            TokenizerError: this tokenizer's ids cannot be merged.
        """
        raise TokenizerError(f"the tokenizer '{self.name}' cannot be given a BPE vocabulary")

    def exempt_from_temperature(self, features: Tensor | None) -> Tensor | None:
        """Return the ids whose probability stays what the model gives them, whatever the temperature and the filters.

        Temperature and filters then choose among the others. Where most tokens only say that nothing changes, or say when
        and not what, a low temperature would leave little else.

        Args:
            features: (B, F) of the token to come; None where the tokenizer has none.

        Returns:
            (B, V) or (V,) booleans; None for no such ids.
        """
        return None

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return what makes this tokenizer again, as JSON: `musiclm.tokenizers.from_description` takes it."""

    def features(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Return what is known about each token to come, and the state after the last: a streaming function.

        Args:
            tokens: (B, T) int64.
            state: what an earlier call returned, or None at the beginning of a piece.

        Returns:
            (B, T, F) int64, position t being about token t + 1 and made from tokens 0 … t alone.
        """
        return tokens.new_zeros(*tokens.shape, 0), None
