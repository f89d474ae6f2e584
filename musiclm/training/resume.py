"""The file that a run is resumed from: the training state and the best validation so far, written whole."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from ..checkpoint import pack, read_header, rename_tensors
from ..errors import DivergedError, RunError
from ..files import write_whole
from .loop import TrainingState, are_finite


def save(path: Path, state: TrainingState, best: float, best_step: int) -> None:
    """Write a training state.

    Args:
        path: of the file.
        state: what to write.
        best: the lowest validation loss so far, nats/token; infinite before the first.
        best_step: its step.

    Raises:
        DivergedError: a weight is not finite; the file of before stays.
    """
    if not are_finite(state.tensors.values()):
        raise DivergedError("a weight", state.step)
    numbers = {
        "step": state.step,
        "tokens": state.tokens,
        "seconds": state.seconds,
        "best": best if math.isfinite(best) else None,  # JSON has no infinity
        "best_step": best_step,
    }
    tensors = {name: t.detach().cpu().contiguous() for name, t in state.tensors.items()}
    write_whole(path, pack(tensors, {"run": json.dumps(numbers)}))


def digest(path: Path) -> str | None:
    """Return a hash of the file, so that processes can compare theirs; None if there is none."""
    if not path.exists():
        return None
    found = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def check_shapes(state: TrainingState, model: nn.Module, folder: Path, tokenizer: str) -> None:
    """Check that a model has the shapes of the state that it is to resume from.

    Args:
        state: of the run.
        model: of this version of the package.
        folder: of the run.
        tokenizer: its name.

    Raises:
        RunError: it has not.
    """
    shapes = {f"weights.{name}": tensor.shape for name, tensor in model.state_dict().items()}
    if shapes != {name: t.shape for name, t in state.tensors.items() if name.startswith("weights.")}:
        raise RunError(
            f"the run '{folder}' was begun by another version of musiclm: '{tokenizer}' has other features now; begin a new one"
        )


def load(path: Path) -> tuple[TrainingState, float, int]:
    """Return a training state, the lowest validation loss so far, nats/token, and its step.

    Raises:
        RunError: the file is damaged, or its weights are not finite.
    """
    metadata, _ = read_header(path)
    try:
        numbers = json.loads(metadata["run"])
        tensors = rename_tensors(load_file(path))
        best = math.inf if numbers["best"] is None else float(numbers["best"])
        state = TrainingState(
            step=numbers["step"], tokens=numbers["tokens"], seconds=numbers["seconds"], tensors=tensors
        )
    except (KeyError, ValueError, SafetensorError) as error:
        raise RunError(f"'{path}' is damaged: {error}") from error
    if not are_finite(tensors.values()):  # saved by an older version
        raise RunError(f"the run '{path.parent}' diverged: begin a new one with a lower --learning-rate")
    return state, best, numbers["best_step"]
