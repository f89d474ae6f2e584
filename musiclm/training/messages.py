"""What a run writes for people: the model cards of its checkpoints, and how to continue one that ended early."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import TrainConfig

if TYPE_CHECKING:
    from ..models.base import LanguageModel
    from .loop import Step
    from .setup import TrainingSetup

STATE = "resume.safetensors"


def card(
    plan: TrainConfig,
    setup: TrainingSetup,
    nats: float,
    step: Step[LanguageModel] | None = None,
    temperature: float | None = None,
) -> dict[str, Any]:
    """Return the model card of a checkpoint.

    Args:
        plan: the configuration of the run.
        setup: its parts.
        nats: the validation loss, nats/token.
        step: after which the checkpoint was saved; None for the one that the run starts from.
        temperature: that the logits were divided by, or None.
    """
    made: dict[str, Any] = {
        "data": setup.corpus.name,
        "licence": "the trainer's own data: yours to say",
        "command": plan.command,
        "steps": step.number if step else 0,
        "tokens": step.tokens if step else 0,
        "minutes": round(step.seconds / 60, 1) if step else 0.0,
        "precision": plan.precision,
        "figures": {"validation_nats_per_token": nats},
    }
    if temperature is not None:
        made["calibrated"] = f"logits divided by {temperature:g}, chosen on validation"
    if plan.teachers:
        made["teachers"] = ", ".join(Path(name).name for name in plan.teachers)
    if setup.started is not None:
        name = Path(setup.started.name).name
        made["started_from"] = f"{name}: {setup.started.card.get('data')}"
        made["licence"] = f"that of {name} ({setup.started.card.get('licence')}), and that of the trainer's own data"
    return made


def after_divergence(folder: Path, plan: TrainConfig, best: float, best_step: int) -> str:
    """Return what is kept of a run that diverged, and how to train on.

    Args:
        folder: of the run.
        plan: its configuration.
        best: the lowest validation loss, nats/token.
        best_step: its step.
    """
    from .. import models

    usual = models.training(plan.arch)["learning_rate"]
    lower = min(usual, (plan.learning_rate or usual) / 10)
    checkpoint = folder / "best.safetensors"
    kept = "no checkpoint was saved"
    if checkpoint.exists():
        kept = f"'{checkpoint}' of step {best_step:,} is kept, validation {best:.4f} nats/token"
    if (folder / STATE).exists():
        again = f"musiclm train --resume {shlex.quote(str(folder))} --learning-rate {lower:g}"
        return f"{kept}. Continue with a lower rate: {again}"
    return f"{kept}. Begin again with a lower rate: --learning-rate {lower:g}"


def after_loss_of_a_rank(folder: Path, error: Exception) -> str:
    """Return that a process of a run has ended, the first line of the error that told, and how to continue."""
    lines = str(error).strip().splitlines()
    cause = lines[0].strip() if lines else type(error).__name__
    text = f"another process of the run has ended ({cause})"
    if (folder / STATE).exists():
        text += f". To continue: --resume {shlex.quote(str(folder))}"
    return text
