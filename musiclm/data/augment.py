"""Data augmentation of token ids: transposition, tempo and velocity.

Owns which variations a piece may have, how they are sampled, and how they are applied. Permutations of a piece
(`Tokenizer.rearranged`) belong to the tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from ..tokenizers.base import Tokenizer

TRANSPOSITIONS = range(-5, 7)  # semitones: each of the twelve keys once
TEMPI = range(-2, 3)  # tempo steps of the vocabulary, about 6 % each
VELOCITIES = range(-2, 3)  # velocity steps of the vocabulary: 8 of 128 each, where there are 16


Pitches = np.ndarray | Sequence[tuple[int, int] | None]
"""The lowest and highest pitch of each piece, None for a piece without; or an array as `pitch_ends` returns it."""


class Variation(NamedTuple):
    """How a crop differs from its piece: see `Tokenizer.varied`."""

    semitones: int = 0
    faster: int = 0
    louder: int = 0


class Transpositions(Protocol):
    """The transpositions that each piece may be given."""

    def of_piece(self, i: int) -> Sequence[int]:
        """Return the transpositions of piece `i`, in semitones."""


class Augmenter:
    """Samples variations of pieces, and applies them to ids.

    A piece is transposed by a random number of semitones that keeps it within the pitches of all pieces. Tempo and velocity are
    each varied with probability 1/2, where the vocabulary has tokens for them. A variation that would leave the vocabulary is
    not applied.

    Args:
        tokenizer: of the pieces.
        pieces: token ids of whole pieces.
        transpose: semitones to sample from; `range(1)` for none.
        faster: tempo steps to sample from, see `Tokenizer.faster`; `range(1)` for none.
        louder: velocity steps to sample from, see `Tokenizer.louder`; `range(1)` for none.
        pitches: the lowest and highest pitch of each piece, None for a piece without; without it all ids are read.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        pieces: Sequence[np.ndarray],
        *,
        transpose: range = TRANSPOSITIONS,
        faster: range = TEMPI,
        louder: range = VELOCITIES,
        pitches: Pitches | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        # features that are computed from the beginning of a piece are those of one tempo and loudness
        can_vary = not tokenizer.feature_sizes or tokenizer.feature_lead > 0
        self.tempi = list(faster) if can_vary and _is_expressed(tokenizer.faster) else []
        self.velocities = list(louder) if can_vary and _is_expressed(tokenizer.louder) else []
        tables = {semitones: tokenizer.transposed(semitones) for semitones in transpose}
        self.transpositions: Transpositions = (
            WithinPitches(ends, transpose) if (ends := pitch_ends(pitches)) is not None else WithinIds(pieces, tables)
        )
        self._tables = (
            (tables, {s: tokenizer.faster(s) for s in faster}, {s: tokenizer.louder(s) for s in louder})
            if tokenizer.varies_by_id
            else None
        )

    def sample(self, i: int, pitch: np.random.Generator, others: np.random.Generator) -> Variation:
        """Return a random variation of piece `i`.

        Args:
            i: number of the piece.
            pitch: samples the transposition.
            others: samples tempo and velocity; a generator of its own, so that these do not change which crops are sampled.
        """
        shifts = self.transpositions.of_piece(i)
        semitones = shifts[int(pitch.integers(len(shifts)))]
        return Variation(semitones, _sometimes(others, self.tempi), _sometimes(others, self.velocities))

    def num_ids(self, num_varied: int) -> int:
        """Return how many ids are read to have so many after a variation, which may make them fewer."""
        return num_varied if self._tables is not None else (num_varied - 1) * 5 // 4 + 1

    def apply(self, ids: np.ndarray, variation: Variation) -> np.ndarray:
        """Return ids varied as far as the vocabulary allows; they may become fewer or more."""
        if self._tables is None:
            return self._apply_at_once(ids, variation)
        for tables, steps in zip(self._tables, variation, strict=True):
            if steps and len(ids):
                varied = tables[steps][ids]
                if varied.min() >= 0:
                    ids = varied
        return ids

    def _apply_at_once(self, ids: np.ndarray, variation: Variation) -> np.ndarray:
        """Return ids with all of a variation, with the transposition alone, or as they are: what the vocabulary allows."""
        for each in (variation, Variation(variation.semitones)):
            if any(each):
                varied = self.tokenizer.varied(ids, **each._asdict())
                if varied is not None:
                    return varied
        return np.asarray(ids)


def pitch_ends(pitches: Pitches | None) -> np.ndarray | None:
    """Return the lowest and highest pitch of each piece, (pieces, 2) int16, -1 for a piece without; None if none has some."""
    if pitches is None:
        return None
    if not isinstance(pitches, np.ndarray):
        pitches = np.array([(-1, -1) if p is None else p for p in pitches], np.int16).reshape(-1, 2)
    return pitches if (pitches[:, 0] >= 0).any() else None


class WithinPitches:
    """Transpositions that keep each piece between the lowest and the highest pitch of all.

    Args:
        ends: see `pitch_ends`.
        transpose: semitones to choose from.
    """

    def __init__(self, ends: np.ndarray, transpose: range) -> None:
        has_pitch = ends[:, 0] >= 0
        low, high = ends[has_pitch, 0].min(), ends[has_pitch, 1].max()
        first = np.where(has_pitch, np.maximum(min(transpose), low - ends[:, 0]), 0)
        last = np.where(has_pitch, np.minimum(max(transpose), high - ends[:, 1]), 0)
        self._first, self._last = np.minimum(first, 0), np.maximum(last, 0)

    def of_piece(self, i: int) -> Sequence[int]:
        return range(int(self._first[i]), int(self._last[i]) + 1)


class WithinIds:
    """Transpositions that give a piece only ids that some piece has.

    Args:
        pieces: token ids of whole pieces.
        tables: of each transposition to choose from what each id becomes, see `Tokenizer.transposed`.
    """

    def __init__(self, pieces: Sequence[np.ndarray], tables: dict[int, np.ndarray]) -> None:
        ids = [np.unique(piece) for piece in pieces]
        used = np.zeros(len(next(iter(tables.values()))), bool)
        for each in ids:
            used[each] = True
        self._allowed = []
        for each in ids:
            moved = {semitones: table[each] for semitones, table in tables.items()}
            self._allowed.append([s for s, m in moved.items() if s == 0 or ((m >= 0).all() and used[m].all())] or [0])

    def of_piece(self, i: int) -> Sequence[int]:
        return self._allowed[i]


def _is_expressed(table: Callable[[int], np.ndarray]) -> bool:
    """Return whether a variation, `Tokenizer.faster` or `louder`, changes any id."""
    return any((table(s) != np.arange(len(table(s)))).any() for s in (-1, 1))


def _sometimes(rng: np.random.Generator, steps: Sequence[int]) -> int:
    """Return one of the steps with probability 1/2, else 0; takes no random number if there are no steps."""
    return steps[int(rng.integers(len(steps)))] if steps and rng.random() < 0.5 else 0
