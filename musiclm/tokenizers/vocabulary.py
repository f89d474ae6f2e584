"""The vocabulary table: for each id of a tokenizer what kind of token it is, and its value.

Whatever asks "what does this id mean" (constraints, stopping criteria, plots) reads this table and no tokenizer's own ids.
The functions here take any table. A token that stands for several base tokens (byte-pair encoding) has the kind MERGED, and
its value is the base ids: functions either skip it or go through these.

V vocabulary size.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum, auto
from typing import Any, NamedTuple

import numpy as np


class Kind(IntEnum):
    """What kind of token an id is. The comment gives the type of its value; None for kinds without one."""

    OTHER = 0  # str: the tokenizer's own text
    # special tokens: not music
    PAD = auto()  # None
    BOS = auto()  # None; begins a piece
    EOS = auto()  # None; ends a piece
    MASK = auto()  # None; stands for a token that is missing
    REARRANGEMENT = auto()  # int: number of the permutation in which the piece is written; takes the place of BOS
    INFILL_CONTEXT = auto()  # None; the given context of a masked span follows
    INFILL_SPAN = auto()  # int or None: number of bars; the tokens of the masked span follow
    # time
    BAR = auto()  # None, or the tokenizer's own text ("End", a bar number)
    BEAT = auto()  # None
    POSITION = auto()  # int: steps from the bar line
    TIME_SHIFT = auto()  # Fraction: beats, or seconds where `Tokenizer.in_seconds`
    REST = auto()  # Fraction of beats, or None
    TIME_SIGNATURE = auto()  # (numerator, denominator)
    TEMPO = auto()  # float: quarters per minute
    # who plays
    PROGRAM = auto()  # int: General MIDI program 0 … 127, -1 for drums
    TRACK = auto()  # the tokenizer's own text ("Start", "End"); tracks come one after the other
    # notes
    NOTE_ON = auto()  # int: MIDI pitch of the note that begins, whether its end is said by a duration or by NOTE_OFF
    DRUM_ON = auto()  # int: the same for a drum
    NOTE_OFF = auto()  # int: MIDI pitch of the note that ends
    DRUM_OFF = auto()  # int
    VELOCITY = auto()  # int: MIDI velocity
    DURATION = auto()  # Fraction: beats, or seconds where `Tokenizer.in_seconds`
    MICRO_TIMING = auto()  # int: steps
    PITCH = auto()  # int: MIDI pitch of the PATTERN that follows; begins no note by itself
    DRUM_PITCH = auto()  # int
    PATTERN = auto()  # int: number of notes that begin
    PITCH_INTERVAL = auto()  # int: semitones from an earlier note to the one that begins
    # the plan of a piece, see `score_plan`: None stands for unknown
    STYLE = auto()  # str: one of `score_plan.STYLES`
    LENGTH = auto()  # int: bars of the piece
    SECTION = auto()  # str: a letter; of the bar that begins
    REPEAT = auto()  # int: how many bars back is the bar that this one repeats, 0 for new material
    CHORD = auto()  # (root 0 … 11, quality) of half a bar; (-1, "none") for no chord
    # voices on a grid: one token for each voice and step
    CELL = auto()  # int: MIDI pitch that the voice has in this step
    SILENCE = auto()  # None; the voice is silent in this step
    # byte-pair encoding
    MERGED = auto()  # tuple of int: base ids


class Token(NamedTuple):
    """The meaning of one id.

    Attributes:
        kind: what it is.
        value: its type depends on the kind, see `Kind`.
    """

    kind: Kind
    value: Any = None


Vocabulary = Sequence[Token]
"""The token of each id, V of them."""

SPECIAL = frozenset(
    {Kind.PAD, Kind.BOS, Kind.EOS, Kind.MASK, Kind.REARRANGEMENT, Kind.INFILL_CONTEXT, Kind.INFILL_SPAN}
)
PLAN = (Kind.STYLE, Kind.LENGTH, Kind.SECTION, Kind.REPEAT, Kind.CHORD)
BEGINS = frozenset({Kind.NOTE_ON, Kind.DRUM_ON})
ENDS = frozenset({Kind.NOTE_OFF, Kind.DRUM_OFF})
SHAPES = frozenset({Kind.VELOCITY, Kind.DURATION, Kind.MICRO_TIMING})  # of the note that began last
HELD_FROM_PROMPT = (Kind.PROGRAM, Kind.TIME_SIGNATURE, Kind.TEMPO)


def is_kind(vocabulary: Vocabulary, *kinds: Kind) -> np.ndarray:
    """Return which ids are of one of some kinds, (V,) booleans."""
    return np.array([token.kind in kinds for token in vocabulary], bool)


def ids_of(vocabulary: Vocabulary, *kinds: Kind) -> np.ndarray:
    """Return the ids of some kinds in rising order, (N,) int64."""
    return np.flatnonzero(is_kind(vocabulary, *kinds))


def find(vocabulary: Vocabulary, kind: Kind, value: Any = None) -> int:
    """Return the first id of a kind with a value; -1 if there is none."""
    return next((i for i, token in enumerate(vocabulary) if token.kind == kind and token.value == value), -1)


def has(vocabulary: Vocabulary, *kinds: Kind) -> bool:
    """Return whether any id is of one of some kinds."""
    return any(token.kind in kinds for token in vocabulary)


def base_of(vocabulary: Vocabulary) -> Vocabulary:
    """Return the table without merged tokens, which come after all others."""
    return [token for token in vocabulary if token.kind != Kind.MERGED]


def expansions(vocabulary: Vocabulary) -> list[tuple[int, ...]]:
    """Return for each id the base ids that it stands for: itself, unless it is merged."""
    return [token.value if token.kind == Kind.MERGED else (i,) for i, token in enumerate(vocabulary)]


def is_special(vocabulary: Vocabulary) -> np.ndarray:
    """Return which ids are special tokens and no music, (V,) booleans."""
    return is_kind(vocabulary, *SPECIAL)


def pitches_on(vocabulary: Vocabulary) -> np.ndarray:
    """Return the MIDI pitch of the note that each id begins or, in a cell, sustains, (V,); -1 for none and for drums."""
    return np.array([t.value if t.kind in (Kind.NOTE_ON, Kind.CELL) else -1 for t in vocabulary], np.int64)


def pitch_ids(vocabulary: Vocabulary) -> dict[int, int]:
    """Return the id of each pitch, drums excepted; of a vocabulary with note-on and note-off the former."""
    return {t.value: i for i, t in enumerate(vocabulary) if t.kind in (Kind.NOTE_ON, Kind.CELL, Kind.PITCH)}


def later_ids(vocabulary: Vocabulary) -> np.ndarray | None:
    """Return the ids that lead to a later time, bars where there are any; None where there are none of these."""
    for kinds in ((Kind.BAR,), (Kind.TIME_SHIFT, Kind.REST, Kind.BEAT)):
        if len(found := ids_of(vocabulary, *kinds)):
            return found
    return None


def new_to_prompt(vocabulary: Vocabulary, ids: np.ndarray) -> np.ndarray:
    """Return the ids that would bring a program, time signature or tempo that a prompt does not have, (N,) int64.

    Args:
        vocabulary: any. A merged token is new if one of its base ids is.
        ids: base ids of the prompt. Only its last time signature is kept; a kind that it never says is not limited.
    """
    ids = np.asarray(ids)
    found = {kind: [i for i in ids.tolist() if vocabulary[i].kind == kind] for kind in HELD_FROM_PROMPT}
    found[Kind.TIME_SIGNATURE] = found[Kind.TIME_SIGNATURE][-1:]
    is_new = [bool(found.get(token.kind)) and i not in found[token.kind] for i, token in enumerate(vocabulary)]
    return np.array([i for i, base in enumerate(expansions(vocabulary)) if any(is_new[b] for b in base)], np.int64)
