"""Output of commands: messages for people on standard error, and JSON on standard output."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from . import _streams

if TYPE_CHECKING:
    from rich.console import Console

    from ..errors import MusicLMError


STANDARD_INPUT = "-"
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
        click.echo(text, file=sys.stderr)  # with err=True click writes UTF-8 to a stream of ascii


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


def read_bytes(file: str, *, error: type[MusicLMError] | None = None, most: int = -1) -> bytes:
    """Return the content of a file, or of standard input if the name is -.

    Args:
        file: its name.
        error: what is raised; MidiError by default.
        most: the largest number of bytes to read from standard input.

    Raises:
        MusicLMError: it cannot be read; standard input is closed, or is a terminal, where nobody types such a file.
    """
    from ..errors import MidiError

    error = error or MidiError
    try:
        if file != STANDARD_INPUT:
            return Path(file).read_bytes()
        if sys.stdin is None:
            raise error("standard input is closed: name a file, or pipe one into the command")
        if sys.stdin.isatty():
            raise error("standard input is a terminal: name a file, or pipe one into the command")
        return sys.stdin.buffer.read(most)
    except OSError as problem:
        name = "standard input" if file == STANDARD_INPUT else f"'{file}'"
        raise error(f"{name} cannot be read: {problem.strerror or problem}") from problem


def standard_output() -> BinaryIO:
    """Return standard output for bytes.

    Raises:
        OutputError: it is closed.
    """
    from ..errors import OutputError

    if _streams.is_closed(sys.stdout):
        raise OutputError("standard output is closed: name a file with -o")
    return sys.stdout.buffer


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


def next_command(tokenizer: str) -> str:
    """Return the beginning of the command line that writes music with a model of the tokenizer of this name."""
    from ..tokenizers import PAIRED

    return "musiclm accompany song.mid" if tokenizer in PAIRED else "musiclm generate"
