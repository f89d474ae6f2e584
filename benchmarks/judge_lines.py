"""Features of the judge apart that follow lines: outer voices, contour, bass, inner voices.

Frozen; see docs/concepts/judge.md.
"""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
from judge_music import CHORD, NAN, Music, Values, autocorrelation, correlation, lempel_ziv, mean, share

TOP_HASHES, BASS_HASHES = 3, 3
FIGURE = 4  # steps of a line that make a figure
FIGURE_APART = 2.0  # quarters


def outer_intervals(music: Music) -> Values:
    """Shares of onsets at which top and bass are an octave, third, fifth or sixth (mod 12) apart.

    Onsets with one pitch only do not count. outer_dissonant: share of seconds, fourths, tritones and sevenths at onsets on a
    quarter; all onsets count if none is there. After Huron, "Tonal consonance versus tonal fusion", 1991.
    """
    apart = music.outer[:, 1] - music.outer[:, 0]
    classes = apart[apart > 0] % 12
    on_beat = (np.abs(music.onsets - np.rint(music.onsets)) < CHORD)[apart > 0]
    kinds = {"octave": (0,), "third": (3, 4), "fifth": (7,), "sixth": (8, 9)}
    values = {f"outer_{name}": share(np.isin(classes, of)) for name, of in kinds.items()}
    strong = classes[on_beat] if on_beat.any() else classes
    return values | {"outer_dissonant": share(np.isin(strong, (1, 2, 5, 6, 10, 11)))}


def outer_motion(music: Music) -> Values:
    """Shares of contrary and of oblique motion among the moves from onset to onset in which top or bass moves.

    Contrary: both move, in different directions; oblique: one stays. Piston, "Counterpoint", 1947.
    """
    moves = np.sign(np.diff(music.outer, axis=0))
    moves = moves[(moves != 0).any(axis=1)]
    product = moves[:, 0] * moves[:, 1]
    return {"outer_contrary": share(product < 0), "outer_oblique": share(product == 0)}


def contour(music: Music) -> Values:
    """Shares of falling and arched contours among all runs of five onsets of the top line.

    With a first, z last, h highest and l lowest pitch: arch if h > max(a, z) and l = min(a, z); falling if z < a
    and no arch. Adams, "Melodic contour typology", 1976; Huron, "The melodic arch", 1996.
    """
    pitch = music.top[1]
    runs = np.lib.stride_tricks.sliding_window_view(pitch, 5) if len(pitch) >= 5 else np.zeros((0, 5), int)
    first, last = runs[:, 0], runs[:, -1]
    high, low = runs.max(axis=1, initial=-1), runs.min(axis=1, initial=128)
    arch = (high > np.maximum(first, last)) & (low == np.minimum(first, last))
    return {
        "contour_arch": share(arch),
        "contour_down": share((last < first) & ~arch),
    }


def _sign(trigram: tuple[int, ...], dimension: int, voice: str) -> int:
    """Return 1 or -1, by a hash: the fixed random projection."""
    data = f"judge 1 {voice} {dimension} {trigram}".encode()
    return 1 if hashlib.blake2b(data, digest_size=1).digest()[0] & 1 else -1


def interval_trigrams(music: Music) -> Values:
    """Counts of three successive intervals of a line, projected at random to a few dimensions.

    Dimension d is sum_g c(g) s_d(g) / sqrt(sum_g c(g)²): c counts the trigram g (intervals clipped to an octave), s_d(g) is
    a fixed sign. Random projection with signs: Achlioptas 2003; feature hashing: Weinberger et al. 2009.
    """
    values: Values = {}
    for voice, (_, pitch), size in (("top", music.top, TOP_HASHES), ("bass", music.bass, BASS_HASHES)):
        steps = np.clip(np.diff(pitch), -12, 12).tolist()
        counts = Counter(zip(steps, steps[1:], steps[2:], strict=False))
        norm = float(np.sqrt(sum(c * c for c in counts.values())))
        for d in range(1, size + 1):
            total = sum(c * _sign(g, d, voice) for g, c in counts.items())
            values[f"{voice}_hash_{d}"] = total / norm if norm else NAN
    return values


def bass_motion(music: Music) -> Values:
    """Shares of falling fifths (or rising fourths), rising fifths, and steps among the bass's changes of pitch.

    Rameau's fundamental bass, "Traité de l'harmonie", 1722; counts as in Tymoczko, "A Geometry of Music", 2011.
    """
    moves = np.diff(music.bass[1])
    moves = moves[moves % 12 != 0]
    classes = moves % 12
    return {
        "bass_fifth_down": share(classes == 5),
        "bass_fifth_up": share(classes == 7),
        "bass_step": share(np.isin(classes, (1, 2, 10, 11))),
    }


def expectation(music: Music) -> Values:
    """What follows a leap, a step, and a pitch far from the mean, in the top line.

    leap_recovery: share of leaps (5 semitones or more) followed by a change of direction. step_inertia: share of steps
    (1 or 2) followed by a move in the same direction. reversion: correlation of a pitch's distance from the line's mean with
    the next interval. Narmour 1990; von Hippel and Huron 2000; Huron, "Sweet Anticipation", 2006.
    """
    pitch = music.top[1]
    moves = np.diff(pitch)
    moves = moves[moves != 0]
    before, after = moves[:-1], moves[1:]
    opposite = np.sign(before) != np.sign(after)
    return {
        "leap_recovery": share(opposite[np.abs(before) >= 5]),
        "step_inertia": share(~opposite[np.abs(before) <= 2]),
        "reversion": correlation(pitch[:-1] - pitch.mean(), np.diff(pitch)) if len(pitch) else NAN,
    }


