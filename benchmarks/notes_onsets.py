"""Onsets and families of `musiclm classify --notes` on rendered pieces, for `notes.py`.

A polyphonic piece is the first 30 seconds of a MIDI file. A melody is the highest note at each onset of one of its tracks (of
the first two with 16 such notes), held until the next one at most, by an instrument of one family, in octaves that it plays.
The reference is the onsets in the file; those within 30 ms of the one before are one onset. F-measure of mir_eval (Raffel et
al. 2014) with a window of 50 ms.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from musiclm.cli.classify import classify_all
from symusic import Note, Score, Track

from musiclm import midi, rendering
from musiclm.audio import FAMILIES
from musiclm.audio.classifier import NoteClassifier
from musiclm.errors import AudioError, CorpusError

WINDOW = 0.05  # seconds between an onset and its detection
TOGETHER = 0.03  # seconds; onsets nearer than that to the one before are one
LONGEST = 30.0  # seconds of a piece
MOST_MELODIES = 2  # of a file
FEWEST = 16  # notes of a melody
PROGRAMS = {  # of each family: a General MIDI program, and the lowest and highest pitch of its melodies
    "bass": (33, 28, 55),
    "brass": (56, 55, 82),
    "flute": (73, 60, 96),
    "guitar": (24, 40, 76),
    "keyboard": (0, 36, 96),
    "mallet": (12, 48, 84),
    "organ": (19, 36, 84),
    "reed": (71, 50, 86),
    "string": (40, 55, 93),
    "synth_lead": (80, 48, 84),
    "vocal": (52, 48, 76),
}


class Piece(NamedTuple):
    """A piece to render: its name, its score, and for a melody the family that plays it."""

    name: str
    score: Score
    family: str | None


def pieces(folder: Path, most: int | None = None) -> list[Piece]:
    """Return the melodies and the polyphonic pieces of a folder's MIDI files; the families of the melodies take turns.

    Raises:
        CorpusError: there are none.
    """
    found, melodies = [], []
    for path in sorted([*folder.rglob("*.mid"), *folder.rglob("*.midi")])[:most]:
        score = midi.read(path)
        end = round(midi.quarters_at(score, LONGEST) * score.ticks_per_quarter)
        score = score.clip(0, end, clip_end=True)
        if onsets_of(score):
            found.append(Piece(path.stem, score, None))
        lines = [(n, top_line(track)) for n, track in enumerate(score.tracks, 1) if not track.is_drum]
        lines = [each for each in lines if len(each[1]) >= FEWEST][:MOST_MELODIES]
        melodies += [(f"{path.stem}, track {number}", score, line) for number, line in lines]
    for number, (name, score, line) in enumerate(melodies):
        family = FAMILIES[number % len(FAMILIES)]
        found.append(Piece(f"{name}, {family}", played_by(score, line, family), family))
    if not found:
        raise CorpusError(f"no MIDI files with notes in '{folder}'")
    return found


def top_line(track: Track) -> list[Note]:
    """Return the highest note of each onset, each ending at the next one at the latest."""
    highest: dict[int, Note] = {}
    for note in track.notes:
        if note.time not in highest or note.pitch > highest[note.time].pitch:
            highest[note.time] = note
    line = [highest[time] for time in sorted(highest)]
    return [
        Note(n.time, n.duration if after is None else min(n.duration, after.time - n.time), n.pitch, n.velocity)
        for n, after in itertools.zip_longest(line, line[1:])
    ]


def played_by(score: Score, line: Sequence[Note], family: str) -> Score:
    """Return a score of one melody, with the tempi of another, played by an instrument of a family."""
    program, lowest, highest = PROGRAMS[family]
    middle = statistics.median(note.pitch for note in line)
    shift = 12 * round(((lowest + highest) / 2 - middle) / 12)
    made = Score(score.ticks_per_quarter)
    made.tempos.extend(score.tempos)
    track = Track(family, program)
    for note in line:
        pitch = note.pitch + shift
        pitch -= 12 * max(0, -(-(pitch - highest) // 12))
        pitch += 12 * max(0, -(-(lowest - pitch) // 12))
        track.notes.append(Note(note.time, note.duration, pitch, note.velocity))
    made.tracks.append(track)
    return made


def onsets_of(score: Score) -> list[float]:
    """Return the onsets of a score in seconds, ascending; those within TOGETHER of the one before are one."""
    times = sorted(note.time for track in score.to("second").tracks for note in track.notes)
    found: list[float] = []
    for time in times:
        if not found or time - found[-1] > TOGETHER:
            found.append(time)
    return found


def measured(classifier: NoteClassifier, found: Sequence[Piece], soundfont: Path | None) -> list[dict[str, Any]]:
    """Return a row for each piece: precision, recall and F-measure of the onsets, and the answers for the notes.

    Raises:
        AudioError: a rendered piece cannot be classified, since it is silent.
    """
    import mir_eval

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for piece in found:
            path = Path(folder) / "piece.wav"
            rendering.render(piece.score, path, soundfont=soundfont, force=True)
            ((properties, predictions),) = classify_all(classifier, [str(path)], notes=True, quiet=True)
            if "error" in properties:
                raise AudioError(f"{piece.name}: {properties['error']}")
            truth = np.array(onsets_of(piece.score))
            detected = np.array([span["start"] for span in properties["notes"]])
            f, precision, recall = mir_eval.onset.f_measure(truth, detected, window=WINDOW)
            pairs = mir_eval.util.match_events(truth, detected, WINDOW)
            row = {"piece": piece.name, "family": piece.family, "num_onsets": len(truth)}
            row |= {"f": f, "precision": precision, "recall": recall, "num_matched": len(pairs)}
            late = [float(detected[j] - truth[i]) for i, j in pairs]
            row["median_late_ms"] = 1000 * statistics.median(late) if late else None
            if piece.family is not None:
                answers = [predictions[1 + j].family for _, j in pairs]
                row["num_right"] = sum(answer == piece.family for answer in answers)
            rows.append(row)
    return rows


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return means over the melodies and over the polyphonic pieces, and the accuracy per note of each family."""
    found: dict[str, Any] = {}
    for kind, of_kind in (
        ("melodies", [r for r in rows if r["family"] is not None]),
        ("polyphonic", [r for r in rows if r["family"] is None]),
    ):
        if of_kind:
            figures = {key: float(np.mean([r[key] for r in of_kind])) for key in ("f", "precision", "recall")}
            late = [r["median_late_ms"] for r in of_kind if r["median_late_ms"] is not None]
            figures["median_late_ms"] = statistics.median(late) if late else None
            error = float(np.std([r["f"] for r in of_kind], ddof=1) / len(of_kind) ** 0.5) if len(of_kind) > 1 else 0.0
            onsets = sum(r["num_onsets"] for r in of_kind)
            found[kind] = {"pieces": len(of_kind), "num_onsets": onsets, "f_standard_error": error, **figures}
    families: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["family"] is not None:
            each = families.setdefault(row["family"], {"num_notes": 0, "num_right": 0})
            each["num_notes"] += row["num_matched"]
            each["num_right"] += row["num_right"]
    for each in families.values():
        each["accuracy"] = each["num_right"] / each["num_notes"] if each["num_notes"] else None
    found["families"] = {f: families[f] for f in FAMILIES if f in families}
    known = [each["accuracy"] for each in families.values() if each["accuracy"] is not None]
    found["mean_family_accuracy"] = sum(known) / len(known) if known else None
    return found


def show(found: dict[str, Any]) -> None:
    """Print the tables."""
    print("| | pieces | onsets | F | precision | recall | median delay, ms |\n|---|---|---|---|---|---|---|")
    for kind in ("melodies", "polyphonic"):
        if kind in found:
            r = found[kind]
            late = "" if r["median_late_ms"] is None else f"{r['median_late_ms']:+.0f}"
            f = f"{r['f']:.3f} ± {r['f_standard_error']:.3f}"
            counts = f"{r['pieces']} | {r['num_onsets']:,}"
            print(f"| {kind} | {counts} | {f} | {r['precision']:.3f} | {r['recall']:.3f} | {late} |")
    print("\n| family of the melody | notes | accuracy |\n|---|---|---|")
    for family, figures in found["families"].items():
        accuracy = "" if figures["accuracy"] is None else f"{figures['accuracy']:.2f}"
        print(f"| {family} | {figures['num_notes']} | {accuracy} |")
    if found["mean_family_accuracy"] is not None:
        print(f"\nmean over families: {found['mean_family_accuracy']:.3f}")
