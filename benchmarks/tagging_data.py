"""The labelled pieces of `tagging.py`: composers of MAESTRO, a table, few of them, and their tokens in a cache."""

from __future__ import annotations

import argparse
import csv
import functools
import hashlib
import json
import pickle
import random
import zipfile
from collections import Counter, defaultdict
from importlib import resources
from pathlib import Path

from musiclm.data.sources import Found
from musiclm.files import write_whole
from musiclm.tagging.dataset import TagData, TagPiece, read_pieces, split_pieces
from musiclm.tagging.labels import LabelledFile, find_labelled, read_found
from musiclm.tokenizers.base import Tokenizer

CACHE = 2  # version of what is kept of pieces
VALIDATION_SHARE = 5  # labelled pieces for one of validation, in the curve


def composers(folder: Path, num_labels: int) -> list[LabelledFile]:
    """Return the files of the most frequent single composers of MAESTRO v3, with its official split."""
    (table,) = folder.rglob("maestro-v*.csv")
    with table.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if "/" not in row["canonical_composer"]]
    counts = Counter(row["canonical_composer"] for row in rows)
    chosen = {name for name, _ in counts.most_common(num_labels)}
    return [
        LabelledFile(
            name=row["midi_filename"],
            label=row["canonical_composer"],
            split=row["split"],
            read=functools.partial(
                read_found, Found(0, row["midi_filename"], 0, "", path=table.parent / row["midi_filename"])
            ),
        )
        for row in rows
        if row["canonical_composer"] in chosen
    ]


def table(labels: Path, folder: Path) -> list[LabelledFile]:
    """Return the files of a table of labels, whose names are relative to a folder."""
    return find_labelled([labels], data=folder).files


def subset(files: list[LabelledFile], count: int, seed: int) -> list[LabelledFile]:
    """Return as many training files of each label, one fifth as many for validation, and all for testing."""
    by_label: dict[tuple[str, str | None], list[LabelledFile]] = defaultdict(list)
    for file in files:
        by_label[file.label, file.split].append(file)
    found = [file for file in files if file.split == "test"]
    rng = random.Random(seed)
    for (_, split), of_label in sorted(by_label.items(), key=lambda item: (item[0][0], str(item[0][1]))):
        most = {"train": count, "validation": max(1, count // VALIDATION_SHARE)}.get(str(split), 0)
        found += rng.sample(of_label, min(most, len(of_label)))
    return found


def digest(files: list[LabelledFile]) -> str:
    """Return a hash of names, labels and splits: what is kept of other labels or splits is not read for these."""
    rows = sorted([file.name, file.label, file.split or ""] for file in files)
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def pieces(files: list[LabelledFile], tokenizer: Tokenizer, steps: int, folder: Path) -> TagData:
    """Return the pieces of files by split; copies stay where the official split has them. Tokens are kept in a folder."""
    described = json.dumps([CACHE, tokenizer.describe(), steps, digest(files)], sort_keys=True)
    cache = folder / f"tokens-{hashlib.sha256(described.encode()).hexdigest()[:16]}.pickle"
    if cache.exists():
        found: list[TagPiece] = pickle.loads(cache.read_bytes())
    else:
        found = [piece for piece in read_pieces(files, tokenizer, steps) if isinstance(piece, TagPiece)]
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(cache, pickle.dumps(found))
    if not all(piece.split for piece in found):
        return split_pieces(found)
    splits: dict[str, list[TagPiece]] = {name: [] for name in ("train", "validation", "test")}
    for piece in found:
        splits[str(piece.split)].append(piece)
    labels = sorted({piece.label for piece in splits["train"]})
    return TagData(labels=labels, splits=splits, notes=[])


def make_quick(a: argparse.Namespace, folder: Path) -> None:
    """Make options small; the data are bundled chorales, as they are or played staccato by strings."""
    from symusic import Score

    from musiclm import midi

    a.num_labels, a.counts, a.preset, a.minutes, a.length = 2, "2,4", "tiny", 0.05, 64
    a.output = a.output or folder / "work"
    source = folder / "pieces"
    source.mkdir(parents=True)
    rows = []
    with zipfile.ZipFile(str(resources.files("musiclm") / "chorales.zip")) as archive:
        for i, name in enumerate(sorted(archive.namelist())[:48]):
            score: Score = midi.parse(archive.read(name), name)
            label = ("hymn", "orchestra")[i % 2]
            for track in score.tracks if i % 2 else ():
                track.program = 48
                for note in track.notes:
                    note.duration = max(1, note.duration // 3)
            midi.write(score, source / f"{i}.mid")
            split = ("train", "train", "validation", "test")[i // 2 % 4]
            rows.append({"midi_filename": f"{i}.mid", "file": f"{i}.mid", "split": split, "label": label})
    for row in rows:
        row["canonical_composer"] = row["label"]
    for name in ("maestro-v0.csv", "labels.csv"):
        with (source / name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    a.data = a.data or source
    a.others = a.others or [f"unsure={source}"]
