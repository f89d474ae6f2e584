"""musiclm corpus build, musiclm corpus inspect, musiclm corpus datasets."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import CorpusError
from . import _console, _options

if TYPE_CHECKING:
    from ..data.labels import LabelSources


@click.group("corpus", epilog="Example: musiclm corpus build my_midis/ -o corpora/mine")
def command() -> None:
    """Prepare MIDI files for training, and inspect them."""


def _programs(_ctx: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> dict[int, int]:
    programs = {}
    for pair in given:
        old, _, new = pair.partition("=")
        if not (old.isdecimal() and new.isdecimal() and int(old) < 128 and int(new) < 128):
            raise click.BadParameter(f"'{pair}' is not OLD=NEW with programs of 0 to 127")
        programs[int(old)] = int(new)
    return programs


BUILD_GROUPS = {
    "Tokens": ["dataset", "tokenizer", "bpe"],
    "Which music": ["keep_duplicates", "programs", "labels"],
    "Work": ["workers", "dask", "time_limit"],
    "Output": ["output", "force", "as_json", "quiet", "verbose"],
}


@command.command(
    "build",
    cls=_options.GroupedCommand,
    groups=BUILD_GROUPS,
    epilog="Example: musiclm corpus build my_midis/ more.tar.xz -o corpora/mine",
)
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("-o", "--output", required=True, metavar="CORPUS", help="The folder to make.")
@click.option(
    "--dataset", metavar="NAME", help="Take tokenizer and instruments of a known data set: see 'corpus datasets'."
)
@click.option("--tokenizer", metavar="NAME", help="The tokenizer of the corpus; default: score.")
@click.option("--bpe", type=click.IntRange(1), metavar="N", help="Learn N merges of tokens on the training pieces.")
@click.option("--workers", type=click.IntRange(1, 256), metavar="N", help="Number of processes; default: one per core.")
@click.option(
    "--dask",
    metavar="SCHEDULER",
    help="Read the files by the workers of a Dask scheduler, tcp://…; local: of a cluster on this machine.",
)
@click.option(
    "--time-limit",
    type=_options.FloatRange(1),
    default=60.0,
    show_default=True,
    metavar="S",
    help="CPU seconds a file may take; seconds on the clock where the system does not report those of a process.",
)
@click.option("--keep-duplicates", is_flag=True, help="Keep copies; they share a split.")
@click.option(
    "--program",
    "programs",
    multiple=True,
    callback=_programs,
    metavar="OLD=NEW",
    help="Replace a MIDI program by another.",
)
@click.option("--labels", metavar="CSV", help="Labels of pieces: a table with the columns file, and one for each kind.")
@_options.force
@_options.json_output
@_options.quiet
def build(
    sources: tuple[str, ...],
    output: str,
    dataset: str | None,
    tokenizer: str | None,
    bpe: int | None,
    workers: int | None,
    dask: str | None,
    time_limit: float,
    keep_duplicates: bool,
    programs: dict[int, int],
    labels: str | None,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Clean, split and tokenise the music in each SOURCE: a folder, an archive or a file, or an address of one (s3://).

    A file with errors is dropped; 'musiclm corpus inspect CORPUS --files' lists the reasons. The same command resumes
    a build that was stopped.
    """
    began = time.monotonic()
    _check_build(sources, workers, dask)
    from .. import tokenizers

    tokenizers.check_name(tokenizer or "score")
    from ..data import Options, build_corpus, describe

    tokenizer, programs, found = _known(dataset, tokenizer, programs, labels)
    settings = Options(
        bpe=bpe or 0,
        workers=workers,
        time_limit=time_limit,
        keep_duplicates=keep_duplicates,
        programs=programs,
        dask=dask,
        labels=found,
    )
    progress = build_corpus(sources, output, tokenizers.parse(tokenizer or "score"), settings, force=force)
    try:
        _watch(progress, quiet=quiet)
    except KeyboardInterrupt:
        progress.close()
        _console.say(f"\nStopped. To continue: {shlex.join(['musiclm', *sys.argv[1:]])}")
        sys.exit(130)
    document = describe(output)
    _say_result(document, quiet=quiet)
    if as_json:
        keys = ("found", "kept", "dropped", "num_notes", "num_tokens", "splits", "notes", "problems")
        result = {"corpus": output, **{key: document[key] for key in keys}}
        result["twins_across_splits"] = document["twins_across_splits"]
        _console.print_json(result | {"seconds_elapsed": time.monotonic() - began})
    else:
        click.echo(output)


