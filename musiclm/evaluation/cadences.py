"""Measures of phrases, cadences and endings in four-part writing. One number per piece, None with nothing to count."""

from __future__ import annotations

import itertools

import numpy as np

from .chorale import TRIAD_CLASSES, Voices
from .harmony import best_key

HOLD = 6  # sixteenths in which no voice moves: a fermata, or a phrase's last chord
FINAL = 8  # sixteenths of a final chord that is held
DOMINANT = frozenset({7, 11, 2, 5})  # of the tonic: V with or without its seventh
KEY_BARS = 2  # in the windows of `returns_to_key`


def holds(voices: Voices) -> list[tuple[int, int]]:
    """Return the (first, end) steps of chords that all four voices hold for 1.5 quarters or longer."""
    return [(a, b) for a, b in voices.slices() if b - a >= HOLD and (voices.pitch[:, a] > 0).all()]


def holds_per_16_bars(voices: Voices) -> float | None:
    """Return `holds` x 16 / bars; None without a bar."""
    bars = len(voices.lines) - 1
    return 16 * len(holds(voices)) / bars if bars else None


def regular_gaps(voices: Voices) -> float | None:
    """Return the share of gaps between the beginnings of successive `holds` that are a multiple of half a bar.

    Half a bar is that of the first whole bar, in sixteenths. None with fewer than two holds.
    """
    gaps = [b - a for (a, _), (b, _) in itertools.pairwise(holds(voices))]
    bar = int(np.diff(voices.lines).max())
    return sum(2 * gap % bar == 0 for gap in gaps) / len(gaps) if gaps else None


def holds_on_triads(voices: Voices) -> float | None:
    """Return the share of `holds` whose pitch classes are a triad (as `chorale.triads`); None without a hold."""
    found = [frozenset(p % 12 for p in voices.at(a)) in TRIAD_CLASSES for a, _ in holds(voices)]
    return sum(found) / len(found) if found else None


def holds_by_fifth(voices: Voices) -> float | None:
    """Return the share of `holds` whose bass came by a falling fifth or rising fourth, as in V-I; None without a hold.

    Compared is the bass's last other pitch before the hold's bass, rests left out; a hold whose bass has none does not count.
    """
    found = []
    for begin, _ in holds(voices):
        bass = voices.pitch[3, : begin + 1]
        before = bass[(bass > 0) & (bass != bass[-1])]
        found += [(bass[-1] - before[-1]) % 12 == 5] if len(before) else []
    return float(sum(found) / len(found)) if found else None


def key_of(voices: Voices, begin: int = 0, end: int | None = None) -> int | None:
    """Return the key of steps as `harmony.best_key` does, weighted by sounding time of all voices; None without a pitch."""
    pitch = voices.pitch[:, begin:end]
    counts = np.bincount(pitch[pitch > 0] % 12, minlength=12)
    return best_key(counts) if counts.sum() else None


def returns_to_key(voices: Voices) -> float | None:
    """Return 1 if the last two bars have the key of the first two, else 0; None with fewer than four bars, or silence.

    The key is that of `key_of`. Real excerpts end in the middle of things, so this is .4 for the first 16 bars of chorales.
    """
    lines = voices.lines
    if len(lines) <= 2 * KEY_BARS:
        return None
    keys = key_of(voices, lines[0], lines[KEY_BARS]), key_of(voices, lines[-1 - KEY_BARS], lines[-1])
    return None if None in keys else float(keys[0] == keys[1])


def leading_tone_soprano(voices: Voices) -> float | None:
    """Return the share of the soprano's leading tones over V that resolve to the tonic; see `_resolutions`."""
    return _resolutions(voices, (0,))


def leading_tone_all(voices: Voices) -> float | None:
    """Return the share of all voices' leading tones over V that resolve to the tonic; see `_resolutions`."""
    return _resolutions(voices, (0, 1, 2, 3))


def _resolutions(voices: Voices, which: tuple[int, ...]) -> float | None:
    """Return how many leading tones over V go up a semitone to the tonic, as a share; None without one.

    The key is that of the whole excerpt (`key_of`), local keys are not followed. A note counts if it has the leading tone,
    if at its last sixteenth all pitch classes belong to V7 of the key (in any inversion), and if its voice goes on at once
    with another pitch.
    """
    key = key_of(voices)
    if key is None:
        return None
    tonic = key % 12
    found = []
    for voice in which:
        line = voices.pitch[voice]
        for step in np.flatnonzero((line[:-1] != line[1:]) & (line[:-1] > 0) & (line[1:] > 0)).tolist():
            degrees = {(pitch - tonic) % 12 for pitch in voices.at(step)}
            if degrees <= DOMINANT and (line[step] - tonic) % 12 == 11:
                found.append(line[step + 1] - line[step] == 1)
    return float(sum(found) / len(found)) if found else None


def ends_on_tonic(voices: Voices) -> float | None:
    """Return 1 if the last chord is the tonic triad, else 0; None without a pitch. For whole pieces.

    The key is that of the whole piece (`key_of`); its triad may be major in minor (Picardy third) and may lack the fifth or
    the third; the bass has the tonic.
    """
    key, slices = key_of(voices), voices.slices()
    if key is None or not slices:
        return None
    last = next(a for a, _ in reversed(slices) if voices.at(a))
    sounding = voices.at(last)
    degrees = {(pitch - key) % 12 for pitch in sounding}
    in_triad = degrees <= {0, 4, 7} or (key >= 12 and degrees <= {0, 3, 7})
    return float(min(sounding) % 12 == key % 12 and in_triad)


def ends_held(voices: Voices) -> float | None:
    """Return 1 if the last chord lasts two quarters or longer without a voice moving, else 0; None without a pitch."""
    sounding = [(a, b) for a, b in voices.slices() if voices.at(a)]
    return float(sounding[-1][1] - sounding[-1][0] >= FINAL) if sounding else None
