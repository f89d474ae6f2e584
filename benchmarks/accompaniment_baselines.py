"""Parts by rule in place of a hidden one: what a model of `accompaniment.py` is compared with.

previous bar   the given pitched part with the most notes, one bar late, its last bar first; moved by octaves to the register
block chords   all notes of the given chord on each half bar, close above C3; of a bass the root above C2
retrieval      the part of a training excerpt of the same kind and time signature, transposed by -5 to 6 semitones, whose given
               pitched music is most like the task's: by the cosine of the chroma of all half bars (by sounding time)
MMA overlay    what Musical MIDI Accompaniment (www.mellowood.ca/mma) plays to the given chords: of a bass its bass, else its
               other pitched tracks; none without the program `mma`, or in a time signature that has no groove here

All know the given music, its chords, and which instrument is asked for. N notes, H half bars, K excerpts.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import accompany
import numpy as np
from accompaniment_tasks import Hidden, half_bars
from symusic import Score

from musiclm import midi
from musiclm.evaluation.harmony import sounding_time
from musiclm.evaluation.music_metrics import ONSETS
from musiclm.generation.sides import Chords
from musiclm.midi import chords

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))

import band_data

C2, C3 = 36, 48
CENTRE = {True: 40, False: 60}  # median pitch of a bass, and of other parts
TRANSPOSED = range(-5, 7)
SUFFIX = {
    "maj": "", "min": "m", "dim": "dim", "aug": "aug", "sus4": "sus4", "7": "7", "maj7": "maj7", "min7": "m7",
    "m7b5": "m7b5", "dim7": "dim7",
}  # fmt: skip
GROOVES = {
    (4, 4): ("8Beat", 4),
    (3, 4): ("Waltz", 3),
    (2, 2): ("8Beat", 4),
}  # of a time signature, and its beats in MMA
EMPTY = np.zeros((0, 3))


def previous_bar(hidden: Hidden) -> np.ndarray:
    """Return the part of a task by the rule of the module, (N, 3)."""
    score = hidden.task.score
    pitched = [i for i in hidden.task.kept if not score.tracks[i].is_drum]
    fullest = max(pitched, key=lambda i: len(score.tracks[i].notes))
    late = accompany.shifted(
        accompany.notes_of(score, [fullest]), midi.bar_line(score, 0.0, 1), float(hidden.edges[-1])
    )
    late[:, 2] += 12 * round((CENTRE[hidden.is_bass] - float(np.median(late[:, 2]))) / 12)
    return late[np.lexsort((late[:, 2], late[:, 0]))]


def block_chords(hidden: Hidden) -> np.ndarray:
    """Return the part of a task by the rule of the module, (N, 3)."""
    notes = []
    for i, chord in enumerate(hidden.harmony):
        if chord == chords.NO_CHORD:
            continue
        low, classes = (C2, [chord[0]]) if hidden.is_bass else (C3, sorted(chords.pitch_classes(chord)))
        notes += [(hidden.edges[i], hidden.edges[i + 1], low + pitch_class) for pitch_class in classes]
    return np.array(notes, float).reshape(-1, 3)


class Retrieval:
    """Training excerpts by their given music.

    Args:
        tasks: excerpts with a part each.
    """

    def __init__(self, tasks: Iterable[accompany.Task]) -> None:
        self._tasks: dict[tuple[str, bytes], list[accompany.Task]] = {}
        vectors: dict[tuple[str, bytes], list[np.ndarray]] = {}
        for task in tasks:
            edges = edges_of(task.score)
            key = _key(task.kind, edges)
            self._tasks.setdefault(key, []).append(task)
            vectors.setdefault(key, []).append(given_chroma(task, edges))
        self._vectors = {key: np.stack(rows) for key, rows in vectors.items()}  # (K, H, 12)

    def find(self, task: accompany.Task) -> tuple[accompany.Task, int] | None:
        """Return the nearest excerpt, and its transposition in semitones; None without one of this kind and time signature.

        An excerpt of the same piece does not count.
        """
        edges = edges_of(task.score)
        key = _key(task.kind, edges)
        candidates = self._tasks.get(key, [])
        others = [i for i, each in enumerate(candidates) if each.name != task.name]
        if not others:
            return None
        asked = given_chroma(task, edges)
        rows = self._vectors[key][others]
        found = np.stack([(np.roll(rows, t, axis=2) * asked).sum((1, 2)) for t in TRANSPOSED])  # (12, K)
        t, k = np.unravel_index(int(found.argmax()), found.shape)
        return candidates[others[int(k)]], TRANSPOSED[int(t)]

    def part(self, hidden: Hidden) -> np.ndarray | None:
        """Return the part of the nearest excerpt, (N, 3), transposed; None without one."""
        found = self.find(hidden.task)
        if found is None:
            return None
        task, semitones = found
        notes = accompany.notes_of(task.score, [task.part])
        notes = notes[notes[:, 0] < hidden.edges[-1]]
        notes[:, 1] = np.minimum(notes[:, 1], hidden.edges[-1])
        notes[:, 2] = np.clip(notes[:, 2] + semitones, 0, 127)
        return notes


def edges_of(score: Score) -> np.ndarray:
    """Return the half bars of the bars of an excerpt, (H + 1,), of `accompany.BARS` bars whether they have notes or not."""
    bars = [bar for bar, _ in zip(midi.BarMap(score), range(accompany.BARS), strict=False)]
    return half_bars(np.array([*(bar.start for bar in bars), bars[-1].end]))


def given_chroma(task: accompany.Task, edges: np.ndarray) -> np.ndarray:
    """Return for how long each pitch class of the given music sounds in each half bar, (H, 12), of length 1 in all."""
    kept = [i for i in task.kept if not task.score.tracks[i].is_drum]
    start, stop, pitch = accompany.notes_of(task.score, kept).T
    vectors = sounding_time(start, stop, pitch.astype(int), edges)
    size = float(np.linalg.norm(vectors))
    return vectors / size if size else vectors


def _key(kind: str, edges: np.ndarray) -> tuple[str, bytes]:
    return kind, np.round(edges * 12).astype(np.int64).tobytes()


def has_mma() -> bool:
    """Return whether the program is installed."""
    return shutil.which("mma") is not None


def overlay(score: Score, harmony: Chords) -> Score | None:
    """Return MMA's band for chords of half bars, (H,), in time signature and tempo of a score; None without a groove.

    Args:
        score: its time signature must not change.
        harmony: of its bars.
    """
    signatures = {(bar.numerator, bar.denominator) for bar, _ in zip(midi.BarMap(score), harmony[::2], strict=False)}
    signature = signatures.pop()
    if signatures or signature not in GROOVES or not has_mma():
        return None
    groove, beats = GROOVES[signature]
    qpm = midi.TempoMap(score).main_tempo(midi.end(score))
    lines = ["RndSeed 1", f"Tempo {qpm:.1f}", f"Time {beats}", f"Groove {groove}"]
    for i, bar in enumerate(zip(harmony[::2], harmony[1::2], strict=True)):
        names = [mma_chord(bar[2 * beat // beats]) for beat in range(beats)]
        lines.append(f"{i + 1} {band_data.written(tuple(names))}")
    return band_data.play("\n".join(lines) + "\n")


def mma_chord(chord: tuple[int, str]) -> str:
    """Return MMA's name of a chord."""
    return band_data.NO_CHORD if chord == chords.NO_CHORD else chords.NAMES[chord[0]] + SUFFIX[chord[1]]


def mma_part(hidden: Hidden) -> np.ndarray | None:
    """Return the part of a task by the rule of the module, (N, 3); None without a groove."""
    band = overlay(hidden.task.score, hidden.harmony)
    if band is None:
        return None
    notes = accompany.notes_of(band, chosen_tracks(band, is_bass=hidden.is_bass))
    notes[:, :2] = (
        np.round(notes[:, :2] * ONSETS) / ONSETS
    )  # as all other notes are; MMA plays a little before or after
    notes = notes[notes[:, 0] < hidden.edges[-1]]
    notes[:, 1] = np.minimum(notes[:, 1], hidden.edges[-1])
    return notes


def chosen_tracks(band: Score, *, is_bass: bool) -> Sequence[int]:
    """Return the numbers of a band's basses, or of its other pitched tracks."""
    return [
        i
        for i, track in enumerate(band.tracks)
        if not track.is_drum and (track.program in accompany.BASS) == is_bass and len(track.notes)
    ]
