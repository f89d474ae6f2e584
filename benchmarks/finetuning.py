"""Effect of some minutes of fine-tuning: a bundled model before and after, beside one trained from scratch for as long.

    python benchmarks/finetuning.py NOTTINGHAM/ -o work/ --minutes 4

Builds a corpus of the folder (`musiclm corpus build`), runs `musiclm train --from` and `musiclm train`, and evaluates all
three on the test split: nats/token and bits/note. Validation chooses the checkpoints. Runs that are there already are
taken as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("midi", type=Path, help="a folder of MIDI files, or a corpus of the model's tokenizer")
    parser.add_argument("-o", "--output", type=Path, required=True, help="where corpus and runs are made")
    parser.add_argument("--model", default="score")
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--most-tokens", type=int, default=50_000, help="of the test split: whole pieces, by hash")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="six seconds each")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    minutes, most_tokens = (0.1, 5000) if options.quick else (options.minutes, options.most_tokens)
    options.output.mkdir(parents=True, exist_ok=True)
    corpus = options.midi
    if not (corpus / "corpus.json").exists():
        corpus = options.output / "corpus"
        if not (corpus / "corpus.json").exists():
            musiclm("corpus", "build", options.midi, "-o", corpus)
    report: dict[str, Any] = {
        "model": options.model, "minutes": minutes, "threads": options.threads, "seed": options.seed, "test": {},
    }  # fmt: skip
    ways = {"before": None, "tuned": ["--from", options.model], "from_nothing": []}
    for name, how in ways.items():
        measured = options.model
        if how is not None:
            run = options.output / name
            measured = str(run)
            if not (run / "best.safetensors").exists():
                budget = ["--minutes", minutes, "--seed", options.seed]
                result = json.loads(musiclm("train", corpus, *how, *budget, "-o", run, "--json").splitlines()[-1])
                report[name] = {
                    k: result[k] for k in ("steps", "tokens", "stopped_because", "best_validation_nats_per_token")
                }
        found = json.loads(
            musiclm("evaluate", measured, corpus, "--split", "test", "--most-tokens", most_tokens, "--json")
        )
        keys = ("nats_per_token", "bits_per_note", "num_pieces", "num_tokens")
        report["test"][name] = {k: found[k] for k in keys}
    if options.json:
        print(json.dumps(report))
        return
    print(f"{'':14}nats/token  bits/note   ({report['test']['before']['num_pieces']} test pieces, {minutes:g} minutes)")
    for name, found in report["test"].items():
        print(f"{name:14}{found['nats_per_token']:10.3f}  {found['bits_per_note']:9.2f}")


def musiclm(*arguments: object) -> str:
    command = [sys.executable, "-m", "musiclm", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
