"""musiclm compare."""

from __future__ import annotations

import dataclasses
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..devices import resolve_device
from ..errors import CorpusError, MusicLMError
from . import _console, _options, _training

if TYPE_CHECKING:
    from ..comparison import Comparison

MINUTES = 3.0  # for each architecture, if no budget is given


GROUPS = {
    "Budget of each": ["minutes", "steps", "epochs"],
    "Models and data": ["archs", "preset", "tokenizer"],
    "Memory and speed instead": ["lengths"],
    "Samples and measures": ["prompt", "prompt_bars", "bars", "samples", "most_tokens"],
    "Computation": ["seed", "device", "precision"],
    "Run and output": ["output", "resume", "as_json", "quiet", "verbose"],
}


@click.command(
    "compare",
    cls=_options.GroupedCommand,
    groups=GROUPS,
    epilog="Examples: musiclm compare --minutes 3; musiclm compare my_midis/ --archs lstm,transformer -o lecture; "
    "musiclm compare --resume lecture; musiclm compare --archs lstm --lengths 512,1024,2048,4096,8192",
)
@click.argument("data", required=False)
@click.option("--archs", metavar="NAMES", help="Separated by commas; default: rnn,lstm,gru,transformer.")
@click.option("--preset", type=click.Choice(["tiny", "small", "base"]), help="Size of the models; default: small.")
@click.option(
    "--lengths",
    metavar="LIST",
    help="Train nothing, but measure memory of a training step and tokens/s of training and generation at these context "
    "lengths, such as 512,1024,2048,4096,8192.",
)
@click.option("-o", "--output", metavar="FOLDER", help="Default: a new folder such as compare-001.")
@click.option(
    "--minutes", type=_options.FloatRange(0, min_open=True), metavar="M", help="Budget of each: minutes; default: 3."
)
@click.option("--steps", type=click.IntRange(1), metavar="N", help="Budget of each: steps.")
@click.option("--epochs", type=_options.FloatRange(0, min_open=True), metavar="E", help="Budget: passes over the data.")
@click.option("--resume", metavar="FOLDER", help="Continue a comparison; a budget given with it is the new total.")
@click.option("--tokenizer", metavar="NAME[:JSON]", help="As for 'musiclm train'.")
@click.option(
    "--prompt", metavar="FILE", help="MIDI file that each model continues; default: the start of a test piece."
)
@click.option(
    "--prompt-bars", type=click.IntRange(1), metavar="N", help="Only the first N bars of the prompt; default: 4."
)
@click.option("--bars", type=click.IntRange(1), metavar="N", help="Length of samples and continuations; default: 16.")
@click.option("--samples", type=click.IntRange(3, 256), metavar="N", help="Samples of each model; default: 16.")
@click.option(
    "--most-tokens",
    type=click.IntRange(1),
    metavar="N",
    help="Tokens measured per split; default: 200000.",
)
@_options.seed
@_options.device
@_options.precision
@_options.json_output
@_options.quiet
def command(resume: str | None, lengths: str | None, as_json: bool, quiet: bool, **asked: Any) -> None:
    """Train several architectures on the same DATA, and compare them.

    Data, tokenizer, budget and seed are the same for each. DATA is as for 'musiclm train'; default: the bundled
    chorales. The tables show the losses next to trivial baselines, and the musical statistics of samples next to those
    of real pieces. Each model continues the same prompt. It can be interrupted at any time; --resume continues.

    With --lengths it trains nothing: it tabulates and plots memory and speed against context length, with fitted
    exponents, beside naive attention, whose T x T scores are stored. It takes one thread, unless OMP_NUM_THREADS is set.
    """
    if lengths is not None:
        from . import _lengths

        _lengths.run(_names(asked["archs"]), lengths, asked, as_json=as_json, quiet=quiet)
        return
    comparison = _begun(**asked) if resume is None else _resumed(Path(resume), asked)
    _console.say(f"comparison {comparison.folder}: {_described(comparison)}", quiet=quiet)
    try:
        with _training.interrupts() as interrupts:
            report = _compared(comparison, interrupts, quiet=quiet)
    except KeyboardInterrupt:
        _console.say(f"\nStopped. To continue: musiclm compare --resume {shlex.quote(str(comparison.folder))}")
        sys.exit(interrupts.exit_code)
    except MusicLMError:
        if resume is None:
            comparison.discard()
        raise
    if as_json:
        _console.print_json(report)
    else:
        from . import _tables

        _tables.show_comparison(report)
    for arch, reason in report["diverged"].items():
        _console.say(f"Error: {arch}: {reason}")
    if report["diverged"]:
        sys.exit(1)


