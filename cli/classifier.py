"""musiclm classifier: train, evaluate, show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..devices import resolve_bf16, resolve_device
from ..errors import AudioError, CorpusError, DivergedError, OutputError
from ..files import check_writable, write_whole
from . import _console, _options

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from ..audio.classifier import NoteClassifier
    from ..audio.dataset import LabelledNote
    from ..audio.fit import Check
    from ..audio.training import PreparedNotes, Recipe

DEFAULT_MINUTES = 10.0
SHARE_HELD_OUT = 0.1  # of the instruments of each family, if the set has no validation split
model_option = click.option("--model", metavar="FILE", help="A classifier file; default: the bundled one.")


@click.group("classifier")
def command() -> None:
    """Train, evaluate and inspect the note classifier."""


TRAIN_GROUPS = {
    "Budget": ["minutes", "steps"],
    "Model, data and computation": ["arch", "versions", "seed", "device", "precision"],
    "Output": ["output", "force", "as_json", "quiet", "verbose"],
}


@command.command(
    "train",
    cls=_options.GroupedCommand,
    groups=TRAIN_GROUPS,
    epilog="Example: musiclm classifier train nsynth/ -o mine.safetensors --minutes 10",
)
@click.argument("data", metavar="DIR", type=click.Path(path_type=Path))
@_options.output_file("The classifier file to write.")
@click.option("--arch", metavar="NAME", help="The architecture, cnn or ast; default: cnn.")
@_options.minutes(DEFAULT_MINUTES)
@_options.steps
@click.option(
    "--versions", type=click.IntRange(1, 10), default=3, show_default=True, help="Of each note; one is unchanged."
)
@_options.seed
@_options.device
@_options.precision
@_options.force
@_options.json_output
@_options.quiet
def train(
    data: Path, output: Path, arch: str | None, seed: int | None, versions: int, device: str, precision: str,
    force: bool, as_json: bool, quiet: bool, **budget: Any,
) -> None:  # fmt: skip
    """Train a classifier on a set of labelled notes.

    DIR is an NSynth download, a folder with one folder per family (bass, brass, ...; the folders in it are
    instruments), or a CSV file with the columns file and family, and optionally instrument, source, split and weight.
    If the set has no validation split, a tenth of the instruments of each family is held out to select the weights.
    The splits dev and test are left out.
    """
    from ..audio import models as note_models

    if arch is not None and arch not in note_models.names():
        available = ", ".join(note_models.names())
        raise click.BadParameter(f"no architecture '{arch}': one of {available}", param_hint="--arch")
    check_writable(output, force=force)
    seed = _options.draw_seed(seed)
    learn, choose = _split(data, seed, quiet=quiet)

    from ..audio.training import Recipe

    where = resolve_device(device)
    arch = arch or note_models.DEFAULT
    if budget["minutes"] is None and budget["steps"] is None:
        budget["minutes"] = DEFAULT_MINUTES
    minutes, steps = budget["minutes"], budget["steps"]
    recipe = Recipe(
        steps=steps,
        seconds=None if minutes is None else 60 * minutes,
        seed=seed,
        bf16=resolve_bf16(precision, where),
        **note_models.training(arch),
    )
    prepared = _prepare(learn, versions=versions, seed=seed, quiet=quiet)
    held_out = _prepare(choose, versions=1, seed=seed, quiet=quiet) if choose else None
    classifier, checks, diverged = _fitted(prepared, held_out, recipe, arch, where, quiet=quiet)
    best = [check for check in checks if check.is_best][-1]
    classifier.card = {
        "data": str(data),
        "command": f"musiclm classifier train {data} -o {output} --seed {seed} --versions {versions}"
        + (f" --arch {arch}" if arch != note_models.DEFAULT else "")
        + (f" --minutes {minutes:g}" if minutes is not None else "")
        + (f" --steps {steps}" if steps is not None else ""),
        "num_notes": len(prepared.notes),
        "figures": {"validation_mean_family_recall": best.recall},
    }
    classifier.save(output)
    if diverged is not None:
        advice = f"the best classifier before, of step {best.step:,}, is in '{output}'"
        raise DivergedError(diverged.what, diverged.step, advice) from diverged
    last = checks[-1]
    figures = {"steps": last.step, "seconds": round(last.seconds, 1), "validation_mean_family_recall": best.recall}
    if as_json:
        document = {"classifier": str(output), "seed": seed, "num_notes": len(prepared.notes)}
        _console.print_json(document | figures)
    else:
        click.echo(output)


def _split(data: Path, seed: int, *, quiet: bool) -> tuple[list[LabelledNote], list[LabelledNote]]:
    """Return the training notes and the held-out notes of a set.

    Raises:
        CorpusError: the set cannot be read, all its notes are of the splits dev or test, or of one family.
    """
    from ..audio import dataset

    notes = [n for n in dataset.read_notes(data) if n.split not in ("dev", "test")]
    if not notes:
        raise CorpusError(f"no training notes in '{data}': all are of the splits dev or test")
    families = sorted({n.family for n in notes})
    if len(families) == 1:
        raise CorpusError(
            f"all notes in '{data}' are of the family {families[0]}: a classifier needs two to distinguish"
        )
    learn, choose = dataset.split_by_instrument(notes, share=SHARE_HELD_OUT, seed=seed)
    _console.say(f"{_census(learn)}; {len(choose):,} held-out notes of other instruments; seed {seed}", quiet=quiet)
    if not choose:
        _console.say("Warning: each family has one instrument only: no notes to select the weights by", quiet=quiet)
    return learn, choose


def _fitted(
    learn: PreparedNotes, choose: PreparedNotes | None, recipe: Recipe, arch: str, device: str, *, quiet: bool
) -> tuple[NoteClassifier, list[Check], DivergedError | None]:
    """Train, reporting each check; return the classifier, the checks, and the error if training diverged after one.

    Raises:
        DivergedError: training diverged before the first check.
    """
    from ..audio import fit as fitting

    classifier, checks = None, []
    try:
        for event in fitting.fit(learn, choose, recipe, arch=arch, device=device):
            if not isinstance(event, fitting.Check):
                classifier = event
                continue
            checks.append(event)
            recall = "" if event.recall is None else f"  held-out mean family recall {event.recall:.3f}"
            suffix = "  best" if event.is_best and event.recall is not None else ""
            _console.say(
                f"step {event.step:,}  {_console.duration(event.seconds)}  train {event.loss:.4f} nats{recall}{suffix}",
                quiet=quiet,
            )
    except DivergedError as error:
        if classifier is None:
            raise DivergedError(
                error.what, error.step, "nothing is saved: try another --seed or --precision fp32"
            ) from error
        return classifier, checks, error
    assert classifier is not None, "fit yields it at last, or raises"
    return classifier, checks, None


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

    return _prepare(dataset.read_notes(data), versions=1, seed=0, quiet=quiet)


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


def _census(notes: Sequence[LabelledNote]) -> str:
    counted = _console.counted
    instruments = counted(len({(n.family, n.instrument) for n in notes}), "instrument")
    families = len({n.family for n in notes})
    return f"{counted(len(notes), 'note')} of {instruments} in {families} families for training"


def _prepare(notes: Sequence[LabelledNote], *, versions: int, seed: int, quiet: bool) -> PreparedNotes:
    """Return prepared notes, with a progress bar on a terminal; reports the notes that could not be read."""
    from ..audio import training

    watched = _console.is_terminal() and not quiet
    from rich.progress import Progress

    with Progress(console=_console.console(), transient=True, disable=not watched) as progress:
        task = progress.add_task("preparing notes", total=len(notes))
        for event in training.prepare(notes, versions=versions, seed=seed):
            if isinstance(event, int):
                progress.update(task, completed=event)
    prepared: PreparedNotes = event
    for path, reason in prepared.dropped[:5]:
        _console.say(f"left out: {path}: {reason}", quiet=quiet)
    if len(prepared.dropped) > 5:
        _console.say(f"left out: {len(prepared.dropped) - 5} more", quiet=quiet)
    return prepared


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
