"""Sound formats by their first bytes: those that libsndfile reads, those to convert, and WAV headers with wrong sizes."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import IO

SUFFIXES = (
    *(".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc"),
    *(".caf", ".w64", ".rf64", ".au", ".snd"),
)
OTHER_SUFFIXES = (".m4a", ".m4b", ".mp4", ".mov", ".aac", ".webm", ".mka", ".mkv", ".wma", ".amr", ".ape", ".wv")
# The first bytes of formats: (offset, bytes)
READABLE = (
    (8, b"WAVE"),
    (8, b"AIFF"),
    (8, b"AIFC"),
    (0, b"fLaC"),
    (0, b"OggS"),
    (0, b"caff"),
    (0, b"riff\x2e\x91\xcf\x11"),  # Wave64
    (0, b".snd"),
    (0, b"ID3"),
)
# Of formats that libsndfile cannot read: (offset, bytes, name)
FOREIGN = (
    (4, b"ftyp", "MPEG-4 (m4a, mp4)"),
    (0, b"\x1a\x45\xdf\xa3", "Matroska or WebM"),
    (0, b"\x30\x26\xb2\x75", "Windows Media"),
    (0, b"\xff\xf1", "AAC"),
    (0, b"\xff\xf9", "AAC"),
    (0, b"#!AMR", "AMR"),
    (0, b"MAC ", "Monkey's Audio"),
    (0, b"wvpk", "WavPack"),
)
PICTURES = (b"heic", b"heix", b"mif1", b"avif", b"avis", b"crx ")  # brands of MPEG-4 files without sound
START = 16  # bytes that tell a format
LARGEST = 2**32 - 1  # of a chunk


def start_of(source: Path | bytes) -> bytes:
    """Return the first bytes of a file, by its path or content.

    Raises:
        OSError: it cannot be read.
    """
    if isinstance(source, bytes):
        return source[:START]
    with source.open("rb") as file:
        return file.read(START)


def foreign_name(start: bytes) -> str | None:
    """Return the name of a sound format that libsndfile cannot read; None for others."""
    names = (name for at, magic, name in FOREIGN if start[at : at + len(magic)] == magic)
    return None if start[4:8] == b"ftyp" and start[8:12] in PICTURES else next(names, None)


def is_sound(path: Path) -> bool:
    """Return whether a file has sound, readable or not, by its suffix or else its first bytes."""
    if path.suffix.lower() in SUFFIXES + OTHER_SUFFIXES:
        return True
    try:
        start = start_of(path)
    except OSError:
        return False
    return foreign_name(start) is not None or any(start[at : at + len(magic)] == magic for at, magic in READABLE)


class Repaired(io.RawIOBase):
    """A file behind other first bytes of the same number."""

    def __init__(self, header: bytes, file: IO[bytes]) -> None:
        self._header, self._file, self._at = header, file, 0
        self._size = file.seek(0, os.SEEK_END)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if self._at < len(self._header):
            part = self._header[self._at : self._at + len(buffer)]
        else:
            self._file.seek(self._at)
            part = self._file.read(len(buffer))
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)


def repaired(file: IO[bytes]) -> io.RawIOBase | None:
    """Return a WAV file with sizes that reach to its end; None if its sizes are right, or it is no WAV file.

    A recorder that died, or a program that writes to a pipe, leaves 0, 2**32 - 1 or too large a size in the header.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    start = file.read(12)
    if start[:4] != b"RIFF" or start[8:12] != b"WAVE":
        return None
    at = 12
    while True:
        file.seek(at)
        head = file.read(8)
        length = int.from_bytes(head[4:], "little")
        if len(head) < 8 or (head[:4] != b"data" and length > size):
            return None
        if head[:4] == b"data":
            break
        at += 8 + length + length % 2
    begin = at + 8
    is_lost = length == 0 and begin < size and not _are_chunks(file, begin, size)
    if not is_lost and begin + length <= size:
        return None
    file.seek(0)
    header = bytearray(file.read(begin))
    header[4:8] = min(LARGEST, size - 8).to_bytes(4, "little")
    header[at + 4 : begin] = min(LARGEST, size - begin).to_bytes(4, "little")
    return Repaired(bytes(header), file)


def _are_chunks(file: IO[bytes], at: int, size: int) -> bool:
    """Return whether a file has nothing but chunks from a place to its end: then its sound is really empty."""
    while at + 8 <= size:
        file.seek(at)
        head = file.read(8)
        if not all(32 <= byte < 127 for byte in head[:4]):
            return False
        length = int.from_bytes(head[4:], "little")
        at += 8 + length + length % 2
    return size <= at <= size + 1
