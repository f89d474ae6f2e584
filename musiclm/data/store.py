"""A corpus on disk, which training maps into memory: a folder.

    corpus.json    tokenizer, options, counts and the data report ("doctor")
    tokens.bin     the ids of all pieces, one piece after another, uint16 (uint32 for over 65,536 ids)
    pieces.npy     one row per piece: see `PIECE`
    names.bin      the names of the pieces, UTF-8
    kinds.npy      the kind of music of each piece, uint8, see `Tokenizer.kind_of`; only where the tokenizer tells kinds
    labels.npy     one row per piece, as in pieces.npy: see `LABELS`; only where pieces have labels
    labels.bin     the labels of the pieces, a JSON object each, UTF-8
    files.jsonl    one line per file that was found: kept, or the reason why it was dropped

Opening it reads corpus.json and maps the rest, whatever its size. Reasons are stored as codes, see `musiclm.errors.Drop`,
and are given as texts by `describe` and `files`. Stores of earlier versions hold the texts.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np

from .. import tokenizers
from ..errors import CorpusError, Drop
from ..tokenizers.base import Tokenizer
from .pieces import SPLITS, Corpus, Piece

FORMAT = 1
WHOLE = len(SPLITS)  # an extra split: whole pieces, where the other splits have parts of them
PIECE = np.dtype(
    [
        ("name", "<u8"),  # offset of its name in names.bin, in bytes
        ("name_size", "<u4"),
        ("start", "<u8"),  # offset of its ids in tokens.bin, in ids
        ("length", "<u8"),
        ("num_notes", "<u4"),
        ("seconds", "<f8"),
        ("split", "u1"),  # train, validation, test, whole
        ("low", "<i2"),  # pitches, -1 for a piece of drums
        ("high", "<i2"),
    ]
)
LABELS = np.dtype([("start", "<u8"), ("size", "<u4")])  # of the JSON object in labels.bin, in bytes; 0 for no labels


class Labels(NamedTuple):
    """The labels of pieces: rows of labels.npy, and labels.bin."""

    rows: np.ndarray
    text: np.ndarray

    @property
    def is_whole(self) -> bool:
        """Whether the rows are rows of labels, and all of what they refer to is in the text."""
        if self.rows.dtype != LABELS:
            return False
        return not len(self.rows) or int((self.rows["start"] + self.rows["size"]).max()) <= len(self.text)

    def of_row(self, i: int) -> dict[str, str]:
        """Return the labels of one piece by kind."""
        start, size = self.rows[i].item()
        return json.loads(self.text[start : start + size].tobytes()) if size else {}


@dataclasses.dataclass(frozen=True)
class _Files:
    """The files of a store, mapped into memory.

    Attributes:
        rows: of pieces.npy.
        ids: of tokens.bin.
        names: of names.bin, bytes.
        labels: None if there are none.
        kinds: of kinds.npy; None if there are none.
    """

    rows: np.ndarray
    ids: np.ndarray
    names: np.ndarray
    labels: Labels | None
    kinds: np.ndarray | None


class StoredTokens(Sequence[np.ndarray]):
    """The ids of pieces of a store, read on access: what training needs of them takes the same memory however long they are.

    Attributes:
        lengths: of each piece in ids, (pieces,).
        kinds: of each piece, (pieces,), see `Tokenizer.kind_of`; None if the store does not have them.
    """

    def __init__(self, files: _Files, index: np.ndarray) -> None:
        self._starts = files.rows["start"][index].astype(np.int64)
        self.lengths = files.rows["length"][index].astype(np.int64)
        self.kinds = None if files.kinds is None else files.kinds[index]
        self._ids = files.ids

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, i: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[np.ndarray]: ...
    def __getitem__(self, i: int | slice) -> np.ndarray | Sequence[np.ndarray]:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        start = int(self._starts[i])
        return self._ids[start : start + int(self.lengths[i])]


class Pieces(Sequence[Piece]):
    """Pieces of a store, made on access.

    Args:
        files: of the store.
        index: which rows of pieces.npy they are, (pieces,).
    """

    def __init__(self, files: _Files, index: np.ndarray) -> None:
        self._files, self._index = files, index

    @property
    def tokens(self) -> StoredTokens:
        """The ids of the pieces."""
        return StoredTokens(self._files, self._index)

    @property
    def pitches(self) -> np.ndarray:
        """The lowest and the highest pitch of each piece, (pieces, 2); -1 for a piece of drums."""
        rows = self._files.rows
        return np.stack([rows["low"][self._index], rows["high"][self._index]], 1)

    def __len__(self) -> int:
        return len(self._index)

    @overload
    def __getitem__(self, i: int) -> Piece: ...
    @overload
    def __getitem__(self, i: slice) -> Pieces: ...
    def __getitem__(self, i: int | slice) -> Piece | Pieces:
        if isinstance(i, slice):
            return Pieces(self._files, self._index[i])
        at = int(self._index[i])
        return self._piece(at, self._files.rows[at].item())

    def __iter__(self) -> Iterator[Piece]:
        for begin in range(0, len(self), 4096):
            chosen = self._index[begin : begin + 4096]
            yield from map(self._piece, chosen.tolist(), self._files.rows[chosen].tolist())

    def _piece(self, i: int, row: tuple[Any, ...]) -> Piece:
        name, name_size, start, length, num_notes, seconds, _, low, high = row
        files = self._files
        return Piece(
            name=files.names[name : name + name_size].tobytes().decode(),
            tokens=files.ids[start : start + length],
            num_notes=num_notes,
            seconds=seconds,
            pitches=(low, high) if low >= 0 else None,
            labels={} if files.labels is None else files.labels.of_row(i),
        )


def is_store(path: str | Path) -> bool:
    """Return whether a folder holds a store."""
    return Path(path, "corpus.json").is_file()


def describe(path: str | Path) -> dict[str, Any]:
    """Return corpus.json of a store, its reasons as texts.

    Raises:
        CorpusError: there is no store, it is damaged, or of another version.
    """
    if not is_store(path):
        raise CorpusError(f"no corpus in '{path}': 'musiclm corpus build MIDI -o {path}' makes one")
    try:
        document: dict[str, Any] = json.loads(Path(path, "corpus.json").read_text("utf-8"))
        if document["format"] != FORMAT:
            raise CorpusError(f"'{path}' is of another version of musiclm: build it again")
        document["dropped"] = {Drop.parse(stored).text: count for stored, count in document["dropped"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorpusError(f"'{path}' is damaged: {error}; build it again") from error
    document["name"] = Path(path).resolve().name  # not stored: a corpus has the same bytes in any folder
    return document


def _of_ids(described: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a tokenizer's description that determines the ids of plain pieces.

    Infilling tokenizers read plain pieces and mask spans themselves; input features are computed from ids; ids
    mean the same in all versions of pairs.
    """
    kept = {key: value for key, value in described.items() if key not in ("features", "reference", "pairs")}
    return json.loads(json.dumps(kept | {"name": described["name"].removesuffix("-infill")}))


