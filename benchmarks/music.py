"""The yardstick: samples beside real music, measure by measure, and a verdict by rule.

    python benchmarks/music.py bach-transformer --kind chorale
    python benchmarks/music.py score-transformer --reference CORPUS -n 60 --seed 1 --json > before.json
    python benchmarks/music.py outputs/ --reference CORPUS --kind score
    python benchmarks/music.py bach --kind chorale --option temperature=0.4 --save samples/
    python benchmarks/music.py score-transformer --reference CORPUS --prompt-bars 8 --bars 8 -n 60

SOURCE is a folder, an archive or a file of MIDI, a corpus that `musiclm corpus build` made, or a model: a bundled name, a
checkpoint file or a run folder. A model writes n pieces from nothing, --batch of them at a time, with the seeds SEED, SEED + 1,
...: piece i of a seed is what `musiclm generate -n BATCH --seed` writes as its i-th. --option sets any option of `musiclm
generate` by its name in Python. Where the checkpoint recommends it, each piece is the best of several: --option draw=1 gives
plain samples. Of other sources, n pieces are taken in the order of the hashes of their names. Music from files goes through the
tokenizer of its kind first (`score`, `grid` for chorales, `performance` for piano), so that quantization does not tell samples
from real music.

With --prompt-bars the model continues the first bars of n pieces of the reference, one by one, each with the seed SEED; what is
measured is the new music alone, beside the real bars that follow in the same pieces. Shorter pieces are left out.

The reference is a corpus's test split, or all of a folder or an archive; for chorales it is the bundled ones if none is named.

A model's report also says what its loop guard intervened in (--option loop_guard=false switches it off), and beside the mean of
the chord changes per bar their quantiles: what a guard enforces says nothing about the model by itself.

Every measure is described in docs/concepts/metrics.md. The last column is the difference of the means in standard errors of the
difference; with fifty measures, two or three are beyond 2 by chance.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import itertools
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from symusic import Score

from musiclm import midi, tokenizers
from musiclm.data import bundled, each_score, is_store, open_source, open_store
from musiclm.errors import MusicLMError
from musiclm.evaluation import yardstick
from musiclm.generation.composer import Composer, Composition
from musiclm.generation.config import GenerationConfig
from musiclm.generation.loop_guard import CAUSES
from musiclm.tokenizers.base import Tokenizer

TOKENIZERS = {"score": "score", "chorale": "grid", "piano": "performance"}
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
    """A piece, what it is called, the seed that it was sampled with, if it was, and what the loop guard did, by cause."""

    name: str
    score: Score
    seed: int | None = None
    resampled: dict[str, int] | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument("--reference", help="a corpus, a folder or an archive; left out, for chorales the bundled ones")
    parser.add_argument("--split", choices=["train", "validation", "test", "all"], help="of the reference; see above")
    parser.add_argument("--kind", choices=yardstick.KINDS, help="left out: that of the model, `score` for files")
    parser.add_argument("-n", type=int, default=60, help="pieces of SOURCE (60)")
    parser.add_argument("--num-reference", type=int, default=200, help="at most so many pieces of the reference (200)")
    parser.add_argument("--bars", type=int, default=yardstick.BARS, help="measure the first bars alone (16)")
    parser.add_argument("--seed", type=int, default=1, help="of the first sample (1)")
    parser.add_argument("--batch", type=int, default=10, help="pieces sampled with one seed at once (10); 1 is slower")
    parser.add_argument("--prompt-bars", type=int, metavar="N", help="continue the first N bars of the reference")
    parser.add_argument("--threads", type=int, default=1, help="of torch while sampling (1)")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="for sampling; repeatable")
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="write the pieces of SOURCE as MIDI files")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output, piece by piece")
    a = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        report = compare(a)
    except (MusicLMError, ValueError) as error:
        parser.exit(1, f"Error: {error}\n")
    print(json.dumps(report) if a.json else as_table(report))


def compare(a: argparse.Namespace) -> dict[str, Any]:
    """Return the document of --json."""
    if is_music(a.source):
        if a.prompt_bars:
            raise ValueError("--prompt-bars is for a model that continues music, not for music")
        kind = a.kind or "score"
        items = from_files(a.source, kind, a.n)
    else:
        composer, config = model_of(a)
        kind = a.kind or yardstick.KIND_OF.get(composer.tokenizer.name, "score")
    reference, name, split = reference_of(a.reference, kind, a.split, 10**6 if a.prompt_bars else a.num_reference)
    if a.prompt_bars:
        prompts = [item for item in reference if midi.num_bars(item.score) >= a.prompt_bars + a.bars][: a.n]
        items = continued(composer, config, prompts, a)
        reference = [dataclasses.replace(item, score=following(item.score, a.prompt_bars, a.bars)) for item in prompts]
    elif not is_music(a.source):
        items = from_model(composer, config, a)
    if a.save:
        save(a.save, items)
    if not items or not reference:
        raise ValueError(f"no piece in {a.source if not items else name}")
    sets = {"samples": described(items, kind, a.bars), "reference": described(reference, kind, a.bars)}
    return {
        "source": a.source,
        "reference": name,
        "split": split,
        "kind": kind,
        "bars": a.bars,
        "seed": a.seed,
        "prompt_bars": a.prompt_bars,
        "batch": a.batch,
        "options": options_of(a.option),
        **yardstick.compared(sets, kind),
        "resampled": interventions(items),
        "chord_changes_quantiles": {which: quantiles(pieces, "chord_changes") for which, pieces in sets.items()},
        "pieces": sets,
    }


def is_music(source: str) -> bool:
    """Return whether a source is music rather than a model."""
    path = Path(source)
    is_run = path.is_dir() and not is_store(path) and any(path.glob("*.safetensors"))
    return path.exists() and path.suffix != ".safetensors" and not is_run


def options_of(given: Sequence[str]) -> dict[str, Any]:
    """Return options of `name=value`; values are JSON where they can be read as such, else text."""
    found: dict[str, Any] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals:
            raise ValueError(f"'{each}' is no option: write NAME=VALUE")
        try:
            found[name.replace("-", "_")] = json.loads(value)
        except json.JSONDecodeError:
            found[name.replace("-", "_")] = value
    return found


def model_of(a: argparse.Namespace) -> tuple[Composer, GenerationConfig]:
    """Return a model and the options of --option with the model's own defaults."""
    torch.set_num_threads(a.threads)
    composer = Composer.load(a.source)
    options = options_of(a.option)
    length = {} if {"bars", "seconds", "tokens"} & set(options) else {"bars": a.bars}
    return composer, composer.completed(GenerationConfig.from_options(**length, **options))


