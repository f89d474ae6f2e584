"""Voice leading on the grid: penalties for parallels, crossed voices, clashes and pitches out of range.

The rules are those of four-part writing as `evaluation.chorale` counts them. Cells come in the order soprano, alto, tenor,
bass within each sixteenth, so a voice is compared with the voices before it: the bass can always avoid a fault.

A pitch class interval of two voices is the upper less the lower pitch, modulo 12.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...errors import TokenizerError
from ...evaluation.chorale import RANGES
from ...tokenizers import grid
from ...tokenizers.base import Tokenizer

MAX_CACHED = 65_536  # penalties that are kept, by state
PERFECT = (0, 7)  # unison or octave, and fifth
SEMITONES = (1, 11)
CANDIDATES = np.arange(grid.NUM_PITCHES)
REST, UNKNOWN = 0, -1
# Weights of one fault each, times the strength. In the bundled training chorales and in unguided samples of
# bach-transformer there are of them: parallels .15 and 2.3 in 100 motions, parallels from beat to beat .54 and 1.4,
# crossings .024 and .057 a sixteenth, overlaps .029 and .046 a move, clashes on the beat between voices that both
# move .007 and .033, with one that is held .027 and .051, on other eighths .09 and .15.
PARALLEL, FROM_BEAT_TO_BEAT = 1.0, 0.3
OUT_OF_RANGE, CROSSED, OVERLAP = 1.0, 0.2, 0.08
CLASH, PREPARED_CLASH, WEAK_CLASH = 0.5, 0.2, 0.15
FORBIDDEN = 1e4  # nats: beside an allowed token the probability is exactly 0
MOST_OTHERS = 8  # more faults than one candidate can have beside parallels: crossed 2, out of range 1, clashes 3


class Cells(NamedTuple):
    """The state of one batch element; pitches soprano to bass, `REST` for a rest, `UNKNOWN` before the first step.

    Attributes:
        before: the four cells of the last sixteenth.
        now: those of this one so far.
        beat: the four cells of the last beat; where this sixteenth is one, of the beat before.
        number: sixteenths so far.
    """

    before: tuple[int, ...] = (UNKNOWN,) * 4
    now: tuple[int, ...] = ()
    beat: tuple[int, ...] = (UNKNOWN,) * 4
    number: int = 0


class VoiceLeading:
    """A constraint that subtracts a penalty from the logit of each pitch that makes a fault.

    The faults, of the voice to come against each voice whose cell of this sixteenth is known:

    - both move in the same direction from a fifth to a fifth, or from an octave or unison to one (octaves folded); the
      same, with a smaller weight, from the beat before to this beat. Contrary motion is no fault: Bach has as much of it;
    - it crosses a neighbour, or passes (overlaps) where the neighbour was before;
    - it is out of its range;
    - it is a semitone from another voice, octaves folded. On the beat this weighs most if both move there, less if one of
      them is held, as in a suspension; elsewhere little.

    Args:
        tokenizer: `grid` or `grid-infill`, its voices in their usual order.
        strength: nats for a fault of weight 1.
        strict: whether parallels, crossings, pitches out of range and clashes of moving voices on the beat are banned.
            Where every token has such a fault, those with the fewest remain, and parallels are the last to be allowed.
        given: ids of cells that are known beforehand, by their number among the piece's cells.
    """

    def __init__(
        self, tokenizer: grid.Grid, strength: float, *, strict: bool = False, given: Mapping[int, int] | None = None
    ) -> None:
        self._strength, self._ban = strength, FORBIDDEN if strict else 0.0
        self._vocab_size, self._given = tokenizer.vocab_size, dict(given or {})
        self._found: OrderedDict[tuple[object, ...], np.ndarray] = OrderedDict()

    def start(self, batch: int) -> list[Cells]:
        return [Cells()] * batch

    def step(self, state: list[Cells], token: Tensor) -> list[Cells]:
        return [_after(each, i) for each, i in zip(state, token.tolist(), strict=True)]

    def allow(self, state: list[Cells]) -> Tensor:
        return torch.from_numpy(np.stack([self.penalties(each) for each in state]))

    def penalties(self, cells: Cells) -> np.ndarray:
        """Return what is added to the logits, (V,) float32, 0 or less."""
        known = self._known(cells)
        key = (cells.before, cells.now, known, cells.beat if cells.number % 4 == 0 else None, cells.number % 4)
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = self._penalties(cells, known)
            if len(self._found) > MAX_CACHED:
                self._found.popitem(last=False)
        return found

    def _known(self, cells: Cells) -> tuple[int, ...]:
        """Return the pitches of this sixteenth, those of given voices to come among them, `UNKNOWN` for the others."""
        if not self._given:
            return (*cells.now, *(UNKNOWN,) * (4 - len(cells.now)))
        first = 4 * cells.number
        later = [self._given.get(first + voice) for voice in range(len(cells.now), 4)]
        return (*cells.now, *(UNKNOWN if i is None else _pitch(i) for i in later))

    def _penalties(self, cells: Cells, known: tuple[int, ...]) -> np.ndarray:
        voice = len(cells.now)
        soft, hard = np.zeros(grid.NUM_PITCHES), np.zeros(grid.NUM_PITCHES)
        low, high = RANGES[voice]
        outside = (low > CANDIDATES) | (high < CANDIDATES)
        soft += OUT_OF_RANGE * outside
        hard += outside
        for other, pitch in enumerate(known):
            if other == voice or pitch <= REST:
                continue
            parallel = _parallel(cells.before, voice, other, pitch)
            soft += PARALLEL * parallel
            hard += MOST_OTHERS * parallel
            clash = np.isin((CANDIDATES - pitch) % 12, SEMITONES)
            moves = (cells.before[voice] != CANDIDATES) & (cells.before[other] != pitch)
            if cells.number % 4 == 0:
                soft += FROM_BEAT_TO_BEAT * (_parallel(cells.beat, voice, other, pitch) & ~parallel)
                soft += np.where(moves, CLASH, PREPARED_CLASH) * clash
                hard += clash & moves
            else:
                soft += WEAK_CLASH * clash
        for other, above in ((voice - 1, True), (voice + 1, False)):
            if 0 <= other < 4:
                crossed, overlap = (_beyond(of[other], above=above) for of in (known, cells.before))
                soft += CROSSED * crossed + OVERLAP * (overlap & ~crossed & (cells.before[voice] != CANDIDATES))
                hard += crossed
        penalties = np.zeros(self._vocab_size, np.float32)
        penalties[grid.FIRST_PITCH : grid.FIRST_PITCH + grid.NUM_PITCHES] = -self._strength * soft - self._ban * hard
        return penalties


def _after(cells: Cells, token: int) -> Cells:
    """Return the state after a token; special tokens change nothing."""
    if not grid.SILENCE <= token < grid.FIRST_ARRANGED:
        return cells
    now = (*cells.now, _pitch(token))
    if len(now) < 4:
        return cells._replace(now=now)
    return Cells(now, (), now if cells.number % 4 == 0 else cells.beat, cells.number + 1)


def _pitch(token: int) -> int:
    return REST if token == grid.SILENCE else token - grid.FIRST_PITCH


def _parallel(before: tuple[int, ...], voice: int, other: int, pitch: int) -> np.ndarray:
    """Return which candidates of a voice make parallels with another that moves to a pitch, (128,) booleans."""
    mine, theirs = before[voice], before[other]
    if mine <= REST or theirs <= REST or theirs == pitch or (mine - theirs) % 12 not in (0, 5, 7):
        return np.zeros(grid.NUM_PITCHES, bool)
    upper_less_lower = (mine - theirs) % 12 if voice < other else (theirs - mine) % 12
    if upper_less_lower not in PERFECT:
        return np.zeros(grid.NUM_PITCHES, bool)
    same_direction = np.sign(CANDIDATES - mine) == np.sign(pitch - theirs)
    return same_direction & ((CANDIDATES - pitch) % 12 == (mine - theirs) % 12)


def _beyond(pitch: int, *, above: bool) -> np.ndarray:
    """Return which candidates are above a pitch of the next higher voice, or below one of the next lower voice."""
    if pitch <= REST:
        return np.zeros(grid.NUM_PITCHES, bool)
    return pitch < CANDIDATES if above else pitch > CANDIDATES


def voice_leading(
    tokenizer: Tokenizer, strength: float, *, strict: bool = False, given: Mapping[int, int] | None = None
) -> list[VoiceLeading]:
    """Return the constraint of a strength, none for a strength of 0 that is not strict.

    Raises:
        TokenizerError: the tokenizer has no voices.
    """
    if not strength and not strict:
        return []
    if not isinstance(tokenizer, grid.Grid):
        raise TokenizerError(
            f"the tokenizer '{tokenizer.name}' has no voices: --voice-leading and --strict are for models of 'grid', as bach"
        )
    return [VoiceLeading(tokenizer, strength, strict=strict, given=given)]
