"""Expressive piano in real time: MidiTok's MIDI-Like (after Oore et al. 2018, Performance RNN) on a grid of 10 ms.

Note-on, velocity, note-off, and time shifts of 10 ms to 1 s: 88 keys, 32 velocities, 100 shifts, the 308 classes of
Music Transformer and three special tokens. The ids are those of MidiTok for a score rewritten to 50 ticks per quarter at 120
quarters per minute (a test compares them), computed here with numpy: MidiTok ignores the tempo and the pedal, and takes
thirty times as long (40 MAESTRO pieces on one core: 0.15 s and 4.5 s).

At one time notes end before others begin, in the order in which they began, and begin from low to high. The vocabulary
cannot express instruments (all tracks become one piano), drums, pitches off the keyboard, a key struck twice within 10 ms,
tempo, time signature, and silence after the last note. The sustain pedal is folded into note lengths: a note lasts until the
pedal goes up or its key is struck again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from symusic import Note, Score, Tempo, Track
from torch import Tensor

from .. import midi
from ..errors import MidiError, TokenizerError
from .base import TICKS, Tokenizer
from .features import performance as performance_features
from .features.performance import NOTE_OFF, NOTE_ON, NUM_KEYS, TIME_SHIFT, VELOCITY
from .vocabulary import Kind, Token, Vocabulary

STEPS_A_SECOND = 100
LONGEST_SHIFT = 100  # steps
LOWEST, HIGHEST = 21, 108  # the keys of a piano
VELOCITIES = np.linspace(0, 127, 33, dtype=np.int64)[1:]  # MidiTok's
QPM = 120.0
STEPS_A_QUARTER = 50
MAX_SECONDS = 12 * 3600  # a longer file is taken for damaged
FASTER = 1.05  # one step of `faster`
SAME_TIME = 5e-7  # times this much apart are the same tick: symusic's seconds are float32, a note's end the sum of two

PAD, BOS, EOS = 0, 1, 2
VOCAB_SIZE = TIME_SHIFT + LONGEST_SHIFT  # the id of n steps is TIME_SHIFT + n - 1
KEYS = range(LOWEST, HIGHEST + 1)
VOCABULARY = (
    Token(Kind.PAD),
    Token(Kind.BOS),
    Token(Kind.EOS),
    *(Token(Kind.NOTE_ON, pitch) for pitch in KEYS),
    *(Token(Kind.NOTE_OFF, pitch) for pitch in KEYS),
    *(Token(Kind.VELOCITY, velocity) for velocity in VELOCITIES.tolist()),
    *(Token(Kind.TIME_SHIFT, Fraction(steps, STEPS_A_SECOND)) for steps in range(1, LONGEST_SHIFT + 1)),
)
IS_TIMING = np.array([token.kind not in (Kind.NOTE_ON, Kind.VELOCITY) for token in VOCABULARY])


class Performance(Tokenizer):
    """A piano performance; see the module.

    Input features of the next id, from version 2 on: the keys that sound and which of them is likely to end, the onsets of
    the last chords, velocities and intervals of the last notes, and for each kind of id one that the next is likely to be
    near; see `features/performance.py`. With them a small transformer reaches with 0.4 million ids the loss that it reaches
    with 3 million without (docs/results/maestro.md).

    Args:
        features: their version; 1 has none.
    """

    name = "performance"
    in_seconds = True
    vocab_size = VOCAB_SIZE
    bos, eos = BOS, EOS
    varies_by_id = False  # a shift that becomes longer than a second takes two ids
    program = 0
    vocabulary: Vocabulary = VOCABULARY

    def __init__(self, features: int = 2) -> None:
        if features not in (1, 2):
            raise TokenizerError(f"the tokenizer 'performance' has no features of version {features}")
        self.version = features
        if features == 2:
            self.feature_sizes, self.relative_pitch, self.feature_lead = (
                performance_features.SIZES,
                performance_features.RELATIVE_PITCH,
                256,
            )

    def describe(self) -> dict[str, Any]:
        return {"name": self.name} if self.version == 1 else {"name": self.name, "features": self.version}

    def encode(self, score: Score) -> tuple[np.ndarray, int]:
        start, end, pitch, velocity = _on_grid(*_performed(score))
        if not len(start):
            raise MidiError("no note that a piano can play (drums have no pitch)")
        if end.max() > MAX_SECONDS * STEPS_A_SECOND:
            raise MidiError(f"longer than {MAX_SECONDS // 3600} hours")
        number = np.arange(len(start))
        time, is_on, order = (np.concatenate(p) for p in ((end, start), (number < 0, number >= 0), (number, number)))
        falling = np.lexsort((order, is_on, time))
        time, is_on, order = time[falling], is_on[falling], order[falling]
        key = pitch[order] - LOWEST
        gap = np.diff(time, prepend=0)
        num_shifts = -(-gap // LONGEST_SHIFT)
        behind = np.cumsum(num_shifts + 1 + is_on)  # where each event's ids end
        ids = np.full(behind[-1], TIME_SHIFT + LONGEST_SHIFT - 1)
        ids[behind - 1] = np.where(is_on, VELOCITY + velocity[order], NOTE_OFF + key)
        ids[behind[is_on] - 2] = NOTE_ON + key[is_on]
        last_shift = (behind - 2 - is_on)[gap > 0]
        ids[last_shift] = TIME_SHIFT + (gap[gap > 0] - 1) % LONGEST_SHIFT
        return np.concatenate([[BOS], ids, [EOS]]).astype(np.int64), score.note_num() - len(start)

    def unexpressed(self, score: Score) -> list[str]:
        others = {t.program for t in score.tracks if not t.is_drum and len(t.notes)} - set(range(8))
        return (
            ["'performance' has a piano alone: it hears the other instruments as a piano, and a piano continues"]
            if others
            else []
        )

    def decode(self, ids: Sequence[int] | np.ndarray) -> Score:
        """See the base class. A note without an end lasts until the end of the ids, at least 10 ms."""
        ids = np.asarray(ids, dtype=np.int64)
        now = np.cumsum(_steps(ids))
        following = np.append(ids[1:], PAD)
        is_on = (ids >= NOTE_ON) & (ids < NOTE_OFF) & (following >= VELOCITY) & (following < TIME_SHIFT)
        is_off = (ids >= NOTE_OFF) & (ids < VELOCITY)
        at = np.flatnonzero(is_on | is_off)  # without its velocity a note is no note yet
        key = (ids[at] - NOTE_ON) % NUM_KEYS
        by_key = np.argsort(key, kind="stable")
        at, key = at[by_key], key[by_key]
        stop = np.full(len(at), now[-1] if len(now) else 0)
        same_key = np.flatnonzero(key[1:] == key[:-1])
        stop[same_key] = now[at[same_key + 1]]  # a note ends at the next event of its key
        begins = is_on[at]
        at, key, stop = at[begins], key[begins], stop[begins]
        start = now[at]
        first_tick, last_tick = _ticks(start), _ticks(np.maximum(stop, start + 1))
        order = np.lexsort((key, first_tick))
        track = Track("Piano", 0, False)
        track.notes = Note.from_numpy(
            time=first_tick[order].astype(np.int32),
            duration=(last_tick - first_tick)[order].astype(np.int32),
            pitch=(key + LOWEST)[order].astype(np.int8),
            velocity=VELOCITIES[following[at] - VELOCITY][order].astype(np.int8),
        )
        score = Score(TICKS)
        score.tempos.append(Tempo(0, QPM))
        score.tracks.append(track)
        return score

    def quarters(self, ids: Sequence[int] | np.ndarray) -> float:
        return float(_steps(np.asarray(ids, dtype=np.int64)).sum()) / STEPS_A_QUARTER

    def pad_with_silence(self, ids: np.ndarray, quarters: float) -> np.ndarray:
        """See the base class. Whole seconds only: a note would have to follow a shorter shift immediately."""
        missing = int((quarters - self.quarters(ids)) * STEPS_A_QUARTER + 1e-6) // LONGEST_SHIFT
        return np.concatenate([ids, np.full(max(0, missing), TIME_SHIFT + LONGEST_SHIFT - 1)])

    def num_events(self, ids: Sequence[int] | np.ndarray) -> int:
        """Return the number of events of Performance RNN and Music Transformer, who write a velocity only where it changes.

        It is the same for their 388 classes (128 pitches) and 308 (88 keys). The total loss divided by it is nats/event as
        in their tables.
        """
        ids = np.asarray(ids, dtype=np.int64)
        velocities = ids[(ids >= VELOCITY) & (ids < TIME_SHIFT)]
        return int(self.eval_mask(ids).sum()) - int((velocities[1:] == velocities[:-1]).sum())

    def transposed(self, semitones: int) -> np.ndarray:
        return _moved([(NOTE_ON, NOTE_OFF), (NOTE_OFF, VELOCITY)], semitones)

    def louder(self, steps: int) -> np.ndarray:
        return _moved([(VELOCITY, TIME_SHIFT)], steps)

    def faster(self, steps: int) -> np.ndarray:
        """See the base class; a step is 5 %. A shift over a second would need two ids: -1 here; `varied` writes both."""
        table = np.arange(VOCAB_SIZE)
        shifts = _scaled(np.arange(1, LONGEST_SHIFT + 1), steps)
        table[TIME_SHIFT:] = np.where(shifts <= LONGEST_SHIFT, TIME_SHIFT + shifts - 1, -1)
        return table

    def varied(self, ids: np.ndarray, *, semitones: int = 0, faster: int = 0, louder: int = 0) -> np.ndarray | None:
        varied = super().varied(ids, semitones=semitones, louder=louder)
        return varied if varied is None or not faster else _at_tempo(varied, faster)

    def trained_bpe(self, sequences: Iterable[np.ndarray], num_merges: int) -> Tokenizer:
        """See the base class. Merged ids have no input features."""
        from .bpe import learn_merges

        return learn_merges(Performance(features=1), sequences, num_merges)

    def exempt_from_temperature(self, features: Tensor | None) -> Tensor:
        """See the base: all ids but keys and velocities, so when notes begin and end stays the model's choice.

        Time passes by one of a hundred shifts, and a note ends by one certain id: at temperature 0.95 and top-p 0.98 notes
        were half as long as those of the training data.
        """
        is_timing = torch.from_numpy(IS_TIMING)
        return is_timing if features is None else is_timing.to(features.device)

    def features(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """See the class. The streaming state is one `Playing` per batch element."""
        if self.version == 1:
            return super().features(tokens, state)
        playing = (
            [p.copy() for p in state]
            if state is not None
            else [performance_features.PerformanceState() for _ in range(len(tokens))]
        )
        rows = [p.features(ids) for p, ids in zip(playing, tokens.tolist(), strict=True)]
        features = torch.tensor(rows, dtype=torch.int64, device=tokens.device)
        return features.view(*tokens.shape, len(self.feature_sizes)), playing

    def all_features_of(self, sequences: Sequence[np.ndarray]) -> np.ndarray:
        return performance_features.features_of(sequences) if self.version > 1 else super().all_features_of(sequences)


def _steps(ids: np.ndarray) -> np.ndarray:
    """Return the steps of time that each id takes."""
    return np.where(ids >= TIME_SHIFT, ids - TIME_SHIFT + 1, 0)


def _ticks(steps: np.ndarray) -> np.ndarray:
    """Return steps in ticks: 9.6 per step, so the rounding error is at most half a millisecond."""
    return np.floor(steps * (TICKS / STEPS_A_QUARTER) + 0.5).astype(np.int64)


def _scaled(steps: np.ndarray, places: int) -> np.ndarray:
    """Return durations so many times 5 % shorter, in steps, at least 1."""
    return np.maximum(1, np.floor(steps / FASTER**places + 0.5).astype(np.int64))


def _at_tempo(ids: np.ndarray, places: int) -> np.ndarray:
    """Return ids with each silence between two events scaled, and written as `encode` writes it."""
    is_shift = ids >= TIME_SHIFT
    opens = is_shift & ~np.append(False, is_shift[:-1])
    run = np.cumsum(opens) - 1  # the run of shifts that each id is in or after
    totals = np.bincount(run[is_shift], weights=_steps(ids)[is_shift], minlength=int(opens.sum())).astype(np.int64)
    totals = _scaled(totals, places) if len(totals) else totals
    num_shifts = -(-totals // LONGEST_SHIFT)
    sizes = np.where(is_shift, 0, 1)
    sizes[opens] = num_shifts
    varied = np.repeat(np.where(is_shift, TIME_SHIFT + LONGEST_SHIFT - 1, ids), sizes)
    varied[np.cumsum(sizes)[opens] - 1] = TIME_SHIFT + (totals - 1) % LONGEST_SHIFT
    return varied


def _moved(ranges: list[tuple[int, int]], steps: int) -> np.ndarray:
    """Return the table that moves ids within their range; -1 where they leave it."""
    table = np.arange(VOCAB_SIZE)
    for first, behind in ranges:
        moved = np.arange(first, behind) + steps
        table[first:behind] = np.where((moved >= first) & (moved < behind), moved, -1)
    return table


Notes = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Start, end, pitch, velocity of each note."""


