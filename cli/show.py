"""musiclm show."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..files import write_whole
from . import _console, _options, _scores

if TYPE_CHECKING:
    from symusic import Score


@click.command("show", epilog="Examples: musiclm show song.mid; musiclm show out.mid --prompt seed.mid -o out.html")
@click.argument("files", metavar="FILE", nargs=-1, required=True)
@click.option(
    "-o", "--output", metavar="PATH", help="A page, .html, or a picture, .png or .svg; default: the terminal."
)
@click.option("--prompt-bars", type=click.IntRange(1), metavar="N", help="The first N bars are the prompt, shown pale.")
@click.option("--prompt", metavar="FILE", help="The music continues this file, shown pale.")
@click.option(
    "--bars", metavar="A-B", help="Only these bars; in the terminal by default the first ones of a long piece."
)
@click.option(
    "--expression", is_flag=True, help="Plot the tempo and the velocity of performances: each FILE of --score."
)
@click.option("--score", metavar="FILE", help="The score that the performances of --expression play.")
@click.option("--drums", is_flag=True, help="With --expression: of the drums, not of the keyboard.")
@_options.soundfont
@_options.force
@_options.quiet
def command(
    files: tuple[str, ...],
    output: str | None,
    prompt_bars: int | None,
    prompt: str | None,
    bars: str | None,
    expression: bool,
    score: str | None,
    drums: bool,
    soundfont: str | None,
    force: bool,
    quiet: bool,
) -> None:
    """Plot the piano roll of the MIDI file FILE (- for standard input).

    A page is one file for any browser, with the sound inside: it plays, scrolls and zooms without a network.

    In the terminal a long piece ends after some sixty lines: --bars A-B shows exactly these bars, however many.

    The prompt of a file that musiclm wrote is read from the file and shown pale. For infilled music (--infill,
    --keep-tracks, --accompany) name the original file by --prompt: the notes that were kept are shown pale.

    With --expression each FILE is a performance of --score, with exactly its notes, as musiclm perform writes it: tempo and
    velocity along the score, of several performances over each other.
    """
    from .. import plotting

    path = None if output is None else Path(output)
    if expression:
        others = (prompt, prompt_bars, bars, soundfont)
        _show_expression(files, score, path, others, drums=drums, force=force, quiet=quiet)
        return
    if score is not None or drums:
        raise click.UsageError("--score and --drums are for --expression")
    if len(files) > 1:
        raise click.UsageError("one FILE: several are for --expression")
    if prompt is not None and prompt_bars is not None:
        raise click.UsageError("at most one of --prompt and --prompt-bars")
    chosen = _scores.parsed_bars(bars)
    if soundfont is not None and not _is_page(path):
        raise click.UsageError("--soundfont is for the sound in a page: -o NAME.html")
    if path is not None:
        plotting.check_output(path, force=force, kinds=(".html", *plotting.KINDS))
    _show(files[0], path, chosen, prompt, prompt_bars, soundfont, force=force, quiet=quiet)


def _is_page(path: Path | None) -> bool:
    return path is not None and path.suffix.lower() == ".html"


def _show(
    file: str,
    path: Path | None,
    chosen: tuple[int, int] | None,
    prompt: str | None,
    prompt_bars: int | None,
    soundfont: str | None,
    *,
    force: bool,
    quiet: bool,
) -> None:
    """Show the chosen bars of a file, or all of them, in the terminal, or write them as a page or a picture."""
    music, _ = _scores.read(file, None)
    end, kept = _given(music, prompt, prompt_bars)
    if chosen is not None:
        music, start = _scores.cut(music, chosen, file)
        end = None if end is None else max(0.0, end - start)
        kept = None if kept is None else _scores.cut(kept, chosen, str(prompt))[0]
    first = chosen[0] if chosen else 1
    if path is None:
        _print(music, end, first, is_whole=chosen is not None, quiet=quiet)
        return
    if _is_page(path):
        title = "standard input" if file == _console.STANDARD_INPUT else Path(file).name
        image = _page(music, title, end, kept, first, soundfont, quiet=quiet)
    else:
        from ..plotting import piano_roll

        image = piano_roll.piano_roll(music, path.suffix.lower(), prompt=end, kept=kept, first_bar=first)
    write_whole(path, image, force=force)
    click.echo(str(path))


def _show_expression(
    files: tuple[str, ...],
    score: str | None,
    path: Path | None,
    others: tuple[object, ...],
    *,
    drums: bool,
    force: bool,
    quiet: bool,
) -> None:
    """Show the curves of performances; `others` are values of options that are for piano rolls."""
    from .. import plotting
    from . import _expression

    if score is None:
        raise click.UsageError("--expression needs the score of the performances: --score score.mid")
    if any(each is not None for each in others):
        raise click.UsageError("--prompt, --prompt-bars, --bars and --soundfont are not for --expression")
    if path is not None:
        plotting.check_output(path, force=force)
    _expression.show(files, score, path, drums=drums, force=force, quiet=quiet)


def _page(
    score: Score,
    title: str,
    prompt: float | None,
    kept: Score | None,
    first_bar: int,
    soundfont: str | None,
    *,
    quiet: bool,
) -> bytes:
    """Return a page, and report if it has only the beginning of the music."""
    from .. import midi
    from ..plotting.page import MAX_SECONDS, piece_page

    text = piece_page(score, title=title, prompt=prompt, kept=kept, first_bar=first_bar, soundfont=soundfont)
    if midi.seconds(score) > MAX_SECONDS:
        limit = _console.counted(MAX_SECONDS / 60, "minute")
        _console.say(f"the page has the first {limit}: choose others with --bars A-B", quiet=quiet)
    return text.encode()


def _given(score: Score, prompt: str | None, prompt_bars: int | None) -> tuple[float | None, Score | None]:
    """Return where the prompt ends in quarters, if the music continues one, and the given music that it was infilled into."""
    from .. import midi, plotting

    if prompt is not None:
        original = midi.read(prompt)
        return (None, original) if plotting.was_written_within(score) else (midi.end(original), None)
    if prompt_bars is not None:
        return midi.bar_line(score, 0.0, prompt_bars), None
    return plotting.prompt_end(score), None


def _print(score: Score, prompt: float | None, first_bar: int, *, is_whole: bool, quiet: bool) -> None:
    from rich.text import Text

    from .. import midi, plotting
    from ..plotting import piano_roll

    notes = piano_roll.notes(score, prompt)
    console, last_bar = _scores.print_roll(score, notes, prompt, first_bar, is_whole=is_whole)
    num_bars = midi.num_bars(score)
    names = [plotting.track_name(t) for t in score.tracks if t.notes]
    key = Text("  ").join(Text(f"■ {name}", style=plotting.colour(i)) for i, name in enumerate(names))
    console.print(key)
    if not quiet:
        text = f"{_console.counted(num_bars, 'bar')}, {_console.counted(score.note_num(), 'note')}"
        text += f", {_console.duration(midi.seconds(score))}"
        _console.say(text + ("; the prompt is pale" if prompt is not None and sys.stdout.isatty() else ""))
        if last_bar < first_bar + num_bars - 1:
            _console.say(
                f"shown: bars {first_bar}-{last_bar} of {num_bars:,}; --bars A-B shows others, -o writes a picture"
            )
