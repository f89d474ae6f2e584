"""Compare all architectures under equal CPU time: losses, distant repeats, long positions, and the time of a token.

    python benchmarks/efficient.py --part chorales -o work/                      # 10 CPU minutes for each architecture
    musiclm corpus build maestro-v3.0.0-midi.zip -o CORPUS --tokenizer performance --keep-duplicates
    python benchmarks/efficient.py --part maestro --corpus CORPUS -o work/       # context 1,024, 20 CPU minutes each
    python benchmarks/efficient.py --part maestro --corpus CORPUS -o work/ --archs rotary,linear,longformer \\
        --contexts 512,2048,4096
    python benchmarks/efficient.py --part maestro --corpus CORPUS -o work/ --archs rotary,linear --seeds 1,2,3
    python benchmarks/efficient.py --part repeats --corpus CORPUS -o work/       # of the runs that maestro left there
    python benchmarks/efficient.py --part positions --corpus CORPUS -o work/
    python benchmarks/efficient.py --part generation
    python benchmarks/efficient.py --part chorales --quick                       # to see that it works; any part

One thread; every budget is CPU time of the process, so that a busy machine does not distort it. An interrupted command
continues when it is given again: a run is trained once and measured once. Checkpoints are selected on validation.

chorales    the bundled chorales, tokenizer grid, defaults of each architecture: nats/cell of all pieces of both splits.
maestro     nats/note and nats/event (natural logarithm; see recipes/maestro.py for what an event is) on whole pieces of
            each split, chosen by hash, at most --most-tokens. --contexts is the length of crops of all architectures, and
            the context, or the memory, of those that have one; the window of longformer and the buckets of reformer stay.
            A batch has 2,048 tokens, as in the defaults; at 4,096 it is one crop, so it has twice as many.
repeats     nats/token on targets whose last --matched symbols occurred before, but not within the last --back tokens, on
            those with a nearer match and on those without one: see distant_repeats.py. Four layers with a context of 1,024
            reach 4,093 tokens: --back 4096 is the stricter choice.
positions   nats/token by position, in buckets of --bucket tokens: the first --reach tokens of pieces that have so many, so
            that all buckets are of the same pieces.
generation  milliseconds of a token around 100 and around --position: medians of 200 tokens each, taken in turn, of
            untrained models whose context, where they have one, holds all tokens.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import distant_repeats
import efficient_training as training
import numpy as np
import torch

from musiclm import checkpoint, models
from musiclm.comparison import cost
from musiclm.data import open_source
from musiclm.errors import RunError
from musiclm.evaluation import sample_pieces, token_losses
from musiclm.generation.decode import sample_ids
from musiclm.training import setup
from musiclm.training.config import TrainConfig

SPLITS = ("validation", "test")


def chorales(a: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the results of all architectures on the bundled chorales."""
    pieces = {split: open_source(None).pieces(split) for split in SPLITS}
    budget = {"steps": 4} if a.quick else {"minutes": a.minutes or 10.0}
    runs = {}
    for arch in a.archs:
        for seed in a.seeds:
            folder = a.output / "chorales" / f"{arch}-{a.preset}-seed{seed}"
            runs[folder] = training.config_of(arch, preset=a.preset, seed=seed, **budget)
    return measured(runs, pieces, a.most_tokens)


