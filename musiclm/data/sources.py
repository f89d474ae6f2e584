"""Music files in folders and archives, at any depth of folders, one after another in constant memory.

An archive is read as a stream and never unpacked to disk, so names in it cannot lead outside. Archives within archives
are not opened. The content of files is not looked at.
"""

from __future__ import annotations

import bz2
import csv
import dataclasses
import gzip
import io
import lzma
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ..errors import CorpusError, Drop, Reason
from ..midi.abc import tunes

MUSIC = (".mid", ".midi", ".kar", ".rmi", ".abc")
TARS = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")
ARCHIVES = (".zip", *TARS)
MAX_BYTES = 32 << 20  # per file; a million notes take about 8 MB
MAX_TABLE_BYTES = 64 << 20  # of a split file
MAX_HEADER_BYTES = 1 << 20  # between two members of a tar
XZ_MEMORY = 512 << 20  # bytes that the decompressor of a stream may use; `xz -9` needs 65 MB
SPLIT_NAMES = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation", "test": "test"}


@dataclasses.dataclass(frozen=True)
class Found:
    """A file with a music suffix.

    Attributes:
        source: number of its source, counted from 0.
        name: its path within the source, with slashes.
        place: 0 in a folder; its position in an archive, where two members may have one name.
        identity: size and time of change: another identity means other bytes.
        path: where to read it; None for a member of an archive.
        data: its bytes, if it comes from an archive and is not done.
        reason: why it cannot be read, or None.
    """

    source: int
    name: str
    place: int
    identity: str
    path: Path | None = None
    data: bytes | None = None
    reason: Drop | None = None


@dataclasses.dataclass(frozen=True)
class OfficialSplit:
    """The content of a split file: a csv with the columns `midi_filename` and `split`.

    Attributes:
        source: number of its source, counted from 0.
        name: its path within the source.
        splits: by file, train, validation or test.
        rows: by file, all columns of the table.
    """

    source: int
    name: str
    splits: dict[str, str]
    rows: dict[str, dict[str, str]]


@dataclasses.dataclass(frozen=True)
class Problem:
    """A problem that kept files from being found: a damaged archive, a folder without read permission."""

    text: str


Event = Found | OfficialSplit | Problem
IsDone = Callable[[int, str, int, str], bool]
"""Whether a file (source, name, place, identity) was read before."""


def check(sources: Sequence[Path]) -> None:
    """Check that all sources exist and are of a known kind.

    Raises:
        CorpusError: one of them does not.
    """
    for source in sources:
        if not source.exists():
            raise CorpusError(f"no folder or file '{source}'")
        if (source / "corpus.json").is_file():
            raise CorpusError(f"'{source}' is a corpus already: name the MIDI files it was built from")
        if not source.is_dir() and not source.name.lower().endswith((*ARCHIVES, *MUSIC)):
            kinds = ", ".join((*MUSIC, *ARCHIVES))
            raise CorpusError(f"'{source}' is neither a folder nor a file with music in it: one of {kinds}")


def read_bytes(path: Any) -> bytes | Drop:
    """Return the bytes of a file, or why they cannot be had: file systems behind addresses raise errors of any kind."""
    blocks, size = [], 0
    try:
        with path.open("rb") as file:
            while size <= MAX_BYTES and (block := file.read(MAX_BYTES + 1 - size)):  # a stream may give less
                blocks.append(block)
                size += len(block)
    except Exception as error:
        return Drop(Reason.UNREADABLE, why(error))
    return b"".join(blocks) if size <= MAX_BYTES else too_large()


