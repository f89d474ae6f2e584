"""Copies among the files, and the split of each piece: train, validation or test.

An official split is used as it is. Otherwise the split of a piece follows from a hash of its intervals, so that copies
are in one split and new files move no piece.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .fingerprint import Fingerprint, are_copies
from .pieces import SPLITS
from .progress import BuildState
from .sources import SPLIT_NAMES

ORDER = "source, name, place"
MIN_PRINTS = 8  # hashes that two pieces with one tune share
MIN_PIECES = 10  # with fewer, splits are parts of pieces


def by_key(key: bytes) -> str:
    """Return the split of a piece from the hash of its intervals: one of ten for validation, one for test."""
    part = int.from_bytes(key[:8], "big") / 2**64
    return "validation" if part < 0.1 else "test" if part < 0.2 else "train"


def find_copies(work: BuildState) -> None:
    """Flag every file that is a copy of a file before it (`copy_of`, `is_exact`); officially split files come first.

    Only files with the same intervals are compared, each with one file of each group of copies: memory does not grow
    with the corpus.
    """
    database = work.database
    database.execute("UPDATE files SET copy_of = NULL, is_exact = NULL")
    database.execute("DROP TABLE IF EXISTS temp.groups")
    database.execute(
        "CREATE TEMP TABLE groups AS SELECT key FROM files WHERE key IS NOT NULL GROUP BY key HAVING COUNT(*) > 1"
    )
    for (key,) in work.rows("SELECT key FROM temp.groups"):
        firsts: list[tuple[int, bytes, Fingerprint]] = []
        members = work.rows(
            "SELECT rowid, digest, onsets, onset_bytes, tolerance FROM files WHERE key = ?"
            f" ORDER BY official DESC, {ORDER}",
            key,
        )
        copies = []
        for row, digest, at, size, tolerance in members:
            form = Fingerprint(key, np.frombuffer(work.bytes_at(at, size), "<u2"), tolerance)
            first = next((f for f in firsts if are_copies(f[2], form)), None)
            if first is None:
                firsts.append((row, digest, form))
            else:
                copies.append((first[0], int(first[1] == digest), row))
        database.executemany("UPDATE files SET copy_of = ?, is_exact = ? WHERE rowid = ?", copies)


def use_official(work: BuildState) -> list[str]:
    """Apply official splits: split files, or else folders named train, validation and test. Return notes for the user."""
    database, used = work.database, []
    match = "o.source = files.source AND o.name = files.name"
    database.execute(
        f"UPDATE files SET official = 1, split = (SELECT o.split FROM official AS o WHERE {match})"
        f" WHERE reason IS NULL AND EXISTS (SELECT 1 FROM official AS o WHERE {match})"
    )
    if work.one("SELECT COUNT(*) FROM files WHERE official"):
        used.append("the split is the official one of the split file that came with the music")
    sources = [s for (s,) in work.rows("SELECT DISTINCT source FROM files WHERE reason IS NULL ORDER BY source")]
    for source in sources:
        if not work.one("SELECT COUNT(*) FROM files WHERE source = ? AND official", source):
            depth = _split_folders(name for (name,) in work.rows("SELECT name FROM files WHERE source = ?", source))
            if depth is not None:
                database.create_function(
                    "folder_split",
                    1,
                    lambda name, at=depth: SPLIT_NAMES[name.split("/")[at].lower()],
                    deterministic=True,
                )
                database.execute(
                    "UPDATE files SET official = 1, split = folder_split(name) WHERE source = ? AND reason IS NULL",
                    (source,),
                )
                used.append("the split is that of the folders train, validation and test")
    return list(dict.fromkeys(used))


def _split_folders(names: Iterator[str]) -> int | None:
    """Return the depth at which every file lies in a folder named after a split, train and test among them."""
    common: list[str] | None = None
    seen: set[str] = set()
    for name in names:
        parts = name.split("/")[:-1]
        at = next((i for i, part in enumerate(parts) if part.lower() in SPLIT_NAMES), None)
        if at is None or (common is not None and parts[:at] != common):
            return None
        common = parts[:at]
        seen.add(SPLIT_NAMES[parts[at].lower()])
    return len(common) if common is not None and {"train", "test"} <= seen else None


def split_the_rest(work: BuildState, *, keep_duplicates: bool) -> list[str]:
    """Assign a split to every piece without an official one. Return notes for the user."""
    database = work.database
    database.create_function("split_by_key", 1, by_key, deterministic=True)
    database.execute("UPDATE files SET split = split_by_key(key) WHERE reason IS NULL AND NOT official")
    # a copy of an official piece belongs to that piece's split
    database.execute(
        "UPDATE files SET split = (SELECT f.split FROM files AS f WHERE f.rowid = files.copy_of)"
        " WHERE copy_of IS NOT NULL AND NOT official"
    )
    notes = []
    kept = kept_rows(keep_duplicates=keep_duplicates)
    if not work.one(f"SELECT COUNT(*) FROM files WHERE {kept} AND official"):
        for split in SPLITS[1:]:
            missing = not work.one(f"SELECT COUNT(*) FROM files WHERE {kept} AND split = ?", split)
            if missing and work.one(f"SELECT COUNT(*) FROM files WHERE {kept} AND split = 'train'") > 1:
                first = work.one(f"SELECT key FROM files WHERE {kept} AND split = 'train' ORDER BY key LIMIT 1")
                database.execute("UPDATE files SET split = ? WHERE key = ? AND split = 'train'", (split, first))
                notes.append(f"no piece fell to {split} by its hash: the nearest one was taken")
    return notes


def kept_rows(*, keep_duplicates: bool) -> str:
    """Return the SQL condition of the files that become pieces."""
    return "reason IS NULL" if keep_duplicates else "reason IS NULL AND (copy_of IS NULL OR official)"


def twins(work: BuildState) -> dict[str, object]:
    """Return the officially split pieces that have copies in another split; they are only reported.

    Keys:
        groups: number of groups of copies that are in several splits; pieces: number of pieces in those groups.
        held_out: number of pieces of validation or test with a copy in train.
        examples: names of up to 20 groups.
        share_a_tune: pieces of validation and test with most of their tune in one training piece, see `share_a_tune`.
    """
    inner = (
        "SELECT COALESCE(copy_of, rowid) AS first FROM files WHERE reason IS NULL AND official"
        " GROUP BY first HAVING COUNT(DISTINCT split) > 1"
    )
    pieces = f"FROM files WHERE reason IS NULL AND official AND COALESCE(copy_of, rowid) IN ({inner})"
    with_train = f"{inner} AND SUM(split = 'train') > 0"
    held_out = (
        "SELECT COUNT(*) FROM files WHERE reason IS NULL AND official AND split != 'train'"
        f" AND COALESCE(copy_of, rowid) IN ({with_train})"
    )
    examples: dict[int, list[str]] = {}
    for first, name, split in work.rows(
        f"SELECT COALESCE(copy_of, rowid) AS first, name, split {pieces} ORDER BY first, name"
    ):
        if first in examples or len(examples) < 20:
            examples.setdefault(first, []).append(f"{split}: {name}")
    return {
        "groups": work.one(f"SELECT COUNT(*) FROM ({inner})"),
        "pieces": work.one(f"SELECT COUNT(*) {pieces}"),
        "held_out": work.one(held_out),
        "examples": list(examples.values()),
        "share_a_tune": share_a_tune(work),
    }


def share_a_tune(work: BuildState) -> dict[str, int]:
    """Return how many officially split pieces of validation and of test share a tune with a training piece.

    They do if at least half of their `fingerprint.tune_prints`, and at least `MIN_PRINTS`, are among those of one
    training piece. Key, rhythm and harmony may differ.
    """
    database = work.database
    database.execute("DROP TABLE IF EXISTS temp.prints")
    database.execute("CREATE TEMP TABLE prints (print INTEGER, file INTEGER, PRIMARY KEY (print, file)) WITHOUT ROWID")
    official = "SELECT rowid, tune FROM files WHERE reason IS NULL AND official AND split = ?"
    for row, tune in work.rows(official, "train"):
        prints = np.frombuffer(tune, "<i8").tolist()
        database.executemany("INSERT OR IGNORE INTO temp.prints VALUES (?, ?)", ((p, row) for p in prints))
    counts = {}
    for split in SPLITS[1:]:
        counts[split] = 0
        for _, tune in work.rows(official, split):
            prints = np.frombuffer(tune, "<i8").tolist()
            placeholders = ",".join("?" * len(prints))
            query = (
                f"SELECT COUNT(*) AS n FROM temp.prints WHERE print IN ({placeholders})"
                " GROUP BY file ORDER BY n DESC LIMIT 1"
            )
            best = database.execute(query, prints).fetchone()
            counts[split] += best is not None and best[0] >= max(MIN_PRINTS, len(prints) / 2)
    return counts
