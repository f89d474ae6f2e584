"""musiclm compare."""

from __future__ import annotations

import dataclasses
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import CorpusError, MusicLMError
from . import options, ui

if TYPE_CHECKING:
    from ..comparison import Comparison


@click.command(
    "compare",
    epilog="Examples: musiclm compare --minutes 3; musiclm compare my_midis/ --archs lstm,transformer -o lecture; "
    "musiclm compare --resume lecture",
)
@click.argument("data", required=False)
@click.option("--archs", metavar="NAMES", help="With commas; rnn,lstm,gru,transformer if left out.")
@click.option("--preset", type=click.Choice(["tiny", "small", "base"]), help="Size of the models; small if left out.")
@click.option("-o", "--output", metavar="FOLDER", help="Default: a new one, compare-001 for one.")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), metavar="M", help="Budget of each; 3 by default.")
@click.option("--steps", type=click.IntRange(1), metavar="N", help="Budget of each: steps.")
@click.option("--epochs", type=click.FloatRange(0, min_open=True), metavar="E", help="Budget: times through the data.")
@click.option("--resume", metavar="FOLDER", help="Go on with a comparison; a budget beside it is the new total.")
@click.option("--tokenizer", metavar="NAME[:JSON]", help="As for 'musiclm train'.")
@click.option("--prompt", metavar="FILE", help="MIDI that each model goes on from; default: a test piece's beginning.")
@click.option(
    "--prompt-bars", type=click.IntRange(1), metavar="N", help="Only the prompt's first N bars; 4 by default."
)
@click.option("--bars", type=click.IntRange(1), metavar="N", help="Of samples and continuations; 16 by default.")
@click.option("--samples", type=click.IntRange(3, 256), metavar="N", help="Pieces that each writes; 16 by default.")
@click.option("--most-tokens", type=click.IntRange(1), metavar="N", help="Measured of each split; 200000 by default.")
@options.seed
@options.device
@options.precision
@options.json_output
@options.quiet
def command(
    data: str | None,
    archs: str | None,
    preset: str | None,
    output: str | None,
    minutes: float | None,
    steps: int | None,
    epochs: float | None,
    resume: str | None,
    tokenizer: str | None,
    prompt: str | None,
    prompt_bars: int | None,
    bars: int | None,
    samples: int | None,
    most_tokens: int | None,
    seed: int | None,
    device: str,
    precision: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Train several architectures on the same DATA, and measure them side by side.

    Data, tokenizer, budget and seed are the same for each. DATA is as for 'musiclm train'; left out, the bundled
    chorales. Trivial baselines stand beside the models, statistics of what they write beside those of real pieces, and
    each goes on with the same prompt in a MIDI file. It can be stopped at any moment; --resume goes on.
    """
    ui.show_log(quiet=quiet)
    budget: dict[str, Any] = {"minutes": minutes, "steps": steps, "epochs": epochs}
    shaping = {
        "DATA": data,
        "--archs": archs,
        "--preset": preset,
        "-o": output,
        "--tokenizer": tokenizer,
        "--prompt": prompt,
        "--prompt-bars": prompt_bars,
        "--bars": bars,
        "--samples": samples,
        "--most-tokens": most_tokens,
        "--seed": seed,
    }
    from ..comparison import PROMPT_BARS, Comparison, Request

    if resume is not None:
        if given := [name for name, value in shaping.items() if value is not None]:
            raise click.UsageError(f"--resume takes all but the budget from the folder: leave out {', '.join(given)}")
        comparison = Comparison.open(Path(resume))
        if any(value is not None for value in budget.values()):
            comparison.request = dataclasses.replace(comparison.request, **budget)
            comparison.write_request()
    else:
        names = _names(archs)
        if prompt is None and prompt_bars is not None:
            raise click.UsageError("--prompt-bars needs a --prompt")
        if data is not None and not Path(data).exists():
            raise CorpusError(f"no folder or file '{data}'")
        if tokenizer is not None:
            from .. import tokens

            tokens.check_name(tokenizer)
        score = None if prompt is None else _beginning(prompt, prompt_bars or PROMPT_BARS)
        asked: dict[str, Any] = {
            "preset": preset,
            "samples": samples,
            "bars": bars,
            "most_tokens": most_tokens,
            **budget,
        }
        if all(value is None for value in budget.values()):
            asked["minutes"] = 3.0
        request = Request(
            archs=names,
            data=None if data is None else str(Path(data).resolve()),
            tokenizer=tokenizer,
            seed=options.draw_seed(seed),
            threads=options.threads(),
            device=options.resolve_device(device),
            precision=None if precision == "auto" else precision,
            command=shlex.join(["musiclm", *sys.argv[1:]]),
            **{name: value for name, value in asked.items() if value is not None},
        )
        comparison = Comparison.create(Path(output) if output else _new_folder(), request, score)
    ui.say(f"comparison {comparison.folder}: {_described(comparison)}", quiet=quiet)
    interrupted: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: _interrupt(interrupted, number))
    try:
        _ = comparison.corpus  # before anything is trained
        for arch in comparison.request.archs:
            if comparison.measured(arch) is None:
                _train(comparison, arch, interrupted, quiet=quiet)
                ui.say(f"{arch}: measuring and writing music", quiet=quiet)
                comparison.measure(arch)
            if interrupted:  # Ctrl-C while libraries were imported, some of which swallow it
                raise KeyboardInterrupt
        ui.say("counting the baselines", quiet=quiet)
        report = comparison.report()
    except KeyboardInterrupt:
        ui.say(f"\nStopped. To go on: musiclm compare --resume {shlex.quote(str(comparison.folder))}")
        sys.exit(130)
    except MusicLMError:
        if resume is None:
            comparison.discard()
        raise
    finally:
        signal.signal(signal.SIGINT, before)
    if as_json:
        ui.print_json(report)
        return
    from . import tables

    tables.show_comparison(report)


def _train(comparison: Comparison, arch: str, interrupted: list[int], *, quiet: bool) -> None:
    """Train what is left of an architecture's run, showing on a terminal how far it is."""
    live = ui.is_terminal() and not quiet
    last_said = 0.0
    steps = comparison.train(arch)
    try:
        for step, validation in steps:
            if interrupted:
                raise KeyboardInterrupt
            if validation is not None:
                line = (
                    f"{arch}: step {step.number:,}  {ui.duration(step.seconds)}  "
                    f"validation {validation.validation_nats_per_token:.4f} nats/token"
                    f"{'  best' if validation.is_best else ''}"
                )
                ui.say(("\r\x1b[K" if live else "") + line, quiet=quiet)
            elif live and time.monotonic() - last_said > 0.5:
                last_said = time.monotonic()
                left = step.seconds / step.progress - step.seconds if step.progress else 0.0
                line = f"{arch}: {step.progress:4.0%}  loss {step.nats:.3f}  {ui.duration(left)} left"
                click.echo(f"\r\x1b[K{line[:79]}", err=True, nl=False)
    finally:
        steps.close()  # saves where it stands


def _interrupt(interrupted: list[int], number: int) -> None:
    interrupted.append(number)
    raise KeyboardInterrupt


def _names(archs: str | None) -> list[str]:
    from .. import models
    from ..comparison import ARCHS

    names = [name.strip() for name in archs.split(",")] if archs is not None else list(ARCHS)
    for name in names:
        if name not in models.names():
            known = ", ".join(models.names())
            raise click.BadParameter(f"no architecture '{name}': one of {known}", param_hint="--archs")
    if len(set(names)) < len(names):
        raise click.BadParameter("the same architecture twice", param_hint="--archs")
    return names


def _beginning(prompt: str, num_bars: int) -> Any:
    """Return the first bars of a MIDI file."""
    from .. import scores

    score = scores.read(prompt)
    return scores.cut(score, 0.0, scores.bar_line(score, 0.0, num_bars))


def _described(comparison: Comparison) -> str:
    request = comparison.request
    budget = [ui.counted(request.minutes, "minute")] if request.minutes else []
    budget += [ui.counted(request.steps, "step")] if request.steps else []
    budget += [ui.counted(request.epochs, "epoch")] if request.epochs else []
    data = request.data or "the bundled chorales"
    return f"{', '.join(request.archs)} {request.preset} on {data}, {' or '.join(budget)} each, seed {request.seed}"


def _new_folder() -> Path:
    number = 1
    while (folder := Path(f"compare-{number:03d}")).exists():
        number += 1
    return folder
