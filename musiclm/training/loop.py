"""The training loop: a generator that takes one step each time it is asked; the caller reports, saves and stops.

`fit` trains any model with any loss, `language_model.train` a language model. The `TrainingState` of a step is all that an
exact resume needs: a batch is a function of its number, and the dropout of a batch element of (seed, step, element). So a
batch may be computed in parts, by several processes: the sum of the gradients is that of the whole, up to rounding.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from ..errors import DivergedError
from .optim import Recipe, set_rate, update_ema
from .ranks import ALONE, Ranks

ModelT = TypeVar("ModelT", bound=nn.Module)
BatchT = TypeVar("BatchT")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingState:
    """The state of a training run, from which it can be resumed exactly.

    Attributes:
        step: the number of steps taken.
        tokens: the number of training targets seen.
        seconds: the training time, over all parts of the run.
        tensors: weights ("weights."), EMA weights ("average."), the state of the optimizers ("moments."), and the
            model's state that is carried to the next crops, if any ("carried.").
    """

    step: int
    tokens: int
    seconds: float
    tensors: dict[str, Tensor]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loss:
    """The loss of a batch, or what a part of it adds to that.

    Attributes:
        total: the minimized loss, a scalar with a gradient.
        nats: the reported loss, a scalar in nats/target.
        num_targets: how many targets the batch, or the part, has.
    """

    total: Tensor
    nats: Tensor
    num_targets: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step(Generic[ModelT]):
    """One optimization step.

    Attributes:
        number: counted from 1.
        nats: the mean cross-entropy of the batch with its labels, in nats per target; without the distillation loss.
        tokens: the number of training targets so far.
        seconds: the training time so far.
        rate: the learning rate of this step.
        progress: the share of the budget that is used, 0 … 1; at 1 the run is over.
        is_stopping: whether a process asked for the end of the run meanwhile: no step follows.
        model: the EMA weights, in evaluation mode: the model to validate and to save.
        state: returns the state to resume from. It shares memory with the run: save it before the next step.
    """

    number: int
    nats: float
    tokens: int
    seconds: float
    rate: float
    progress: float
    model: ModelT
    state: Callable[[], TrainingState]
    is_stopping: bool = False


def fit(
    model: ModelT,
    batches: Callable[[int], BatchT] | Iterable[BatchT],
    losses: Callable[[ModelT, BatchT, int], Iterable[Loss]],
    recipe: Recipe,
    *,
    average: ModelT,
    optimizers: Sequence[torch.optim.Optimizer],
    start: TrainingState | None = None,
    clock: Callable[[], float] = time.monotonic,
    should_stop: Callable[[], bool] = bool,
    before_step: Callable[[int], None] | None = None,
    carried: Callable[[], dict[str, Tensor]] = dict,
    ranks: Ranks = ALONE,
) -> Iterator[Step[ModelT]]:
    """Yield each step of a training run, until the budget is used or the run is to stop.

    Args:
        model: trained in place, on its own device.
        batches: a function from the number of a step, counted from 0, to its batch; or the batches in order, the first
            of which is that of step `start.step`; the run ends with them.
        losses: yields the loss of each part of a batch, given the model, the batch and the number of the step, counted from
            0. They sum to the loss of the batch over all parts and processes. Back-propagation is taken while a part is
            yielded.
        recipe: how to train.
        average: another model of the same architecture on the same device, which receives the EMA weights.
        optimizers: each parameter of the model belongs to one of them.
        start: the state of an earlier run of the same recipe; the weights are taken from it.
        clock: what a budget in seconds counts: the wall clock, or `time.process_time` for CPU time; that of the first
            process counts for all.
        should_stop: asked before each step; if it is true in any process, the run ends in all of them.
        before_step: called with the number of each step, counted from 0, before it.
        carried: returns further tensors of the state after a step: what `losses` carries from batch to batch.
        ranks: the processes of the run, each of which calls this with the same arguments.

    Raises:
        DivergedError: the loss or the norm of the gradient of a step is not finite. The weights are then of no use.
    """
    start = _begin(model, average, optimizers, start)
    in_order = iter(map(batches, itertools.count(start.step)) if callable(batches) else batches)
    tokens, begin = start.tokens, clock() - start.seconds
    tensors = functools.partial(_tensors, model, average, optimizers, carried)
    for step in range(start.step, recipe.steps if recipe.steps is not None else 2**62):
        seconds, num_stopping = ranks.total([clock() - begin if ranks.is_first else 0.0, float(should_stop())])
        if num_stopping or recipe.progress(step, seconds) >= 1 or (batch := next(in_order, None)) is None:
            return
        rate = recipe.rate(step, seconds)
        set_rate(optimizers, rate)
        if before_step is not None:
            before_step(step)
        read = _taken(model, average, optimizers, recipe, functools.partial(losses, model, batch, step), step)
        number = step + 1
        seconds = clock() - begin if ranks.is_first else 0.0
        *read, seconds, num_stopping = ranks.total([*read, seconds, float(should_stop())])
        nats, num_targets = _finite_nats(*read, step=number)
        tokens += num_targets
        yield Step(
            number=number,
            nats=nats,
            tokens=tokens,
            seconds=seconds,
            rate=rate,
            progress=recipe.progress(number, seconds),
            model=average,
            state=functools.partial(_state, number, tokens, clock, begin, tensors),
            is_stopping=bool(num_stopping),
        )


def _taken(
    model: ModelT,
    average: ModelT,
    optimizers: Sequence[torch.optim.Optimizer],
    recipe: Recipe,
    losses: Callable[[], Iterable[Loss]],
    step: int,
) -> list[float]:
    """Take a step along the gradient of the losses of a batch, and return what `_read` does."""
    recipe.seed_dropout(step)
    found = _back_propagated(model, losses())
    norm = _update(model, optimizers, recipe.clip)
    update_ema(average, model, recipe.ema_decay_at(step))
    return _read(found, norm)  # behind the update: it waits for the GPU


def _state(
    step: int, tokens: int, clock: Callable[[], float], begin: float, tensors: Callable[[], dict[str, Tensor]]
) -> TrainingState:
    """Return the state to resume from, with the training time up to this call."""
    return TrainingState(step=step, tokens=tokens, seconds=clock() - begin, tensors=tensors())


def _tensors(
    model: nn.Module,
    average: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    carried: Callable[[], dict[str, Tensor]],
) -> dict[str, Tensor]:
    tensors = {f"weights.{name}": t for name, t in model.state_dict().items()}
    tensors |= {f"average.{name}": t for name, t in average.state_dict().items()}
    for name, parameter in model.named_parameters():
        for optimizer in optimizers:
            tensors |= {f"moments.{name}.{key}": t for key, t in optimizer.state.get(parameter, {}).items()}
    return tensors | carried()


def _begin(
    model: nn.Module, average: nn.Module, optimizers: Sequence[torch.optim.Optimizer], start: TrainingState | None
) -> TrainingState:
    """Put model, EMA weights and optimizers into the state to start from, a new run's if None, and return it."""
    if start is None:
        average.load_state_dict(model.state_dict())
        start = TrainingState(step=0, tokens=0, seconds=0.0, tensors={})
    else:
        _restore(model, average, optimizers, start)
    average.eval().requires_grad_(False)
    model.train()
    return start


