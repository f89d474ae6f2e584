"""The automatic key: pitches outside the key that the music has so far are made less likely.

B batch, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...errors import TokenizerError
from ...evaluation.harmony import SCALES
from ...midi.theory import key_profiles
from ...tokenizers.base import Tokenizer
from ...tokenizers.features.grid import NUM_VOICES
from ...tokenizers.vocabulary import Kind, base_of, expansions, has, is_kind

HALF_LIFE = 64.0  # notes after which one counts half
EVIDENCE = 0.6  # nats for a key by each note whose pitch class fits it by one standard deviation
DOUBT = 6.0  # nats by which a key has to fit better than none; log(24) of it for the number of keys
LEAST = 1e-4  # a pitch keeps this share of its likelihood at any strength

OUTSIDE = 1 - SCALES
"""Which pitch classes are outside each key, (24, 12), in the order of `theory.key_profiles`; minor has both sevenths."""


class KeyState(NamedTuple):
    """What was counted of each batch element.

    Attributes:
        histogram: notes of each pitch class, the older the less, (B, 12).
        cells: on a grid the last cell of each voice, that of the next voice first, (B, 4).
    """

    histogram: np.ndarray
    cells: np.ndarray


class KeyLeaning:
    """A constraint that makes pitches outside the key of the music so far less likely. Drums neither count nor change.

    A histogram of the pitch classes of notes, which forgets with a half-life, is compared with the profiles of the 24 major
    and minor keys (Krumhansl and Schmuckler; Krumhansl 1990, chapter 4). Its scalar products with them are taken as log
    likelihoods of the keys, beside that of no key: nothing is certain before some notes have been counted, or in music that
    has no key. A pitch is then 1 - strength * P times as likely as before, P being the probability of the keys that it is
    outside of. On a grid a note begins where a voice changes its pitch, and a voice may hold a pitch at no cost.

    Args:
        tokenizer: any whose ids are pitches; merged ids count as what they stand for.
        strength: 0, no preference, to 1.

    Raises:
        TokenizerError: no id is a pitch.
    """

    def __init__(self, tokenizer: Tokenizer, strength: float) -> None:
        base = base_of(tokenizer.vocabulary)
        is_pitch = is_kind(base, Kind.NOTE_ON, Kind.CELL, Kind.PITCH)
        if not is_pitch.any():
            raise TokenizerError(f"no id of the tokenizer '{tokenizer.name}' is one pitch: no key can be estimated")
        self._strength = strength
        # the last row is the padding of what merged ids stand for
        self._classes = np.zeros((len(base) + 1, 12))
        for i in np.flatnonzero(is_pitch).tolist():
            self._classes[i, base[i].value % 12] = 1.0
        self._is_cell = np.append(is_kind(base, Kind.CELL, Kind.SILENCE), False)
        self._has_cells = has(base, Kind.CELL)
        each = expansions(tokenizer.vocabulary)
        self._base_ids = np.full((len(each), max(map(len, each))), len(base))
        for row, base_ids in zip(self._base_ids, each, strict=True):
            row[: len(base_ids)] = base_ids
        self._num_begun = self._classes[self._base_ids].sum(1).T  # notes of each class that an id begins, (12, V)

    def start(self, batch: int) -> KeyState:
        return KeyState(np.zeros((batch, 12)), np.zeros((batch, NUM_VOICES), np.int64))

    def step(self, state: KeyState, token: Tensor) -> KeyState:
        for ids in self._base_ids[token.cpu().numpy()].T:
            state = self._after(state, ids)
        return state

    def allow(self, state: KeyState) -> Tensor:
        kept = np.maximum(1 - self._strength * self.outside(state), LEAST)
        bias = torch.from_numpy((np.log(kept) @ self._num_begun).astype(np.float32))
        if self._has_cells:
            bias.scatter_(1, torch.from_numpy(state.cells[:, :1]), 0.0)
        return bias

    def outside(self, state: KeyState) -> np.ndarray:
        """Return the probability that each pitch class is outside the key, (B, 12)."""
        scores = EVIDENCE * state.histogram @ key_profiles().T - DOUBT
        none = np.zeros((len(scores), 1))
        most = np.maximum(scores.max(1, keepdims=True), none)
        weights = np.exp(scores - most)
        probabilities: np.ndarray = weights / (weights.sum(1, keepdims=True) + np.exp(none - most))
        return probabilities @ OUTSIDE

    def _after(self, state: KeyState, ids: np.ndarray) -> KeyState:
        """Return the state after a base id of each element, (B,)."""
        begun, cells = self._classes[ids], state.cells
        if self._has_cells:
            begun = begun * (ids != cells[:, 0])[:, None]
            moved = np.concatenate([cells[:, 1:], ids[:, None]], 1)
            cells = np.where(self._is_cell[ids][:, None], moved, cells)
        if not begun.any():
            return KeyState(state.histogram, cells)
        return KeyState(state.histogram * 0.5 ** (begun.sum(1, keepdims=True) / HALF_LIFE) + begun, cells)
