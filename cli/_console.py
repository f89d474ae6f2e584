"""Output of commands: messages for people on standard error, and JSON on standard output."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console


_is_verbose = False


def be_verbose(on: bool) -> None:
    """Set whether `show_log` shows debug messages of the library, too."""
    global _is_verbose
    _is_verbose = on


def console() -> Console:
    """Return the console for people."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def is_terminal() -> bool:
    """Return whether standard error is a terminal."""
    return sys.stderr.isatty()


def say(text: str, *, quiet: bool = False) -> None:
    """Write a message to standard error."""
    if not quiet:
        click.echo(text, err=True)


def show_log(*, quiet: bool = False) -> None:
    """Write what the library logs to standard error; the library itself never prints."""
    import logging

    class Sayer(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(record.getMessage(), quiet=quiet)

    logger = logging.getLogger(__package__.removesuffix(".cli") if __package__ else "musiclm")
    logger.handlers[:] = [Sayer()]
    logger.setLevel(logging.DEBUG if _is_verbose else logging.INFO)
    logger.propagate = False


def print_json(document: Any) -> None:
    """Write one JSON document to standard output."""
    click.echo(json.dumps(document))


def read_bytes(file: str) -> bytes:
    """Return the content of a MIDI file, or of standard input if the name is -.

    Raises:
        MidiError: it cannot be read.
    """
    from ..errors import MidiError

    if file == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise MidiError(f"'{file}' cannot be read: {error.strerror or error}") from error


def duration(seconds: float) -> str:
    """Return 42 s, 3:07 min or 1:05:09 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d} h"


def counted(number: float, thing: str) -> str:
    """Return 1 bar, 2 bars, 1,200 bars, 0.5 minutes."""
    text = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    return f"{text} {thing}{'s' * (number != 1)}"
