"""Options that two or more commands have, so that the same thing has the same name everywhere."""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from . import _console


class FloatRange(click.FloatRange):
    """Numbers of a range; infinity is none, and neither is what is not a number."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no number to reckon with.", param, ctx)
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
    "--seed", type=click.IntRange(0, 2**63 - 1), metavar="S", help="Of all chance; drawn and printed if left out."
)
model: Decorator = click.option("--model", metavar="MODEL", help="A name, a checkpoint file or a run folder.")
wav: Decorator = click.option("--wav", is_flag=True, help="Write the sound, too: a WAV file beside each MIDI file.")
play: Decorator = click.option("--play", is_flag=True, help="Play it when it is written.")
soundfont: Decorator = click.option(
    "--soundfont", metavar="FILE", help="An .sf2 or .sf3 file; default: the best this system has, else a small one."
)


def quiet(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command -q, which it takes as `quiet`, and -v."""
    return _quiet(_verbose(command))


def draw_seed(given: int | None) -> int:
    """Return the seed that was given, or a new one."""
    return secrets.randbelow(2**31) if given is None else given


def threads() -> int:
    """Return how many threads torch is to use: what the environment says, else one for each core that is ours."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    if told.isdigit() and int(told) > 0:
        return int(told)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
