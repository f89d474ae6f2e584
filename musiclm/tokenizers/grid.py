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
from ..midi.theory import key_profiles
from .base import TICKS, Tokenizer
from .vocabulary import Kind, Token, Vocabulary

VOICES = ("Soprano", "Alto", "Tenor", "Bass")
BOS, EOS, SILENCE, FIRST_PITCH = 0, 1, 2, 3
STEPS_A_QUARTER = 4
PROGRAM, VELOCITY, TEMPO = 52, 80, 80.0  # choir, mezzo-forte, walking pace; used for decoded scores
MAX_STEPS = 100_000  # 6,250 bars of 4/4; a longer file is taken for damaged
MAX_HELD = 16  # steps; longer ones get the same feature
MAX_INTERVAL = 24  # semitones between two voices; wider ones get the same feature
MAX_LEAP = 12  # semitones of a voice's last move; wider ones get the same feature
NUM_PITCHES = 128
ORDERS = tuple(
    itertools.permutations(range(len(VOICES)))
)  # permutations of the voices in a step; the first is the usual order
FIRST_ARRANGED = FIRST_PITCH + NUM_PITCHES  # special tokens that begin a rearranged piece
OF_VERSION = {1: [0, 1, 2, 3, 4, 5, 14], 2: [*range(13), 14], 3: [*range(15)], 4: [*range(16)]}  # of all features
KEYS = np.round(10_000 * key_profiles().T).astype(np.int64)  # integers: sums are exact in any order


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

    With intervals alone a model soon overfits, since a chorale looks alike in all keys. Version 3 augments: the voices come
    in any of their 24 orders, forwards or backwards, and a special token in place of bos says which of the 48. The music is
    the same, but the conditional distributions differ (benchmarks/RESULTS.md).

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
        written, last, degree = 2 * len(ORDERS), FIRST_ARRANGED, KEYS.shape[1] + 1
        sizes = len(VOICES), STEPS_A_QUARTER, *holds, *moves, *others, written, last, degree
        self.feature_sizes = tuple(sizes[i] for i in OF_VERSION[features])
        self.last_cell_feature = OF_VERSION[features].index(14)
        if features >= 2 and reference:
            self.references = ((FIRST_PITCH, FIRST_PITCH + NUM_PITCHES - 1, self.last_cell_feature),)

    def describe(self) -> dict[str, Any]:
        if self.version == 1:
            return {"name": self.name}
        described: dict[str, Any] = {"name": self.name, "features": self.version}
        return described if self.references else {**described, "reference": False}

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
        return ["'grid' has four voices alone: a choir sings the notes of the instruments"] if others else []

    def decode(self, ids: Sequence[int] | np.ndarray) -> Score:
        ids = np.asarray(ids, dtype=np.int64)
        cells = ids[is_cell(ids)]
        is_backwards, number = divmod(int(_arrangements(ids[None, :1])[0]), len(ORDERS))
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

    def features(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """See the class. The state is the number of cells so far and of the arrangement, (B,) each, of each voice in that
        order, (B, 4) each, the last id, for how long it has held, and the id before it; and how many cells each pitch class
        has had, (B, 12).
        """
        ids = tokens.cpu().numpy()
        if state is None:
            none = np.zeros((len(ids), len(VOICES)), np.int64)
            state = (
                np.zeros(len(ids), np.int64),
                _arrangements(ids[:, :1]),
                none,
                none,
                none,
                np.zeros((len(ids), 12), np.int64),
            )
        cells = is_cell(ids)
        if (cells == cells[:1]).all() and (state[0] == state[0][:1]).all():
            features, state = _in_step(ids, cells[0], state)
        else:  # marks at different places: each row for itself
            alone = [_in_step(ids[i : i + 1], cells[i], tuple(s[i : i + 1] for s in state)) for i in range(len(ids))]
            features = np.concatenate([f for f, _ in alone])
            state = tuple(np.concatenate(parts) for parts in zip(*[s for _, s in alone], strict=True))
        return torch.from_numpy(features[..., OF_VERSION[self.version]]).to(tokens.device), state


def is_cell(ids: np.ndarray) -> np.ndarray:
    """Return which ids are cells, a pitch or silence, as booleans; the others are special tokens."""
    return (ids >= SILENCE) & (ids < FIRST_ARRANGED)


def _arrangements(first: np.ndarray) -> np.ndarray:
    """Return the permutation number of pieces, given their first ids, (B, 0 or 1) -> (B,)."""
    if not first.shape[1]:
        return np.zeros(len(first), np.int64)
    return np.maximum(first[:, 0] - FIRST_ARRANGED + 1, 0)


GridState = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _in_step(ids: np.ndarray, sings: np.ndarray, state: GridState) -> tuple[np.ndarray, GridState]:
    """Return `Grid.features` of rows whose marks stand at the same places, (B, T), without a loop over T."""
    num_voices = len(VOICES)
    position, written, last, held, before, classes = int(state[0][0]), *state[1:]
    order = (position + np.arange(num_voices)) % num_voices  # the voices, the next one first
    cells = ids[:, sings]
    num_cells = cells.shape[1]
    num_steps = -(-num_cells // num_voices)
    padded = np.pad(cells, ((0, 0), (0, num_steps * num_voices - num_cells)), constant_values=-1)
    seen = np.concatenate([last[:, None, order], padded.reshape(len(ids), num_steps, num_voices)], 1)
    changed = seen[:, 1:] != seen[:, :-1]
    step = np.arange(1, num_steps + 1)[None, :, None]
    change = np.maximum.accumulate(np.where(changed, step, 0), 1)
    holds = np.where(change > 0, step - change + 1, held[:, None, order] + step)
    holds = np.minimum(np.concatenate([held[:, None, order], holds], 1), MAX_HELD).reshape(len(ids), -1)
    earlier = np.take_along_axis(seen, np.maximum(change - 1, 0), 1)
    earlier = np.where(change > 0, earlier, before[:, None, order])
    earlier = np.concatenate([before[:, None, order], earlier], 1).reshape(len(ids), -1)
    seen = seen.reshape(len(ids), -1)  # the id of cell `position - 4 + i` stands at i
    place = np.cumsum(sings)  # cells up to and with each token
    voice = np.array(ORDERS)[written % len(ORDERS)][:, (position + place) % num_voices]
    quarter_step = (position + place) // num_voices % STEPS_A_QUARTER
    classes = np.concatenate([classes[:, None], _pitch_classes(cells)], 1).cumsum(1)
    lags = [num_voices, 1, 2, 3]
    at = [place + num_voices - lag for lag in lags]
    features = np.stack(
        [np.broadcast_to(v, ids.shape) for v in (voice, quarter_step)]
        + [holds[:, i] for i in at]
        + [interval(earlier[:, i], seen[:, i], MAX_LEAP) for i in at]
        + [interval(seen[:, at[0]], seen[:, i], MAX_INTERVAL) for i in at[1:]]
        + [np.broadcast_to(written[:, None], ids.shape), seen[:, place], _degree(classes[:, place], seen[:, place])],
        2,
    )
    newest = num_cells + np.arange(num_voices)
    back = np.argsort((position + newest) % num_voices)  # by voice again
    seen, holds, earlier = (of[:, newest][:, back] for of in (seen, holds, earlier))
    return features, (np.full(len(ids), position + num_cells), written, seen, holds, earlier, classes[:, -1])


def _pitch_classes(cells: np.ndarray) -> np.ndarray:
    """Return which pitch class each cell has, (B, N) -> (B, N, 12) of 0 and 1; all 0 for silence."""
    return ((cells[..., None] - FIRST_PITCH) % 12 == np.arange(12)) & (cells[..., None] >= FIRST_PITCH)


def _degree(classes: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Return which degree of the key ids are, (B, T): 1 … 12 in major, 13 … 24 in minor, 0 for silence.

    Args:
        classes: how many cells each pitch class has had, (B, T, 12).
        ids: (B, T).
    """
    mode, tonic = np.divmod((classes @ KEYS).argmax(-1), 12)
    return np.where(ids >= FIRST_PITCH, 1 + 12 * mode + (ids - FIRST_PITCH - tonic) % 12, 0)


def interval(lower: np.ndarray, upper: np.ndarray, widest: int) -> np.ndarray:
    """Return semitones from one id to another, -widest … widest as 1 … 2 widest + 1; 0 where one of them is no pitch."""
    semitones = np.clip(upper - lower, -widest, widest)
    return np.where((lower >= FIRST_PITCH) & (upper >= FIRST_PITCH), semitones + widest + 1, 0)


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
