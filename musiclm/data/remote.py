"""Music files behind addresses such as s3://, gs:// and https://, which fsspec opens (extra `cluster`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import CorpusError, Drop, Reason
from . import sources

UNSHARED = ("memory",)  # file systems that exist in one process alone


def is_address(source: str | Path) -> bool:
    """Return whether a source is an address, not a path on this machine."""
    return "://" in str(source) and not Path(source).exists()


def opened(address: str | Path) -> Any:
    """Return a path-like object (`upath.UPath`) of an address.

    Raises:
        CorpusError: fsspec is not installed, or does not know such addresses.
    """
    try:
        from upath import UPath
    except ImportError as error:
        raise CorpusError(f"'{address}' is an address: install musiclm[cluster] to open it") from error
    try:
        path = UPath(str(address))
        path.exists()
    except (ImportError, ValueError) as error:  # s3:// needs s3fs, gs:// gcsfs
        raise CorpusError(f"'{address}' cannot be opened: {error}") from error
    except OSError as error:
        raise CorpusError(f"'{address}' cannot be reached: {error.strerror or error}") from error
    return path


def walk(number: int, source: Any, is_done: sources.IsDone) -> Iterator[sources.Event]:
    """Yield what `sources.walk` yields, of an address.

    Args:
        number: of the source.
        source: from `opened`; a folder, an archive or a file.
        is_done: see `sources.walk`.
    """
    if source.is_dir():
        try:
            found = source.fs.find(source.path, detail=True)
        except OSError as error:
            yield sources.Problem(f"the folder '{source}' cannot be read: {error.strerror or error}")
            return
        root = source.path.rstrip("/") + "/"
        for path in sorted(found):
            name = sources.printable(path.removeprefix(root))
            yield from _one(number, source / path.removeprefix(root), name, f"{name}/", found[path], is_done)
    else:
        yield from _one(number, source, source.name, "", source.fs.info(source.path), is_done)


def _one(
    number: int, path: Any, name: str, prefix: str, info: dict[str, Any], is_done: sources.IsDone
) -> Iterator[sources.Event]:
    lower = name.lower()
    if lower.endswith(sources.MUSIC):
        yield from _file(number, path, name, info)
    elif lower.endswith(sources.ARCHIVES):
        yield from sources.in_archive(number, path, prefix, is_done)
    elif lower.endswith(".csv"):
        try:
            with path.open("rb") as table:
                yield from sources.split_file(number, name, table)
        except OSError as error:
            yield sources.Problem(f"'{path}' cannot be read: {error.strerror or error}")


def _file(number: int, path: Any, name: str, info: dict[str, Any]) -> Iterator[sources.Event]:
    changed = next((info[key] for key in ("mtime", "LastModified", "updated", "ETag", "created") if info.get(key)), "")
    identity = f"{info.get('size')}:{changed}"
    if (info.get("size") or 0) > sources.MAX_BYTES:
        yield sources.Found(number, name, 0, identity, reason=sources.too_large())
    elif name.lower().endswith(".abc") or path.protocol in UNSHARED:
        try:
            data = path.read_bytes()
        except OSError as error:
            yield sources.Found(number, name, 0, identity, reason=Drop(Reason.UNREADABLE, str(error.strerror or error)))
            return
        if name.lower().endswith(".abc"):
            yield from sources.each_tune(number, name, 0, identity, data)
        else:
            yield sources.Found(number, name, 0, identity, data=data)
    else:
        yield sources.Found(number, name, 0, identity, path=path)
