"""What a model sees of each note of a score, beside its pitch: small integers, each with an embedding of its own.

All of it follows from the whole score, the notes to come included. Array operations only, whose memory grows with the number
of notes, not with its square.
"""

from __future__ import annotations

import numpy as np

from .notes import GRID, TOGETHER, ScoreNotes, onset_numbers, onset_times

DURATIONS = np.array([1 / 8, 1 / 6, 1 / 4, 1 / 3, 1 / 2, 2 / 3, 3 / 4, 1, 1.5, 2, 3, 4, 6, 8])  # quarters
INTERVALS = 24  # semitones, beyond which intervals are not told apart
NO_INTERVAL = 2 * INTERVALS + 1
RANKS = 6
BEATS = 12
DENSITIES = 16
BARS = 16  # from the start or the end of the piece
SIGNS = ((4, 4), (2, 2), (2, 4), (3, 4), (3, 8), (6, 8), (9, 8), (12, 8), (3, 2), (6, 4), (4, 8), (12, 16))
STRENGTHS = 6
RELATIVE = np.linspace(-2.0, 2.0, 9)  # standard deviations of a piece's notes from their mean
CHANGES = np.array([-1.5, -0.75, -0.25, 0.25, 0.75, 1.5])  # log2 of a ratio
PLACES = 16  # parts of a piece
NEAR, WIDE = 2.0, 4.0  # quarters before and after a note that are its surroundings
HIDDEN = 0  # the written dynamics are not known

FEATURES = {
    "duration": len(DURATIONS) + 1,
    "beat": BEATS,
    "subdivision": GRID,
    "strength": STRENGTHS,
    "top_before": NO_INTERVAL + 1,
    "top_after": NO_INTERVAL + 1,
    "bottom_before": NO_INTERVAL + 1,
    "bottom_after": NO_INTERVAL + 1,
    "line_before": NO_INTERVAL + 1,
    "line_after": NO_INTERVAL + 1,
    "rank_from_top": RANKS,
    "rank_from_bottom": RANKS,
    "chord_size": RANKS,
    "outer": 4,
    "density": DENSITIES,
    "time_since": len(DURATIONS) + 2,
    "time_until": len(DURATIONS) + 2,
    "sign": len(SIGNS) + 2,
    "bars_from_start": BARS,
    "bars_to_end": BARS,
    "in_four": 4,
    "in_eight": 8,
    "height": len(RELATIVE) + 1,
    "register": len(RELATIVE) + 1,
    "fullness": len(RELATIVE) + 1,
    "fullness_change": len(CHANGES) + 1,
    "place": PLACES,
    "dynamics": len(RELATIVE) + 2,
}
FEATURE_SIZES = tuple(FEATURES.values())
DYNAMICS = tuple(FEATURES).index("dynamics")  # its column


