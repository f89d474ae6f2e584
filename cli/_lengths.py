"""`musiclm compare --lengths`: memory and speed against context length."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..devices import resolve_bf16, resolve_device
from ..files import write_whole
from . import _console, _options, _training

if TYPE_CHECKING:
    from ..comparison.lengths import LengthsConfig

OPTIONS = ("lengths", "archs", "preset", "output", "seed", "device", "precision", "as_json", "quiet", "verbose")
TABLES = (
    ("activation_bytes", "memory, MB", 1e-6, "activation memory of a training step: peak of the forward and backward pass"),
    ("training_tokens_per_second", "training, tokens/s", 1.0, "forward and backward pass, without the optimizer's update"),
    ("generation_tokens_per_second", "generation, tokens/s", 1.0, "one token at that position, sampling included"),
)  # fmt: skip


def parsed(lengths: str) -> list[int]:
    """Return the lengths of --lengths, rising.

    Raises:
        click.BadParameter: one is not a whole number above 1, or is there twice.
    """
    found = []
    for word in lengths.split(","):
        if not word.strip().isdecimal() or not 2 <= int(word) <= 2**20:
            raise click.BadParameter(
                f"lengths are whole numbers of 2 to {2**20:,} tokens with commas between them, not '{word.strip()}'",
                param_hint="--lengths",
            )
        found.append(int(word))
    if len(set(found)) < len(found):
        raise click.BadParameter("a length is named twice", param_hint="--lengths")
    return sorted(found)


def run(names: list[str], lengths: str, options: dict[str, Any], *, as_json: bool, quiet: bool) -> None:
    """Measure, write results.json and two plots, and show the table or print the report."""
    from ..comparison import lengths as measuring
    from ..plotting import lengths as plots

    if other := _training.given(beside=OPTIONS):
        raise click.UsageError(f"--lengths measures untrained models and trains nothing: leave out {', '.join(other)}")
    config = _config(names, lengths, options)
    folder = Path(options["output"]) if options["output"] else _training.new_folder(Path("compare"))
    measuring.create_folder(folder)
    shown = ", ".join(f"{length:,}" for length in config.lengths)
    _console.say(f"comparison {folder}: {', '.join(config.names)} {config.preset} at {shown} tokens", quiet=quiet)
    try:
        report = _measured(config, folder, quiet=quiet)
    except KeyboardInterrupt:
        _say_stopped(folder)
        sys.exit(130)
    for name, picture in (("memory", plots.memory_picture), ("speed", plots.speed_picture)):
        write_whole(folder / f"{name}.png", picture(report))
    if as_json:
        _console.print_json(report | {"folder": str(folder)})
    else:
        show(report, folder)


def _config(names: list[str], lengths: str, options: dict[str, Any]) -> LengthsConfig:
    from ..comparison.lengths import LengthsConfig

    device = resolve_device(options["device"])
    return LengthsConfig(
        archs=names,
        lengths=parsed(lengths),
        preset=options["preset"] or "small",
        seed=options["seed"] or 0,
        threads=_options.threads() if os.environ.get("OMP_NUM_THREADS") else 1,
        device=device,
        bf16=resolve_bf16(options["precision"], device),
        command=shlex.join(["musiclm", *sys.argv[1:]]),
    )


def _measured(config: LengthsConfig, folder: Path, *, quiet: bool) -> dict[str, Any]:
    """Return the report, which is also written after each measurement."""
    from ..comparison import lengths as measuring

    costs: list[Any] = []
    total = len(config.names) * len(config.lengths)
    line = _training.Line(quiet=quiet)
    for arch, length, cost in measuring.measure(config):
        if cost is None:
            line.show(f"{len(costs)} of {total}: {arch} at {length:,} tokens")
            continue
        costs.append(cost)
        measuring.write_report(folder, measuring.report(config, costs))
        if cost.problem:
            line.say(f"{arch} at {length:,} tokens: {cost.problem}")
    line.say("measured")
    return measuring.report(config, costs)


def _say_stopped(folder: Path) -> None:
    """Say what an interrupted measurement has left, and remove its folder if that is nothing."""
    if (folder / "results.json").exists():
        _console.say(f"\nStopped. What was measured so far: {folder / 'results.json'}")
    else:
        folder.rmdir()
        _console.say("\nStopped before anything was measured.")


def show(report: dict[str, Any], folder: Path) -> None:
    """Print a table for each measure on standard output."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    threads = report["threads"]
    clock = "CPU seconds" if report["clock"] == "cpu" else "wall-clock seconds"
    console.print(
        f"preset {report['preset']}, batch size 1, {report['device']}, training in {report['training_precision']}, "
        f"{threads} thread{'s' * (threads != 1)}, {clock}\n"
    )
    last = _last(report)
    for measure, title, scale, _ in TABLES:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column(title, no_wrap=True)
        for length in report["lengths"]:
            table.add_column(f"{length:,}", justify="right", no_wrap=True)
        table.add_column("exponent", justify="right", no_wrap=True)
        for model in report["models"]:
            exponent = model["exponents"][measure]
            cells = [_cell(value, scale) for value in model[measure]]
            mark = "" if model["fitted_lengths"][measure] == last else "*"
            table.add_row(model["arch"], *cells, "" if exponent is None else f"{exponent:.2f}{mark}")
        console.print(table)
        console.print()
    if precisions := _precisions(report):
        console.print(f"weights in generation: {precisions}\n")
    _notes(console, report)
    console.print(f"{folder / 'results.json'}\n{folder / 'memory.png'}\n{folder / 'speed.png'}", markup=False)


def _notes(console: Any, report: dict[str, Any]) -> None:
    from ._tables import legend

    lines = [(title.split(",")[0], meaning) for _, title, _, meaning in TABLES]
    if fitted := report["fitted_lengths"]:
        lines.append(("exponent", f"e of T^e, least squares on the logarithms of the last {fitted} lengths"))
    values = [model[measure] for model in report["models"] for measure, *_ in TABLES]
    if any(None in each for each in values):
        lines.append(("-", "not measured, for the reason below"))
    console.print(legend(lines))
    for note in report["notes"]:
        console.print(f"[dim]{note}[/dim]")
    for model in report["models"]:
        for measure, title, *_ in TABLES:
            fitted = model["fitted_lengths"][measure]
            if fitted and fitted != _last(report):
                shown = ", ".join(f"{length:,}" for length in fitted)
                console.print(f"* {model['arch']}, {title.split(',')[0]}: fitted through {shown}", markup=False)
    for model in report["models"]:
        for length, problem in zip(report["lengths"], model["problems"], strict=True):
            if problem:
                console.print(f"{model['arch']} at {length:,} tokens: {problem}", markup=False)


def _last(report: dict[str, Any]) -> list[int]:
    """Return the lengths through which an exponent is fitted where all were measured."""
    count = report["fitted_lengths"]
    return report["lengths"][-count:] if count else []


def _precisions(report: dict[str, Any]) -> str:
    """Return the precision of the weights in generation, with the models that have it."""
    found: dict[str, list[str]] = {}
    for model in report["models"]:
        if precision := model["generation_precision"]:
            found.setdefault(precision, []).append(model["arch"])
    return "; ".join(f"{precision} {', '.join(archs)}" for precision, archs in found.items())


def _cell(value: float | None, scale: float) -> str:
    if value is None:
        return "-"
    scaled = value * scale
    return f"{scaled:,.0f}" if scaled >= 10 else f"{scaled:.1f}"
