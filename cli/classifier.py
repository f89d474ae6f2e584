"""musiclm classifier: train, evaluate, show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..devices import resolve_bf16
from ..errors import AudioError, CorpusError, OutputError
from ..files import check_writable, write_whole
from . import _console, _options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..audio.dataset import LabelledNote
    from ..audio.training import PreparedNotes

SHARE_HELD_OUT = 0.1  # of the instruments of each family, when the set names no validation split
model_option = click.option("--model", metavar="FILE", help="A classifier file; left out, the bundled one.")


@click.group("classifier")
def command() -> None:
    """Train, measure and look into the note classifier."""


@command.command("train", epilog="Example: musiclm classifier train nsynth/ -o mine.safetensors --minutes 10")
@click.argument("data", metavar="DIR", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The classifier file to write.")
@click.option(
    "--minutes", type=_options.FloatRange(0, min_open=True), metavar="M", help="Training budget; 10 if none is given."
)
@click.option("--steps", type=click.IntRange(1), metavar="N", help="Training budget.")
@click.option("--versions", type=click.IntRange(1, 10), default=3, show_default=True, help="Of each note, one clean.")
@_options.seed
@_options.precision
@_options.force
@_options.json_output
@_options.quiet
def train(
    data: Path,
    output: Path,
    minutes: float | None,
    steps: int | None,
    versions: int,
    seed: int | None,
    precision: str,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Train a classifier on a set of labelled notes.

    DIR is an NSynth download, a folder with one folder a family (bass, brass, ...; folders within are instruments), or
    a CSV with the columns file and family, and perhaps instrument, source, split and weight. A tenth of the instruments
    of each family is held out to choose the weights by, unless the set has a validation split; dev and test are left
    out.
    """
    from ..audio import dataset

    check_writable(output, force=force)
    notes = [n for n in dataset.read_notes(data) if n.split not in ("dev", "test")]
    if not notes:
        raise CorpusError(f"no notes to learn from in '{data}': all are of the splits dev or test")
    seed = _options.draw_seed(seed)
    learn, choose = dataset.split_by_instrument(notes, share=SHARE_HELD_OUT, seed=seed)
    _console.say(f"{_census(learn)}; {len(choose):,} notes of other instruments to choose by; seed {seed}", quiet=quiet)
    if not choose:
        _console.say("Warning: each family has one instrument only: nothing to choose the weights by", quiet=quiet)

    from ..audio import fit as fitting
    from ..audio.classifier import NoteClassifier
    from ..audio.training import Recipe

    bf16 = resolve_bf16(precision, "cpu")
    if minutes is None and steps is None:
        minutes = 10.0
    recipe = Recipe(steps=steps, seconds=minutes * 60 if minutes is not None else None, seed=seed, bf16=bf16)
    prepared = _prepare(learn, versions=versions, seed=seed, quiet=quiet)
    held_out = _prepare(choose, versions=1, seed=seed, quiet=quiet) if choose else None
    last, best = None, None
    for event in fitting.fit(prepared, held_out, recipe):
        if isinstance(event, NoteClassifier):
            event.card = {
                "data": str(data),
                "command": f"musiclm classifier train {data} -o {output} --seed {seed} --versions {versions}"
                + (f" --minutes {minutes:g}" if minutes is not None else "")
                + (f" --steps {steps}" if steps is not None else ""),
                "num_notes": len(prepared.notes),
                "figures": {"validation_mean_family_recall": best},
            }
            event.save(output)
            continue
        last = event
        best = event.recall if event.is_best else best
        recall = "" if event.recall is None else f"  held-out mean family recall {event.recall:.3f}"
        mark = "  best" if event.is_best and event.recall is not None else ""
        _console.say(
            f"step {event.step:,}  {_console.duration(event.seconds)}  train {event.loss:.4f} nats{recall}{mark}",
            quiet=quiet,
        )
    if as_json and last is not None:
        _console.print_json(
            {
                "classifier": str(output),
                "seed": seed,
                "num_notes": len(prepared.notes),
                "steps": last.step,
                "seconds": round(last.seconds, 1),
                "validation_mean_family_recall": best,
            }
        )
    else:
        click.echo(output)


