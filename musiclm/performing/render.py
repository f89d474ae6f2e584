"""A performance of a score: exactly the score's notes, at other times, with other velocities, and with the pedal.

Notes of one pitch on a track keep their order and never overlap, as one key cannot be pressed twice.

N notes.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from symusic import ControlChange, Note, Score, Tempo, Track

from .. import __version__, midi
from ..errors import MidiError
from .model import DRUMS, PIANO, Performer
from .notes import TOGETHER, ScoreNotes, drum_notes, is_score, keyboard_notes, onset_numbers, onset_times
from .parameters import Parameters, tempo_curve

TICKS = 960  # per quarter; at 120 quarters per minute a tick is half a millisecond
QPM = 120.0  # of performances, whose times are real
SUSTAIN = 64  # controller
PIANOS = range(8)  # General MIDI programs with a sustain pedal
RELEASE_S = 0.06  # the pedal goes up so long before an onset that has none, or down so long behind one that has it anew
SHORTEST = 1  # tick
HELD_S = (
    0.5  # a key is held at most so much longer than written: a ratio that fits short notes is too much for long ones
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Expression:
    """How a score is performed.

    Attributes:
        strength: 0 … 2: 0 is the score as it is written, 1 as the model plays, 2 twice its deviations.
        seed: of the sample; None for the means.
        quarters_per_minute: the mean tempo; the score's own tempi if None.
        velocity_only: whether times and pedal stay as they are.
    """

    strength: float = 1.0
    seed: int | None = None
    quarters_per_minute: float | None = None
    velocity_only: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 2:
            raise ValueError(f"strength must be from 0 to 2, not {self.strength:g}")
        if self.quarters_per_minute is not None and not 4 <= self.quarters_per_minute <= 1000:
            raise ValueError(f"a tempo must be from 4 to 1000 quarters per minute, not {self.quarters_per_minute:g}")


def perform(
    score: Score, performers: Mapping[str, Performer], expression: Expression | None = None, *, force: bool = False
) -> Score:
    """Return a performance of a score.

    Keyboards and drums are played by their performers; where there is a keyboard, all else follows its tempo.

    Args:
        score: on a grid, as written.
        performers: by kind, piano and drums; a kind that the score does not have is not needed.
        expression: how; the means at strength 1 if left out.
        force: whether to perform what is no score, but a performance already.

    Raises:
        MidiError: the score has neither a keyboard nor drums, or no performer for them, or is a performance already.
    """
    expression = expression or Expression()
    groups = {PIANO: keyboard_notes(score), DRUMS: drum_notes(score)}
    found = {kind: notes for kind, notes in groups.items() if notes is not None and kind in performers}
    if not found:
        there = " and ".join(kind for kind, notes in groups.items() if notes is not None)
        lacking = f"only {there}, which nobody here plays" if there else "neither a keyboard nor drums"
        raise MidiError(f"there is nothing to perform: the score has {lacking}")
    if not force and not any(is_score(notes) for notes in found.values()):
        raise MidiError(
            "this is no score but a performance: its onsets are on no grid (--force performs it all the same)"
        )
    played = {
        kind: scaled(performers[kind].predict(notes, _seed(expression.seed, kind)), notes, expression.strength)
        for kind, notes in found.items()
    }
    if expression.velocity_only:
        return _with_velocities(score, found, played)
    return _in_real_time(score, found, played, expression)


def record(expression: Expression, models: Mapping[str, str]) -> str:
    """Return a text for a performance's file that says how it was made, without any path or date.

    Args:
        expression: how.
        models: names of the performers, and the SHA-256 of their weights.
    """
    by = {Path(name).stem: sha256[:16] for name, sha256 in models.items()}
    made = {"version": __version__, "models": by, **dataclasses.asdict(expression)}
    return "performed by musiclm: " + json.dumps(made, sort_keys=True)


def scaled(parameters: Parameters, notes: ScoreNotes, strength: float) -> Parameters:
    """Return parameters at a strength: 0 is the score as it is written, 1 the performance, 2 twice its deviations.

    Velocities below 1 are between those of the score and of the performance; above 1 their deviations from the mean grow.
    Times and durations deviate from the written ones by so much; notes that are longer than written, at most as at 1.
    """
    mean, part = float(parameters.velocity.mean()), min(strength, 1.0)
    velocity = (1 - part) * notes.velocity / 127 + part * mean + strength * (parameters.velocity - mean)
    shorter, longer = np.minimum(parameters.articulation, 0.0), np.maximum(parameters.articulation, 0.0)
    return dataclasses.replace(
        parameters,
        velocity=np.clip(velocity, 1 / 127, 1.0),
        tempo=strength * parameters.tempo,
        deviation=strength * parameters.deviation,
        articulation=strength * shorter + part * longer,
    )


def _seed(seed: int | None, kind: str) -> int | None:
    """Return the seed of one kind of players."""
    return (
        None
        if seed is None
        else int(np.random.SeedSequence([seed, (PIANO, DRUMS).index(kind)]).generate_state(1, np.uint64)[0])
    )


def _with_velocities(score: Score, groups: Mapping[str, ScoreNotes], played: Mapping[str, Parameters]) -> Score:
    """Return the score with other velocities alone."""
    performance = score.copy()
    for kind, notes in groups.items():
        for track, index, velocity in zip(notes.track, notes.index, played[kind].velocity, strict=True):
            performance.tracks[int(track)].notes[int(index)].velocity = _midi_velocity(velocity)
    return performance


def _midi_velocity(velocity: float) -> int:
    return int(np.clip(round(127 * float(velocity)), 1, 127))


class _Clock:
    """Seconds of the performance as a function of quarters of the score: linear between its nodes.

    Args:
        at: quarters, rising, at least two.
        seconds: at these, rising.
    """

    def __init__(self, at: np.ndarray, seconds: np.ndarray) -> None:
        self.at, self.seconds = at, seconds
        self.last = float((seconds[-1] - seconds[-2]) / (at[-1] - at[-2]))

    def __call__(self, quarters: np.ndarray) -> np.ndarray:
        behind = np.maximum(quarters - self.at[-1], 0.0) * self.last
        seconds: np.ndarray = np.interp(quarters, self.at, self.seconds) + behind
        return seconds


def _in_real_time(
    score: Score, groups: Mapping[str, ScoreNotes], played: Mapping[str, Parameters], expression: Expression
) -> Score:
    """Return the performance in real time, at `TICKS` ticks per quarter of `QPM`."""
    leader = PIANO if PIANO in groups else DRUMS
    clock = _clock(score, groups[leader], played[leader], expression.quarters_per_minute)

    def moved(events: Iterable[Any]) -> list[Any]:
        copies = [each.copy() for each in events]
        for each in copies:
            each.time = _tick(float(clock(np.array([each.time / score.ticks_per_quarter]))[0]))
        return copies

    performance = Score(TICKS)
    performance.tempos.append(Tempo(0, QPM))
    performance.time_signatures = type(score.time_signatures)(moved(score.time_signatures))
    performance.key_signatures = type(score.key_signatures)(moved(score.key_signatures))
    times = _times(score, groups, played, clock)
    pedalled = _pedalled(score, groups) if expression.strength > 0 else []
    for i, track in enumerate(score.tracks):
        copy = type(track)(track.name, track.program, track.is_drum)
        copy.notes = type(copy.notes)(_ordered(track.notes, *times[i]))
        kept = [c for c in track.controls if not (i in pedalled and c.number == SUSTAIN)]
        copy.controls = type(copy.controls)(moved(kept))
        copy.pitch_bends = type(copy.pitch_bends)(moved(track.pitch_bends))
        copy.lyrics = type(copy.lyrics)(moved(track.lyrics))
        performance.tracks.append(copy)
    for i in pedalled:
        if performance.tracks[i].notes:
            _add_pedal(performance.tracks[i], groups[PIANO], played[PIANO], clock)
    return performance


def _pedalled(score: Score, groups: Mapping[str, ScoreNotes]) -> list[int]:
    """Return the tracks whose pedal is played: the pianos of a group; an organ has none."""
    if PIANO not in groups:
        return []
    return [i for i in np.unique(groups[PIANO].track).tolist() if score.tracks[i].program in PIANOS]


def _clock(score: Score, notes: ScoreNotes, parameters: Parameters, quarters_per_minute: float | None) -> _Clock:
    """Return when each quarter of the score is: its own tempi, times those of the group that leads.

    The whole lasts as long as the score does, or as it would at the tempo that is asked for.
    """
    tempi, end = midi.TempoMap(score), max(midi.end(score), TOGETHER)
    onsets = onset_times(notes)
    at = np.unique([0.0, *(start for start in tempi.starts if start < end), *onsets.tolist(), end])
    written = np.array([tempi.seconds_at(quarters) for quarters in at.tolist()])
    curve = np.append(0.0, tempo_curve(notes, parameters))  # 0 before the first onset
    steps = np.diff(written) * 2.0 ** curve[np.searchsorted(onsets, at[:-1], side="right")]
    total = end * 60 / quarters_per_minute if quarters_per_minute else float(written[-1])
    return _Clock(at, np.append(0.0, np.cumsum(steps) * (total / steps.sum())))


def _times(
    score: Score, groups: Mapping[str, ScoreNotes], played: Mapping[str, Parameters], clock: _Clock
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return onsets and ends in seconds, and velocities, of the notes of each track."""
    found = []
    for track in score.tracks:
        columns = track.notes.numpy()
        begin = columns["time"] / score.ticks_per_quarter
        end = (columns["time"] + columns["duration"]) / score.ticks_per_quarter
        found.append((clock(begin), clock(end), columns["velocity"].astype(np.int64)))
    for kind, notes in groups.items():
        parameters = played[kind]
        begin, end = clock(notes.onset), clock(notes.onset + notes.duration)
        onset_s = begin + parameters.deviation
        written = end - begin
        end_s = onset_s + np.minimum(written * 2.0**parameters.articulation, written + HELD_S)
        if kind == DRUMS:
            end_s = onset_s + (end - begin)
        for track in np.unique(notes.track).tolist():
            chosen = notes.track == track
            where = notes.index[chosen]
            for array, values in zip(found[track][:2], (onset_s, end_s), strict=True):
                array[where] = values[chosen]
            found[track][2][where] = [_midi_velocity(v) for v in parameters.velocity[chosen]]
    return found


