"""The seam between a prompt and new music: the prompt as it is in its file, and behind it the new notes of decoded ids.

Decoding the prompt's ids gives what the model reads of it: on the tokenizer's grid, without controllers, tracks of one
program as one. The music that is written has the prompt itself instead. New notes continue its tracks: the first of the
same instrument, or with four voices on a grid the track that had the voice so far. At the seam pedals are released, and
modulation and pitch bend reset; volume, pan and all else stay in force for what follows on a track.
"""

from __future__ import annotations

import bisect
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from symusic import Note, Score, Tempo, TimeSignature, Track

from .. import midi
from ..midi.timing import TOLERANCE
from ..tokenizers.base import TICKS, Tokenizer
from ..tokenizers.vocabulary import Kind, base_of, has

MAX_TICKS = 32767  # per quarter, of a MIDI file
SAME_ONSET = 1 / 8  # quarters that rounding may move an onset: half a position of REMI in 3/2, and more
FAMILY = 8  # programs of a General MIDI family


def common_ticks(ticks: int) -> int:
    """Return a resolution for a prompt's times and those of decoded scores, in ticks/quarter: a multiple of both.

    If that is more than a MIDI file can have, it is a multiple of the prompt's alone, and decoded times are rounded to at
    most 1/32000 of a quarter.
    """
    both = math.lcm(ticks, TICKS)
    return both if both <= MAX_TICKS else ticks * max(1, MAX_TICKS // ticks)


def split(whole: Score, prompt: Score) -> tuple[Score, Score]:
    """Return the new notes of a decoded score, and the prompt's notes that new ids prolong, both on the score's tracks.

    What is new follows from the ids, not from the time: rounding may move the prompt's last notes behind its end.

    Args:
        whole: the ids of the prompt and new ones, decoded.
        prompt: the ids of the prompt, decoded.
    """
    known, notes = _by_name(prompt), _by_name(whole)
    new, held = (Score(whole.ticks_per_quarter) for _ in range(2))
    chosen = {name: _compared(notes[name], known.get(name)) for name in notes}
    passed: dict[tuple[Any, ...], int] = defaultdict(int)
    for track in whole.tracks:
        name, count = _name(track), len(track.notes)
        span = slice(passed[name], passed[name] + count)
        passed[name] += count
        for score, is_chosen in zip((new, held), chosen[name], strict=True):
            part = Track(track.name, track.program, track.is_drum)
            part.notes = Note.from_numpy(**{k: v[span][is_chosen[span]] for k, v in notes[name].items()})
            score.tracks.append(part)
    return new, held


Notes = dict[str, np.ndarray]
"""Onset ("time"), duration, pitch and velocity of notes, (N,) each."""


def _by_name(score: Score) -> dict[tuple[Any, ...], Notes]:
    """Return the notes of tracks by instrument and name: MidiTok's BEAT decodes several tracks of one."""
    found: dict[tuple[Any, ...], list[Notes]] = defaultdict(list)
    for track in score.tracks:
        found[_name(track)].append(track.notes.numpy())
    return {name: {k: np.concatenate([each[k] for each in of]) for k in of[0]} for name, of in found.items()}


def _compared(notes: Notes, known: Notes | None) -> tuple[np.ndarray, np.ndarray]:
    """Return which notes are new, and which known ones are longer than they were, (N,) booleans each."""
    is_new = np.ones(len(notes["time"]), bool)
    if known is None or not len(known["time"]) or not len(is_new):
        return is_new, ~is_new
    keys, of_known = _keys(notes), _keys(known)
    order = np.argsort(of_known)
    place = order[np.minimum(np.searchsorted(of_known[order], keys), len(order) - 1)]
    is_new = of_known[place] != keys
    return is_new, ~is_new & (notes["duration"] > known["duration"][place])


def _name(track: Any) -> tuple[Any, ...]:
    return track.is_drum, track.program, track.name


def _keys(notes: Notes) -> np.ndarray:
    """Return a number for each note, (N,): its onset, pitch, velocity, and which of several with the same it is."""
    time, pitch, velocity, duration = (notes[k].astype(np.int64) for k in ("time", "pitch", "velocity", "duration"))
    keys = (time << 14) + (pitch << 7) + velocity
    order = np.lexsort((duration, keys))
    ranks = np.arange(len(keys))
    is_first = np.diff(keys[order], prepend=-1) != 0
    repeats = ranks - np.maximum.accumulate(np.where(is_first, ranks, 0))
    keys[order] = (keys[order] << 12) + repeats
    return keys


def own_part(score: Score, quarters: float, *, has_notes: bool = True) -> Score:
    """Return a prompt at a common resolution, its pedals released at the seam, modulation and pitch bend reset.

    Args:
        score: the prompt; it ends at the seam.
        quarters: where the seam is.
        has_notes: if false, the prompt is silent: no notes, lyrics and markers, and of the controllers those that are in
            force behind the seam, from the beginning.
    """
    ticks = common_ticks(score.ticks_per_quarter)
    part = score.copy() if ticks == score.ticks_per_quarter else score.resample(ticks)
    seam = round(quarters * ticks)
    for track in part.tracks:
        midi.release(track, seam)
        if not has_notes:
            controls, _ = midi.in_force(track, seam, at=0)
            track.controls.clear()
            track.controls.extend([c for c in controls if c.value or c.number not in midi.RELEASED])
            for events in (track.notes, track.lyrics, track.pitch_bends):
                events.clear()
    if not has_notes:
        part.markers.clear()
    return part


class Tracks:
    """Which track of a prompt goes on with the notes of each track of a decoded score.

    Args:
        score: the prompt.
        decoded: its ids, decoded, in the score's own quarters.
        tokenizer: of the ids.

    Attributes:
        velocity: of new notes where the tokenizer has none: the mean of the prompt; None where it has velocities.
    """

    def __init__(self, score: Score, decoded: Score, tokenizer: Tokenizer) -> None:
        table = base_of(tokenizer.vocabulary)
        self._score, self._program = score, tokenizer.unmerged.program
        self._voices = _voices(score, decoded) if has(table, Kind.CELL) else None
        is_said = has(table, Kind.VELOCITY)
        loudness = [n.velocity for t in score.tracks if not t.is_drum for n in t.notes]
        self.velocity = None if is_said or not loudness else round(float(np.mean(loudness)))

    def of(self, number: int, track: Any) -> tuple[int | None, int]:
        """Return the index of the prompt's track for a decoded track, None for a new one, and the program of a new one."""
        if self._voices is not None:
            owner = self._voices[number]
            if owner is not None:
                return owner, track.program
            nearest = sorted((abs(number - v), v) for v, o in enumerate(self._voices) if o is not None)
            owner = self._voices[nearest[0][1]] if nearest else None
            return None, track.program if owner is None else self._score.tracks[owner].program
        tracks = list(enumerate(self._score.tracks))
        alike = [i for i, t in tracks if t.is_drum == track.is_drum and (t.is_drum or t.program == track.program)]
        if self._program is not None and not any(len(self._score.tracks[i].notes) for i in alike):
            family = track.program // FAMILY  # all pianos are this tokenizer's one piano
            alike = [i for i, t in tracks if not t.is_drum and t.program // FAMILY == family]
        playing = [i for i in alike if len(self._score.tracks[i].notes)]
        ready = [i for i in alike if len(self._score.tracks[i].controls)]  # it has rests so far; others are only titles
        return next(iter([*playing, *ready]), None), track.program


def _voices(score: Score, decoded: Score) -> list[int | None]:
    """Return for each decoded voice the prompt's track with most of its notes, by time; None for a silent voice."""
    notes: dict[int, list[tuple[float, float, int]]] = defaultdict(list)
    for i, track in enumerate(score.tracks):
        for n in () if track.is_drum else track.notes:
            notes[n.pitch].append((n.time / score.ticks_per_quarter, n.end / score.ticks_per_quarter, i))
    longest = {pitch: max(end - start for start, end, _ in of) for pitch, of in notes.items()}
    for of in notes.values():
        of.sort()
    found: list[int | None] = []
    for voice in decoded.tracks:
        shared: dict[int, float] = defaultdict(float)
        for n in voice.notes:
            start, end = (t / decoded.ticks_per_quarter for t in (n.time, n.end))
            of = notes.get(n.pitch, [])
            first = bisect.bisect_left(of, (start - longest.get(n.pitch, 0.0),))
            for a, b, i in of[first : bisect.bisect_left(of, (end,))]:
                shared[i] += max(0.0, min(b, end) - max(a, start))
        # of voices in unison throughout each has a track of its own, if there are as many
        best = max(shared, key=lambda i: (round(shared[i], 6), i not in found, -i), default=None)
        found.append(best)
    return found


def add_notes(part: Score, tracks: Tracks, new: Score, held: Score) -> None:
    """Add new notes to a prompt's own part, and prolong its last notes; in place.

    Args:
        part: see `own_part`.
        tracks: of the prompt.
        new: see `split`; in the prompt's quarters.
        held: the same.
    """
    scale = part.ticks_per_quarter / new.ticks_per_quarter
    ends: dict[tuple[int, int, int], tuple[int, int]] = {}
    for number, (fresh, longer) in enumerate(zip(new.tracks, held.tracks, strict=True)):
        place, program = tracks.of(number, fresh)
        if place is None and len(fresh.notes):
            part.tracks.append(Track(fresh.name, program, fresh.is_drum))
            place = len(part.tracks) - 1
        if place is None:
            continue
        target = part.tracks[place]
        others = [t for t in part.tracks if t is not target and not t.is_drum]
        for n in longer.notes:
            _prolong([target, *others], round(n.time * scale), round(n.end * scale), n.pitch)
        for n in fresh.notes:  # voices in unison on one track are one note, as long as the longest
            at = place, round(n.time * scale), n.pitch
            end = max(at[1] + 1, round(n.end * scale))
            ends[at] = max(ends.get(at, (0, 0)), (end, n.velocity if tracks.velocity is None else tracks.velocity))
    for (place, start, pitch), (end, velocity) in ends.items():
        part.tracks[place].notes.append(Note(start, end - start, pitch, velocity))
    for place in {at[0] for at in ends}:
        _sort(part.tracks[place])


def _sort(track: Any) -> None:
    """Bring the notes of a track in the order of their onsets."""
    notes = track.notes.numpy()
    if (np.diff(notes["time"]) < 0).any():
        order = np.argsort(notes["time"], kind="stable")
        track.notes = Note.from_numpy(**{name: values[order] for name, values in notes.items()})


def _prolong(tracks: Sequence[Any], start: int, end: int, pitch: int) -> None:
    """Let the last note of a pitch that ends behind `start` last until `end`, on the first track that has such a note."""
    for track in tracks:
        last = max((n for n in track.notes if n.pitch == pitch), key=lambda n: n.end, default=None)
        if last is not None and last.end > start:
            last.duration = max(last.duration, end - last.time)
            return


def add_changes(part: Score, decoded: Score, quarters: float, *, tempi: Sequence[float]) -> None:
    """Add tempi and time signatures of new music to a prompt's own part; in place.

    Args:
        part: see `own_part`.
        decoded: the whole as the model reads it, with the prompt's tempi.
        quarters: where the seam is.
        tempi: those of the tokenizer; without any the new music is in the prompt's tempo and time signature.
    """
    if not tempi:
        return
    if not any(t.time == 0 for t in part.tempos):
        part.tempos.append(Tempo(0, 120.0))  # the default of MIDI files
        part.tempos.sort(key=lambda t: t.time)
    scale = part.ticks_per_quarter / decoded.ticks_per_quarter
    first = round(quarters * decoded.ticks_per_quarter)
    for tempo in sorted(decoded.tempos, key=lambda t: t.time):
        if tempo.time >= first:
            copied = tempo.copy()
            copied.time = round(tempo.time * scale)
            part.tempos.append(copied)
    line = midi.bar_line(decoded, quarters)
    bar, own = _bar_at(decoded, line), _bar_at(part, line)
    if own != bar:  # the model could not read the prompt's bars, or has been asked for others
        at = round(line * part.ticks_per_quarter)
        part.time_signatures.append(TimeSignature(at, bar[1], bar[2]))
    for sign in sorted(decoded.time_signatures, key=lambda t: t.time):
        if sign.time > round(line * decoded.ticks_per_quarter):
            part.time_signatures.append(TimeSignature(round(sign.time * scale), sign.numerator, sign.denominator))


def _bar_at(score: Score, quarters: float) -> tuple[bool, int, int]:
    """Return whether a bar begins at a time, and the time signature of the bar that does, or of the next one."""
    bars = midi.BarMap(score)
    line = bars.bar_line(quarters)
    bar = next(b for b in bars if b.end > line + TOLERANCE)
    return line <= quarters + TOLERANCE, bar.numerator, bar.denominator


def num_doubled(score: Score, decoded: Score, tokenizer: Tokenizer) -> int:
    """Return how many notes of a prompt became one with another of the same onset, pitch and instrument.

    Each decoded note has one note of the prompt, the nearest; another one at the same place is its double.

    Args:
        score: the prompt.
        decoded: its ids, decoded, in the score's own quarters.
        tokenizer: of the ids. One without programs has one instrument.
    """
    has_programs = has(base_of(tokenizer.vocabulary), Kind.PROGRAM)
    expressed, given = (_onsets(each, has_programs) for each in (decoded, score))
    count = 0
    for sound, onsets in given.items():
        known = expressed.get(sound, [])
        free, others = known.copy(), list[float]()
        for onset in onsets:
            at = _nearest(free, onset)
            if at is None:
                others.append(onset)
            else:
                del free[at]
        count += sum(_nearest(known, onset) is not None for onset in others)
    return count


def _onsets(score: Score, has_programs: bool) -> dict[tuple[Any, ...], list[float]]:
    """Return the onsets of each sound, in quarters, rising."""
    found: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for track in score.tracks:
        program = track.program if has_programs and not track.is_drum else 0
        for n in track.notes:
            found[track.is_drum, program, n.pitch].append(n.time / score.ticks_per_quarter)
    return {sound: sorted(onsets) for sound, onsets in found.items()}


def _nearest(onsets: list[float], onset: float) -> int | None:
    """Return the index of the nearest of rising onsets; None if it is not the same as tokenised."""
    at = bisect.bisect_left(onsets, onset)
    near = [i for i in (at - 1, at) if 0 <= i < len(onsets) and abs(onsets[i] - onset) <= SAME_ONSET]
    return min(near, key=lambda i: abs(onsets[i] - onset), default=None)
