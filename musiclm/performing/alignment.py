"""Which note of a performance is which note of the score, where the performance has the score's notes.

This is for what `perform` writes, and for performances of exactly the notes: the notes of one pitch are in the same order in
both. A pianist's recording leaves notes out and adds others: that needs an alignment such as those of ASAP (`asap`).
"""

from __future__ import annotations

import numpy as np
from symusic import Score

from ..errors import MidiError
from ..midi.controllers import SUSTAIN
from ..midi.pedal import DOWN
from .notes import ScoreNotes, drum_notes, keyboard_notes
from .parameters import Parameters, parameters_of

LEAST = 0.8  # of the score's notes that have a partner


def performed(
    score: Score, performance: Score, *, drums: bool = False, window: float = 0.0
) -> tuple[ScoreNotes, Parameters]:
    """Return the notes of a score's keyboard, of its drums if it has none, and how a performance plays them.

    Pitches that do not occur as often in both have no partners.

    Args:
        score: as written.
        performance: of the same notes.
        drums: take the drums, whatever else there is.
        window: quarters in which the tempo does not change, see `parameters_of`.

    Raises:
        MidiError: the score has nothing to perform, or the performance has other notes.
    """
    of = drum_notes if drums or keyboard_notes(score) is None else keyboard_notes
    notes, played = of(score), of(performance)
    if notes is None:
        raise MidiError("the score has no drums" if drums else "the score has neither a keyboard nor drums")
    partner = np.full(len(notes), -1)
    if played is not None:
        for pitch in np.unique(notes.pitch):
            mine, theirs = np.flatnonzero(notes.pitch == pitch), np.flatnonzero(played.pitch == pitch)
            if len(mine) == len(theirs):
                partner[mine] = theirs
    has = partner >= 0
    if played is None or has.mean() < LEAST:
        raise MidiError(f"the performance has other notes than the score: {has.mean():.0%} of these are there as often")
    begin, end = _seconds(performance, played)
    down = _pedal(performance, begin)
    onset_s, end_s = (np.where(has, each[partner], np.nan) for each in (begin, end))
    velocity = np.where(has, played.velocity[partner], 0)
    return notes, parameters_of(notes, onset_s, end_s, velocity, np.where(has, down[partner], False), window=window)


def _seconds(performance: Score, played: ScoreNotes) -> tuple[np.ndarray, np.ndarray]:
    """Return when the notes of a performance begin and end, seconds, (N,) float64 each."""
    timed = performance.to("second")
    columns = [track.notes.numpy() for track in timed.tracks]
    begin, end = np.zeros(len(played)), np.zeros(len(played))
    for track in np.unique(played.track).tolist():
        chosen = played.track == track
        where = played.index[chosen]
        begin[chosen] = columns[track]["time"][where]
        end[chosen] = begin[chosen] + columns[track]["duration"][where]
    return begin, end


def _pedal(performance: Score, seconds: np.ndarray) -> np.ndarray:
    """Return whether the sustain pedal of any track is down at some times, (N,) bool."""
    down = np.zeros(len(seconds), bool)
    for track in performance.to("second").tracks:
        events = sorted((c.time, c.value >= DOWN) for c in track.controls if c.number == SUSTAIN)
        if events:
            state = np.array([False, *(is_down for _, is_down in events)])
            down |= state[np.searchsorted([time for time, _ in events], seconds, side="right")]
    return down
