"""Music files behind addresses such as s3://, gs:// and https://, which fsspec opens (extra `cluster`)."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import CorpusError, Drop, MusicLMError
from . import sources

UNSHARED = ("memory",)  # file systems that exist in one process alone


def is_address(source: str | Path) -> bool:
    """Return whether a source is an address, not a path on this machine."""
    return "://" in str(source) and not Path(source).exists()


def is_remote(path: Any) -> bool:
    """Return whether a path-like object is of an address; some of these are `Path`s, too."""
    return bool(getattr(path, "protocol", ""))


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
        path = UPath(re.sub("(?<=[^:/])/+$", "", str(address)))  # with a slash at its end a folder would have no name
        path.exists()
    except (ImportError, ValueError) as error:  # s3:// needs s3fs, gs:// gcsfs: the error names the package
        raise CorpusError(f"'{address}' cannot be opened: {sources.why(error)}") from error
    except Exception as error:
        raise _unreached(address, error) from error
    return path


@contextlib.contextmanager
def reached(path: Any) -> Iterator[None]:
    """Turn any error in the block into one line, if a path is of an address: its file system raises errors of its own.

    Raises:
        CorpusError: the address cannot be reached.
    """
    try:
        yield
    except MusicLMError:
        raise
    except Exception as error:
        if not is_remote(path):
            raise
        raise _unreached(path, error) from error


def _unreached(address: Any, error: Exception) -> CorpusError:
    return CorpusError(f"'{address}' cannot be reached: {sources.why(error)}")


def walk(each: Sequence[Any], is_done: sources.IsDone) -> Iterator[sources.Event]:
    """Yield what `sources.walk` yields, of paths on this machine and of addresses, which are `opened`."""
    for number, source in enumerate(each):
        yield from (_of_address if is_remote(source) else sources.of_source)(number, source, is_done)


def _of_address(number: int, source: Any, is_done: sources.IsDone) -> Iterator[sources.Event]:
    """Yield what `sources.walk` yields, of an address.

    Folders are listed one after the other, so that memory does not grow with the number of files.

    Args:
        number: of the source.
        source: from `opened`; a folder, an archive or a file.
        is_done: see `sources.walk`.
    """
    try:
        info = None if source.is_dir() else source.fs.info(source.path)
    except Exception as error:
        yield sources.Problem(f"'{source}' cannot be read: {sources.why(error)}")
        return
    if info is None:
        yield from _folder(number, source, source.path.rstrip("/"), is_done)
    else:
        yield from _one(number, source, source.name, "", info, is_done)


def _folder(number: int, source: Any, folder: str, is_done: sources.IsDone) -> Iterator[sources.Event]:
    """Yield what is in a folder of a source, by name."""
    try:
        found = sorted(source.fs.ls(folder, detail=True), key=lambda info: str(info["name"]))
        source.fs.invalidate_cache(folder)  # it would keep all listings
    except Exception as error:
        yield sources.Problem(f"the folder '{folder}' cannot be read: {sources.why(error)}")
        return
    for info in found:
        path = info["name"].rstrip("/")
        if not path.startswith(f"{folder}/"):  # the folder itself, where a file stands for it
            continue
        if info["type"] == "directory":
            yield from _folder(number, source, path, is_done)
        else:
            inside = path.removeprefix(source.path.rstrip("/") + "/")
            name = sources.printable(inside)
            yield from _one(number, source / inside, name, f"{name}/", info, is_done)


def _one(
    number: int, path: Any, name: str, prefix: str, info: dict[str, Any], is_done: sources.IsDone
) -> Iterator[sources.Event]:
    lower = name.lower()
    try:
        if lower.endswith(sources.MUSIC):
            yield from _file(number, path, name, info)
        elif lower.endswith(sources.ARCHIVES):
            yield from sources.in_archive(number, path, prefix, is_done)
        elif lower.endswith(".csv"):
            with path.open("rb") as table:
                yield from sources.split_file(number, name, table)
    except Exception as error:
        yield sources.Problem(f"'{path}' cannot be read: {sources.why(error)}")


def _file(number: int, path: Any, name: str, info: dict[str, Any]) -> Iterator[sources.Event]:
    if info.get("size") is None:  # of a listing that has none, such as a page with links
        with contextlib.suppress(Exception):  # reading the file says what is wrong
            info = {**info, **path.fs.info(path.path)}
    changed = next((info[key] for key in ("mtime", "LastModified", "updated", "ETag", "created") if info.get(key)), "")
    identity = f"{info.get('size')}:{changed}"
    if (info.get("size") or 0) > sources.MAX_BYTES:
        yield sources.Found(number, name, 0, identity, reason=sources.too_large())
    elif name.lower().endswith(".abc") or path.protocol in UNSHARED:
        data = sources.read_bytes(path)
        if isinstance(data, Drop):
            yield sources.Found(number, name, 0, identity, reason=data)
        elif name.lower().endswith(".abc"):
            yield from sources.each_tune(number, name, 0, identity, data)
        else:
            yield sources.Found(number, name, 0, identity, data=data)
    else:
        yield sources.Found(number, name, 0, identity, path=path)
