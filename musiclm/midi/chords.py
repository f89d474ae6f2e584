"""Chord labels by template matching, and chord symbols as musicians write them.

A chord is (root 0 … 11, quality), or `NO_CHORD`. N segments.
"""

from __future__ import annotations

import re

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


SPELLED: dict[str, tuple[str, ...]] = {  # of each quality how its symbols go on behind the root, see `parse_symbol`
    "maj": ("", "maj", "major", "M", "ma", "6", "maj6", "M6", "69", "6/9", "add9", "add2", "add11"),
    "min": ("m", "min", "minor", "mi", "-", "m6", "min6", "-6", "m69", "madd9", "mmaj7", "mM7", "minmaj7", "-maj7"),
    "dim": ("dim", "°", "o", "mb5", "m-5"),
    "aug": ("aug", "+", "#5", "+7", "7#5", "aug7", "7+", "maj7#5", "M7#5", "9#5"),
    "sus4": ("sus4", "sus", "7sus4", "7sus", "9sus4", "9sus", "13sus4"),
    "7": ("7", "dom7", "9", "11", "13", "7b9", "7#9", "7#11", "9#11", "13b9", "7b9b13"),
    "maj7": ("maj7", "ma7", "M7", "j7", "Δ", "Δ7", "maj9", "M9", "maj7#11", "maj13", "M13", "maj11"),
    "min7": ("m7", "min7", "mi7", "-7", "m9", "min9", "-9", "m11", "min11", "m13"),
    "m7b5": ("m7b5", "min7b5", "-7b5", "m7-5", "ø", "ø7", "m9b5", "half-dim", "halfdim"),
    "dim7": ("dim7", "°7", "o7"),
}  # fmt: skip
WRITTEN = {"maj": "", "min": "m", "min7": "m7"}  # others by their own name
NAMES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
NO_CHORD_NAMES = ("N.C.", "NC", "N.C")
_QUALITY = {ending: quality for quality, endings in SPELLED.items() for ending in endings}
_SYMBOL = re.compile(r"([A-G])([#b]?)([^/]*|6/9)(?:/([A-G][#b]?))?")


def parse_symbol(text: str) -> tuple[int, str]:
    """Return the chord of a symbol: C, Am, F#m7, Bbmaj7, G7, C°, Bø, Caug, Dsus4, C/E, N.C., …

    A bass behind "/" is ignored. Other symbols stand for the nearest of `QUALITIES`: C9 for C7, C6 for C, Csus2, whose notes
    it has, for Gsus4.

    Raises:
        ValueError: it is no chord, or it is not clear which one is nearest (C5, C7b5, C7alt).
    """
    if text.strip() in NO_CHORD_NAMES:
        return NO_CHORD
    plain = text.strip().translate(str.maketrans("♯♭−º^", "#b-°Δ", "()"))
    found = _SYMBOL.fullmatch(plain)
    if found:
        root = ("C D EF G A B".index(found[1]) + {"#": 1, "b": -1, "": 0}[found[2]]) % 12
        if found[3] in ("sus2", "7sus2", "9sus2"):
            return (root + 7) % 12, "sus4"
        if found[3] in _QUALITY:
            return root, _QUALITY[found[3]]
    raise ValueError(
        f"'{text}' is no chord that can be asked for: write C, Am, F#m7, Bbmaj7, G7, Bdim, Bm7b5, Caug, Dsus4, …"
    )


def symbol(chord: tuple[int, str]) -> str:
    """Return the symbol of a chord, as `parse_symbol` reads it."""
    root, quality = chord
    return "N.C." if chord == NO_CHORD else NAMES[root] + WRITTEN.get(quality, quality)


def pitch_classes(chord: tuple[int, str]) -> frozenset[int]:
    """Return the pitch classes of a chord, all twelve of no chord."""
    root, quality = chord
    if chord == NO_CHORD:
        return frozenset(range(12))
    return frozenset((root + interval) % 12 for interval in QUALITIES[quality])
