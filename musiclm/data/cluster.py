"""Reading files as tasks of a Dask cluster (Rocklin 2015), instead of by processes of this machine.

A task is some files. Within a worker of the cluster they are read by a process of its own, with the limits of `workers`: so a
file is dropped for the same reason as on one machine. What the cluster adds is more machines, and losses of them: a task whose
worker is gone is run again by another one.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import CorpusError, Drop, Reason
from ..tokenizers.base import Tokenizer
from .parse import Record
from .sources import Found
from .workers import Pool

LOCAL = "local"  # an address: a cluster on this machine
TASK_FILES, TASK_BYTES = 16, 1 << 20  # of a task, at most: a scheduler does some 1,000 tasks a second
TASKS_PER_THREAD = 4  # that wait or run; the scheduler's memory does not grow with the corpus
START_SECONDS = 60.0  # in which a worker must be there
_here = threading.local()  # the pool of a worker's thread


class ClusterReader:
    """Gives files to the workers of a cluster and yields their records in any order.

    Files that are dropped for a reason that another moment may change are read once more at the end, one at a time.

    Args:
        address: of a scheduler, or `LOCAL`.
        tokenizer: makes the tokens.
        programs: see `clean.clean`.
        time_limit: CPU seconds that a file may take.
        num_workers: of a cluster on this machine; one per core if None.

    Raises:
        CorpusError: Dask is not installed, or no worker is there.
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
        self._cluster = None
        if address == LOCAL:
            self._cluster = distributed.LocalCluster(
                n_workers=num_workers, threads_per_worker=1, dashboard_address=None, silence_logs="ERROR"
            )
        try:
            self._client = distributed.Client(self._cluster or address, timeout=START_SECONDS)
            self._client.wait_for_workers(1, timeout=START_SECONDS)
        except (OSError, ValueError, TimeoutError) as error:
            self._close_cluster()
            raise CorpusError(f"no worker of the cluster '{address}' is there: {error}") from error
        self._read = functools.partial(read_here, json.dumps(tokenizer.describe()), programs, time_limit)
        self._batch: list[Found] = []  # the next task
        self._running: dict[Any, list[Found]] = {}
        self._again: list[Found] = []
        self._most, self._counted = 0, 0.0

    def take(self, found: Found) -> Iterator[tuple[Found, Record]]:
        """Give a file to the cluster, once there is room, and yield records that are ready."""
        self._batch.append(found)
        if len(self._batch) >= TASK_FILES or sum(len(each.data or b"") for each in self._batch) > TASK_BYTES:
            while len(self._running) >= self._room():
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
        """Leave the cluster; one on this machine ends."""
        for future in self._running:
            future.cancel()
        self._client.close()
        self._close_cluster()

    def _close_cluster(self) -> None:
        if self._cluster is not None:
            self._cluster.close()

    def _room(self) -> int:
        """Return how many tasks may wait or run; workers may come and go."""
        if time.monotonic() - self._counted > 5.0:
            self._most = max(1, TASKS_PER_THREAD * sum(self._client.ncores().values()))
            self._counted = time.monotonic()
        return self._most

    def _submit(self, batch: list[Found]) -> None:
        future = self._client.submit(self._read, [(each.path, each.data, each.name) for each in batch], pure=False)
        self._running[future] = batch

    def _results(self, *, timeout: float, is_last: bool = False) -> Iterator[tuple[Found, Record]]:
        """Yield the records of files that are ready; wait up to `timeout` seconds for the first."""
        from distributed import wait

        if timeout:
            try:
                wait(list(self._running), timeout=timeout, return_when="FIRST_COMPLETED")
            except TimeoutError:
                return
        for future in [each for each in self._running if each.done()]:
            batch = self._running.pop(future)
            records = _records(future, len(batch))
            future.release()
            for found, record in zip(batch, records, strict=True):
                if record.reason is not None and record.reason.reason.is_transient and not is_last:
                    self._again.append(found)
                else:
                    yield found, record


def _records(future: Any, num_files: int) -> list[Record]:
    """Return the records of a task that is over, one for each of its files.

    Raises:
        CorpusError: the scheduler is gone.
    """
    from distributed.scheduler import KilledWorker

    if future.status == "finished":
        records: list[Record] = future.result()
        return records
    if future.status == "error" and isinstance(future.exception(), KilledWorker):  # three workers
        return [Record(Drop(Reason.READER_KILLED))] * num_files
    problem = future.exception() if future.status == "error" else future.status
    raise CorpusError(f"the cluster gave up on a task: {problem}. The same command goes on where it stopped")


def read_here(
    description: str,
    programs: dict[int, int],
    time_limit: float,
    batch: Sequence[tuple[Any, bytes | None, str]],
) -> list[Record]:
    """Return the records of some files: the task that a worker of the cluster runs.

    Args:
        description: of the tokenizer, as JSON.
        programs: see `clean.clean`.
        time_limit: CPU seconds that a file may take.
        batch: of each file where to read it, or else its bytes, and its name.
    """
    pool = _pool(description, programs, time_limit)
    return [_read_one(pool, *each) for each in batch]


def _read_one(pool: Pool, path: Any, data: bytes | None, name: str) -> Record:
    if path is not None and not isinstance(path, Path):  # an address, which the process that reads need not know
        try:
            path, data = None, path.read_bytes()
        except OSError as error:
            return Record(Drop(Reason.UNREADABLE, str(error.strerror or error)))
    while not pool.is_free:
        for _ in pool.results():
            pass
    pool.give(Found(0, name, 0, "", path=path, data=data))
    while True:
        for _, record in pool.results():
            return record


def _pool(description: str, programs: dict[int, int], time_limit: float) -> Pool:
    """Return the pool of this thread, one process; it is kept for the files that follow."""
    key = (description, tuple(sorted(programs.items())), time_limit)
    if getattr(_here, "key", None) != key:
        if hasattr(_here, "pool"):
            _here.pool.close()
        process: Any = multiprocessing.current_process()
        process._config["daemon"] = False  # Dask starts workers as daemons, which may have no children
        _here.pool = Pool(json.loads(description), programs, num_workers=1, time_limit=time_limit)
        _here.key = key
    pool: Pool = _here.pool
    return pool
