"""Tunes in abc notation as scores."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from symusic import Score

from ..errors import Reason
from .smf import unusable

HEAD = 4096  # bytes in which a field X: must begin for the content to be abc

log = logging.getLogger(__name__)


def is_abc(name: str) -> bool:
    """Return whether a file is abc by its name; "tunes.abc#7" is the seventh tune of tunes.abc."""
    return bool(re.search(r"\.abc(#\d+)?$", name.lower()))


def looks_like_abc(data: bytes) -> bool:
    """Return whether bytes are abc by their content: text with a field X: at the beginning of a line."""
    head = data[:HEAD]
    return b"\0" not in head and re.search(rb"(^|[\r\n])X:\s*\d", head) is not None


def tunes(data: bytes) -> list[bytes]:
    """Return each tune of a collection, with what is before the first field X: at the head of each."""
    parts = (b"\n" + data.replace(b"\r\n", b"\n")).split(b"\nX:")
    if len(parts) <= 2:
        return [data]
    head = parts[0] + b"\n" if parts[0].strip() else b""
    return [head + b"X:" + part + b"\n" for part in parts[1:]]


def parse(data: bytes, name: str) -> Score:
    """Return the score of one abc tune; of a collection that of the first tune, and the log says so.

    symusic converts abc by an external program, which reads a file and writes to standard error.

    Raises:
        MidiError: it is not abc, is damaged, or holds no notes.
    """
    if b"\nX:" not in b"\n" + data or b"\0" in data:
        raise unusable(name, Reason.NOT_ABC)
    found = tunes(data)
    if len(found) > 1:
        log.info("'%s' has %d tunes: the first one is read", name, len(found))
    with tempfile.TemporaryDirectory() as folder, _silent():
        path = Path(folder, "tune.abc")
        path.write_bytes(found[0])
        try:
            score = Score(str(path))
        except Exception as error:
            raise unusable(name, Reason.DAMAGED_ABC) from error
    if score.note_num() == 0:
        raise unusable(name, Reason.NO_NOTES)
    if score.start() < 0:
        raise unusable(name, Reason.ABC_TIMES)
    return score


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Discard what C code writes to standard output and standard error. This affects the whole process."""
    saved = [(fd, os.dup(fd)) for fd in (1, 2)]
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        for fd, _ in saved:
            os.dup2(null, fd)
        yield
    finally:
        for fd, copy in saved:
            os.dup2(copy, fd)
            os.close(copy)
        os.close(null)
