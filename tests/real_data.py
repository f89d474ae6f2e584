"""Real MIDI files: those of large archives where a developer has them, else the ten in tests/data."""

from __future__ import annotations

import os
import tarfile
import zlib
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path

import pytest

DATA = Path(os.environ.get("MUSICLM_DATA", Path(__file__).parents[2] / "shared" / "data"))
BUNDLED = Path(__file__).parent / "data"


def each_real_file(archive: str, *, stand_in: bool = True) -> Iterator[tuple[str, bytes]]:
    """Yield (name, bytes) of the MIDI files of an archive, which is called by its name without `.tar.xz`.

    Where the archive is absent, the ten files of tests/data stand in; each archive has another of them as its first.
    Without `stand_in` the test is skipped instead: it needs what only this archive has.
    """
    path = next(DATA.glob(f"*/{archive}.tar.xz"), None)
    if path is not None:
        yield from _files_of(path)
        return
    if not stand_in:
        pytest.skip(f"needs {archive}.tar.xz: set MUSICLM_DATA to the folder that has it")
    files = sorted(BUNDLED.glob("*.mid"))
    first = zlib.crc32(archive.encode()) % len(files)
    for path in files[first:] + files[:first]:
        yield path.name, path.read_bytes()


@lru_cache
def real_files(archive: str, count: int, *, stand_in: bool = True) -> list[tuple[str, bytes]]:
    """Return the first `count` of `each_real_file`, or all if there are fewer."""
    return list(islice(each_real_file(archive, stand_in=stand_in), count))


def _files_of(path: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path, "r|xz") as tar:  # as a stream: an index of its members would unpack all of it
        for member in tar:
            if member.isfile() and member.name.lower().endswith((".mid", ".midi")):
                file = tar.extractfile(member)
                assert file is not None
                yield member.name, file.read()
