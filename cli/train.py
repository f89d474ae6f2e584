"""musiclm train."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import MusicLMError, RunError
from . import _console, _options, _ranks, _train_runs, _training

if TYPE_CHECKING:
    from ..training.config import TrainConfig
    from ..training.loop import Step
    from ..training.metrics import Validation
    from ..training.run import Run


GROUPS = {
    "Budget": ["minutes", "steps", "epochs", "patience"],
    "Model": ["arch", "preset", "layers", "start_from", "frozen", "context", "dropout", "settings"],
    "Data": ["tokenizer", "weights", "crops", "window", "batch_size"],
    "Optimization": ["learning_rate", "accumulation", "teachers", "seed", "device", "precision", "compiled"],
    "Run and output": ["output", "resume", "force", "as_json", "quiet", "verbose"],
}


@click.command(
    "train",
    cls=_options.GroupedCommand,
    groups=GROUPS,
    epilog="Examples: musiclm train --arch lstm --minutes 3; musiclm train my_midis/ --from score; "
    "musiclm train --resume runs/mine",
)
@click.argument("data", required=False)
@click.option(
    "--arch",
    metavar="NAME",
    help="rnn, lstm, gru, absolute, transformer (the default), rotary, transformer_xl, linear, performer, longformer "
    "or reformer.",
)
@click.option("--preset", type=click.Choice(["tiny", "small", "base"]), help="Size of the model; default: small.")
@click.option("-o", "--output", metavar="FOLDER", help="The run folder; default: a new folder in runs/.")
@click.option(
    "--minutes", type=_options.FloatRange(0, min_open=True), metavar="M", help="Budget: minutes; 10 without a budget."
)
@click.option("--steps", type=click.IntRange(1), metavar="N", help="Budget: steps.")
@click.option("--epochs", type=_options.FloatRange(0, min_open=True), metavar="E", help="Budget: passes over the data.")
@click.option("--resume", metavar="RUN", help="Continue a run; a budget given with it is the new total.")
@click.option("--from", "start_from", metavar="MODEL", help="Fine-tune: start from the weights of a checkpoint.")
@click.option(
    "--frozen",
    is_flag=True,
    help="With --from and --arch seq2seq_transformer: keep the weights of the decoder that come from the model.",
)
@click.option(
    "--teacher",
    "teachers",
    multiple=True,
    metavar="MODEL",
    help="Distil from this checkpoint as well; repeat for an ensemble of teachers.",
)
@click.option(
    "--tokenizer",
    metavar="NAME[:JSON]",
    help="score, performance, grid, or one of MidiTok's with its options, for example 'TSD:{\"num_velocities\": 8}'; "
    "default: grid for the chorales, else score.",
)
@click.option("--weight", "weights", multiple=True, metavar="FOLDER=W", help="Sampling weight of a folder in DATA.")
@click.option(
    "--crops",
    type=click.Choice(["random", "contiguous"]),
    help="Random parts of pieces, or pieces from beginning to end with the model's state carried from crop to crop: rnn, "
    "lstm, gru, transformer_xl. Default: random; contiguous for transformer_xl.",
)
@click.option("--batch-size", type=click.IntRange(1), metavar="B", help="Training sequences per step.")
@click.option(
    "--grad-accumulation",
    "accumulation",
    type=click.IntRange(1),
    default=1,
    metavar="N",
    help="Compute each batch in N parts, one after the other, which takes less memory; the gradient is that of the whole.",
)
@click.option("--window", type=click.IntRange(8), metavar="T", help="Tokens per training sequence.")
@click.option(
    "--context",
    type=click.IntRange(2),
    metavar="T",
    help="Tokens that a transformer attends to; the window grows with it.",
)
@click.option(
    "--learning-rate",
    type=_options.FloatRange(0, 1e30, min_open=True),  # the optimizers refuse what overflows in float32
    metavar="R",
    help="Peak learning rate; with --resume that of the rest of the run.",
)
@click.option(
    "--dropout", type=_options.FloatRange(0, 1, max_open=True), metavar="P", help="Dropout instead of the preset's."
)
@click.option("--layers", type=click.IntRange(1), metavar="N", help="Depth of the model instead of the preset's.")
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=N", help="A hyperparameter of the model: --set size=192."
)
@click.option(
    "--patience",
    type=click.IntRange(1),
    metavar="N",
    help="Stop early after N validations without improvement; 5 with --from, else never.",
)
@click.option("--compile", "compiled", is_flag=True, help="Use torch.compile; the first step takes half a minute.")
@_options.seed
@_options.device
@_options.precision
@_options.force
@_options.json_output
@_options.quiet
def command(resume: str | None, force: bool, as_json: bool, quiet: bool, **asked: Any) -> None:
    """Train a model on DATA: a corpus, an archive, a folder of MIDI files or one file; default: the bundled chorales.

    Training can be interrupted at any time; --resume continues exactly.

    --from fine-tunes: with a lower learning rate, a dropout of at least 0.1 and the tokenizer of the model. It stops early
    when the validation loss no longer improves. The best checkpoint is kept, even if it is the one it started from.
    With --arch seq2seq_transformer the decoder starts from the model, a transformer, and DATA is a corpus of pairs.
    """
    ranks = _ranks.joined(resume, asked["device"])
    run = _ranks.opened(
        ranks,
        lambda: _train_runs.begun(force=force, **asked) if resume is None else _train_runs.resumed(Path(resume), asked),
    )
    quiet |= not ranks.is_first
    among = f" by {ranks.size} processes" if ranks.size > 1 else ""
    _console.say(f"run {run.folder}: {_described(run.plan)}{among}, seed {run.plan.seed}", quiet=quiet)
    try:
        _train(run, is_new=resume is None, as_json=as_json, quiet=quiet)
    except MusicLMError as error:
        if resume is None:
            run.discard()
        if _ranks.end_silently(ranks, error):
            sys.exit(1)
        raise
    finally:
        ranks.leave()


def _train(run: Run, *, is_new: bool, as_json: bool, quiet: bool) -> None:
    """Train a run to its end or to Ctrl-C, and report the result."""
    from ..training.ranks import FailedElsewhere

    step, tokens_per_second, exit_code = None, 0.0, 0
    try:
        with _training.interrupts(quiet=not run.ranks.is_first) as interrupts:
            steps = run.train(should_stop=lambda: interrupts.seen)
            try:
                for followed in _followed(run, steps, quiet=quiet):
                    step, tokens_per_second = followed
                    interrupts.is_patient = True
                stopped_because = run.stopped_because
            except KeyboardInterrupt:
                stopped_because = "interrupted"
                steps.close()
            exit_code = interrupts.exit_code if stopped_because == "interrupted" else 0
        if step is None and stopped_because == "budget":
            if not run.ranks.is_first:
                raise FailedElsewhere("the budget of the run is used up")
            raise RunError(f"the budget of the run '{run.folder}' is used up: give a larger one with --resume")
    finally:
        run.close()
    if stopped_because == "interrupted" and run.ranks.is_first:
        if is_new and run.saved_step is None:
            run.discard()
        _console.say(f"\n{_stopped(run, step)}")
    if run.ranks.is_first:
        _tell(run, _result(run, step, tokens_per_second, stopped_because), as_json=as_json, quiet=quiet)
    if exit_code:
        sys.exit(exit_code)


def _stopped(run: Run, step: Step | None) -> str:
    """Return what is left of a run that was interrupted after a step, or before its first one, and how to continue."""
    if run.saved_step is None:
        return "Stopped. Nothing was saved."
    again = f"To continue: musiclm train --resume {shlex.quote(str(run.folder))}"
    if step is None or step.number == run.saved_step:
        return f"Stopped and saved. {again}"
    return f"Stopped. Step {run.saved_step:,} was saved last. {again}"


def _tell(run: Run, result: dict[str, Any], *, as_json: bool, quiet: bool) -> None:
    """Print the result of a run: as JSON, or its checkpoint and what to do with it."""
    if as_json:
        _console.print_json(result)
        return
    if result["stopped_because"] == "interrupted":
        return
    click.echo(str(_best(run)))
    if result["stopped_because"] == "validation":
        patience = _console.counted(run.plan.patience or 0, "validation")
        _console.say(
            f"stopped early: {patience} without improvement; the best checkpoint, of step {run.best_step:,}, is kept",
            quiet=quiet,
        )
    from .. import checkpoint

    command = _console.next_command(str(checkpoint.load(str(_best(run))).tokenizer_description["name"]))
    _console.say(
        f"best validation {run.best:.4f} nats/token. Next: {command} --model {shlex.quote(str(run.folder))}",
        quiet=quiet,
    )


def _best(run: Run) -> Path:
    return run.folder / "best.safetensors"


def _result(run: Run, step: Step | None, tokens_per_second: float, stopped_because: str) -> dict[str, Any]:
    """Return the result of a run after its last step, as --json prints it; the step is None if none was taken."""
    last = run.last_validation or {}
    return {
        "checkpoint": str(_best(run)) if _best(run).exists() else None,
        "arch": run.plan.arch,
        "num_parameters": step.model.num_parameters if step else None,
        "steps": step.number if step else last.get("step", 0),
        "tokens": step.tokens if step else last.get("tokens", 0),
        "tokens_per_second": tokens_per_second,
        "best_validation_nats_per_token": run.best if _best(run).exists() else None,
        "stopped_because": stopped_because,
    }


def _followed(
    run: Run, steps: Iterable[tuple[Step, Validation | None]], *, quiet: bool
) -> Iterator[tuple[Step, float]]:
    """Yield each step with the tokens/s since the first one, showing the progress of the run."""
    from ._sparkline import sparkline, thinned

    line = _training.Line(quiet=quiet)
    began, first_tokens, last_shown, tokens_per_second = 0.0, None, time.monotonic(), 0.0
    losses: list[float] = []  # smoothed, one point each time the line is shown
    smooth = None
    for step, validation in steps:
        now = time.monotonic()
        smooth = step.nats if smooth is None else smooth + 0.05 * (step.nats - smooth)
        if first_tokens is None:
            began, first_tokens = now, step.tokens
            if run.before is not None:
                _console.say(f"before: validation {run.before:.4f} nats/token", quiet=quiet)
        elif now > began:
            tokens_per_second = (step.tokens - first_tokens) / (now - began)
        if validation is not None:
            line.say(
                f"step {step.number:,}  {_console.duration(step.seconds)}  train {validation.train_nats_per_token:.4f}  "
                f"validation {validation.validation_nats_per_token:.4f} nats/token"
                f"{'  best' if validation.is_best else ''}"
            )
        elif line.is_live and now - last_shown > 0.5:
            last_shown = now
            losses.append(smooth)
            left = step.seconds / step.progress - step.seconds if step.progress else 0.0
            line.show(
                f"{step.progress:4.0%}  loss {smooth:.3f}  {sparkline(thinned(losses, 16), 16)}  "
                f"{tokens_per_second:,.0f} tokens/s  {_console.duration(left)} left"
            )
        yield step, tokens_per_second


def _described(plan: TrainConfig) -> str:
    what = f"{plan.arch} from {plan.start_from}" if plan.start_from else f"{plan.arch} {plan.preset}"
    budget = _training.budget(plan.minutes, plan.steps, plan.epochs)
    return f"{what} on {plan.data or 'the bundled chorales'} for {budget}"