def maestro(a: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the results of all architectures, contexts and seeds on the corpus."""
    corpus = open_source(a.corpus)
    pieces = {split: corpus.pieces(split) for split in SPLITS}
    budget = {"steps": 4} if a.quick else {"minutes": a.minutes or 20.0}
    shared = {"data": a.corpus and str(Path(a.corpus).resolve()), "preset": a.preset, **budget}
    runs = {}
    for context in a.contexts:
        for arch in a.archs:
            for seed in a.seeds:
                folder = a.output / "maestro" / f"{arch}-{a.preset}-context{context}-seed{seed}"
                runs[folder] = training.config_of(arch, context=context, dropout=a.dropout, seed=seed, **shared)
    found = measured(runs, pieces, a.most_tokens)
    return [row | {"context": plan.window, "seed": plan.seed} for row, plan in zip(found, runs.values(), strict=True)]


def measured(runs: dict[Path, TrainConfig], pieces: dict[str, Any], most_tokens: int | None) -> list[dict[str, Any]]:
    """Return the result of each run. What a folder holds from before is checked before anything is trained."""
    for folder, plan in runs.items():
        training.check_stored(folder, plan)
    return [training.measured(folder, plan, pieces, most_tokens) for folder, plan in runs.items()]


def trained_models(a: argparse.Namespace) -> list[tuple[str, Any, bool]]:
    """Return the name, the checkpoint and whether it computes in bfloat16 of --models, or else of the runs of maestro."""
    folders = a.models or sorted(path.parent for path in (a.output / "maestro").glob("*/best.safetensors"))
    if not folders:
        sys.exit(f"no runs in '{a.output / 'maestro'}': run --part maestro before, or name --models")
    found = []
    for folder in folders:
        plan = training.read_json(Path(folder) / "run.json") or {}
        if a.models or plan.get("arch") in a.archs:
            found.append((Path(folder).name, checkpoint.load(folder), plan.get("precision") == "bf16"))
    return found


def repeats(a: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the loss of each run by group of targets."""
    found = []
    for name, loaded, bf16 in trained_models(a):
        tokenizer = loaded.tokenizer()
        pieces = sample_pieces(open_source(a.corpus, tokenizer).pieces(a.split), a.most_tokens)
        options = {"compared": a.compared, "num_matched": a.matched, "back": a.back, "bf16": bf16}
        groups = distant_repeats.loss_by_group(loaded.model().eval(), tokenizer, pieces, **options)
        found.append({"name": name, "arch": loaded.arch, "split": a.split, "num_pieces": len(pieces), "groups": groups})
    return found


def positions(a: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the loss of each run by position."""
    found = []
    for name, loaded, bf16 in trained_models(a):
        tokenizer = loaded.tokenizer()
        long = [p for p in open_source(a.corpus, tokenizer).pieces(a.split) if len(p.tokens) > a.reach]
        if not long:
            sys.exit(f"no {a.split} piece has {a.reach:,} tokens: take a smaller --reach")
        cut = [dataclasses.replace(piece, tokens=piece.tokens[: a.reach + 1]) for piece in long]
        chosen = sample_pieces(cut, a.most_tokens)
        buckets = by_position(loaded.model().eval(), tokenizer, chosen, a.bucket, a.reach, bf16=bf16)
        found.append(
            {"name": name, "arch": loaded.arch, "split": a.split, "num_pieces": len(chosen), "buckets": buckets}
        )
    return found


def by_position(
    model: Any, tokenizer: Any, pieces: Sequence[Any], bucket: int, reach: int, *, bf16: bool = False
) -> list[dict[str, Any]]:
    """Return the mean loss (nats/token) of the targets that count among the first `reach`, by bucket."""
    nats, counts = np.zeros(reach), np.zeros(reach, np.int64)
    for piece, of_piece in token_losses(model, tokenizer, pieces, bf16):
        of_piece = of_piece[:reach]
        counted = np.asarray(tokenizer.eval_mask(piece.tokens[1 : len(of_piece) + 1]))
        nats[: len(of_piece)] += of_piece * counted
        counts[: len(of_piece)] += counted
    edges = range(0, reach, bucket)
    return [
        {
            "first": first,
            "stop": min(first + bucket, reach),
            "num_targets": int(counts[first : first + bucket].sum()),
            "nats_per_token": float(nats[first : first + bucket].sum() / max(1, counts[first : first + bucket].sum())),
        }
        for first in edges
    ]


def generation(a: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the time of a token near the beginning and far out, of all architectures."""
    count, far = (8, 200) if a.quick else (200, a.position)
    found = []
    for arch in a.archs:
        torch.manual_seed(0)
        model = cost.create(arch, a.preset, far + count).eval()
        form = model.for_generation()
        streams = {}
        for place in (100, far):
            prompt = torch.randint(0, cost.VOCAB_SIZE, (1, max(1, place - count // 2)))
            streams[place] = sample_ids(form, prompt)
            next(streams[place])  # reads the prompt
        seconds: dict[int, list[float]] = {place: [] for place in streams}
        for _ in range(count):
            for place, stream in streams.items():
                seconds[place] += cost.time_tokens(stream, 1, time.process_time)
        near_ms, far_ms = (1e3 * statistics.median(each) for each in seconds.values())
        found.append(
            {"arch": arch, "token_100_ms": near_ms, "far_token": far, "far_token_ms": far_ms, "ratio": far_ms / near_ms}
        )
        print(f"{arch}: done", file=sys.stderr)
    return found


def show_losses(found: list[dict[str, Any]], keys: Sequence[str]) -> None:
    """Print a table of runs, with these losses of both splits."""
    columns = [f"{split[:5]} {key.removeprefix('nats_per_')}" for key in keys for split in SPLITS]
    print(
        f"{'':40}{'attends to':27}{'crops':12}{'param':>8}{'steps':>8}{'tokens':>9}{'ms/tok':>8}"
        + "".join(f"{c:>13}" for c in columns)
    )
    for row in found:
        if row["problem"]:
            print(f"{row['name']:40}{row['problem']}")
            continue
        losses = "".join(f"{row['splits'][split][key]:13.4f}" for key in keys for split in SPLITS)
        pace = row["cpu_ms_per_token"]
        counts = f"{row['num_parameters'] / 1e6:7.2f}M{row['steps']:8,}{row['tokens'] / 1e6:8.2f}M"
        print(
            f"{row['name']:40}{row['attends_to']:27}{row['crops']:12}{counts}{'' if pace is None else f'{pace:.3f}':>8}{losses}"
        )


def show_chorales(found: list[dict[str, Any]]) -> None:
    show_losses(found, ["nats_per_token"])


def show_maestro(found: list[dict[str, Any]]) -> None:
    show_losses(found, ["nats_per_note", "nats_per_event"])


def show_repeats(found: list[dict[str, Any]]) -> None:
    print(f"{'nats/token (targets)':40}" + "".join(f"{group:>22}" for group in distant_repeats.GROUPS))
    for row in found:
        cells = (
            "-" if g["nats_per_token"] is None else f"{g['nats_per_token']:.4f} ({g['num_targets']:,})"
            for g in row["groups"].values()
        )
        print(f"{row['name']:40}" + "".join(f"{cell:>22}" for cell in cells))


def show_positions(found: list[dict[str, Any]]) -> None:
    print(f"{'nats/token at positions':40}" + "".join(f"{bucket['first']:>9,}-" for bucket in found[0]["buckets"]))
    for row in found:
        print(f"{row['name']:40}" + "".join(f"{bucket['nats_per_token']:>10.4f}" for bucket in row["buckets"]))


def show_generation(found: list[dict[str, Any]]) -> None:
    print(f"{'ms/token':20}{'token 100':>12}{'token ' + str(found[0]['far_token']):>12}{'ratio':>8}")
    for row in found:
        print(f"{row['arch']:20}{row['token_100_ms']:12.3f}{row['far_token_ms']:12.3f}{row['ratio']:8.2f}")


Part = tuple[Callable[[argparse.Namespace], list[dict[str, Any]]], Callable[[list[dict[str, Any]]], None]]
PARTS: dict[str, Part] = {
    "chorales": (chorales, show_chorales),
    "maestro": (maestro, show_maestro),
    "repeats": (repeats, show_repeats),
    "positions": (positions, show_positions),
    "generation": (generation, show_generation),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, required=True)
    parser.add_argument("-o", "--output", type=Path, help="where the runs are kept")
    parser.add_argument("--corpus", help="built by `musiclm corpus build … --tokenizer performance`")
    parser.add_argument("--archs", help="separated by commas; left out, all of them")
    parser.add_argument("--preset", default="small")
    parser.add_argument("--minutes", type=float, help="CPU minutes for each; left out, 10 (chorales) or 20 (maestro)")
    parser.add_argument("--contexts", default="1024", help="maestro: tokens, separated by commas")
    parser.add_argument("--seeds", default="1", help="separated by commas")
    parser.add_argument("--dropout", type=float, default=0.0, help="maestro: of architectures that have it")
    parser.add_argument("--models", nargs="*", help="repeats, positions: run folders; left out, those of maestro")
    parser.add_argument("--split", choices=SPLITS, default="validation", help="repeats, positions")
    parser.add_argument("--most-tokens", type=int, help="of a split, whole pieces by hash; left out, all")
    parser.add_argument("--compared", choices=["tokens", "pitches"], default="tokens", help="repeats: the symbols")
    parser.add_argument("--matched", type=int, default=16, help="repeats: symbols that have to be the same")
    parser.add_argument(
        "--back", type=int, default=1024, help="repeats: tokens; a distant match is farther back (stricter: 4096)"
    )
    parser.add_argument("--bucket", type=int, default=1024, help="positions: tokens")
    parser.add_argument("--reach", type=int, default=8192, help="positions: tokens of each piece")
    parser.add_argument("--position", type=int, default=8000, help="generation: the token far out")
    parser.add_argument("--quick", action="store_true", help="tiny models and a few steps: to see that it works")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    a = parser.parse_args()
    if not a.quick and a.part != "generation" and a.output is None:
        parser.error(f"--part {a.part} needs -o, the folder of the runs")
    if not a.quick and a.part in ("maestro", "repeats", "positions") and a.corpus is None:
        parser.error(f"--part {a.part} needs a --corpus")
    a.archs = a.archs.split(",") if a.archs else models.names()
    if unknown := [arch for arch in a.archs if arch not in models.names()]:
        parser.error(f"no architecture '{unknown[0]}': one of {', '.join(models.names())}")
    a.contexts, a.seeds = ([int(n) for n in each.split(",")] for each in (a.contexts, a.seeds))
    torch.set_num_threads(1)
    run, show = PARTS[a.part]
    with tempfile.TemporaryDirectory() as temporary:
        if a.quick:
            make_quick(a, Path(temporary))
        try:
            found = run(a)
        except RunError as error:
            sys.exit(f"Error: {error}")
    if a.json:
        print(json.dumps({"part": a.part, "results": found}, indent=1))
    else:
        show(found)


def make_quick(a: argparse.Namespace, folder: Path) -> None:
    """Make options small, and the runs that a part needs. Without a corpus the data are the bundled chorales."""
    setup.MAX_VALIDATION_TOKENS = 1000
    a.preset, a.contexts, a.most_tokens = "tiny", [64], 1000
    a.reach, a.bucket, a.matched, a.back = 400, 200, 4, 64
    a.output = a.output or folder
    if a.part in ("repeats", "positions") and not a.models and not (a.output / "maestro").exists():
        maestro(a)


if __name__ == "__main__":
    main()
