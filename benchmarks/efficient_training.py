"""Training under a budget of CPU time, so that a busy machine does not distort it: one run folder and one result each.

    FOLDER/run.json …    the run (`musiclm.training.run`); it continues where it was interrupted
    FOLDER/pace.json     CPU seconds and tokens of the training steps, without validations
    FOLDER/result.json   the measurements, kept with what was asked for; the same question again reads them

CPU time is that of the whole process (`time.process_time`), with one thread: the training loop with its validations.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

from musiclm import checkpoint, evaluation, models
from musiclm.errors import DivergedError, RunError
from musiclm.files import write_whole
from musiclm.training.config import TrainConfig, stored_config
from musiclm.training.run import Run
from musiclm.training.setup import resolve_crops

BUDGET = ("minutes", "steps", "epochs")
OF_THE_RUN = ("precision", "patient_from", "command")  # fields that a run sets itself, or that change nothing


def config_of(arch: str, *, context: int | None = None, dropout: float | None = None, **shared: Any) -> TrainConfig:
    """Return the configuration of a run.

    Args:
        arch: its name.
        context: the context of an architecture that has one, and the length of its crops; of any other the length of the
            crops; and the memory of an architecture that has one. What else limits attention (the window of longformer,
            the buckets of reformer) stays. A batch has as many tokens as in the architecture's defaults; a single crop that
            is longer is a batch of its own, of more tokens: 4,096 for 2,048. None for the defaults.
        dropout: of an architecture that has it; None for the preset's.
        shared: other fields of `TrainConfig`.
    """
    preset, training = models.preset(arch, shared.get("preset", "small")), models.training(arch)
    plan = TrainConfig(arch=arch, threads=1, device="cpu", command=" ".join(["python", *sys.argv]), **shared)
    if dropout is not None and "dropout" in preset:
        plan.dropout = dropout
    if context is not None:
        plan.window = context
        plan.context = context if "context" in preset else None
        if "memory" in preset:
            plan.config = {"memory": context}
        default = preset.get("context", training["window"])
        plan.batch_size = max(1, training["batch_size"] * default // context)
    return plan


def attended(fields: dict[str, Any]) -> str:
    """Return what a token attends to in each layer, from the fields of an architecture's `Config`."""
    for name in ("context", "memory"):
        if name in fields:
            return f"{name} {fields[name]:,}"
    if "bucket_context" in fields:
        return f"buckets {fields['num_rounds']} x {fields['bucket_context']}"
    if "window" in fields:
        widest = max(fields["dilations"] or (1,))
        gaps = f", gaps to {widest}" if widest > 1 else ""
        return f"window {fields['window']:,}{gaps}" + f", {fields['num_global']} global" * bool(fields["global_ids"])
    return "all tokens" if "num_heads" in fields else "recurrent state"


def check_stored(folder: Path, plan: TrainConfig) -> None:
    """Check that a run in a folder, if there is one, was trained as is asked, for no longer than is asked.

    Raises:
        RunError: it has other settings, or a larger budget.
    """
    stored = stored_config(folder)
    if stored is None:
        return
    for field in dataclasses.fields(plan):
        was, asked = getattr(stored, field.name), getattr(plan, field.name)
        if field.name in BUDGET:
            is_other = was is not None and (asked is None or asked < was)
        else:
            is_other = field.name not in OF_THE_RUN and was != asked
        if is_other:
            raise RunError(
                f"'{folder}' was trained with {field.name} {was}, not {asked}: choose another folder with -o"
            )


