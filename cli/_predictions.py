"""What `classify` and `tag` share: progress over many files, and the table of predictions."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from . import _console

if TYPE_CHECKING:
    from rich.table import Table

T = TypeVar("T")


def with_progress(
    answers: Iterable[T], total: int | None, doing: str, *, most_silent: int = 8, quiet: bool
) -> Iterator[T]:
    """Yield what comes, with a progress bar on a terminal if there is much.

    Args:
        answers: one for each file.
        total: the number of files; None if it is not known.
        doing: what is done, for the bar.
        most_silent: files for which there is no bar.
        quiet: never show it.
    """
    if quiet or (total is not None and total <= most_silent) or not _console.is_terminal():
        yield from answers
        return
    from rich.progress import track

    yield from track(answers, doing, total=total, console=_console.console(), transient=True)


def shown(path: str) -> str:
    """Return a printable path: bytes that are not UTF-8 are replaced, and brackets are escaped for rich."""
    from rich.markup import escape

    return escape(os.fsencode(path).decode("utf-8", "replace"))


def print_table(table: Table) -> None:
    """Print a table to standard output, without line breaks if the next program reads it."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 1000
    Console(highlight=False, width=width).print(table)
