"""How fast training batches are made: tokens a second of random crops with their features, by this process or by two workers.

    python benchmarks/loader.py                       # the bundled chorales, a minute on two quiet cores
    python benchmarks/loader.py --data MAESTRO        # a folder of MIDI files or a corpus, see `musiclm corpus`
    python benchmarks/loader.py --quick --json

A token is an input of a crop; those that only lead into its features, and padding, do not count. `cold` is the first pass over
some batches, `warm` the second over the same ones. Both by the clock on the wall, and per CPU second of this process and its
workers: on a busy machine only the latter says something. A loader's start, the forking of its workers, is not in the first
figure, but is in the second, as are the four batches that two workers have made ahead when a pass ends.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import time
from pathlib import Path
from typing import Any

import torch

from musiclm import tokenizers
from musiclm.data import loader, open_source
from musiclm.data.crops import RandomCrops

TOKENIZERS = ("grid", "score", "performance")
SHAPES = ((4, 512), (32, 1024))
CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="music to train on; the bundled chorales if left out")
    parser.add_argument("--tokenizer", action="append", choices=tokenizers.NAMES, help="may be repeated")
    parser.add_argument("--batches", type=int, default=100, help="a pass")
    parser.add_argument("--quick", action="store_true", help="some batches only, no figures to quote")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    a = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in a.tokenizer or TOKENIZERS:
        tokenizer = tokenizers.create(name)
        pieces = list(open_source(a.data, tokenizer).pieces("train"))
        for (batch_size, length), workers in itertools.product(SHAPES, (0, 2)):
            made = RandomCrops(
                [piece.tokens for piece in pieces],
                tokenizer,
                pitches=[piece.pitches for piece in pieces],
                length=length,
                batch_size=batch_size,
                seed=0,
            )
            count = 4 if a.quick else a.batches
            row: dict[str, Any] = {"tokenizer": name, "batch_size": batch_size, "length": length, "workers": workers}
            rows.append(row | {state: measure(made, count, workers) for state in ("cold", "warm")})
            if not a.json:
                show(rows[-1])
    if a.json:
        print(json.dumps({"torch": torch.__version__, "cpu": torch.backends.cpu.get_cpu_capability(), "rows": rows}))


def measure(made: RandomCrops, count: int, workers: int) -> dict[str, float]:
    """Return tokens per second, and per CPU second, of the first `count` batches."""
    cpu = cpu_seconds()
    batches = iter(loader.load(made, 0, CPU, workers=workers))
    tokens = next(batches).num_tokens if workers else 0  # the workers are ready
    began, before = time.perf_counter(), tokens
    for batch in itertools.islice(batches, count - (workers > 0)):
        tokens += batch.num_tokens
    seconds = time.perf_counter() - began
    del batches  # the workers end, and only then their time is known
    return {"tokens_per_second": (tokens - before) / seconds, "tokens_per_cpu_second": tokens / (cpu_seconds() - cpu)}


def cpu_seconds() -> float:
    """Return the CPU time of this process and of its children that have ended, in seconds."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def show(row: dict[str, Any]) -> None:
    shape = f"{row['batch_size']} x {row['length']}"
    found = [row[state] for state in ("cold", "warm")]
    figures = [f"{each['tokens_per_second']:11,.0f} tokens/s {each['tokens_per_cpu_second']:11,.0f}" for each in found]
    print(
        f"{row['tokenizer']:12}{shape:>10} {row['workers']} workers   cold {figures[0]}   warm {figures[1]} per CPU second"
    )


if __name__ == "__main__":
    main()