def span(music: Music) -> Values:
    """Autocorrelation at 1 and 2 bars of the span of each bar: its highest less its lowest pitch; empty bars have 0."""
    spans = np.zeros(len(music.bars) - 1)
    for bar in range(len(spans)):
        inside = music.pitch[music.bar_of == bar]
        spans[bar] = np.ptp(inside) if len(inside) else 0
    return {f"span_autocorr_{lag}": autocorrelation(spans, lag) for lag in (1, 2)}


def figures(music: Music) -> Values:
    """Share of figures of the top line, and of the bass, that come back at least two quarters later, at whatever pitch.

    A figure is four successive steps, each as its direction and size (repeat, step, third, leap) with the ratio of the times
    before and after it (shorter, equal, longer): sequences and imitation count, exact pitch does not. After Conklin and
    Anagnostopoulou, "Representation and discovery of multiple viewpoint patterns", 2001.
    lz_contour: Lempel-Ziv complexity of the top line's directions.
    """
    directions = [int(d) + 1 for d in np.sign(np.diff(music.top[1]))]
    return {
        "figure_share": _figure_share(*music.top),
        "bass_figure_share": _figure_share(*music.bass),
        "lz_contour": lempel_ziv(directions),
    }


def _figure_share(onset: np.ndarray, pitch: np.ndarray) -> float:
    """Return the share of a line's figures that come back; NaN of fewer than `FIGURE` steps."""
    moves, gaps = np.diff(pitch), np.diff(onset)
    size = np.searchsorted([1, 3, 5], np.abs(moves), side="right") * np.sign(moves)
    ratio = np.append(0, np.sign(np.round(np.diff(gaps), 2)))[: len(size)]
    symbols = (size * 4 + ratio + 20).astype(int).tolist()
    seen: dict[tuple[int, ...], float] = {}
    again = []
    for i in range(len(symbols) - FIGURE + 1):
        figure = tuple(symbols[i : i + FIGURE])
        again.append(figure in seen and onset[i] - seen[figure] >= FIGURE_APART)
        seen.setdefault(figure, float(onset[i]))
    return share(np.array(again))


def voices(music: Music) -> Values:
    """Features of music in four voices, one a track, tracks in descending order of mean pitch; NaN of other music.

    sync_all, sync_one: shares of onsets at which all voices, or one, begin. spacing_upper, spacing_lower: mean of soprano
    less alto, and of tenor less bass, over soprano less bass.
    inner_step: share of steps among moves of alto and tenor. inner_recovery: share of their leaps (5 or more) followed by a
    change of direction. suspension: share of held notes a second or seventh from a new note that then step down.
    Aldwell and Schachter, "Harmony and Voice Leading", 1978; Huron, "Voice Leading", 2016.
    """
    names = ("sync_all", "sync_one", "spacing_upper", "spacing_lower")
    names += ("inner_step", "inner_recovery", "suspension")
    tracks = list(np.unique(music.track))
    if len(tracks) != 4:
        return dict.fromkeys(names, NAN)
    tracks.sort(key=lambda t: -float(music.pitch[music.track == t].mean()))
    begin = np.array([len(set(music.track[music.group == i].tolist())) for i in range(len(music.onsets))])
    whole = [music.pitch[on] for on in music.sounding if len(on) == 4 and music.pitch[on[-1]] > music.pitch[on[0]]]
    chords = np.array(whole, float).reshape(-1, 4)
    wide = chords[:, 3] - chords[:, 0]
    upper = (chords[:, 3] - chords[:, 2]) / wide
    moves = [np.diff(music.pitch[music.track == t]) for t in tracks[1:3]]
    moves = [m[m != 0] for m in moves]
    leaps = [np.sign(m[:-1]) != np.sign(m[1:]) for m in moves]
    leaps = [turned[np.abs(m[:-1]) >= 5] for turned, m in zip(leaps, moves, strict=True)]
    return {
        "sync_all": share(begin == 4),
        "sync_one": share(begin == 1),
        "spacing_upper": mean(upper),
        "spacing_lower": mean((chords[:, 1] - chords[:, 0]) / wide),
        "inner_step": share(np.abs(np.concatenate(moves)) <= 2),
        "inner_recovery": share(np.concatenate(leaps)),
        "suspension": _suspension(music),
    }


def _suspension(music: Music) -> float:
    """Return the share of held dissonant notes that are followed in their voice by a step down."""
    follows = {}
    for t in np.unique(music.track):
        own = np.flatnonzero(music.track == t)
        follows.update(zip(own[:-1].tolist(), own[1:].tolist(), strict=True))
    resolved: dict[int, bool] = {}
    for i, on in enumerate(music.sounding):
        new = on[music.group[on] == i]
        for held in on[music.group[on] < i].tolist():
            apart = (music.pitch[held] - music.pitch[new]) % 12
            if np.isin(apart, (1, 2, 10, 11)).any() and held in follows:
                step = int(music.pitch[held] - music.pitch[follows[held]])
                resolved[held] = step in (1, 2)
    return share(np.array(list(resolved.values())))
