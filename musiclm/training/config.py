"""The configuration of a training run: its run.json. Light to import: without torch."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from ..errors import RunError


@dataclasses.dataclass(kw_only=True)
class TrainConfig:
    """The configuration of a run: run.json.

    Attributes:
        arch: one of `musiclm.models.names(None)`.
        preset: the size of the model: tiny, small or base.
        data: the path of the data, absolute; None for the bundled chorales.
        tokenizer: its name; None for the default of the data.
        start_from: a checkpoint to fine-tune, or None; of an encoder and decoder one of the decoder's language model, too.
        frozen: keep the weights of the decoder that come from a language model; its head and last norm are trained.
        teachers: checkpoints to distil.
        minutes, steps, epochs: the budget; the one that is used up first ends the run.
        weights: sampling weights of folders within the data, by which the lengths of their pieces are multiplied.
        batch_size, window, context, learning_rate, dropout: None for the default of the architecture. The window is the
            length of a training sequence in tokens; only transformers have a context.
        accumulation: in how many parts a process computes its share of a batch.
        crops: random, or contiguous: each batch element continues its piece from crop to crop, and its state is carried;
            None for the default of the architecture.
        config: fields of the architecture's `Config` that replace those of the preset.
        patience: the run stops early after so many validations in a row without improvement; None for never.
        patient_from: validations up to this step do not count for that: the step at which the budget was renewed.
        seed: of weights, batches and dropout.
        threads: of torch.
        processes: how many trained the run last; the threads were chosen for that number.
        device: cpu, cuda or mps.
        precision: fp32 or bf16; None until it was measured which is faster.
        compile: use torch.compile, where there is a C++ compiler.
        command: the command line.
    """

    arch: str
    preset: str = "small"
    data: str | None = None
    tokenizer: str | None = None
    start_from: str | None = None
    frozen: bool = False
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
    accumulation: int = 1
    crops: str | None = None
    config: dict[str, float | str] = dataclasses.field(default_factory=dict)
    patience: int | None = None
    patient_from: int = 0
    seed: int = 0
    threads: int = 1
    processes: int = 1
    device: str = "auto"
    precision: str | None = None
    compile: bool = False
    command: str = ""


def stored_config(folder: Path) -> TrainConfig | None:
    """Return the configuration of the run in a folder; None if there is no run.

    Raises:
        RunError: the file run.json is damaged.
    """
    path = folder / "run.json"
    if not path.is_file():
        return None
    try:
        return TrainConfig(**json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"'{path}' is damaged: {error}") from error
