"""musiclm tag train."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..devices import resolve_bf16, resolve_device
from ..errors import CorpusError, RunError
from ..files import check_writable
from . import _console, _options, _predictions, _training

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint
    from ..tagging.dataset import TagData
    from ..tagging.labels import LabelledFiles
    from ..tagging.model import Tagger
    from ..tagging.training import TagConfig
    from ..tokenizers.base import Tokenizer
    from ..training.checks import Check
    from ..training.optim import Recipe

DEFAULT_MINUTES = 2.0
ARCH, PRESET = "gru", "tiny"
MOST_LISTED = 5  # files that cannot be used
GROUPS = {
    "Data": ["column", "data", "min_pieces"],
    "Model": ["start_from", "frozen", "arch", "preset", "pooling", "tokenizer"],
    "Budget": ["minutes", "steps"],
    "Computation": ["learning_rate", "seed", "device", "precision"],
    "Output": ["output", "force", "as_json", "quiet", "verbose"],
}
model_option = click.option(
    "--model",
    metavar="TAGGER",
    help="A tagger's file, which 'musiclm tag train' makes, or its name; default: style-tagger.",
)
column_option = click.option(
    "--label", "column", metavar="NAME", help="The column of a table, or the kind of label of a corpus; default: label."
)
data_option = click.option(
    "--data", metavar="FOLDER", type=click.Path(path_type=Path), help="The folder of the files that a table names."
)


@click.command(
    "train",
    cls=_options.GroupedCommand,
    groups=GROUPS,
    epilog="Examples: musiclm tag train rock/ jazz/ -o mine.safetensors --minutes 2; then "
    "musiclm tag songs/ --model mine.safetensors",
)
@click.argument("sources", nargs=-1, required=True, metavar="CSV|CORPUS|FOLDER…")
@_options.output_file("The tagger's file to write.")
@column_option
@data_option
@click.option(
    "--min-pieces",
    type=click.IntRange(2),
    default=2,
    show_default=True,
    metavar="N",
    help="Leave out labels with fewer pieces.",
)
@click.option("--from", "start_from", metavar="MODEL", help="Start from the body of a language model.")
@click.option("--frozen", is_flag=True, help="Fit the head only, by logistic regression; with --from.")
@click.option("--arch", metavar="NAME", help=f"The architecture of the body; default: {ARCH}.")
@click.option("--preset", type=click.Choice(["tiny", "small", "base"]), help="Its size; default: tiny.")
@click.option("--pooling", type=click.Choice(["mean", "last", "attention"]), default="mean", show_default=True)
@click.option("--tokenizer", metavar="NAME", help="Default: score, without what a tagger does not read.")
@_options.minutes(DEFAULT_MINUTES)
@_options.steps
@click.option(
    "--learning-rate",
    type=_options.FloatRange(0, min_open=True),
    metavar="R",
    help="Default: that of the architecture.",
)
@_options.seed
@_options.device
@_options.precision
@_options.force
@_options.json_output
@_options.quiet
def train(
    sources: tuple[str, ...], output: Path, column: str | None, data: Path | None, min_pieces: int,
    start_from: str | None, frozen: bool, arch: str | None, preset: str | None, pooling: str, tokenizer: str | None,
    minutes: float | None, steps: int | None, learning_rate: float | None, seed: int | None, device: str,
    precision: str, force: bool, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Train a tagger on your labels.

    Each FOLDER is a label, with its MIDI files; a single folder stands for the folders in it. CSV is a table with the
    columns file, label and optionally split; CORPUS was built with labels. About a tenth of each label's pieces selects the
    weights; copies of a piece are in one split.

    Ctrl-C or SIGTERM saves the best tagger so far, unmeasured, once a validation has passed; before, nothing.
    """
    _check(start_from, frozen=frozen, arch=arch, preset=preset, tokenizer=tokenizer)
    check_writable(output, force=force)
    seed = _options.draw_seed(seed)
    with _training.interrupts() as interrupts:
        try:
            found, started, reads = _read(sources, column, data, start_from, tokenizer, min_pieces, seed, quiet=quiet)
            where = resolve_device(device)
            own_arch = started.arch if started is not None else arch or ARCH
            recipe = _recipe(minutes, steps, learning_rate, own_arch, seed, bf16=resolve_bf16(precision, where))
            config = _config(arch, preset, pooling, frozen=frozen)
            tagger, checks = _fitted(found, recipe, config, reads, started, where, interrupts, quiet=quiet)
            tagger.seen = found.seen()
            counts = dict(Counter(piece.label for piece in found.pieces("train")))
            command = shlex.join(["musiclm", "tag", "train", *_spelled(sources, seed, output)])
            tagger.card = {"data": ", ".join(sources), "command": command, "labels": counts}
            tagger.card["figures"] = _figures(tagger, found, interrupts, quiet=quiet)
            if interrupts.seen:
                tagger.card["interrupted_at_step"] = checks[-1].step
            tagger.save(output)
        except KeyboardInterrupt:
            _console.say("\nStopped. Nothing was saved.")
            sys.exit(interrupts.exit_code)
    _tell(tagger, found, checks, output, seed, is_interrupted=interrupts.seen, as_json=as_json, quiet=quiet)
    if interrupts.seen:
        sys.exit(interrupts.exit_code)


