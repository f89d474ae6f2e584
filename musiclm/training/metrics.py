"""The validations of a run: metrics.jsonl, a line each."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from pathlib import Path

FILE = "metrics.jsonl"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Validation:
    """One line of the file; the validation loss is that of the saved model, after temperature scaling."""

    step: int
    tokens: int
    seconds: float
    train_nats_per_token: float
    validation_nats_per_token: float
    temperature: float
    learning_rate: float
    is_best: bool


def append(path: Path, validation: Validation) -> None:
    """Add a line to a file of metrics, which is on the disk when this returns."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(dataclasses.asdict(validation), allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def until(path: Path, step: int) -> list[str]:
    """Return the lines of a file of metrics up to a step; the last one may be half written, and is left out then."""
    kept = []
    for line in path.read_text("utf-8").splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError):
            if json.loads(line)["step"] <= step:
                kept.append(line)
    return kept
