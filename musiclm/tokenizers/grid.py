"""Four voices on a grid of sixteenths: the vocabulary of the published chorale tables.

One id per voice and step: soprano, alto, tenor, bass, then the next sixteenth. A sustained note repeats its pitch, and
silence has its own id. The grid cannot express immediate repetitions of a note, anything shorter than a sixteenth, dynamics,
tempo, time signature, and silence after the last note.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from symusic import Note, Score, Tempo, Track
from torch import Tensor

from ..errors import MidiError, TokenizerError
from .base import TICKS, Tokenizer
from .features.grid import (
    FIRST_ARRANGED,
    FIRST_PITCH,
    MAX_HELD,
    MAX_INTERVAL,
    MAX_LEAP,
    NUM_DEGREES,
    NUM_PITCHES,
    OF_VERSION,
    ORDERS,
    SILENCE,
    STEPS_A_QUARTER,
    is_cell,
    permutation_of,
    stream,
)
from .features.grid import features_of as grid_features_of
from .vocabulary import Kind, Token, Vocabulary

VOICES = ("Soprano", "Alto", "Tenor", "Bass")
BOS, EOS = 0, 1
STEP_FEATURE = 1  # of every version: the step in the quarter
PROGRAM, VELOCITY, TEMPO = 52, 80, 80.0  # choir, mezzo-forte, walking pace; used for decoded scores
MAX_STEPS = 100_000  # 6,250 bars of 4/4; a longer file is taken for damaged


class Grid(Tokenizer):
    """Cells of four voices, one step per sixteenth.

    Input features of the next cell, with their number of values:

    - its voice (4), and its step in the quarter (4);
    - for how many steps each voice has sustained its pitch (17 each, 0 at the beginning): that voice first, then the three
      before it, latest first;
    - version 2 on: the interval of each voice's last change, in the same order (26 each), and the interval from the voice's
      last pitch to the other three (50 each, 0 for silence);
    - version 3 on: the number of the permutation in which the piece is written (48);
    - the voice's last cell (V);
    - version 4: the scale degree of the voice's last pitch (25: twelve of a major and twelve of a minor key, 0 for silence).
      The key is the one of 24 whose profile correlates best with the time that each pitch class has sounded since the
      beginning (Krumhansl 1990).

    Sustain or change alone costs 0.517 nats per cell given the voice, 0.243 given the step and all four durations (chorales,
    training pieces, by counting).

    With intervals alone a model soon overfits, since intervals do not depend on the key. Version 3 augments: the voices come
    in any of their 24 orders, forwards or backwards, and a special token in place of bos says which of the 48. The music is
    the same, but the conditional distributions differ (docs/results/ablations.md).

    Args:
        features: their version, 1 to 4.
        reference: from version 2 on, whether models also predict intervals from the voice's last pitch.
    """

    name = "grid"
    bos, eos = BOS, EOS
    repeat_lag = num_voices = len(VOICES)

    def __init__(self, features: int = 4, reference: bool = True) -> None:
        if features not in OF_VERSION:
            raise TokenizerError(f"the tokenizer 'grid' has no features of version {features}")
        self.version = features
        self.num_orders = 2 * len(ORDERS) if features >= 3 else 1  # half of them forwards, then half backwards
        self.num_rearrangements = self.num_orders
        self.vocab_size = FIRST_ARRANGED + self.num_orders - 1
        holds = [MAX_HELD + 1] * len(VOICES)
        moves, others = [2 * MAX_LEAP + 2] * len(VOICES), [2 * MAX_INTERVAL + 2] * (len(VOICES) - 1)
        written, last, degree = 2 * len(ORDERS), FIRST_ARRANGED, NUM_DEGREES + 1
        sizes = len(VOICES), STEPS_A_QUARTER, *holds, *moves, *others, written, last, degree
        self.feature_sizes = tuple(sizes[i] for i in OF_VERSION[features])
        self.last_cell_feature = OF_VERSION[features].index(14)
        if features >= 2 and reference:
            self.relative_pitch = ((FIRST_PITCH, FIRST_PITCH + NUM_PITCHES - 1, self.last_cell_feature),)

    def describe(self) -> dict[str, Any]:
        if self.version == 1:
            return {"name": self.name}
        described: dict[str, Any] = {"name": self.name, "features": self.version}
        return described if self.relative_pitch else {**described, "reference": False}

    @cached_property
    def vocabulary(self) -> Vocabulary:
        return [
            Token(Kind.BOS),
            Token(Kind.EOS),
            Token(Kind.SILENCE),
            *(Token(Kind.CELL, pitch) for pitch in range(NUM_PITCHES)),
            *(Token(Kind.REARRANGEMENT, number) for number in range(1, self.num_orders)),
        ]

    @property
    def plain_size(self) -> int:
        return FIRST_ARRANGED

    def encode(self, score: Score) -> tuple[np.ndarray, int]:
        notes = notes_on_grid(score)
        if not notes:
            raise MidiError("no note that the grid of four voices can express (drums have no pitch)")
        num_steps = max(stop for _, _, stop, _ in notes)
        if num_steps > MAX_STEPS:
            raise MidiError(f"longer than {MAX_STEPS} sixteenths")
        voice_of = _voices(score, notes)
        cells = place(notes, voice_of, num_steps) if voice_of else _reduce(notes, num_steps)
        left_out = score.note_num() - sum(bool((cells[start:stop] == pitch).any()) for _, start, stop, pitch in notes)
        ids = np.where(cells < 0, SILENCE, cells + FIRST_PITCH).ravel()
        return np.concatenate([[BOS], ids, [EOS]]).astype(np.int64), left_out

    def unexpressed(self, score: Score) -> list[str]:
        others = {t.program for t in score.tracks if not t.is_drum and len(t.notes)} - {PROGRAM}
        return ["'grid' has four voices alone: it hears all instruments as four voices"] if others else []

    def decode(self, ids: Sequence[int] | np.ndarray) -> Score:
        ids = np.asarray(ids, dtype=np.int64)
        cells = ids[is_cell(ids)]
        is_backwards, number = divmod(int(permutation_of(ids[None, :1])[0]), len(ORDERS))
        score = Score(TICKS)
        score.tempos.append(Tempo(0, TEMPO))
        step_ticks = TICKS // STEPS_A_QUARTER
        for voice, name in enumerate(VOICES):
            track = Track(name, PROGRAM, False)
            column = cells[ORDERS[number].index(voice) :: len(VOICES)]
            column = column[::-1] if is_backwards else column
            changes = np.flatnonzero(np.diff(column)) + 1
            edges = [0, *changes.tolist(), len(column)]
            for start, stop in itertools.pairwise(edges):
                if stop > start and column[start] != SILENCE:
                    duration = (stop - start) * step_ticks
                    track.notes.append(Note(start * step_ticks, duration, int(column[start]) - FIRST_PITCH, VELOCITY))
            score.tracks.append(track)
        return score

    def quarters(self, ids: Sequence[int] | np.ndarray) -> float:
        num_cells = int(is_cell(np.asarray(ids)).sum())
        return num_cells // len(VOICES) / STEPS_A_QUARTER

    def pad_with_silence(self, ids: np.ndarray, quarters: float) -> np.ndarray:
        num_cells = int(is_cell(ids).sum())
        missing = round(quarters * STEPS_A_QUARTER) * len(VOICES) - num_cells
        return np.concatenate([ids, np.full(max(0, missing), SILENCE)])

    def transposed(self, semitones: int) -> np.ndarray:
        table = np.arange(self.vocab_size)
        pitches = np.arange(NUM_PITCHES) + semitones
        table[FIRST_PITCH:FIRST_ARRANGED] = np.where(
            (pitches >= 0) & (pitches < NUM_PITCHES), pitches + FIRST_PITCH, -1
        )
        return table

    def rearranged(self, ids: np.ndarray, number: int) -> np.ndarray:
        if not number:
            return ids
        is_backwards, order = divmod(number, len(ORDERS))
        steps = ids[is_cell(ids)].reshape(-1, len(VOICES))[:, ORDERS[order]]
        steps = steps[::-1] if is_backwards else steps
        return np.concatenate([[FIRST_ARRANGED + number - 1], steps.ravel(), ids[ids == EOS]])

    def exempt_from_temperature(self, features: Tensor | None) -> Tensor | None:
        """See the base: the id that sustains the voice's last cell, which 78 of 100 cells do."""
        if features is None:
            return None
        return features[:, self.last_cell_feature, None] == torch.arange(self.vocab_size, device=features.device)

    def tempers_rhythm(self, features: Tensor | None) -> Tensor | None:
        """See the base: between the beats. There a cold rhythm takes sixteenths away; on the beat it would hold chords."""
        return None if features is None else features[:, STEP_FEATURE, None] != 0

    def features(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """See the class. The state is the number of cells so far and of the arrangement, (B,) each, of each voice in that
        order, (B, 4) each, the last id, for how long it has held, and the id before it; and how many cells each pitch class
        has had, (B, 12).
        """
        features, state = stream(tokens.cpu().numpy(), state)
        return torch.from_numpy(features[..., OF_VERSION[self.version]]).to(tokens.device), state

    def all_features_of(self, sequences: Sequence[np.ndarray]) -> np.ndarray:
        return grid_features_of(sequences)[:, OF_VERSION[self.version]]


GridNote = tuple[int, int, int, int]
"""Track, first step, the step after the last, pitch."""


def notes_on_grid(score: Score) -> list[GridNote]:
    """Return the notes of a score in steps, without drums, in order of time."""
    step = score.ticks_per_quarter / STEPS_A_QUARTER
    notes = []
    for i, track in enumerate(score.tracks):
        if not track.is_drum:
            for note in track.notes:
                start = int(note.time / step + 0.5)
                notes.append((i, start, max(start + 1, int(note.end / step + 0.5)), int(note.pitch)))
    return sorted(notes, key=lambda n: (n[1], n[3], n[2], n[0]))


def _voices(score: Score, notes: list[GridNote]) -> dict[int, int] | None:
    """Return the voice of each track, or None where the tracks are not four voices."""
    used = sorted({n[0] for n in notes})
    names = [score.tracks[i].name for i in used]
    chords = len({(track, start) for track, start, _, _ in notes}) < len(notes)
    if len(set(names)) == len(names) and set(names) <= set(VOICES) and not chords:
        return {i: VOICES.index(name) for i, name in zip(used, names, strict=True)}
    if len(used) != len(VOICES) or chords:
        return None
    mean = {i: np.mean([n[3] for n in notes if n[0] == i]) for i in used}
    return {track: voice for voice, track in enumerate(sorted(used, key=lambda i: (-mean[i], i)))}


def place(notes: Sequence[GridNote], voice_of: Mapping[int, int], num_steps: int) -> np.ndarray:
    """Return (steps, 4) pitches, -1 for silence; in a voice a later note ends the one before it."""
    cells = np.full((num_steps, len(VOICES)), -1)
    for track, start, stop, pitch in notes:
        cells[start:, voice_of[track]] = -1
        cells[start:stop, voice_of[track]] = pitch
    return cells


def _reduce(notes: list[GridNote], num_steps: int) -> np.ndarray:
    """Return (steps, 4) pitches, -1 for silence: the highest, the lowest, and the two closest to the inner voices before."""
    sounding: list[set[int]] = [set() for _ in range(num_steps)]
    for _, start, stop, pitch in notes:
        for step in range(start, stop):
            sounding[step].add(pitch)
    cells = np.full((num_steps, len(VOICES)), -1)
    alto = tenor = None
    for step, pitches in enumerate(sounding):
        falling = sorted(pitches, reverse=True)
        if not falling:
            continue
        cells[step, 0] = falling[0]
        if len(falling) > 1:
            cells[step, 3] = falling[-1]
        inner = falling[1:-1]
        span = falling[0] - falling[-1]
        wanted_alto = alto if alto is not None else falling[0] - span // 3
        wanted_tenor = tenor if tenor is not None else falling[-1] + span // 3
        if len(inner) == 1:
            nearer_alto = abs(inner[0] - wanted_alto) <= abs(inner[0] - wanted_tenor)
            cells[step, 1 if nearer_alto else 2] = inner[0]
        elif inner:
            pairs = [(high, low) for i, high in enumerate(inner) for low in inner[i + 1 :]]
            cells[step, 1:3] = min(pairs, key=lambda p: (abs(p[0] - wanted_alto) + abs(p[1] - wanted_tenor), p))
        alto = int(cells[step, 1]) if cells[step, 1] >= 0 else alto
        tenor = int(cells[step, 2]) if cells[step, 2] >= 0 else tenor
    return cells
