"""musiclm corpus build, musiclm corpus inspect."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import Any

import click

from ..errors import CorpusError
from . import options, ui


@click.group("corpus", epilog="Example: musiclm corpus build my_midis/ -o corpora/mine")
def command() -> None:
    """Prepare MIDI files once, and see what is in them."""


def _programs(_ctx: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> dict[int, int]:
    programs = {}
    for pair in given:
        old, _, new = pair.partition("=")
        if not (old.isdecimal() and new.isdecimal() and int(old) < 128 and int(new) < 128):
            raise click.BadParameter(f"'{pair}' is not OLD=NEW with programs of 0 to 127")
        programs[int(old)] = int(new)
    return programs


@command.command("build", epilog="Example: musiclm corpus build my_midis/ more.tar.xz -o corpora/mine")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("-o", "--output", required=True, metavar="CORPUS", help="The folder to make.")
@click.option("--tokenizer", default="score", show_default=True, metavar="NAME", help="What makes the tokens.")
@click.option("--bpe", type=click.IntRange(1), metavar="N", help="Learn N merges of tokens on the training pieces.")
@click.option("--workers", type=click.IntRange(1, 256), metavar="N", help="Processes; default: one a core.")
@click.option(
    "--time-limit",
    type=options.FloatRange(1),
    default=60.0,
    show_default=True,
    metavar="S",
    help="Seconds a file may take.",
)
@click.option("--keep-duplicates", is_flag=True, help="Keep copies; they fall into one split.")
@click.option(
    "--program", "programs", multiple=True, callback=_programs, metavar="OLD=NEW", help="Change an instrument."
)
@options.force
@options.json_output
@options.quiet
def build(
    sources: tuple[str, ...],
    output: str,
    tokenizer: str,
    bpe: int | None,
    workers: int | None,
    time_limit: float,
    keep_duplicates: bool,
    programs: dict[int, int],
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Clean, split and tokenise the music in each SOURCE: a folder, an archive or a file.

    What is wrong with a file costs that file alone; 'musiclm corpus inspect CORPUS --files' has the reasons. A build
    that was stopped goes on when the same command is given again.
    """
    began = time.monotonic()
    for source in sources:
        if not Path(source).exists():
            raise CorpusError(f"no folder or file '{source}'")
    from .. import tokens

    tokens.check_name(tokenizer)
    from .. import corpus

    settings = corpus.Options(
        bpe=bpe or 0, workers=workers, time_limit=time_limit, keep_duplicates=keep_duplicates, programs=programs
    )
    progress = corpus.build(sources, output, tokens.parse(tokenizer), settings, force=force)
    try:
        _watch(progress, quiet=quiet)
    except KeyboardInterrupt:
        progress.close()
        ui.say(f"\nStopped. To go on: {shlex.join(['musiclm', *sys.argv[1:]])}")
        sys.exit(130)
    document = corpus.describe(output)
    _say_what_happened(document, quiet=quiet)
    if as_json:
        keys = ("found", "kept", "dropped", "num_notes", "num_tokens", "splits", "notes", "problems")
        told = {"corpus": output, **{key: document[key] for key in keys}}
        told["twins_across_splits"] = document["twins_across_splits"]
        ui.print_json(told | {"seconds_elapsed": time.monotonic() - began})
    else:
        click.echo(output)


def _watch(progress: Any, *, quiet: bool) -> None:
    """Run a build, showing on a terminal how far it is."""
    if quiet or not ui.is_terminal():
        for _ in progress:
            pass
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=ui.console(), transient=True) as bar:
        task = bar.add_task("starting")
        last = began = time.monotonic()
        for now in progress:
            if now.stage != "reading":
                bar.update(task, description="writing")
            elif time.monotonic() - last > 0.1:
                last = time.monotonic()
                rate = (now.found - now.resumed) / max(0.1, last - began)
                resumed = f", {now.resumed:,} done before" if now.resumed else ""
                told = f"{ui.counted(now.found, 'file')}, {now.dropped:,} dropped{resumed}, {rate:.0f} files/s"
                bar.update(task, description=told)


def _say_what_happened(document: dict[str, Any], *, quiet: bool) -> None:
    ui.say(f"kept {document['kept']:,} of {ui.counted(document['found'], 'file')}", quiet=quiet)
    for reason, count in document["dropped"].items():
        ui.say(f"dropped: {count:,} × {reason}", quiet=quiet)
    for text in (*document["notes"], *document["problems"]):
        ui.say(text, quiet=quiet)
    twins = document["twins_across_splits"]
    if twins["groups"]:
        text = (
            f"{ui.counted(twins['groups'], 'group')} of copies across the official splits "
            f"({ui.counted(twins['held_out'], 'held-out piece')})"
        )
        ui.say(text + ": left there", quiet=quiet)
    for split, count in twins["share_a_tune"].items():
        if count:
            ui.say(f"most of the tune in one training piece: {ui.counted(count, split + ' piece')}", quiet=quiet)


@command.command("inspect", epilog="Example: musiclm corpus inspect corpora/mine --files")
@click.argument("folder", metavar="CORPUS")
@click.option("--files", "list_files", is_flag=True, help="What became of each file, one a line.")
@options.json_output
def inspect(folder: str, list_files: bool, as_json: bool) -> None:
    """Tell what is in CORPUS: found, kept and dropped, notes, instruments, keys, and what is odd about it."""
    if not Path(folder, "corpus.json").is_file():
        raise CorpusError(f"no corpus in '{folder}': 'musiclm corpus build MIDI -o {folder}' makes one")
    from ..corpus.store import describe, files

    document = describe(folder)
    if as_json:
        document["tokenizer"] = document["tokenizer"]["name"]
        if list_files:
            document["files"] = list(files(folder))
        ui.print_json(document)
    elif list_files:
        for file in files(folder):
            became = "kept" if file["kept"] else f"dropped: {file['reason']}"
            click.echo(f"{file['name']}\t{became}" + (f" ({file['copy_of']})" if "copy_of" in file else ""))
    else:
        from .doctor import show

        show(document)
