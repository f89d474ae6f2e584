"""Expressive piano: a model of MAESTRO v3, in nats/event as the papers count them; it can be stopped and continued.

    python recipes/maestro.py maestro-v3.0.0-midi.zip -o work/ --minutes 120
    python recipes/maestro.py maestro-v3.0.0-midi.zip -o work/ --minutes 120 --test    # once, when all is chosen
    python recipes/maestro.py --quick                            # the bundled chorales, under a minute

Three steps, each left out when it is done: build a corpus of the `performance` tokenizer (10 ms, 308 classes; `musiclm
corpus build`, copies kept: 962, 137 and 177 pieces), train (`musiclm train`, continued by --resume; the checkpoint is
that of the lowest nats on a sample of validation pieces), and evaluate all pieces of the split.

Nats/event = -sum of ln p of all tokens of the pieces, natural logarithm, over the number of events that Performance RNN
and Music Transformer would write for them: our tokenizer writes a velocity before each note, theirs only where it changes
(Oore et al. 2018, Huang et al. 2018); our model pays for all of its own, theirs are what it is divided by. Special tokens of
beginning and end count in neither. Nats/note divides the same sum by the notes. Each piece is read from its
beginning, by a model with a KV cache of `context` tokens per layer.

MAESTRO is CC BY-NC-SA 4.0: what is trained on it is not for commercial use either.

Published, validation: 1.84 (Music Transformer, MAESTRO v1), 1.90 (Perceiver AR, v3; test 1.91).
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

OFFICIAL = {"train": 962, "validation": 137, "test": 177}
PUBLISHED = [
    {"model": "Music Transformer", "data": "MAESTRO v1", "split": "validation", "nats_per_event": 1.84},
    {"model": "Perceiver AR", "data": "MAESTRO v3", "split": "validation", "nats_per_event": 1.90},
    {"model": "Perceiver AR", "data": "MAESTRO v3", "split": "test", "nats_per_event": 1.91},
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="MAESTRO v3 as it is downloaded: archive or folder")
    parser.add_argument("-o", "--output", type=Path, help="where all of it is made")
    parser.add_argument("--minutes", type=float, default=120.0, help="of training")
    parser.add_argument("--arch", default="transformer")
    parser.add_argument("--preset", default="small")
    parser.add_argument("--context", type=int, default=512, help="tokens; not for recurrent networks")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--test", action="store_true", help="report the test pieces, too")
    parser.add_argument("--most-tokens", type=int, help="evaluate a sample of whole pieces; left out, all of them")
    parser.add_argument("--quick", action="store_true", help="see that it works")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if not arguments.quick and (arguments.data is None or arguments.output is None):
        parser.error("MAESTRO and -o are needed, or --quick")
    with tempfile.TemporaryDirectory() as temporary:
        if arguments.quick:
            arguments.output = arguments.output or Path(temporary)
            arguments.preset, arguments.context, arguments.most_tokens = "tiny", 64, 4000
        report = run(arguments)
    if arguments.json:
        print(json.dumps(report, indent=1))
    else:
        show(report)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Make what is not made yet, and return the report."""
    folder = arguments.output
    folder.mkdir(parents=True, exist_ok=True)
    corpus, trained = folder / "corpus", folder / f"{arguments.arch}-{arguments.preset}-seed{arguments.seed}"
    if not (corpus / "corpus.json").exists():
        source = arguments.data or resources.files("musiclm") / "chorales.zip"
        musiclm("corpus", "build", source, "-o", corpus, "--tokenizer", "performance", "--keep-duplicates")
    budget = ["--steps", 20] if arguments.quick else ["--minutes", arguments.minutes]
    if (trained / "run.json").exists():
        musiclm("train", "--resume", trained, *budget)
    else:
        options = ["--arch", arguments.arch, "--preset", arguments.preset, "--batch-size", arguments.batch_size]
        options += ["--learning-rate", arguments.learning_rate, "--dropout", arguments.dropout]
        if arguments.arch in ("absolute", "transformer"):
            options += ["--context", arguments.context]
        options += ["--tokenizer", "performance"]  # with its features of now, whenever the corpus was built
        musiclm("train", corpus, *options, *budget, "--seed", arguments.seed, "-o", trained)
    return evaluated(arguments, corpus, trained)


