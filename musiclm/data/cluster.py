"""Reading files as tasks of a Dask cluster (Rocklin 2015), instead of by processes of this machine.

A task is some files. Within a worker of the cluster they are read by a process of its own, with the limits of `workers`: so a
file is dropped for the same reason as on one machine. What the cluster adds is more machines, and losses of them: a task whose
worker is gone is run again by another one.
"""

from __future__ import annotations

import functools
import json
import queue
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from ..errors import CorpusError, Drop, Reason
from ..tokenizers.base import Tokenizer
from .parse import Record
from .remote import is_remote
from .sources import Found, read_bytes
from .workers import Pool

LOCAL = "local"  # an address: a cluster on this machine
TASK_FILES, TASK_BYTES = 16, 1 << 20  # of a task, at most: a scheduler does some 1,000 tasks a second
TASKS_PER_THREAD = 4  # that wait or run; the scheduler's memory does not grow with the corpus
START_SECONDS = 60.0  # in which a worker must be there, at the start and later
COUNT_SECONDS = 5.0  # between two looks at how many there are
READ_AGAIN = (Reason.TIME_LIMIT, Reason.READER_KILLED, Reason.MEMORY)  # another worker may be less busy

_pools: dict[tuple[str, int], Pool] = {}  # of a worker, by build and thread
_lock = threading.Lock()  # of `_pools`


class ClusterReader:
    """Gives files to the workers of a cluster and yields their records in any order.

    Files that are dropped for one of the reasons `READ_AGAIN` are read once more at the end, one at a time.

    Args:
        address: of a scheduler, or `LOCAL`.
        tokenizer: makes the tokens.
        programs: see `clean.clean`.
        time_limit: CPU seconds that a file may take.
        num_workers: of a cluster on this machine; one per core if None.

    Raises:
        CorpusError: Dask is not installed, or no worker is there; from the methods, see `_count`.
    """

    def __init__(
        self,
        address: str,
        tokenizer: Tokenizer,
        programs: dict[int, int],
        time_limit: float,
        num_workers: int | None = None,
    ) -> None:
        try:
            import distributed
        except ImportError as error:
            raise CorpusError("--dask needs Dask: install musiclm[cluster]") from error
        self._cluster: Any = None
        self._client: Any = None
        if address == LOCAL:
            self._cluster = distributed.LocalCluster(
                n_workers=num_workers, threads_per_worker=1, dashboard_address=None, silence_logs="ERROR"
            )
        try:
            self._client = distributed.Client(self._cluster or address, timeout=START_SECONDS)
            self._client.wait_for_workers(1, timeout=START_SECONDS)
        except (OSError, ValueError, distributed.TimeoutError) as error:
            self._leave()
            raise CorpusError(f"no worker of the cluster '{address}' is there: {error}") from error
        self._build = uuid.uuid4().hex
        self._read = functools.partial(read_here, self._build, json.dumps(tokenizer.describe()), programs, time_limit)
        self._batch: list[Found] = []  # the next task
        self._running: dict[str, tuple[Any, list[Found]]] = {}  # by the key of the task
        self._over: queue.SimpleQueue[str] = queue.SimpleQueue()  # keys
        self._again: list[Found] = []
        self._most, self._counted = 1, -COUNT_SECONDS
        self._without: float | None = None  # since when there is no worker

    def take(self, found: Found) -> Iterator[tuple[Found, Record]]:
        """Give a file to the cluster, once there is room, and yield records that are ready."""
        self._batch.append(found)
        if len(self._batch) >= TASK_FILES or sum(len(each.data or b"") for each in self._batch) > TASK_BYTES:
            self._count()
            while len(self._running) >= self._most:
                yield from self._results(timeout=1.0)
            self._submit(self._batch)
            self._batch = []
        yield from self._results(timeout=0.0)

    def finish(self) -> Iterator[tuple[Found, Record]]:
        """Yield the records of all files that were given."""
        if self._batch:
            self._submit(self._batch)
            self._batch = []
        while self._running:
            yield from self._results(timeout=1.0)
        for found in sorted(self._again, key=lambda each: (each.source, each.name, each.place)):
            self._submit([found])
            while self._running:
                yield from self._results(timeout=1.0, is_last=True)
        self._again.clear()

    def close(self) -> None:
        """Leave the cluster, whose workers end their readers of this build; a cluster on this machine ends."""
        import distributed

        for future, _ in self._running.values():
            future.cancel()
        try:
            if self._client.status == "running":
                self._client.run(close_pools, self._build, on_error="ignore", callback_timeout=10)
        except (OSError, ValueError, distributed.TimeoutError):
            pass  # the scheduler is gone; a worker's next build ends its readers of this one
        self._leave()

    def _leave(self) -> None:
        for each in (self._client, self._cluster):
            if each is not None:
                each.close()

    def _count(self) -> None:
        """Find out how many tasks may wait or run; workers may come and go.

        Raises:
            CorpusError: the scheduler does not answer, or no worker was there for `START_SECONDS`.
        """
        import distributed

        now = time.monotonic()
        if now - self._counted < COUNT_SECONDS:
            return
        try:
            threads = self._client.sync(self._client.scheduler.ncores, callback_timeout=START_SECONDS)
        except (OSError, ValueError, distributed.TimeoutError) as error:
            raise _given_up(f"the scheduler does not answer ({error})") from error
        self._counted = now
        if threads:
            self._most, self._without = TASKS_PER_THREAD * sum(threads.values()), None
        elif self._without is None:
            self._without = now
        elif now - self._without > START_SECONDS:
            raise _given_up(f"the cluster has had no worker for {START_SECONDS:g} s")

    def _submit(self, batch: list[Found]) -> None:
        future = self._client.submit(self._read, [_sent(found) for found in batch], pure=False)
        self._running[future.key] = future, batch
        future.add_done_callback(lambda over: self._over.put(over.key))

    def _results(self, *, timeout: float, is_last: bool = False) -> Iterator[tuple[Found, Record]]:
        """Yield the records of files that are ready; wait up to `timeout` seconds for the first."""
        while self._running:
            try:
                key = self._over.get(block=timeout > 0, timeout=timeout or None)
            except queue.Empty:
                if timeout:
                    self._count()
                return
            timeout = 0.0
            future, batch = self._running.pop(key)
            records = _records(future, len(batch))
            future.release()
            for found, record in zip(batch, records, strict=True):
                if record.reason is not None and record.reason.reason in READ_AGAIN and not is_last:
                    self._again.append(found)
                else:
                    yield found, record


