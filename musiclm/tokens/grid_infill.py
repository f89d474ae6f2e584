"""The grid of four voices, arranged so that what is missing is written last: `grid-infill`.

A stretch of a chorale with a hole in it is told in three parts:

    what was before     plain cells, as many as there is room for
    AHEAD, what is kept the cells from where the hole begins to some steps behind it, HOLE in place of each missing one
    WRITE, the whole    the steps of the hole once more, every cell; those that are kept are only copied

So the last part goes on from the first as any music does, by the same grammar and to any length, and the model has read what
it must lead into. What is kept is a feature of the cell to come as well: nobody has to count cells to find it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from symusic import Score
from torch import Tensor

from .grid import BOS, EOS, FIRST_ARRANGED, SILENCE, STEPS_A_QUARTER, VOICES, Grid, is_cell

NUM_VOICES = len(VOICES)
HOLE, AHEAD, WRITE = FIRST_ARRANGED, FIRST_ARRANGED + 1, FIRST_ARRANGED + 2
MAX_WAIT = 16  # steps to the voice's next kept cell; longer ones look alike
LENGTH = 512  # ids of an arranged stretch at most
STEPS, BEHIND = 32, 16  # of a hole and of what is read behind it, at most
KEPT = tuple(range(1, NUM_VOICES + 1))  # how many cells behind the next are told of
PLAIN, KEEPING, WRITING = range(3)


class GridInfill(Grid):
    """Chorales with holes; see the module.

    Features are those of `grid`, version 2, and before their last one: which of the three parts the next cell is of (3);
    in the last part what is kept of the four cells behind it (132 each, 0 for a missing one), of the voice's own cells the
    next that is kept (132), and in how many steps it comes (18).
    """

    name = "grid-infill"
    vocab_size = FIRST_ARRANGED + 3
    num_arrangements = 1 << 30
    share_arranged = 0.9
    fills = True

    def __init__(self) -> None:
        super().__init__(features=2)
        self.num_arrangements, self.vocab_size = type(self).num_arrangements, type(self).vocab_size
        known = [FIRST_ARRANGED + 1] * len(KEPT)
        sizes = self.feature_sizes
        self.feature_sizes = (*sizes[:-1], 3, *known, FIRST_ARRANGED + 1, MAX_WAIT + 2, sizes[-1])
        self.reference = len(self.feature_sizes) - 1

    def describe(self) -> dict[str, Any]:
        return {"name": self.name}

    def decode(self, ids: Sequence[int] | np.ndarray) -> Score:
        return super().decode(_without_ahead(np.asarray(ids, np.int64)))

    def counts(self, ids: np.ndarray) -> np.ndarray:
        """See the base; of an arranged stretch only what was missing counts."""
        ids = np.asarray(ids)
        found = _parts(ids)
        counted = super().counts(ids)
        if found is not None:
            counted[:] = False
            counted[found.written] = found.missing
        return counted

    def learnt(self, ids: np.ndarray) -> np.ndarray:
        found = _parts(ids)
        learnt = np.ones(len(ids), bool)
        if found is not None:
            learnt[found.ahead : found.written.start] = False
            learnt[found.written] = found.missing
        return learnt

    def arranged(self, ids: np.ndarray, number: int) -> np.ndarray:
        """Return a stretch of a piece with a hole in it, (T',) int64, drawn by its number; 0 is the piece as it is."""
        if not number:
            return ids
        draw = np.random.default_rng(number)
        steps = ids[is_cell(ids)].reshape(-1, NUM_VOICES)
        size = STEPS_A_QUARTER * int(draw.integers(1, STEPS // STEPS_A_QUARTER + 1))
        start = STEPS_A_QUARTER * int(draw.integers(max(1, len(steps) // STEPS_A_QUARTER)))
        stop = min(start + size, len(steps))
        behind = min(stop + STEPS_A_QUARTER * int(draw.integers(BEHIND // STEPS_A_QUARTER + 1)), len(steps))
        return stretch(steps, start, stop, _drawn_hole(draw, steps, start, stop, behind))

    def features(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """See the class. The state is one `_Reading` a row."""
        ids = tokens.cpu().numpy()
        readings = state or [_Reading() for _ in ids]
        found = [self._of_row(row, reading) for row, reading in zip(ids, readings, strict=True)]
        features = torch.from_numpy(np.stack([features for features, _ in found])).to(tokens.device)
        return features, [reading for _, reading in found]

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
            rows = np.zeros((len(part), len(KEPT) + 3), np.int64)
            rows[:, 0] = reading.part
            if reading.part == WRITING:
                rows[:, 1:] = _told(reading.kept, at)
            parts.append(np.concatenate([plain[0, :, :-1].numpy(), rows, plain[0, :, -1:].numpy()], 1))
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


def stretch(steps: np.ndarray, start: int, stop: int, missing: np.ndarray) -> np.ndarray:
    """Return a stretch of a piece with a hole in it, (T,) int64: with as many steps before it as there is room for.

    Args:
        steps: (S, 4) cells of the whole piece.
        start: the first step that is written.
        stop: the step behind the last.
        missing: (N, 4) booleans, which cells are not told of the N steps from `start` on that are read.
    """
    behind = start + len(missing)
    room = (LENGTH - 3) // NUM_VOICES - len(missing) - (stop - start)
    first = max(0, start - room // STEPS_A_QUARTER * STEPS_A_QUARTER)
    before = np.concatenate([[BOS] if first == 0 else [], steps[first:start].ravel()])
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


def _told(kept: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return what is kept near cells to come, (N, 6): the four behind each, its voice's next, and steps till that.

    Args:
        kept: the cells from where the hole begins, HOLE for those that are missing.
        at: (N,) which cell is next, counted from there.
    """
    said = np.where(kept == HOLE, 0, kept + 1)
    room = np.zeros(int(at.max()) + NUM_VOICES * (MAX_WAIT + 2) + 1, np.int64)
    room[: min(len(said), len(room))] = said[: len(room)]
    near = np.stack([room[at + behind] for behind in KEPT], 1)
    own = np.stack([room[at + NUM_VOICES * wait] for wait in range(1, MAX_WAIT + 1)], 1)
    is_told = own > 0
    wait = np.where(is_told.any(1), is_told.argmax(1) + 1, MAX_WAIT + 1)
    pitch = np.where(is_told.any(1), own[np.arange(len(at)), np.minimum(wait, MAX_WAIT) - 1], 0)
    return np.concatenate([near, pitch[:, None], wait[:, None]], 1)


def _drawn_hole(draw: np.random.Generator, steps: np.ndarray, start: int, stop: int, behind: int) -> np.ndarray:
    """Return which cells of steps[start:behind] are missing, (behind - start, 4) booleans.

    Three in ten holes are of all voices, three in ten leave the soprano, the others leave any. Half of those that leave a
    voice go on behind what is to be written, as they do where the whole of a voice is missing; and half of the holes begin
    where a note that sounds already has ended.
    """
    kind = draw.random()
    voices = np.ones(NUM_VOICES, bool)
    if kind >= 0.3:
        voices = np.array([False, True, True, True])
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
