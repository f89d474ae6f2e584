"""musiclm classifier train."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..devices import resolve_bf16, resolve_device
from ..errors import CorpusError, DivergedError
from ..files import check_writable
from . import _console, _options, _training

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..audio.classifier import NoteClassifier
    from ..audio.dataset import LabelledNote
    from ..audio.fit import Check
    from ..audio.training import PreparedNotes, Recipe

DEFAULT_MINUTES = 10.0
SHARE_HELD_OUT = 0.1  # of the instruments of each family, if the set has no validation split
GROUPS = {
    "Budget": ["minutes", "steps"],
    "Model, data and computation": ["arch", "versions", "seed", "device", "precision"],
    "Output": ["output", "force", "as_json", "quiet", "verbose"],
}


@click.command(
    "train",
    cls=_options.GroupedCommand,
    groups=GROUPS,
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
    force: bool, as_json: bool, quiet: bool, minutes: float | None, steps: int | None,
) -> None:  # fmt: skip
    """Train a classifier on a set of labelled notes.

    DIR is an NSynth download, a folder with one folder per family (bass, brass, ...; the folders in it are
    instruments), or a CSV file with the columns file and family, and optionally instrument, source, split and weight.
    If the set has no validation split, a tenth of the instruments of each family is held out to select the weights.
    The splits dev and test are left out.

    Ctrl-C or SIGTERM saves the best classifier so far once a validation has passed; before, nothing.
    """
    from ..audio import models as note_models

    if arch is not None and arch not in note_models.names():
        available = ", ".join(note_models.names())
        raise click.BadParameter(f"no architecture '{arch}': one of {available}", param_hint="--arch")
    check_writable(output, force=force)
    seed, arch = _options.draw_seed(seed), arch or note_models.DEFAULT
    with _training.interrupts() as interrupts:
        try:
            learn, choose = _split(data, seed, quiet=quiet)
            where = resolve_device(device)
            recipe = _recipe(minutes, steps, arch, seed, bf16=resolve_bf16(precision, where))
            prepared = prepare(learn, versions=versions, seed=seed, quiet=quiet)
            held_out = prepare(choose, versions=1, seed=seed, quiet=quiet) if choose else None
            classifier, checks, diverged = _fitted(prepared, held_out, recipe, arch, where, interrupts, quiet=quiet)
            command = _command(data, output, arch, seed, versions, minutes, steps)
            classifier.card = _card(data, command, prepared, checks, interrupts)
            classifier.save(output)
        except KeyboardInterrupt:
            _console.say("\nStopped. Nothing was saved.")
            sys.exit(interrupts.exit_code)
    step = _best(checks).step
    if diverged is not None:
        advice = f"the best classifier before, of step {step:,}, is in '{output}'"
        raise DivergedError(diverged.what, diverged.step, advice) from diverged
    if as_json:
        _print_json(classifier, checks, output, seed, is_interrupted=interrupts.seen)
    if interrupts.seen:
        _console.say(f"\nStopped and saved: the best classifier so far, of step {step:,}, is in '{output}'.")
        sys.exit(interrupts.exit_code)
    if not as_json:
        click.echo(output)


def _recipe(minutes: float | None, steps: int | None, arch: str, seed: int, *, bf16: bool) -> Recipe:
    """Return the recipe of a run, by default of `DEFAULT_MINUTES`."""
    from ..audio import models as note_models
    from ..audio.training import Recipe

    if minutes is None and steps is None:
        minutes = DEFAULT_MINUTES
    seconds = None if minutes is None else 60 * minutes
    return Recipe(steps=steps, seconds=seconds, seed=seed, bf16=bf16, **note_models.training(arch))


def _command(
    data: Path, output: Path, arch: str, seed: int, versions: int, minutes: float | None, steps: int | None
) -> str:
    """Return the command of a run, with its seed and its budget."""
    from ..audio import models as note_models

    given = ["musiclm", "classifier", "train", str(data), "-o", str(output), "--seed", str(seed)]
    given += ["--versions", str(versions)]
    if arch != note_models.DEFAULT:
        given += ["--arch", arch]
    if minutes is None and steps is None:
        minutes = DEFAULT_MINUTES
    given += [] if minutes is None else ["--minutes", f"{minutes:g}"]
    given += [] if steps is None else ["--steps", str(steps)]
    return shlex.join(given)


def _card(
    data: Path, command: str, prepared: PreparedNotes, checks: Sequence[Check], interrupts: _training.Interrupts
) -> dict[str, Any]:
    """Return the card of a classifier."""
    card: dict[str, Any] = {"data": str(data), "command": command, "num_notes": len(prepared.notes)}
    card["figures"] = {"validation_mean_family_recall": _best(checks).recall}
    return card | ({"interrupted_at_step": checks[-1].step} if interrupts.seen else {})


def _best(checks: Sequence[Check]) -> Check:
    return [check for check in checks if check.is_best][-1]


def _print_json(
    classifier: NoteClassifier, checks: Sequence[Check], output: Path, seed: int, *, is_interrupted: bool
) -> None:
    """Print the result of a run as JSON."""
    document = {"classifier": str(output), "seed": seed, "num_notes": classifier.card["num_notes"]}
    document |= {"steps": checks[-1].step, "seconds": round(checks[-1].seconds, 1), **classifier.card["figures"]}
    _console.print_json(document | {"interrupted": is_interrupted})


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
    learn: PreparedNotes,
    choose: PreparedNotes | None,
    recipe: Recipe,
    arch: str,
    device: str,
    interrupts: _training.Interrupts,
    *,
    quiet: bool,
) -> tuple[NoteClassifier, list[Check], DivergedError | None]:
    """Train, reporting each check; return the classifier, the checks, and the error if training diverged after one.

    Raises:
        DivergedError: training diverged before the first check.
        KeyboardInterrupt: the run was interrupted before its first check, or a second time.
    """
    from ..audio import fit as fitting

    def should_stop() -> bool:
        return interrupts.seen

    classifier, checks = None, []
    try:
        for event in fitting.fit(learn, choose, recipe, arch=arch, device=device, should_stop=should_stop):
            if not isinstance(event, fitting.Check):
                classifier = event
                continue
            checks.append(event)
            interrupts.is_patient = True  # from here on there is something to save
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
    if classifier is None:
        raise KeyboardInterrupt  # a library swallowed it: see `Interrupts`
    return classifier, checks, None


def _census(notes: Sequence[LabelledNote]) -> str:
    counted = _console.counted
    instruments = counted(len({(n.family, n.instrument) for n in notes}), "instrument")
    families = len({n.family for n in notes})
    return f"{counted(len(notes), 'note')} of {instruments} in {families} families for training"


def prepare(notes: Sequence[LabelledNote], *, versions: int, seed: int, quiet: bool) -> PreparedNotes:
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
