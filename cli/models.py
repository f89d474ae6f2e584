"""musiclm models, musiclm models install, musiclm models remove."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from ..errors import MusicLMError
from . import _console, _options

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint
    from ..checkpoint.install import Source
    from ..checkpoint.model_file import ModelFile

NONCOMMERCIAL = "not for commercial use"


@click.group(
    "models",
    invoke_without_command=True,
    epilog="Examples: musiclm models --json; musiclm models install runs/mine --name mine",
)
@_options.json_output
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """List the bundled and the installed models, with data, licence, size and figures.

    MUSICLM_MODELS names the folder of the installed models; by default it is in your data folder.
    """
    if context.invoked_subcommand is not None:
        if as_json:
            raise click.UsageError("--json lists all models: put it after the subcommand")
        return
    _list(as_json=as_json)


@command.command("install", epilog="Example: musiclm models install runs/mine --name mine")
@click.argument("source", metavar="FILE|URL")
@click.option("--name", metavar="NAME", help="The name, to which the architecture is added; default: that of the file.")
@_options.force
@_options.json_output
@_options.quiet
def install(source: str, name: str | None, force: bool, as_json: bool, quiet: bool) -> None:
    """Install a checkpoint into your folder of models: a file, a run folder, or an https, http or file address.

    The file is checked first, and nothing in it can run code. Then --model finds it by its name. The name of a performer
    begins with performer-, that of a tagger ends with -tagger.
    """
    from ..checkpoint import card as cards
    from ..checkpoint import install as installing

    with installing.opened(source) as coming:
        blocks = _watched(coming, quiet=quiet)
        found = installing.install(coming, blocks, name=name, force=force)
    (figures,) = cards.figures([found])
    _console.say(f"installed {found.name}: {_size(figures)}, trained on {_plain(figures['data'])}", quiet=quiet)
    _console.say(f"licence of the weights: {_licence(figures)}")  # always shown, even with -q
    _console.say(f"Next: {_next(found)}", quiet=quiet)
    if as_json:
        _console.print_json(figures | {"installed": True})
    else:
        click.echo(found.path)


@command.command("remove", epilog="Example: musiclm models remove mine-gru")
@click.argument("name", metavar="NAME")
@_options.quiet
def remove(name: str, quiet: bool) -> None:
    """Remove an installed model; bundled models cannot be removed."""
    from ..checkpoint import install as installing

    _console.say(f"removed {installing.remove(name)}", quiet=quiet)


def _next(found: Checkpoint | ModelFile) -> str:
    """Return the command line that uses an installed model."""
    from .. import checkpoint

    if not isinstance(found, checkpoint.Checkpoint):
        from ..checkpoint.model_file import DEFAULT_TAGGER, PERFORMER

        is_performer = found.role is PERFORMER
        default = PERFORMER.full_name(found.kind) if is_performer else DEFAULT_TAGGER
        beginning = "musiclm perform score.mid" if is_performer else "musiclm tag song.mid"
        return beginning + ("" if found.name == default else f" --model {found.name}")
    of_set = found.name.rpartition("-")[0]
    called = of_set if checkpoint.find(of_set)[1] == found.name else found.name
    return f"{_console.next_command(str(found.tokenizer_description['name']))} --model {called}"


def _watched(source: Source, *, quiet: bool) -> Iterator[bytes]:
    """Yield the blocks of a source, with a progress bar on a terminal."""
    if quiet or not _console.is_terminal():
        yield from source.blocks
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=_console.console(), transient=True) as bar:
        task = bar.add_task("reading", total=source.num_bytes)
        for block in source.blocks:
            bar.advance(task, len(block))
            yield block


def _list(*, as_json: bool) -> None:
    from .. import checkpoint
    from ..checkpoint import card as cards
    from ..checkpoint.model_file import bundled_models, installed_models, read_model

    loaded: list[Checkpoint | ModelFile] = [checkpoint.load(name) for name in checkpoint.bundled()]
    loaded += [read_model(checkpoint.bundled_path(name), name) for name in bundled_models()]
    num_bundled = len(loaded)
    names: list[tuple[str, Callable[..., Checkpoint | ModelFile]]]
    names = [(name, checkpoint.read) for name in checkpoint.installed()]
    names += [(name, read_model) for name in installed_models()]
    for name, read in names:
        try:
            loaded.append(read(checkpoint.installed_path(name), name))
        except MusicLMError as error:
            _console.say(f"left out: {error}. 'musiclm models remove {name}' removes it")
    listed = [f | {"installed": i >= num_bundled} for i, f in enumerate(cards.figures(loaded))]
    if as_json:
        _console.print_json(listed)
        return
    import shutil
    import textwrap

    width = max([len("name"), *(len(f["name"]) for f in listed)])
    click.secho(f"{'name':{width}}  parameters     MB  nats/token", bold=True)
    columns = shutil.get_terminal_size().columns
    for f in listed:
        nats = f["figures"].get("test_nats_per_token")
        nats = f"{nats:.3f}" if isinstance(nats, float) else ""
        click.echo(f"{f['name']:{width}}  {f['num_parameters'] / 1e6:8.1f} M  {f['bytes'] / 1e6:5.1f}  {nats:>10}")
        text = f"{_plain(f['data'])}. Licence: {_licence(f)}" + (". Installed by you" if f["installed"] else "")
        click.echo(textwrap.fill(text, columns, initial_indent="  ", subsequent_indent="  "))


def _size(figures: dict[str, Any]) -> str:
    return f"{figures['num_parameters'] / 1e6:.1f} M parameters, {figures['bytes'] / 1e6:.1f} MB"


def _licence(figures: dict[str, Any]) -> str:
    """Return the licence of a model's weights, with a note if it forbids commercial use."""
    from ..checkpoint.install import is_noncommercial

    licence = _plain(figures["licence"] or "not said")
    return f"{licence}: {NONCOMMERCIAL}" if is_noncommercial(licence) else licence


def _plain(text: object) -> str:
    """Return a text from a card without control characters, which could move the cursor of a terminal."""
    return "".join(c if c.isprintable() else " " for c in str(text))
