"""Features of the judge apart that follow time: periodicity, ratios, articulation, form. Frozen; see docs/concepts/judge.md."""

from __future__ import annotations

import numpy as np
from judge_music import NAN, Music, Values, autocorrelation, correlation, lempel_ziv, mean, share

LAGS = (2, 4, 6, 8, 16)  # sixteenths
RATIOS = {"1_1": 1 / 2, "1_2": 1 / 3, "2_1": 2 / 3, "3_1": 3 / 4}
RATIO_WIDTH = 0.03


def onset_autocorrelation(music: Music) -> Values:
    """Autocorrelation of the number of onsets per sixteenth, at lags in sixteenths; its highest peak.

    pulse_clarity: the largest autocorrelation at lags from 2 to 16. Brown, "Determination of the meter of musical scores by
    autocorrelation", 1993; Lartillot et al., "Multi-feature modeling of pulse clarity", 2008.
    """
    found = {lag: autocorrelation(music.steps, lag) for lag in range(2, 17)}
    known = [v for v in found.values() if not np.isnan(v)]
    return {f"onset_autocorr_{lag}": found[lag] for lag in LAGS} | {"pulse_clarity": max(known, default=NAN)}


def metre(music: Music) -> Values:
    """Autocorrelation of lengths of notes at their onsets at one bar, less its mean at one to three sixteenths beside.

    A bar is the median one. Brown 1993; Toiviainen and Eerola, "Autocorrelation in meter induction", 2006.
    """
    at = np.minimum(np.rint(music.start * 4).astype(int), len(music.steps) - 1)
    weights = np.bincount(at, weights=music.end - music.start, minlength=len(music.steps))
    lag = round(float(np.median(np.diff(music.bars))) * 4)
    beside = [autocorrelation(weights, lag + d) for d in (-3, -2, -1, 1, 2, 3) if lag + d > 0]
    return {"metre_strength": autocorrelation(weights, lag) - float(np.mean(beside))}


def ratios(music: Music) -> Values:
    """Shares of rhythm ratios r = a / (a + b), a and b successive inter-onset intervals, within 0.03 of simple ratios.

    burstiness: (s - m) / (s + m) of the intervals, mean m and standard deviation s.
    Roeske et al., "Categorical rhythms are shared between songbirds and humans", 2020; Goh and Barabási 2008.
    """
    gaps = np.diff(music.onsets)
    ratio = gaps[:-1] / (gaps[:-1] + gaps[1:])
    values = {f"ratio_{name}": share(np.abs(ratio - at) <= RATIO_WIDTH) for name, at in RATIOS.items()}
    spread, middle = (float(gaps.std()), float(gaps.mean())) if len(gaps) > 1 else (NAN, 1.0)
    return values | {"burstiness": (spread - middle) / (spread + middle)}


def legato(music: Music) -> Values:
    """Key overlap of the top line: a note's length over the time to the next, q.

    legato_median: median of q, at most 4. legato_overlap, legato_detached: shares of q above 1.05 and below 0.8.
    Repp, "Acoustics, perception, and production of legato articulation", 1995; Bresin and Battel 2000.
    """
    new = [on[-1] for i, on in enumerate(music.sounding) if music.group[on[-1]] == i]
    gaps = np.diff(music.start[new])
    quotient = np.minimum((music.end - music.start)[new][:-1] / np.maximum(gaps, 1e-3), 4.0)
    return {
        "legato_median": float(np.median(quotient)) if len(quotient) else NAN,
        "legato_overlap": share(quotient > 1.05),
        "legato_detached": share(quotient < 0.8),
    }


def density_curve(music: Music) -> Values:
    """Slope of notes per bar over the piece: the least-squares line's rise from first to last bar, over twice the mean."""
    counts = np.bincount(music.bar_of, minlength=len(music.bars) - 1).astype(float)
    if len(counts) < 4 or counts.sum() == 0:
        return {"density_slope": NAN}
    return {"density_slope": float(np.polyfit(np.linspace(-1, 1, len(counts)), counts / counts.mean(), 1)[0])}


