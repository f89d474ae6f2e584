"""Corpora: MIDI files as tokens, split by piece into train, validation and test. Independent of models.

The modules, in the order in which a corpus is built:

    sources.py      finds files in folders and archives
    parse.py        turns one file into one record: parsed, cleaned (clean.py), tokenised, measured
    workers.py      does that in processes that may crash or hang
    progress.py     the state of a build, on disk
    split.py        finds copies (by fingerprint.py) and assigns pieces to splits
    write.py        writes the store and the data report (report.py)
    store.py        opens a store
    build.py        calls all of these
    crops.py        pieces to training batches, augmented by augment.py
    datasets/       known data sets
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import tempfile
import zipfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from symusic import Score

from .. import midi, tokenizers
from ..errors import Drop, MidiError
from ..midi.reader import VERSION as READER
from ..tokenizers.base import Tokenizer
from . import sources as finding
from .build import Options, Progress, build_corpus
from .parse import parse_clean
from .pieces import BUNDLED, SPLITS, Corpus, Piece
from .sources import MUSIC as SUFFIXES
from .store import describe, files, is_store, open_store

__all__ = [
    "BUNDLED",
    "SPLITS",
    "SUFFIXES",
    "Corpus",
    "Options",
    "Piece",
    "Progress",
    "build_corpus",
    "bundled",
    "describe",
    "each_score",
    "files",
    "is_store",
    "open_source",
    "open_store",
]

SMALL_FILES, SMALL_BYTES = 48, 4 << 20  # a smaller source is built in memory, by this process
log = logging.getLogger(__name__)


def bundled(tokenizer: Tokenizer) -> Corpus:
    """Return the 382 Bach chorales that come with the package, in their official split 229/76/77.

    They are Boulanger-Lewandowski et al.'s (2012) JSB Chorales on a sixteenth grid, four voices.
    """
    splits: dict[str, list[Piece]] = {name: [] for name in SPLITS}
    with zipfile.ZipFile(str(resources.files("musiclm") / "chorales.zip")) as archive:
        for name in sorted(archive.namelist()):
            splits[name.split("/")[0]].append(_piece(archive.read(name), name, tokenizer))
    return Corpus(name=BUNDLED, tokenizer=tokenizer, splits={**splits}, dropped={})


def _piece(data: bytes, name: str, tokenizer: Tokenizer) -> Piece:
    ids, _ = tokenizer.encode(midi.parse(data, name))
    score = tokenizer.decode(ids)
    return Piece(name=name, tokens=ids, num_notes=score.note_num(), seconds=midi.seconds(score))


def open_source(source: str | Path | None, tokenizer: Tokenizer | None = None) -> Corpus:
    """Return the corpus in a store, an archive, a folder or one file of MIDI; the bundled chorales if none is named.

    A source that is not a store is built into one: a few files in memory, more files in the user's cache, where the
    next call finds the store. The log says which.

    Args:
        source: path of the store, archive, folder or file.
        tokenizer: None for that of the store; `score` for MIDI files, `grid` for the bundled chorales.

    Raises:
        CorpusError: the source does not exist, no file in it could be used (the message has the reasons), or it is a
            store of another tokenizer.
    """
    if source is None:
        return bundled(tokenizer or tokenizers.create("grid"))
    path = Path(source)
    if is_store(path):
        return open_store(path, tokenizer)
    finding.check([path])
    tokenizer = tokenizer or tokenizers.create("score")
    listing = _listing(path)
    if listing is None:
        with tempfile.TemporaryDirectory(prefix="musiclm-") as folder:
            output = Path(folder, path.resolve().name or "root")
            for _ in build_corpus([path], output, tokenizer, Options(workers=0)):
                pass
            return _unsplit(open_store(output, tokenizer, in_memory=True), path)
    output = cache_folder() / f"{path.resolve().name}-{_key(path, tokenizer, listing)}"
    if not is_store(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        log.info("building a corpus of '%s' in the cache: %s", source, output)
        for progress in build_corpus([path], output, tokenizer, Options(), force=True):
            if progress.stage == "done":
                log.info("built: %d files found", progress.found)
    else:
        log.info("using the corpus of '%s' in the cache: %s", source, output)
    return _unsplit(open_store(output, tokenizer), path)


def each_score(source: str | Path) -> Iterator[tuple[str, Score | MidiError]]:
    """Yield the name of each piece in a store, an archive, a folder or one file with its score, or the error.

    Raises:
        CorpusError: the source does not exist, or is of an unknown kind.
    """
    path = Path(source)
    if is_store(path):
        corpus = open_store(path)
        for piece in corpus.pieces("all"):
            yield piece.name, corpus.tokenizer.decode(piece.tokens)
        return
    finding.check([path])
    for event in finding.walk([path]):
        if isinstance(event, finding.Problem):
            yield str(source), MidiError(event.text)
        elif isinstance(event, finding.Found):
            try:
                if event.reason is not None:
                    raise MidiError(event.reason.text, event.reason)
                data = finding.read_bytes(event.path) if event.path is not None else event.data or b""
                if isinstance(data, Drop):
                    raise MidiError(data.text, data)
                yield event.name, parse_clean(data, event.name)
            except MidiError as error:
                yield event.name, error


def cache_folder() -> Path:
    """Return the folder of corpora built from raw sources; it may be deleted at any time."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("musiclm")) / "corpora"


def _listing(path: Path) -> str | None:
    """Return a hash of the names, sizes and times of a source's files; None if the source is small."""
    seen = hashlib.sha256()
    count = size = 0
    is_archive = False
    inside = sorted(p for p in path.rglob("*") if p.name.lower().endswith((*SUFFIXES, *finding.ARCHIVES, ".csv")))
    for file in inside if path.is_dir() else [path]:
        try:
            status = file.stat()
        except OSError:
            continue
        count, size = count + 1, size + status.st_size
        is_archive |= file.name.lower().endswith(finding.ARCHIVES)
        seen.update(f"{file.relative_to(path)}\0{status.st_size}\0{status.st_mtime_ns}\n".encode("utf-8", "replace"))
    return None if count <= SMALL_FILES and size <= SMALL_BYTES and not is_archive else seen.hexdigest()


def _key(path: Path, tokenizer: Tokenizer, listing: str) -> str:
    described: dict[str, Any] = {"path": str(path.resolve()), "listing": listing, "tokenizer": tokenizer.describe()}
    described["reader"] = READER
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]


def _unsplit(corpus: Corpus, path: Path) -> Corpus:
    """Return the corpus of a raw source. Its splits were made here, so users mean `all` pieces by default."""
    return dataclasses.replace(corpus, name=path.resolve().name, is_split=False)
