"""Plots made of characters."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int) -> str:
    """Return the last `width` values as bars of eight heights; an empty string without values."""
    shown = list(values)[-width:]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    span = (high - low) or 1.0
    return "".join(BARS[min(7, int((v - low) / span * 8))] for v in shown)


def thinned(values: Sequence[float], count: int) -> list[float]:
    """Return the means of `count` parts of the values of equal length, or the values themselves if they are fewer."""
    if len(values) <= count:
        return list(values)
    edges = [len(values) * i // count for i in range(count + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
