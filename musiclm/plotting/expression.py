"""The tempo and the velocity of performances of one score, over each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ..performing.notes import ScoreNotes, onset_numbers, onset_times
from ..performing.parameters import Parameters, tempo_curve
from . import COLOURS, figure, to_bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curve:
    """How a performance goes along a score.

    Attributes:
        name: of the performance.
        quarters: of the onsets, (M,) float64.
        qpm: the tempo from each onset on, quarters per minute, (M,) float64.
        velocity: the mean of each onset's notes, 0 to 127, (M,) float64; NaN where none was played.
    """

    name: str
    quarters: np.ndarray
    qpm: np.ndarray
    velocity: np.ndarray


def curve(name: str, notes: ScoreNotes, parameters: Parameters) -> Curve:
    """Return the curves of a performance of N notes."""
    number, known = onset_numbers(notes), parameters.mask
    count = np.bincount(number[known], minlength=number[-1] + 1)
    loud = np.bincount(number[known], parameters.velocity[known], len(count)) * 127
    return Curve(
        name=name,
        quarters=onset_times(notes),
        qpm=60 / parameters.seconds_per_quarter * 2.0 ** -tempo_curve(notes, parameters),
        velocity=np.where(count > 0, loud / np.maximum(count, 1), np.nan),
    )


def picture(curves: Sequence[Curve], kind: str, *, title: str = "") -> bytes:
    """Return the curves of several performances over each other as the bytes of a ".png" or ".svg" file."""
    plot = figure(11, 5.5)
    tempo, velocity = plot.subplots(2, 1, sharex=True)
    for i, each in enumerate(curves):
        style = {"color": COLOURS[i % len(COLOURS)], "linewidth": 1.3}
        tempo.step(each.quarters, each.qpm, where="post", label=each.name, **style)
        velocity.plot(each.quarters, each.velocity, **style)
    tempo.set(title=title, ylabel="tempo, quarters per minute", yscale="log")
    ticks = _ticks(curves)
    tempo.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    tempo.minorticks_off()
    velocity.set(xlabel="quarters of the score", ylabel="velocity of an onset", ylim=(0, 127))
    tempo.legend(fontsize="small", loc="upper left")
    for axes in (tempo, velocity):
        axes.grid(alpha=0.3)
    return to_bytes(plot, kind)


def _ticks(curves: Sequence[Curve]) -> list[int]:
    """Return round tempi within the range of the curves."""
    low, high = min(float(c.qpm.min()) for c in curves), max(float(c.qpm.max()) for c in curves)
    round_ones = [10, 15, 20, 30, 40, 60, 80, 120, 160, 240, 320, 480, 640, 960]
    found = [tick for tick in round_ones if low * 0.9 <= tick <= high * 1.1]
    return found if len(found) > 1 else sorted({round(tick) for tick in np.geomspace(low, high, 4).tolist()})