@command.command("evaluate", epilog="Example: musiclm classifier evaluate nsynth-test/ -o confusion.png")
@click.argument("data", metavar="DIR", type=click.Path(path_type=Path))
@model_option
@click.option(
    "--split", type=click.Choice(["train", "validation", "dev", "test", "all"]), default="all", show_default=True
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Draw the confusion matrix: a PNG file.")
@_options.force
@_options.json_output
@_options.quiet
def evaluate(
    data: Path, model: str | None, split: str, output: Path | None, force: bool, as_json: bool, quiet: bool
) -> None:
    """Measure a classifier on a set of labelled notes (DIR: as in train).

    The headline is the mean family recall, in which families weigh the same.
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
    targets, predictions, dropped = _listen(classifier, notes, quiet=quiet)
    import torch

    probabilities = torch.tensor([[p.probabilities[f] for f in FAMILIES] for p in predictions])
    report: dict[str, Any] = {"model": model or "bundled", "data": str(data), "split": split, "dropped": dropped}
    report |= metrics.report(probabilities, torch.tensor(targets), [p.unsure for p in predictions])
    if output is not None:
        from ..audio import plots

        write_whole(output, plots.confusion(report), force=force)
        _console.say(f"drew {output}", quiet=quiet)
    if as_json:
        _console.print_json(report)
    else:
        _print_report(report)


@command.command("show", epilog="Example: musiclm classifier show -o pictures/ --data notes/ --note cello.wav")
@model_option
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The folder for the pictures.")
@click.option(
    "--data", metavar="DIR", type=click.Path(path_type=Path), help="Notes to find what excites each kernel most."
)
@click.option(
    "--note", metavar="FILE", type=click.Path(path_type=Path), help="A recording to draw the saliency map of."
)
@_options.force
@_options.quiet
def show(model: str | None, output: Path, data: Path | None, note: Path | None, force: bool, quiet: bool) -> None:
    """Draw what the classifier learnt: its first kernels, the notes that excite each most, where it looks in a note."""
    wanted = ["kernels.png"] + (["excitation.png"] if data else []) + (["saliency.png"] if note else [])
    if output.exists() and not output.is_dir():
        raise OutputError(f"'{output}' is a file: name a folder")
    if not output.is_dir():
        if not output.parent.is_dir():
            raise OutputError(f"no folder '{output.parent}': make it, or choose another place")
        output.mkdir()
    for name in wanted:
        _check_png(output / name, force=force)
    from ..audio import classifier, dataset, plots
    from ..audio import io as audio_io

    loaded = classifier.NoteClassifier.load(model)
    write_whole(output / "kernels.png", plots.kernels(loaded), force=force)
    if data is not None:
        prepared = _prepare(dataset.read_notes(data), versions=1, seed=0, quiet=quiet)
        write_whole(output / "excitation.png", plots.excitation(loaded, prepared), force=force)
    if note is not None:
        try:
            picture = classifier.loudest_picture(audio_io.read(note).audio)
        except AudioError as error:
            raise AudioError(f"{note}: {error}") from error
        write_whole(output / "saliency.png", plots.saliency(loaded, picture, note.name), force=force)
    for name in wanted:
        click.echo(output / name)


def _check_png(path: Path, *, force: bool) -> None:
    if path.suffix.lower() != ".png":
        raise OutputError(f"'{path}' is no PNG: name a file that ends in .png")
    check_writable(path, force=force)
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise OutputError("pictures need matplotlib: pip install 'musiclm[pictures]'")


def _census(notes: Sequence[LabelledNote]) -> str:
    families = {n.family for n in notes}
    instruments = {(n.family, n.instrument) for n in notes}
    return f"{len(notes):,} notes of {len(instruments):,} instruments in {len(families)} families to learn from"


def _prepare(notes: Sequence[LabelledNote], *, versions: int, seed: int, quiet: bool) -> PreparedNotes:
    """Return notes prepared for training, with a bar on a terminal; says what could not be read."""
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


def _listen(classifier: Any, notes: Sequence[LabelledNote], *, quiet: bool) -> tuple[list[int], list[Any], int]:
    """Return (families' numbers, predictions, how many could not be read) of notes, heard as `classify` hears them."""
    from ..audio import FAMILIES
    from .classify import hear_all

    targets, predictions, dropped = [], [], 0
    heard = hear_all(classifier, [str(n.path) for n in notes], quiet=quiet)
    for note, (known, found) in zip(notes, heard, strict=True):
        if "error" in known:
            dropped += 1
            _console.say(f"left out: {note.path}: {known['error']}", quiet=quiet or dropped > 5)
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
    table.add_column("plays", no_wrap=True, min_width=10)
    for header in ("notes", "recall", *(f[:4] for f in families)):
        table.add_column(header, justify="right", no_wrap=True)
    for family, row in zip(families, report["confusion"], strict=True):
        told = report["families"][family]
        recall = "" if told["recall"] is None else f"{told['recall']:.2f}"
        table.add_row(family, str(told["num_notes"]), recall, *(str(n) if n else "·" for n in row))
    console.print(table)
    sure = report["accuracy_when_sure"]
    console.print(
        f"\nmean family recall {report['mean_family_recall']:.3f} (chance {report['chance']:.3f}), "
        f"right {report['accuracy']:.3f} of {report['num_notes']:,} notes,\n"
        f"calibration error {report['calibration_error']:.3f}, unsure {report['unsure']:.3f}"
        + (f", right when sure {sure:.3f}" if sure is not None else "")
    )
