"""Ablations of the `score` tokens and their data: short runs from random weights with one choice left out.

    python benchmarks/score_ablations.py CORPUS --steps 400
    python benchmarks/score_ablations.py CORPUS --quick

Loss in bits/note on whole validation pieces, chosen by hash up to --most-tokens, each read from its beginning, with the EMA
of the weights; the plan's tokens (header, attributes of bars) and those of the notes are stated apart. All cases see the same
crops of the same pieces. Left out is: `header`, all of it unknown in training and in validation; `structure`, sections and
repeats; `chords`; `plan`, all of these; `bands`, the pieces of folders whose names end in "-bands"; `masking`, the crops with
masked spans, which are 60 % (validation has none); `weights`, the sampling weights of the recipe. `wide` and `deep` have as
many parameters in their blocks as the preset, with half and twice its layers.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from plan import bits_per_note

from musiclm import devices, evaluation, models, tokenizers
from musiclm.data import Piece, crops, open_source
from musiclm.tokenizers.score_plan import PARTS, ScorePlan
from musiclm.training import language_model

UNKNOWN = {
    "header": ("style", "length", "timing", "programs"),
    "structure": ("sections", "repeats"),
    "chords": ("chords",),
    "plan": PARTS,
}
CASES = ("nothing", *UNKNOWN, "bands", "masking", "weights", "wide", "deep")
LEARNING_RATE = 1.5e-3


def recipe_weights() -> dict[str, float]:
    """Return the sampling weights of recipes/score.py by folder."""
    file = Path(__file__).parent.parent / "recipes" / "score.py"
    spec = importlib.util.spec_from_file_location("score_recipe", file)
    assert spec is not None and spec.loader is not None
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    found: dict[str, float] = recipe.WEIGHTS
    return found


def shape(case: str, preset: str) -> dict[str, Any]:
    """Return the model's options of a case: `deep` and `wide` keep layers x size² near that of the preset."""
    config = models.preset("transformer", preset)
    factor = {"deep": 2.0, "wide": 0.5}.get(case, 1.0)
    step = 32 * config["num_heads"]
    size = max(step, round(config["size"] * factor**-0.5 / step) * step)
    return config | {"num_layers": max(1, round(config["num_layers"] * factor)), "size": size}


@contextlib.contextmanager
def without(parts: tuple[str, ...]) -> Iterator[None]:
    """Make parts of the plan always unknown in training."""
    known = ScorePlan.with_unknown

    def with_unknown(self: ScorePlan, ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return self.without_parts(known(self, ids, rng), parts)

    with mock.patch.object(ScorePlan, "with_unknown", with_unknown):
        yield


def measured(case: str, source: Any, validation: list[Piece], a: argparse.Namespace) -> dict[str, Any]:
    """Return what the run of a case came to."""
    tokenizer = tokenizers.create("score-infill")
    assert tokenizer.plan is not None
    weights = {} if case == "weights" else recipe_weights()
    pieces, of_pieces = [], []
    for piece in source.pieces("train"):
        folders = piece.name.split("/")
        if case == "bands" and any(folder.endswith("-bands") for folder in folders):
            continue
        pieces.append(piece)
        of_pieces.append(float(np.prod([weights[folder] for folder in folders if folder in weights])))
    if case == "masking":
        tokenizer.p_rearrange = 0.0
    batches = crops.RandomCrops(
        [piece.tokens for piece in pieces], tokenizer, length=a.window, batch_size=4, seed=a.seed, weights=of_pieces
    )
    torch.manual_seed(a.seed)
    config = shape(case, a.preset) | tokenizer.model_config | {"context": a.window, "dropout": 0.0}
    model, average = (models.create("transformer", tokenizer.vocab_size, **config) for _ in range(2))
    recipe = language_model.Recipe(
        steps=a.steps, learning_rate=LEARNING_RATE, seed=a.seed, bf16=devices.faster_in_bf16()
    )
    parts = UNKNOWN.get(case, ())
    began = time.process_time()
    with without(parts):
        *_, last = language_model.train(model, batches, recipe, average=average)
    read = [
        dataclasses.replace(piece, tokens=tokenizer.plan.without_parts(np.asarray(piece.tokens, np.int64), parts))
        for piece in validation
    ]
    of_plan, of_notes = bits_per_note(average, tokenizer, read)
    return {
        "layers": config["num_layers"],
        "size": config["size"],
        "parameters": average.num_parameters,
        "targets": last.tokens,
        "cpu_seconds": time.process_time() - began,
        "plan_bits_per_note": of_plan,
        "notes_bits_per_note": of_notes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", help="of recipes/score.py")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--window", type=int, default=512, help="tokens of a crop, of which a batch has 4")
    parser.add_argument("--most-tokens", type=int, default=40_000, help="of validation")
    parser.add_argument("--only", choices=CASES, action="append", help="may be given several times")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="three steps of two cases")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    if a.quick:
        a.steps, a.only, a.most_tokens = 3, ["nothing", "plan"], 2000
    source = open_source(a.corpus, tokenizers.create("score"))
    validation = evaluation.sample_pieces(source.pieces("validation"), a.most_tokens)
    rows = {}
    for case in a.only or CASES:
        rows[case] = row = measured(case, source, validation, a)
        if not a.json:
            total = row["plan_bits_per_note"] + row["notes_bits_per_note"]
            print(
                f"without {case:10} {total:.3f} bits/note, of which the plan {row['plan_bits_per_note']:.3f}; "
                f"{row['layers']} x {row['size']}, {row['targets']:,} targets, {row['cpu_seconds']:.0f} s of CPU",
                flush=True,
            )
    if a.json:
        print(json.dumps({"preset": a.preset, "steps": a.steps, "num_pieces": len(validation), "rows": rows}))


if __name__ == "__main__":
    main()
