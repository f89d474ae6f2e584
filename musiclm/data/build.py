"""Build a store: find files, read them by workers, drop copies, make splits, and write in the order of names.

The state of a build lies in a work folder beside the store until the end, so that a killed build can be resumed. The
store depends only on the files and options, not on the number of workers or their order. It appears by one rename.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CorpusError, OutputError
from ..tokenizers.base import Tokenizer
from . import remote
from . import sources as finding
from .labels import LabelSources
from .parse import Record, read_piece
from .progress import BuildState
from .sources import Found, OfficialSplit
from .workers import Pool, read
from .write import write_store

if TYPE_CHECKING:
    from .cluster import ClusterReader

TIME_LIMIT = 60.0  # seconds per file; MAESTRO's longest takes 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How a store is built.

    Attributes:
        bpe: number of merges to learn on the training split; 0 for none.
        workers: number of processes; None for one per core; 0 to read in this process, which a file may crash.
        time_limit: CPU seconds that a file may take.
        keep_duplicates: whether copies are kept; they share a split then.
        programs: MIDI programs to replace by others.
        dask: the address of a Dask scheduler whose workers read the files, or "local" for a cluster on this machine.
        labels: where the labels of pieces come from; by default there are none.
    """

    bpe: int = 0
    workers: int | None = None
    time_limit: float = TIME_LIMIT
    keep_duplicates: bool = False
    programs: Mapping[int, int] = dataclasses.field(default_factory=dict)
    dask: str | None = None
    labels: LabelSources = dataclasses.field(default_factory=LabelSources)


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a build is.

    Attributes:
        stage: "reading", "writing" or "done".
        found: number of files so far.
        dropped: number of those that cannot be used; copies are dropped at the end.
        resumed: number of those that an earlier build had read.
    """

    stage: str
    found: int
    dropped: int
    resumed: int


def work_folder(output: Path) -> Path:
    """Return the folder that holds the state of a build until it is done."""
    return output.with_name(f".{output.name}.building")


def check_output(output: Path, *, force: bool = False) -> None:
    """Check that a store may be written there.

    Raises:
        CorpusError: the path exists; with `force`, it exists and is not a corpus.
    """
    if not output.name:
        raise CorpusError(f"'{output}' is not a name for a corpus: give a new folder")
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not (output / "corpus.json").is_file():
        raise CorpusError(f"'{output}' is there already and is not a corpus: choose another place with -o")
    if not force:
        raise CorpusError(f"'{output}' is there already: choose another place with -o, or --force to replace it")


def build_corpus(
    sources: Sequence[str | Path], output: str | Path, tokenizer: Tokenizer, options: Options, *, force: bool = False
) -> Generator[Progress, None, None]:
    """Build a store; yield after every file.

    A build stops when the generator is closed or the process dies. The same call again resumes it.

    Args:
        sources: folders, archives and files, or addresses of them, see `remote`.
        output: the folder to make.
        tokenizer: makes the tokens.
        options: see `Options`.
        force: replace an existing corpus.

    Raises:
        CorpusError: no file could be kept, with the reasons; or see `check_output` and `sources.check`.
        OutputError: the work folder cannot be written; what was committed stays.
    """
    paths: list[Any] = [remote.opened(s) if remote.is_address(s) else Path(s) for s in sources]
    output = Path(output)
    for path in paths:
        with remote.reached(path):
            finding.check([path])
    check_output(output, force=force)
    if options.bpe:
        tokenizer = tokenizer.mergeable
        tokenizer.trained_bpe([], num_merges=options.bpe)  # raises now if it cannot learn merges
    work = BuildState(work_folder(output), _plan(paths, tokenizer, options))
    done = False
    try:
        work.forget_transient()
        progress = Progress("reading", 0, 0, 0)
        for progress in _read_all(work, paths, tokenizer, options):
            yield progress
        work.forget_unseen()
        yield dataclasses.replace(progress, stage="writing")
        try:
            write_store(
                work,
                work.folder / "store",
                tokenizer,
                sources=[p.resolve().name for p in paths],
                keep_duplicates=options.keep_duplicates,
                bpe=options.bpe,
                programs=options.programs,
                labels=options.labels,
            )
        except CorpusError:
            done = True  # nothing was kept: there is nothing to resume
            raise
        _put(work.folder / "store", output)
        done = True
        yield dataclasses.replace(progress, stage="done")
    except sqlite3.Error as error:  # the disk is full, or the folder was tampered with
        raise OutputError(f"'{work.folder}' cannot be written: {error}") from error
    finally:
        work.close(remove=done)


def _plan(paths: Sequence[Path], tokenizer: Tokenizer, options: Options) -> dict[str, Any]:
    """Return what the work depends on, except the files in folders, whose identity is checked one by one."""
    description = json.dumps(tokenizer.describe(), sort_keys=True)
    identities = []
    for path in paths:
        with remote.reached(path):
            same = "" if path.is_dir() else _identity(path)
        identities.append([str(path.resolve()), same])
    return {
        "version": 1,
        "sources": identities,
        "tokenizer": hashlib.sha256(description.encode()).hexdigest(),
        "programs": sorted(options.programs.items()),
    }


def _identity(path: Any) -> str:
    status = path.stat()
    return f"{status.st_size}:{getattr(status, 'st_mtime_ns', '')}"


def _reader(tokenizer: Tokenizer, options: Options) -> _InProcess | _Parallel | ClusterReader:
    """Return what reads the files."""
    if options.dask is not None:
        from .cluster import ClusterReader

        return ClusterReader(options.dask, tokenizer, dict(options.programs), options.time_limit, options.workers)
    return _InProcess(tokenizer, options) if options.workers == 0 else _Parallel(tokenizer, options)


def _read_all(work: BuildState, paths: Sequence[Path], tokenizer: Tokenizer, options: Options) -> Iterator[Progress]:
    reader = _reader(tokenizer, options)
    found = dropped = resumed = 0

    def kept(results: Iterator[tuple[Found, Record]]) -> Iterator[Progress]:
        nonlocal dropped
        for file, record in results:
            work.add(file, record)
            dropped += record.reason is not None
            yield Progress("reading", found, dropped, resumed)

    try:
        for event in remote.walk(paths, work.is_done):
            if isinstance(event, OfficialSplit):
                work.add_official(event, options.labels.columns)
            elif not isinstance(event, Found):
                work.add_problem(event.text)
            else:
                found += 1
                if work.is_done(event.source, event.name, event.place, event.identity):
                    resumed += 1
                elif event.reason is not None:
                    yield from kept(iter([(event, Record(event.reason))]))
                else:
                    yield from kept(reader.take(event))
        yield from kept(reader.finish())
        yield Progress("reading", found, dropped, resumed)
    finally:
        reader.close()
        work.commit()


class _InProcess:
    """Reads files one after another in this process."""

    def __init__(self, tokenizer: Tokenizer, options: Options) -> None:
        self._read = lambda data, name: read_piece(data, name, tokenizer, options.programs)

    def take(self, found: Found) -> Iterator[tuple[Found, Record]]:
        yield found, read(found.path, found.data, found.name, self._read)

    def finish(self) -> Iterator[tuple[Found, Record]]:
        return iter(())

    def close(self) -> None:
        pass


class _Parallel:
    """Gives files to workers and yields their records in any order."""

    def __init__(self, tokenizer: Tokenizer, options: Options) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._pool: Pool | None = None
        self._start = lambda: Pool(
            tokenizer.describe(),
            options.programs,
            num_workers=options.workers or cores,
            time_limit=options.time_limit,
        )

    def take(self, found: Found) -> Iterator[tuple[Found, Record]]:
        self._pool = self._pool or self._start()  # not before there is a file to read
        while not self._pool.is_free:
            yield from self._pool.results()
        self._pool.give(found)

    def finish(self) -> Iterator[tuple[Found, Record]]:
        while self._pool is not None and self._pool.is_busy:
            yield from self._pool.results()

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()


def _put(folder: Path, output: Path) -> None:
    """Move a finished store to its place; an older one is removed after that."""
    old = output.with_name(f".{output.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if output.exists():
        output.rename(old)
    folder.rename(output)
    shutil.rmtree(old, ignore_errors=True)