def why(error: Exception) -> str:
    """Return the cause that an error states, in one line."""
    lines = str(getattr(error, "strerror", None) or error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def walk(sources: Sequence[Path], is_done: IsDone = lambda *_: False) -> Iterator[Event]:
    """Yield every file with a music suffix, every official split file, and the problems on the way.

    Args:
        sources: folders, archives and single files on this machine.
        is_done: whether a file was read before: then its bytes are not needed.
    """
    for number, source in enumerate(sources):
        yield from of_source(number, source, is_done)


def of_source(number: int, source: Path, is_done: IsDone) -> Iterator[Event]:
    """Yield what `walk` yields, of one source with its number."""
    if source.is_dir():
        yield from _folder(number, source, is_done)
    elif source.name.lower().endswith(ARCHIVES):
        yield from in_archive(number, source, "", is_done)
    else:
        yield from _file(number, source, source.name)


def _folder(number: int, folder: Path, is_done: IsDone) -> Iterator[Event]:
    problems: list[OSError] = []
    for here, folders, files in os.walk(folder, onerror=problems.append):
        while problems:
            yield Problem(f"the folder '{problems[0].filename}' cannot be read: {problems.pop(0).strerror}")
        folders.sort()
        for file in sorted(files):
            path = Path(here, file)
            name = printable(path.relative_to(folder).as_posix())
            lower = file.lower()
            if lower.endswith(MUSIC):
                yield from _file(number, path, name)
            elif lower.endswith(ARCHIVES):
                yield from in_archive(number, path, f"{name}/", is_done)
            elif lower.endswith(".csv"):
                try:
                    with path.open("rb") as table:
                        yield from split_file(number, name, table)
                except OSError as error:
                    yield Problem(f"'{path}' cannot be read: {error.strerror}")
    while problems:
        yield Problem(f"'{problems[0].filename}' cannot be read: {problems.pop(0).strerror}")


def _file(number: int, path: Path, name: str) -> Iterator[Event]:
    try:
        status = path.stat()
    except OSError as error:
        yield Found(number, name, 0, "", reason=Drop(Reason.UNREADABLE, str(error.strerror)))
        return
    identity = f"{status.st_size}:{status.st_mtime_ns}"
    if not path.is_file():
        yield Found(number, name, 0, identity, reason=Drop(Reason.NOT_REGULAR))
    elif status.st_size > MAX_BYTES:
        yield Found(number, name, 0, identity, reason=too_large())
    elif name.lower().endswith(".abc"):
        data = read_bytes(path)
        if isinstance(data, Drop):
            yield Found(number, name, 0, identity, reason=data)
        else:
            yield from each_tune(number, name, 0, identity, data)
    else:
        yield Found(number, name, 0, identity, path=path)


def each_tune(number: int, name: str, place: int, identity: str, data: bytes) -> Iterator[Found]:
    """Yield each tune of an abc file. In a collection each begins with its own X: field and counts as a file."""
    parts = tunes(data)
    if len(parts) == 1:
        yield Found(number, name, place, identity, data=data)
        return
    for i, tune in enumerate(parts):
        yield Found(number, f"{name}#{i + 1:05d}", place, f"{identity}:{i}", data=tune)


def in_archive(number: int, path: Path, prefix: str, is_done: IsDone) -> Iterator[Event]:
    """Yield the files of an archive; of a damaged one, those before the damage and a `Problem`."""
    try:
        size = path.stat().st_size
        allowed = (256 << 20) + 200 * size  # real collections of MIDI are compressed to a twentieth at most
        is_zip = path.name.lower().endswith(".zip")
        yield from (_zip if is_zip else _tar)(number, path, prefix, is_done, allowed)
    except _Bomb:
        yield Problem(f"'{path}' unpacks to over {allowed >> 20} MB: the rest of it is not read")
    except (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, OSError) as error:
        yield Problem(f"'{path}' is damaged: {str(error) or type(error).__name__}; what is behind that is not read")
    except (ValueError, IndexError, struct.error, NotImplementedError, RuntimeError) as error:  # of zipfile and tarfile
        yield Problem(f"'{path}' is damaged: {str(error) or type(error).__name__}; what is behind that is not read")


def _zip(number: int, path: Path, prefix: str, is_done: IsDone, allowed: int) -> Iterator[Event]:
    with path.open("rb") as packed, zipfile.ZipFile(packed) as opened:
        for place, info in enumerate(opened.infolist()):
            name = prefix + printable(info.filename)
            lower = info.filename.lower()
            if info.is_dir() or not lower.endswith((*MUSIC, *ARCHIVES, ".csv")):
                continue
            if lower.endswith(ARCHIVES):
                yield Problem(f"'{name}' in '{path.name}' is an archive within an archive: unpack it to use it")
                continue
            identity = f"{info.file_size}:{info.CRC:08x}"
            if is_done(number, name, place, identity):
                yield Found(number, name, place, identity)
                continue
            try:
                with opened.open(info) as member:
                    data = member.read(MAX_BYTES + 1)
            except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError) as error:
                damage = Drop(Reason.ARCHIVE_DAMAGED, str(error).split(" for ")[0])
                yield Found(number, name, place, identity, reason=damage)
                continue
            except (RuntimeError, NotImplementedError):
                yield Found(number, name, place, identity, reason=Drop(Reason.ENCRYPTED))
                continue
            allowed -= len(data)
            if allowed < 0:
                raise _Bomb
            yield from _member(number, name, place, identity, data)


