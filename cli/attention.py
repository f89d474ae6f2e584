"""musiclm attention."""

from __future__ import annotations

from pathlib import Path

import click

from ..devices import resolve_device
from ..files import write_whole
from . import _console, _options
from .show import cut, parsed_bars


@click.command(
    "attention", epilog="Examples: musiclm attention song.mid -o song.html; musiclm attention song.mid -o a.png"
)
@click.argument("file", metavar="FILE")
@_options.model
@click.option("-o", "--output", metavar="PATH", help="A page, .html (the default), or a picture, .png or .svg.")
@click.option("--at", metavar="BAR[:BEAT]", help="The moment: the highest note there.")
@click.option("--layer", type=click.IntRange(1), metavar="L", help="Counted from 1; the last if left out.")
@click.option("--heads", metavar="H,H", help="Counted from 1; all if left out.")
@click.option("--matrices", is_flag=True, help="A picture of the matrices of all layers and heads.")
@click.option("--bars", metavar="A-B", help="Only these bars: the model hears no others.")
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
    """Draw which notes a model looks back at when it chooses each note of the MIDI file FILE (- for standard input).

    The page needs no network: drag through the music, choose layer and heads. For a model without attention it is the
    gradient of each pitch's probability over the notes before. Longer music than 400 notes is cut: see --bars.
    """
    from .. import plotting

    chosen, moment = parsed_bars(bars), _moment(at)
    wanted = None if heads is None else _heads(heads)
    path = Path(output or f"{'musiclm' if file == '-' else Path(file).stem}.{'png' if matrices else 'html'}")
    plotting.check_output(path, force=force, kinds=plotting.KINDS if matrices else (".html", *plotting.KINDS))
    data = _console.read_bytes(file)
    from .. import midi

    score = midi.parse(data, file)
    if chosen is not None:
        score, _ = cut(score, chosen, file)
    from .. import checkpoint
    from ..plotting import attention

    loaded = checkpoint.load(model or checkpoint.default())
    heard_by = loaded.model(resolve_device(device))
    first = chosen[0] if chosen else 1
    found = attention.attention(heard_by, loaded.tokenizer(), score, first_bar=first)
    num_layers, num_heads = found.shares.shape[:2]
    if layer is not None and layer > num_layers:
        raise click.BadParameter(f"'{loaded.name}' has {num_layers}", param_hint="--layer")
    if wanted is not None and max(wanted) >= num_heads:
        raise click.BadParameter(f"'{loaded.name}' has {num_heads}", param_hint="--heads")
    if found.heard.left_out:
        _console.say(
            f"left out: {_console.counted(found.heard.left_out, 'note')} that the model's tokenizer cannot express",
            quiet=quiet,
        )
    if found.num_left:
        _console.say(
            f"only the first {len(found.heard.notes)} notes are drawn: choose others with --bars A-B", quiet=quiet
        )
    last = first + midi.num_bars(found.heard.score) - 1
    if moment[0] is not None and not first <= moment[0] <= last:
        raise click.BadParameter(f"what is drawn are bars {first} to {last}", param_hint="--at")
    note, which = found.at(*moment), (layer or num_layers) - 1
    title = f"{Path(file).name}: what {loaded.name} looks back at"
    if path.suffix.lower() == ".html":
        page = attention.page(found, name=loaded.name, title=title, note=note, layer=which, heads=wanted)
        drawn = page.encode()
    elif matrices:
        drawn = attention.matrices(found, path.suffix.lower(), title=title)
    else:
        told = f"{title} (layer {which + 1})" if found.by == "attention" else f"{title} (gradient)"
        drawn = attention.picture(found, path.suffix.lower(), note=note, layer=which, heads=wanted, title=told)
    write_whole(path, drawn, force=force)
    click.echo(str(path))


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
