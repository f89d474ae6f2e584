"""Validations during a training whose best weights are kept, as that of taggers and of performers."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Generic

from ..errors import DivergedError
from .loop import ModelT, Step

SHARE = 0.15  # of a budget in seconds that checks may take


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """What a model reaches on held-out data.

    Attributes:
        loss: mean.
        figure: for people: the accuracy of a tagger, the correlation of a performer.
        merit: what selects the weights; more is better.
    """

    loss: float
    figure: float
    merit: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check(Generic[ModelT]):
    """A validation during a run.

    Attributes:
        step: steps taken.
        seconds: training time so far.
        loss: mean training loss since the last check.
        validation: mean loss of the held-out data; None without any.
        figure: see `Measured`; None without held-out data.
        is_best: whether these are the best weights so far; without held-out data the last ones always are.
        best: the model with the best weights so far.
    """

    step: int
    seconds: float
    loss: float
    validation: float | None
    figure: float | None
    is_best: bool
    best: ModelT


def check_steps(
    steps: Iterable[Step[ModelT]],
    measure: Callable[[ModelT], Measured | None],
    number: int,
    *,
    clock: Callable[[], float],
    seconds: float | None,
) -> Iterator[Check[ModelT]]:
    """Yield a check about each `number`-th part of the budget, and one after the step that uses it up.

    Checks are part of a budget in seconds. They are rarer where they would take more than `SHARE` of it.

    Args:
        steps: of a run, see `fit`.
        measure: returns what a model reaches; None without held-out data.
        number: of checks in a run that uses its budget up, at most.
        clock: of the run, see `fit`.
        seconds: the run's budget in seconds; None if it has none.

    Raises:
        DivergedError: the loss of the held-out data was not finite.
    """
    merit, next_check = -math.inf, 1 / number
    losses: list[float] = []
    best: ModelT | None = None
    for step in steps:
        losses.append(step.nats)
        if step.progress < next_check and step.progress < 1:
            continue
        begin = clock()
        found = measure(step.model)
        cost = (clock() - begin) / seconds if seconds else 0.0
        next_check = step.progress + max(1 / number, cost / SHARE)
        if found is not None and not math.isfinite(found.loss):
            raise DivergedError("the validation loss", step.number)
        is_best = best is None or found is None or found.merit > merit
        if best is None or is_best:
            best, merit = copy.deepcopy(step.model), merit if found is None else found.merit
        yield Check(
            step=step.number,
            seconds=step.seconds,
            loss=sum(losses) / len(losses),
            validation=None if found is None else found.loss,
            figure=None if found is None else found.figure,
            is_best=is_best,
            best=best,
        )
        losses = []
