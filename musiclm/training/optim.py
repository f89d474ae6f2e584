"""Optimizers, learning-rate schedule and the exponential moving average of the weights."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor, nn

from ..models.base import LanguageModel

MATRIX_RATE = 2.0  # how much higher Muon's learning rate is than AdamW's


def make_optimizers(model: LanguageModel, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Return Muon for hidden matrices and AdamW for everything else, with weight decay on the head's matrices only.

    Muon (Jordan et al. 2024) takes steps whose singular values are all alike, scaled here to the size of AdamW's (Liu et
    al. 2025). Embeddings, heads, norms, biases and vectors of distances are not hidden matrices.
    """
    head = {id(p) for p in model.head.parameters() if p.ndim == 2}
    tables = [m for m in model.modules() if m is getattr(model, "embedding", None) or isinstance(m, nn.Embedding)]
    ends = {id(p) for m in (model.head, *tables) for p in m.parameters()}
    decayed: list[Tensor] = [p for p in model.parameters() if id(p) in head]
    hidden: list[Tensor] = [p for p in model.parameters() if p.ndim == 2 and id(p) not in ends]
    assigned = {id(p) for p in (*decayed, *hidden)}
    others: list[Tensor] = [p for p in model.parameters() if id(p) not in assigned]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98), eps=1e-8, fused=True)
    if not hidden:
        return [adamw]
    muon = torch.optim.Muon(hidden, lr=1.0, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw")
    return [adamw, muon]


@torch.no_grad()
def update_ema(average: nn.Module, model: nn.Module, decay: float) -> None:
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train.

    Attributes:
        steps: the budget in steps, or None.
        seconds: the budget in seconds, or None; what comes first ends the run. At least one of them is given.
        learning_rate: the highest, after the warm-up; it then follows a cosine to a twentieth of itself at the budget's
            end, by the clock if the budget is in seconds. That of hidden matrices is `MATRIX_RATE` times as high.
        warmup_steps: in which the rate rises evenly.
        weight_decay: of matrices; not of biases, norms and embeddings (Loshchilov and Hutter 2019).
        clip: the largest norm of the gradient.
        average: decay of the exponential moving average of the weights, which is what is validated and kept; its memory
            is a tenth of the steps so far until it is longer than that.
        seed: of weights, windows and dropout.
        bf16: compute in bfloat16, weights staying in float32.
        taught: how much of the loss is the cross-entropy with a teacher's probabilities, where there is a teacher; the
            rest is that with the music.
    """

    steps: int | None = None
    seconds: float | None = None
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    weight_decay: float = 0.1
    clip: float = 1.0
    average: float = 0.999
    seed: int = 0
    bf16: bool = False
    taught: float = 0.9

    def __post_init__(self) -> None:
        if self.steps is None and self.seconds is None:
            raise ValueError("a recipe needs a budget: steps or seconds")

    def progress(self, step: int, seconds: float) -> float:
        """Return which part of the budget is used, 0 … 1."""
        by_steps = step / self.steps if self.steps else 0.0
        by_seconds = seconds / self.seconds if self.seconds else 0.0
        return min(1.0, max(by_steps, by_seconds))

    def rate(self, step: int, seconds: float) -> float:
        """Return the learning rate of a step, counted from 0."""
        cosine = 0.05 + 0.95 * (1 + math.cos(math.pi * self.progress(step, seconds))) / 2
        return self.learning_rate * cosine * min(1.0, (step + 1) / self.warmup_steps)
