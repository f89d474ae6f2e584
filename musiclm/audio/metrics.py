"""Metrics of a note classifier: recall of each family, their mean, the confusion matrix, the calibration error.

The main figure is the mean family recall (macro recall): each family has the same weight, however many notes it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..evaluation.classification import calibration_error, confusion
from . import FAMILIES


def report(probabilities: Tensor, targets: Tensor, unsure: Sequence[bool]) -> dict[str, Any]:
    """Return the metrics of a set of notes; families without notes have no recall and are left out of the mean.

    Args:
        probabilities: (notes, 11), rows summing to 1.
        targets: (notes,), the number of each one's family.
        unsure: for each note, whether the prediction is marked as unsure.
    """
    confidence, predicted = probabilities.max(dim=1)
    right = predicted == targets
    matrix = confusion(predicted, targets, len(FAMILIES))
    counts = matrix.sum(dim=1)
    recall = {f: float(matrix[i, i] / counts[i]) for i, f in enumerate(FAMILIES) if counts[i]}
    sure = ~torch.tensor(list(unsure), dtype=torch.bool)
    return {
        "num_notes": len(targets),
        "mean_family_recall": sum(recall.values()) / len(recall),
        "accuracy": float(right.double().mean()),
        "chance": 1 / len(recall),
        "calibration_error": calibration_error(confidence, right),
        "unsure": float((~sure).double().mean()),
        "accuracy_when_sure": float(right[sure].double().mean()) if bool(sure.any()) else None,
        "families": {f: {"num_notes": int(counts[i]), "recall": recall.get(f)} for i, f in enumerate(FAMILIES)},
        "confusion": matrix.tolist(),
    }