def _sent(found: Found) -> tuple[Any, bytes | None, str]:
    """Return what a task has of a file: an absolute path, since workers run in other folders, or an address; or its bytes."""
    path = found.path if found.path is None or is_remote(found.path) else found.path.absolute()
    return path, found.data, found.name


def _records(future: Any, num_files: int) -> list[Record]:
    """Return the records of a task that is over, one for each of its files.

    Raises:
        CorpusError: the scheduler is gone, or the task has failed.
    """
    from distributed.scheduler import KilledWorker

    if future.status == "finished":
        records: list[Record] = future.result()
        return records
    if future.status != "error":
        raise _given_up("the connection to the scheduler was lost")
    problem = future.exception()
    if isinstance(problem, KilledWorker):  # four workers have died of it, see distributed.scheduler.allowed-failures
        return [Record(Drop(Reason.READER_KILLED))] * num_files
    raise _given_up(f"a task of the cluster failed: {type(problem).__name__}: {problem}")


def _given_up(problem: str) -> CorpusError:
    lines = problem.splitlines()
    return CorpusError(f"{lines[0]}. The same command continues where it stopped")


def read_here(
    build: str,
    description: str,
    programs: dict[int, int],
    time_limit: float,
    batch: Sequence[tuple[Any, bytes | None, str]],
) -> list[Record]:
    """Return the records of some files: the task that a worker of the cluster runs.

    Args:
        build: names the build; the reader of a thread is kept for its other tasks.
        description: of the tokenizer, as JSON.
        programs: see `clean.clean`.
        time_limit: CPU seconds that a file may take.
        batch: of each file where to read it, or else its bytes, and its name.
    """
    key = build, threading.get_ident()
    try:
        with _lock:
            old = [other for other in _pools if other[1] == key[1] and other != key]  # its build ended without `close`
        for other in old:
            _close(other)
        with _lock:
            if key not in _pools:
                _pools[key] = Pool(json.loads(description), programs, num_workers=1, time_limit=time_limit)
            pool = _pools[key]
        return [_read_one(pool, *each) for each in batch]
    except BaseException:  # what the pool is doing is not known
        _close(key)
        raise


def close_pools(build: str) -> None:
    """End the readers of a build in this worker."""
    with _lock:
        of_build = [key for key in _pools if key[0] == build]
    for key in of_build:
        _close(key)


def _close(key: tuple[str, int]) -> None:
    with _lock:
        pool = _pools.pop(key, None)
    if pool is not None:
        pool.close()


def _read_one(pool: Pool, path: Any, data: bytes | None, name: str) -> Record:
    if path is not None and is_remote(path):  # an address, which the process that reads need not know
        found = read_bytes(path)
        if isinstance(found, Drop):
            return Record(found)
        path, data = None, found
    while not pool.is_free:
        for _ in pool.results():
            pass
    pool.give(Found(0, name, 0, "", path=path, data=data))
    while True:
        for _, record in pool.results():
            return record
