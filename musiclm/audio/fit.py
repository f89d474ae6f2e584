"""From labelled notes to a classifier: trains, validates on the held-out instruments, keeps the best weights.

Weights and temperature are selected on the held-out notes, so a figure measured on these is optimistic: report others.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ..errors import DivergedError
from ..evaluation.classification import fit_temperature
from ..training.loop import are_finite
from . import augment, metrics, models, training
from .classifier import UNSURE_BELOW, NoteClassifier
from .models.base import NoteModel

if TYPE_CHECKING:
    from ..training.loop import Step

CHECKS = 20  # validations in a run


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """A validation during a run.

    Attributes:
        step: steps taken.
        seconds: time of the run so far, with its earlier validations.
        progress: the share of the budget that is used, 0 … 1.
        loss: mean training loss since the last check, in nats, of augmented notes and smoothed labels.
        recall: mean family recall on the held-out instruments, or None if there are none.
        is_best: whether these are the best weights so far.
    """

    step: int
    seconds: float
    progress: float
    loss: float
    recall: float | None
    is_best: bool


def fit(
    learn: training.PreparedNotes,
    choose: training.PreparedNotes | None,
    recipe: training.Recipe,
    *,
    arch: str = models.DEFAULT,
    config: Mapping[str, Any] | None = None,
    start: NoteModel | None = None,
    teachers: Sequence[NoteModel] = (),
    device: str = "cpu",
    clock: Callable[[], float] = time.monotonic,
    should_stop: Callable[[], bool] = bool,
) -> Iterator[Check | NoteClassifier]:
    """Yield a `Check` about every twentieth of the budget, and at last the classifier: best weights, fitted temperature.

    A run that is stopped before its first check yields nothing.

    Args:
        learn: the training notes.
        choose: held-out notes of other instruments; without them the last weights are kept, at temperature 1.
        recipe: how to train.
        arch: one of `audio.models.names()`.
        config: fields of its `Config`; the others have their defaults.
        start: a trained network whose weights are the first ones, in place of arch and config; it is not changed.
        teachers: networks to distil, see `training.distilled`; each in evaluation mode.
        device: where to train; the classifier that is yielded is on the CPU.
        clock: what a budget in seconds counts: the wall clock, or `time.process_time` for CPU time.
        should_stop: asked before each step; if it is true, the run ends and the best weights so far are the classifier's.

    Raises:
        CheckpointError: no such architecture.
        DivergedError: a loss, a gradient, a weight or a held-out score was not finite. If a check had been passed
            before, the classifier of the best one is yielded first.
        ValueError: an impossible config, or a budget of no steps.
    """
    torch.manual_seed(recipe.seed)
    model = (models.create(arch, **(config or {})) if start is None else copy.deepcopy(start).requires_grad_()).to(
        device
    )
    kept, best, next_check, losses = None, -1.0, 1 / CHECKS, []
    try:
        for step in training.train(model, learn, recipe, teachers=teachers, clock=clock, should_stop=should_stop):
            losses.append(step.nats)
            if step.progress < next_check and step.progress < 1:
                continue
            next_check = step.progress + 1 / CHECKS
            recall = _checked_recall(step, choose)
            is_best = recall is None or recall >= best
            if is_best:
                kept, best = copy.deepcopy(step.model), recall if recall is not None else best
            yield Check(
                step=step.number,
                seconds=step.seconds,
                progress=step.progress,
                loss=sum(losses) / len(losses),
                recall=recall,
                is_best=is_best,
            )
            losses = []
    except DivergedError:
        if kept is not None:
            yield _calibrated(kept, choose)
        raise
    if kept is not None:
        yield _calibrated(kept, choose)
    elif not should_stop():
        raise ValueError("a run of no steps trains nothing")


def _checked_recall(step: Step[NoteModel], choose: training.PreparedNotes | None) -> float | None:
    """Return the mean family recall on the held-out notes after a step; None without such notes.

    Raises:
        DivergedError: a weight or a score is not finite.
    """
    if not are_finite(step.model.state_dict().values()):
        raise DivergedError("a weight", step.number)
    recall = None if choose is None else mean_family_recall(step.model, choose)
    if recall is not None and not math.isfinite(recall):
        raise DivergedError("a held-out score", step.number)
    return recall


def _calibrated(model: NoteModel, choose: training.PreparedNotes | None) -> NoteClassifier:
    """Return the classifier of a trained network, on the CPU, with the temperature that suits the held-out notes."""
    model = model.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    temperature = 1.0
    if choose is not None:
        scores = training.scores(model, augment.pictures(choose.strips[:, 0]))
        temperature = fit_temperature(scores, choose.targets)
    return NoteClassifier(model, temperature=temperature)


def mean_family_recall(model: NoteModel, prepared: training.PreparedNotes) -> float:
    """Return the mean family recall of a network on unchanged notes; NaN if a score is not finite."""
    scores = training.scores(model, augment.pictures(prepared.strips[:, 0]))
    if not are_finite([scores]):
        return math.nan
    probabilities = scores.softmax(dim=1)
    unsure = (probabilities.amax(dim=1) < UNSURE_BELOW).tolist()
    return float(metrics.report(probabilities, prepared.targets, unsure)["mean_family_recall"])
