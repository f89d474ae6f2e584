"""The state of a build on disk: the record of each file, in a database and a file of tokens beside it.

    plan.json      sources, tokenizer and programs; another plan starts from the beginning
    work.sqlite    one row per file that is read; its reason is stored as a code, see `musiclm.errors.Drop`
    work.tokens    ids and onsets, one after another in the order in which files were read
    lock           locked by the process that builds

A kill loses at most the files of the last second: rows are committed after their tokens are written. Folders of earlier
versions hold texts instead of codes; `Drop.parse` reads both.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import CorpusError, Drop
from ..files import lock, write_whole
from .parse import Record
from .sources import Found, OfficialSplit

SCHEMA = """
CREATE TABLE files (
    source INTEGER, name TEXT, place INTEGER, identity TEXT, seen INTEGER, reason TEXT,
    tokens INTEGER, token_bytes INTEGER, onsets INTEGER, onset_bytes INTEGER,
    digest BLOB, key BLOB, tolerance REAL, tune BLOB, facts TEXT,
    split TEXT, official INTEGER DEFAULT 0, copy_of INTEGER, is_exact INTEGER,
    PRIMARY KEY (source, name, place)
);
CREATE INDEX by_key ON files (key);
CREATE TABLE official (source INTEGER, name TEXT, split TEXT, PRIMARY KEY (source, name));
CREATE TABLE problems (text TEXT PRIMARY KEY);
"""
COMMIT_SECONDS = 1.0


class BuildState:
    """The state of a build, in a folder that is locked until `close`.

    Args:
        folder: is made if it does not exist.
        plan: what is built; work on another plan is removed.

    Raises:
        CorpusError: another process builds there, the folder cannot be made, or its database is damaged.
    """

    def __init__(self, folder: Path, plan: dict[str, Any]) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CorpusError(f"the folder '{folder}' cannot be made: {error.strerror}") from error
        self._lock = lock(folder / "lock")
        if self._lock is None:
            raise CorpusError(f"another process builds in '{folder}': wait for it, or choose another place")
        document = (json.dumps(plan, sort_keys=True) + "\n").encode()
        path = folder / "plan.json"
        if not path.exists() or path.read_bytes() != document:
            for name in ("plan.json", "work.sqlite", "work.sqlite-journal", "work.tokens"):
                (folder / name).unlink(missing_ok=True)
            shutil.rmtree(folder / "store", ignore_errors=True)
            database = sqlite3.connect(folder / "work.sqlite")
            database.executescript(SCHEMA)
            database.close()
            write_whole(path, document)
        try:
            self._open()
        except sqlite3.DatabaseError as error:
            raise CorpusError(f"'{folder}' is damaged ({error}): delete it, and build again") from error
        self._committed = time.monotonic()

    def _open(self) -> None:
        self.database = sqlite3.connect(self.folder / "work.sqlite", isolation_level=None)
        self.database.execute("PRAGMA cache_size = -8192")  # KiB: constant memory for any size of corpus
        self.database.execute("PRAGMA synchronous = NORMAL")
        self.database.execute("PRAGMA temp_store = FILE")
        self.database.execute("BEGIN")
        self.database.execute("UPDATE files SET seen = 0, split = NULL, official = 0, copy_of = NULL, is_exact = NULL")
        self.database.execute("DELETE FROM official")
        self.database.execute(
            "CREATE TABLE IF NOT EXISTS labels (source INTEGER, name TEXT, labels TEXT, PRIMARY KEY (source, name))"
        )
        self.database.execute("DELETE FROM labels")
        self.database.execute("DELETE FROM problems")
        self._size = self.one("SELECT COALESCE(MAX(onsets + onset_bytes), 0) FROM files")
        self._tokens = (self.folder / "work.tokens").open("a+b")
        self._tokens.truncate(self._size)  # removes what was written after the last commit

    def one(self, query: str, *values: Any) -> Any:
        """Return the single value of a query."""
        return self.database.execute(query, values).fetchone()[0]

    def is_done(self, source: int, name: str, place: int, identity: str) -> bool:
        """Return whether a file was read already, and flag it as still existing."""
        change = "UPDATE files SET seen = 1 WHERE source = ? AND name = ? AND place = ? AND identity = ?"
        return self.database.execute(change, (source, name, place, identity)).rowcount > 0

    def add(self, found: Found, record: Record) -> None:
        """Add the record of a file."""
        at = self._size
        self._tokens.write(record.tokens)
        self._tokens.write(record.onsets)
        onsets = at + len(record.tokens)
        self._size = onsets + len(record.onsets)
        facts = json.dumps(record.facts, sort_keys=True) if record.reason is None else None
        where = (at, len(record.tokens), onsets, len(record.onsets))
        reason = record.reason.stored if record.reason is not None else None
        what = (record.digest, record.key or None, record.tolerance, record.tune, facts)
        self.database.execute(
            "INSERT OR REPLACE INTO files (source, name, place, identity, seen, reason, tokens, token_bytes, onsets,"
            " onset_bytes, digest, key, tolerance, tune, facts) VALUES (?,?,?,?,1,?,?,?,?,?,?,?,?,?,?)",
            (found.source, found.name, found.place, found.identity, reason, *where, *what),
        )
        if time.monotonic() - self._committed > COMMIT_SECONDS:
            self.commit()

    def add_official(self, split: OfficialSplit, columns: Mapping[str, str]) -> None:
        """Add an official split, and the labels that its table has in some columns, which are given by kind of label."""
        rows = ((split.source, name, which) for name, which in split.splits.items())
        self.database.executemany("INSERT OR REPLACE INTO official VALUES (?, ?, ?)", rows)
        labels = (
            (split.source, name, json.dumps({k: row[column] for k, column in columns.items() if row.get(column)}))
            for name, row in (split.rows.items() if columns else ())
        )
        self.database.executemany("INSERT OR REPLACE INTO labels VALUES (?, ?, ?)", labels)

    def add_problem(self, text: str) -> None:
        """Add a problem that kept files from being found."""
        self.database.execute("INSERT OR IGNORE INTO problems VALUES (?)", (text,))

    def commit(self) -> None:
        """Commit what was added so far, so that it survives a kill."""
        self._tokens.flush()
        self.database.execute("COMMIT")
        self.database.execute("BEGIN")
        self._committed = time.monotonic()

    def forget_transient(self) -> None:
        """Remove the files that were dropped for a transient reason, so that they are read again."""
        stored = [reason for (reason,) in self.rows("SELECT DISTINCT reason FROM files WHERE reason IS NOT NULL")]
        again = [(reason,) for reason in stored if Drop.parse(reason).reason.is_transient]
        self.database.executemany("DELETE FROM files WHERE reason = ?", again)

    def forget_unseen(self) -> None:
        """Remove the files of an earlier build that no longer exist."""
        self.database.execute("DELETE FROM files WHERE NOT seen")
        self.commit()

    def bytes_at(self, at: int, size: int) -> bytes:
        """Return `size` bytes of the file of tokens."""
        self._tokens.flush()
        data = os.pread(self._tokens.fileno(), size, at) if hasattr(os, "pread") else self._read(at, size)
        assert len(data) == size
        return data

    def _read(self, at: int, size: int) -> bytes:
        self._tokens.seek(at)
        return self._tokens.read(size)

    def rows(self, query: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query in constant memory."""
        cursor = self.database.cursor()
        cursor.execute(query, values)
        while rows := cursor.fetchmany(256):
            yield from rows

    def close(self, *, remove: bool = False) -> None:
        """Commit and release the folder, or remove it."""
        try:
            if not remove:
                with contextlib.suppress(sqlite3.Error):  # the state of the last commit stays
                    self.commit()
        finally:
            self.database.close()
            self._tokens.close()
            if remove:
                shutil.rmtree(self.folder, ignore_errors=True)
            if self._lock is not None:
                self._lock.release()
