"""Tasks of `accompaniment.py`: excerpts of real pieces with a hidden part, their given harmony, and measures of a part.

N notes of a part, M of given music, H half bars. Times in quarters from the beginning of an excerpt.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import accompany
import numpy as np
from symusic import Note, Score, Track

from musiclm import midi
from musiclm.data import Corpus
from musiclm.errors import MidiError
from musiclm.generation.given import is_melody_alone
from musiclm.generation.sides import Chords, Sides
from musiclm.midi import chords
from musiclm.midi.theory import DRUMS
from musiclm.tokenizers.score_pairs import ScorePairs

SIXTEENTH = 4  # positions of a quarter in which notes are compared
MEASURES = ("note_f1", "chord_accuracy", "chord_notes", "consonance", "density", "within")
NEAR = 1e-6
VELOCITY = 80  # of parts that are saved


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hidden:
    """A task: given music, its harmony, and the part that is hidden.

    Attributes:
        task: the excerpt and the number of the hidden part; see `accompany.Task`.
        given: the other parts.
        harmony: the chord of each half bar, (H,).
        edges: begins of the half bars, and the end of the last, (H + 1,).
        strong: times of strong beats: the first of each bar, and the middle one where a bar has an even number of beats.
        chord_at: of each strong beat the number of its half bar.
    """

    task: accompany.Task
    given: Score
    harmony: Chords
    edges: np.ndarray
    strong: np.ndarray
    chord_at: np.ndarray

    @property
    def program(self) -> int:
        """The General MIDI program of the hidden part."""
        return int(self.task.score.tracks[self.task.part].program)

    @property
    def is_bass(self) -> bool:
        """Whether a bass is hidden."""
        return self.task.kind == "bass" or self.program in accompany.BASS

    @property
    def real(self) -> np.ndarray:
        """The notes of the hidden part, (N, 3): see `accompany.notes_of`."""
        return accompany.notes_of(self.task.score, [self.task.part])

    @property
    def pitched(self) -> np.ndarray:
        """The given notes without drums, (M, 3)."""
        score = self.task.score
        return accompany.notes_of(score, [i for i in self.task.kept if not score.tracks[i].is_drum])


class Merging:
    """A tokenizer whose scores have one track a program, as the pieces had before they were split into pairs.

    Args:
        tokenizer: it decodes.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def decode(self, ids: np.ndarray) -> Score:
        """Return the merged score of ids."""
        return merged(self.tokenizer.decode(ids))


def merged(score: Score) -> Score:
    """Return a score with one track for each program, drums being one, in the order in which they come first."""
    copied, of_program = score.copy(), {}
    for track in copied.tracks:
        key = DRUMS if track.is_drum else int(track.program)
        if key not in of_program:
            of_program[key] = track
            continue
        both = [each.notes.numpy() for each in (of_program[key], track)]
        columns = {name: np.concatenate([notes[name] for notes in both]) for name in both[0]}
        order = np.lexsort((columns["pitch"], columns["time"]))
        of_program[key].notes = Note.from_numpy(**{name: column[order] for name, column in columns.items()})
    copied.tracks = type(copied.tracks)(list(of_program.values()))
    return copied


def tasks_of(corpus: Corpus, split: str, number: int | None) -> list[accompany.Task]:
    """Return the tasks of `accompany.tasks` in a split of a corpus, in turn of each kind; None for all there are.

    Of a folder of MIDI files, too, the split is that by the hashes of the files.
    """
    decoding = dataclasses.replace(corpus, is_split=True, tokenizer=Merging(corpus.tokenizer))
    return accompany.tasks(decoding, split, 10**9 if number is None else number)


def hidden_parts(tasks: Sequence[accompany.Task], number: int) -> list[Hidden]:
    """Return the first tasks, so many, whose given music is as many bars long as the hidden part."""
    tokenizer = ScorePairs()
    found: list[Hidden] = []
    for task in tasks:
        if len(found) == number:
            break
        one = hidden_part(task, tokenizer)
        if one is not None:
            found.append(one)
    return found


