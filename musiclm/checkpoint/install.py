"""Installation and removal of the user's own models: checkpoints in one folder, whose names follow the bundled ones.

`registry` says which folder that is and what it contains. A file is installed whole or not at all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, OutputError
from ..files import written_whole
from .format import SUFFIX, Checkpoint, read, read_tensors
from .header import check_start
from .model_file import ModelFile, bundled_models, installed_models, read_model, role_of, role_of_name
from .registry import bundled, find, installed, installed_path, user_folder, with_base

MAX_BYTES = 2**30  # of a checkpoint; the largest bundled one is a twentieth of that
TIME_OUT = 30.0  # seconds without a byte
BLOCK = 2**17  # bytes
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")  # a safe file name on all systems, some of which ignore case


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A checkpoint to be installed.

    Attributes:
        given: its path or address.
        name: the file name in it, without ".safetensors".
        num_bytes: its size, or None if that is not known.
        blocks: its bytes, block by block.
    """

    given: str
    name: str
    num_bytes: int | None
    blocks: Iterator[bytes]


@contextlib.contextmanager
def opened(given: str) -> Iterator[Source]:
    """Give the source at a path or an address (https, http or file); a run folder means its best checkpoint.

    Raises:
        CheckpointError: there is none; while its blocks are read: the connection broke, or it is too large or no checkpoint.
    """
    scheme, is_address, _ = given.partition("://")
    if is_address and scheme.lower() in ("http", "https"):
        name, answer = _fetched(given)
        length = answer.headers.get("Content-Length") or ""
        size = int(length) if length.isdecimal() else None
        with answer:
            yield Source(given=given, name=name, num_bytes=size, blocks=_blocks(answer, size, given))
        return
    path = Path(given)
    if is_address and scheme.lower() == "file":
        from urllib.parse import urlsplit
        from urllib.request import url2pathname

        path = Path(url2pathname(urlsplit(given).path))
    elif is_address:
        raise CheckpointError(f"'{given}' cannot be fetched: only https, http and file addresses can")
    if not path.exists():
        raise CheckpointError(f"no file '{path}' to install: name a checkpoint, a run folder or an address")
    name = path.resolve().name.removesuffix(SUFFIX)
    if path.is_dir():
        path = find(str(path.resolve()))[0]
    try:
        size, file = path.stat().st_size, path.open("rb")
    except OSError as error:
        raise CheckpointError(f"'{given}' cannot be read: {error.strerror or error}") from error
    with file:
        yield Source(given=given, name=name, num_bytes=size, blocks=_blocks(file, size, given))


