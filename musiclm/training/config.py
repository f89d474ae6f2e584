"""What a training run was asked for: its run.json. Light to import: it knows no torch."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from ..errors import RunError


@dataclasses.dataclass(kw_only=True)
class TrainConfig:
    """What a run was asked for: run.json.

    Attributes:
        arch: one of `musiclm.models.names()`.
        preset: a size of it.
        data: the source, as an absolute path; None for the bundled chorales.
        tokenizer: its name; None for what suits the data.
        start_from: a checkpoint to start from, or None.
        teachers: checkpoints to learn from beside the data.
        minutes, steps, epochs: the budget; what comes first ends the run.
        weights: for folders within the data, how much more often than their size says they are drawn from.
        batch_size, window, context, learning_rate, dropout: None for the architecture's own; a context is a transformer's.
        config: fields of the architecture's `Config` instead of the preset's.
        patience: the run ends when so many validations in a row were no lower than the lowest; None for never.
        patient_from: the step behind which they are counted: where the run stood when it was given a new budget.
        seed: of everything that is drawn.
        threads: of torch.
        device: cpu, cuda or mps.
        precision: fp32 or bf16; None until it was measured.
        compile: through torch.compile, where there is a C++ compiler.
        command: what the user typed.
    """

    arch: str
    preset: str = "small"
    data: str | None = None
    tokenizer: str | None = None
    start_from: str | None = None
    teachers: list[str] = dataclasses.field(default_factory=list)
    minutes: float | None = None
    steps: int | None = None
    epochs: float | None = None
    weights: dict[str, float] = dataclasses.field(default_factory=dict)
    batch_size: int | None = None
    window: int | None = None
    context: int | None = None
    learning_rate: float | None = None
    dropout: float | None = None
    config: dict[str, float] = dataclasses.field(default_factory=dict)
    patience: int | None = None
    patient_from: int = 0
    seed: int = 0
    threads: int = 1
    device: str = "auto"
    precision: str | None = None
    compile: bool = False
    command: str = ""


def stored_config(folder: Path) -> TrainConfig | None:
    """Return the plan of the run in a folder; None if there is no run.

    Raises:
        RunError: its run.json is damaged.
    """
    path = folder / "run.json"
    if not path.is_file():
        return None
    try:
        return TrainConfig(**json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"'{path}' is damaged: {error}") from error
