"""Features of the judge apart that follow sonority: Fourier spectrum of pitch classes, Tonnetz, spiral array, roughness.

Frozen; see docs/concepts/judge.md.
"""

from __future__ import annotations

import itertools
from functools import lru_cache

import numpy as np
from judge_music import CHORD, NAN, Music, Values, autocorrelation, deviation, mean

PARTIALS, ROLL_OFF = 6, 0.88  # of a note: amplitudes 0.88^i, as Sethares 1993
HARTE_RADII = (1.0, 1.0, 0.5)  # of fifths, minor thirds, major thirds
SPIRAL_HEIGHT = float(np.sqrt(2 / 15))  # of a fifth, for a radius of 1; Chew 2002


def _shares(chroma: np.ndarray) -> np.ndarray:
    """Return rows divided by their sums, without the rows that are empty."""
    total = chroma.sum(axis=1, keepdims=True)
    return np.asarray(chroma[total[:, 0] > 1e-9] / total[total[:, 0] > 1e-9])


def pitch_class_spectrum(music: Music) -> Values:
    """Mean magnitude of Fourier coefficients 2, 3, 4 and 6 of the pitch classes' lengths in stretches of four quarters.

    |sum_c p(c) exp(-2 pi i k c / 12)|, p the shares of the pitch classes. The fifth, diatonicity, is left out: it is what
    scale measures see. Quinn, "General equal-tempered harmony", 2006; Yust 2019.
    """
    whole = len(music.chroma) // 4 * 4
    part = _shares(music.chroma[:whole].reshape(-1, 4, 12).sum(axis=1))
    magnitude = np.abs(np.fft.fft(part, axis=1))
    return {f"dft_{k}": mean(magnitude[:, k]) for k in (2, 3, 4, 6)}


def beats(music: Music) -> Values:
    """Features of successive quarters: Fourier coefficients 3 and 4 (see `pitch_class_spectrum`) of each, mean magnitude.

    common_tones: mean number of pitches that sound at the beginnings of two successive quarters, over the mean number that
    sound. pitch_classes_sd: standard deviation of the number of pitch classes there. Cohn, "Audacious Euphony", 2012.
    """
    magnitude = np.abs(np.fft.fft(_shares(music.chroma), axis=1))
    times = np.arange(int(music.length))[:, None]
    on = (music.start <= times + CHORD) & (music.end > times + CHORD)
    chords = [set(music.pitch[row].tolist()) for row in on]
    kept = np.array([len(a & b) for a, b in itertools.pairwise(chords)], float)
    size = np.array([len(chord) for chord in chords], float)
    return {
        "dft_beat_3": mean(magnitude[:, 3]),
        "dft_beat_4": mean(magnitude[:, 4]),
        "common_tones": mean(kept) / float(size.mean()) if size.any() else NAN,
        "pitch_classes_sd": deviation(np.array([len({p % 12 for p in chord}) for chord in chords])),
    }


def tonnetz(music: Music) -> Values:
    """Movement of the tonal centroid from quarter to quarter: mean, deviation, autocorrelation at four quarters.

    The centroid is sum_c p(c) phi(c) with phi on the circles of fifths, minor and major thirds; movement is its Euclidean
    distance.
    Harte, Sandler and Gasser, "Detecting harmonic change in musical audio", 2006.
    """
    pitch_class = np.arange(12)
    circles = [7 * np.pi / 6, 3 * np.pi / 2, 2 * np.pi / 3]
    phi = [r * f(pitch_class * a) for r, a in zip(HARTE_RADII, circles, strict=True) for f in (np.sin, np.cos)]
    centroid = _shares(music.chroma) @ np.array(phi).T
    moved = np.linalg.norm(np.diff(centroid, axis=0), axis=1)
    return {
        "tonnetz_mean": mean(moved),
        "tonnetz_sd": deviation(moved),
        "tonnetz_autocorr_4": autocorrelation(moved, 4),
    }


