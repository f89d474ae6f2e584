"""The grid of four voices, rearranged for infilling: `grid-infill`.

A crop of a chorale with a masked span has three parts:

    past context             plain cells, as many as there is room for
    AHEAD, given context     the cells from the start of the span to some steps after it, HOLE for each masked one
    WRITE, the span          all cells of the span's steps; those that are given are only copied

So the last part continues the first under the same constraints and to any length, and the model is conditioned on the
context on both sides. The given context around the next cell is an input feature as well, so no model has to count cells.

The first ids and features are those of `grid`, so a model of `grid` can be trained further on infilling.
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
MAX_WAIT = 16  # steps to a voice's next given pitch; longer ones get the same feature
LENGTH = 512  # ids of a rearranged crop, at most
STEPS, BEHIND = 32, 16  # of a masked span and of the context after it, at most
PLAIN, KEEPING, WRITING = range(3)
IN_ORDER = 1 << 25  # rearrangements below this number keep the order of the voices and the direction of time
P_WITHOUT_SPAN = 0.15  # share of the others that are whole pieces in some order


class GridInfill(Grid):
    """Chorales with masked spans; see the module. As in `grid`, training permutes the voices and reverses time.

    Input features are those of `grid`, version 4 (version 3 in version 2 of these), and the part of the next cell (3). In the
    last part follows the given context of each voice, the cell's voice first and then the others in their order: its next cell
    (132, 0 for a masked one), the same as an interval from the last pitch of the cell's voice (50), its cell at the next
    quarter as an interval (50), its next pitch that differs from its next cell as an interval (50), and in how many steps that
    comes (18).
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
        """See the base class; of a rearranged crop only masked cells count."""
        ids = np.asarray(ids)
        found = _parts(ids)
        counted = super().eval_mask(ids)
        if found is not None:
            counted[:] = False
            counted[found.written] = found.missing
        return counted

    def loss_mask(self, ids: np.ndarray) -> np.ndarray:
        found = _parts(ids)
        mask = np.ones(len(ids), bool)
        if found is not None:
            mask[found.ahead : found.written.start] = False
            mask[found.written] = found.missing
        return mask

    def rearranged(self, ids: np.ndarray, number: int) -> np.ndarray:
        """Return a crop of a piece with a masked span, (T',) int64, sampled with its number as seed; 0 is the piece as it is.

        From `IN_ORDER` on the voices may come in any order, and it may be a whole piece without a masked span.
        """
        if not number:
            return ids
        rng = np.random.default_rng(number)
        order = 0
        if number >= IN_ORDER:
            order = int(rng.integers(2 * len(ORDERS))) if rng.random() < 0.75 else 0
            if rng.random() < P_WITHOUT_SPAN:
                return super().rearranged(ids, order)
        first_id, voices = int(ids[0]), ORDERS[order % len(ORDERS)]
        if order:
            ids = super().rearranged(ids, order)
            first_id = int(ids[0])
        steps = ids[is_cell(ids)].reshape(-1, NUM_VOICES)
        size = STEPS_A_QUARTER * int(rng.integers(1, STEPS // STEPS_A_QUARTER + 1))
        start = STEPS_A_QUARTER * int(rng.integers(max(1, len(steps) // STEPS_A_QUARTER)))
        stop = min(start + size, len(steps))
        behind = min(stop + STEPS_A_QUARTER * int(rng.integers(BEHIND // STEPS_A_QUARTER + 1)), len(steps))
        missing = _sampled_mask(rng, steps, start, stop, behind, voices.index(0))
        return stretch(steps, start, stop, missing, first_id)

    def features(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """See the class. The streaming state is one `_StreamState` per batch element."""
        ids = tokens.cpu().numpy()
        states = state or [_StreamState() for _ in ids]
        found = [self._element_features(element, reading) for element, reading in zip(ids, states, strict=True)]
        features = torch.from_numpy(np.stack([features for features, _ in found])).to(tokens.device)
        return features, [reading for _, reading in found]

    def all_features_of(self, sequences: Sequence[np.ndarray]) -> np.ndarray:
        return Tokenizer.all_features_of(self, sequences)

    def _element_features(self, ids: np.ndarray, reading: _StreamState) -> tuple[np.ndarray, _StreamState]:
        """Return the features of a batch element, (T, F), and its streaming state after them."""
        parts = []
        special = np.flatnonzero((ids == AHEAD) | (ids == WRITE)).tolist()
        for begin, end in zip([0, *special], [*special, len(ids)], strict=True):
            if begin == end:
                continue
            part = ids[begin:end]
            reading = _after_special(reading, int(part[0]))
            cells = part[is_cell(part) | (part == HOLE)]
            visible = torch.from_numpy(np.where(part == HOLE, SILENCE, part))[None]
            plain, grid_state = super().features(visible, reading.grid)
            at = reading.position + np.cumsum(is_cell(part) | (part == HOLE))
            rows = np.zeros((len(part), len(self.feature_sizes)), np.int64)
            rows[:, : plain.shape[2]] = plain[0].numpy()
            rows[:, plain.shape[2]] = reading.part
            if reading.part == WRITING:
                rows[:, plain.shape[2] + 1 :] = _context_features(reading.kept, at, rows[:, self.last_cell_feature])
            parts.append(rows)
            kept = np.concatenate([reading.kept, cells]) if reading.part == KEEPING else reading.kept
            reading = dataclasses.replace(reading, grid=grid_state, position=reading.position + len(cells), kept=kept)
        return np.concatenate(parts), reading


@dataclasses.dataclass(frozen=True, kw_only=True)
class _StreamState:
    """The streaming state of a batch element: part, cells read of it, given context; grid states for features."""

    part: int = PLAIN
    position: int = 0
    kept: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    grid: Any = None
    before: Any = None


def _after_special(reading: _StreamState, token: int) -> _StreamState:
    """Return the streaming state after a special token; the span continues from the grid state before the given context."""
    if token == AHEAD:
        return _StreamState(part=KEEPING, grid=reading.grid, before=reading.grid)
    if token == WRITE:
        return dataclasses.replace(reading, part=WRITING, position=0, grid=reading.before)
    return reading


def stretch(steps: np.ndarray, start: int, stop: int, missing: np.ndarray, mark: int = BOS) -> np.ndarray:
    """Return a crop of a piece with a masked span, (T,) int64, with as many steps of past context as there is room for.

    Args:
        steps: (S, 4) cells of the whole piece.
        start: the first step of the span.
        stop: the step after its last.
        missing: (N, 4) booleans, which cells are masked of the N steps of context from `start` on.
        mark: the first id of the piece; one that encodes a permutation is kept in every crop.
    """
    behind = start + len(missing)
    room = (LENGTH - 3) // NUM_VOICES - len(missing) - (stop - start)
    first = max(0, start - room // STEPS_A_QUARTER * STEPS_A_QUARTER)
    before = np.concatenate([[mark] if first == 0 or mark != BOS else [], steps[first:start].ravel()])
    written = np.concatenate([steps[start:stop].ravel(), [EOS] if stop == len(steps) else []])
    return np.concatenate([asked(before, steps[start:behind], missing), written]).astype(np.int64)


def asked(before: np.ndarray, steps: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Return the prompt of an infilling model, (T,) int64.

    Args:
        before: ids up to the masked span.
        steps: (S, 4) cells from the start of the span on.
        missing: (S, 4) booleans, the masked ones.
    """
    return np.concatenate([before, [AHEAD], np.where(missing, HOLE, steps).ravel(), [WRITE]]).astype(np.int64)


def _context_features(kept: np.ndarray, at: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the features of the given context around next cells, (N, 20): see `GridInfill`.

    Args:
        kept: the cells from the start of the span on, HOLE for the masked ones.
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


def _sampled_mask(
    rng: np.random.Generator, steps: np.ndarray, start: int, stop: int, behind: int, soprano: int
) -> np.ndarray:
    """Return which cells of steps[start:behind] are masked, (behind - start, 4) booleans.

    Three in ten spans mask all voices, three in ten give the soprano, the others give any. Half of those that give a voice
    continue the mask after the span, as where a whole voice is masked. Half of the spans begin where a note that sounds
    already has ended.
    """
    kind = rng.random()
    voices = np.ones(NUM_VOICES, bool)
    if kind >= 0.3:
        voices[soprano] = False
    if kind >= 0.6:
        voices = np.array([(int(rng.integers(1, 15)) >> v) & 1 for v in range(NUM_VOICES)], bool)
        voices[int(rng.integers(NUM_VOICES))] = True
    missing = np.zeros((behind - start, NUM_VOICES), bool)
    continues = not voices.all() and rng.random() < 0.5
    missing[: None if continues else stop - start, voices] = True
    if start and rng.random() < 0.5:
        for voice in np.flatnonzero(voices):
            moved = np.flatnonzero(steps[start:stop, voice] != steps[start - 1, voice])
            sounding = int(moved[0]) if len(moved) else stop - start - 1  # one cell is left to write
            missing[:sounding, voice] = False
    return missing


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Parts:
    """A rearranged crop: the position of AHEAD, the slice of the span, and which of it is masked."""

    ahead: int
    written: slice
    missing: np.ndarray


def _parts(ids: np.ndarray) -> _Parts | None:
    """Return the parts of a rearranged crop; None for a piece as it is."""
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
    """Return ids without the given context: the music in its order."""
    found = _parts(ids)
    if found is None:
        return ids
    return np.concatenate([ids[: found.ahead], ids[found.written]])
