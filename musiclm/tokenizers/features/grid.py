"""Input features of `grid`: position of the next cell, sustained steps of each voice, intervals, key.

Small integers, 0 where a feature is undefined. B sequences, T tokens, N tokens of several sequences laid end to end.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from ...midi.theory import key_profiles
from .flat import Flat

NUM_VOICES = 4
SILENCE, FIRST_PITCH, NUM_PITCHES = 2, 3, 128
STEPS_A_QUARTER = 4
MAX_HELD = 16  # steps; longer ones get the same feature
MAX_INTERVAL = 24  # semitones between two voices; wider ones get the same feature
MAX_LEAP = 12  # semitones of a voice's last move; wider ones get the same feature
ORDERS = tuple(itertools.permutations(range(NUM_VOICES)))  # of the voices in a step; the first is theirs
FIRST_ARRANGED = FIRST_PITCH + NUM_PITCHES  # ids of the special tokens that begin a rearranged piece
OF_VERSION = {1: [0, 1, 2, 3, 4, 5, 14], 2: [*range(13), 14], 3: [*range(15)], 4: [*range(16)]}  # of all features
# whole numbers: their sums are exact, in whatever order, and in floating point, too
KEYS = np.round(10_000 * key_profiles().T)
NUM_DEGREES = KEYS.shape[1]
ORDER_TABLE = np.array(ORDERS)
LAGS = (NUM_VOICES, 1, 2, 3)  # cells back: the voice of the next cell first, then the three cells before it

GridState = tuple[np.ndarray, ...]
"""The number of cells so far and of the permutation, (B,) each; of each voice in that order, (B, 4) each, the last id, for how
long it has been sustained, and the id before it; and how many cells each pitch class has had, (B, 12)."""


def is_cell(ids: np.ndarray) -> np.ndarray:
    """Return which ids are a voice's pitch or its silence, as booleans; the others are special tokens."""
    return (ids >= SILENCE) & (ids < FIRST_ARRANGED)


def stream(ids: np.ndarray, state: GridState | None) -> tuple[np.ndarray, GridState]:
    """Return all features of ids, (B, T) -> (B, T, 16), and the state after the last: a streaming function.

    Args:
        ids: (B, T) int64.
        state: what an earlier call returned, or None at the beginning of a piece.
    """
    if state is None:
        none = np.zeros((len(ids), NUM_VOICES), np.int64)
        classes = np.zeros((len(ids), 12), np.int64)
        state = np.zeros(len(ids), np.int64), permutation_of(ids[:, :1]), none, none, none, classes
    cells = is_cell(ids)
    if (cells == cells[:1]).all() and (state[0] == state[0][:1]).all():
        return _in_step(ids, cells[0], state)
    # special tokens at different positions: each sequence is processed separately
    alone = [_in_step(ids[i : i + 1], cells[i], tuple(s[i : i + 1] for s in state)) for i in range(len(ids))]
    states = [np.concatenate(parts) for parts in zip(*[s for _, s in alone], strict=True)]
    return np.concatenate([f for f, _ in alone]), tuple(states)


def permutation_of(first: np.ndarray) -> np.ndarray:
    """Return the number of the permutation of pieces, given their first ids, (B, 0 or 1) -> (B,)."""
    if not first.shape[1]:
        return np.zeros(len(first), np.int64)
    return np.maximum(first[:, 0] - FIRST_ARRANGED + 1, 0)


