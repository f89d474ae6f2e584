"""The given music of `accompany` and `restyle`: what stays, and what of it the model reads as its source."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from symusic import Note, Score, TextMeta, Track

from ..errors import MidiError
from ..midi import parts
from ..midi.parts import Melody
from ..tokenizers.score_plan import STYLE_MARKER

MELODY = "Melody"  # the name of its track


class Given(NamedTuple):
    """The given music.

    Attributes:
        music: what stays; new parts are added to it.
        source: the notes that the model reads, in the bars of the song.
    """

    music: Score
    source: Score


def is_melody_alone(score: Score) -> bool:
    """Return whether a score has no pitched notes besides its melody, so that its harmony is not known.

    Drums may play.
    """
    tune = parts.melody(score)
    num_pitched = sum(len(track.notes) for track in score.tracks if not track.is_drum)
    return tune is None or len(tune.notes) == num_pitched


def has_drums(score: Score) -> bool:
    """Return whether drums play in a score."""
    return any(track.is_drum and len(track.notes) for track in score.tracks)


def accompanied(score: Score) -> Given:
    """Return a song that stays as it is."""
    return Given(score.copy(), score)


def restyled(score: Score, style: str, program: int, start: float, stop: float) -> Given:
    """Return a song of which the melody alone stays, within a time.

    The melody moves to a track of its own. Tempo, time signatures and keys stay; the controllers of other tracks go where
    all their notes do.

    Args:
        score: it is not changed.
        style: the new one; a marker says it where nothing of another style stays.
        program: that plays the melody.
        start: in quarters.
        stop: in quarters.

    Raises:
        MidiError: there is no melody.
    """
    tune = parts.melody(score)
    if tune is None:
        raise MidiError("the song has no melody: only drums play")
    first, last = round(start * score.ticks_per_quarter), round(stop * score.ticks_per_quarter)
    music, source = _without(score, first, last), score.copy()
    melody = _track_of(score, tune, program)
    source.tracks = type(source.tracks)([melody])
    times = melody.notes.numpy()
    chosen = (times["time"] >= first) & (times["time"] < last)
    if not chosen.any():
        raise MidiError("the melody is silent in these bars: choose others with --bars")
    within = Track(MELODY, program, False)
    within.notes = Note.from_numpy(**{name: column[chosen] for name, column in times.items()})
    is_whole = not len(music.tracks)
    music.tracks.insert(0, within)
    if is_whole:
        others = [m for m in music.markers if not m.text.startswith(STYLE_MARKER)]
        music.markers = type(music.markers)([TextMeta(0, STYLE_MARKER + style), *others])
    return Given(music, source)


def _without(score: Score, first: int, last: int) -> Score:
    """Return a score without the notes that begin in [first, last) ticks, and without tracks that have no others."""
    music = score.copy()
    for track in music.tracks:
        notes = track.notes.numpy()
        chosen = (notes["time"] < first) | (notes["time"] >= last)
        track.notes = Note.from_numpy(**{name: column[chosen] for name, column in notes.items()})
    music.tracks = type(music.tracks)([track for track in music.tracks if len(track.notes)])
    return music


def _track_of(score: Score, tune: Melody, program: int) -> Track:
    """Return the melody as a track, in the order of time."""
    columns = [score.tracks[i].notes.numpy() for i in range(len(score.tracks))]
    rows = [(columns[i], j) for i, j in tune.notes.tolist()]
    names = ("time", "duration", "pitch", "velocity")
    values = np.array([[int(column[name][j]) for name in names] for column, j in rows], np.int64)
    order = np.lexsort((values[:, 2], values[:, 0]))
    track = Track(MELODY, program, False)
    for time, duration, pitch, velocity in values[order].tolist():
        track.notes.append(Note(time, duration, pitch, velocity))
    return track
