"""musiclm attention."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..files import write_whole
from . import _console, _options, _scores

if TYPE_CHECKING:
    from ..plotting.attention import Attention


@click.command(
    "attention", epilog="Examples: musiclm attention song.mid -o song.html; musiclm attention song.mid -o a.png"
)
@click.argument("file", metavar="FILE")
@_options.model
@click.option("-o", "--output", metavar="PATH", help="A page, .html (default), or a picture, .png or .svg.")
@click.option("--at", metavar="BAR[:BEAT]", help="The moment: the highest note there.")
@click.option("--layer", type=click.IntRange(1), metavar="L", help="Counted from 1; default: the last.")
@click.option("--heads", metavar="H,H", help="Counted from 1; default: all.")
@click.option("--matrices", is_flag=True, help="Plot the attention matrices of all layers and heads.")
@click.option("--bars", metavar="A-B", help="Only these bars; the model is given no others.")
@_options.device
@_options.force
@_options.quiet
def command(
    file: str,
    model: str | None,
    output: str | None,
    at: str | None,
    layer: int | None,
    heads: str | None,
    matrices: bool,
    bars: str | None,
    device: str,
    force: bool,
    quiet: bool,
) -> None:
    """Plot the attention of a model from each note of the MIDI file FILE (- for standard input) to the notes before.

    The page works offline: drag through the music, choose layer and heads. For a model without attention it shows the
    gradient of each pitch's probability with respect to the notes before. Only 400 notes are plotted: see --bars.
    """
    from .. import plotting

    chosen, moment = _scores.parsed_bars(bars), _moment(at)
    wanted = None if heads is None else _heads(heads)
    path = Path(output or f"{'musiclm' if file == '-' else Path(file).stem}.{'png' if matrices else 'html'}")
    plotting.check_output(path, force=force, kinds=plotting.KINDS if matrices else (".html", *plotting.KINDS))
    score, first = _scores.read(file, chosen)
    from ..plotting import attention

    loaded, language_model = _scores.load_model(model, device)
    found = attention.attention(language_model, loaded.tokenizer(), score, first_bar=first)
    _check_choice(found, loaded.name, layer, wanted, moment[0])
    _scores.say_left_out(found.aligned.left_out, quiet=quiet)
    if found.num_left:
        _console.say(
            f"only the first {len(found.aligned.notes)} notes are plotted: choose others with --bars A-B", quiet=quiet
        )
    note, which = found.at(*moment), (layer or found.shares.shape[0]) - 1
    title = f"{Path(file).name}: attention of {loaded.name}"
    if path.suffix.lower() == ".html":
        page = attention.page(found, name=loaded.name, title=title, note=note, layer=which, heads=wanted)
        image = page.encode()
    elif matrices:
        image = attention.matrices(found, path.suffix.lower(), title=title)
    else:
        title = f"{title} (layer {which + 1})" if found.by == "attention" else f"{title} (gradient)"
        image = attention.picture(found, path.suffix.lower(), note=note, layer=which, heads=wanted, title=title)
    write_whole(path, image, force=force)
    click.echo(str(path))


def _check_choice(found: Attention, model: str, layer: int | None, heads: list[int] | None, bar: int | None) -> None:
    """Raise a usage error if the model has no such layer or head (from 0), or if the bar is not among those plotted."""
    from .. import midi

    num_layers, num_heads = found.shares.shape[:2]
    if layer is not None and layer > num_layers:
        raise click.BadParameter(f"'{model}' has {num_layers}", param_hint="--layer")
    if heads is not None and max(heads) >= num_heads:
        raise click.BadParameter(f"'{model}' has {num_heads}", param_hint="--heads")
    last = found.first_bar + midi.num_bars(found.aligned.score) - 1
    if bar is not None and not found.first_bar <= bar <= last:
        raise click.BadParameter(f"the plotted bars are {found.first_bar} to {last}", param_hint="--at")


def _moment(at: str | None) -> tuple[int | None, float]:
    if at is None:
        return None, 1.0
    bar, _, beat = at.partition(":")
    try:
        moment = int(bar), float(beat or 1)
    except ValueError:
        moment = 0, 0.0
    if moment[0] < 1 or not 1 <= moment[1] < 1000:
        raise click.BadParameter(f"'{at}' is not BAR or BAR:BEAT, both counted from 1", param_hint="--at")
    return moment


def _heads(given: str) -> list[int]:
    parts = given.split(",")
    if not all(p.strip().isdigit() and int(p) > 0 for p in parts):
        raise click.BadParameter(f"'{given}' is not numbers from 1 with commas between", param_hint="--heads")
    return sorted({int(p) - 1 for p in parts})
