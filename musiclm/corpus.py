"""A corpus: MIDI files as tokens, split by piece into train, validation and test.

Knows nothing of models and of batches.
"""

from __future__ import annotations

import dataclasses
import hashlib
import zipfile
from collections import Counter
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import numpy as np

from . import scores, tokens
from .errors import CorpusError, MusicLMError
from .tokens.base import Tokenizer

SUFFIXES = (".mid", ".midi", ".kar")
SPLITS = ("train", "validation", "test")
BUNDLED = "bundled Bach chorales"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Piece:
    """One piece of music.

    Attributes:
        name: where it comes from, within the corpus.
        tokens: (T,) ids, bos first and eos last.
        num_notes: in the music that the tokens express.
        seconds: how long that music is.
    """

    name: str
    tokens: np.ndarray
    num_notes: int
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corpus:
    """Pieces by split.

    Attributes:
        name: what it is called in cards and reports.
        tokenizer: what made the tokens.
        splits: train, validation and test, each maybe empty.
        dropped: how many files were left out, by reason.
        is_split: whether the splits are the corpus's own or have a meaning; false for a single file or a plain folder.
    """

    name: str
    tokenizer: Tokenizer
    splits: dict[str, list[Piece]]
    dropped: dict[str, int]
    is_split: bool = True

    def pieces(self, split: str) -> list[Piece]:
        """Return the pieces of train, validation, test or all."""
        if split == "all":
            return [piece for name in SPLITS for piece in self.splits[name]]
        return self.splits[split]


def bundled(tokenizer: Tokenizer) -> Corpus:
    """Return the 382 Bach chorales that come with the package, in their official split 229/76/77.

    They are Boulanger-Lewandowski et al.'s (2012) JSB Chorales on a sixteenth grid, four voices.
    """
    splits: dict[str, list[Piece]] = {name: [] for name in SPLITS}
    with zipfile.ZipFile(str(resources.files("musiclm") / "chorales.zip")) as archive:
        for name in sorted(archive.namelist()):
            splits[name.split("/")[0]].append(_piece(archive.read(name), name, tokenizer))
    return Corpus(name=BUNDLED, tokenizer=tokenizer, splits=splits, dropped={})


def open_source(source: str | Path | None, tokenizer: Tokenizer | None = None) -> Corpus:
    """Return the corpus in a folder of MIDI files or in one MIDI file; the bundled chorales if nothing is named.

    A piece's split follows from its own tokens, so copies fall together and adding files moves nothing.

    Args:
        source: a folder, searched at any depth, or a file.
        tokenizer: `score` if left out, `grid` for the bundled chorales.

    Raises:
        CorpusError: it is not there, or no file in it could be used; the message has the reasons.
    """
    if source is None:
        return bundled(tokenizer or tokens.create("grid"))
    tokenizer = tokenizer or tokens.create("score")
    path = Path(source)
    if not path.exists():
        raise CorpusError(f"no folder or file '{source}'")
    files = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
    if not files:
        raise CorpusError(f"no MIDI files in '{source}': looked for {', '.join(SUFFIXES)} at any depth")
    found: dict[str, Piece] = {}
    reasons: Counter[str] = Counter()
    for file in files:
        try:
            piece = _piece(file.read_bytes(), str(file), tokenizer)
        except MusicLMError as error:
            reasons[str(error).replace(f"'{file}' ", "")] += 1
        except OSError as error:
            reasons[f"cannot be read: {error.strerror}"] += 1
        else:
            key = hashlib.sha256(piece.tokens.tobytes()).hexdigest()
            if key in found:
                reasons["the same music as another file"] += 1
            found.setdefault(key, piece)
    if not found:
        told = "; ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        raise CorpusError(f"nothing to use in '{source}': {told}")
    splits = dict(zip(SPLITS, _split(found), strict=True))
    return Corpus(name=path.name, tokenizer=tokenizer, splits=splits, dropped=dict(reasons), is_split=False)


def _piece(data: bytes, name: str, tokenizer: Tokenizer) -> Piece:
    ids, _ = tokenizer.encode(scores.parse(data, name))
    score = tokenizer.decode(ids)
    return Piece(name=name, tokens=ids, num_notes=score.note_num(), seconds=scores.seconds(score))


def _split(found: dict[str, Piece]) -> Iterator[list[Piece]]:
    """Yield train, validation and test: of ten pieces one is for validation and one for test, by hash."""
    tenth = {key: int(key[:8], 16) % 10 for key in found}
    keys = sorted(found)
    if not {0, 1} <= set(tenth.values()) or set(tenth.values()) <= {0, 1}:  # few pieces: the first and the last of them
        tenth = dict.fromkeys(keys, 2) | {keys[0]: 0} | {keys[-1]: 1} if len(keys) > 2 else dict.fromkeys(keys, 2)
        if len(keys) <= 2:  # one or two: there is nothing to hold out, and validation is on what was learnt
            yield from ([found[k] for k in keys], [found[k] for k in keys], [])
            return
    yield [found[k] for k in keys if tenth[k] > 1]
    yield [found[k] for k in keys if tenth[k] == 0]
    yield [found[k] for k in keys if tenth[k] == 1]
