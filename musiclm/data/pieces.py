"""The interface of a corpus: pieces by split, in memory or in a store on disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from ..tokenizers.base import Tokenizer

SPLITS = ("train", "validation", "test")
BUNDLED = "bundled Bach chorales"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Piece:
    """One piece of music.

    Attributes:
        name: its path within the corpus.
        tokens: (T,) ids, bos first and eos last; in a store a read-only view of the mapped file.
        num_notes: number of notes that the tokens express.
        seconds: duration of that music.
        pitches: the lowest and the highest pitch without drums; None if it was not measured.
        labels: by kind, such as composer; empty where the corpus has none.
    """

    name: str
    tokens: np.ndarray
    num_notes: int
    seconds: float
    pitches: tuple[int, int] | None = None
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corpus:
    """Pieces by split.

    Attributes:
        name: its name in model cards and reports.
        tokenizer: the one that made the tokens.
        splits: train, validation and test, each possibly empty.
        dropped: number of dropped files, by the text of the reason.
        is_split: whether the splits belong to the corpus; false for a single file or a plain folder.
        whole: the whole pieces, if the splits are parts of pieces; None if they are whole pieces.
        notes: sentences for the user about how the corpus was made.
    """

    name: str
    tokenizer: Tokenizer
    splits: dict[str, Sequence[Piece]]
    dropped: dict[str, int]
    is_split: bool = True
    whole: Sequence[Piece] | None = None
    notes: tuple[str, ...] = ()

    def pieces(self, split: str) -> Sequence[Piece]:
        """Return the pieces of train, validation, test or all."""
        if split != "all":
            return self.splits[split]
        if self.whole is not None:
            return self.whole
        return [piece for name in SPLITS for piece in self.splits[name]]