def open_store(path: str | Path, tokenizer: Tokenizer | None = None, *, in_memory: bool = False) -> Corpus:
    """Return the corpus in a folder.

    Args:
        path: the folder.
        tokenizer: the tokenizer that the corpus must have been built with; None for any.
        in_memory: read the tokens now, so that the folder is no longer needed.

    Raises:
        CorpusError: it is not a store, is damaged, or has tokens of another tokenizer.
        TokenizerError: its tokenizer is not known, or of another version.
    """
    document = describe(path)
    if tokenizer is None or "pairs" in document["tokenizer"]:
        own = tokenizers.from_description(document["tokenizer"])  # says so if its version of pairs is not known
        tokenizer = own if tokenizer is None else tokenizer
    if _of_ids(tokenizer.describe()) != _of_ids(document["tokenizer"]):
        theirs = document["tokenizer"].get("name")
        other = f"'{tokenizer.name}'" if tokenizer.name != theirs else f"another '{theirs}'"
        raise CorpusError(
            f"the corpus '{path}' has tokens of '{theirs}', not of {other}: name the folder of MIDI files instead, or "
            f"build one of them ('musiclm corpus build MIDI -o CORPUS --tokenizer {tokenizer.name}')"
        )
    folder = Path(path)
    try:
        rows = np.load(folder / "pieces.npy", mmap_mode=None if in_memory else "r", allow_pickle=False)
        ids = _mapped(folder / "tokens.bin", np.dtype(document["id_type"]), in_memory)
        names = _mapped(folder / "names.bin", np.dtype("u1"), in_memory)
        labels, kinds = _labels(folder, in_memory), _kinds(folder)
    except (OSError, ValueError) as error:
        raise CorpusError(f"'{path}' is damaged: {error}; build it again") from error
    rows = np.asarray(rows)
    if rows.dtype != PIECE or (len(rows) and int((rows["start"] + rows["length"]).max()) > len(ids)):
        raise CorpusError(f"'{path}' is damaged: its pieces are not those of its tokens; build it again")
    if labels is not None and (len(labels.rows) != len(rows) or not labels.is_whole):
        raise CorpusError(f"'{path}' is damaged: its labels are not those of its pieces; build it again")
    if kinds is not None and len(kinds) != len(rows):
        raise CorpusError(f"'{path}' is damaged: its kinds are not those of its pieces; build it again")
    opened = _Files(rows, ids, names, labels, kinds)
    which = np.asarray(rows["split"])

    def of(split: int) -> Pieces:
        return Pieces(opened, np.flatnonzero(which == split))

    splits = {name: of(i) for i, name in enumerate(SPLITS)}
    whole = of(WHOLE) if (which == WHOLE).any() else None
    return Corpus(
        name=document["name"],
        tokenizer=tokenizer,
        splits={**splits},
        dropped=document["dropped"],
        whole=whole,
        notes=tuple(document["notes"]),
    )


