"""Files that are written whole or not at all, and never over others unasked."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from .errors import OutputError


def check_writable(path: Path, *, force: bool = False) -> None:
    """Say now, before the work is done, what would go wrong when `path` is written.

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
    """Write a file by way of a temporary one beside it, so that it is never seen half written.

    What is no ordinary file, a device or a pipe, is written to and stays what it is.

    Raises:
        OutputError: see `check_writable`; or the place is full.
    """
    with written_whole(path, force=force) as file:
        file.write(data)


@contextlib.contextmanager
def written_whole(path: Path, *, force: bool = True) -> Iterator[IO[bytes]]:
    """Give an open file to write to, which becomes `path` when the block is left without an error; see `write_whole`.

    Raises:
        OutputError: see `check_writable`; or the place is full.
    """
    check_writable(path, force=force)
    path, temporary = path.resolve(), None
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as device:
                yield device
            return
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"'{path}' cannot be written: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):  # it is there only if something went wrong
                temporary.unlink()


def lock(path: Path) -> IO[Any] | None:
    """Return an open, locked file, or None where another process holds it.

    The lock goes with the file's closing and with the process, however it ends.
    """
    file = path.open("a+")
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file
