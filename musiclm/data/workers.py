"""Worker processes that read files. A worker that hangs or crashes costs the file it was on, and no other.

Workers are reused, since importing a tokenizer takes seconds. A worker has one file at a time, so the file of a crash is
known. But a parser may have corrupted memory on an earlier file. So a file on which a used worker crashed is given to a
new one, and only if that crashes, too, the file is dropped.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from ..errors import CorpusError, Drop, Reason
from . import parse as parsing
from .parse import Record
from .sources import Found, read_bytes

START_SECONDS = 300.0  # in which a worker must have finished its imports, on a busy machine
MAX_FAILED_STARTS = 3
PATIENCE = 10  # times the limit in CPU seconds: what a file may take on the wall
MEMORY = 3 << 30  # bytes that a worker may use: a tokenizer takes 0.4 GB, a piece of 500,000 notes some 2 GB


class Worker:
    """One process, idle or reading one file."""

    def __init__(self, description: dict[str, Any], programs: Mapping[int, int], time_limit: float) -> None:
        context = _context()
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=_work, args=(theirs, description, dict(programs), time_limit), daemon=True, name="musiclm reader"
        )
        with _able_to_have_children():
            self.process.start()
        theirs.close()
        self.is_ready = False
        self.on: Found | None = None
        self.num_done = 0
        self.since, self._cpu_since = time.monotonic(), 0.0

    def is_late(self, time_limit: float) -> bool:
        """Return whether the file has taken more CPU seconds than that, or ten times as long without using the CPU.

        The clock on the wall would drop other files on a busy machine than on an idle one.
        """
        on_wall = time.monotonic() - self.since
        if on_wall <= time_limit:
            return False
        return on_wall > PATIENCE * time_limit or _cpu_seconds(self.process.pid) - self._cpu_since > time_limit

    def give(self, found: Found) -> None:
        self.on, self.since, self._cpu_since = found, time.monotonic(), _cpu_seconds(self.process.pid)
        self.connection.send((found.path, found.data, found.name))

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


class Pool:
    """Workers, replaced when they hang or crash.

    Args:
        description: of the tokenizer, see `musiclm.tokenizers.from_description`.
        programs: see `clean.clean`.
        num_workers: number of processes.
        time_limit: CPU seconds that one file may take.
    """

    def __init__(
        self, description: dict[str, Any], programs: Mapping[int, int], *, num_workers: int, time_limit: float
    ) -> None:
        self._start = lambda: Worker(description, programs, time_limit)
        self._time_limit = time_limit
        self._failed_starts = 0
        self._again: list[Found] = []  # files on which used workers crashed
        self._workers = [self._start() for _ in range(num_workers)]

    @property
    def is_free(self) -> bool:
        """Whether a worker can take a file."""
        return any(w.is_ready and w.on is None for w in self._workers)

    @property
    def is_busy(self) -> bool:
        """Whether a file is being read, or waits to be read again."""
        return bool(self._again) or any(w.on is not None for w in self._workers)

    def give(self, found: Found) -> None:
        """Give a file to a free worker; if that has crashed meanwhile, `results` replaces it."""
        worker = next(w for w in self._workers if w.is_ready and w.on is None)
        try:
            worker.give(found)
        except OSError:  # it crashed while idle, which `results` will notice
            worker.on = found

    def results(self) -> Iterator[tuple[Found, Record]]:
        """Wait up to 0.1 s, and yield the files that were read or lost, with their records."""
        ready = set(wait([w.connection for w in self._workers], timeout=0.1))
        now = time.monotonic()
        for i, worker in enumerate(self._workers):
            lost = None
            if worker.connection in ready:
                try:
                    record = worker.connection.recv()
                except (EOFError, OSError):
                    worker.process.join(1)
                    lost = self._late() if worker.process.exitcode in _alarms() else Drop(Reason.READER_KILLED)
                else:
                    if record is None:
                        worker.is_ready = True
                        if self._again:
                            worker.give(self._again.pop())
                    elif worker.on is not None:
                        found, worker.on = worker.on, None
                        worker.num_done += 1
                        yield found, record
            elif worker.on is not None:
                if worker.is_late(self._time_limit):
                    lost = self._late()
                elif now - worker.since > 0.5 and _memory(worker.process.pid) > MEMORY:
                    lost = Drop(Reason.MEMORY, str(MEMORY >> 30))
            elif not worker.is_ready and now - worker.since > START_SECONDS:
                lost = self._late()
            if lost is not None:
                self._replace(i)
                if worker.on is not None and worker.num_done and lost != self._late():
                    self._again.append(worker.on)
                elif worker.on is not None:
                    yield worker.on, Record(lost)

    def _late(self) -> Drop:
        return Drop(Reason.TIME_LIMIT, f"{self._time_limit:g}")

    def _replace(self, i: int) -> None:
        worker = self._workers[i]
        worker.kill()
        if not worker.is_ready:
            self._failed_starts += 1
            if self._failed_starts >= MAX_FAILED_STARTS:
                raise CorpusError("no process to read files with can be started: try --workers 1, or free some memory")
        self._workers[i] = self._start()

    def close(self) -> None:
        """End all workers."""
        for worker in self._workers:
            worker.kill()


def _context() -> Any:
    """Return the multiprocessing context: a fork server that has imported the tokenizers, where there is fork.

    Forking this process would be faster still, but would copy locks that its threads have taken.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([parsing.__name__, "miditok"])
    # The server would import from the current folder first, and in a clone of the repository `musiclm` there lacks its `cli`.
    with _environment("PYTHONSAFEPATH", "1"):
        forkserver.ensure_running()
    return context