def _tell(
    tagger: Tagger,
    found: TagData,
    checks: list[Check],
    output: Path,
    seed: int,
    *,
    is_interrupted: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Print the result of a training: as JSON, or its file and what to do with it."""
    if as_json:
        document = {"tagger": str(output), "seed": seed, "arch": tagger.arch, "labels": list(tagger.labels)}
        document |= {"pieces": {split: len(found.pieces(split)) for split in ("train", "validation", "test")}}
        document |= {"steps": checks[-1].step, "seconds": round(checks[-1].seconds, 1)}
        _console.print_json(document | {"figures": tagger.card["figures"], "interrupted": is_interrupted})
    if is_interrupted:
        step = [check.step for check in checks if check.is_best][-1]
        _console.say(f"\nStopped and saved: the best tagger so far, of step {step:,}, is in '{output}'.")
        return
    if not as_json:
        click.echo(output)
    _console.say(f"Next: musiclm tag song.mid --model {shlex.quote(str(output))}", quiet=quiet)


def _check(
    start_from: str | None, *, frozen: bool, arch: str | None, preset: str | None, tokenizer: str | None
) -> None:
    """Check options against each other, before anything is read."""
    if frozen and start_from is None:
        raise click.UsageError("--frozen keeps the body of a language model: name one with --from")
    if start_from is not None and (arch or preset or tokenizer):
        raise click.UsageError(
            "--from brings architecture, size and tokenizer: leave out --arch, --preset, --tokenizer"
        )
    if arch is not None:
        from .. import models

        bodies = [*models.names(), *models.names(models.ENCODER)]
        if arch not in bodies:
            raise click.BadParameter(f"no architecture '{arch}': one of {', '.join(bodies)}", param_hint="--arch")
    if tokenizer is not None:
        from .. import tokenizers

        tokenizers.check_name(tokenizer)


def _read(
    sources: tuple[str, ...],
    column: str | None,
    data: Path | None,
    start_from: str | None,
    tokenizer: str | None,
    min_pieces: int,
    seed: int,
    *,
    quiet: bool,
) -> tuple[TagData, Checkpoint | None, Tokenizer]:
    """Return the pieces, the language model to start from, if there is one, and the tokenizer; say what was found."""
    from ..tagging.labels import find_labelled

    files = find_labelled(sources, column=column, data=data)
    say_missing(files, quiet=quiet)
    started, reads = _start(start_from, tokenizer)
    found = read(files, reads, min_pieces=min_pieces, quiet=quiet)
    _say_census(found, seed, quiet=quiet)
    return found, started, reads


def _start(start_from: str | None, tokenizer: str | None) -> tuple[Checkpoint | None, Tokenizer]:
    """Return the language model to start from, if there is one, and the tokenizer.

    Raises:
        RunError: the tokenizer has pairs.
    """
    from .. import checkpoint, tokenizers
    from ..tagging.dataset import TOKENIZER

    started = None if start_from is None else checkpoint.load(start_from)
    reads = tokenizers.parse(tokenizer or TOKENIZER) if started is None else started.tokenizer()
    if reads.is_paired:
        raise RunError(f"a tagger reads whole pieces, and '{reads.name}' makes pairs: take another tokenizer or model")
    return started, reads


def _recipe(
    minutes: float | None, steps: int | None, learning_rate: float | None, arch: str, seed: int, *, bf16: bool
) -> Recipe:
    """Return the recipe of a run, by default of `DEFAULT_MINUTES` and with the learning rate of the architecture."""
    from .. import models
    from ..tagging.training import WARM_UP
    from ..training.optim import Recipe

    if minutes is None and steps is None:
        minutes = DEFAULT_MINUTES
    return Recipe(
        steps=steps,
        seconds=None if minutes is None else 60 * minutes,
        learning_rate=learning_rate or models.training(arch)["learning_rate"],
        warmup_steps=WARM_UP,
        seed=seed,
        bf16=bf16,
    )


def _config(arch: str | None, preset: str | None, pooling: str, *, frozen: bool) -> TagConfig:
    from ..tagging.training import TagConfig

    return TagConfig(arch=arch or ARCH, preset=preset or PRESET, pooling=pooling, frozen=frozen)


def say_missing(files: LabelledFiles, *, quiet: bool) -> None:
    """Say which files of a table are not there, and what could not be read of folders and archives."""
    from ..tagging.labels import named

    for problem in files.problems:
        _console.say(f"Warning: {problem}")

    if files.missing:
        count = _console.counted(len(files.missing), "file")
        _console.say(f"not there: {count} of the table: {named(files.missing)}", quiet=quiet)


def read(files: LabelledFiles, tokenizer: Tokenizer, *, min_pieces: int, quiet: bool) -> TagData:
    """Return labelled files as pieces by split; say what was left out.

    Raises:
        CorpusError: none can be used, or fewer than two labels are left.
    """
    from ..tagging.dataset import TagPiece, read_pieces, split_pieces

    total = len(files.files)
    every = list(_predictions.with_progress(read_pieces(files.files, tokenizer), total, "reading", quiet=quiet))
    pieces = [each for each in every if isinstance(each, TagPiece)]
    failed = [each for each in every if not isinstance(each, TagPiece)]
    for each in failed[:MOST_LISTED]:
        _console.say(f"left out: {each.name}: {each.reason}", quiet=quiet)
    if len(failed) > MOST_LISTED:
        _console.say(f"left out: {len(failed) - MOST_LISTED:,} more", quiet=quiet)
    if not pieces:
        raise CorpusError(f"none of the {_console.counted(total, 'file')} can be used")
    found = split_pieces(pieces, min_pieces=min_pieces)
    for note in found.notes:
        _console.say(note, quiet=quiet)
    return found


def _say_census(found: TagData, seed: int, *, quiet: bool) -> None:
    counts = Counter(piece.label for piece in found.pieces("train"))
    labels = ", ".join(f"{label} {count:,}" for label, count in counts.most_common(12))
    more = f" and {len(counts) - 12} labels more" if len(counts) > 12 else ""
    held_out = f"{len(found.pieces('validation')):,} for validation, {len(found.pieces('test')):,} for testing"
    _console.say(f"training pieces: {labels}{more}; {held_out}; seed {seed}", quiet=quiet)


def _fitted(
    found: TagData,
    recipe: Recipe,
    config: TagConfig,
    tokenizer: Tokenizer,
    started: Checkpoint | None,
    device: str,
    interrupts: _training.Interrupts,
    *,
    quiet: bool,
) -> tuple[Tagger, list[Check]]:
    """Train, reporting each validation; return the tagger and the validations.

    Raises:
        KeyboardInterrupt: the run was interrupted before its first validation, or a second time.
    """
    from ..tagging.training import Labelled, train_tagger
    from ..training.checks import Check

    number = {label: i for i, label in enumerate(found.labels)}
    learn, choose = (
        [Labelled(piece.ids, number[piece.label]) for piece in found.pieces(split)] for split in ("train", "validation")
    )
    checks: list[Check] = []
    for event in train_tagger(
        learn,
        choose,
        recipe,
        config,
        labels=found.labels,
        tokenizer=tokenizer,
        start=started,
        device=device,
        should_stop=lambda: interrupts.seen,
    ):
        if not isinstance(event, Check):
            return event, checks
        checks.append(event)
        interrupts.is_patient = True  # from here on there is something to save
        _say_check(event, quiet=quiet)
    interrupts.check()
    raise RunError("the budget was used up before the first validation: give a larger one")


def _say_check(check: Check, *, quiet: bool) -> None:
    held_out = "" if check.figure is None else f"  validation {check.validation:.3f} nats, {check.figure:.0%} right"
    when = f"step {check.step:,}  {_console.duration(check.seconds)}  train {check.loss:.3f} nats"
    _console.say(f"{when}{held_out}{'  best' if check.is_best else ''}", quiet=quiet)


def _figures(tagger: Tagger, found: TagData, interrupts: _training.Interrupts, *, quiet: bool) -> dict[str, float]:
    """Return the figures of the held-out pieces; none if the run is interrupted, which does not wait for them."""
    interrupts.is_patient = False
    try:
        return {} if interrupts.seen else measured(tagger, found, quiet=quiet)
    except KeyboardInterrupt:
        return {}
    finally:
        interrupts.is_patient = True


def measured(tagger: Tagger, found: TagData, *, quiet: bool) -> dict[str, float]:
    """Return the figures of the held-out pieces for a card, and say them."""
    from ..tagging.measure import measure

    figures: dict[str, float] = {}
    for split in ("validation", "test"):
        if not found.pieces(split):
            continue
        report = measure(tagger, found.pieces(split))
        selected = " (they selected the weights)" if split == "validation" else ""
        figures |= {f"{split}_{name}": round(report[name], 4) for name in ("accuracy", "macro_f1", "majority")}
        _console.say(
            f"{split}: {report['accuracy']:.0%} of {_console.counted(report['num_pieces'], 'piece')} right "
            f"(always the most frequent label: {report['majority']:.0%}), macro-F1 {report['macro_f1']:.2f}{selected}",
            quiet=quiet,
        )
    return figures


def _spelled(sources: tuple[str, ...], seed: int, output: Path) -> list[str]:
    """Return the arguments of this command line for the card, with the seed."""
    context = click.get_current_context()
    given: list[str] = []
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        skipped = ("sources", "output", "seed", "force", "as_json", "quiet", "verbose")
        if parameter.name in skipped or source is not click.core.ParameterSource.COMMANDLINE:
            continue
        value = context.params.get(parameter.name or "")
        given += [parameter.opts[0]] if value is True else [parameter.opts[0], str(value)]
    return [*sources, "-o", str(output), *given, "--seed", str(seed)]
