"""Curves of a training run for TensorBoard, if that is installed: a folder `tensorboard` within the run's.

`tensorboard --logdir runs/` shows them. Without the package `tensorboard` nothing is written and nothing is said.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .training import Step

FOLDER = "tensorboard"
EVERY = 10  # steps between two points of the training loss


class Scalars:
    """Writes the curves of a run.

    Args:
        folder: the run's.
        step: from which the run goes on; points behind it, of a part that was lost, are taken out of the curves.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._writer: Any = None
        if find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder / FOLDER), purge_step=step + 1)

    def add(self, step: Step, validation_nats: float | None) -> None:
        """Add the points of a step: the loss and the rate now and then, the validation where there was one."""
        if self._writer is None:
            return
        if step.number % EVERY == 0 or step.number == 1:
            self._writer.add_scalar("nats per token/training", step.nats, step.number)
            self._writer.add_scalar("learning rate", step.rate, step.number)
            self._writer.add_scalar("tokens", step.tokens, step.number)
        if validation_nats is not None:
            self._writer.add_scalar("nats per token/validation", validation_nats, step.number)

    def close(self) -> None:
        """Write what is not written yet."""
        if self._writer is not None:
            self._writer.close()
