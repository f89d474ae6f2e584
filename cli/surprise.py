"""musiclm surprise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..devices import resolve_device
from ..files import write_whole
from . import _console, _options
from .show import cut, parsed_bars, print_roll

if TYPE_CHECKING:
    from ..plotting.surprise import NoteSurprisals

MOST_SURPRISING = 8  # notes that are listed


@click.command(
    "surprise", epilog="Examples: musiclm surprise song.mid; musiclm surprise song.mid --model bach -o out.png"
)
@click.argument("file", metavar="FILE")
@_options.model
@click.option("-o", "--output", metavar="PATH", help="A .png or .svg; left out, the terminal.")
@click.option("--bars", metavar="A-B", help="Only these bars: the model hears no others.")
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
    """Draw which notes of the MIDI file FILE (- for standard input) a model did not expect.

    A note's surprise is the sum of -ln p over its tokens, in nats: what leads up to it, says it and ends it.
    """
    from .. import plotting

    chosen = parsed_bars(bars)
    path = None if output is None else Path(output)
    if path is not None:
        plotting.check_output(path, force=force)
    data = _console.read_bytes(file)
    from .. import midi

    score = midi.parse(data, file)
    if chosen is not None:
        score, _ = cut(score, chosen, file)
    from .. import checkpoint
    from ..plotting import surprise

    loaded = checkpoint.load(model or checkpoint.default())
    heard_by = loaded.model(resolve_device(device))
    first = chosen[0] if chosen else 1
    found = surprise.surprise(heard_by, loaded.tokenizer(), score, first_bar=first)
    if found.heard.left_out:
        _console.say(
            f"left out: {_console.counted(found.heard.left_out, 'note')} that the model's tokenizer cannot express",
            quiet=quiet,
        )
    if path is not None:
        title = f"{Path(file).name}: what {loaded.name} did not expect"
        write_whole(path, surprise.picture(found, path.suffix.lower(), title=title), force=force)
    if as_json:
        document = {"path": file, **surprise.document(found, loaded.name)}
        _console.print_json(document if path is None else {**document, "picture": str(path)})
    elif path is not None:
        click.echo(str(path))
    else:
        _print(found)
    told = f"{loaded.name}: {found.nats.mean():.2f} nats a note, {_console.counted(len(found.nats), 'note')}"
    _console.say(told, quiet=quiet or as_json)


def _print(found: NoteSurprisals) -> None:
    from rich.table import Table
    from rich.text import Text

    from ..plotting import surprise

    console = print_roll(found.heard.score, surprise.notes(found), first_bar=found.first_bar)
    shares = [i / 10 for i in range(11)]
    key = Text("0 ") + Text("").join(Text("█", style=surprise.colour_of(s)) for s in shares)
    console.print(key + Text(f" {found.scale:.1f} nats"))
    console.print()
    table = Table(box=None, pad_edge=False, header_style="bold", title="least expected", title_justify="left")
    for name in ("bar", "beat", "pitch", "nats"):
        table.add_column(name, justify="right")
    places = found.places()
    for i in sorted(range(len(found.nats)), key=lambda i: -found.nats[i])[:MOST_SURPRISING]:
        bar, beat = places[i]
        table.add_row(str(bar), f"{beat:g}", surprise.called(found.heard.notes[i]), f"{found.nats[i]:.1f}")
    console.print(table)
