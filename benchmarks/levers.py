"""Ablations of training on the chorales: the same run with one choice left out.

    python benchmarks/levers.py --steps 600
    python benchmarks/levers.py --quick

Loss in nats/cell on all 76 validation pieces after a number of steps of the transformer's own batch (4 crops of 512 tokens),
for one seed, with the EMA of the weights; and the mean training loss of the last fifty steps, with dropout, which shows
overfitting. "without" is: `arrangements`, each chorale with its voices in their own order only (features of version 2);
`intervals`, features of version 1, which also lack permutations and the head's logits of pitch steps; `steps`, a head without
logits of steps from the voice's last pitch; `muon`, AdamW for hidden matrices, too, at the same learning rate; `relative`,
absolute positions (`absolute`) instead of relative attention; `pre-norm`, layer norm after each sum instead of before each
sublayer; `small beginnings`, torch's default initialization of linear layers; `dropout`, none; `falling rate`, the highest
learning rate until the end, after the warm-up; `average`, the weights after the last step instead of their EMA.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from typing import Any
from unittest import mock

import torch

from musiclm import devices, evaluation, models, tokenizers
from musiclm.data import bundled, crops
from musiclm.models.layers import blocks
from musiclm.training import language_model

CASES = [
    "anything left out",
    "arrangements",
    "intervals",
    "steps",
    "muon",
    "relative",
    "pre-norm",
    "small beginnings",
    "dropout",
    "falling rate",
    "average",
]


def adamw(model: torch.nn.Module, recipe: language_model.Recipe) -> list[torch.optim.Optimizer]:
    """Return AdamW for everything, matrices decayed as Muon's are."""
    tables = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    matrices = [p for p in model.parameters() if p.ndim == 2 and id(p) not in tables]
    others = [p for p in model.parameters() if p.ndim != 2 or id(p) in tables]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98), fused=True)]


def post_norm(self: blocks.Block, x_BTD: torch.Tensor, cache: Any = None) -> tuple[torch.Tensor, Any]:
    """Norm(x + attention(x)), then norm(x + feed-forward(x)), as in Vaswani et al. 2017."""
    attended_BTD, cache = self.attention(x_BTD, cache)
    x_BTD = self.norm_attention(x_BTD + self.dropout(attended_BTD))
    return self.norm_forward(x_BTD + self.dropout(self.feed_forward(x_BTD))), cache


def constant(self: language_model.Recipe, step: int, seconds: float) -> float:
    """Return the rate of a step: the highest, after the warm-up."""
    return self.learning_rate * min(1.0, (step + 1) / self.warmup_steps)


OTHERWISE = {  # what is put in the place of what, where it is left out
    "muon": (language_model, "make_optimizers", adamw),
    "pre-norm": (blocks.Block, "forward", post_norm),
    "falling rate": (language_model.Recipe, "rate", constant),
}


def measured(without: str, steps: int, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what a run of so many steps came to."""
    tokenizer = tokenizers.create(
        "grid",
        features={"intervals": 1, "arrangements": 2}.get(without, 3),
        reference=without not in ("steps", "intervals"),
    )
    source = bundled(tokenizer)
    pieces = list(source.pieces("train"))
    arch = "absolute" if without == "relative" else arguments.arch
    own = models.training(arguments.arch)
    windows = crops.RandomCrops(
        [p.tokens for p in pieces],
        tokenizer,
        length=own["window"],
        batch_size=own["batch_size"],
        seed=seed,
        pitches=[p.pitches for p in pieces],
    )
    config = models.preset(arch, arguments.preset) | tokenizer.model_config
    if arguments.size is not None:
        config["size"] = arguments.size
    if arguments.dropout is not None:
        config["dropout"] = arguments.dropout
    if without == "dropout":
        config["dropout"] = 0.0
    torch.manual_seed(seed)
    model, average = (models.create(arch, tokenizer.vocab_size, **config) for _ in range(2))
    recipe = language_model.Recipe(
        steps=steps, learning_rate=own["learning_rate"], seed=seed, bf16=devices.faster_in_bf16()
    )
    if without == "small beginnings":
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                module.reset_parameters()
    began, losses = time.monotonic(), []
    with contextlib.ExitStack() as stack:
        if without in OTHERWISE:
            stack.enter_context(mock.patch.object(*OTHERWISE[without]))
        for step in language_model.train(model, windows, recipe, average=average):
            losses.append(step.nats)
    kept = model.eval() if without == "average" else average
    found = evaluation.measure_loss(kept, tokenizer, list(source.pieces("validation")), bf16=recipe.bf16)
    return {
        "tokens": step.tokens,
        "seconds": time.monotonic() - began,
        "train_nats": sum(losses[-50:]) / len(losses[-50:]),
        "validation_nats": found.nats_per_token,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="transformer", choices=models.names())
    parser.add_argument("--preset", default="small")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--dropout", type=float)
    parser.add_argument("--size", type=int, help="of the network, instead of the preset's")
    parser.add_argument("--only", choices=CASES, action="append", help="may be given several times")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="the smallest model, 20 steps")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.quick:
        arguments.preset, arguments.steps = "tiny", 20
    rows = {}
    for name in arguments.only or CASES:
        rows[name] = row = measured(name, arguments.steps, arguments.seed, arguments)
        if not arguments.json:
            print(
                f"without {name:18} train {row['train_nats']:.4f}  validation {row['validation_nats']:.4f} nats/cell, "
                f"{row['tokens']:,} tokens in {row['seconds']:.0f} s",
                flush=True,
            )
    if arguments.json:
        print(json.dumps({"arch": arguments.arch, "steps": arguments.steps, "rows": rows}))


if __name__ == "__main__":
    main()