def spiral(music: Music) -> Values:
    """Tension in the spiral array per quarter: diameter of the cloud of pitches, and movement of its centre.

    A pitch class lies at (sin k pi/2, cos k pi/2, k h), k its place on the line of fifths. Spelling: the twelve successive
    fifths in which the piece's pitch classes have the smallest variance. spiral_diameter: the largest distance of two
    sounding pitch classes, mean and deviation; spiral_momentum: distance of successive centres, mean.
    Chew, "The spiral array", 2002; Herremans and Chew, "Tension ribbons", 2016.
    """
    places = _spelling(music.chroma.sum(axis=0))
    points = np.stack([np.sin(places * np.pi / 2), np.cos(places * np.pi / 2), places * SPIRAL_HEIGHT], axis=1)
    apart = np.linalg.norm(points[:, None] - points, axis=2)
    part = _shares(music.chroma)
    diameters = np.array([apart[np.ix_(row > 1e-6, row > 1e-6)].max() for row in part])
    moved = np.linalg.norm(np.diff(part @ points, axis=0), axis=1)
    return {
        "spiral_diameter_mean": mean(diameters),
        "spiral_diameter_sd": deviation(diameters),
        "spiral_momentum_mean": mean(moved),
    }


def _spelling(lengths: np.ndarray) -> np.ndarray:
    """Return the place of each pitch class on the line of fifths, (12,), with the smallest weighted variance."""
    found = []
    for shift in range(12):
        places = (7 * np.arange(12) - shift) % 12
        middle = (lengths * places).sum() / max(1e-9, lengths.sum())
        found.append((round(float((lengths * (places - middle) ** 2).sum()), 6), shift))
    return np.asarray((7 * np.arange(12) - min(found)[1]) % 12)


@lru_cache(maxsize=1)
def pair_roughness() -> np.ndarray:
    """Return the roughness of two pitches sounding together, (128, 128): Sethares's sum over pairs of their partials.

    min(a, b) (exp(-3.5 s d) - exp(-5.75 s d)), d the difference in hertz, s = 0.24 / (0.021 f + 19), f the lower frequency.
    Plomp and Levelt 1965; Sethares, "Local consonance and the relationship between timbre and scale", 1993.
    """
    pitch = 440.0 * 2 ** ((np.arange(128) - 69) / 12)
    tones = pitch[:, None] * np.arange(1, PARTIALS + 1)
    loud = ROLL_OFF ** np.arange(PARTIALS)
    low = np.minimum(tones[:, None, :, None], tones[None, :, None, :])
    gap = np.abs(tones[:, None, :, None] - tones[None, :, None, :]) * 0.24 / (0.021 * low + 19)
    both = np.minimum(loud[:, None], loud)
    return np.asarray((both * (np.exp(-3.5 * gap) - np.exp(-5.75 * gap))).sum(axis=(2, 3)))


def roughness(music: Music) -> Values:
    """Roughness at onsets, per pair of sounding pitches: mean, deviation, autocorrelation at 1; off the beat less on it.

    Onsets with one pitch only do not count. Source: `pair_roughness`.
    """
    table = pair_roughness()
    values, on_beat = [], []
    for time, on in zip(music.onsets, music.sounding, strict=True):
        pitch = np.unique(music.pitch[on])
        if len(pitch) > 1:
            values.append(float(table[np.ix_(pitch, pitch)][np.triu_indices(len(pitch), 1)].mean()))
            on_beat.append(abs(time - round(float(time))) < 0.05)
    found, beat = np.array(values), np.array(on_beat, bool)
    return {
        "rough_mean": mean(found),
        "rough_sd": deviation(found),
        "rough_autocorr": autocorrelation(found, 1),
        "rough_offbeat": mean(found[~beat]) - mean(found[beat]),
    }


def voice_leading(music: Music) -> Values:
    """Mean size of the smallest voice leading between the pitch classes of successive quarters, in semitones per voice.

    Each pitch class goes to the nearest of the other quarter, both ways: the mean of the distances on the circle.
    A quarter's pitch classes are those that sound for at least a quarter of its longest. After Tymoczko 2006.
    """
    part = _shares(music.chroma)
    sets = [np.flatnonzero(row >= row.max() / 4) for row in part]
    sizes = []
    for a, b in itertools.pairwise(sets):
        apart = np.abs(a[:, None] - b)
        apart = np.minimum(apart, 12 - apart)
        sizes.append((apart.min(axis=0).mean() + apart.min(axis=1).mean()) / 2)
    return {"voice_leading_mean": mean(np.array(sizes))}
