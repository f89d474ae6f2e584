"""musiclm classifier: train, evaluate, show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import AudioError, CorpusError, OutputError
from ..files import check_writable, write_whole
from . import _classifier_training, _console, _options

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from ..audio.dataset import LabelledNote
    from ..audio.training import PreparedNotes

model_option = click.option("--model", metavar="FILE", help="A classifier file; default: the bundled one.")


@click.group("classifier")
def command() -> None:
    """Train, evaluate and inspect the note classifier."""


@command.command("evaluate", epilog="Example: musiclm classifier evaluate nsynth-test/ -o confusion.png")
@click.argument("data", metavar="DIR", type=click.Path(path_type=Path))
@model_option
@click.option(
    "--split", type=click.Choice(["train", "validation", "dev", "test", "all"]), default="all", show_default=True
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Plot the confusion matrix to a PNG file.")
@_options.force
@_options.json_output
@_options.quiet
def evaluate(
    data: Path, model: str | None, split: str, output: Path | None, force: bool, as_json: bool, quiet: bool
) -> None:
    """Evaluate a classifier on a set of labelled notes (DIR: as in train).

    The main figure is the mean family recall: each family has the same weight.
    """
    if output is not None:
        _check_png(output, force=force)
    from ..audio import dataset

    notes = [n for n in dataset.read_notes(data) if split in ("all", n.split)]
    if not notes:
        raise CorpusError(f"no {split} notes in '{data}': choose another --split")

    from ..audio import FAMILIES, metrics
    from ..audio.classifier import NoteClassifier

    classifier = NoteClassifier.load(model)
    targets, predictions, dropped = _classified(classifier, notes, quiet=quiet)
    import torch

    probabilities = torch.tensor([[p.probabilities[f] for f in FAMILIES] for p in predictions])
    report: dict[str, Any] = {"model": model or "bundled", "data": str(data), "split": split, "dropped": dropped}
    report |= metrics.report(probabilities, torch.tensor(targets), [p.unsure for p in predictions])
    if output is not None:
        from ..plotting import confusion

        recalls = [report["families"][f]["recall"] for f in FAMILIES]
        title = f"mean family recall {report['mean_family_recall']:.3f}, {report['num_notes']:,} notes"
        made = confusion.picture(
            report["confusion"], FAMILIES, recalls, title=title, true_name="what plays, and its recall"
        )
        write_whole(output, made, force=force)
        _console.say(f"plotted {output}", quiet=quiet)
    if as_json:
        _console.print_json(report)
    else:
        _print_report(report)


@command.command("show", epilog="Example: musiclm classifier show -o pictures/ --data notes/ --note cello.wav")
@model_option
@_options.output_file("The folder for the plots.")
@click.option(
    "--data",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Notes, to find those that excite each kernel of a CNN most.",
)
@click.option(
    "--note",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A recording whose saliency map, and of an AST the attention rollout, to plot.",
)
@_options.force
@_options.quiet
def show(model: str | None, output: Path, data: Path | None, note: Path | None, force: bool, quiet: bool) -> None:
    """Plot what a classifier has learned, and what its answer for a note depends on.

    Of a CNN: its first kernels, and with --data the notes that excite each most. Of an AST: the principal components of
    its patch filters, and the similarity of its positional embeddings. With --note a saliency map, and of an AST the
    attention rollout, too.
    """
    _check_folder(output)
    from ..audio import plots
    from ..audio.classifier import NoteClassifier

    loaded = NoteClassifier.load(model)
    made: dict[str, Callable[[], bytes]] = {}
    if plots.has_kernels(loaded):
        made["kernels.png"] = lambda: plots.kernels(loaded)
        if data is not None:
            made["excitation.png"] = lambda: plots.excitation(loaded, _all_prepared(data, quiet=quiet))
    elif data is not None:
        _console.say("this architecture has no kernels: --data has no effect", quiet=quiet)
    if plots.has_patches(loaded):
        made |= {"patches.png": lambda: plots.patches(loaded), "positions.png": lambda: plots.positions(loaded)}
    if note is not None:
        picture = _picture_of(note)
        made["saliency.png"] = lambda: plots.saliency(loaded, picture, note.name)
        if plots.has_patches(loaded):
            made["rollout.png"] = lambda: plots.rollout(loaded, picture, note.name)
    if not made:
        _console.say("this architecture has neither kernels nor patches to plot: name a recording with --note")
        return
    _check_matplotlib()
    for name in made if output.is_dir() else ():
        check_writable(output / name, force=force)
    plotted = {name: plot() for name, plot in made.items()}  # all of them before the first is written
    output.mkdir(exist_ok=True)
    for name, png in plotted.items():
        write_whole(output / name, png, force=force)
        click.echo(output / name)


def _all_prepared(data: Path, *, quiet: bool) -> PreparedNotes:
    """Return all notes of a set, prepared without distortions."""
    from ..audio import dataset

    return _classifier_training.prepare(dataset.read_notes(data), versions=1, seed=0, quiet=quiet)


def _picture_of(note: Path) -> Tensor:
    """Return the picture of the loudest note of a recording."""
    from ..audio import classifier
    from ..audio import io as audio_io

    try:
        return classifier.loudest_picture(audio_io.read(note).audio)
    except AudioError as error:
        raise AudioError(f"{note}: {error}") from error


def _check_folder(path: Path) -> None:
    """Check that a path is a folder, or can become one.

    Raises:
        OutputError: it is a file, or its parent does not exist.
    """
    if path.exists() and not path.is_dir():
        raise OutputError(f"'{path}' is a file: name a folder")
    if not path.parent.is_dir():
        raise OutputError(f"no folder '{path.parent}': make it, or choose another place")


def _check_png(path: Path, *, force: bool) -> None:
    if path.suffix.lower() != ".png":
        raise OutputError(f"'{path}' is not a PNG file: its name must end in .png")
    check_writable(path, force=force)
    _check_matplotlib()


def _check_matplotlib() -> None:
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise OutputError("pictures need matplotlib, which this installation lacks: pip install matplotlib")


def _classified(classifier: Any, notes: Sequence[LabelledNote], *, quiet: bool) -> tuple[list[int], list[Any], int]:
    """Return (numbers of the true families, predictions, how many could not be read), with the pipeline of `classify`."""
    from ..audio import FAMILIES
    from .classify import classify_all

    targets, predictions, dropped = [], [], 0
    files = classify_all(classifier, [str(n.path) for n in notes], quiet=quiet)
    for note, (properties, found) in zip(notes, files, strict=True):
        if "error" in properties:
            dropped += 1
            _console.say(f"left out: {note.path}: {properties['error']}", quiet=quiet or dropped > 5)
        else:
            targets.append(FAMILIES.index(note.family))
            predictions.append(found[0])
    if not targets:
        raise CorpusError("none of the notes can be read: is the sound where the list of notes says?")
    return targets, predictions, dropped


def _print_report(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    families = list(report["families"])
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column("true family", no_wrap=True, min_width=10)
    for header in ("notes", "recall", *(f[:4] for f in families)):
        table.add_column(header, justify="right", no_wrap=True)
    for family, row in zip(families, report["confusion"], strict=True):
        figures = report["families"][family]
        recall = "" if figures["recall"] is None else f"{figures['recall']:.2f}"
        table.add_row(family, str(figures["num_notes"]), recall, *(str(n) if n else "·" for n in row))
    console.print(table)
    sure = report["accuracy_when_sure"]
    console.print(
        f"\nmean family recall {report['mean_family_recall']:.3f} (chance {report['chance']:.3f}), "
        f"accuracy {report['accuracy']:.3f} of {report['num_notes']:,} notes,\n"
        f"calibration error {report['calibration_error']:.3f}, unsure {report['unsure']:.3f}"
        + (f", accuracy when sure {sure:.3f}" if sure is not None else "")
    )


command.add_command(_classifier_training.train)