def _fetched(address: str) -> tuple[str, Any]:
    """Return the name of a file on a server, and the response to read it from."""
    from http.client import HTTPException
    from urllib import request
    from urllib.error import HTTPError
    from urllib.parse import unquote, urlsplit

    opener = request.OpenerDirector()  # of http and https only: a server may redirect to nothing else
    for handler in (
        request.ProxyHandler(),
        request.HTTPHandler(),
        request.HTTPSHandler(),
        request.HTTPRedirectHandler(),
        request.HTTPDefaultErrorHandler(),
        request.HTTPErrorProcessor(),
        request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    try:
        name = Path(unquote(urlsplit(address).path)).name.removesuffix(SUFFIX)
        asked = request.Request(address, headers={"User-Agent": "musiclm"})
        return name, opener.open(asked, timeout=TIME_OUT)
    except HTTPError as error:
        raise CheckpointError(f"'{address}' cannot be fetched: the server says {error.code} {error.reason}") from error
    except (OSError, HTTPException, ValueError) as error:  # no such host, no answer, or a malformed address
        raise CheckpointError(f"'{address}' cannot be fetched: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Return why a connection failed, in one line."""
    reason = getattr(error, "reason", None) or error
    if isinstance(reason, TimeoutError):
        return f"no answer in {TIME_OUT:g} s"
    return " ".join(str(getattr(reason, "strerror", None) or reason).split()) or type(reason).__name__


def _blocks(file: Any, size: int | None, given: str) -> Iterator[bytes]:
    """Yield what is in a file or an answer as long as it can be a checkpoint: a web page is refused at its beginning."""
    from http.client import HTTPException

    start, count = b"", 0
    while True:
        try:
            block = file.read(BLOCK)
        except (OSError, HTTPException) as error:
            raise CheckpointError(f"'{given}' cannot be read to its end: {_reason(error)}") from error
        if not block:
            return
        count += len(block)
        if max(count, size or 0) > MAX_BYTES:
            raise CheckpointError(f"'{given}' is no checkpoint of musiclm: it has more than {MAX_BYTES // 2**20} MB")
        if len(start) < 9:
            start += block[: 9 - len(start)]
            if len(start) == 9:
                check_start(start[:8], given)
                if start[8:] != b"{":
                    raise CheckpointError(f"'{given}' is no checkpoint of musiclm: it has no header")
        yield block


def install(
    source: Source, blocks: Iterable[bytes], *, name: str | None = None, force: bool = False
) -> Checkpoint | ModelFile:
    """Install a checkpoint in the user's folder, after its header, weights and hash were checked, and return it.

    Args:
        source: see `opened`.
        blocks: those of the source; the caller may count them on the way.
        name: SET or SET-ARCH; the source's own name if left out. The architecture is appended if it is missing; in the
            name of a performer or a tagger, what `Role` says.
        force: replace an installed one of that name.

    Raises:
        CheckpointError: it is no checkpoint, or damaged; or the name is not a safe one, or that of a bundled one.
        OutputError: one of that name is installed; or the folder cannot be written.
    """
    if name is not None:  # before anything is fetched
        _check_name(name, force=force)
    folder = user_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".coming-") as beside:
            arrived = Path(beside) / f"arrived{SUFFIX}"
            with written_whole(arrived) as file:
                for block in blocks:
                    file.write(block)
            name = _checked_name(arrived, name or source.name, source.given)
            _check_name(name, force=force)
            path = installed_path(name)
            arrived.replace(path)
    except OSError as error:
        raise OutputError(f"the folder '{folder}' cannot be written: {error.strerror}; see MUSICLM_MODELS") from error
    return read(path, name) if role_of(path) is None else read_model(path, name)


def _checked_name(arrived: Path, name: str, given: str) -> str:
    """Return the whole name of a checkpoint after all of it was checked: weights, their hash, and that they fit."""
    if role_of(arrived, given) is not None:
        model = read_model(arrived, given)
        read_tensors(arrived, model.sha256, f"the {model.role.name} '{given}'")
        if role_of_name(model.role.full_name(name)) is not model.role:
            raise CheckpointError(f"'{name}' cannot be the name of a {model.role.name}: choose another with --name")
        return model.role.full_name(name)
    arriving = with_base(read(arrived, given))
    arriving.model()
    return name.removesuffix(f"-{arriving.arch}") + f"-{arriving.arch}"


def _check_name(name: str, *, force: bool) -> None:
    if not NAME.fullmatch(name):
        allowed = "a to z, 0 to 9, - . _, 64 at most"
        raise CheckpointError(f"'{name}' cannot be a model's name ({allowed}): choose another with --name")
    if name in (*bundled(), *bundled_models()):
        raise CheckpointError(f"'{name}' comes with musiclm: choose another name with --name")
    if name in (*installed(), *installed_models()) and not force:
        raise OutputError(f"'{name}' is installed already: choose another name with --name, or --force to replace it")


def remove(name: str) -> Path:
    """Remove an installed checkpoint, and return the path of the file that was.

    Raises:
        CheckpointError: none is installed by that name.
        OutputError: its folder cannot be written.
    """
    if name in (*bundled(), *bundled_models()):
        raise CheckpointError(f"'{name}' comes with musiclm and stays: only what was installed can be removed")
    names = [*installed(), *installed_models()]
    if name not in names:
        raise CheckpointError(f"no model '{name}' is installed: {', '.join(names) or 'none is'}")
    path = installed_path(name)
    try:
        path.unlink()
    except OSError as error:
        raise OutputError(f"'{path}' cannot be removed: {error.strerror}") from error
    return path


def is_noncommercial(licence: object) -> bool:
    """Return whether a licence excludes commercial use, as CC BY-NC does."""
    return re.search(r"\bNC\b|non-?\s?commercial", str(licence), re.IGNORECASE) is not None
