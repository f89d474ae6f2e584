"""From labelled notes to a classifier: trains, looks at the held-out instruments now and then, keeps the best weights.

Weights and temperature are chosen by the notes held out for that, so a figure measured on them is flattered: report
others.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator

import torch

from . import augment, metrics, training
from .classifier import UNSURE_BELOW, NoteClassifier
from .models.cnn import Config, NoteCNN

CHECKS = 20  # looks at the held-out instruments in a run


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """A look at how far a run is.

    Attributes:
        step: steps taken.
        seconds: of training so far.
        progress: which part of the budget is used, 0 … 1.
        loss: mean of the steps since the last look, in nats, of spoilt notes and smoothed labels.
        recall: mean family recall on the held-out instruments, or None if there are none.
        is_best: whether these are the weights to keep so far.
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
    config: Config | None = None,
) -> Iterator[Check | NoteClassifier]:
    """Yield a Check now and then, and at last the classifier: the best weights, and the temperature that suits them.

    Args:
        learn: notes to learn from.
        choose: notes of other instruments to choose by; without them the last weights are kept, at temperature 1.
        recipe: how to train.
        config: of the network.
    """
    torch.manual_seed(recipe.seed)
    model = NoteCNN(config or Config())
    kept, best, next_check, losses = None, -1.0, 1 / CHECKS, []
    step = None
    for step in training.train(model, learn, recipe):
        losses.append(step.loss)
        if step.progress < next_check and step.progress < 1:
            continue
        next_check = step.progress + 1 / CHECKS
        recall = mean_family_recall(step.model, choose) if choose is not None else None
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
    if step is None:
        raise ValueError("a run of no steps trains nothing")
    final = (kept or step.model).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    temperature = 1.0
    if choose is not None:
        scores = training.scores(final, augment.pictures(choose.strips[:, 0]))
        temperature = training.fit_temperature(scores, choose.targets)
    yield NoteClassifier(final, temperature=temperature)


def mean_family_recall(model: NoteCNN, prepared: training.PreparedNotes) -> float:
    """Return the mean family recall of a network on notes as they are."""
    scores = training.scores(model, augment.pictures(prepared.strips[:, 0]))
    probabilities = scores.softmax(dim=1)
    unsure = (probabilities.amax(dim=1) < UNSURE_BELOW).tolist()
    return float(metrics.report(probabilities, prepared.targets, unsure)["mean_family_recall"])
