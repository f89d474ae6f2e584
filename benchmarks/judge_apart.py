"""The judge apart: tells sampled from real music by features that no tool of this project may use. See docs/concepts/judge.md.

    python benchmarks/judge_apart.py --kind chorale --samples bach-transformer -n 60 --seed 1
    python benchmarks/judge_apart.py --kind score --samples FOLDER --reference CORPUS --split test --json

SAMPLES is a folder of MIDI files or a model (a bundled name or a checkpoint), which then samples pieces from nothing, with its
own defaults, in batches of 20 with the seeds S, S + 1, ...; --keep-samples FOLDER writes them. REFERENCE is a corpus, or a
folder of MIDI files, of which all are then used; left out, the bundled chorales. Real and sampled pieces both pass
through the tokenizer of the reference, so that quantisation tells nobody apart, and the same number of bars of both is
judged: 16, of chorales 10. Shorter real pieces are not used. A piece with fewer than 16 pitched notes is not judged, on
either side; how many these were is said.

The baseline is real against real: two halves of pieces of the split (with training pieces, if the split has too few for two
sides of n), dealt so that pieces which share a tune are on one side. With two sides alike, 0.5 is expected.

Validation pieces are for choosing, test pieces for reporting, and no choice is to be made by this judge at all but whether
something counts as better.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import logging
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import discriminator
import numpy as np
from judge_features import BARS, FEATURES, features
from judge_music import music_of
from symusic import Score

from musiclm import checkpoint, midi, tokenizers
from musiclm.data import Corpus, each_score, fingerprint, open_source
from musiclm.errors import MusicLMError
from musiclm.files import write_whole
from musiclm.generation.composer import Composer
from musiclm.generation.config import GenerationConfig
from musiclm.tokenizers.base import Tokenizer

TOKENIZERS = {"score": "score", "chorale": "grid", "piano": "performance"}
BATCH = 20  # sampled at once
MOST_TRIES = 3  # times n pieces are looked at, or sampled, for n that are judged
SHARED_TUNE = 8  # hashes of `fingerprint.tune_prints`, as in `data.split`


@dataclasses.dataclass(kw_only=True)
class Side:
    """The pieces of one side that are judged.

    Attributes:
        names: of the pieces.
        rows: their features.
        tunes: their tune's hashes.
        num_thin: how many pieces had too few notes to be judged.
    """

    names: list[str] = dataclasses.field(default_factory=list)
    rows: list[np.ndarray] = dataclasses.field(default_factory=list)
    tunes: list[set[int]] = dataclasses.field(default_factory=list)
    num_thin: int = 0

    def add(self, name: str, score: Score, kind: str) -> None:
        values = features(score, kind)
        if values is None:
            self.num_thin += 1
            return
        self.names.append(name)
        self.rows.append(values)
        self.tunes.append(set(fingerprint.tune_prints(score).tolist()))

    def table(self) -> np.ndarray:
        return np.array(self.rows)


def through(tokenizer: Tokenizer, score: Score) -> Score:
    """Return a score as the tokens of the reference say it."""
    ids, _ = tokenizer.encode(score)
    return tokenizer.decode(ids)


def by_seed(names: Iterable[str], seed: int) -> list[int]:
    """Return the numbers of names in an order that depends on the seed and on each name alone."""
    keys = [hashlib.sha256(f"{seed}/{name}".encode()).digest() for name in names]
    return sorted(range(len(keys)), key=keys.__getitem__)


def real_side(source: Corpus, splits: list[str], kind: str, n: int, seed: int) -> Side:
    """Return up to n judged pieces of the splits, one split after the other, that have enough bars."""
    side = Side()
    for split in splits:
        pieces = source.pieces(split)
        for i in by_seed([p.name for p in pieces], seed):
            if len(side.names) == n:
                return side
            score = source.tokenizer.decode(pieces[i].tokens)
            if len(music_of(score, BARS[kind]).bars) > BARS[kind]:
                side.add(pieces[i].name, score, kind)
    return side


def sampled_side(samples: Iterator[tuple[str, Score]], tokenizer: Tokenizer, kind: str, n: int) -> Side:
    """Return n judged samples, fewer if there are no more."""
    side = Side()
    for name, score in islice(samples, MOST_TRIES * n):
        side.add(name, through(tokenizer, score), kind)
        if len(side.names) == n:
            break
    return side


def samples_of(asked: str, kind: str, seed: int, folder: Path | None) -> Iterator[tuple[str, Score]]:
    """Yield samples with their names: of a folder in an order that depends on the seed, or new ones of a model."""
    if Path(asked).is_dir() and not (Path(asked) / "model.safetensors").exists() and any(Path(asked).rglob("*.mid")):
        found = [(name, score) for name, score in each_score(asked) if isinstance(score, Score)]
        yield from (found[i] for i in by_seed([name for name, _ in found], seed))
        return
    composer = Composer(checkpoint.load(asked))
    number = 0
    while True:
        config = GenerationConfig.from_options(bars=16, n=BATCH)
        for made in composer.generate(None, config, seed + number // BATCH):
            number += 1
            if folder is not None:
                write_whole(folder / f"{number:03d}.mid", midi.to_bytes(made.score))
            yield f"{number:03d}", made.score


def works(tunes: list[set[int]]) -> list[int]:
    """Return for each piece the number of its work: pieces that share enough of a tune, also over others, are one work."""
    number = list(range(len(tunes)))
    for i, tune in enumerate(tunes):
        for j in range(i):
            shared = len(tune & tunes[j])
            if shared >= max(SHARED_TUNE, min(len(tune), len(tunes[j])) / 2) and number[i] != number[j]:
                old, new = max(number[i], number[j]), min(number[i], number[j])
                number = [new if k == old else k for k in number]
    return number


def baseline(side: Side, names: tuple[str, ...], n: int, seed: int) -> discriminator.Verdict:
    """Return the verdict on two halves of real pieces."""
    rows = side.table()
    first, second = discriminator.halves(works(side.tunes), seed)
    return discriminator.discriminate(rows[first], rows[second], names, n=n, seed=seed, importance=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", required=True, choices=list(FEATURES))
    parser.add_argument("--samples", required=True, help="a folder of MIDI files, or a model")
    parser.add_argument("--reference", help="a corpus or a folder of MIDI files; left out, the bundled chorales")
    parser.add_argument("-n", type=int, default=discriminator.SIZE, help="pieces per side")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--split", default="validation", choices=["train", "validation", "test"])
    parser.add_argument("--keep-samples", type=Path, metavar="FOLDER", help="where to write what a model samples")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    a = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    if a.keep_samples:
        a.keep_samples.mkdir(parents=True, exist_ok=True)
    try:
        report = judged(a)
    except (MusicLMError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(json.dumps(report) if a.json else report_text(report, a))


def judged(a: argparse.Namespace) -> dict[str, Any]:
    """Return the verdict, the baseline and what was judged, as JSON values."""
    names = FEATURES[a.kind]
    given = Path(a.reference) if a.reference else None
    is_store = given is None or (given / "corpus.json").is_file()
    source = open_source(given, None if is_store else tokenizers.create(TOKENIZERS[a.kind]))
    split = a.split if source.is_split else "all"
    more = ["train"] if source.is_split and split != "train" else []
    pool = real_side(source, [split, *more], a.kind, 2 * a.n, a.seed)
    real = real_side(source, [split], a.kind, a.n, a.seed)
    sampled = sampled_side(samples_of(a.samples, a.kind, a.seed, a.keep_samples), source.tokenizer, a.kind, a.n)
    verdict = discriminator.discriminate(real.table(), sampled.table(), names, n=a.n, seed=a.seed)
    return {
        "kind": a.kind,
        "samples": a.samples,
        "reference": source.name,
        "split": split,
        "seed": a.seed,
        "bars": BARS[a.kind],
        "not_judged": {"real": real.num_thin, "sampled": sampled.num_thin},
        "verdict": dataclasses.asdict(verdict),
        "baseline": dataclasses.asdict(baseline(pool, names, a.n, a.seed)),
        "pieces": {
            side: [
                {
                    "name": name,
                    "features": dict(zip(names, (None if np.isnan(v) else v for v in row.tolist()), strict=True)),
                }
                for name, row in zip(found.names, found.rows, strict=True)
            ]
            for side, found in (("real", real), ("sampled", sampled))
        },
    }


def report_text(report: dict[str, Any], a: argparse.Namespace) -> str:
    """Return a report for people."""
    left = report["not_judged"]
    text = [f"{a.samples} against {report['reference']}, {report['split']}: first {report['bars']} bars, seed {a.seed}"]
    text.append(f"too few pitched notes to be judged: {left['real']} real, {left['sampled']} sampled")
    text += discriminator.lines(discriminator.Verdict(**report["verdict"]), "real against sampled")
    text += discriminator.lines(discriminator.Verdict(**report["baseline"]), "real against real", 0)
    return "\n".join(text)


if __name__ == "__main__":
    main()
