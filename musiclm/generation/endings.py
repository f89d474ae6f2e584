"""An ending within the bars that were asked for.

Where tokens have a plan, its header says how many bars there are, and the model ends the last of them itself: see
`constraints.last_bar`.

On the grid of four voices it is a cadence and a tonic chord that is held. The last bars are sampled several times from the
same music. A constraint leans them to a dominant and a tonic triad, and the model chooses: the ending is kept that is most
probable with the end of the piece behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..evaluation.harmony import best_key
from ..models.base import LanguageModel, rows
from ..tokenizers import grid
from ..tokenizers.base import Tokenizer
from .config import Length
from .prompt import Prompt

BAR = 4  # quarters; the grid has no other
LONGEST = 8  # quarters that are sampled anew
CANDIDATES = 8  # endings that are compared
FINAL = (8, 12)  # sixteenths of the last chord, in turn: of 229 training chorales 156 have one of them, and 69 have 16
BASS = len(grid.VOICES) - 1
# nats, before the temperature
OUTSIDE_TONIC, MOVED = 12.0, 20.0
OUTSIDE_DOMINANT, OTHER_BASS = 3.0, 3.0


def is_possible(tokenizer: Tokenizer, prompt: Prompt | None, length: Length | None, *, is_live: bool = False) -> bool:
    """Return whether music can end by itself within a length: unconditional music of so many bars, on the grid or with a plan.

    A plan of music that is played while it is sampled has no length.
    """
    is_unconditional = prompt is None or prompt.score is None
    has_ending = has_cadence(tokenizer) or (tokenizer.has_plan and not is_live)
    return is_unconditional and has_ending and (length is None or length.bars is not None)


def has_cadence(tokenizer: Tokenizer) -> bool:
    """Return whether the last bars are sampled several times, as a cadence."""
    return isinstance(tokenizer, grid.Grid)


def num_ids(bars: int) -> tuple[int, int]:
    """Return the number of ids before the ending and of the ending of so many bars: two bars, or half of fewer than four."""
    a_quarter = grid.STEPS_A_QUARTER * len(grid.VOICES)
    ending = min(LONGEST, BAR * bars // 2) * a_quarter
    return BAR * bars * a_quarter - ending, ending


def key_of(ids: np.ndarray) -> int:
    """Return the key of the music of ids, weighted by sounding time; see `harmony.best_key`."""
    pitches = ids[(ids >= grid.FIRST_PITCH) & (ids < grid.FIRST_ARRANGED)] - grid.FIRST_PITCH
    return best_key(np.bincount(pitches % 12, minlength=12))


class Place(NamedTuple):
    """The state of one batch element: the number of cells so far, and the last four of them."""

    number: int = 0
    last: tuple[int, ...] = ()


class Cadence:
    """A constraint that leans to a dominant and, after it, to a tonic triad that is held to the end.

    In the quarter before the last chord: the tones of the dominant seventh, the fifth degree in the bass. In the last chord:
    the tonic in the bass and a triad above it, with its third; in minor either third. It adds finite biases alone.

    Args:
        vocab_size: V.
        key: 0 to 11 major, 12 to 23 minor.
        stop: the number of cells at which the piece ends.
        final: for how many sixteenths each batch element holds the last chord.
    """

    def __init__(self, vocab_size: int, key: int, stop: int, final: Sequence[int]) -> None:
        self._vocab_size, self._final = vocab_size, final
        self._stop = stop // len(grid.VOICES)
        self._degree = (np.arange(grid.NUM_PITCHES) - key) % 12
        self._thirds = (3, 4) if key >= 12 else (4,)

    def start(self, batch: int) -> list[Place]:
        return [Place()] * batch

    def step(self, state: list[Place], token: Tensor) -> list[Place]:
        return [
            Place(each.number + 1, (*each.last[-BASS:], i)) if grid.SILENCE <= i < grid.FIRST_ARRANGED else each
            for each, i in zip(state, token.tolist(), strict=True)
        ]

    def allow(self, state: list[Place]) -> Tensor:
        return torch.from_numpy(
            np.stack([self._bias(each, final) for each, final in zip(state, self._final, strict=True)])
        )

    def _bias(self, place: Place, final: int) -> np.ndarray:
        """Return what is added to the logits, (V,) float32."""
        step, voice = divmod(place.number, len(grid.VOICES))
        until = self._stop - final - step  # sixteenths before the last chord
        bias = np.zeros(self._vocab_size, np.float32)
        pitches = bias[grid.FIRST_PITCH : grid.FIRST_ARRANGED]
        if until < 0:
            bias -= MOVED
            bias[place.last[0]] = 0.0
        elif until == 0:
            bias -= OUTSIDE_TONIC
            pitches[np.isin(self._degree, self._tonic(place.last[len(place.last) - voice :], voice))] = 0.0
        elif until <= grid.STEPS_A_QUARTER:
            pitches -= OUTSIDE_DOMINANT * ~np.isin(self._degree, (7, 11, 2, 5))
            pitches -= OTHER_BASS * ((voice == BASS) & (self._degree != 7))
        return bias

    def _tonic(self, above: Sequence[int], voice: int) -> tuple[int, ...]:
        """Return the degrees that a voice may have in the last chord, under the ids of the voices above it."""
        if voice == BASS:
            return (0,)
        found = {int(self._degree[i - grid.FIRST_PITCH]) for i in above if i >= grid.FIRST_PITCH}
        thirds = tuple(found & set(self._thirds)) or self._thirds
        is_last_chance = voice == BASS - 1 and not found & set(self._thirds)
        return thirds if is_last_chance else (0, 7, *thirds)


def most_probable(model: LanguageModel, tokenizer: Tokenizer, before: np.ndarray, endings: Tensor) -> int:
    """Return the index of the ending that the model finds most probable, with the end of the piece behind it.

    Args:
        model: in evaluation mode.
        tokenizer: of the ids.
        before: the ids before the ending, (T,).
        endings: (B, T') ids.
    """
    batch = len(endings)
    shared = torch.from_numpy(before).to(endings.device).expand(batch, -1)
    has_features = bool(tokenizer.feature_sizes)
    with torch.inference_mode():
        features, feature_state = tokenizer.features(shared, None) if has_features else (None, None)
        first, state = model(shared[:1], None, None if features is None else features[:1])
        features = tokenizer.features(endings, feature_state)[0] if has_features else None
        rest, _ = model(endings, rows(state, [0] * batch), features)
        logits = torch.cat([first[:, -1:].expand(batch, -1, -1), rest], 1).float()
        ids = torch.cat([endings, torch.full_like(endings[:, :1], tokenizer.eos)], 1)
        nats = -logits.log_softmax(2).gather(2, ids[:, :, None]).squeeze(2).sum(1)
    return int(nats.argmin())