def entries(music: Music) -> Values:
    """Standard deviation over tracks of when they begin first, and of when they end last, as shares of the piece.

    NaN of fewer than two tracks: that there is one is no matter of this judge.
    """
    tracks = np.unique(music.track)
    if len(tracks) < 2:
        return {"entry_spread": NAN, "exit_spread": NAN}
    first = [music.start[music.track == t].min() for t in tracks]
    last = [music.end[music.track == t].max() for t in tracks]
    return {
        "entry_spread": float(np.std(first)) / music.length,
        "exit_spread": float(np.std(last)) / music.length,
    }


def velocities(music: Music) -> Values:
    """Autocorrelation at 1, 2 and 4 quarters of the mean velocity per quarter; correlation of velocity with pitch.

    Quarters without an onset take the value before. Todd, "The dynamics of dynamics", 1992.
    """
    quarter = np.minimum(music.start.astype(int), int(music.length))
    contour: list[float] = []
    for q in range(int(music.length)):
        inside = music.velocity[quarter == q]
        if len(inside) or contour:
            contour.append(float(inside.mean()) if len(inside) else contour[-1])
    values = {f"velocity_autocorr_{lag}": autocorrelation(np.array(contour), lag) for lag in (1, 2, 4)}
    return values | {"velocity_pitch": correlation(music.velocity, music.pitch)}


def form(music: Music) -> Values:
    """Statistics of the bars' similarity matrix, by texture and rhythm alone: no pitch class takes part.

    A bar is a vector: onsets in each eighth of its length, mean pitch, span, mean length; each standardised over the piece.
    Similarity is the cosine. form_entropy: entropy of the matrix's positive eigenvalues over log of their number.
    form_lag: mean similarity two bars apart less that of neighbours. form_best: mean over bars of the best similarity to a
    bar two or more away. form_novelty: the highest checkerboard novelty (kernel of 2 + 2 bars). Foote 1999, 2000.
    """
    names = ("form_entropy", "form_lag", "form_best", "form_novelty")
    matrix = _similarity(music)
    if len(matrix) < 6:
        return dict.fromkeys(names, NAN)
    power = np.linalg.eigvalsh(matrix)
    power = power[power > 1e-9]
    part = power / power.sum()
    apart = np.abs(np.subtract.outer(np.arange(len(matrix)), np.arange(len(matrix))))
    kernel = np.kron([[1, -1], [-1, 1]], np.ones((2, 2)))
    novelty = [float((matrix[i : i + 4, i : i + 4] * kernel).mean()) for i in range(len(matrix) - 3)]
    return {
        "form_entropy": float(-(part * np.log(part)).sum() / np.log(len(matrix))),
        "form_lag": mean(matrix[apart == 2]) - mean(matrix[apart == 1]),
        "form_best": mean(np.where(apart >= 2, matrix, -1).max(axis=1)),
        "form_novelty": max(novelty),
    }


def _similarity(music: Music) -> np.ndarray:
    """Return the cosines of the bars' standardised vectors, (B', B'); bars without a pitched onset are left out."""
    rows = []
    for bar in range(len(music.bars) - 1):
        inside = music.bar_of == bar
        if not inside.any():
            continue
        begin, end = music.bars[bar], music.bars[bar + 1]
        eighth = np.clip(((music.start[inside] - begin) / (end - begin) * 8).astype(int), 0, 7)
        pitch, length = music.pitch[inside], (music.end - music.start)[inside]
        rows.append([*np.bincount(eighth, minlength=8), pitch.mean(), np.ptp(pitch), length.mean()])
    table = np.array(rows, float).reshape(len(rows), -1)
    if not rows:
        return np.zeros((0, 0))
    table = (table - table.mean(axis=0)) / np.maximum(table.std(axis=0), 1e-6)
    norm = np.linalg.norm(table, axis=1, keepdims=True)
    table = table / np.maximum(norm, 1e-9)
    return np.asarray(table @ table.T)


def rhythm_complexity(music: Music) -> Values:
    """Lempel-Ziv complexity of the string of sixteenths, 1 where a note begins and 0 where none does.

    Shmulevich and Povel, "Measures of temporal pattern complexity", 2000.
    """
    return {"lz_rhythm": lempel_ziv((music.steps > 0).astype(int).tolist())}
