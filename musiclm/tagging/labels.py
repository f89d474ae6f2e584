"""Labelled files: from a table, from folders whose names are the labels, or from a corpus whose pieces have labels."""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
from collections.abc import Callable, Sequence
from pathlib import Path

from symusic import Score

from ..data import is_store, open_store
from ..data import sources as finding
from ..data.parse import parse_clean
from ..data.pieces import SPLITS, Piece
from ..data.sources import SPLIT_NAMES, Found, Problem
from ..errors import CorpusError, MidiError

FILE_COLUMNS = ("file", "midi_filename")
LABEL = "label"  # the column of a table where none is named
MOST_NAMED = 5  # missing files, or labels, in a message


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledFile:
    """A file with a label, which is not read yet.

    Attributes:
        name: for messages.
        label: of the piece.
        split: train, validation or test, if the source says so.
        read: returns the score, cleaned as for a corpus; raises MidiError if it cannot be used.
    """

    name: str
    label: str
    split: str | None
    read: Callable[[], Score]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledFiles:
    """What `find_labelled` found.

    Attributes:
        files: in the order of the sources.
        missing: names in tables that are no files.
        problems: sentences about archives and folders that could not be read.
        is_split: whether the sources say which pieces are for training.
    """

    files: list[LabelledFile]
    missing: list[str]
    problems: list[str]
    is_split: bool


def find_labelled(
    sources: Sequence[str | Path], *, column: str | None = None, data: str | Path | None = None
) -> LabelledFiles:
    """Return the labelled files of tables (.csv), folders and corpora.

    Folders: each is a label; a single folder stands for the folders in it. Tables have the columns `file` (or
    `midi_filename`), `label` and optionally `split`. Corpora have the labels that they were built with.

    Args:
        sources: one or more.
        column: of a table, or the kind of label of a corpus, where there are several.
        data: the folder that the names in tables are relative to; the table's own if left out.

    Raises:
        CorpusError: a source does not exist or has no labels, or no file of a table is there.
    """
    found: list[LabelledFile] = []
    missing: list[str] = []
    folders: list[Path] = []
    for source in map(Path, sources):
        if is_store(source):
            found += _of_corpus(source, column)
        elif source.suffix.lower() == ".csv" and source.is_file():
            of_table, not_there = _of_table(source, column, Path(data) if data is not None else source.parent)
            found, missing = found + of_table, missing + not_there
        elif source.is_dir():
            folders.append(source)
        else:
            raise CorpusError(f"'{source}' is neither a folder, nor a table (.csv), nor a corpus")
    of_folders, problems = _of_folders(folders)
    found += of_folders
    if missing and not found:
        raise CorpusError(f"none of the files of the table is there: {named(missing)}; --data names their folder")
    is_split = any(file.split for file in found)
    return LabelledFiles(files=found, missing=missing, problems=problems, is_split=is_split)


def named(names: Sequence[str]) -> str:
    """Return the first names of a list, and how many more there are."""
    more = f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def read_found(found: Found) -> Score:
    """Return the score of a file that `data.sources` found, cleaned as for a corpus.

    Raises:
        MidiError: it cannot be used.
    """
    if found.reason is not None:
        raise MidiError(f"'{found.name}' {found.reason.text}", found.reason)
    try:
        data = found.path.read_bytes() if found.path is not None else found.data or b""
    except OSError as error:
        raise MidiError(f"'{found.name}' cannot be read: {error.strerror or error}") from error
    return parse_clean(data, found.name)


def _of_table(table: Path, column: str | None, folder: Path) -> tuple[list[LabelledFile], list[str]]:
    """Return the labelled files of a table, and the names that are no files; rows without a label are left out."""
    try:
        rows = csv.DictReader(io.StringIO(table.read_text("utf-8-sig")))
        names = list(rows.fieldnames or ())
        file_column = next((name for name in FILE_COLUMNS if name in names), None)
        if file_column is None or (column or LABEL) not in names:
            wanted = f"'{FILE_COLUMNS[0]}' and '{column or LABEL}'"
            raise CorpusError(f"'{table}' needs the columns {wanted} (--label names another one); it has {names}")
        entries = [(row[file_column] or "", row[column or LABEL] or "", row.get("split") or "") for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CorpusError(f"'{table}' is not a table that can be read: {error}") from error
    found, missing = [], []
    for name, label, split in entries:
        if not label.strip():
            continue
        path = folder / name
        if not name or not path.is_file():
            missing.append(name)
            continue
        if split.strip() and split.strip().lower() not in SPLIT_NAMES:
            raise CorpusError(f"'{table}' has the split '{split}': one of {', '.join(SPLITS)}, or nothing")
        which = SPLIT_NAMES.get(split.strip().lower())
        read = functools.partial(read_found, Found(0, name, 0, "", path=path))
        found.append(LabelledFile(name=name, label=label.strip(), split=which, read=read))
    return found, missing


def _of_folders(folders: Sequence[Path]) -> tuple[list[LabelledFile], list[str]]:
    """Return the files of folders, the name of each folder being the label, and the problems on the way.

    Raises:
        CorpusError: two folders have one name, or one has no music.
    """
    if not folders:
        return [], []
    if len(folders) == 1:
        inner = sorted(p for p in folders[0].iterdir() if p.is_dir() and not p.name.startswith("."))
        folders = inner or folders
    by_name: dict[str, Path] = {}
    for folder in folders:
        name = folder.resolve().name
        if name in by_name:
            raise CorpusError(f"'{by_name[name]}' and '{folder}' would both be the label '{name}': rename one")
        by_name[name] = folder
    found: list[LabelledFile] = []
    problems: list[str] = []
    for label, folder in by_name.items():
        events = list(finding.walk([folder]))
        inside = [event for event in events if isinstance(event, Found)]
        here = [event.text for event in events if isinstance(event, Problem)]
        if not inside:
            why = f": {named(here)}" if here else ""
            raise CorpusError(f"no music in the folder '{folder}', which stands for the label '{label}'{why}")
        problems += here
        found += [
            LabelledFile(name=f"{label}/{each.name}", label=label, split=None, read=functools.partial(read_found, each))
            for each in inside
        ]
    return found, problems


def _of_corpus(path: Path, kind: str | None) -> list[LabelledFile]:
    """Return the pieces of a corpus that have a label of this kind, or of its only kind.

    Where its splits are parts of pieces, the whole pieces are taken, without a split.
    """
    corpus = open_store(path)
    by_split: dict[str | None, Sequence[Piece]] = {name: corpus.pieces(name) for name in SPLITS}
    if corpus.whole is not None:
        by_split = {None: corpus.whole}
    labelled = [(split, piece) for split, pieces in by_split.items() for piece in pieces if piece.labels]
    kinds = sorted({each for _, piece in labelled for each in piece.labels})
    chosen = kind or (kinds[0] if len(kinds) == 1 else None)
    if chosen is None or chosen not in kinds:
        has = (
            f"they have {', '.join(kinds)}: choose one with --label"
            if kinds
            else "'corpus build --labels' gives them some"
        )
        wanted = f" '{kind}'" if kind else "s" if not kinds else ""
        raise CorpusError(f"no label{wanted} for the pieces of the corpus '{path}'; {has}")
    return [
        LabelledFile(
            name=piece.name,
            label=piece.labels[chosen],
            split=split,
            read=functools.partial(corpus.tokenizer.decode, piece.tokens),
        )
        for split, piece in labelled
        if chosen in piece.labels
    ]
