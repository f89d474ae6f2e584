"""musiclm show."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..files import write_whole
from . import _console, _options

if TYPE_CHECKING:
    from rich.console import Console
    from symusic import Score

    from ..plotting.piano_roll import Drawn


@click.command("show", epilog="Examples: musiclm show song.mid; musiclm show out.mid --prompt seed.mid -o out.png")
@click.argument("file", metavar="FILE")
@click.option("-o", "--output", metavar="PATH", help="A .png or .svg; left out, the terminal.")
@click.option("--prompt-bars", type=click.IntRange(1), metavar="N", help="The first N bars are the prompt: pale.")
@click.option("--prompt", metavar="FILE", help="The music began as this file did.")
@click.option("--bars", metavar="A-B", help="Only these bars.")
@_options.force
@_options.quiet
def command(
    file: str,
    output: str | None,
    prompt_bars: int | None,
    prompt: str | None,
    bars: str | None,
    force: bool,
    quiet: bool,
) -> None:
    """Draw the piano roll of the MIDI file FILE (- for standard input).

    Where musiclm wrote the file, it knows what the prompt was and shows it pale. Of a file that was written within (--infill,
    --keep-tracks, --accompany) --prompt says what it was before: all of that is pale.
    """
    from .. import plotting

    if prompt is not None and prompt_bars is not None:
        raise click.UsageError("at most one of --prompt and --prompt-bars")
    chosen = parsed_bars(bars)
    path = None if output is None else Path(output)
    if path is not None:
        plotting.check_output(path, force=force)
    data = _console.read_bytes(file)
    from .. import midi

    score = midi.parse(data, file)
    end = plotting.prompt_end(score)
    kept = None
    if prompt is not None:
        kept = midi.read(prompt)
        if plotting.was_written_within(score):
            end = None
        else:
            end, kept = midi.end(kept), None
    elif prompt_bars is not None:
        end = midi.bar_line(score, 0.0, prompt_bars)
    if chosen is not None:
        score, start = cut(score, chosen, file)
        end = None if end is None else max(0.0, end - start)
        kept = None if kept is None else cut(kept, chosen, str(prompt))[0]
    first = chosen[0] if chosen else 1
    if path is not None:
        from ..plotting import piano_roll

        write_whole(
            path, piano_roll.piano_roll(score, path.suffix.lower(), prompt=end, kept=kept, first_bar=first), force=force
        )
        click.echo(str(path))
    else:
        _print(score, end, first, quiet=quiet)


def parsed_bars(given: str | None) -> tuple[int, int] | None:
    """Return the first and the last bar of A-B, or of A alone, counted from 1; None if nothing was given."""
    if given is None:
        return None
    first, dash, last = given.partition("-")
    if not (first.isdigit() and int(first) > 0 and (not dash or (last.isdigit() and int(last) >= int(first)))):
        raise click.BadParameter(f"'{given}' is not A-B with A from 1 and B from A", param_hint="--bars")
    return int(first), int(last or first)


def cut(score: Score, bars: tuple[int, int], name: str) -> tuple[Score, float]:
    """Return those bars of a score, and where in quarters they began.

    Raises:
        MidiError: no note is in them.
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


def _print(score: Score, prompt: float | None, first_bar: int, *, quiet: bool) -> None:
    from rich.text import Text

    from .. import midi, plotting
    from ..plotting import piano_roll

    console = print_roll(score, piano_roll.notes(score, prompt), prompt, first_bar)
    names = [plotting.track_name(t) for t in score.tracks if t.notes]
    key = Text("  ").join(Text(f"■ {name}", style=plotting.colour(i)) for i, name in enumerate(names))
    console.print(key)
    if not quiet:
        told = f"{_console.counted(midi.num_bars(score), 'bar')}, {_console.counted(score.note_num(), 'note')}"
        told += f", {_console.duration(midi.seconds(score))}"
        _console.say(told + ("; the prompt is pale" if prompt is not None and sys.stdout.isatty() else ""))


def print_roll(score: Score, notes: Sequence[Drawn], prompt: float | None = None, first_bar: int = 1) -> Console:
    """Print a piano roll as wide as the terminal, in colour where it has any, and return the console it went to."""
    from rich.console import Console
    from rich.style import Style
    from rich.text import Text

    from ..plotting import terminal_roll

    console = Console(highlight=False)
    for system in terminal_roll.terminal_roll(score, notes, console.width, prompt, first_bar):
        for line in system:
            told = Text(no_wrap=True)
            for run in line:
                told.append(run.text, Style(color=run.colour, bgcolor=run.ground))
            told.rstrip()
            console.print(told, soft_wrap=True)
        console.print()
    return console
