"""Metrics of a note classifier: recall of each family, their mean, the confusion matrix, the calibration error.

The main figure is the mean family recall (macro recall): each family has the same weight, however many notes it has.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Sequence
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


def covered_families(
    targets: Tensor, sources: Sequence[str], *, min_notes: int = 30, min_sources: int = 2
) -> list[int]:
    """Return the numbers of the families that have enough notes, from enough sources, ascending.

    The recall of a family from one source is a figure of that source.

    Args:
        targets: (notes,), the number of each one's family.
        sources: of each note.
        min_notes: notes that a family needs.
        min_sources: sources that they come from.
    """
    of_family: dict[int, list[str]] = defaultdict(list)
    for target, source in zip(targets.tolist(), sources, strict=True):
        of_family[target].append(source)
    return sorted(f for f, found in of_family.items() if len(found) >= min_notes and len(set(found)) >= min_sources)


def mean_recall(predicted: Tensor, targets: Tensor, families: Collection[int]) -> float:
    """Return the mean recall of some families; those without notes are left out, and NaN if none has notes.

    Args:
        predicted: (notes,), numbers of families.
        targets: (notes,), the true ones.
        families: the numbers of those that count. Notes of others do not.
    """
    matrix = confusion(predicted, targets, len(FAMILIES)).tolist()
    recalls = [matrix[f][f] / sum(matrix[f]) for f in families if sum(matrix[f])]
    return sum(recalls) / len(recalls) if recalls else math.nan
