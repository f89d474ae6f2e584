"""Labels of pieces in a corpus: from a table of the user's, from the table that comes with a data set, or one for all.

A label has a kind and a value, both text: composer, "Frédéric Chopin".
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping
from pathlib import Path

from ..errors import CorpusError

FILE, SPLIT = "file", "split"  # columns that are no labels


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelSources:
    """Where the labels of a build come from; later ones replace earlier ones of their kind.

    Attributes:
        of_all: by kind, of every piece.
        columns: by kind, the column of a table with official splits; see `sources.OfficialSplit`.
        of_files: by name of a file, within its source or with the name of the source before it, the labels by kind; the
            longer name replaces the shorter one.
    """

    of_all: Mapping[str, str] = dataclasses.field(default_factory=dict)
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    of_files: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)

    def of_piece(self, file: str, shown: str, official: Mapping[str, str]) -> dict[str, str]:
        """Return the labels of a piece by kind.

        Args:
            file: its name within its source.
            shown: with the name of the source before it.
            official: what the table that came with it says, by kind.
        """
        return {**self.of_all, **official, **self.of_files.get(file, {}), **self.of_files.get(shown, {})}


def read_labels(path: str | Path) -> dict[str, dict[str, str]]:
    """Return the labels of a table, by file and kind: the column `file`, and one column for each kind of label.

    Cells that are empty say nothing. A column `split` is ignored.

    Raises:
        CorpusError: it cannot be read, or has no such columns.
    """
    try:
        rows = csv.DictReader(io.StringIO(Path(path).read_text("utf-8-sig")))
        kinds = [name for name in rows.fieldnames or () if name and name not in (FILE, SPLIT)]
        if FILE not in (rows.fieldnames or ()) or not kinds:
            raise CorpusError(f"'{path}' needs a column '{FILE}', and one for each kind of label, such as composer")
        return {
            row[FILE]: {kind: value for kind in kinds if (value := (row[kind] or "").strip())}
            for row in rows
            if row[FILE]
        }
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CorpusError(f"'{path}' is not a table that can be read: {error}") from error
