"""musiclm tag train."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..devices import resolve_bf16, resolve_device
from ..errors import CorpusError, RunError
from ..files import check_writable
from . import _console, _options, _predictions

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint
    from ..tagging.dataset import TagData
    from ..tagging.labels import LabelledFiles
    from ..tagging.model import Tagger
    from ..tagging.training import Check
    from ..tokenizers.base import Tokenizer

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
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The tagger's file to write.")
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
@click.option("--frozen", is_flag=True, help="Train the head only; with --from.")
@click.option("--arch", metavar="NAME", help=f"The architecture of the body; default: {ARCH}.")
@click.option("--preset", type=click.Choice(["tiny", "small", "base"]), help="Its size; default: tiny.")
@click.option("--pooling", type=click.Choice(["mean", "last", "attention"]), default="mean", show_default=True)
@click.option("--tokenizer", metavar="NAME", help="Default: score, without what a tagger does not read.")
@click.option("--minutes", type=_options.FloatRange(0, min_open=True), metavar="M", help="Training budget; default: 2.")
@click.option("--steps", type=click.IntRange(1), metavar="N", help="Training budget.")
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
    """
    _check(start_from, frozen=frozen, arch=arch, preset=preset, tokenizer=tokenizer)
    check_writable(output, force=force)
    seed = _options.draw_seed(seed)
    from ..tagging.labels import find_labelled

    files = find_labelled(sources, column=column, data=data)
    say_missing(files, quiet=quiet)
    started, reads = _start(start_from, tokenizer)
    found = read(files, reads, min_pieces=min_pieces, quiet=quiet)
    _say_census(found, seed, quiet=quiet)
    from .. import models
    from ..tagging.training import TagConfig
    from ..training.optim import Recipe

    where = resolve_device(device)
    own_rate = models.training(started.arch if started is not None else arch or ARCH)["learning_rate"]
    if minutes is None and steps is None:
        minutes = DEFAULT_MINUTES
    recipe = Recipe(
        steps=steps,
        seconds=None if minutes is None else 60 * minutes,
        learning_rate=learning_rate or own_rate,
        warmup_steps=30,
        seed=seed,
        bf16=resolve_bf16(precision, where),
    )
    config = TagConfig(arch=arch or ARCH, preset=preset or PRESET, pooling=pooling, frozen=frozen)
    tagger, last = _fitted(found, recipe, config, reads, started, where, quiet=quiet)
    figures = measured(tagger, found, quiet=quiet)
    tagger.card = {
        "data": ", ".join(sources),
        "command": shlex.join(["musiclm", "tag", "train", *_spelled(sources, seed, output)]),
        "labels": dict(Counter(piece.label for piece in found.pieces("train"))),
        "figures": figures,
    }
    tagger.seen = found.seen()
    tagger.save(output)
    if as_json:
        document = {"tagger": str(output), "seed": seed, "arch": tagger.arch, "labels": list(tagger.labels)}
        document |= {"pieces": {split: len(found.pieces(split)) for split in ("train", "validation", "test")}}
        _console.print_json(document | {"steps": last.step, "seconds": round(last.seconds, 1), "figures": figures})
    else:
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
    recipe: Any,
    config: Any,
    tokenizer: Tokenizer,
    started: Checkpoint | None,
    device: str,
    *,
    quiet: bool,
) -> tuple[Tagger, Check]:
    """Train, reporting each validation; return the tagger and the last validation."""
    from ..tagging.training import Check, Labelled, train_tagger

    number = {label: i for i, label in enumerate(found.labels)}
    learn, choose = (
        [Labelled(piece.ids, number[piece.label]) for piece in found.pieces(split)] for split in ("train", "validation")
    )
    last = None
    events = train_tagger(
        learn, choose, recipe, config, labels=found.labels, tokenizer=tokenizer, start=started, device=device
    )
    for event in events:
        if not isinstance(event, Check):
            assert last is not None, "a run has at least one validation"
            return event, last
        last = event
        held_out = (
            "" if event.accuracy is None else f"  validation {event.validation:.3f} nats, {event.accuracy:.0%} right"
        )
        best = "  best" if event.is_best else ""
        when = f"step {event.step:,}  {_console.duration(event.seconds)}  train {event.loss:.3f} nats"
        _console.say(f"{when}{held_out}{best}", quiet=quiet)
    raise AssertionError("train_tagger yields the tagger at last, or raises")


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
