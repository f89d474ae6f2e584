"""The input features of `score` for whole sequences at once, by array operations: those of `score.ScoreState`.

N tokens of all sequences, F features.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .flat import Flat, Grouped, Latest
from .score import (
    AHEAD,
    BAR,
    DRUM,
    DURATION,
    ECHOES,
    KEYS,
    MAX_INTERVAL,
    MAX_NOTES,
    MAX_OWN,
    PITCH,
    POSITION,
    PROGRAM,
    REPEAT,
    STYLE,
    VELOCITY,
    WRITE,
    Vocabulary,
)  # fmt: skip

NUM_PROGRAMS = 131  # as a feature: none yet, drums, then 0 … 127


def features_of(vocabulary: Vocabulary, sequences: Sequence[np.ndarray]) -> np.ndarray:
    """Return the features of sequences, each from its beginning, one behind the other: (N, F) int64.

    They equal those of a `ScoreState` for each sequence, but are computed with array operations.
    """
    parts = [part for ids in sequences for part in resumed(vocabulary.kind_table[ids])]
    if len(parts) == len(sequences):
        return _features_of(vocabulary, Flat(sequences))
    pieces, chosen, size = [], [], 0
    for ids, of_sequence in zip(sequences, (resumed(vocabulary.kind_table[ids]) for ids in sequences), strict=True):
        for before, begin, stop in of_sequence:
            pieces.append(np.concatenate([ids[before], ids[begin:stop]]))
            chosen.append(np.arange(size + len(before), size + len(pieces[-1])))
            size += len(pieces[-1])
    return _features_of(vocabulary, Flat(pieces))[np.concatenate(chosen)]


def resumed(kinds: np.ndarray) -> list[tuple[np.ndarray, int, int]]:
    """Return the parts of a sequence: the indices of what stands before a part, and where it begins and stops.

    WRITE resumes where the last AHEAD stands that no other WRITE has resumed.
    """
    before, begin = np.zeros(0, np.int64), 0
    parts, resumable = [], []
    for at in np.flatnonzero((kinds == AHEAD) | (kinds == WRITE)).tolist():
        if kinds[at] == AHEAD:
            resumable.append(np.concatenate([before, np.arange(begin, at)]))
        elif resumable:
            parts.append((before, begin, at))
            before, begin = resumable.pop(), at
    return [*parts, (before, begin, len(kinds))]


def _features_of(vocabulary: Vocabulary, flat: Flat) -> np.ndarray:
    """Return the features of sequences in which WRITE resumes nothing, (N, F)."""
    size = len(vocabulary.kinds)
    ids, first = flat.ids, flat.first
    kinds, values = vocabulary.kind_table[ids], vocabulary.value_table[ids]
    is_bar, is_pitch = kinds == BAR, kinds == PITCH
    is_note = is_pitch | (kinds == DRUM)
    bars = flat.running_sum(is_bar)  # that are over
    in_header = (bars == 0) & (flat.running_sum(kinds == STYLE) > 0)
    programs = Latest((kinds == PROGRAM) & ~in_header, first)
    program = programs.value(values[programs.at] + 2)
    places = Latest(is_bar | (kinds == POSITION), first)
    position = places.value(np.where(is_bar, 0, ids)[places.at])
    pitch, before, velocity, duration = _said(flat, kinds, program)
    place = (np.cumsum(is_bar) + flat.sequence) * size + position
    own = Grouped(place * NUM_PROGRAMS + program, is_note, ids)
    begin, count = own.find(own.keys - size * NUM_PROGRAMS)
    theirs = own.item(begin[own.group], count[own.group], own.seen, 0)
    num_here, lowest = _here(flat, is_note, is_pitch, places, size)
    pitches = Latest(is_pitch, first)
    last = pitches.value(ids[pitches.at])

    def interval(start: np.ndarray, end: np.ndarray) -> np.ndarray:
        semitones = np.clip(end - start, -MAX_INTERVAL, MAX_INTERVAL) + MAX_INTERVAL + 1
        return np.where((vocabulary.kind_table[start] == PITCH) & (vocabulary.kind_table[end] == PITCH), semitones, 0)

    echoes = _echoes(vocabulary, flat, kinds, place, bars, [_backs(flat, kinds, values)] if vocabulary.has_plan else [])
    columns = [
        program,
        position,
        interval(pitch, before),
        interval(pitch, last),
        interval(pitch, lowest),
        _degrees(vocabulary, flat, kinds, values, pitch),
        velocity,
        duration,
        np.minimum(num_here, MAX_NOTES),
        np.minimum(own.seen, MAX_OWN),
        *echoes[: len(ECHOES)],
        np.where(bars > 0, theirs, 0),
        pitch,
        *echoes[len(ECHOES) :],
    ]
    for i, numbers in vocabulary.numbers.items():
        columns[i] = numbers[columns[i]]
    return np.stack(columns).T


def _backs(flat: Flat, kinds: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return how many bars back is the bar that this one is said to repeat, (N,); 0 while that is not said, and for none."""
    begin = np.maximum(flat.first, np.maximum.accumulate(np.where(kinds == BAR, flat.index, 0)))
    said = np.maximum.accumulate(np.where(kinds == REPEAT, flat.index, -1))
    return np.where(said >= begin, values[said], 0)


