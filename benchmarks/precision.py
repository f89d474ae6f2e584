"""Measure the loss of models in each precision, read token by token as `generate` does: nats/token.

    python benchmarks/precision.py [MODEL ...] [--forms auto,int8,fp16] [--data CORPUS] [--split validation] [--json]

Left out, MODEL is every bundled model, and the data are the bundled chorales for models of the tokenizer `grid` and the
MIDI files of examples/ for others. Whole pieces, chosen by hash (`--most-tokens`); the tokenizer's `eval_mask` says which
tokens count. The reference is the whole model in float32 in one pass, as in `musiclm evaluate`.

A form is a precision, an engine of `musiclm.devices.ENGINES`, or "auto"; `int8*2` reads two equal batch elements, each
of which has its own activation scale. For each form the report has its loss, its difference from the reference, and the
mean KL divergence of its predictions from the reference's. The exit code is 1 if "auto" differs by more than 0.001.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from musiclm import checkpoint, evaluation
from musiclm.data import open_source
from musiclm.devices import engine_label, resolve_precision
from musiclm.models.base import LanguageModel

FORMS = "auto,auto*2,fp16,bf16"
MOST = 0.001  # nats/token that "auto" may cost
EXAMPLES = Path(__file__).parents[1] / "examples"


def log_probabilities(model: LanguageModel, ids: Tensor, features: Tensor | None, *, stepwise: bool) -> Tensor:
    """Return log p of each token but the first, (T - 1, V), of the first batch element.

    Args:
        model: any form of it.
        ids: (B, T).
        features: (B, T, F), or None.
        stepwise: read token by token, not in one pass.
    """
    length = ids.shape[1] - 1
    step = 1 if stepwise else length
    state, found = None, []
    for t in range(0, length, step):
        logits, state = model(ids[:, t : t + step], state, None if features is None else features[:, t : t + step])
        found.append(logits[0].float().log_softmax(-1))
    return torch.cat(found)[:length]


def read_pieces(
    loaded: checkpoint.Checkpoint, options: argparse.Namespace
) -> tuple[str, list[tuple[Tensor, Any, Any]]]:
    """Return what the data are called, and ids, features and the mask of the tokens that count of each piece."""
    tokenizer = loaded.tokenizer()
    use_examples = options.data is None and not tokenizer.name.startswith("grid")
    source = open_source(str(EXAMPLES) if use_examples else options.data, tokenizer)
    split = "all" if use_examples else options.split
    chosen = evaluation.sample_pieces(source.pieces(split), options.most_tokens)
    pieces, left = [], options.most_tokens
    for piece in chosen:
        tokens = piece.tokens[: left + 1]
        if len(tokens) < 2:
            break
        ids = torch.from_numpy(tokens.astype(np.int64))[None]
        features, _ = tokenizer.features(ids, None)
        mask = torch.from_numpy(np.asarray(tokenizer.eval_mask(tokens[1:])))
        pieces.append((ids, features if features.shape[-1] else None, mask))
        left -= len(tokens) - 1
    return f"{source.name}, {split}", pieces


@torch.inference_mode()
def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the losses of a model: one row of the report."""
    loaded = checkpoint.load(name)
    model = loaded.model()
    data, pieces = read_pieces(loaded, options)
    count = int(sum(mask.sum() for _, _, mask in pieces))
    reference = [log_probabilities(model, ids, features, stepwise=False) for ids, features, _ in pieces]

    def loss(of_pieces: list[Tensor]) -> float:
        total = 0.0
        for (ids, _, mask), logs in zip(pieces, of_pieces, strict=True):
            total -= float(logs.gather(1, ids[0, 1:, None])[mask].double().sum())
        return total / count

    row: dict[str, Any] = {"model": name, "data": data, "num_pieces": len(pieces), "num_tokens": count}
    row |= {"reference_fp32": loss(reference), "forms": {}}
    for form in options.forms.split(","):
        precision, _, batch = form.partition("*")
        try:
            resolved = resolve_precision(precision, "cpu")
        except ValueError as error:
            print(error, file=sys.stderr)
            continue
        quantized, num_rows = model.for_generation(resolved), int(batch or 1)
        found = []
        for ids, features, _ in pieces:
            wide = None if features is None else features.expand(num_rows, -1, -1)
            found.append(log_probabilities(quantized, ids.expand(num_rows, -1), wide, stepwise=True))
        divergence = sum(
            float((r.exp() * (r - f)).sum(1)[mask].double().sum())
            for r, f, (_, _, mask) in zip(reference, found, pieces, strict=True)
        )
        row["forms"][form] = {
            "engine": engine_label(resolved, "cpu"),
            "nats_per_token": loss(found),
            "difference": loss(found) - row["reference_fp32"],
            "kl_divergence": divergence / count,
        }
    return row


def print_table(row: dict[str, Any]) -> None:
    """Print a model's figures, one line per form."""
    print(f"{row['model']} ({row['data']}, {row['num_tokens']} tokens): fp32 {row['reference_fp32']:.5f} nats/token")
    for form, figures in row["forms"].items():
        told = f"{figures['nats_per_token']:.5f} ({figures['difference']:+.5f}), KL {figures['kl_divergence']:.6f}"
        print(f"  {form:8} {figures['engine']:34} {told}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=checkpoint.bundled())
    parser.add_argument("--forms", default=FORMS, help="separated by commas")
    parser.add_argument("--data", help="a corpus, folder or MIDI file for all models")
    parser.add_argument("--split", default="validation")
    parser.add_argument("--most-tokens", type=int, default=3000, help="per model")
    parser.add_argument("--quick", action="store_true", help="100 tokens of each model")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    options = parser.parse_args()
    if options.quick:
        options.most_tokens = 100
    torch.set_num_threads(1)
    rows = []
    for name in options.models:
        rows.append(measure(name, options))
        if not options.json:
            print_table(rows[-1])
    if options.json:
        print(json.dumps(rows))
    worst = max(abs(row["forms"].get("auto", {"difference": 0.0})["difference"]) for row in rows)
    if worst > MOST and not options.quick:
        sys.exit(f"'auto' differs from fp32 by {worst:.5f} nats/token: more than {MOST}")


if __name__ == "__main__":
    main()
