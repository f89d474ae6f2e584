"""When a run validates, and when it stops early."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .loop import Step
    from .optim import Recipe


class Cadence:
    """When to validate and save.

    With a budget in steps: twenty times per run. With a budget in seconds: every 20 s, or rarely enough that validation
    takes a tenth of the time.

    Args:
        recipe: of the run.
        seconds: the training time before this part of the run.
    """

    def __init__(self, recipe: Recipe, seconds: float) -> None:
        self.every_steps = None if recipe.steps is None or recipe.seconds else max(10, min(500, recipe.steps // 20))
        self.last_seconds, self.interval = seconds, 20.0

    def is_due(self, step: Step) -> bool:
        """Return whether to validate after this step; the last step of a run is always validated.

        No other is if the run is to stop: who asked for that waits for the state to be saved.
        """
        if step.progress >= 1:
            return True
        if step.is_stopping:
            return False
        if self.every_steps is not None:
            return step.number % self.every_steps == 0
        return step.seconds - self.last_seconds >= self.interval

    def done(self, step: Step, cost: float) -> None:
        """Record a validation after this step that took `cost` seconds."""
        self.last_seconds = step.seconds + cost
        self.interval = max(20.0, 10 * cost)


@dataclasses.dataclass(kw_only=True)
class EarlyStopping:
    """The best validation so far, and whether the following ones have failed to improve on it.

    Attributes:
        best: the lowest validation loss, nats/token.
        best_step: its step; 0 for the model that the run started from.
        validated: the steps of all validations, in order.
    """

    best: float = float("inf")
    best_step: int = 0
    validated: list[int] = dataclasses.field(default_factory=list)

    def improves(self, nats: float) -> bool:
        """Return whether a validation loss is lower than all before."""
        return nats < self.best

    def add(self, step: int, nats: float) -> None:
        """Record the validation loss of a step."""
        if self.improves(nats):
            self.best, self.best_step = nats, step
        self.validated.append(step)

    def is_over(self, patience: int | None, since: int) -> bool:
        """Return whether `patience` validations after the best one, and after step `since`, were no better than it.

        Without patience the answer is no.
        """
        first = max(self.best_step, since)
        return patience is not None and sum(step > first for step in self.validated) >= patience