def _back_propagated(model: nn.Module, losses: Iterable[Loss]) -> Loss:
    """Set the gradient of the sum of some losses, and return that sum, detached."""
    model.zero_grad(set_to_none=True)
    total, nats, num_targets = torch.zeros(()), torch.zeros(()), 0
    for loss in losses:
        loss.total.backward()
        total, nats = total.to(loss.total.device) + loss.total.detach(), nats.to(loss.nats.device) + loss.nats.detach()
        num_targets += loss.num_targets
    return Loss(total=total, nats=nats, num_targets=num_targets)


def _update(model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], clip: float) -> Tensor:
    """Take one step of the optimizers along the gradient, clipped, and return its norm before that."""
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip)
    for optimizer in optimizers:
        optimizer.step()
    return norm


def _read(loss: Loss, norm: Tensor) -> list[float]:
    """Return the total of a loss, its nats, the norm of the gradient and the number of targets, as numbers."""
    return [*torch.stack([loss.total, loss.nats, norm.to(loss.nats.device)]).tolist(), loss.num_targets]  # at once


def _finite_nats(total: float, nats: float, norm: float, num_targets: float, *, step: int) -> tuple[float, int]:
    """Return the reported loss and the number of targets, of all processes.

    Raises:
        DivergedError: the loss, its total or the norm of the gradient is not finite.
    """
    if not (math.isfinite(total) and math.isfinite(nats) and math.isfinite(norm)):
        raise DivergedError("the gradient" if math.isfinite(total + nats) else "the loss", step)
    return nats, round(num_targets)


def are_finite(tensors: Iterable[Tensor]) -> bool:
    """Return whether all numbers in these tensors are finite."""
    return all(bool(torch.isfinite(t).all()) for t in tensors if t.is_floating_point())


def _restore(
    model: nn.Module, average: nn.Module, optimizers: Sequence[torch.optim.Optimizer], state: TrainingState
) -> None:
    def of(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): t for name, t in state.tensors.items() if name.startswith(prefix)}

    model.load_state_dict(of("weights."))
    average.load_state_dict(of("average."))
    owner = {p: o for o in optimizers for group in o.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        if parameter not in owner:  # frozen
            continue
        moments: dict[str, Any] = of(f"moments.{name}.")
        owner[parameter].state[parameter] = {
            key: t.clone() if key == "step" else t.to(parameter.device).clone() for key, t in moments.items()
        }
