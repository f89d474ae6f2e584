"""The training loop: a generator that takes one step each time it is asked; the caller reports, saves and stops.

`fit` trains any model with any loss; `train` trains a language model. The `TrainingState` of a step is all that an exact
resume needs: a batch is a function of its number, and the dropout of a step of (seed, step).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.crops import IGNORE, Batch
from ..data.loader import load
from ..errors import DivergedError
from ..evaluation.paired import predict
from ..models.base import LanguageModel
from .carry import CarriedState
from .optim import Recipe, make_optimizers, set_rate, update_ema

DISTILLATION_WEIGHT = 0.9


class Movable(Protocol):
    """A batch that can be moved to another device."""

    def to(self, device: torch.device) -> Any: ...


ModelT = TypeVar("ModelT", bound=nn.Module)
BatchT = TypeVar("BatchT", bound=Movable)


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
    """The loss of a batch.

    Attributes:
        total: the minimized loss, a scalar with a gradient.
        nats: the reported loss, a scalar in nats/target.
        num_targets: how many targets the batch has.
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


def fit(
    model: ModelT,
    batches: Callable[[int], BatchT] | Iterable[BatchT],
    loss: Callable[[ModelT, BatchT], Loss],
    recipe: Recipe,
    *,
    average: ModelT,
    optimizers: Sequence[torch.optim.Optimizer],
    start: TrainingState | None = None,
    clock: Callable[[], float] = time.monotonic,
    before_step: Callable[[int], None] | None = None,
    carried: Callable[[], dict[str, Tensor]] = dict,
) -> Iterator[Step[ModelT]]:
    """Yield each step of a training run, until the budget is used.

    Args:
        model: trained in place, on its own device.
        batches: a function from the number of a step, counted from 0, to its batch; or the batches in order, the first
            of which is that of step `start.step`; the run ends with them.
        loss: the loss of a model on a batch.
        recipe: how to train.
        average: another model of the same architecture on the same device, which receives the EMA weights.
        optimizers: each parameter of the model belongs to one of them.
        start: the state of an earlier run of the same recipe; the weights are taken from it.
        clock: what a budget in seconds counts: the wall clock, or `time.process_time` for CPU time.
        before_step: called with the number of each step, counted from 0, before it.
        carried: returns further tensors of the state after a step: what `loss` carries from batch to batch.

    Raises:
        DivergedError: the loss or the norm of the gradient of a step is not finite. The weights are then of no use.
    """
    start = _begin(model, average, optimizers, start)
    in_order = iter(map(batches, itertools.count(start.step)) if callable(batches) else batches)
    tokens, begin = start.tokens, clock() - start.seconds
    tensors = functools.partial(_tensors, model, average, optimizers, carried)
    for step in range(start.step, recipe.steps if recipe.steps is not None else 2**62):
        seconds = clock() - begin
        if recipe.progress(step, seconds) >= 1 or (batch := next(in_order, None)) is None:
            return
        rate = recipe.rate(step, seconds)
        set_rate(optimizers, rate)
        if before_step is not None:
            before_step(step)
        recipe.seed_dropout(step)
        found = loss(model, batch.to(next(model.parameters()).device))
        norm = _update(model, found.total, optimizers, recipe.clip)
        update_ema(average, model, recipe.ema_decay_at(step))
        tokens += found.num_targets
        number, seconds = step + 1, clock() - begin
        yield Step(
            number=number,
            nats=_finite_nats(found, norm, number),  # behind the update: reading a number waits for the GPU
            tokens=tokens,
            seconds=seconds,
            rate=rate,
            progress=recipe.progress(number, seconds),
            model=average,
            state=functools.partial(_state, number, tokens, clock, begin, tensors),
        )


def train(
    model: LanguageModel,
    batches: Callable[[int], Batch] | Iterable[Batch],
    recipe: Recipe,
    *,
    average: LanguageModel,
    start: TrainingState | None = None,
    teacher: LanguageModel | None = None,
    distillation_weight: float = DISTILLATION_WEIGHT,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Step[LanguageModel]]:
    """Return the steps of training a language model by next-token cross-entropy; see `fit` for the other arguments.

    Where batches continue each other (`Batch.begins`), the model's state is carried, see `CarriedState`.

    Args:
        teacher: a model on the same device, to distil: its probabilities are soft labels (Hinton et al. 2015).
        distillation_weight: the weight of the soft-label loss, 0 … 1; the next-token loss has the rest.
    """
    device = next(model.parameters()).device
    carried = CarriedState({} if start is None else start.tensors, device)

    def loss(model: LanguageModel, batch: Batch) -> Loss:
        with recipe.autocast(batch.tokens.device):
            logits, state = predict(model, batch, carried.before(batch))
        carried.keep(batch, state)
        nats = F.cross_entropy(logits.float().flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORE)
        total = nats
        if teacher is not None:
            labels = _soft_labels(teacher, batch, recipe)
            soft = F.cross_entropy(logits.float()[batch.mask], labels[batch.mask])
            total = distillation_weight * soft + (1 - distillation_weight) * nats
        return Loss(total=total, nats=nats, num_targets=batch.num_tokens)

    def before_step(step: int) -> None:
        model.on_step(step)
        average.on_step(step)

    if callable(batches):
        batches = load(batches, 0 if start is None else start.step, device)
    optimizers = make_optimizers(model, recipe)
    return fit(
        model,
        batches,
        loss,
        recipe,
        average=average,
        optimizers=optimizers,
        start=start,
        clock=clock,
        before_step=before_step,
        carried=carried.tensors,
    )


@torch.no_grad()
def _soft_labels(teacher: LanguageModel, batch: Batch, recipe: Recipe) -> Tensor:
    """Return a teacher's probabilities of the targets of a batch, (B, T, V)."""
    with recipe.autocast(batch.tokens.device):
        logits, _ = predict(teacher, batch)
    return logits.float().softmax(-1)


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


def _update(model: nn.Module, loss: Tensor, optimizers: Sequence[torch.optim.Optimizer], clip: float) -> Tensor:
    """Take one step of the optimizers along the gradient of the loss, clipped, and return its norm before that."""
    model.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip)
    for optimizer in optimizers:
        optimizer.step()
    return norm


def _finite_nats(loss: Loss, norm: Tensor, step: int) -> float:
    """Return the reported loss; raise `DivergedError` if it, the total or the norm of the gradient is not finite."""
    total, nats, norm_read = torch.stack([loss.total.detach(), loss.nats.detach(), norm]).tolist()  # read at once
    if not (math.isfinite(total) and math.isfinite(nats) and math.isfinite(norm_read)):
        raise DivergedError("the gradient" if math.isfinite(total + nats) else "the loss", step)
    return float(nats)


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
        moments: dict[str, Any] = of(f"moments.{name}.")
        owner[parameter].state[parameter] = {
            key: t.clone() if key == "step" else t.to(parameter.device).clone() for key, t in moments.items()
        }