def note_features(notes: ScoreNotes) -> np.ndarray:
    """Return the features of each note, (N, F) int64, column i from 0 to `FEATURE_SIZES[i]` - 1; `FEATURES` names them.

    duration: bucket of its length. beat, subdivision: quarters from the bar line, and twenty-fourths of a quarter.
    strength: 0 on the bar line, 1 half of the bar, 2 a beat, 3 half of a beat (a third in compound time), 4 a quarter of it
    (a sixth), 5 else. top_before, top_after: semitones from the last note of the top line before, to the next one; the top
    line has the notes above which none sounds when they begin (Uitdenbogerd and Zobel, 1998). bottom_before, bottom_after:
    the same of the lowest notes. line_before, line_after: to the nearest pitch of the onset before and after.
    rank_from_top, rank_from_bottom: in its chord, from 0; chord_size: from 0 for one note. outer: 1 in the top line, 2 in
    the bottom line, 3 both. density: other onsets within a quarter. time_since, time_until: buckets of the time since the
    onset before and until the next. sign: class of the time signature. bars_from_start, bars_to_end: bars. in_four,
    in_eight: the bar's place in groups of so many. dynamics: bucket of the written velocity, standardised within the piece,
    from 1; `HIDDEN` for all if all are equal. height: of the pitch, standardised in the same way; register: the mean pitch of
    the notes within 4 quarters; fullness: their number within 2 quarters. fullness_change: of the number of notes from the
    4 quarters before to those behind. place: sixteenth of the piece.
    """
    number, at = onset_numbers(notes), onset_times(notes)
    is_top, is_bottom = _outer(notes, number, len(at))
    columns = {
        "duration": np.searchsorted(DURATIONS, notes.duration + TOGETHER),
        **_metre(notes),
        **_line(notes, number, len(at), is_top, "top"),
        **_line(notes, number, len(at), is_bottom, "bottom"),
        **_neighbours(notes, number),
        **_chord(number),
        "outer": is_top + 2 * is_bottom,
        **_times(at, number),
        "bars_from_start": np.minimum(notes.bar, BARS - 1),
        "bars_to_end": np.minimum(notes.bar.max(initial=0) - notes.bar, BARS - 1),
        "in_four": notes.bar % 4,
        "in_eight": notes.bar % 8,
        **_relative(notes),
        "dynamics": _dynamics(notes.velocity),
    }
    return np.stack([np.asarray(columns[name], np.int64) for name in FEATURES], axis=1)


