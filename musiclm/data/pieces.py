"""What a corpus is to those who use it: pieces by split, whether they lie in memory or in a store on disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ..tokenizers.base import Tokenizer

SPLITS = ("train", "validation", "test")
BUNDLED = "bundled Bach chorales"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Piece:
    """One piece of music.

    Attributes:
        name: where it comes from, within the corpus.
        tokens: (T,) ids, bos first and eos last; in a store a view of the mapped file, read-only.
        num_notes: in the music that the tokens express.
        seconds: how long that music is.
        pitches: the lowest and the highest that is not a drum's; None where nobody has looked.
    """

    name: str
    tokens: np.ndarray
    num_notes: int
    seconds: float
    pitches: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corpus:
    """Pieces by split.

    Attributes:
        name: what it is called in cards and reports.
        tokenizer: what made the tokens.
        splits: train, validation and test, each maybe empty.
        dropped: how many files were left out, by reason.
        is_split: whether the splits are the corpus's own or have a meaning; false for a single file or a plain folder.
        whole: the pieces uncut, where the splits are parts of pieces; None where they are whole pieces.
        notes: what a user should be told about how it came about, a sentence each.
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
