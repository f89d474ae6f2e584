"""Measures of four-part writing. One number per piece; None where there is nothing to count, or music is not in four voices.

Four voices are four tracks with pitched notes, from the highest mean pitch to the lowest: soprano, alto, tenor, bass. Each
is read on the grid of sixteenths as in the chorale tables of Boulanger-Lewandowski et al. (2012): the highest pitch that
sounds there, 0 for a rest. A pitch struck again is a held one, because those tables do not tell them apart.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator

import numpy as np

from .harmony import has_semitone
from .music_metrics import Notes

STEPS = 4  # in a quarter
RANGES = ((60, 81), (52, 74), (46, 69), (36, 66))  # C4-A5, E3-D5, A#2-A4, C2-F#4: all that the 382 bundled chorales use
TRIADS = ((0, 4, 7), (0, 3, 7))
DIMINISHED = ((0, 3, 6),)  # known, but neither a triad of rest nor a seventh chord
SEVENTHS = ((0, 4, 7, 10), (0, 4, 7, 11), (0, 3, 7, 10), (0, 3, 6, 10), (0, 3, 6, 9))


def _transpositions(chords: tuple[tuple[int, ...], ...]) -> frozenset[frozenset[int]]:
    return frozenset(frozenset((root + pc) % 12 for pc in chord) for chord in chords for root in range(12))


TRIAD_CLASSES, SEVENTH_CLASSES = _transpositions(TRIADS), _transpositions(SEVENTHS)
KNOWN_CLASSES = TRIAD_CLASSES | SEVENTH_CLASSES | _transpositions(DIMINISHED)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Voices:
    """Four voices on sixteenths.

    Attributes:
        pitch: (4, S) int64, soprano to bass, 0 for a rest.
        lines: (bars + 1,) steps of the bar lines, as in `Notes.bars`.
    """

    pitch: np.ndarray
    lines: np.ndarray

    def changes(self) -> np.ndarray:
        """Return the steps at which a voice has another pitch than a step before, the first step with a pitch too."""
        before = np.concatenate([np.zeros((4, 1), np.int64), self.pitch[:, :-1]], 1)
        return np.flatnonzero((self.pitch != before).any(0))

    def slices(self) -> list[tuple[int, int]]:
        """Return the (first, end) steps between changes."""
        changes = [*self.changes().tolist(), self.pitch.shape[1]]
        return list(itertools.pairwise(changes))

    def beats(self) -> list[set[int]]:
        """Return the sounding pitches on each quarter of each bar, those without any left out."""
        steps = [s for a, b in itertools.pairwise(self.lines.tolist()) for s in range(a, b, STEPS)]
        return [found for s in steps if s < self.pitch.shape[1] and (found := self.at(s))]

    def at(self, step: int) -> set[int]:
        """Return the pitches that sound at a step."""
        return set(self.pitch[:, step].tolist()) - {0}


def voices_of(notes: Notes) -> Voices | None:
    """Return the four voices of notes; None if they are not four tracks."""
    pitched = notes.pitched()
    tracks = np.unique(notes.track[pitched])
    if len(tracks) != 4:
        return None
    steps = round(float(notes.end[pitched].max()) * STEPS)
    order = sorted(tracks.tolist(), key=lambda track: -float(notes.pitch[notes.track == track].mean()))
    pitch = np.zeros((4, steps), np.int64)
    for voice, track in enumerate(order):
        for i in np.flatnonzero(notes.track == track):
            begin = round(notes.start[i] * STEPS)
            part = pitch[voice, begin : max(begin + 1, round(notes.end[i] * STEPS))]
            np.maximum(part, notes.pitch[i], out=part)
    return Voices(pitch=pitch, lines=np.round(notes.bars * STEPS).astype(int))


def motions(voices: Voices) -> Iterator[tuple[int, int, int, int]]:
    """Yield (upper before, lower before, upper after, lower after) for each pair of voices and step at which both move.

    Both sound before and after, and both change their pitch at that step.
    """
    for upper, lower in itertools.combinations(range(4), 2):
        pair = voices.pitch[[upper, lower]]
        before, after = pair[:, :-1], pair[:, 1:]
        for step in np.flatnonzero(((before != after) & (before > 0) & (after > 0)).all(0)):
            yield (*before[:, step].tolist(), *after[:, step].tolist())


def parallel_fifths(voices: Voices) -> float | None:
    """Return parallel perfect fifths per 100 motions of two voices; None without a motion.

    A motion is a pair of voices that both change their pitch at one sixteenth (see `motions`); it is parallel if both go
    in the same direction and the interval, octaves folded, is a fifth (7 semitones) before and after. music21's
    `VoiceLeadingQuartet.parallelFifth` counts the same, and also fifths by contrary motion.
    """
    return _parallels(voices, 7)


def parallel_octaves(voices: Voices) -> float | None:
    """Return parallel octaves and unisons per 100 motions of two voices; as `parallel_fifths`, for 0 semitones folded."""
    return _parallels(voices, 0)


def _parallels(voices: Voices, interval: int) -> float | None:
    count = total = 0
    for upper, lower, upper_after, lower_after in motions(voices):
        same_direction = (upper_after > upper) == (lower_after > lower)
        total += 1
        count += same_direction and (upper - lower) % 12 == interval and (upper_after - lower_after) % 12 == interval
    return 100 * count / total if total else None


def crossed(voices: Voices) -> float | None:
    """Return the share of sixteenths at which a voice is below the next lower one, of those at which two or more sound."""
    upper, lower = voices.pitch[:-1], voices.pitch[1:]
    both = (upper > 0) & (lower > 0)
    num_counted = int(np.count_nonzero(both.any(0)))
    return np.count_nonzero(((upper < lower) & both).any(0)) / num_counted if num_counted else None


def out_of_range(voices: Voices) -> float | None:
    """Return the share of sounding sixteenths, over the voices, outside of `RANGES`; None without one."""
    low, high = np.array(RANGES).T[:, :, None]
    sounds = voices.pitch > 0
    outside = sounds & ((voices.pitch < low) | (voices.pitch > high))
    return float(outside.sum() / sounds.sum()) if sounds.any() else None


def soprano_range(voices: Voices) -> float | None:
    """Return the highest less the lowest pitch of the soprano in semitones; None without a pitch."""
    soprano = voices.pitch[0][voices.pitch[0] > 0]
    return float(soprano.max() - soprano.min()) if len(soprano) else None


def triads(voices: Voices) -> float | None:
    """Return the share of beats with a pitch whose pitch classes are a major or minor triad.

    In any inversion; None without a pitch.
    """
    return _chords(voices, lambda classes: classes in TRIAD_CLASSES)


def sevenths(voices: Voices) -> float | None:
    """Return the share of beats whose four pitch classes are a seventh chord.

    Dominant, major, minor, half diminished and fully diminished ones, complete, in any inversion; None without a pitch.
    """
    return _chords(voices, lambda classes: classes in SEVENTH_CLASSES)


def no_chord(voices: Voices) -> float | None:
    """Return the share of beats with three or more pitch classes that are no triad, diminished triad or seventh chord.

    Incomplete seventh chords, suspensions and augmented triads are among them.
    """
    return _chords(voices, lambda classes: len(classes) > 2 and classes not in KNOWN_CLASSES)


def clash_on_beat(voices: Voices) -> float | None:
    """Return the share of beats with a pitch at which two voices are a semitone apart, octaves folded; None without one."""
    found = [has_semitone(pitches) for pitches in voices.beats()]
    return sum(found) / len(found) if found else None


def soprano_bars_again(voices: Voices) -> float | None:
    """Return the share of the soprano's bars, the first left out, that repeat an earlier one note for note.

    Compared are pitches on the sixteenths. Bars in which the soprano rests do not count, nor does a last bar that is cut
    short; None with fewer than two others.
    """
    seen: set[tuple[int, ...]] = set()
    count = again = 0
    for begin, end in itertools.pairwise(voices.lines.tolist()):
        bar = tuple(voices.pitch[0, begin:end].tolist())
        if len(bar) == end - begin and any(bar):
            count, again = count + 1, again + (bar in seen)
            seen.add(bar)
    return again / (count - 1) if count > 1 else None


def changes_per_quarter(voices: Voices) -> float | None:
    """Return sixteenths at which any voice changes its pitch, the first chord left out, per quarter; None without a pitch."""
    changes = voices.changes()
    return STEPS * (len(changes) - 1) / voices.pitch.shape[1] if len(changes) else None


def tenor_sixteenths(voices: Voices) -> float | None:
    """Return the share of the tenor's notes that last one sixteenth; None without a note."""
    lengths = [end - begin for begin, end, _ in voice_notes(voices.pitch[2])]
    return sum(length == 1 for length in lengths) / len(lengths) if lengths else None


def voice_notes(pitch: np.ndarray) -> list[tuple[int, int, int]]:
    """Return the (first step, end, pitch) of each note of one voice, (S,), rests left out."""
    edges = [0, *(np.flatnonzero(np.diff(pitch)) + 1).tolist(), len(pitch)]
    return [(a, b, int(pitch[a])) for a, b in itertools.pairwise(edges) if b > a and pitch[a] > 0]


def _chords(voices: Voices, is_one: Callable[[frozenset[int]], bool]) -> float | None:
    beats = [frozenset(pitch % 12 for pitch in pitches) for pitches in voices.beats()]
    return sum(map(is_one, beats)) / len(beats) if beats else None