def _relative(notes: ScoreNotes) -> dict[str, np.ndarray]:
    """Return what a note and its surroundings are in comparison with the rest of the piece."""
    passed = np.append(0, np.cumsum(notes.pitch))

    def around(before: float, after: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the number of notes that begin so many quarters before and after each note, and their mean pitch."""
        begin = np.searchsorted(notes.onset, notes.onset - before - TOGETHER)
        end = np.searchsorted(notes.onset, notes.onset + after + TOGETHER)
        return np.maximum(end - begin, 1), (passed[end] - passed[begin]) / np.maximum(end - begin, 1)

    wide = around(WIDE, WIDE)
    change = np.log2(around(0, WIDE)[0] / around(WIDE, 0)[0])
    last = max(float(notes.onset[-1]), TOGETHER)
    return {
        "height": _standardised(notes.pitch),
        "register": _standardised(wide[1]),
        "fullness": _standardised(around(NEAR, NEAR)[0]),
        "fullness_change": np.searchsorted(CHANGES, change),
        "place": np.minimum(notes.onset / last * PLACES, PLACES - 1),
    }


def _standardised(values: np.ndarray) -> np.ndarray:
    """Return the buckets of values in standard deviations from their mean; those of the mean if all are equal."""
    return np.searchsorted(RELATIVE, (values - values.mean()) / max(float(values.std()), 1e-6))


def _dynamics(velocity: np.ndarray) -> np.ndarray:
    if velocity.std() < 1e-6:
        return np.full(len(velocity), HIDDEN)
    return 1 + _standardised(velocity)


def _metre(notes: ScoreNotes) -> dict[str, np.ndarray]:
    place = np.round(notes.position * GRID).astype(np.int64)
    is_compound = (notes.numerator % 3 == 0) & (notes.numerator > 3)
    beat = np.maximum(np.round(4 * GRID / notes.denominator * np.where(is_compound, 3, 1)).astype(np.int64), 1)
    bar = np.maximum(np.round(notes.bar_length * GRID).astype(np.int64), 1)
    parts = np.where(is_compound, 3, 2)
    is_on = [place % bar == 0, (place * 2) % bar == 0, place % beat == 0]
    is_on += [(place * parts) % beat == 0, (place * parts * 2) % beat == 0]
    kind = np.where(is_compound, len(SIGNS), len(SIGNS) + 1)
    for i, (numerator, denominator) in enumerate(SIGNS):
        kind[(notes.numerator == numerator) & (notes.denominator == denominator)] = i
    return {
        "beat": np.minimum(place // GRID, BEATS - 1),
        "subdivision": place % GRID,
        "strength": np.select(is_on, range(len(is_on)), STRENGTHS - 1),
        "sign": kind,
    }


def _outer(notes: ScoreNotes, number: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return whether a note is the highest, and the lowest, that sounds when it begins, both (N,) bool."""
    until = np.searchsorted(
        onset_times(notes), notes.onset + notes.duration - TOGETHER
    )  # the first onset behind its end
    until = np.maximum(until, number + 1)
    top, bottom = np.full(count, -1), np.full(count, 128)
    for pitch in np.unique(notes.pitch):
        of_pitch = notes.pitch == pitch
        change = np.bincount(number[of_pitch], minlength=count + 1) - np.bincount(until[of_pitch], minlength=count + 1)
        sounds = np.cumsum(change)[:count] > 0
        top[sounds] = pitch  # pitches rise
        bottom[sounds & (bottom == 128)] = pitch
    return notes.pitch >= top[number], notes.pitch <= bottom[number]


def _line(notes: ScoreNotes, number: np.ndarray, count: int, of_line: np.ndarray, name: str) -> dict[str, np.ndarray]:
    """Return the intervals from the last note of a line before each note's onset, and to the next one after it."""
    pitch = np.full(count, -1)  # of the line at each onset, -1 where it goes on
    pitch[number[of_line]] = notes.pitch[of_line]
    onsets = np.arange(count)
    last = np.maximum.accumulate(np.where(pitch >= 0, onsets, -1))
    following = np.minimum.accumulate(np.where(pitch >= 0, onsets, count)[::-1])[::-1]
    before = np.append(-1, last[:-1])[number]
    after = np.append(following[1:], count)[number]
    has_before, has_after = before >= 0, after < count
    return {
        f"{name}_before": _interval(notes.pitch - pitch[np.maximum(before, 0)], has_before),
        f"{name}_after": _interval(pitch[np.minimum(after, count - 1)] - notes.pitch, has_after),
    }


def _neighbours(notes: ScoreNotes, number: np.ndarray) -> dict[str, np.ndarray]:
    """Return the intervals from and to the nearest pitch of the onsets beside each note's."""
    order = np.lexsort((notes.pitch, number))
    key = (number * 128 + notes.pitch)[order]
    pitch, onset = notes.pitch[order], number[order]
    found = {}
    for name, step in (("line_before", -1), ("line_after", 1)):
        right = np.searchsorted(key, (number + step) * 128 + notes.pitch)
        interval, has = np.full(len(notes), 1000), np.zeros(len(notes), bool)
        for i in (right - 1, right):  # the nearest from below, and from above or equal
            inside = np.clip(i, 0, len(key) - 1)
            fits = (i == inside) & (onset[inside] == number + step)
            other = (notes.pitch - pitch[inside]) * -step
            interval = np.where(fits & (np.abs(other) < np.abs(interval)), other, interval)
            has |= fits
        found[name] = _interval(interval, has)
    return found


def _interval(semitones: np.ndarray, has: np.ndarray) -> np.ndarray:
    return np.where(has, np.clip(semitones, -INTERVALS, INTERVALS) + INTERVALS, NO_INTERVAL)


def _chord(number: np.ndarray) -> dict[str, np.ndarray]:
    """Return size and ranks; notes of an onset are in the order of their pitches."""
    size = np.bincount(number)[number]
    rank = np.arange(len(number)) - np.searchsorted(number, number)
    return {
        "rank_from_bottom": np.minimum(rank, RANKS - 1),
        "rank_from_top": np.minimum(size - 1 - rank, RANKS - 1),
        "chord_size": np.minimum(size - 1, RANKS - 1),
    }


def _times(at: np.ndarray, number: np.ndarray) -> dict[str, np.ndarray]:
    near = np.searchsorted(at, at + 1 + TOGETHER) - np.searchsorted(at, at - 1 - TOGETHER) - 1
    step = np.searchsorted(DURATIONS, np.diff(at) + TOGETHER)
    none = len(DURATIONS) + 1
    return {
        "density": np.minimum(near, DENSITIES - 1)[number],
        "time_since": np.append(none, step)[number],
        "time_until": np.append(step, none)[number],
    }
