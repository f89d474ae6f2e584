"""musiclm surprise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..files import write_whole
from . import _console, _options, _scores

if TYPE_CHECKING:
    from ..plotting.surprise import NoteSurprisals

NUM_LISTED = 8  # how many notes are listed


@click.command(
    "surprise", epilog="Examples: musiclm surprise song.mid; musiclm surprise song.mid --model bach -o out.png"
)
@click.argument("file", metavar="FILE")
@_options.model
@click.option("-o", "--output", metavar="PATH", help="A .png or .svg file; by default the terminal.")
@click.option("--bars", metavar="A-B", help="Only these bars; the model is given no others.")
@_options.device
@_options.force
@_options.json_output
@_options.quiet
def command(
    file: str,
    model: str | None,
    output: str | None,
    bars: str | None,
    device: str,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Plot the surprisal of each note of the MIDI file FILE (- for standard input) under a model.

    The surprisal of a note is the sum of -ln p over its tokens, in nats: those that set its time, those of the note
    itself and those of its end.
    """
    from .. import plotting

    chosen = _scores.parsed_bars(bars)
    path = None if output is None else Path(output)
    if path is not None:
        plotting.check_output(path, force=force)
    score, first = _scores.read(file, chosen)
    from ..plotting import surprise

    loaded, language_model = _scores.load_model(model, device)
    found = surprise.surprise(language_model, loaded.tokenizer(), score, first_bar=first)
    _scores.say_left_out(found.heard.left_out, quiet=quiet)
    if path is not None:
        title = f"{Path(file).name}: surprisal by {loaded.name}"
        write_whole(path, surprise.picture(found, path.suffix.lower(), title=title), force=force)
    if as_json:
        document = {"path": file, **surprise.document(found, loaded.name)}
        _console.print_json(document if path is None else {**document, "picture": str(path)})
    elif path is not None:
        click.echo(str(path))
    else:
        _print(found)
    mean = f"{loaded.name}: {found.nats.mean():.2f} nats/note, {_console.counted(len(found.nats), 'note')}"
    _console.say(mean, quiet=quiet or as_json)


def _print(found: NoteSurprisals) -> None:
    from rich.table import Table
    from rich.text import Text

    from ..plotting import surprise

    console, _ = _scores.print_roll(found.heard.score, surprise.notes(found), first_bar=found.first_bar)
    shares = [i / 10 for i in range(11)]
    key = Text("0 ") + Text("").join(Text("█", style=surprise.colour_of(s)) for s in shares)
    console.print(key + Text(f" {found.scale:.1f} nats"))
    console.print()
    table = Table(box=None, pad_edge=False, header_style="bold", title="least expected", title_justify="left")
    for name in ("bar", "beat", "pitch", "nats"):
        table.add_column(name, justify="right")
    places = found.places()
    for i in sorted(range(len(found.nats)), key=lambda i: -found.nats[i])[:NUM_LISTED]:
        bar, beat = places[i]
        table.add_row(str(bar), f"{beat:g}", surprise.called(found.heard.notes[i]), f"{found.nats[i]:.1f}")
    console.print(table)
