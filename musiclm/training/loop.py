"""Training: a recipe, and a generator that takes one step each time it is asked.

The caller draws, saves and stops. All that a run needs to go on exactly is in the `TrainingState` of a step: batches are
functions of their number, and each step draws its dropout from (seed, step).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.crops import IGNORE, Batch
from ..data.loader import load
from ..models.base import LanguageModel
from .optim import MATRIX_RATE, Recipe, make_optimizers, update_ema


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
    optimisers = make_optimizers(model, recipe)
    if start is None:
        average.load_state_dict(model.state_dict())
        start = TrainingState(step=0, tokens=0, seconds=0.0, tensors={})
    else:
        _restore(model, average, optimisers, start)
    average.eval().requires_grad_(False)
    model.train()
    loaded = iter(load(batches, start.step, device))
    tokens, begin = start.tokens, time.monotonic() - start.seconds
    for step in range(start.step, recipe.steps if recipe.steps is not None else 2**62):
        seconds = time.monotonic() - begin
        if recipe.progress(step, seconds) >= 1:
            return
        rate = recipe.rate(step, seconds)
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate * (MATRIX_RATE if isinstance(optimiser, torch.optim.Muon) else 1.0)
        batch = next(loaded).to(device)
        torch.manual_seed(recipe.seed * 1_000_003 + step)  # dropout: nothing of it needs saving
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.bf16):
            logits, _ = model(batch.tokens, None, batch.features)
        nats = F.cross_entropy(logits.float().flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORE)
        loss = nats
        if teacher is not None:
            taught = F.cross_entropy(logits.float()[batch.mask], _expected(teacher, batch, recipe)[batch.mask])
            loss = recipe.taught * taught + (1 - recipe.taught) * nats
        model.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        for optimiser in optimisers:
            optimiser.step()
        update_ema(average, model, min(recipe.average, 1 - 10 / (10 + step)))
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
