"""What the commands share that train models: options, budgets, new folders, Ctrl-C and the progress line."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from collections.abc import Collection, Iterator
from pathlib import Path

import click
from click.core import ParameterSource

from . import _console

BUDGET = ("minutes", "steps", "epochs")


def given(*, beside: Collection[str]) -> list[str]:
    """Return the names of the parameters on the command line except `beside`: DATA, --arch, -o."""
    context = click.get_current_context()
    return [
        p.opts[0] if isinstance(p, click.Option) else p.human_readable_name
        for p in context.command.params
        if p.name not in beside and context.get_parameter_source(p.name or "") is ParameterSource.COMMANDLINE
    ]


def budget(minutes: float | None, steps: int | None, epochs: float | None) -> str:
    """Return a budget as text: 3 minutes or 200 steps."""
    parts = {"minute": minutes, "step": steps, "epoch": epochs}
    return " or ".join(_console.counted(number, name) for name, number in parts.items() if number)


def new_folder(stem: Path) -> Path:
    """Return the first of stem-001, stem-002 … that does not exist."""
    folders = (stem.with_name(f"{stem.name}-{number:03d}") for number in itertools.count(1))
    return next(folder for folder in folders if not folder.exists())


class Interrupts:
    """Whether Ctrl-C was pressed or SIGTERM came. Some libraries swallow its KeyboardInterrupt while they are imported.

    Attributes:
        seen: whether it was.
        is_patient: whether the current step and its save are finished first; a second Ctrl-C interrupts at once. A second
            SIGTERM does not: schedulers and `torchrun` may each send one.
        exit_code: that of a process which ended because of it.
        is_quiet: whether another process tells what happens.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.is_quiet = quiet
        self.seen = self.is_patient = self._was_pressed = False
        self.exit_code = 128 + signal.SIGINT

    def check(self) -> None:
        """Raise KeyboardInterrupt if it was pressed."""
        if self.seen:
            raise KeyboardInterrupt

    def _handle(self, number: int, _: object) -> None:
        if number == signal.SIGTERM and self.seen:
            return
        self.exit_code = 128 + number
        was_pressed, self._was_pressed = self._was_pressed, number == signal.SIGINT
        self.seen = True
        if was_pressed or not self.is_patient:
            raise KeyboardInterrupt
        if not self.is_quiet:
            again = b"; Ctrl-C again: at once" if number == signal.SIGINT else b""
            os.write(2, b"\nStopping after this step" + again + b"\n")  # print may be what was interrupted


@contextlib.contextmanager
def interrupts(*, quiet: bool = False) -> Iterator[Interrupts]:
    """Watch for Ctrl-C and SIGTERM, with which schedulers end a job; see `Interrupts`."""
    watching = Interrupts(quiet=quiet)
    before = {number: signal.signal(number, watching._handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield watching
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Line:
    """The progress line of a terminal, which is overwritten; elsewhere there is none."""

    def __init__(self, *, quiet: bool) -> None:
        self.is_live = _console.is_terminal() and not quiet
        self.quiet = quiet

    def show(self, text: str) -> None:
        """Overwrite the line."""
        if self.is_live:
            click.echo(f"\r\x1b[K{text[:79]}", err=True, nl=False)

    def say(self, text: str) -> None:
        """Print a message that stays in place of the line."""
        _console.say(("\r\x1b[K" if self.is_live else "") + text, quiet=self.quiet)
