"""The three standard streams, made safe to use: closed ones, and encodings that lack characters.

Called once, before a command runs. After it none of the streams is None, and no text fails to be written.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from pathlib import Path

# What stands for a character that an encoding lacks; "?" for any other.
ASCII = {
    "▀": '"',  # the roll: the upper key of a line, the lower one, both
    "▄": "_",
    "█": "#",
    "┊": "|",
    "╌": "-",
    "●": "o",
    "▼": "v",
    "■": "#",
    "♯": "#",
    "♭": "b",
    "…": "...",
    "±": "+-",
    "–": "-",
    "—": "-",
    "━": "-",  # progress bars
    "╸": "-",
    "╺": "-",
    "→": "->",
    "·": ".",
    "×": "x",
    "’": "'",
    "“": '"',
    "”": '"',
}


def prepare() -> None:
    """Open the standard streams that are closed on the null device, and let each write any text.

    Standard input that is closed stays None, for `_console.read_bytes` to say so.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # closed: else the next file that is opened would get this number
            os.open(os.devnull, os.O_RDONLY if descriptor == 0 else os.O_WRONLY)
    sys.stdout = sys.stdout or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 as long as the process
    sys.stderr = sys.stderr or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 as long as the process
    codecs.register_error("musiclm", _replaced)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            is_utf8 = codecs.lookup(stream.encoding).name == "utf-8"
            # In UTF-8 only the bytes of a file name that is not UTF-8 cannot be encoded: they are written as they are.
            stream.reconfigure(errors="surrogateescape" if is_utf8 else "musiclm")


def drop_output() -> None:
    """Send what standard output still buffers to the null device, since it cannot be written: Python would try at exit."""
    with contextlib.suppress(OSError, ValueError):  # replaced by a test
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def is_closed(stream: object) -> bool:
    """Return whether a standard stream was closed when the program began."""
    return str(getattr(stream, "name", "")) == os.devnull


def _replaced(error: UnicodeError) -> tuple[str, int]:
    """Return what stands for the characters that an encoding lacks; a codec's error handler."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(ASCII.get(character, "?") for character in error.object[error.start : error.end]), error.end