def _resumed(folder: Path, asked: dict[str, Any]) -> Comparison:
    """Return the comparison to continue, its budget renewed if one is given."""
    from ..comparison import Comparison

    if given := _training.given(beside=("resume", *_training.BUDGET, "as_json", "quiet", "verbose")):
        raise click.UsageError(
            f"--resume takes everything but the budget from the folder: leave out {', '.join(given)}"
        )
    comparison = Comparison.open(folder)
    budget = {name: asked[name] for name in _training.BUDGET}
    if any(value is not None for value in budget.values()):
        comparison.request = dataclasses.replace(comparison.request, **budget)
        comparison.write_request()
    return comparison


def _begun(
    *,
    data: str | None,
    archs: str | None,
    output: str | None,
    tokenizer: str | None,
    prompt: str | None,
    prompt_bars: int | None,
    seed: int | None,
    device: str,
    precision: str,
    **asked: Any,
) -> Comparison:
    """Return a new comparison; the other options are fields of `ComparisonConfig` with the same name."""
    from .. import tokenizers
    from ..comparison import PROMPT_BARS, Comparison, ComparisonConfig

    names = _names(archs)
    if prompt is None and prompt_bars is not None:
        raise click.UsageError("--prompt-bars needs a --prompt")
    if data is not None and not Path(data).exists():
        raise CorpusError(f"no folder or file '{data}'")
    if tokenizer is not None:
        tokenizers.check_name(tokenizer)
    score = None if prompt is None else _beginning(prompt, prompt_bars or PROMPT_BARS)
    if all(asked[name] is None for name in _training.BUDGET):
        asked["minutes"] = MINUTES
    request = ComparisonConfig(
        archs=names,
        data=None if data is None else str(Path(data).resolve()),
        tokenizer=tokenizer,
        seed=_options.draw_seed(seed),
        threads=_options.threads(),
        device=resolve_device(device),
        precision=None if precision == "auto" else precision,
        command=shlex.join(["musiclm", *sys.argv[1:]]),
        **{name: value for name, value in asked.items() if value is not None},
    )
    return Comparison.create(Path(output) if output else _training.new_folder(Path("compare")), request, score)


def _compared(comparison: Comparison, interrupts: _training.Interrupts, *, quiet: bool) -> dict[str, Any]:
    """Train and measure the remaining architectures, and return the report."""
    _ = comparison.corpus  # its errors appear before anything is trained
    for arch in comparison.request.archs:
        if comparison.measured(arch) is None:
            _train(comparison, arch, interrupts, quiet=quiet)
        if arch in comparison.diverged:
            _console.say(f"{arch}: training diverged, nothing to measure", quiet=quiet)
        elif comparison.measured(arch) is None:
            _console.say(f"{arch}: measuring and generating music", quiet=quiet)
            comparison.measure(arch)
        interrupts.check()
    _console.say("counting the baselines", quiet=quiet)
    return comparison.report()


def _train(comparison: Comparison, arch: str, interrupts: _training.Interrupts, *, quiet: bool) -> None:
    """Train the rest of an architecture's run, with a progress line on a terminal."""
    line = _training.Line(quiet=quiet)
    last_shown = 0.0
    steps = comparison.train(arch)
    try:
        for step, validation in steps:
            interrupts.check()
            interrupts.is_patient = True
            if validation is not None:
                line.say(
                    f"{arch}: step {step.number:,}  {_console.duration(step.seconds)}  "
                    f"validation {validation.validation_nats_per_token:.4f} nats/token"
                    f"{'  best' if validation.is_best else ''}"
                )
            elif line.is_live and time.monotonic() - last_shown > 0.5:
                last_shown = time.monotonic()
                left = step.seconds / step.progress - step.seconds if step.progress else 0.0
                line.show(f"{arch}: {step.progress:4.0%}  loss {step.nats:.3f}  {_console.duration(left)} left")
        interrupts.check()
    finally:
        interrupts.is_patient = False
        steps.close()  # saves the last step


def _names(archs: str | None) -> list[str]:
    from .. import models
    from ..comparison import ARCHS

    names = [name.strip() for name in archs.split(",")] if archs is not None else list(ARCHS)
    for name in names:
        if name not in models.names():
            available = ", ".join(models.names())
            raise click.BadParameter(f"no architecture '{name}': one of {available}", param_hint="--archs")
    if len(set(names)) < len(names):
        raise click.BadParameter("an architecture is named twice", param_hint="--archs")
    return names


def _beginning(prompt: str, num_bars: int) -> Any:
    """Return the first bars of a MIDI file."""
    from .. import midi

    score = midi.read(prompt)
    return midi.cut(score, 0.0, midi.bar_line(score, 0.0, num_bars))


def _described(comparison: Comparison) -> str:
    request = comparison.request
    budget = _training.budget(request.minutes, request.steps, request.epochs)
    data = request.data or "the bundled chorales"
    return f"{', '.join(request.archs)} {request.preset} on {data}, {budget} each, seed {request.seed}"
