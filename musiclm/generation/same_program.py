"""New notes of a program that several tracks play, such as two violins or the hands of a piano: which track each belongs to.

A model's tokens tell the program of a note, not its track.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from symusic import Track

NoteTuple = tuple[float, float, int, int]  # start and end in ticks, pitch, velocity
CROWDED = 24.0  # semitones: what a note costs that is one more at its onset than its track ever has


class Voice(NamedTuple):
    """How a track plays.

    Attributes:
        pitch: the mean of its notes.
        at_once: the most notes with one onset.
    """

    pitch: float
    at_once: int


def voice(track: Track) -> Voice:
    """Return how a track with notes plays."""
    onsets = Counter(n.time for n in track.notes)
    return Voice(float(np.mean([n.pitch for n in track.notes])), max(onsets.values()))


def distributed(notes: Iterable[NoteTuple], voices: Sequence[Voice]) -> list[list[NoteTuple]]:
    """Return notes (start, end, pitch, velocity) as one list for each voice.

    Notes with one onset keep the order of the voices: those of a higher voice are the higher ones. Among the ways to do so
    the one is taken with the least distance of the pitches to the means of their voices.
    """
    order = sorted(range(len(voices)), key=lambda i: (-voices[i].pitch, i))
    result: list[list[NoteTuple]] = [[] for _ in voices]
    for _, group in itertools.groupby(sorted(notes), key=lambda n: n[0]):
        falling = sorted(group, key=lambda n: -n[2])
        edges = _edges([n[2] for n in falling], [voices[i] for i in order])
        for i, (first, stop) in zip(order, itertools.pairwise(edges), strict=True):
            result[i] += falling[first:stop]
    return result


def _edges(falling: Sequence[int], voices: Sequence[Voice]) -> list[int]:
    """Return where to split falling pitches between falling voices, from 0 to their number: the cheapest way."""
    ways: dict[int, tuple[float, list[int]]] = {0: (0.0, [0])}  # by how many pitches the voices so far have
    for each in voices:
        ways = {
            stop: min(
                (cost + _cost(falling[first:stop], each), [*edges, stop])
                for first, (cost, edges) in ways.items()
                if first <= stop
            )
            for stop in range(len(falling) + 1)
        }
    return ways[len(falling)][1]


def _cost(pitches: Sequence[int], each: Voice) -> float:
    return sum(abs(p - each.pitch) for p in pitches) + CROWDED * max(0, len(pitches) - each.at_once)
