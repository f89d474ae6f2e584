"""What every training loop shares: recipe, learning-rate schedule, optimizers, and the EMA of the weights.

The language models (`training.loop`) and the note classifier (`audio.training`) both use it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from ..models.base import LanguageModel
from ..models.layers.alignment_bias import AlignmentBias

MATRIX_RATE = 2.0  # how much higher Muon's learning rate is than AdamW's


def make_optimizers(model: LanguageModel, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Return Muon for hidden matrices and AdamW for everything else, with weight decay on the head's matrices only.

    Muon (Jordan et al. 2024) takes steps whose singular values are all alike, scaled here to the size of AdamW's (Liu et
    al. 2025). Embeddings, heads, norms, biases, also of attention, and vectors of distances are not hidden matrices.
    Frozen parameters, which require no gradient, are in no optimizer.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    head = {id(p) for p in model.head.parameters() if p.ndim == 2}
    kinds = (nn.Embedding, AlignmentBias)
    tables = [m for m in model.modules() if m is getattr(model, "embedding", None) or isinstance(m, kinds)]
    ends = {id(p) for m in (model.head, *tables) for p in m.parameters()}
    decayed: list[Tensor] = [p for p in trained if id(p) in head]
    hidden: list[Tensor] = [p for p in trained if p.ndim == 2 and id(p) not in ends]
    assigned = {id(p) for p in (*decayed, *hidden)}
    others: list[Tensor] = [p for p in trained if id(p) not in assigned]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98), eps=1e-8, fused=True)
    if not hidden:
        return [adamw]
    muon = torch.optim.Muon(hidden, lr=1.0, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw")
    return [adamw, muon]


def make_adamw(model: nn.Module, recipe: Recipe, undecayed: Collection[Tensor] = ()) -> torch.optim.Optimizer:
    """Return AdamW (Loshchilov and Hutter 2019) for all parameters; vectors (biases, norms) have no weight decay.

    Args:
        model: its parameters are optimized.
        recipe: learning rate and weight decay.
        undecayed: parameters without weight decay that are no vectors: embeddings.
    """
    without = {id(p) for p in undecayed} | {id(p) for p in model.parameters() if p.ndim == 1}
    free = [p for p in model.parameters() if id(p) in without]
    others = [p for p in model.parameters() if id(p) not in without]
    groups = [{"params": others, "weight_decay": recipe.weight_decay}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=True)


def set_rate(optimizers: Sequence[torch.optim.Optimizer], rate: float) -> None:
    """Set the learning rate of all parameter groups; Muon's is `MATRIX_RATE` times as high.

    A group that has `rate_scale` gets that share of it.
    """
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            scale = MATRIX_RATE if isinstance(optimizer, torch.optim.Muon) else 1.0
            group["lr"] = rate * scale * group.get("rate_scale", 1.0)


@torch.no_grad()
def update_ema(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the EMA weights, and buffers such as the statistics of batch norms, towards those of the model.

    Equal numbers stay as they are, to the last bit: buffers that `LanguageModel.on_step` sets in both are no average.
    """
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
    for mine, theirs in zip(average.buffers(), model.buffers(), strict=True):
        if mine.is_floating_point():
            mine.lerp_(theirs, 1 - decay)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train.

    Attributes:
        steps: the budget in steps, or None.
        seconds: the budget in seconds, or None. The budget that is used up first ends the run; at least one is given.
        learning_rate: the peak, after the warm-up. From there the rate follows a cosine to `final_rate` of the peak at
            the end of the budget; the position is that of `progress`. Muon's rate is `MATRIX_RATE` times as high.
        final_rate: the rate at the end, as a share of the peak, 0 … 1.
        warmup_steps: steps of the linear warm-up.
        weight_decay: of matrices; biases, norms and embeddings have none (Loshchilov and Hutter 2019).
        clip: the largest norm of the gradient.
        ema_decay: EMA decay of the weights, warmed up as min(ema_decay, 1 - 10 / (10 + step)). The EMA weights are
            validated and saved.
        seed: of weights, batches and dropout.
        bf16: compute in bfloat16; the weights stay in float32.
    """

    steps: int | None = None
    seconds: float | None = None
    learning_rate: float = 1e-3
    final_rate: float = 0.05
    warmup_steps: int = 100
    weight_decay: float = 0.1
    clip: float = 1.0
    ema_decay: float = 0.999
    seed: int = 0
    bf16: bool = False

    def __post_init__(self) -> None:
        if self.steps is None and self.seconds is None:
            raise ValueError("a recipe needs a budget: steps or seconds")

    def progress(self, step: int, seconds: float) -> float:
        """Return which share of the budget is used, 0 … 1."""
        by_steps = step / self.steps if self.steps else 0.0
        by_seconds = seconds / self.seconds if self.seconds else 0.0
        return min(1.0, max(by_steps, by_seconds))

    def rate(self, step: int, seconds: float) -> float:
        """Return the learning rate of a step, counted from 0."""
        falling = (1 + math.cos(math.pi * self.progress(step, seconds))) / 2
        cosine = self.final_rate + (1 - self.final_rate) * falling
        return self.learning_rate * cosine * min(1.0, (step + 1) / self.warmup_steps)

    def ema_decay_at(self, step: int) -> float:
        """Return the EMA decay after a number of steps: the memory is a tenth of them until `ema_decay` is reached."""
        return min(self.ema_decay, 1 - 10 / (10 + step))

    def seed_dropout(self, step: int) -> None:
        """Seed torch's global generator from (seed, step), so that a resumed run has the dropout of an uncut one."""
        torch.manual_seed(self.seed * 1_000_003 + step)

    def autocast(self, device: torch.device) -> torch.autocast:
        """Return the context of the forward pass: bfloat16 on that device if the recipe says so, else float32."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.bf16)
