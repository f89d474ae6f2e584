"""Scores to try tokenizers on: real files, where there are some, and small ones made by hand."""

from functools import lru_cache

from symusic import ControlChange, Note, Score, Tempo, TimeSignature, Track

from musiclm import midi
from musiclm.errors import MidiError
from tests.real_data import each_real_file


@lru_cache
def real_scores(archive: str, count: int, *, stand_in: bool = True) -> list[Score]:
    """Return the first scores of an archive that can be read and are not very long. See `each_real_file`."""
    found: list[Score] = []
    for name, data in each_real_file(archive, stand_in=stand_in):
        try:
            score = midi.parse(data, name)
        except MidiError:
            continue
        if score.note_num() < 8000:
            found.append(score)
        if len(found) == count:
            break
    return found


def band() -> Score:
    """Return two bars of 3/4 and two of 4/4 for piano, bass and drums, with a change of tempo."""
    score = Score(480)
    score.tempos.append(Tempo(0, 90))
    score.tempos.append(Tempo(2880, 120))
    score.time_signatures.append(TimeSignature(0, 3, 4))
    score.time_signatures.append(TimeSignature(2880, 4, 4))
    piano, bass, drums = Track("Piano", 0, False), Track("Bass", 33, False), Track("Drums", 0, True)
    for beat in range(14):
        for pitch in (60, 64, 67 + beat % 3):
            piano.notes.append(Note(480 * beat, 440, pitch, 70 + beat))
        bass.notes.append(Note(480 * beat + 240, 200, 36 + beat % 5, 90))
        drums.notes.append(Note(480 * beat, 120, 36 if beat % 2 else 42, 100))
    for track in (piano, bass, drums):
        score.tracks.append(track)
    return score


def pressed(
    notes: list[tuple[float, float, int, int]], pedal: list[tuple[float, int]] = (), qpm: float = 75.0
) -> Score:
    """Return a piano score of (start, end, pitch, velocity) and (time, value) of the pedal, in seconds, at a tempo."""
    score = Score(960)
    score.tempos.append(Tempo(0, qpm))
    ticks = 960 * qpm / 60
    track = Track("Piano", 0, False)
    for start, end, pitch, velocity in notes:
        track.notes.append(
            Note(round(start * ticks), max(1, round(end * ticks) - round(start * ticks)), pitch, velocity)
        )
    for time, value in pedal:
        track.controls.append(ControlChange(round(time * ticks), 64, value))
    score.tracks.append(track)
    return score