def _labels(folder: Path, in_memory: bool) -> Labels | None:
    """Return the labels of a store; None if it has none."""
    if not (folder / "labels.npy").is_file():
        return None
    rows = np.load(folder / "labels.npy", mmap_mode=None if in_memory else "r", allow_pickle=False)
    return Labels(np.asarray(rows), _mapped(folder / "labels.bin", np.dtype("u1"), in_memory))


def _kinds(folder: Path) -> np.ndarray | None:
    """Return the kinds of a store; None if it has none, as one of an earlier version."""
    if not (folder / "kinds.npy").is_file():
        return None
    return np.asarray(np.load(folder / "kinds.npy", allow_pickle=False))


def _mapped(path: Path, dtype: np.dtype[Any], in_memory: bool) -> np.ndarray:
    if in_memory or path.stat().st_size == 0:  # an empty file cannot be mapped
        return np.fromfile(path, dtype)
    return np.asarray(np.memmap(path, dtype, "r"))


def files(path: str | Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of files.jsonl: for each file that was found, whether it was kept, or the text of the reason."""
    with Path(path, "files.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            file: dict[str, Any] = json.loads(line)
            if "reason" in file:
                file["reason"] = Drop.parse(file["reason"]).text
            yield file


class Writer:
    """Writes the tokens and pieces of a store, one piece after another."""

    def __init__(self, folder: Path, id_type: str) -> None:
        self.folder, self.id_type = folder, np.dtype(id_type)
        self._tokens = (folder / "tokens.bin").open("wb")
        self._names = (folder / "names.bin").open("wb")
        self._rows = (folder / "rows").open("wb")
        self._labels = (folder / "labels.bin").open("wb")
        self._label_rows = (folder / "label_rows").open("wb")
        self._start = self._name = self._label = self.num_pieces = 0

    def add(
        self,
        name: str,
        ids: np.ndarray,
        *,
        split: int,
        num_notes: int,
        seconds: float,
        pitches: tuple[int | None, int | None],
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """Write one piece."""
        data = name.encode()
        text = json.dumps(labels, sort_keys=True, ensure_ascii=False).encode() if labels else b""
        self._labels.write(text)
        self._label_rows.write(np.array([(self._label, len(text))], LABELS).tobytes())
        self._label += len(text)
        low, high = (-1 if p is None else p for p in pitches)
        row = (self._name, len(data), self._start, len(ids), num_notes, seconds, split, low, high)
        self._tokens.write(ids.astype(self.id_type).tobytes())
        self._names.write(data)
        self._rows.write(np.array([row], PIECE).tobytes())
        self._start, self._name, self.num_pieces = self._start + len(ids), self._name + len(data), self.num_pieces + 1

    def close(self) -> None:
        """Finish the files."""
        for file in (self._tokens, self._names, self._rows, self._labels, self._label_rows):
            file.close()
        self._to_npy("rows", "pieces.npy", PIECE)
        if self._label:
            self._to_npy("label_rows", "labels.npy", LABELS)
        else:
            for name in ("label_rows", "labels.bin"):
                (self.folder / name).unlink()

    def _to_npy(self, rows: str, name: str, dtype: np.dtype[Any]) -> None:
        """Turn a file of rows into one that `np.load` maps into memory."""
        path = self.folder / rows
        with (self.folder / name).open("wb") as file:
            np.lib.format.write_array_header_2_0(
                file,
                {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (self.num_pieces,)},
            )
            with path.open("rb") as blocks:
                while block := blocks.read(1 << 20):
                    file.write(block)
        path.unlink()
