"""musiclm attention."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import CheckpointError
from ..files import write_whole
from . import _alignment, _console, _options, _scores

if TYPE_CHECKING:
    from symusic import Score

    from ..checkpoint import Checkpoint
    from ..models.base import LanguageModel


@click.command(
    "attention", epilog="Examples: musiclm attention song.mid -o song.html; musiclm attention song.mid -o a.png"
)
@click.argument("file", metavar="FILE")
@_options.model
@click.option("--keep-tracks", metavar="NAMES", help="The source, for a model of kind seq2seq; default: the melody.")
@click.option("-o", "--output", metavar="PATH", help="A page, .html (default), or a picture, .png or .svg.")
@click.option("--at", metavar="BAR[:BEAT]", help="The moment: the highest note there.")
@click.option(
    "--layer", type=click.IntRange(1), metavar="L", help="Counted from 1; default: the last, or the clearest."
)
@click.option("--heads", metavar="H,H", help="Counted from 1; default: all.")
@click.option("--matrices", is_flag=True, help="Plot the attention matrices of all layers and heads.")
@click.option("--bars", metavar="A-B", help="Only these bars; the model is given no others.")
@_options.device
@_options.force
@_options.quiet
def command(
    file: str,
    model: str | None,
    keep_tracks: str | None,
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

    For a model of kind seq2seq it shows the attention from the notes of the target, all other tracks, to those of the source:
    tracks by name, number, "drums", instrument, or "melody". A picture is a matrix of notes. Only 32 bars are plotted.
    """
    from .. import plotting

    chosen, moment = _scores.parsed_bars(bars), _moment(at)
    wanted = None if heads is None else _heads(heads)
    path = Path(output or f"{'musiclm' if file == '-' else Path(file).stem}.{'png' if matrices else 'html'}")
    plotting.check_output(path, force=force, kinds=plotting.KINDS if matrices else (".html", *plotting.KINDS))
    score, _ = _scores.read(file, None)
    loaded, language_model = _scores.load_model(model, device)
    title = f"{Path(file).name}: attention of {loaded.name}"
    shown = _alignment.Wanted(path.suffix.lower(), title, moment, layer, wanted, matrices, chosen)
    from .. import models

    if models.kind_of(loaded.arch) == models.SEQ2SEQ:
        image = _alignment.image(loaded, language_model, score, keep_tracks, shown, quiet=quiet)
    elif keep_tracks is not None:
        raise CheckpointError(f"'{loaded.name}' has no source: --keep-tracks is for models of kind seq2seq")
    else:
        piece = score if chosen is None else _scores.cut(score, chosen, file)[0]
        image = _image(loaded, language_model, piece, shown, quiet=quiet)
    write_whole(path, image, force=force)
    click.echo(str(path))


def _image(loaded: Checkpoint, model: LanguageModel, score: Score, wanted: _alignment.Wanted, *, quiet: bool) -> bytes:
    """Return the picture or page of a causal model's attention to earlier notes."""
    from .. import midi
    from ..plotting import attention

    first = wanted.bars[0] if wanted.bars else 1
    found = attention.attention(model, loaded.tokenizer(), score, first_bar=first)
    last = first + midi.num_bars(found.aligned.score) - 1
    _alignment.check_choice(found.shares.shape, loaded.name, wanted, (first, last))
    _scores.say_left_out(found.aligned.left_out, quiet=quiet)
    if found.num_left:
        _console.say(
            f"only the first {len(found.aligned.notes)} notes are plotted: choose others with --bars A-B", quiet=quiet
        )
    note, which = found.at(*wanted.moment), (wanted.layer or found.shares.shape[0]) - 1
    title, heads = wanted.title, wanted.heads
    if wanted.kind == ".html":
        return attention.page(found, name=loaded.name, title=title, note=note, layer=which, heads=heads).encode()
    if wanted.matrices:
        return attention.matrices(found, wanted.kind, title=title)
    title = f"{title} (layer {which + 1})" if found.by == "attention" else f"{title} (gradient)"
    return attention.picture(found, wanted.kind, note=note, layer=which, heads=heads, title=title)


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