def _tick(seconds: float) -> int:
    return max(0, round(seconds * TICKS * QPM / 60))


def _ordered(notes: Sequence[Note], onset_s: np.ndarray, end_s: np.ndarray, velocity: np.ndarray) -> list[Note]:
    """Return the notes at their new times: those of one pitch keep their order, and each ends where the next one begins."""
    pitches = np.array([note.pitch for note in notes], np.int64)
    written = np.array([note.time for note in notes], np.int64)
    onset = np.array([_tick(s) for s in onset_s], np.int64)
    end = np.array([_tick(s) for s in end_s], np.int64)
    for pitch in np.unique(pitches).tolist():
        which = np.flatnonzero(pitches == pitch)
        which = which[np.argsort(written[which], kind="stable")]
        for before, after in itertools.pairwise(which):
            onset[after] = max(onset[after], onset[before] + SHORTEST)
        for before, after in itertools.pairwise(which):
            end[before] = min(end[before], onset[after])
    end = np.maximum(end, onset + SHORTEST)
    order = np.lexsort((pitches, onset))
    return [Note(int(onset[i]), int(end[i] - onset[i]), int(pitches[i]), int(velocity[i])) for i in order.tolist()]


def _add_pedal(track: Track, notes: ScoreNotes, parameters: Parameters, clock: _Clock) -> None:
    """Add the sustain pedal to a track: it changes a little behind the onset, as pianists do."""
    at = onset_times(notes)
    first = np.unique(onset_numbers(notes), return_index=True)[1]
    is_down = parameters.pedal[first] > 0.5
    down = False
    for seconds, wanted in zip(clock(at).tolist(), is_down.tolist(), strict=True):
        if down:  # lifted at each onset, so that harmonies do not blur
            track.controls.append(ControlChange(_tick(seconds), SUSTAIN, 0))
        if wanted:
            track.controls.append(ControlChange(_tick(seconds + RELEASE_S), SUSTAIN, 127))
        down = wanted
    if down:
        last = max(note.end for note in track.notes)
        track.controls.append(ControlChange(last, SUSTAIN, 0))