def evaluated(arguments: argparse.Namespace, corpus: Path, trained: Path) -> dict[str, Any]:
    """Return every figure with what has to be known to read it."""
    import torch

    from musiclm import checkpoint
    from musiclm.data import open_store
    from musiclm.evaluation import sample_pieces

    plan = json.loads((trained / "run.json").read_text("utf-8"))
    torch.set_num_threads(plan["threads"])
    loaded = checkpoint.load(trained / "best.safetensors")
    opened, model = open_store(corpus, loaded.tokenizer()), loaded.model().eval()
    sizes = {name: len(opened.pieces(name)) for name in OFFICIAL}
    unigram = frequencies(opened.pieces("train"), opened.tokenizer)
    splits = {}
    for split in ("validation", "test") if arguments.test else ("validation",):
        pieces = sample_pieces(opened.pieces(split), arguments.most_tokens)
        splits[split] = figures(model, opened.tokenizer, pieces, unigram, bf16=plan["precision"] == "bf16")
    curve = [json.loads(line) for line in (trained / "metrics.jsonl").read_text("utf-8").splitlines()]
    keys = ("step", "tokens", "seconds", "train_nats_per_token", "validation_nats_per_token")
    return {
        "data": arguments.data.name if arguments.data else opened.name,
        "split_pieces": sizes,
        "is_official_split": sizes == OFFICIAL,
        "tokenizer": "performance: 10 ms, 32 velocities, 88 keys, pedal as longer notes",
        "counted": "nats of all tokens but marks, over the events of Performance RNN (velocity only where it changes)",
        "logarithm": "natural",
        "augmentation": "transposed -5 to 6 semitones; half of the time 5 or 10 % quicker or slower, half of the time "
        "one or two of 32 velocities louder or softer; windows begin anywhere",
        "chosen_by": "lowest nats on a sample of validation pieces, up to 100,000 tokens, during the run",
        "arch": plan["arch"],
        "num_parameters": model.num_parameters,
        "config": loaded.config,
        "context_tokens_a_layer": loaded.config.get("context"),
        "command": plan["command"],
        "minutes": plan["minutes"],
        "seed": plan["seed"],
        "threads": plan["threads"],
        "precision": plan["precision"],
        "steps": loaded.card["steps"],
        "tokens_seen": loaded.card["tokens"],
        "training_tokens": sum(len(piece.tokens) for piece in opened.pieces("train")),
        "splits": splits,
        "published": PUBLISHED,
        "curve": [{key: line[key] for key in keys} for line in curve],
    }


def frequencies(pieces: Sequence[Any], tokenizer: Any) -> np.ndarray:
    """Return how often each id that counts stands in pieces, one more than that for those that may count, as nats."""
    counts = np.bincount(np.concatenate([p.tokens for p in pieces]), minlength=tokenizer.vocab_size).astype(np.float64)
    counts = np.where(tokenizer.eval_mask(np.arange(tokenizer.vocab_size)), counts + 1, 0)
    with np.errstate(divide="ignore"):
        return np.asarray(-np.log(counts / counts.sum()))


def figures(model: Any, tokenizer: Any, pieces: Sequence[Any], unigram: np.ndarray, *, bf16: bool) -> dict[str, Any]:
    """Return the figures of some pieces, the model's and those of baselines of frequencies alone."""
    from musiclm.evaluation import measure_loss

    found = measure_loss(model, tokenizer, pieces, bf16=bf16)
    num_events = sum(tokenizer.num_events(piece.tokens) for piece in pieces)
    ids = np.concatenate([piece.tokens for piece in pieces])
    ids = ids[tokenizer.eval_mask(ids)]
    nats = {
        "model": found.nats,
        "uniform": len(ids) * math.log(int(np.isfinite(unigram).sum())),
        "unigram": float(unigram[ids].sum()),
    }
    return {
        "num_pieces": len(pieces),
        "num_tokens": found.num_tokens,
        "num_events": num_events,
        "num_notes": found.num_notes,
        "seconds": found.seconds,
        "nats_per_token": found.nats_per_token,
        **{f"{name}_nats_per_event": total / num_events for name, total in nats.items()},
        **{f"{name}_nats_per_note": total / found.num_notes for name, total in nats.items()},
        "bits_per_second": found.bits_per_second,
    }


def show(report: dict[str, Any]) -> None:
    """Print the report for people."""
    for key, value in report.items():
        if key not in ("splits", "curve", "published"):
            print(f"{key}: {value}")
    for split, each in report["splits"].items():
        counts = f"{each['num_pieces']} pieces, {each['num_notes']:,} notes, {each['num_events']:,} events"
        print(f"\n{split}: {counts}\n{'':12}{'nats/event':>12}{'nats/note':>12}")
        for name in ("model", "unigram", "uniform"):
            print(f"{name:12}{each[f'{name}_nats_per_event']:12.3f}{each[f'{name}_nats_per_note']:12.3f}")
    print(
        "\npublished: " + "; ".join(f"{p['model']} {p['nats_per_event']} ({p['data']} {p['split']})" for p in PUBLISHED)
    )
    print("\ncurve, of the sample of validation pieces:\n   minutes      tokens  nats/token")
    for line in report["curve"][:: max(1, len(report["curve"]) // 20)]:
        print(f"{line['seconds'] / 60:10.1f}{line['tokens']:12,}{line['validation_nats_per_token']:12.3f}")


def musiclm(*arguments: object) -> None:
    """Run the command; what it prints for programs is not ours to print."""
    command = [sys.executable, "-m", "musiclm", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
