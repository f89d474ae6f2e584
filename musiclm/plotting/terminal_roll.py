"""Piano rolls made of characters: two pitches per line as half blocks, systems as wide as the terminal.

Colours are #rrggbb; the caller converts them into the codes of a terminal, or leaves them out in a pipe.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from symusic import Score

from .. import midi
from . import pitch_name
from .piano_roll import Drawn, drum_name

MARGIN = 6  # characters left of the notes
FINEST = 4  # columns per quarter, where they fit
UPPER, LOWER, BOTH = "▀", "▄", "█"


@dataclasses.dataclass(frozen=True)
class Run:
    """Characters of one colour on a background of another; None for the default of the terminal."""

    text: str
    colour: str | None = None
    ground: str | None = None


Line = list[Run]


@dataclasses.dataclass(frozen=True, kw_only=True)
class System:
    """Some bars of a piano roll.

    Attributes:
        lines: no wider than was asked for.
        last_bar: the number of its last bar.
    """

    lines: list[Line]
    last_bar: int


def terminal_roll(
    score: Score, notes: Sequence[Drawn], width: int = 80, prompt: float | None = None, first_bar: int = 1
) -> Iterator[System]:
    """Yield the systems of a score, whose lines are no wider than `width` characters.

    The columns per quarter are as many as let four bars fit into a system, at most four. A system shows only the range of
    its own pitches.

    Args:
        score: for bars and time signatures.
        notes: the notes to plot.
        width: in characters, at least 20.
        prompt: the end of the prompt, in quarters.
        first_bar: the number of the first bar.
    """
    last = max(n.end for n in notes)
    lines = list(itertools.takewhile(lambda b: b.start < last - 1e-6, midi.bars(score)))
    longest = max(b.end - b.start for b in lines)
    room = max(20, width) - MARGIN - 1
    columns = next((c for c in (FINEST, 3, 2, 1) if 4 * longest * c <= room), max(0.25, room / 4 / longest))
    index = _Index(notes)
    first = 0
    while first < len(lines):
        behind = first + 1
        while behind < len(lines) and (lines[behind].end - lines[first].start) * columns <= room:
            behind += 1
        begin, end = lines[first].start, lines[behind - 1].end
        fitting = min(columns, room / (end - begin))
        made = _system(index.between(begin, end), lines[first:behind], first + first_bar, fitting, prompt)
        yield System(lines=made, last_bar=behind + first_bar - 1)
        first = behind


class _Index:
    """Notes by time, so that a system need not look at those of all others."""

    def __init__(self, notes: Sequence[Drawn]) -> None:
        starts, ends = np.array([n.start for n in notes]), np.array([n.end for n in notes])
        self._notes, self._order = notes, np.argsort(starts, kind="stable")
        self._starts, self._ends = starts[self._order], ends[self._order]
        self._last_ends = np.maximum.accumulate(self._ends)  # notes up to one have all ended at its last end

    def between(self, begin: float, end: float) -> list[Drawn]:
        """Return the notes that sound between two times, in quarters, in the order in which they were given."""
        first = int(np.searchsorted(self._last_ends, begin + 1e-6, "right"))
        behind = int(np.searchsorted(self._starts, end - 1e-6, "left"))
        sounds = self._ends[first:behind] > begin + 1e-6
        return [self._notes[i] for i in np.sort(self._order[first:behind][sounds]).tolist()]


def _system(
    notes: Sequence[Drawn], bars: Sequence[midi.Bar], number: int, columns: float, prompt: float | None
) -> list[Line]:
    begin, end = bars[0].start, bars[-1].end
    num_columns = math.ceil((end - begin) * columns - 1e-6)
    ruled = {round((b.start - begin) * columns) for b in bars}
    head = [" "] * (num_columns + 8)
    behind = 0
    for i, bar in enumerate(bars):
        at = round((bar.start - begin) * columns)
        signature = f"{bar.numerator}/{bar.denominator}"
        is_new = i > 0 and signature != f"{bars[i - 1].numerator}/{bars[i - 1].denominator}"
        text = f"{number + i}" + (f" {signature}" if is_new or bar.start == 0 else "")
        if at >= behind:
            head[at : at + len(text)] = text
            behind = at + len(text) + 1
    if prompt is not None and begin <= prompt < end:
        at = round((prompt - begin) * columns)
        head[max(at, 0) : at + 5] = "▼ new"
    made: list[Line] = [[Run(" " * MARGIN + "".join(head).rstrip()[:num_columns])]]
    pitched = [n for n in notes if not n.is_drum]
    if pitched:
        low, high = min(n.pitch for n in pitched), max(n.pitch for n in pitched)
        by_pitch = defaultdict(list)
        for n in pitched:
            by_pitch[n.pitch].append(n)
        for upper in range(high + high % 2, low - 1, -2):  # two keys per line
            cells = {}
            for half, pitch in enumerate((upper, upper - 1)):
                for column, of in _columns(by_pitch.get(pitch, []), begin, columns, num_columns).items():
                    cells[column, half] = of
            name = pitch_name(upper) if upper % 12 == 0 else ""
            made.append([Run(f"{name:>{MARGIN - 1}} "), *_runs(cells, ruled, num_columns, upper)])
    for pitch in sorted({n.pitch for n in notes if n.is_drum}, reverse=True):
        hits = {}
        for n in notes:
            if n.is_drum and n.pitch == pitch and n.start >= begin - 1e-6:
                hits[min(num_columns - 1, int((n.start - begin) * columns + 1e-6))] = n.colour
        name = drum_name(pitch)[: MARGIN - 1]
        line = [Run(f"{name:>{MARGIN - 1}} ")]
        line += [Run("●", hits[c]) if c in hits else Run("┊" if c in ruled else " ") for c in range(num_columns)]
        made.append(line)
    return made


def _columns(notes: Sequence[Drawn], begin: float, columns: float, num_columns: int) -> dict[int, str]:
    """Return the colour of each column in which one pitch sounds; before a repeated note there is a gap."""
    found: dict[int, str] = {}
    strikes = {int((n.start - begin) * columns + 1e-6) for n in notes}
    for n in sorted(notes, key=lambda n: n.start):
        first = max(0, int((n.start - begin) * columns + 1e-6))
        behind = max(first + 1, round((n.end - begin) * columns))
        if behind in strikes and behind - first > 1:
            behind -= 1
        for column in range(first, min(behind, num_columns)):
            found[column] = n.colour
    return found


def _runs(cells: dict[tuple[int, int], str], ruled: set[int], num_columns: int, upper: int) -> Iterator[Run]:
    """Yield the characters of a line, which shows two keys."""
    rule = "╌" if upper % 12 == 0 else " "
    empty = "".join("┊" if column in ruled else rule for column in range(num_columns))
    behind = 0
    for column in sorted({column for column, _ in cells}):
        if column > behind:
            yield Run(empty[behind:column])
        behind = column + 1
        above, below = cells.get((column, 0)), cells.get((column, 1))
        if above and below:
            yield Run(BOTH, above) if above == below else Run(UPPER, above, below)
        else:
            yield Run(UPPER, above) if above else Run(LOWER, below)
    yield Run(empty[behind:])
