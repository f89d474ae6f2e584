"""Bars that repeat others: what the repeated bar has at this place is made more likely. `score` tokens with a plan.

B batch, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...midi.theory import DRUMS
from ...tokenizers.base import Tokenizer
from ...tokenizers.vocabulary import Kind, ids_of

CERTAIN = 1e4  # nats, at a strength of 1: beside it the probability of any other token is exactly 0
NOTES = (Kind.NOTE_ON, Kind.DRUM_ON)
CHORDS = 2  # of a bar


class Note(NamedTuple):
    """A note, as ids."""

    position: int
    program: int
    pitch: int
    duration: int


class Bar(NamedTuple):
    """The notes of a bar in the order of the stream, and the ids of its chords."""

    notes: tuple[Note, ...] = ()
    chords: tuple[int, ...] = ()


class Place(NamedTuple):
    """The state of one batch element; ids are -1 where there is none.

    Attributes:
        past: bars that are over, the latest first; as many as a repeat reaches back.
        bar: the present one.
        has_begun: whether a bar has.
        back: how many bars back is the one that this one repeats; 0 for none.
        kind: of the last token.
        position: id of the last one in this bar.
        program: id of the last one.
        pitch: id of the last note at this position and of this program.
    """

    past: tuple[Bar, ...] = ()
    bar: Bar = Bar()
    has_begun: bool = False
    back: int = 0
    kind: Kind = Kind.BOS
    position: int = -1
    program: int = -1
    pitch: int = -1


class Repeats:
    """A constraint that makes ids other than that of the repeated bar 1 - strength times as likely.

    That id is the next one of the repeated bar, in the order of position, program and pitch, behind what this bar has so far:
    where a note is left out or added, the others are still found. A duration is that of the same note; after a note that the
    repeated bar does not have, none is preferred. No velocity is: real repeats vary loudness more than models do. The chords
    of the bar are preferred too. Where they are asked for and differ, no pitch is, drums excepted: the rhythm alone comes
    again. At the end of the bar EOS is as welcome as the next bar. What other constraints ban stays banned.

    Args:
        tokenizer: with repeats in its vocabulary.
        strength: 0, no preference, to 1.
        has_chords: whether the chords are asked for.
    """

    def __init__(self, tokenizer: Tokenizer, strength: float, *, has_chords: bool = False) -> None:
        table = self._table = tokenizer.vocabulary
        self._has_chords = has_chords
        self._bonus = -math.log(1 - strength) if strength < 1 else CERTAIN
        self._ends = [*ids_of(table, Kind.BAR).tolist(), tokenizer.eos]
        self._most = max((table[i].value or 0 for i in ids_of(table, Kind.REPEAT).tolist()), default=0)
        # of each id its place in the order of the stream: drums come last
        self._order = [
            len(table) if kind == Kind.PROGRAM and value == DRUMS else value if isinstance(value, int) else 0
            for kind, value in table
        ]

    def start(self, batch: int) -> list[Place]:
        return [Place()] * batch

    def step(self, state: list[Place], token: Tensor) -> list[Place]:
        return [self._after(place, i) for place, i in zip(state, token.tolist(), strict=True)]

    def allow(self, state: list[Place]) -> Tensor | None:
        found = [self.preferred(place) for place in state]
        if not any(found):
            return None
        bias = torch.zeros(len(state), len(self._table))
        for row, ids in enumerate(found):
            bias[row, list(ids)] = self._bonus
        return bias

    def preferred(self, place: Place) -> Sequence[int]:
        """Return the ids that the repeated bar has at this place; none where it does not say."""
        if not 0 < place.back <= len(place.past):
            return ()
        repeated, kind = place.past[place.back - 1], place.kind
        num_chords = len(place.bar.chords)
        if kind in (Kind.REPEAT, Kind.CHORD) and num_chords < CHORDS:
            return repeated.chords[num_chords : num_chords + 1]
        if kind in NOTES:
            return ()
        if kind == Kind.VELOCITY:
            now = place.position, place.program, place.pitch
            return [n.duration for n in repeated.notes if (n.position, n.program, n.pitch) == now][:1]
        behind = self._rank_so_far(place)
        note = next((n for n in repeated.notes if self._rank(n.position, n.program, n.pitch) > behind), None)
        if note is None:
            return self._ends
        if note.position != place.position:
            return (note.position,)
        if note.program != place.program:
            return (note.program,)
        is_moved = self._has_chords and place.bar.chords != repeated.chords
        return () if is_moved and self._table[note.pitch].kind == Kind.NOTE_ON else (note.pitch,)

    def _rank(self, position: int, program: int, pitch: int) -> tuple[int, int, int]:
        """Return the place of a note in the order of its bar."""
        return self._order[position], self._order[program], self._order[pitch]

    def _rank_so_far(self, place: Place) -> tuple[int, int, int]:
        """Return a rank that the notes so far do not exceed, and all that may follow do."""
        if place.position < 0:
            return -1, -1, -1
        if place.pitch >= 0:
            return self._rank(place.position, place.program, place.pitch)
        return self._order[place.position], self._order[place.program] if place.kind == Kind.PROGRAM else -1, -1

    def _after(self, place: Place, token: int) -> Place:
        kind, value = self._table[token]
        if kind == Kind.BAR:
            past = (place.bar, *place.past[: self._most - 1]) if place.has_begun else ()
            return Place(past, has_begun=True, kind=kind, program=place.program)
        if not place.has_begun:
            return place
        if kind == Kind.REPEAT:
            return place._replace(kind=kind, back=value or 0)
        if kind == Kind.CHORD:
            return place._replace(kind=kind, bar=place.bar._replace(chords=(*place.bar.chords, token)))
        if kind == Kind.POSITION:
            return place._replace(kind=kind, position=token, pitch=-1)
        if kind == Kind.PROGRAM:
            return place._replace(kind=kind, program=token, pitch=-1)
        if kind in NOTES:
            return place._replace(kind=kind, pitch=token)
        if kind == Kind.DURATION:
            note = Note(place.position, place.program, place.pitch, token)
            return place._replace(kind=kind, bar=place.bar._replace(notes=(*place.bar.notes, note)))
        return place._replace(kind=kind)
