"""Atomic writes, which never overwrite a file unless asked to, and locks between processes."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from .errors import OutputError

if TYPE_CHECKING:
    from filelock import BaseFileLock


def check_writable(path: Path, *, force: bool = False) -> None:
    """Check, before the work is done, that `path` can be written.

    Raises:
        OutputError: it is there already and `force` is false, or is a folder; its folder is none or read-only.
    """
    if path.is_dir():
        raise OutputError(f"'{path}' is a folder: name a file in it")
    if path.exists() and not force:
        raise OutputError(f"'{path}' is there already: choose another name, or --force to overwrite it")
    if not path.parent.is_dir():
        raise OutputError(f"no folder '{path.parent}': make it, or choose another place")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"the folder '{path.parent}' cannot be written: choose another place")


def write_whole(path: Path, data: bytes, *, force: bool = True) -> None:
    """Write a file atomically: to a temporary file beside it, which is then renamed.

    A path that is no ordinary file, such as a device or a pipe, is written to directly.

    Raises:
        OutputError: see `check_writable`; or the place is full.
    """
    with written_whole(path, force=force) as file:
        file.write(data)


@contextlib.contextmanager
def written_whole(path: Path, *, force: bool = True) -> Iterator[IO[bytes]]:
    """Yield an open file, which becomes `path` when the block ends without an error; see `write_whole`.

    The kernel applies the umask to the new file, so threads may write at the same time.

    Raises:
        OutputError: see `check_writable`; or the place is full.
    """
    check_writable(path, force=force)
    path = path.resolve()
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as device:
                yield device
            return
        with temporary.open("x+b") as file:  # x: fails if the name is taken
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"'{path}' cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):  # it is there only if something went wrong
            temporary.unlink()


def lock(path: Path) -> BaseFileLock | None:
    """Acquire the lock of a file without waiting; return None where another holder has it.

    The operating system releases the lock when the process ends, however it ends; `release` does so before.
    """
    from filelock import FileLock, Timeout

    acquired = FileLock(path, thread_local=False)
    try:
        acquired.acquire(timeout=0)
    except Timeout:
        return None
    return acquired
