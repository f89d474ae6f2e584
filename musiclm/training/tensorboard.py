"""TensorBoard curves of a training run, if tensorboard is installed: a folder `tensorboard` in the run folder.

`tensorboard --logdir runs/` shows them. Without the package `tensorboard` nothing is written, and no message appears.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .loop import Step

FOLDER = "tensorboard"
EVERY = 10  # steps between two points of the training loss


class TensorBoard:
    """Writes the curves of a run.

    Args:
        folder: the run folder.
        step: the step from which the run continues; later points, of a part that was lost, are purged.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._writer: Any = None
        if find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder / FOLDER), purge_step=step + 1)

    def add(self, step: Step[Any], validation_nats: float | None) -> None:
        """Add the points of a step: training loss, learning rate and tokens at every tenth, validation loss if given."""
        if self._writer is None:
            return
        points = {"nats per token/training": step.nats, "learning rate": step.rate, "tokens": step.tokens}
        if step.number != 1 and step.number % EVERY:
            points = {}
        if validation_nats is not None:
            points["nats per token/validation"] = validation_nats
        for name, value in points.items():
            self._writer.add_scalar(name, value, step.number)

    def close(self) -> None:
        """Flush the buffered values."""
        if self._writer is not None:
            self._writer.close()