def from_model(composer: Composer, config: GenerationConfig, a: argparse.Namespace) -> list[Item]:
    """Return pieces that a model writes without a prompt."""
    items: list[Item] = []
    for seed in itertools.count(a.seed):
        wanted = dataclasses.replace(config, n=min(a.batch, a.n - len(items)))
        for index, composition in enumerate(composer.generate_best(composer.prompt(None), wanted, seed)[0]):
            items.append(item_of(f"seed {seed}, {index}", composition, seed))
        progress(len(items), a.n)
        if len(items) == a.n:
            return items
    raise AssertionError("the seeds have no end")


def continued(
    composer: Composer, config: GenerationConfig, prompts: Sequence[Item], a: argparse.Namespace
) -> list[Item]:
    """Return the new music behind the first bars of each of some pieces."""
    wanted = dataclasses.replace(config, n=1, prompt_bars=a.prompt_bars, only_new=True)
    items: list[Item] = []
    for prompt in prompts:
        (composition,) = composer.generate_best(composer.prompt(prompt.score, bars=a.prompt_bars), wanted, a.seed)[0]
        items.append(item_of(prompt.name, composition, a.seed))
        progress(len(items), len(prompts))
    return items


def item_of(name: str, composition: Composition, seed: int) -> Item:
    resampled = {cause: composition.resampled.get(cause, 0) for cause in CAUSES}
    return Item(name=name, score=composition.score, seed=seed, resampled=resampled)


def following(score: Score, num_before: int, num_bars: int) -> Score:
    """Return the bars behind the first ones of a score."""
    start = midi.bar_line(score, 0.0, num_before)
    return midi.cut(score, start, midi.bar_line(score, start, num_bars))


def progress(done: int, count: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done}/{count} sampled", end="\n" if done == count else "", file=sys.stderr)


def from_files(source: str, kind: str, count: int) -> list[Item]:
    """Return the first pieces of a folder, an archive, a file or a corpus, in the order of their names' hashes."""
    if is_store(Path(source)):
        return from_corpus(open_store(Path(source)), "all", count)
    tokenizer = tokenizers.create(TOKENIZERS[kind])
    items: list[Item] = []
    for name, score in sorted(each_score(source), key=lambda each: by_hash(each[0])):
        if len(items) == count:
            break
        if isinstance(score, Exception):
            log.warning("%s: left out: %s", name, score)
        else:
            items += through(name, score, tokenizer)
    return items