def _performed(score: Score) -> Notes:
    """Return the notes that are not drums, in seconds, each as long as it sounds."""
    timed = score.to("second")
    parts = [_rung(track) for track in timed.tracks if not track.is_drum and len(track.notes)]
    if not parts:
        return tuple(np.zeros(0) for _ in range(4))  # type: ignore[return-value]
    start, end, pitch, velocity = (np.concatenate(p) for p in zip(*parts, strict=True))
    return start, end, pitch, velocity


def _rung(track: Track) -> Notes:
    """Return the notes of a track in seconds, lengthened by its pedal. A later strike of the same key cuts them afterwards."""
    notes = track.notes.numpy()
    start = notes["time"].astype(np.float64)
    end = start + notes["duration"]
    end = np.maximum(end, midi.pedal_release(track, end, same_time=SAME_TIME))
    return start, end, notes["pitch"].astype(np.int64), notes["velocity"].astype(np.int64)


def _on_grid(start: np.ndarray, end: np.ndarray, pitch: np.ndarray, velocity: np.ndarray) -> Notes:
    """Return what a piano can play, in steps, by start and pitch, one note of a key at a time; velocities by number."""
    on_keys = (pitch >= LOWEST) & (pitch <= HIGHEST)
    start, end, pitch, velocity = start[on_keys], end[on_keys], pitch[on_keys].astype(np.int64), velocity[on_keys]
    start, end = (np.floor(t * STEPS_A_SECOND + 0.5).astype(np.int64) for t in (start, end))
    end = np.maximum(end, start + 1)
    by_key = np.lexsort((-velocity, -end, start, pitch))  # of two strikes within a step the longer stays
    start, end, pitch, velocity = start[by_key], end[by_key], pitch[by_key], velocity[by_key]
    again = (pitch[1:] == pitch[:-1]) & (start[1:] == start[:-1])
    kept = np.append(True, ~again)[: len(start)]
    start, end, pitch, velocity = start[kept], end[kept], pitch[kept], velocity[kept]
    same_key = pitch[1:] == pitch[:-1]
    end[:-1] = np.where(same_key, np.minimum(end[:-1], start[1:]), end[:-1])
    by_time = np.lexsort((pitch, start))
    nearest = np.searchsorted((VELOCITIES[1:] + VELOCITIES[:-1]) / 2, velocity, side="right")
    return start[by_time], end[by_time], pitch[by_time], nearest[by_time]
