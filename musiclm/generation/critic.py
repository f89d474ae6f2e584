"""A critic: the log odds that music is real and not sampled, by a logistic regression on measures of windows of bars.

It chooses among variations (see `rerank`): a discriminator as in rejection sampling from its odds (Azadi et al. 2019), here
linear and of measures that a person can read. The measures are those of the yardstick; what is missing counts as the mean of
real and sampled windows. `recipes/critic.py` fits it for one model, on that model's samples. It lies in the model's
checkpoint: `Checkpoint.critic`.

It is fitted on windows of a fixed number of bars, since measures depend on the length. Longer music is the mean of its windows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from symusic import Score

from .. import midi
from ..checkpoint import Checkpoint
from ..errors import CheckpointError
from ..evaluation import yardstick

FARTHEST = 4.0  # standard deviations: a measure farther from the mean counts as this far
MOST_BARS = 64  # of a window
SILENT = -100.0  # log odds of music without a new note


def names(kind: str) -> list[str]:
    """Return the measures of a kind of music that a window has: not those of a piece's end."""
    return [name for name in yardstick.names(kind) if yardstick.MEASURES[name].of != "whole voices"]


def windows(score: Score, kind: str, bars: int, start: float = 0.0) -> list[Score]:
    """Return overlapping windows of new music: every half window one, the last one up to the bar of the last onset.

    Args:
        score: a piece. For "piano" a bar is two seconds, see `yardstick.in_real_time`.
        kind: of `yardstick.KINDS`.
        bars: of a window, an even number; music that is shorter is one shorter window.
        start: where new music begins, in quarters. With music before it, the first window begins half a window earlier.

    Returns:
        The windows; none if no note begins at or behind `start`.
    """
    onset = max((n.time for t in score.tracks for n in t.notes), default=-1) / score.ticks_per_quarter
    first = min((n.time for t in score.tracks for n in t.notes), default=0) / score.ticks_per_quarter
    if onset < start - 1e-6:
        return []
    if kind == "piano":
        tempi = midi.TempoMap(score)
        onset, first, start = (2 * tempi.seconds_at(quarters) for quarters in (onset, first, start))
        score = yardstick.in_real_time(score)
    bar_map = midi.BarMap(score)
    number = bar_map.num_bars(max(start, first) + 1e-3) - 1  # of the bar in which the new music begins
    begin = max(number - bars // 2, bar_map.num_bars(first + 1e-3) - 1) if start > first else number
    end = bar_map.num_bars(onset + 1e-3)
    begins = list(range(begin, end - bars + 1, bars // 2)) or [begin]
    if begins[-1] + bars < end:
        begins.append(end - bars)
    return [midi.cut(score, bar_map[i].start, bar_map[min(i + bars, end) - 1].end) for i in begins]


def table(parts: Sequence[Score], kind: str) -> np.ndarray:
    """Return the measures of windows, (windows, `names(kind)`) float64, NaN where there is nothing to count."""
    rows = [yardstick.values(part, kind, bars=None) for part in parts]
    return yardstick.matrix(rows, names(kind))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Critic:
    """A logistic regression on the measures of a window. F measures.

    Attributes:
        kind: of music, of `yardstick.KINDS`.
        bars: of a window.
        names: of the measures.
        mean, scale: (F,) of the windows that it was fitted on.
        weights: (2 F,), of the standardised measures and of their squares; see `terms`.
        bias: of the log odds.
    """

    kind: str
    bars: int
    names: tuple[str, ...]
    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    bias: float

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Critic | None:
        """Return the critic of a checkpoint; None if it has none.

        Raises:
            CheckpointError: it is damaged, or has measures that this version does not have.
        """
        tensors = checkpoint.critic()
        if tensors is None:
            return None
        damaged = CheckpointError(f"the critic of the checkpoint '{checkpoint.name}' is damaged, or of another version")
        try:
            described: dict[str, Any] = checkpoint.card["critic"]
            kind, bars, measures = str(described["kind"]), int(described["bars"]), tuple(described["measures"])
            mean, scale, weights, bias = (
                tensors[name].astype(np.float64) for name in ("mean", "scale", "weights", "bias")
            )
            known = names(kind)
        except (KeyError, TypeError, ValueError) as error:
            raise damaged from error
        shapes = (mean.shape, scale.shape, weights.shape, bias.shape)
        num = len(measures)
        if (
            shapes != ((num,), (num,), (2 * num,), (1,))
            or not set(measures) <= set(known)
            or not 2 <= bars <= MOST_BARS
        ):
            raise damaged
        return cls(kind=kind, bars=bars, names=measures, mean=mean, scale=scale, weights=weights, bias=float(bias[0]))

    def tensors(self) -> dict[str, np.ndarray]:
        """Return what a checkpoint stores of it, float64, beside `described`."""
        return {"mean": self.mean, "scale": self.scale, "weights": self.weights, "bias": np.array([self.bias])}

    def described(self) -> dict[str, Any]:
        """Return what a checkpoint's card has of it."""
        return {"kind": self.kind, "bars": self.bars, "measures": list(self.names)}

    def log_odds(self, score: Score, start: float = 0.0) -> float:
        """Return ln(p / (1 - p)), p the probability of being real, as the mean over windows; see `windows`.

        Args:
            score: with the music before `start`, if there is some.
            start: where new music begins, in quarters.
        """
        parts = windows(score, self.kind, self.bars, start)
        if not parts:
            return SILENT
        rows = [yardstick.values(part, self.kind, bars=None) for part in parts]
        return float(self.of_table(yardstick.matrix(rows, self.names)).mean())

    def of_table(self, values: np.ndarray) -> np.ndarray:
        """Return the log odds of windows, (windows,), given their measures, (windows, F)."""
        found: np.ndarray = terms(values, self.mean, self.scale) @ self.weights + self.bias
        return found


def terms(values: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return measures in standard deviations from the mean, and their squares as (z² - 1) / sqrt 2, (windows, 2 F).

    The squares tell a measure that spreads more or less in samples than in real music, as in quadratic discriminant analysis;
    without them the music that is chosen goes beyond real music where it can. What is missing is 0.
    """
    z = np.clip((values - mean) / scale, -FARTHEST, FARTHEST)
    return np.nan_to_num(np.concatenate([z, (z**2 - 1) / 2**0.5], axis=1), nan=0.0)


def kind_of(checkpoint: Checkpoint) -> str:
    """Return the kind of music that a checkpoint writes, of `yardstick.KINDS`."""
    return yardstick.KIND_OF.get(str(checkpoint.tokenizer_description["name"]), "score")
