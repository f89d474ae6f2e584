"""The grid of four voices, arranged so that what is missing is written last: `grid-infill`.

A stretch of a chorale with a hole in it is told in three parts:

    what was before     plain cells, as many as there is room for
    AHEAD, what is kept the cells from where the hole begins to some steps behind it, HOLE in place of each missing one
    WRITE, the whole    the steps of the hole once more, every cell; those that are kept are only copied

So the last part goes on from the first as any music does, by the same grammar and to any length, and the model has read what
it must lead into. What is kept around the cell to come is a feature of it as well: nobody has to count cells to find it.

The ids of `grid` are its first, and so are the features: a model of that one can go on to learn holes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from symusic import Score
from torch import Tensor

from ..errors import TokenizerError
from .base import Tokenizer
from .features.grid import interval
from .grid import (  # fmt: skip
    BOS,
    EOS,
    FIRST_ARRANGED,
    MAX_INTERVAL,
    ORDERS,
    SILENCE,
    STEPS_A_QUARTER,
    VOICES,
    Grid,
    is_cell,
)
from .vocabulary import Kind, Token, Vocabulary

NUM_VOICES = len(VOICES)
HOLE, AHEAD, WRITE = (FIRST_ARRANGED + 2 * len(ORDERS) - 1 + i for i in range(3))
MAX_WAIT = 16  # steps to a voice's next kept pitch; longer ones look alike
LENGTH = 512  # ids of an arranged stretch at most
STEPS, BEHIND = 32, 16  # of a hole and of what is read behind it, at most
PLAIN, KEEPING, WRITING = range(3)
IN_ORDER = 1 << 25  # numbers of arrangements below this leave the voices in their order and time forwards
WITHOUT_HOLE = 0.15  # of the others, those that are whole pieces in some order


class GridInfill(Grid):
    """Chorales with holes; see the module. As in `grid`, training has the voices in any order and time in either direction.

    Features are those of `grid`, version 4 (in version 2 of these: 3), and then: which of the three parts the next cell is of
    (3). In the last part what is kept, of each voice, that of the cell first and then the others as they follow it: its next
    cell (132, 0 for a missing one), and the same as semitones from the cell's voice's last pitch (50); what it has at the next
    quarter, in semitones (50); the next pitch that is another than that of its next cell, in semitones (50), and in how many
    steps that comes (18).
    """

    name = "grid-infill"
    vocab_size = WRITE + 1
    num_rearrangements = 1 << 30
    p_rearrange = 0.9
    supports_infilling = True

    def __init__(self, features: int = 3) -> None:
        if features not in (2, 3):
            raise TokenizerError(f"the tokenizer 'grid-infill' has no features of version {features}")
        super().__init__(features=features + 1)
        self.num_rearrangements, self.vocab_size = type(self).num_rearrangements, type(self).vocab_size
        each = FIRST_ARRANGED + 1, *[2 * MAX_INTERVAL + 2] * 3, MAX_WAIT + 2
        self.feature_sizes = (*self.feature_sizes, 3, *[size for size in each for _ in range(NUM_VOICES)])

    @cached_property
    def vocabulary(self) -> Vocabulary:
        return [*super().vocabulary, Token(Kind.MASK), Token(Kind.INFILL_CONTEXT), Token(Kind.INFILL_SPAN)]

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "features": self.version - 1}

    def decode(self, ids: Sequence[int] | np.ndarray) -> Score:
        return super().decode(_without_ahead(np.asarray(ids, np.int64)))

    def eval_mask(self, ids: np.ndarray) -> np.ndarray:
        """See the base; of an arranged stretch only what was missing counts."""
        ids = np.asarray(ids)
        found = _parts(ids)
        counted = super().eval_mask(ids)
        if found is not None:
            counted[:] = False
            counted[found.written] = found.missing
        return counted

    def loss_mask(self, ids: np.ndarray) -> np.ndarray:
        found = _parts(ids)
        learnt = np.ones(len(ids), bool)
        if found is not None:
            learnt[found.ahead : found.written.start] = False
            learnt[found.written] = found.missing
        return learnt

    def rearranged(self, ids: np.ndarray, number: int) -> np.ndarray:
        """Return a stretch of a piece with a hole in it, (T',) int64, drawn by its number; 0 is the piece as it is.

        From `IN_ORDER` on it may be in any order, and may be a whole piece without a hole.
        """
        if not number:
            return ids
        draw = np.random.default_rng(number)
        order = 0
        if number >= IN_ORDER:
            order = int(draw.integers(2 * len(ORDERS))) if draw.random() < 0.75 else 0
            if draw.random() < WITHOUT_HOLE:
                return super().rearranged(ids, order)
        mark, voices = int(ids[0]), ORDERS[order % len(ORDERS)]
        if order:
            ids = super().rearranged(ids, order)
            mark = int(ids[0])
        steps = ids[is_cell(ids)].reshape(-1, NUM_VOICES)
        size = STEPS_A_QUARTER * int(draw.integers(1, STEPS // STEPS_A_QUARTER + 1))
        start = STEPS_A_QUARTER * int(draw.integers(max(1, len(steps) // STEPS_A_QUARTER)))
        stop = min(start + size, len(steps))
        behind = min(stop + STEPS_A_QUARTER * int(draw.integers(BEHIND // STEPS_A_QUARTER + 1)), len(steps))
        missing = _drawn_hole(draw, steps, start, stop, behind, voices.index(0))
        return stretch(steps, start, stop, missing, mark)

    def features(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """See the class. The state is one `_Reading` a row."""
        ids = tokens.cpu().numpy()
        readings = state or [_Reading() for _ in ids]
        found = [self._of_row(row, reading) for row, reading in zip(ids, readings, strict=True)]
        features = torch.from_numpy(np.stack([features for features, _ in found])).to(tokens.device)
        return features, [reading for _, reading in found]

    def features_of(self, sequences: Sequence[np.ndarray]) -> np.ndarray:
        return Tokenizer.features_of(self, sequences)

    def _of_row(self, ids: np.ndarray, reading: _Reading) -> tuple[np.ndarray, _Reading]:
        """Return the features of a row, (T, F), and where it stands behind it."""
        parts = []
        marks = np.flatnonzero((ids == AHEAD) | (ids == WRITE)).tolist()
        for begin, end in zip([0, *marks], [*marks, len(ids)], strict=True):
            if begin == end:
                continue
            part = ids[begin:end]
            reading = _entered(reading, int(part[0]))
            cells = part[is_cell(part) | (part == HOLE)]
            heard = torch.from_numpy(np.where(part == HOLE, SILENCE, part))[None]
            plain, grid_state = super().features(heard, reading.grid)
            at = reading.position + np.cumsum(is_cell(part) | (part == HOLE))
            rows = np.zeros((len(part), len(self.feature_sizes)), np.int64)
            rows[:, : plain.shape[2]] = plain[0].numpy()
            rows[:, plain.shape[2]] = reading.part
            if reading.part == WRITING:
                rows[:, plain.shape[2] + 1 :] = _told(reading.kept, at, rows[:, self.last_cell_feature])
            parts.append(rows)
            kept = np.concatenate([reading.kept, cells]) if reading.part == KEEPING else reading.kept
            reading = dataclasses.replace(reading, grid=grid_state, position=reading.position + len(cells), kept=kept)
        return np.concatenate(parts), reading


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Reading:
    """Where a row stands: in which part, how many cells of it are read, and what is kept; grid states for features."""

    part: int = PLAIN
    position: int = 0
    kept: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    grid: Any = None
    before: Any = None


def _entered(reading: _Reading, token: int) -> _Reading:
    """Return where a row stands as it reads a mark; the part that is written goes on from before what is kept."""
    if token == AHEAD:
        return _Reading(part=KEEPING, grid=reading.grid, before=reading.grid)
    if token == WRITE:
        return dataclasses.replace(reading, part=WRITING, position=0, grid=reading.before)
    return reading


def stretch(steps: np.ndarray, start: int, stop: int, missing: np.ndarray, mark: int = BOS) -> np.ndarray:
    """Return a stretch of a piece with a hole in it, (T,) int64: with as many steps before it as there is room for.

    Args:
        steps: (S, 4) cells of the whole piece.
        start: the first step that is written.
        stop: the step behind the last.
        missing: (N, 4) booleans, which cells are not told of the N steps from `start` on that are read.
        mark: what the piece begins with; one that tells of an order stands before every stretch.
    """
    behind = start + len(missing)
    room = (LENGTH - 3) // NUM_VOICES - len(missing) - (stop - start)
    first = max(0, start - room // STEPS_A_QUARTER * STEPS_A_QUARTER)
    before = np.concatenate([[mark] if first == 0 or mark != BOS else [], steps[first:start].ravel()])
    written = np.concatenate([steps[start:stop].ravel(), [EOS] if stop == len(steps) else []])
    return np.concatenate([asked(before, steps[start:behind], missing), written]).astype(np.int64)


def asked(before: np.ndarray, steps: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Return what a model reads before it writes, (T,) int64.

    Args:
        before: ids up to the hole.
        steps: (S, 4) cells from where the hole begins.
        missing: (S, 4) booleans, those that are not told.
    """
    return np.concatenate([before, [AHEAD], np.where(missing, HOLE, steps).ravel(), [WRITE]]).astype(np.int64)


def _told(kept: np.ndarray, at: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return what is kept around cells to come, (N, 20): see `GridInfill`.

    Args:
        kept: the cells from where the hole begins, HOLE for those that are missing.
        at: (N,) which cell is next, counted from there.
        reference: (N,) the last id of the next cell's voice.
    """
    num_steps = (int(at.max()) + NUM_VOICES) // NUM_VOICES + max(MAX_WAIT, STEPS_A_QUARTER) + 2
    room = np.full(num_steps * NUM_VOICES, HOLE)
    room[: min(len(kept), len(room))] = kept[: len(room)]
    cells = at[:, None] + np.arange(NUM_VOICES)  # the next one of each voice
    now = room[cells]
    quarter = cells % NUM_VOICES + NUM_VOICES * STEPS_A_QUARTER * (cells // NUM_VOICES // STEPS_A_QUARTER + 1)
    later = room[cells[..., None] + NUM_VOICES * np.arange(1, MAX_WAIT + 1)]
    is_other = (later != HOLE) & (later != now[..., None])
    comes = is_other.any(-1)
    wait = is_other.argmax(-1)
    other = np.where(comes, np.take_along_axis(later, wait[..., None], -1)[..., 0], HOLE)
    said = [
        interval(reference[:, None], np.where(of == HOLE, 0, of), MAX_INTERVAL) for of in (now, room[quarter], other)
    ]
    return np.concatenate([np.where(now == HOLE, 0, now + 1), *said, np.where(comes, wait + 1, MAX_WAIT + 1)], 1)


def _drawn_hole(
    draw: np.random.Generator, steps: np.ndarray, start: int, stop: int, behind: int, soprano: int
) -> np.ndarray:
    """Return which cells of steps[start:behind] are missing, (behind - start, 4) booleans.

    Three in ten holes are of all voices, three in ten leave the soprano, the others leave any. Half of those that leave a
    voice go on behind what is to be written, as they do where the whole of a voice is missing; and half of the holes begin
    where a note that sounds already has ended.
    """
    kind = draw.random()
    voices = np.ones(NUM_VOICES, bool)
    if kind >= 0.3:
        voices[soprano] = False
    if kind >= 0.6:
        voices = np.array([(int(draw.integers(1, 15)) >> v) & 1 for v in range(NUM_VOICES)], bool)
        voices[int(draw.integers(NUM_VOICES))] = True
    missing = np.zeros((behind - start, NUM_VOICES), bool)
    goes_on = not voices.all() and draw.random() < 0.5
    missing[: None if goes_on else stop - start, voices] = True
    if start and draw.random() < 0.5:
        for voice in np.flatnonzero(voices):
            moved = np.flatnonzero(steps[start:stop, voice] != steps[start - 1, voice])
            held = int(moved[0]) if len(moved) else stop - start - 1  # one cell is left to write
            missing[:held, voice] = False
    return missing


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Parts:
    """An arranged stretch: where AHEAD stands, what is written, and which of that was missing."""

    ahead: int
    written: slice
    missing: np.ndarray


def _parts(ids: np.ndarray) -> _Parts | None:
    """Return the parts of an arranged stretch; None of a piece as it is."""
    ahead, write = np.flatnonzero(ids == AHEAD), np.flatnonzero(ids == WRITE)
    if not len(ahead) or not len(write):
        return None
    kept = ids[ahead[0] + 1 : write[0]]
    written = slice(int(write[0]) + 1, len(ids))
    cells = is_cell(ids[written])
    missing = np.zeros(len(ids[written]), bool)
    missing[cells] = (kept[: cells.sum()] == HOLE)[: cells.sum()]
    return _Parts(ahead=int(ahead[0]), written=written, missing=missing)


def _without_ahead(ids: np.ndarray) -> np.ndarray:
    """Return ids without what is kept: the music in its order."""
    found = _parts(ids)
    if found is None:
        return ids
    return np.concatenate([ids[: found.ahead], ids[found.written]])
