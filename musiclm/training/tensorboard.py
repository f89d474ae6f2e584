"""Curves of a training run for TensorBoard, if that is installed: a folder `tensorboard` within the run's.

`tensorboard --logdir runs/` shows them. Without the package `tensorboard` nothing is written and nothing is said.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

FOLDER = "tensorboard"
EVERY = 10  # steps between two points of the training loss


class TensorBoard:
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

    def add(self, step: int, *, nats: float, rate: float, tokens: int, validation_nats: float | None) -> None:
        """Add the points of a step: the loss, the rate and the tokens so far now and then; the validation if there was one."""
        if self._writer is None:
            return
        points = {"nats per token/training": nats, "learning rate": rate, "tokens": tokens}
        if step != 1 and step % EVERY:
            points = {}
        if validation_nats is not None:
            points["nats per token/validation"] = validation_nats
        for name, value in points.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is not written yet."""
        if self._writer is not None:
            self._writer.close()