def _tar(number: int, path: Path, prefix: str, is_done: IsDone, allowed: int) -> Iterator[Event]:
    with path.open("rb") as packed:
        stream = _Bounded(_unpacked(packed, path.name.lower()), allowed)
        stream.allow(MAX_HEADER_BYTES)
        with tarfile.open(fileobj=stream, mode="r|") as opened:  # type: ignore[call-overload]
            place, left = 0, 0
            while True:
                stream.allow(left + MAX_HEADER_BYTES)  # bounds the header, too
                info = opened.next()
                if info is None:
                    return
                opened.members.clear()  # tarfile would keep every member
                left, place = info.size, place + 1
                name = prefix + printable(info.name)
                lower = info.name.lower()
                if info.isdir() or not lower.endswith((*MUSIC, *ARCHIVES, ".csv")):
                    continue
                if lower.endswith(ARCHIVES):
                    yield Problem(f"'{name}' in '{path.name}' is an archive within an archive: unpack it to use it")
                    continue
                identity = f"{info.size}:{info.mtime}"
                if not info.isreg():
                    yield Found(number, name, place, identity, reason=Drop(Reason.NOT_REGULAR))
                elif lower.endswith(MUSIC) and info.size > MAX_BYTES:
                    yield Found(number, name, place, identity, reason=too_large())
                elif is_done(number, name, place, identity):
                    yield Found(number, name, place, identity)
                elif info.size <= MAX_TABLE_BYTES:
                    stream.allow(info.size + MAX_HEADER_BYTES)
                    member = opened.extractfile(info)
                    assert member is not None
                    data = member.read()
                    if len(data) < info.size:
                        raise EOFError(f"it ends within '{name}'")
                    left = 0
                    yield from _member(number, name, place, identity, data)


def _member(number: int, name: str, place: int, identity: str, data: bytes) -> Iterator[Event]:
    lower = name.lower()
    if lower.endswith(".csv"):
        yield from split_file(number, name, io.BytesIO(data))
    elif len(data) > MAX_BYTES:
        yield Found(number, name, place, identity, reason=too_large())
    elif lower.endswith(".abc"):
        yield from each_tune(number, name, place, identity, data)
    else:
        yield Found(number, name, place, identity, data=data)


def split_file(number: int, name: str, file: IO[bytes]) -> Iterator[Event]:
    """Yield an official split if this csv is one: those of MAESTRO and Groove have these two columns."""
    try:
        text = file.read(MAX_TABLE_BYTES + 1).decode("utf-8-sig")
        rows = csv.DictReader(io.StringIO(text))
        if not {"midi_filename", "split"} <= set(rows.fieldnames or ()):
            return
        folder = PurePosixPath(name).parent
        splits: dict[str, str] = {}
        by_file: dict[str, dict[str, str]] = {}
        unknown = 0
        for row in rows:
            split = SPLIT_NAMES.get((row["split"] or "").strip().lower())
            if split is None:
                unknown += 1
            else:
                file_name = printable((folder / (row["midi_filename"] or "")).as_posix())
                splits[file_name], by_file[file_name] = split, row
    except (UnicodeDecodeError, csv.Error) as error:
        yield Problem(f"'{name}' is not a table that can be read: {error}")
        return
    if unknown:
        yield Problem(
            f"'{name}' names a split other than train, validation and test in {unknown} rows: they are not used"
        )
    if splits:
        yield OfficialSplit(number, name, splits, by_file)


def printable(name: str) -> str:
    """Return a printable name: undecodable bytes and control characters become the replacement character."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def too_large() -> Drop:
    return Drop(Reason.TOO_LARGE, str(MAX_BYTES >> 20))


class _Bomb(Exception):
    """An archive unpacks to more bytes than allowed."""


def _unpacked(packed: IO[bytes], name: str) -> Any:
    if name.endswith((".gz", ".tgz")):
        return gzip.GzipFile(fileobj=packed)
    if name.endswith((".xz", ".txz")):
        return _Xz(packed)
    if name.endswith(("bz2", ".tbz2")):
        return bz2.BZ2File(packed)
    return packed


class _Xz:
    """Reads .xz as `lzma.open` does, but refuses streams that need gigabytes of memory."""

    def __init__(self, packed: IO[bytes]) -> None:
        self._packed = packed
        self._reader = lzma.LZMADecompressor(memlimit=XZ_MEMORY)
        self._rest = b""

    def read(self, size: int) -> bytes:
        while True:
            if self._reader.eof:
                self._rest = self._reader.unused_data or self._packed.read(65536)
                if not self._rest.strip(b"\0"):  # padding behind the last stream
                    return b""
                self._reader = lzma.LZMADecompressor(memlimit=XZ_MEMORY)
            if self._reader.needs_input and not self._rest:
                self._rest = self._packed.read(65536)
                if not self._rest:
                    raise EOFError("it ends too early")
            data = self._reader.decompress(self._rest, size)
            self._rest = b""
            if data:
                return data


class _Bounded:
    """A stream with two limits: bytes in all, and bytes up to the next call of `allow`."""

    def __init__(self, stream: Any, allowed: int) -> None:
        self._stream, self._in_all, self._now = stream, allowed, 0

    def allow(self, size: int) -> None:
        self._now = size + (64 << 10)  # tarfile reads in blocks

    def read(self, size: int) -> bytes:
        data: bytes = self._stream.read(size)
        self._in_all -= len(data)
        self._now -= len(data)
        if self._in_all < 0 or self._now < 0:
            raise _Bomb
        return data