def _said(flat: Flat, kinds: np.ndarray, program: np.ndarray) -> list[np.ndarray]:
    """Return of each token's program the ids of its last pitch and the one before, its last velocity and duration."""
    key = flat.sequence * NUM_PROGRAMS + program
    order = np.argsort(key, kind="stable")
    key, ids, kinds = key[order], flat.ids[order], kinds[order]
    starts = np.append(True, key[1:] != key[:-1])[: len(key)]
    first = np.maximum.accumulate(np.where(starts, flat.index, 0))
    notes, velocities, durations = (
        Latest(which, first) for which in ((kinds == PITCH) | (kinds == DRUM), kinds == VELOCITY, kinds == DURATION)
    )
    found = np.empty((4, len(ids)), np.int64)
    for i, (events, back) in enumerate(((notes, 0), (notes, 1), (velocities, 0), (durations, 0))):
        found[i, order] = events.value(ids[events.at], back)
    return list(found)


def _here(
    flat: Flat, is_note: np.ndarray, is_pitch: np.ndarray, places: Latest, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of notes since the last bar line or position, and the lowest pitch of them, an id or 0."""
    stretch = np.zeros(len(flat.ids), np.int64)
    stretch[places.at] = 1
    stretch[flat.index == flat.first] = 1
    begin = np.flatnonzero(stretch)
    stretch = np.cumsum(stretch) - 1
    notes = np.cumsum(is_note)
    num = notes - (notes - is_note)[begin][stretch]
    below = stretch * (size + 1)  # a stretch's ids lie below those of all stretches before it
    lowest = np.minimum.accumulate(np.where(is_pitch, flat.ids, size) - below) + below
    return num, np.where(lowest < size, lowest, 0)


def _degrees(
    vocabulary: Vocabulary, flat: Flat, kinds: np.ndarray, values: np.ndarray, pitch: np.ndarray
) -> np.ndarray:
    """Return which degree of the key each pitch is, an id of the vocabulary: see `ScoreState`."""
    is_pitch = vocabulary.kind_table[pitch] == PITCH
    durations = Latest((kinds == DURATION) & is_pitch, flat.first)
    at = durations.at
    if not len(at):
        return np.zeros(len(flat.ids), np.int64)
    classes = vocabulary.value_table[pitch] % 12
    of_key = KEYS.T[classes[at]] * values[at, None]
    sums = np.cumsum(of_key, 0)
    begins = np.append(True, np.diff(flat.sequence[at]) > 0)
    sums -= (sums - of_key)[begins][np.cumsum(begins) - 1]
    mode, tonic = np.divmod(sums.argmax(1), 12)
    first = durations.value(1 + 12 * mode)
    return np.where(is_pitch & (first > 0), first + (classes - durations.value(tonic)) % 12, 0)


def _echoes(
    vocabulary: Vocabulary,
    flat: Flat,
    kinds: np.ndarray,
    place: np.ndarray,
    bars: np.ndarray,
    backs: list[np.ndarray],
) -> list[np.ndarray]:
    """Return the ids that would follow, were this bar one of those before: those of `ECHOES`, then of each of `backs`.

    Args:
        backs: how many bars ago, (N,) each; 0 for none.
    """
    size = len(vocabulary.kinds)
    at_place = Grouped(place, ~np.isin(kinds, (BAR, POSITION, AHEAD, WRITE)), flat.ids)
    group = at_place.group
    found = []
    steps: list[int | np.ndarray] = [*ECHOES, *backs]
    for ago in steps:
        is_same = isinstance(ago, int)  # for all tokens at a place
        then = at_place.keys - ago * size if is_same else place - ago * size
        begin, count = at_place.find(then)
        following = at_place.following(then)
        following = np.where(following // size == then // size, following % size, vocabulary.bar)
        if is_same:
            begin, count, following = begin[group], count[group], following[group]
        echo = at_place.item(begin, count, at_place.seen, following)
        found.append(np.where((bars >= ago) & (np.asarray(ago) > 0), echo, 0))
    return found