def _check_build(sources: tuple[str, ...], workers: int | None, dask: str | None) -> None:
    """Check what can be checked before anything is loaded."""
    for source in sources:
        if "://" not in source and not Path(source).exists():
            raise CorpusError(f"no folder or file '{source}'")
    if dask is not None and workers is not None and dask != "local":
        raise click.UsageError("--workers is for this machine: a Dask scheduler has workers of its own")


def _known(
    dataset: str | None, tokenizer: str | None, programs: dict[int, int], labels: str | None
) -> tuple[str | None, dict[int, int], LabelSources]:
    """Return tokenizer, programs and labels: those that were given, and beside them those of a known data set."""
    from dataclasses import replace

    from ..data import datasets
    from ..data.labels import LabelSources, read_labels

    found = LabelSources()
    if dataset is not None:
        known = datasets.get(dataset)
        tokenizer, programs = tokenizer or known.tokenizer, {**known.programs, **programs}
        found = known.label_sources
    if labels is not None:
        found = replace(found, of_files=read_labels(labels))
    return tokenizer, programs, found


def _watch(progress: Any, *, quiet: bool) -> None:
    """Run a build, and show its progress on a terminal."""
    if quiet or not _console.is_terminal():
        for _ in progress:
            pass
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=_console.console(), transient=True) as bar:
        task = bar.add_task("starting")
        last = began = time.monotonic()
        for now in progress:
            if now.stage != "reading":
                bar.update(task, description="writing")
            elif time.monotonic() - last > 0.1:
                last = time.monotonic()
                rate = (now.found - now.resumed) / max(0.1, last - began)
                resumed = f", {now.resumed:,} done before" if now.resumed else ""
                text = f"{_console.counted(now.found, 'file')}, {now.dropped:,} dropped{resumed}, {rate:.0f} files/s"
                bar.update(task, description=text)


def _say_result(document: dict[str, Any], *, quiet: bool) -> None:
    _console.say(f"kept {document['kept']:,} of {_console.counted(document['found'], 'file')}", quiet=quiet)
    for reason, count in document["dropped"].items():
        _console.say(f"dropped: {count:,} × {reason}", quiet=quiet)
    for text in (*document["notes"], *document["problems"]):
        _console.say(text, quiet=quiet)
    twins = document["twins_across_splits"]
    if twins["groups"]:
        text = (
            f"{_console.counted(twins['groups'], 'group')} of copies across the official splits "
            f"({_console.counted(twins['held_out'], 'held-out piece')})"
        )
        _console.say(text + ": left there", quiet=quiet)
    for split, count in twins["share_a_tune"].items():
        if count:
            _console.say(
                f"most of the tune in one training piece: {_console.counted(count, split + ' piece')}", quiet=quiet
            )


@command.command("inspect", epilog="Example: musiclm corpus inspect corpora/mine --files")
@click.argument("folder", metavar="CORPUS")
@click.option("--files", "list_files", is_flag=True, help="List each file: kept, or dropped and why.")
@_options.json_output
def inspect(folder: str, list_files: bool, as_json: bool) -> None:
    """Describe CORPUS: files found, kept and dropped, notes, instruments, keys, and oddities."""
    if not Path(folder, "corpus.json").is_file():
        raise CorpusError(f"no corpus in '{folder}': 'musiclm corpus build MIDI -o {folder}' makes one")
    from ..data.store import describe, files

    document = describe(folder)
    if as_json:
        document["tokenizer"] = document["tokenizer"]["name"]
        if list_files:
            document["files"] = list(files(folder))
        _console.print_json(document)
    elif list_files:
        for file in files(folder):
            result = "kept" if file["kept"] else f"dropped: {file['reason']}"
            click.echo(f"{file['name']}\t{result}" + (f" ({file['copy_of']})" if "copy_of" in file else ""))
    else:
        from ._report import show

        show(document)


@command.command("datasets", epilog="Example: musiclm corpus datasets --json")
@_options.json_output
def datasets(as_json: bool) -> None:
    """List well-known data sets: licence, address, split, and the options that 'corpus build --dataset NAME' takes."""
    import dataclasses

    from ..data import datasets as known

    found = [known.get(name) for name in known.names()]
    if as_json:
        _console.print_json([dataclasses.asdict(dataset) for dataset in found])
        return
    for dataset in found:
        click.echo(f"{dataset.name}: {dataset.title}")
        options = [f"--tokenizer {dataset.tokenizer}", *(f"--program {a}={b}" for a, b in dataset.programs.items())]
        facts = {
            "licence": dataset.licence,
            "address": dataset.address or "comes with musiclm",
            "credit": dataset.citation,
            "split": dataset.split or "none: made from the notes of each piece",
            "labels": ", ".join(dataset.labels),
            "options": " ".join(options),
            "note": dataset.note,
        }
        for name, value in facts.items():
            if value:
                click.echo(f"  {name:<8} {value}")
