"""Helpers of the commands that plot a MIDI file: reading it and its bars, loading a model, the roll in the terminal."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from . import _console

if TYPE_CHECKING:
    from rich.console import Console
    from symusic import Score

    from ..checkpoint import Checkpoint
    from ..models.base import LanguageModel
    from ..plotting.piano_roll import Drawn
    from ..plotting.terminal_roll import Line, System

SHOWN_LINES = 60  # of a long roll
MOST_LINES = 80  # a roll up to this length is not cut


def read(file: str, bars: tuple[int, int] | None) -> tuple[Score, int]:
    """Return the chosen bars of a MIDI file (- for standard input), and the number of the first, counted from 1.

    Raises:
        MidiError: the file cannot be read, or no note is in these bars.
    """
    data = _console.read_bytes(file)
    from .. import midi

    score = midi.parse(data, file)
    if bars is None:
        return score, 1
    return cut(score, bars, file)[0], bars[0]


def load_model(name: str | None, device: str = "cpu") -> tuple[Checkpoint, LanguageModel]:
    """Return the checkpoint of that name, or the default one, and its model on a device.

    Raises:
        CheckpointError: no such checkpoint, or it is damaged.
    """
    from .. import checkpoint
    from ..devices import resolve_device

    loaded = checkpoint.load(name or checkpoint.default())
    return loaded, loaded.model(resolve_device(device))


def say_left_out(count: int, *, quiet: bool) -> None:
    """Report how many notes of the file the model's tokenizer left out, if any."""
    if count:
        _console.say(
            f"left out: {_console.counted(count, 'note')} that the model's tokenizer cannot express", quiet=quiet
        )


def parsed_bars(given: str | None) -> tuple[int, int] | None:
    """Return the first and the last bar of A-B, or of A alone, counted from 1; None if nothing was given."""
    if given is None:
        return None
    first, dash, last = given.partition("-")
    if not (first.isdigit() and int(first) > 0 and (not dash or (last.isdigit() and int(last) >= int(first)))):
        raise click.BadParameter(f"'{given}' is not A-B with A from 1 and B from A", param_hint="--bars")
    return int(first), int(last or first)


def cut(score: Score, bars: tuple[int, int], name: str) -> tuple[Score, float]:
    """Return those bars of a score, and their start in quarters.

    Raises:
        MidiError: the score has no such bar, or no note is in these bars.
    """
    from .. import midi
    from ..errors import MidiError

    count = midi.num_bars(score)
    if bars[0] > count:
        raise MidiError(f"'{name}' has {_console.counted(count, 'bar')}: there is no bar {bars[0]}")
    start = midi.bar_line(score, 0.0, bars[0] - 1)
    piece = midi.cut(score, start, midi.bar_line(score, 0.0, min(bars[1], count)))
    if not piece.note_num():
        raise MidiError(f"'{name}' has no note in bars {bars[0]} to {bars[1]}")
    return piece, start


def print_roll(
    score: Score,
    notes: Sequence[Drawn],
    prompt: float | None = None,
    first_bar: int = 1,
    *,
    is_whole: bool = True,
) -> tuple[Console, int]:
    """Print a piano roll as wide as the terminal, in its colours.

    Args:
        score, notes, prompt, first_bar: see `terminal_roll`.
        is_whole: whether all bars are printed; else a roll of more than MOST_LINES ends after about SHOWN_LINES.

    Returns:
        The console that was used, and the number of the last bar that was printed.
    """
    from rich.console import Console

    from ..plotting import terminal_roll

    console = Console(highlight=False)
    systems = terminal_roll.terminal_roll(score, notes, console.width, prompt, first_bar)
    last_bar = first_bar
    for system in systems if is_whole else _first(systems):
        last_bar = system.last_bar
        for line in system.lines:
            _print_line(console, line)
        console.print()
    return console, last_bar


def _first(systems: Iterator[System]) -> list[System]:
    """Return all systems if they have at most MOST_LINES lines, else the first ones, with about SHOWN_LINES."""
    found: list[System] = []
    num_lines = num_shown = 0
    for system in systems:
        found.append(system)
        num_lines += len(system.lines) + 1
        if num_lines <= SHOWN_LINES:
            num_shown = len(found)
        if num_lines > MOST_LINES:
            return found[: max(1, num_shown)]
    return found


def _print_line(console: Console, line: Line) -> None:
    """Print a line of a roll, the characters of one colour together; without colours where the console has none."""
    if console.color_system is None:
        console.file.write("".join(run.text for run in line).rstrip() + "\n")
        return
    from rich.style import Style
    from rich.text import Text

    text = Text(no_wrap=True)
    for (colour, ground), runs in itertools.groupby(line, lambda run: (run.colour, run.ground)):
        text.append("".join(run.text for run in runs), Style(color=colour, bgcolor=ground))
    text.rstrip()
    console.print(text, soft_wrap=True)
