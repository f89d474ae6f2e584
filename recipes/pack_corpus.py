"""Pack the best-weighted part of a corpus into an archive of limited size, to train where little can be carried.

    python recipes/pack_corpus.py corpora/score -o score.tar.xz --megabytes 6 --weight chorales=3 --weight pop909-bands=0.6

The archive is a corpus in a .tar.xz. It has the pieces that a training run validates on, and training pieces in descending
order of weight (the product of the weights of the folders in a piece's name, 1 without; at equal weight by the hashes of their
names), as many as fit. The test split is left out. corpus.json says in a note what was left out.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from musiclm.data import store
from musiclm.data.pieces import Piece
from musiclm.evaluation.loss import sample_pieces
from musiclm.training.setup import MAX_VALIDATION_TOKENS

STEPS = 6  # bisections of the number of pieces; the archive is then at most 2 % of the pieces short of the limit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, help="a corpus that `musiclm corpus build` made")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the archive, .tar.xz")
    parser.add_argument(
        "--megabytes", type=float, default=6.0, help="the largest size of the archive, in 1,000,000 bytes"
    )
    parser.add_argument("--weight", action="append", default=[], metavar="FOLDER=W", help="as in `musiclm train`")
    a = parser.parse_args()
    by_folder = {name: float(weight) for name, _, weight in (each.partition("=") for each in a.weight)}
    print(pack(a.corpus, a.output, round(a.megabytes * 1e6), by_folder))


def pack(corpus: Path, output: Path, limit: int, by_folder: dict[str, float]) -> str:
    """Write the archive, and return what is in it and what was left out, in a sentence.

    Raises:
        SystemExit: not even the validation pieces and one training piece fit.
    """
    opened = store.open_store(corpus)
    validation = sample_pieces(opened.pieces("validation"), MAX_VALIDATION_TOKENS)
    train = best_first(opened.pieces("train"), by_folder)

    def archive(count: int) -> tuple[bytes, str]:
        with tempfile.TemporaryDirectory() as folder:
            note = _write(corpus, Path(folder), train, count, validation)
            return _archive(Path(folder)), note

    found, note = archive(len(train))
    if len(found) > limit:
        low, high = 1, len(train)  # low fits, high does not
        guess = max(1, math.floor(len(train) * limit / len(found)))
        found, note = archive(low)
        if len(found) > limit:
            raise SystemExit(f"not even one training piece fits into {limit:,} bytes: it takes {len(found):,}")
        for _ in range(STEPS):
            if low < guess < high:
                tried, said = archive(guess)
                if len(tried) <= limit:
                    low, found, note = guess, tried, said
                else:
                    high = guess
            guess = (low + high) // 2
    output.write_bytes(found)
    return f"{output}: {len(found):,} bytes; {note}"


def best_first(pieces: Sequence[Piece], by_folder: dict[str, float]) -> list[Piece]:
    """Return the pieces in descending order of weight, without those of weight 0."""

    def weight(piece: Piece) -> float:
        return math.prod(w for folder, w in by_folder.items() if folder in Path(piece.name).parts)

    weighted = [(-weight(piece), hashlib.sha256(piece.name.encode()).digest(), piece) for piece in pieces]
    return [piece for w, _, piece in sorted(weighted, key=lambda each: each[:2]) if w < 0]


def _write(corpus: Path, folder: Path, train: Sequence[Piece], count: int, validation: Sequence[Piece]) -> str:
    """Write a corpus of the first training pieces and the validation pieces; return the note of what was left out."""
    document = json.loads((corpus / "corpus.json").read_text("utf-8"))
    rows = np.load(corpus / "pieces.npy", mmap_mode="r")
    writer = store.Writer(folder, document["id_type"])
    kept = [*((0, piece) for piece in train[:count]), *((1, piece) for piece in validation)]
    for split, piece in sorted(kept, key=lambda each: each[1].name):
        writer.add(
            piece.name,
            piece.tokens,
            split=split,
            num_notes=piece.num_notes,
            seconds=piece.seconds,
            pitches=piece.pitches or (None, None),
            labels=piece.labels,
        )
    writer.close()
    names = {piece.name for _, piece in kept}
    lines = [line for line in store.files(corpus) if line["name"] in names and line["kept"]]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (folder / "files.jsonl").write_text(text, encoding="utf-8")
    sizes = {}
    for name, pieces in (("train", train[:count]), ("validation", validation), ("test", ())):
        sizes[name] = {"pieces": len(pieces), "tokens": sum(len(piece.tokens) for piece in pieces)}
    before = {i: (int((rows["split"] == i).sum()), int(rows["length"][rows["split"] == i].sum())) for i in range(3)}
    note = (
        f"packed: {sizes['train']['pieces']:,} of {before[0][0]:,} training pieces, {sizes['train']['tokens']:,} of "
        f"{before[0][1]:,} tokens, by weight; {len(validation):,} of {before[1][0]:,} validation pieces; "
        f"left out: the {before[2][0]:,} test pieces"
    )
    total = {"num_tokens": sum(s["tokens"] for s in sizes.values()), "splits": sizes}
    document |= total | {"num_notes": sum(piece.num_notes for _, piece in kept)}
    document |= {"kept": len(kept), "found": len(kept), "dropped": {}, "notes": [*document["notes"], note]}
    (folder / "corpus.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return note


def _archive(folder: Path) -> bytes:
    """Return a .tar.xz of a folder's files, the same bytes for the same files."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz", preset=6) as tar:
        for path in sorted(folder.iterdir()):
            info = tarfile.TarInfo(path.name)
            info.size = path.stat().st_size
            with path.open("rb") as file:
                tar.addfile(info, file)
    return packed.getvalue()


if __name__ == "__main__":
    main()