def hidden_part(task: accompany.Task, tokenizer: ScorePairs) -> Hidden | None:
    """Return a task with its given music; None where that is shorter than the excerpt, or a bar cannot be expressed.

    The harmony is what pairs say in training: that of the given music, or, where this is a melody alone, of all of the excerpt.
    """
    given = without(task.score, task.part)
    if midi.num_bars(given) < midi.num_bars(task.score):
        return None
    try:
        sides = Sides(tokenizer, task.score, None)
        harmony = sides.harmony(None if is_melody_alone(given) else given)
    except MidiError:
        return None
    edges = half_bars(sides.starts)
    is_even = [bar.numerator % 2 == 0 for bar, _ in zip(midi.bars(task.score), sides.lines, strict=False)]
    chord_at = np.array([i for i in range(len(harmony)) if i % 2 == 0 or is_even[i // 2]])
    return Hidden(task=task, given=given, harmony=harmony, edges=edges, strong=edges[chord_at], chord_at=chord_at)


def without(score: Score, part: int) -> Score:
    """Return a score without one of its tracks."""
    copied = score.copy()
    copied.tracks = type(copied.tracks)([track for i, track in enumerate(copied.tracks) if i != part])
    return copied


def with_part(hidden: Hidden, part: np.ndarray) -> Score:
    """Return the given music with a part, (N, 3), on the hidden one's instrument."""
    score = hidden.given.copy()
    track, tpq = Track("", hidden.program, False), score.ticks_per_quarter
    for start, stop, pitch in part.tolist():
        first = round(start * tpq)
        track.notes.append(Note(first, max(1, round(stop * tpq) - first), int(pitch), VELOCITY))
    score.tracks.append(track)
    return score


def half_bars(starts: np.ndarray) -> np.ndarray:
    """Return the begins of half bars and the end of the last, (2 bars + 1,), of begins of bars and the end, (bars + 1,).

    An odd number of twelfths of a quarter has the shorter half first, as in the plan of `score` tokens.
    """
    middle = starts[:-1] + np.floor(np.diff(starts) * 6 + 1e-6) / 12
    return np.append(np.column_stack([starts[:-1], middle]).ravel(), starts[-1])


def values(part: np.ndarray, hidden: Hidden) -> dict[str, float | None]:
    """Return the `MEASURES` of a part, (N, 3), in place of the hidden one.

    `within` is 1 where the density is from `accompany.DENSITY`, else 0; of chords see `chord_accuracy`.
    """
    accuracy, share = chord_accuracy(part, hidden)
    density = len(part) / len(hidden.real)
    return {
        "note_f1": note_f1(part, hidden.real),
        "chord_accuracy": accuracy,
        "chord_notes": share,
        "consonance": accompany.harmony(part, hidden.pitched)["consonance"],
        "density": density,
        "within": float(accompany.DENSITY[0] <= density <= accompany.DENSITY[1]),
    }


def note_f1(part: np.ndarray, real: np.ndarray) -> float | None:
    """Return 2 x common notes / (notes of both), a note being its sixteenth and its pitch; None without any note.

    Notes of a part on the same sixteenth and pitch are one.
    """
    ours, theirs = (
        set(zip(np.round(notes[:, 0] * SIXTEENTH).astype(int).tolist(), notes[:, 2].astype(int).tolist(), strict=True))
        for notes in (part, real)
    )
    total = len(ours) + len(theirs)
    return 2 * len(ours & theirs) / total if total else None


def chord_accuracy(part: np.ndarray, hidden: Hidden) -> tuple[float | None, float | None]:
    """Return the share of strong beats at which all sounding notes of a part are in the given chord, and that of the notes.

    Beats without a chord, or at which the part does not sound, do not count; None where none counts. A note sounds from its
    begin to before its end.
    """
    beats: list[float] = []
    notes: list[bool] = []
    for time, half in zip(hidden.strong.tolist(), hidden.chord_at.tolist(), strict=True):
        chord = hidden.harmony[half]
        sounding = part[(part[:, 0] <= time + NEAR) & (part[:, 1] > time + NEAR), 2].astype(int)
        if chord == chords.NO_CHORD or not len(sounding):
            continue
        classes = chords.pitch_classes(chord)
        inside = [pitch % 12 in classes for pitch in sounding.tolist()]
        beats.append(float(all(inside)))
        notes += inside
    return (math.fsum(beats) / len(beats), sum(notes) / len(notes)) if beats else (None, None)