def trained(folder: Path, plan: TrainConfig) -> str | None:
    """Train the rest of a run's budget of CPU minutes (or steps); return why its training diverged, or None."""
    if (folder / "run.json").exists():
        run = Run.open(folder)
        run.renew(minutes=plan.minutes, steps=plan.steps, epochs=None)
    else:
        run = Run.create(folder, plan)
    pace = read_json(folder / "pace.json") or {"tokens": 0, "seconds": 0.0}
    steps = run.train(time.process_time)
    last_tokens, began = 0, 0.0
    try:
        for step, validation in steps:
            if began and validation is None:
                pace["tokens"] += step.tokens - last_tokens
                pace["seconds"] += time.process_time() - began
            if validation is not None:
                nats = f"{validation.validation_nats_per_token:.4f}"
                print(f"{folder.name}: step {step.number:,}, {step.progress:.0%}, {nats}", file=sys.stderr)
            last_tokens, began = step.tokens, time.process_time()
    except DivergedError as error:
        return str(error)
    finally:
        steps.close()
        write_json(folder / "pace.json", pace)
        run.close()
    return None


def measured(
    folder: Path, plan: TrainConfig, pieces: dict[str, Any], most_tokens: int | None, *, again: bool = False
) -> dict[str, Any]:
    """Return the result of a run, after training and measuring what is missing.

    Args:
        folder: of the run.
        plan: its configuration.
        pieces: of the splits that are measured.
        most_tokens: of each split, whole pieces by hash; None for all.
        again: measure a finished run once more.

    Raises:
        RunError: see `check_stored`.
    """
    check_stored(folder, plan)
    asked = {name: value for name, value in dataclasses.asdict(plan).items() if name not in ("command", "precision")}
    asked |= {"most_tokens": most_tokens, "splits": list(pieces)}
    stored = read_json(folder / "result.json")
    if stored is not None and stored["asked"] == asked and not again:
        return described(stored, plan)
    problem = trained(folder, plan)
    result: dict[str, Any] = {"arch": plan.arch, "name": folder.name, "asked": asked, "problem": problem}
    if problem is None:
        result |= measurements(folder, pieces, most_tokens)
    write_json(folder / "result.json", result)
    return described(result, plan)


def described(result: dict[str, Any], plan: TrainConfig) -> dict[str, Any]:
    """Return a result with what a token of its model attends to (None if it diverged), and the crops it was trained on."""
    config = result.get("config")
    return result | {"attends_to": config and attended(config), "crops": resolve_crops(plan)}


def measurements(folder: Path, pieces: dict[str, Any], most_tokens: int | None) -> dict[str, Any]:
    """Return the losses of the checkpoint that was selected on validation, and what its training saw."""
    loaded = checkpoint.load(folder)
    tokenizer, model = loaded.tokenizer(), loaded.model().eval()
    bf16 = (read_json(folder / "run.json") or {})["precision"] == "bf16"
    last = json.loads((folder / "metrics.jsonl").read_text("utf-8").splitlines()[-1])
    pace = read_json(folder / "pace.json") or {"tokens": 0, "seconds": 0.0}
    found: dict[str, Any] = {
        "num_parameters": model.num_parameters,
        "config": loaded.config,
        "precision": "bf16" if bf16 else "fp32",
        "steps": last["step"],
        "tokens": last["tokens"],
        "cpu_seconds": last["seconds"],
        "cpu_ms_per_token": 1e3 * pace["seconds"] / pace["tokens"] if pace["tokens"] else None,
        "best_step": loaded.card["steps"],
        "splits": {},
    }
    for split, of_split in pieces.items():
        chosen = evaluation.sample_pieces(of_split, most_tokens)
        loss = evaluation.measure_loss(model, tokenizer, chosen, bf16=bf16)
        num_events = sum(tokenizer.num_events(piece.tokens) for piece in chosen)
        found["splits"][split] = {
            "num_pieces": len(chosen),
            "num_tokens": loss.num_tokens,
            "num_notes": loss.num_notes,
            "num_events": num_events,
            "nats_per_token": loss.nats_per_token,
            "nats_per_note": loss.nats / max(1, loss.num_notes),
            "nats_per_event": loss.nats / max(1, num_events),
        }
    return found


def read_json(path: Path) -> dict[str, Any] | None:
    """Return what a file holds; None if there is none, or it is damaged."""
    try:
        document: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return document
    except (OSError, ValueError):
        return None


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a file atomically."""
    write_whole(path, (json.dumps(document, indent=1) + "\n").encode())
