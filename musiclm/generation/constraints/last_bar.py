"""The last bar: a piece of so many bars ends with the last of them, on its tonic."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

import numpy as np

from ...evaluation.harmony import best_key
from ...tokenizers.base import Tokenizer
from ...tokenizers.vocabulary import Kind, find, ids_of, is_kind
from .base import Grammar

LONGEST = 48  # of a note, in twelfths of a beat: the tonic is no pedal point


class LastBarState(NamedTuple):
    """The state of one batch element.

    Attributes:
        inner: of the grammar.
        bars: how many have begun.
        plays: whether a note has begun in this bar.
        pitch: the pitch class of the last note; -1 for a drum, or none.
        weights: for how long each pitch class has sounded, in twelfths of a beat.
        tonic: id of the chord of the last bar; -1 before it, or where none is known.
    """

    inner: Any
    bars: int = 0
    plays: bool = False
    pitch: int = -1
    weights: tuple[int, ...] = (0,) * 12
    tonic: int = -1


class LastBar(Grammar):
    """A grammar of pieces that have exactly so many bars.

    EOS is allowed where another bar would be behind the last, as soon as a note has begun in it. A bar is allowed there, too:
    whoever samples takes it for the end. A model that would go on does so, and does not fill the last bar instead. Where bars
    have chords, that of the last bar is the tonic triad of the piece: the key that its notes before have, weighted by duration,
    see `harmony.best_key`.

    Args:
        tokenizer: of the ids.
        inner: its grammar; it never allows EOS.
        bars: of the piece.
        tonic: whether the last chord is the tonic.
    """

    def __init__(self, tokenizer: Tokenizer, inner: Grammar, bars: int, *, tonic: bool = True) -> None:
        super().__init__(inner.vocab_size)
        table = tokenizer.vocabulary
        self._inner, self._bars, self._eos = inner, bars, tokenizer.eos
        self._bar, self._chords = ids_of(table, Kind.BAR), ids_of(table, Kind.CHORD)
        self._is_bar = is_kind(table, Kind.BAR).tolist()
        self._pitch = {
            i: t.value % 12 if t.kind == Kind.NOTE_ON else -1 for i, t in enumerate(table) if _is_note(t.kind)
        }
        self._durations = {i: min(LONGEST, round(12 * t.value)) for i, t in enumerate(table) if t.kind == Kind.DURATION}
        qualities = ["maj"] * 12 + ["min"] * 12
        self._tonics = [find(table, Kind.CHORD, (key % 12, quality)) for key, quality in enumerate(qualities)]
        self._has_tonic = tonic

    def beginning(self) -> LastBarState:
        return LastBarState(self._inner.beginning())

    def alike(self, token: int) -> int:
        return token

    def cache_key(self, state: LastBarState) -> Hashable:
        return self._inner.cache_key(state.inner), state.plays, state.tonic

    def mask(self, state: LastBarState) -> np.ndarray:
        return self._inner.mask(state.inner) if state.bars != self._bars else super().mask(state)

    def following(self, state: LastBarState) -> list[np.ndarray]:
        allowed = self._inner.mask(state.inner) == 0
        may_end = bool(allowed[self._bar].any())
        allowed[self._bar] = False
        if state.tonic >= 0 and allowed[state.tonic]:
            allowed[self._chords] = False
            allowed[state.tonic] = True
        if may_end and (state.plays or not allowed.any()):
            allowed[self._bar] = allowed[self._eos] = True
        return [np.flatnonzero(allowed)]

    def after(self, state: LastBarState, token: int) -> LastBarState:
        inner = self._inner.after(state.inner, token)
        _, bars, plays, pitch, weights, tonic = state
        if self._is_bar[token]:
            bars, plays = bars + 1, False
            if bars == self._bars and self._has_tonic and any(weights):
                tonic = self._tonics[best_key(np.array(weights))]
        elif token in self._pitch:
            plays, pitch = True, self._pitch[token]
        elif token in self._durations and pitch >= 0:
            weights = (*weights[:pitch], weights[pitch] + self._durations[token], *weights[pitch + 1 :])
        return LastBarState(inner, bars, plays, pitch, weights, tonic)


def _is_note(kind: Kind) -> bool:
    return kind in (Kind.NOTE_ON, Kind.DRUM_ON)
