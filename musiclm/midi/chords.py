"""Chord labels by template matching, and chord symbols as musicians write them.

A chord is (root 0 … 11, quality), or `NO_CHORD`. N segments.
"""

from __future__ import annotations

import numpy as np

QUALITIES: dict[str, tuple[int, ...]] = {  # semitones above the root
    "maj": (0, 4, 7),
    "min": (0, 3, 7),
    "dim": (0, 3, 6),
    "aug": (0, 4, 8),
    "sus4": (0, 5, 7),
    "7": (0, 4, 7, 10),
    "maj7": (0, 4, 7, 11),
    "min7": (0, 3, 7, 10),
    "m7b5": (0, 3, 6, 10),
    "dim7": (0, 3, 6, 9),
}
NO_CHORD = (-1, "none")
CHORDS: list[tuple[int, str]] = [(root, quality) for root in range(12) for quality in QUALITIES]
# what follows is tuned on songs of POP909 for the root and for major against minor: see benchmarks/chord_labels.py
MISSING = 0.1  # what a chord's note that does not sound costs, as a share of the weight
SOUNDS = 0.02  # the least share of a pitch class that sounds
RARE = {"7": 0.12, "maj7": 0.25, "min7": 0.25, "m7b5": 0.25, "dim7": 0.2, "dim": 0.1, "aug": 0.3, "sus4": 0.35}
IS_BASS = 0.3  # what a root in the bass adds
LEAST = 0.2  # of the weight that has to be inside less outside


def _templates() -> tuple[np.ndarray, np.ndarray]:
    inside = np.zeros((len(CHORDS), 12))
    for i, (root, quality) in enumerate(CHORDS):
        inside[i, [(root + interval) % 12 for interval in QUALITIES[quality]]] = 1
    return inside, np.array([RARE.get(quality, 0.0) for _, quality in CHORDS])


INSIDE, COST = _templates()


def label(weights: np.ndarray, bass: np.ndarray) -> np.ndarray:
    """Return the best chord of each segment, (N,) indices of `CHORDS`; -1 for no chord.

    Args:
        weights: for how long each pitch class sounds, (N, 12).
        bass: the pitch class of the lowest note, (N,); -1 for none.
    """
    total = weights.sum(1, keepdims=True)
    share = weights / np.maximum(total, 1e-9)
    score = (2 * share - MISSING * (share < SOUNDS)) @ INSIDE.T - 1 - COST
    has_bass = np.flatnonzero(bass >= 0)
    roots = np.array([root for root, _ in CHORDS])
    score[has_bass] += IS_BASS * (roots[None] == bass[has_bass, None])
    best = score.argmax(1)
    is_chord = (score[np.arange(len(best)), best] >= LEAST) & (total[:, 0] > 0) & ((share >= SOUNDS).sum(1) > 1)
    return np.where(is_chord, best, -1)