_starting = threading.Lock()


@contextlib.contextmanager
def _able_to_have_children() -> Iterator[None]:
    """Let this process start others even if it is a daemon, which `multiprocessing` forbids: Dask's workers are."""
    config: dict[str, Any] = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    with _starting:
        before = config.get("daemon")
        config["daemon"] = False
        try:
            yield
        finally:
            config["daemon"] = before


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Set an environment variable for a while."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _alarms() -> set[int]:
    """Return the exit codes of a worker that its own timers ended."""
    return {-int(getattr(signal, name)) for name in ("SIGPROF", "SIGALRM") if hasattr(signal, name)}


def _set_timers(time_limit: float) -> None:
    """Let the system end this process, even within C code and without the parent, when a file takes too long; 0: no more."""
    if hasattr(signal, "setitimer"):
        late = 1.2 * time_limit + 1 if time_limit else 0
        signal.setitimer(signal.ITIMER_PROF, late)  # in CPU seconds
        signal.setitimer(signal.ITIMER_REAL, PATIENCE * late)  # it may sleep, or wait for a file system


def _cpu_seconds(pid: int | None) -> float:
    """Return the CPU seconds of a process; where the system does not report them, those on the wall."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return time.monotonic()


def _memory(pid: int | None) -> int:
    """Return the resident memory of a process, in bytes; 0 where the system does not report it."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def _work(connection: Connection, description: dict[str, Any], programs: dict[int, int], time_limit: float) -> None:
    """Read files until the pipe is closed: the main function of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the parent process
    sys.stderr = os.fdopen(os.dup(2), "w")  # for Python; what the C library writes about a broken heap is discarded
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    import torch

    from .. import tokenizers

    torch.set_num_threads(1)
    tokenizer = tokenizers.from_description(description)
    gc.collect()
    gc.freeze()
    gc.disable()  # MidiTok makes tens of thousands of objects per piece, without reference cycles
    count = 0
    try:
        connection.send(None)
    except OSError:  # the parent process is gone
        return
    while True:
        try:
            path, data, name = connection.recv()
        except (EOFError, OSError):
            return
        _set_timers(time_limit)
        record = read(path, data, name, lambda d, n: parsing.read_piece(d, n, tokenizer, programs))
        _set_timers(0)
        try:
            connection.send(record)
        except OSError:
            return
        count += 1
        if count % 16 == 0:
            gc.collect()


def read(path: Path | None, data: bytes | None, name: str, read_piece: Any) -> Record:
    """Return the record of a file given by its path or its bytes."""
    if data is None:
        found = read_bytes(path)
        if isinstance(found, Drop):
            return Record(found)
        data = found
    record: Record = read_piece(data, name)
    return record