def through(name: str, score: Score, tokenizer: Tokenizer) -> list[Item]:
    """Return a piece as a tokenizer expresses it, or nothing and a warning where it cannot."""
    try:
        return [Item(name=name, score=tokenizer.decode(tokenizer.encode(score)[0]))]
    except MusicLMError as error:
        log.warning("%s: left out: %s", name, error)
        return []


def reference_of(source: str | None, kind: str, split: str | None, count: int) -> tuple[list[Item], str, str]:
    """Return the pieces of the reference, its name and the split."""
    tokenizer = tokenizers.create(TOKENIZERS[kind])
    if source is None:
        if kind != "chorale":
            raise ValueError(f"name a --reference for music of the kind {kind}: only chorales are bundled")
        corpus = bundled(tokenizer)
    else:
        corpus = open_store(Path(source)) if is_store(Path(source)) else open_source(source, tokenizer)
    chosen = split or ("test" if corpus.is_split else "all")
    return from_corpus(corpus, chosen, count), corpus.name, chosen


def from_corpus(corpus: Any, split: str, count: int) -> list[Item]:
    """Return the first pieces of a split, in the order of their names' hashes."""
    pieces = sorted(corpus.pieces(split), key=lambda piece: by_hash(piece.name))[:count]
    return [Item(name=piece.name, score=corpus.tokenizer.decode(piece.tokens)) for piece in pieces]


def by_hash(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()


def described(items: Sequence[Item], kind: str, bars: int) -> list[dict[str, Any]]:
    """Return name, seed, values and the verdict by rule of each piece."""
    return [
        {"name": item.name, "seed": item.seed, "resampled": item.resampled}
        | yardstick.described(item.score, kind, bars)
        for item in items
    ]


def interventions(items: Sequence[Item]) -> dict[str, dict[str, int]] | None:
    """Return how many stretches the loop guard had resampled, and in how many pieces, by cause; None for music from files."""
    found = [item.resampled for item in items if item.resampled is not None]
    if not found:
        return None
    return {
        cause: {"times": sum(each[cause] for each in found), "pieces": sum(each[cause] > 0 for each in found)}
        for cause in found[0]
    }


def quantiles(pieces: Sequence[dict[str, Any]], measure: str) -> list[float]:
    """Return the `QUANTILES` of a measure over pieces; empty where no piece has it."""
    found = [value for piece in pieces if (value := piece["values"][measure]) is not None]
    return [float(value) for value in np.quantile(found, QUANTILES)] if found else []


def save(folder: Path, items: Sequence[Item]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, item in enumerate(items):
        (folder / f"{number:03}.mid").write_bytes(midi.to_bytes(item.score))


def as_table(report: dict[str, Any]) -> str:
    """Return the report as text."""
    head = f"first {report['bars']} bars, {report['kind']}; {report['source']} (seeds from {report['seed']}) beside "
    lines = [head + f"{report['reference']} ({report['split']})", ""]
    lines.append(f"{'':34}{'samples':>22}{'n':>5}{'reference':>22}{'n':>5}{'apart':>8}  unit")
    for name, row in report["measures"].items():
        cells = "".join(
            f"{with_error(row[which]):>22}{row[which]['num_pieces']:>5}" for which in ("samples", "reference")
        )
        found = yardstick.apart(row, "samples", "reference")
        apart = "" if found is None else f"{found:+.1f}"
        lines.append(f"{yardstick.MEASURES[name].label:34}{cells}{apart:>8}  {row['unit']}")
    lines.append("")
    for which, found in report["by_rule"].items():
        reasons = ", ".join(f"{reason} {count}" for reason, count in found["reasons"].items()) or "none"
        share = found["decent"] / found["num_pieces"]
        lines.append(
            f"decent by rule, {which}: {found['decent']} of {found['num_pieces']} ({share:.0%}); broken: {reasons}"
        )
    for which, levels in report["chord_changes_quantiles"].items():
        values = ", ".join(f"{level:.2f}" for level in levels)
        lines.append(f"chord changes a bar, {which}: {values} (quantiles {', '.join(map(str, QUANTILES))})")
    for cause, found in (report["resampled"] or {}).items():
        lines.append(f"resampled by the loop guard for {cause}: {found['times']} times, in {found['pieces']} pieces")
    return "\n".join(lines)


def with_error(found: dict[str, Any]) -> str:
    if found["mean"] is None:
        return "-"
    error = found["standard_error"]
    return f"{found['mean']:.3f}" + ("" if error is None else f" ± {error:.3f}")


if __name__ == "__main__":
    main()
