"""Musical time of a score: bars, bar lines, tempo, and conversion between quarters and seconds.

Each function on a score builds a `TempoMap` or a `BarMap`. A caller that asks often builds the map once.
"""

from __future__ import annotations

import dataclasses
import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Iterator

from symusic import Score

TOLERANCE = 1e-6  # quarters: times that differ by less are one bar line


class TempoMap:
    """The tempo of a score as a piecewise constant function of time; each conversion is a binary search.

    Attributes:
        starts: where each tempo begins, in quarters, rising; the first is 0.
        qpm: each tempo, in quarters per minute; the first is the default of MIDI files, 120.
        seconds: where each tempo begins, in seconds.
    """

    def __init__(self, score: Score) -> None:
        changes = sorted((t.time / score.ticks_per_quarter, t.qpm) for t in score.tempos)
        self.starts, self.qpm, self.seconds = [0.0], [120.0], [0.0]
        for start, qpm in changes:
            self.seconds.append(self.seconds[-1] + (start - self.starts[-1]) * 60 / self.qpm[-1])
            self.starts.append(start)
            self.qpm.append(qpm)

    def quarters_at(self, seconds: float) -> float:
        """Return the musical time, in quarters, that is reached after so many seconds."""
        i = max(0, bisect_right(self.seconds, seconds) - 1)
        return self.starts[i] + (seconds - self.seconds[i]) * self.qpm[i] / 60

    def seconds_at(self, quarters: float) -> float:
        """Return how many seconds pass before a musical time, given in quarters."""
        i = max(0, bisect_left(self.starts, quarters) - 1)
        return self.seconds[i] + (quarters - self.starts[i]) * 60 / self.qpm[i]

    def main_tempo(self, end: float) -> float:
        """Return the tempo that lasts longest before `end`, in quarters; of several the fastest."""
        lasts: dict[float, float] = {}
        stops = [*self.starts[1:], max(end, self.starts[-1])]
        for start, qpm, stop in zip(self.starts, self.qpm, stops, strict=True):
            lasts[qpm] = lasts.get(qpm, 0.0) + (min(stop, end) - start) * 60 / qpm
        return max(lasts, key=lambda qpm: (lasts[qpm], qpm))

    def num_changes(self) -> int:
        """Return how often the score changes its tempo to another one."""
        return sum(a != b for a, b in itertools.pairwise(self.qpm[1:]))


@dataclasses.dataclass(frozen=True)
class Bar:
    """One bar: where it begins and ends, in quarters, and its time signature."""

    start: float
    end: float
    numerator: int
    denominator: int


class BarMap:
    """The bars of a score; behind its end they continue in the last time signature (4/4 if there is none).

    Bars are computed once, as far as they are asked for; each bar line is then found by a binary search.
    """

    def __init__(self, score: Score) -> None:
        self._walk = _walk(score)
        self._bars: list[Bar] = []
        self._starts: list[float] = [0.0]  # of the bars so far, and of the next one

    def __getitem__(self, number: int) -> Bar:
        """Return a bar, counted from 0."""
        while len(self._bars) <= number:
            self._bars.append(next(self._walk))
            self._starts.append(self._bars[-1].end)
        return self._bars[number]

    def __iter__(self) -> Iterator[Bar]:
        """Yield the bars without end."""
        return (self[i] for i in itertools.count())

    def _reach(self, quarters: float) -> None:
        """Compute the bars up to the first one that begins behind a time."""
        while self._starts[-1] <= quarters:
            self[len(self._bars)]

    def bar_line(self, quarters: float, num_bars: int = 0) -> float:
        """Return the first bar line at or behind a time, or the one `num_bars` bars after it, in quarters."""
        self._reach(quarters)
        return self[bisect_left(self._starts, quarters - TOLERANCE) + num_bars].start

    def last_bar_line(self, quarters: float) -> float:
        """Return the last bar line at or before a time, in quarters."""
        self._reach(quarters + TOLERANCE)
        return self[max(0, bisect_right(self._starts, quarters + TOLERANCE) - 1)].start

    def num_bars(self, end: float) -> int:
        """Return the number of bars that begin before `end`, in quarters, but at least 1."""
        self._reach(end)
        return max(1, bisect_left(self._starts, end - TOLERANCE))


def _walk(score: Score) -> Iterator[Bar]:
    signs = [t for t in score.time_signatures if t.numerator > 0 and t.denominator > 0]  # a bar of 0/4 has no end
    changes = sorted((t.time / score.ticks_per_quarter, t.numerator, t.denominator) for t in signs)
    start, numerator, denominator, at = 0.0, 4, 4, 0
    while True:
        while at < len(changes) and changes[at][0] <= start + TOLERANCE:
            _, numerator, denominator = changes[at]
            at += 1
        end = start + 4 * numerator / denominator
        if at < len(changes) and changes[at][0] < end - TOLERANCE:  # a change within a bar cuts it short
            end = changes[at][0]
        yield Bar(start, end, numerator, denominator)
        start = end


def bars(score: Score) -> Iterator[Bar]:
    """Yield the bars of a score without end; see `BarMap`."""
    return _walk(score)


def bar_line(score: Score, quarters: float, num_bars: int = 0) -> float:
    """Return the first bar line at or behind a time, or the one `num_bars` bars after it, in quarters."""
    return BarMap(score).bar_line(quarters, num_bars)


def last_bar_line(score: Score, quarters: float) -> float:
    """Return the last bar line at or before a time, in quarters."""
    return BarMap(score).last_bar_line(quarters)


def num_bars(score: Score) -> int:
    """Return the number of bars up to the last note, counted from the first bar of the file."""
    return BarMap(score).num_bars(end(score))


def end(score: Score) -> float:
    """Return where the last note ends, in quarters."""
    return max((n.end for t in score.tracks for n in t.notes), default=0) / score.ticks_per_quarter


def seconds(score: Score) -> float:
    """Return the duration of the music, in seconds by the score's own tempi, from the beginning of the file."""
    timed = score.to("second")
    return max((n.end for t in timed.tracks for n in t.notes), default=0.0)


def quarters_at(score: Score, time: float) -> float:
    """Return the musical time, in quarters, that is reached after so many seconds."""
    return TempoMap(score).quarters_at(time)


def seconds_at(score: Score, quarters: float) -> float:
    """Return how many seconds pass before a musical time, given in quarters."""
    return TempoMap(score).seconds_at(quarters)
