"""Songs that tests write parts beside: a melody, chords below it, drums, in bars of given time signatures."""

from __future__ import annotations

from collections.abc import Sequence

from symusic import ControlChange, Note, Score, Tempo, TextMeta, TimeSignature, Track

QUARTER = 480  # ticks
SCALE = (72, 74, 76, 77, 79)
CHORDS = ((48, 52, 55), (45, 48, 52), (41, 45, 48), (43, 47, 50))  # C Am F G


def song(signs: Sequence[tuple[int, int]], *, tracks: str = "melody chords") -> Score:
    """Return a song with a bar of each time signature, and a change of tempo in its third bar.

    Args:
        signs: numerator and denominator of each bar.
        tracks: which of "melody", "chords" and "drums" play.
    """
    score = Score(QUARTER)
    score.tempos.append(Tempo(0, 96))
    score.markers.append(TextMeta(0, "a marker"))
    melody, chords, drums = Track("Melody", 73, False), Track("Guitar", 24, False), Track("Kit", 0, True)
    chords.controls.append(ControlChange(0, 7, 90))
    at = 0
    for number, (numerator, denominator) in enumerate(signs):
        length = 4 * QUARTER * numerator // denominator
        if number == 2:
            score.tempos.append(Tempo(at, 140))
        if number == 0 or signs[number - 1] != signs[number]:
            score.time_signatures.append(TimeSignature(at, numerator, denominator))
        for beat in range(length // QUARTER):
            melody.notes.append(Note(at + beat * QUARTER, 400, SCALE[(3 * number + 2 * beat) % 5], 80 + number))
            drums.notes.append(Note(at + beat * QUARTER, 60, 42, 70))
        for pitch in CHORDS[number % 4]:
            chords.notes.append(Note(at, length, pitch, 60))
        at += length
    for name, track in (("melody", melody), ("chords", chords), ("drums", drums)):
        if name in tracks.split():
            score.tracks.append(track)
    return score


def events(score: Score) -> list[tuple[object, ...]]:
    """Return all events of a score but its markers, those of each track as one entry."""
    found: list[tuple[object, ...]] = [
        tuple((t.time, t.mspq) for t in score.tempos),
        tuple((t.time, t.numerator, t.denominator) for t in score.time_signatures),
    ]
    for track in score.tracks:
        notes = tuple(sorted((n.time, n.duration, n.pitch, n.velocity) for n in track.notes))
        controls = tuple((c.time, c.number, c.value) for c in track.controls)
        found.append((track.name, track.program, track.is_drum, notes, controls))
    return found