def _in_step(ids: np.ndarray, cell_mask: np.ndarray, state: GridState) -> tuple[np.ndarray, GridState]:
    """Return `Grid.features` of batch elements with special tokens at the same positions, (B, T), without a loop over T."""
    num_voices = NUM_VOICES
    position, written, last, sustained, before, classes = int(state[0][0]), *state[1:]
    order = (position + np.arange(num_voices)) % num_voices  # the voices, the next one first
    cells = ids[:, cell_mask]
    num_cells = cells.shape[1]
    num_steps = -(-num_cells // num_voices)
    padded = np.pad(cells, ((0, 0), (0, num_steps * num_voices - num_cells)), constant_values=-1)
    seen = np.concatenate([last[:, None, order], padded.reshape(len(ids), num_steps, num_voices)], 1)
    changed = seen[:, 1:] != seen[:, :-1]
    step = np.arange(1, num_steps + 1)[None, :, None]
    change = np.maximum.accumulate(np.where(changed, step, 0), 1)
    holds = np.where(change > 0, step - change + 1, sustained[:, None, order] + step)
    holds = np.minimum(np.concatenate([sustained[:, None, order], holds], 1), MAX_HELD).reshape(len(ids), -1)
    earlier = np.take_along_axis(seen, np.maximum(change - 1, 0), 1)
    earlier = np.where(change > 0, earlier, before[:, None, order])
    earlier = np.concatenate([before[:, None, order], earlier], 1).reshape(len(ids), -1)
    seen = seen.reshape(len(ids), -1)  # the id of cell `position - 4 + i` stands at i
    place = np.cumsum(cell_mask)  # cells up to and with each token
    voice = ORDER_TABLE[written % len(ORDERS)][:, (position + place) % num_voices]
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
    scores = classes.astype(np.float64) @ KEYS  # whole numbers below 2 ** 53: exact, and many times as fast as integers
    mode, tonic = np.divmod(scores.argmax(-1), 12)
    return np.where(ids >= FIRST_PITCH, 1 + 12 * mode + (ids - FIRST_PITCH - tonic) % 12, 0)


def interval(lower: np.ndarray, upper: np.ndarray, widest: int) -> np.ndarray:
    """Return semitones from one id to another, -widest … widest as 1 … 2 widest + 1; 0 where one of them is no pitch."""
    semitones = np.clip(upper - lower, -widest, widest)
    return np.where((lower >= FIRST_PITCH) & (upper >= FIRST_PITCH), semitones + widest + 1, 0)


# what a cell adds to the scores of the 24 keys: nothing if it is silent or no cell but a special token
KEYS_OF_ID = np.zeros((FIRST_ARRANGED + 2 * len(ORDERS), NUM_DEGREES))
KEYS_OF_ID[FIRST_PITCH:FIRST_ARRANGED] = KEYS[np.arange(NUM_PITCHES) % 12]
# of two ids of cells, or -1 for a cell to come
CELLS = np.array([*range(FIRST_ARRANGED), -1])
LEAPS, INTERVALS = (interval(CELLS[:, None], CELLS, widest) for widest in (MAX_LEAP, MAX_INTERVAL))


def features_of(sequences: Sequence[np.ndarray]) -> np.ndarray:
    """Return all features of sequences, each from its beginning, one behind the other: (N, 16) int64, those of `stream`."""
    flat = Flat(sequences)
    cell_mask = is_cell(flat.ids)
    place = flat.running_sum(cell_mask)  # cells up to and including each token
    last, sustained, before, begin = _by_step(flat, cell_mask, place)
    written = np.maximum(flat.ids - FIRST_ARRANGED + 1, 0)[flat.first]
    at = [begin + place + NUM_VOICES - lag for lag in LAGS]
    seen = [last[i] for i in at]
    columns = (
        ORDER_TABLE[written % len(ORDERS), place % NUM_VOICES],
        place // NUM_VOICES % STEPS_A_QUARTER,
        *[sustained[i] for i in at],
        *[LEAPS[before[i], cell] for i, cell in zip(at, seen, strict=True)],
        *[INTERVALS[seen[0], cell] for cell in seen[1:]],
        written,
        seen[0],
        _degrees_of(flat, seen[0]),
    )
    return np.stack(columns).T


def _by_step(
    flat: Flat, cell_mask: np.ndarray, place: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return cells laid out in steps of four voices, in front of each sequence a step of zeros for its beginning.

    Args:
        flat: the sequences.
        cell_mask: (N,) booleans, which tokens are cells.
        place: (N,) cells of the sequence up to and including each token.

    Returns:
        For each cell: its id, the number of steps it has been sustained, and the previous id of its voice. Then (N,), the
        index of the first step of each token's sequence among the cells.
    """
    num_cells = np.bincount(flat.sequence[cell_mask], minlength=int(flat.sequence[-1]) + 1 if len(flat.sequence) else 0)
    num_steps = 1 + -(-num_cells // NUM_VOICES)
    first_step = np.cumsum(num_steps) - num_steps
    begin = NUM_VOICES * first_step[flat.sequence]
    cells = np.full((int(num_steps.sum()), NUM_VOICES), -1)
    cells.reshape(-1)[begin[cell_mask] + NUM_VOICES - 1 + place[cell_mask]] = flat.ids[cell_mask]
    cells[first_step] = 0
    step = np.arange(len(cells))[:, None]
    changed = np.concatenate([np.ones((min(1, len(cells)), NUM_VOICES), bool), cells[1:] != cells[:-1]])
    changed[first_step] = True
    change = np.maximum.accumulate(np.where(changed, step, 0), 0)
    sustained = np.minimum(step - change + 1, MAX_HELD)
    sustained[first_step] = 0
    before = np.take_along_axis(cells, np.maximum(change - 1, 0), 0)
    before[first_step] = 0
    return cells.ravel(), sustained.ravel(), before.ravel(), begin


def _degrees_of(flat: Flat, ids: np.ndarray) -> np.ndarray:
    """Return which degree of the key ids are, (N,), see `_degree`: of the key of all cells up to each token."""
    sums = KEYS_OF_ID[flat.ids]
    for one in flat.slices:
        np.cumsum(sums[one], 0, out=sums[one])
    mode, tonic = np.divmod(sums.argmax(1), 12)
    return np.where(ids >= FIRST_PITCH, 1 + 12 * mode + (ids - FIRST_PITCH - tonic) % 12, 0)
