"""Tempi, time signatures and keys that nearly coincide.

Some software writes the default at the start and the true value some ticks later, or everything at tick 1. Taken by the
letter, that is a bar of some ticks, or a piece that begins at the wrong tempo.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from typing import Any

from symusic import Score

NEAR = 1 / 16  # quarters: what is less late than this belongs to the start or the bar line before it
RAMP = 1.0  # quarters: tempi that follow each other faster are a ramp, and stay where they are


def on_bar_lines(score: Score) -> Counter[str]:
    """Move what is late by less than `NEAR` to the bar line, and keep the last of several at one tick; in place.

    Tempi of a ramp are not moved. The repairs are counted; equal events at one tick are no repair.
    """
    lines = _Lines(score)
    done: Counter[str] = Counter()
    for name, values in (
        ("time_signatures", ("numerator", "denominator")),
        ("tempos", ("mspq",)),
        ("key_signatures", ("key", "tonality")),
    ):
        events = sorted(getattr(score, name), key=lambda e: e.time)
        targets = [lines.before(e.time) if name != "time_signatures" else e.time for e in events]
        if name == "time_signatures":
            done["events moved to the bar line just before them"] += lines.num_moved
            events, targets = lines.signs, [e.time for e in lines.signs]
        elif name == "tempos":
            targets = _without_ramps([e.time for e in events], targets, score.ticks_per_quarter * RAMP)
        last: dict[int, Any] = {}
        for event, target in zip(events, targets, strict=True):
            done["events moved to the bar line just before them"] += event.time != target
            event.time = target
            old = last.get(target)
            done["events overruled at one tick"] += old is not None and any(
                getattr(old, value) != getattr(event, value) for value in values
            )
            last[target] = event
        setattr(score, name, type(getattr(score, name))([last[at] for at in sorted(last)]))
    return +done


class _Lines:
    """The bar lines of a score, with its late time signatures moved.

    Attributes:
        signs: the time signatures, as they are to be.
        num_moved: how many of them were moved.
    """

    def __init__(self, score: Score) -> None:
        self.near = score.ticks_per_quarter * NEAR
        self.signs = sorted((t.copy() for t in score.time_signatures), key=lambda t: t.time)
        self.num_moved = 0
        self._starts, self._bars = [0], [4.0 * score.ticks_per_quarter]
        for sign in self.signs:
            at = self.before(sign.time)
            self.num_moved += at != sign.time
            sign.time = at
            self._starts.append(at)
            self._bars.append(4.0 * score.ticks_per_quarter * sign.numerator / sign.denominator)

    def before(self, tick: int) -> int:
        """Return the bar line that a tick is less than `NEAR` behind, or the tick itself."""
        i = bisect_right(self._starts, tick) - 1
        line = self._starts[i] + round((tick - self._starts[i]) // self._bars[i] * self._bars[i])
        return line if 0 < tick - line < self.near else tick


def _without_ramps(ticks: list[int], targets: list[int], ramp: float) -> list[int]:
    """Return where tempi are moved to: not if another tempo precedes the bar line, or follows, by less than `ramp`."""
    found = list(ticks)
    first = 0
    while first < len(ticks):
        behind = first + 1
        while behind < len(ticks) and targets[behind] == targets[first]:
            behind += 1
        is_ramp = first > 0 and targets[first] - ticks[first - 1] < ramp
        is_ramp |= behind < len(ticks) and ticks[behind] - ticks[behind - 1] < ramp
        if not is_ramp:
            found[first:behind] = targets[first:behind]
        first = behind
    return found
