"""Musical time of a score: bars, bar lines, tempo, and conversion between quarters and seconds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from symusic import Score


@dataclasses.dataclass(frozen=True)
class Bar:
    """One bar: where it begins and ends, in quarters, and its time signature."""

    start: float
    end: float
    numerator: int
    denominator: int


def bars(score: Score) -> Iterator[Bar]:
    """Yield the bars of a score for ever: behind its end they go on in the last time signature (4/4 if there is none)."""
    changes = sorted((t.time / score.ticks_per_quarter, t.numerator, t.denominator) for t in score.time_signatures)
    start, numerator, denominator = 0.0, 4, 4
    while True:
        while changes and changes[0][0] <= start + 1e-6:
            _, numerator, denominator = changes.pop(0)
        end = start + 4 * numerator / denominator
        if changes and changes[0][0] < end - 1e-6:  # a change within a bar cuts it short
            end = changes[0][0]
        yield Bar(start, end, numerator, denominator)
        start = end


def bar_line(score: Score, quarters: float, num_bars: int = 0) -> float:
    """Return the first bar line at or behind a time, or the one `num_bars` bars after it, in quarters."""
    left = num_bars
    for bar in bars(score):
        if bar.start >= quarters - 1e-6:
            if left == 0:
                return bar.start
            left -= 1
    raise AssertionError("bars go on for ever")


def end(score: Score) -> float:
    """Return where the last note ends, in quarters."""
    return max((n.end for t in score.tracks for n in t.notes), default=0) / score.ticks_per_quarter


def num_bars(score: Score) -> int:
    """Return in how many bars there are notes, counted from the first bar of the file."""
    last = end(score)
    for i, bar in enumerate(bars(score)):
        if bar.end >= last - 1e-6:
            return i + 1
    raise AssertionError("bars go on for ever")


def seconds(score: Score) -> float:
    """Return how long the music sounds, in seconds by the score's own tempi, from the beginning of the file."""
    timed = score.to("second")
    return max((n.end for t in timed.tracks for n in t.notes), default=0.0)


def quarters_at(score: Score, time: float) -> float:
    """Return the musical time, in quarters, that is reached after so many seconds."""
    tempi = sorted((t.time / score.ticks_per_quarter, t.qpm) for t in score.tempos)
    at, passed, qpm = 0.0, 0.0, 120.0
    for change, new_qpm in tempi:
        here = passed + (change - at) * 60 / qpm
        if here > time:
            break
        at, passed, qpm = change, here, new_qpm
    return at + (time - passed) * qpm / 60


def seconds_at(score: Score, quarters: float) -> float:
    """Return how many seconds pass before a musical time, given in quarters."""
    tempi = sorted((t.time / score.ticks_per_quarter, t.qpm) for t in score.tempos)
    at, passed, qpm = 0.0, 0.0, 120.0
    for change, new_qpm in tempi:
        if change >= quarters:
            break
        passed += (change - at) * 60 / qpm
        at, qpm = change, new_qpm
    return passed + (quarters - at) * 60 / qpm


def last_bar_line(score: Score, quarters: float) -> float:
    """Return the last bar line at or before a time, in quarters."""
    for bar in bars(score):
        if bar.end > quarters + 1e-6:
            return bar.start
    raise AssertionError("bars go on for ever")
