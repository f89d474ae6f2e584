"""Options of commands: those that several have, those that are made of dataclass fields, and help under headings."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from ..generation.options import Option, OptionError, options
from . import _console


class FloatRange(click.FloatRange):
    """Finite numbers within a range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class GroupedCommand(click.Command):
    """A command whose help shows its options under headings.

    Use: `@click.command("train", cls=GroupedCommand, groups={"Data": ["data", "tokenizer"], "Model": [...]})`.

    Args:
        groups: headings in their order, each with the names of its options as the command's function takes them. Options
            without a heading come last.

    Raises:
        ValueError: a name is no option of the command.
    """

    def __init__(self, *args: Any, groups: Mapping[str, Sequence[str]], **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.groups = groups
        known = {parameter.name for parameter in self.params if isinstance(parameter, click.Option)}
        if unknown := sorted({name for names in groups.values() for name in names} - known):
            raise ValueError(f"'{self.name}' has no option '{unknown[0]}' to show in its help")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        shown = {p.name: p.get_help_record(ctx) for p in self.get_params(ctx) if isinstance(p, click.Option)}
        grouped = {heading: [shown.pop(name) for name in names] for heading, names in self.groups.items()}
        for heading, records in (grouped | {"Other options": list(shown.values())}).items():
            if lines := [record for record in records if record is not None]:
                with formatter.section(heading):
                    formatter.write_dl(lines, col_max=26)


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def from_fields(kind: type, names: Collection[str] | None = None, helps: Mapping[str, str] | None = None) -> Decorator:
    """Return a decorator that gives a command an option for each option of a dataclass; see `generation.options`.

    They come as keyword arguments, by the names of the fields.

    Args:
        kind: the dataclass.
        names: of the options that the command has; all of them if left out.
        helps: what the help says of some of them instead, by their names.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for name, (declared, value_type, default) in reversed(options(kind).items()):
            if names is not None and name not in names:
                continue
            said = dataclasses.replace(declared, help=(helps or {}).get(name, declared.help))
            command = _click_option(name, said, value_type, default)(command)
        return command

    return decorate


def _click_option(name: str, declared: Option, value_type: type, default: Any) -> Decorator:
    flag = option_name(name)
    if value_type is bool:
        flags = f"{flag}/{flag.replace('--', '--no-', 1)}" if default is not False else flag
        return click.option(flags, name, is_flag=True, default=default, help=declared.help)
    click_type: Any = value_type
    if declared.choices is not None:
        click_type = click.Choice(declared.choices)
    elif value_type in (int, float) and (declared.min, declared.max) != (None, None):
        if value_type is int:
            click_type = click.IntRange(_whole(declared.min), _whole(declared.max), min_open=declared.min_open)
        else:
            click_type = FloatRange(declared.min, declared.max, min_open=declared.min_open)
    return click.option(flag, name, type=click_type, default=default, metavar=declared.metavar, help=declared.help)


def _whole(bound: float | None) -> int | None:
    return None if bound is None else int(bound)


def groups(
    kind: type, others: Mapping[str, Sequence[str]], names: Collection[str] | None = None
) -> dict[str, list[str]]:
    """Return the headings of a command's help: those of others, each with the options of a dataclass that name it behind.

    Args:
        kind: the dataclass.
        others: headings, each with other options.
        names: see `from_fields`.
    """
    found = {heading: list(names) for heading, names in others.items()}
    for name, (declared, _, _) in options(kind).items():
        if names is None or name in names:
            found.setdefault(declared.group, []).append(name)
    return found


def option_name(field: str) -> str:
    """Return how the command line writes the option of a field."""
    return f"-{field}" if len(field) == 1 else "--" + field.replace("_", "-")


def usage_error(error: ValueError, spell: Callable[[str], str] = option_name) -> click.UsageError:
    """Return an error of a dataclass's options as one of the command line's, which spells them in its own way."""
    return click.UsageError(error.text(spell) if isinstance(error, OptionError) else str(error))


@contextlib.contextmanager
def usage_errors() -> Iterator[None]:
    """Turn errors of options, which an option of the command line stands for, into those of the command line."""
    try:
        yield
    except OptionError as error:
        raise usage_error(error) from error


json_output: Decorator = click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
_quiet: Decorator = click.option("-q", "--quiet", is_flag=True, help="Say less on standard error.")
_verbose: Decorator = click.option(
    "-v",
    "--verbose",
    is_flag=True,
    expose_value=False,
    callback=lambda _context, _parameter, value: _console.be_verbose(value),
    help="Say more.",
)
force: Decorator = click.option("--force", is_flag=True, help="Overwrite what is there.")
device: Decorator = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", help="Where to compute."
)
precision: Decorator = click.option(
    "--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto", help="How to compute."
)
seed: Decorator = click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    metavar="S",
    help="Makes a run repeatable; random and printed if left out.",
)
steps: Decorator = click.option("--steps", type=click.IntRange(1), metavar="N", help="Training budget.")
model: Decorator = click.option("--model", metavar="MODEL", help="A name, a checkpoint file or a run folder.")
wav: Decorator = click.option("--wav", is_flag=True, help="Write a WAV file beside each MIDI file, too.")
html: Decorator = click.option(
    "--html", is_flag=True, help="Write an HTML page with piano roll and sound beside each MIDI file, too."
)
play: Decorator = click.option("--play", is_flag=True, help="Play it when it is written.")
soundfont: Decorator = click.option(
    "--soundfont", metavar="FILE", help="An .sf2 or .sf3 file; default: the best of this system, else a small one."
)


def quiet(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command -q, which it takes as `quiet`, and -v; what the library logs is then said accordingly."""

    @functools.wraps(command)
    def run(*args: Any, quiet: bool, **options: Any) -> Any:
        _console.show_log(quiet=quiet)
        return command(*args, quiet=quiet, **options)

    return _quiet(_verbose(run))


def minutes(default: float) -> Decorator:
    """Return the option of a training budget in minutes; `default` is what the help says holds without any budget."""
    kind = FloatRange(0, min_open=True)
    return click.option("--minutes", type=kind, metavar="M", help=f"Training budget; default: {default:g}.")


def output_file(help: str) -> Decorator:
    """Return the option of the file that a command writes, which it needs."""
    return click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help=help)


def draw_seed(given: int | None) -> int:
    """Return the seed that was given, or a random one."""
    return secrets.randbelow(2**31) if given is None else given


def threads() -> int:
    """Return how many threads torch is to use: what the environment says, else one for each core of this process."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
