"""The interface of tokenizers: a score to ids and back, the vocabulary table, and tables of augmentations.

A score is a `symusic.Score` in ticks. This module imports no models.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from symusic import Score
from torch import Tensor

from ..errors import TokenizerError
from . import vocabulary as tables
from .vocabulary import Kind, Vocabulary

TICKS = 480  # per quarter, in every decoded score


class Tokenizer(ABC):
    """Score <-> ids.

    Invariants: decode(encode(score)) is the score as far as the vocabulary can express it, and encode(decode(ids)) is ids.

    A new tokenizer implements the abstract methods and gets one line in `musiclm.tokenizers.REGISTRY`.

    Attributes:
        name: its key in the registry.
        in_seconds: whether it counts real time; its scores then have 120 quarters per minute, whatever the tempo was.
        vocab_size: ids are 0 … vocab_size - 1.
        bos: the id before the first of a piece.
        eos: the id after the last of a piece.
        feature_sizes: the number of values of each input feature; see `features`.
        feature_lead: how many ids before a crop are enough to compute its features; 0 if all of them are needed.
        varies_by_id: whether `varied` only looks each id up in the tables of `transposed`, `faster` and `louder`.
        relative_pitch: (first id, last id, feature) of ids that are ordered as pitches are, and the input feature whose value
            is an id that the next token is likely to be near; a fourth number is added to the value to make it one.
        program: the one General MIDI program that plays all notes, where that is all that can be asked for; else None.
        num_voices: how many voices take turns, one cell each; 1 where tokens are not cells.
        says_durations: whether a note's length is known when it begins; else it lasts until an id ends it.
        repeat_lag: the distance in ids at which the repetition baseline copies.
        num_rearrangements: how many ways of writing a piece there are, see `rearranged`.
        has_plan: whether ids begin with a header, and bars with attributes; see `score_plan`.
        supports_infilling: whether rearrangements have masked spans, so that models learn infilling; evaluation then uses
            them.
        is_paired: whether a piece is pairs of a source and a target, for sequence-to-sequence models; see `score_pairs`.
            Decoding gives one pair, without the names of parts, so encoding that need not give the same ids again.
        aligned_features: the features that say where in a piece a token is, in both sides of a pair alike, and by how much
            attention from one to the other is to fall at first with a difference of 1; none without pairs.
        p_rearrange: the share of training crops that are rearranged.
    """

    name: str
    in_seconds: bool = False
    vocab_size: int
    bos: int
    eos: int
    feature_sizes: tuple[int, ...] = ()
    feature_lead: int = 0
    varies_by_id: bool = True
    relative_pitch: tuple[tuple[int, ...], ...] = ()
    program: int | None = None
    num_voices: int = 1
    says_durations: bool = False
    repeat_lag: int = 1
    num_rearrangements: int = 1
    p_rearrange: float = 0.75
    has_plan: bool = False
    supports_infilling: bool = False
    is_paired: bool = False

    @property
    def model_config(self) -> dict[str, Any]:
        """The fields of a model's `Config` that depend on the tokenizer, besides the number of ids."""
        return {"feature_sizes": self.feature_sizes, "relative_pitch": self.relative_pitch}

    @property
    @abstractmethod
    def vocabulary(self) -> Vocabulary:
        """The vocabulary table: the `Token` of each id, V of them. It is what other packages read; see `vocabulary.py`."""

    @property
    def global_ids(self) -> tuple[int, ...]:
        """The ids that begin a bar or name its section, in rising order; empty where the vocabulary has no bars.

        A model may attend to them from far away. A merged id is one of them if one of its base ids is.
        """
        of_base = set(tables.ids_of(self.vocabulary, Kind.BAR, Kind.SECTION).tolist())
        expansions = tables.expansions(self.vocabulary)
        return tuple(i for i, base_ids in enumerate(expansions) if not of_base.isdisjoint(base_ids))

    @property
    def unmerged(self) -> Tokenizer:
        """The tokenizer whose ids merged ids stand for; this one where there are no merges."""
        return self

    @property
    def mergeable(self) -> Tokenizer:
        """The tokenizer whose ids `trained_bpe` merges; another version of this one where its own cannot be merged."""
        return self

    @property
    def plain_size(self) -> int:
        """The number of ids that a piece in its usual order uses; later ids are special tokens of rearrangements."""
        return self.vocab_size

    @abstractmethod
    def encode(self, score: Score) -> tuple[np.ndarray, int]:
        """Return the ids of a whole piece with bos and eos, (T,) int64, and the number of notes left out.

        Raises:
            MidiError: no note can be expressed.
        """

    @abstractmethod
    def decode(self, ids: Sequence[int] | np.ndarray) -> Score:
        """Return the score of any prefix of a piece, at `TICKS` ticks per quarter, with or without bos and eos."""

    @abstractmethod
    def quarters(self, ids: Sequence[int] | np.ndarray) -> float:
        """Return the time, in quarters, before which no further note of a piece with this prefix can begin."""

    @abstractmethod
    def pad_with_silence(self, ids: np.ndarray, quarters: float) -> np.ndarray:
        """Return ids followed by silence that reaches as close to a later time as the vocabulary allows without a note."""

    def without_open_bar(self, ids: np.ndarray, quarters: float) -> np.ndarray:
        """Return ids without an empty bar that begins at or after a time, so that it can have another time signature."""
        return ids

    def with_header(
        self, ids: np.ndarray, *, style: str | None = None, new_bars: int | None = None, programs: Sequence[int] = ()
    ) -> np.ndarray:
        """Return the ids of a prompt with the header of the piece that it is to become; the same where there are no headers.

        Args:
            ids: of the prompt, with its own header.
            style: of the piece; the prompt's if left out.
            new_bars: how many bars are to follow; None for an unknown length.
            programs: General MIDI numbers, -1 for drums, of those that join the prompt's own.
        """
        return ids

    def header_size(self, ids: np.ndarray) -> int:
        """Return how many ids at the beginning of new music, without bos, are a header; 0 where it begins with none."""
        return 0

    def suffix_from_bar(self, ids: np.ndarray, quarters: float) -> tuple[np.ndarray, float]:
        """Return the suffix of ids from a bar line at or before a time, and the time of that bar line in quarters.

        The suffix is a piece by itself: its notes are those of the whole, that many quarters earlier. A tokenizer whose
        pieces cannot begin at a bar line returns all ids, and 0.
        """
        return ids, 0.0

    @property
    def is_in_time(self) -> bool:
        """Whether ids are in order of time, so that `quarters` is the time that they have reached."""
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
        """Return the id that each id becomes under transposition, (V,) int64; -1 where it leaves the vocabulary."""

    def faster(self, steps: int) -> np.ndarray:
        """Return the id that each id becomes so many tempo steps faster, (V,) int64; -1 where it leaves the vocabulary.

        A step is one tempo of the vocabulary, in rising order; ids that are no tempo do not change.
        """
        return np.arange(self.vocab_size)

    def louder(self, steps: int) -> np.ndarray:
        """Return the id that each id becomes so many velocity steps louder, (V,) int64; -1 where it leaves the vocabulary."""
        return np.arange(self.vocab_size)

    def varied(self, ids: np.ndarray, *, semitones: int = 0, faster: int = 0, louder: int = 0) -> np.ndarray | None:
        """Return ids transposed, faster and louder, (T',) int64; None where they would leave the vocabulary.

        Here this is a lookup in the three tables. Where one id stands for several (`trained_bpe`), or the tempo is in the
        times themselves (`performance`), the tables are not enough, and T' may differ from T.
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
        """Return a piece, or a part of it, with its tokens in another order, (T',) int64; the music stays the same.

        Args:
            ids: of the piece.
            number: 0 … `num_rearrangements` - 1; 0 is the piece as it is.
        """
        return ids

    def loss_mask(self, ids: np.ndarray) -> np.ndarray:
        """Return the loss mask of a rearranged piece, (T,) booleans: False for given context."""
        return np.ones(len(ids), bool)

    def new_to_prompt(self, ids: np.ndarray) -> np.ndarray:
        """Return the ids that would bring an instrument, time signature or tempo that a prompt does not have, (N,) int64.

        Args:
            ids: of the prompt. Only its last time signature is kept; what it does not mention is not limited.
        """
        return tables.new_to_prompt(self.vocabulary, self.base_ids(ids))

    def unexpressed(self, score: Score) -> list[str]:
        """Return the audible losses of encoding a score, besides notes: one sentence each."""
        return []

    def base_ids(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return ids with each merged id replaced by the base ids that it stands for, (T',) int64."""
        return np.asarray(ids, dtype=np.int64)

    def num_events(self, ids: Sequence[int] | np.ndarray) -> int:
        """Return how many tokens published tables would count in ids: those of `eval_mask` unless overridden."""
        return int(self.eval_mask(self.base_ids(ids)).sum())

    def trained_bpe(self, sequences: Iterable[np.ndarray], num_merges: int) -> Tokenizer:
        """Return this tokenizer with a vocabulary extended by byte-pair encoding; see `musiclm.tokenizers.bpe`.

        Args:
            sequences: ids of whole pieces, of training pieces only.
            num_merges: the largest number of merges.

        Raises:
            TokenizerError: this tokenizer's ids cannot be merged.
        """
        raise TokenizerError(f"the tokenizer '{self.name}' cannot be given a BPE vocabulary")

    def exempt_from_temperature(self, features: Tensor | None) -> Tensor | None:
        """Return the ids that temperature and filters do not apply to: their probability is that of the model.

        Temperature and filters then choose among the others; `--rhythm-temperature` is for these. Where most tokens only
        say that nothing changes, or say when and not what, a low temperature would leave little else.

        Args:
            features: (B, F) of the token to come; None where the tokenizer has none.

        Returns:
            (B, V) or (V,) booleans; None for no such ids.
        """
        return None

    def tempers_rhythm(self, features: Tensor | None) -> Tensor | None:
        """Return where the rhythm's temperature applies to the ids that are exempt from the other one.

        Args:
            features: (B, F) of the token to come; None where the tokenizer has none.

        Returns:
            (B, 1) booleans; None for everywhere.
        """
        return None

    def kind_of(self, ids: np.ndarray) -> int:
        """Return a number for the kind of music that a piece is of, of which training draws beginnings alike; 0 for unknown."""
        return 0

    def with_unknown(self, ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return ids of a training sequence, each part of what they say about the whole piece unknown at random, (T',)."""
        return ids

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return JSON from which `musiclm.tokenizers.from_description` makes this tokenizer again."""

    def features(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Return the input features of each next token, and the state after the last: a streaming function.

        Args:
            tokens: (B, T) int64.
            state: what an earlier call returned, or None at the beginning of a piece.

        Returns:
            (B, T, F) int64. Position t describes token t + 1 and depends on tokens 0 … t alone.
        """
        return tokens.new_zeros(*tokens.shape, 0), None

    def features_of(self, sequences: Sequence[np.ndarray], begins: Sequence[int] | None = None) -> np.ndarray:
        """Return the features of whole sequences of ids, each from its beginning: those of `features`, but for training.

        Args:
            sequences: of any lengths.
            begins: of each sequence the first id whose features are wanted; its first one if left out. What lies before it
                may be left out of account as far as `feature_lead` says.

        Returns:
            (N, F) int64, those of all N ids from `begins` on, one sequence behind the other.
        """
        found = self.all_features_of(sequences)
        return found if begins is None else found[from_begins([len(ids) for ids in sequences], begins)]

    def all_features_of(self, sequences: Sequence[np.ndarray]) -> np.ndarray:
        """Return the features of all ids of sequences, (N, F) int64; see `features_of`."""
        found = [self.features(torch.from_numpy(np.asarray(ids, np.int64))[None])[0][0] for ids in sequences]
        return np.concatenate([features.numpy() for features in found])


def from_begins(sizes: Sequence[int], begins: Sequence[int]) -> np.ndarray:
    """Return the indices of all items from `begins` on in sequences of these sizes, one behind the other."""
    ends = np.cumsum(sizes).tolist()
    parts = [np.arange(end - size + b, end) for size, b, end in zip(sizes, begins, ends, strict=True)]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def tells_kinds(tokenizer: Tokenizer) -> bool:
    """Return whether a tokenizer tells kinds of music, see `Tokenizer.kind_of`."""
    return type(tokenizer).kind_of is not Tokenizer.kind_of
