"""Training: a recipe, and a generator that takes one step each time it is asked.

The caller draws, saves and stops. All that a run needs to go on exactly is in the `TrainingState` of a step: batches are
functions of their number, and each step draws its dropout from (seed, step).
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .data import IGNORE, Batch
from .models.base import LanguageModel, Readout

MATRIX_RATE = 2.0  # how much higher Muon's learning rate is than AdamW's


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingState:
    """Where a run stands: enough to go on as if it had not stopped.

    Attributes:
        step: how many steps were taken.
        tokens: how many targets were learnt from.
        seconds: how long it has trained, over all its parts.
        tensors: weights ("weights."), their average ("average.") and the optimiser's moments ("moments.").
    """

    step: int
    tokens: int
    seconds: float
    tensors: dict[str, Tensor]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """One step taken.

    Attributes:
        number: counted from 1.
        nats: the mean surprise of its batch, in nats a target; with a teacher it is part of the loss alone.
        tokens: seen so far.
        seconds: so far.
        rate: the learning rate that was used.
        progress: which part of the budget is used, 0 … 1; at 1 the run is over.
        model: the averaged weights, in evaluation mode: what to validate and to save.
        state: gives the state to go on from, sharing memory with the run: save it before the next step.
    """

    number: int
    nats: float
    tokens: int
    seconds: float
    rate: float
    progress: float
    model: LanguageModel
    state: Callable[[], TrainingState]


def train(
    model: LanguageModel,
    batches: Callable[[int], Batch],
    recipe: Recipe,
    *,
    average: LanguageModel,
    start: TrainingState | None = None,
    teacher: LanguageModel | None = None,
) -> Iterator[Step]:
    """Yield each step of a training run, until the budget is used.

    Args:
        model: is trained in place, on the device it is on.
        batches: gives batch `number`, counted from 0, the same each time.
        recipe: how.
        average: another model of the same architecture, to hold the averaged weights.
        start: where an earlier run of the same recipe stood; the weights are taken from it.
        teacher: a model on the same device; what it expects is learnt from, too (Hinton, Vinyals and Dean 2015).
    """
    device = next(model.parameters()).device
    optimisers = _optimisers(model, recipe)
    if start is None:
        average.load_state_dict(model.state_dict())
        start = TrainingState(step=0, tokens=0, seconds=0.0, tensors={})
    else:
        _restore(model, average, optimisers, start)
    average.eval().requires_grad_(False)
    model.train()
    tokens, begin = start.tokens, time.monotonic() - start.seconds
    for step in range(start.step, recipe.steps if recipe.steps is not None else 2**62):
        seconds = time.monotonic() - begin
        if recipe.progress(step, seconds) >= 1:
            return
        rate = recipe.rate(step, seconds)
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate * (MATRIX_RATE if isinstance(optimiser, torch.optim.Muon) else 1.0)
        batch = batches(step).to(device)
        torch.manual_seed(recipe.seed * 1_000_003 + step)  # dropout: nothing of it needs saving
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.bf16):
            logits, _ = model(batch.tokens, None, batch.features)
        nats = F.cross_entropy(logits.float().flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORE)
        loss = nats
        if teacher is not None:
            taught = F.cross_entropy(logits.float()[batch.counts], _expected(teacher, batch, recipe)[batch.counts])
            loss = recipe.taught * taught + (1 - recipe.taught) * nats
        model.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        for optimiser in optimisers:
            optimiser.step()
        _move_average(average, model, min(recipe.average, 1 - 10 / (10 + step)))
        tokens += batch.num_tokens
        number, seconds = step + 1, time.monotonic() - begin
        yield Step(
            number=number,
            nats=float(nats.detach()),
            tokens=tokens,
            seconds=seconds,
            rate=rate,
            progress=recipe.progress(number, seconds),
            model=average,
            state=lambda number=number, tokens=tokens: TrainingState(  # type: ignore[misc]
                step=number,
                tokens=tokens,
                seconds=time.monotonic() - begin,
                tensors=_tensors(model, average, optimisers),
            ),
        )


@torch.no_grad()
def _expected(teacher: LanguageModel, batch: Batch, recipe: Recipe) -> Tensor:
    """Return a teacher's probabilities of a batch's targets, (B, T, V)."""
    with torch.autocast(batch.tokens.device.type, torch.bfloat16, enabled=recipe.bf16):
        logits, _ = teacher(batch.tokens, None, batch.features)
    return logits.float().softmax(-1)


def _optimisers(model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Return Muon (Jordan et al. 2024) for hidden matrices, which takes steps whose singular values are all alike, scaled
    to the size of AdamW's (Liu et al. 2025); and AdamW for all else: embeddings, read-outs, norms, biases, distances.
    """
    ends = [m for m in model.modules() if isinstance(m, (nn.Embedding, Readout))]
    tables = {id(p) for m in ends if isinstance(m, nn.Embedding) for p in m.parameters()}
    readouts = {id(p) for m in ends if isinstance(m, Readout) for p in m.parameters() if p.ndim == 2}
    hidden: list[Tensor] = []
    decayed: list[Tensor] = []
    others: list[Tensor] = []
    for p in model.parameters():
        if id(p) in readouts:
            decayed.append(p)
        else:
            (hidden if p.ndim == 2 and id(p) not in tables else others).append(p)
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98), eps=1e-8, fused=True)
    if not hidden:
        return [adamw]
    muon = torch.optim.Muon(hidden, lr=1.0, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw")
    return [adamw, muon]


@torch.no_grad()
def _move_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)


def _tensors(model: nn.Module, average: nn.Module, optimisers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
    tensors = {f"weights.{name}": t for name, t in model.state_dict().items()}
    tensors |= {f"average.{name}": t for name, t in average.state_dict().items()}
    for name, parameter in model.named_parameters():
        for optimiser in optimisers:
            tensors |= {f"moments.{name}.{key}": t for key, t in optimiser.state.get(parameter, {}).items()}
    return tensors


def _restore(
    model: nn.Module, average: nn.Module, optimisers: Sequence[torch.optim.Optimizer], state: TrainingState
) -> None:
    def of(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): t for name, t in state.tensors.items() if name.startswith(prefix)}

    model.load_state_dict(of("weights."))
    average.load_state_dict(of("average."))
    mine = {p: o for o in optimisers for group in o.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        moments: dict[str, Any] = of(f"moments.{name}.")
        mine[parameter].state[parameter] = {
            key: t.clone() if key == "step" else t.to(parameter.device).clone() for key, t in moments.items()
        }
