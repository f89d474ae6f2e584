"""Measures of classifiers, and what is fitted on validation: a temperature, and the confidence below which one is unsure.

N examples, L labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

BINS = 15
MASS_BINS = 10
TEMPERATURES = (0.1, 10.0)  # bounds
THRESHOLDS = tuple(k / 50 for k in range(10, 48))  # 0.2 to 0.94, the candidates of `fit_threshold`


def confusion(predicted: Tensor, targets: Tensor, num_labels: int) -> Tensor:
    """Return the confusion matrix, (L, L): rows are the true labels, columns the predicted ones."""
    return torch.bincount(targets * num_labels + predicted, minlength=num_labels**2).view(num_labels, num_labels)


def calibration_error(confidence: Tensor, right: Tensor) -> float:
    """Return the expected calibration error: how far confidence is from accuracy.

    The sum over 15 equal bins of confidence of (share of the examples in the bin) * |accuracy - mean confidence|
    (Naeini et al. 2015). 0 is perfect; without examples it is 0.

    Args:
        confidence: probability of each prediction, (N,).
        right: whether it is correct, (N,), bool.
    """
    if not len(confidence):
        return 0.0
    which = (confidence * BINS).long().clamp(0, BINS - 1)
    gaps = torch.zeros(BINS, dtype=torch.float64).index_add_(0, which, right.double() - confidence.double())
    return float(gaps.abs().sum() / len(confidence))


def equal_mass_calibration_error(confidence: Tensor, right: Tensor, num_bins: int = MASS_BINS) -> float:
    """Return the expected calibration error with bins of equal mass (adaptive binning, Nguyen and O'Connor 2015).

    The examples in order of confidence are cut into `num_bins` groups whose sizes differ by at most one; the error is the sum
    over groups of (share of the examples) * |accuracy - mean confidence|. Unlike with bins of equal width no bin is nearly
    empty. 0 is perfect; without examples it is 0. Examples of equal confidence keep their order.

    Args:
        confidence: probability of each prediction, (N,).
        right: whether it is correct, (N,), bool.
        num_bins: with fewer examples each is a group.

    Raises:
        ValueError: no bins.
    """
    if num_bins < 1:
        raise ValueError(f"at least one bin is needed, not {num_bins}")
    gaps = (right.double() - confidence.double())[confidence.argsort(stable=True)]
    return sum(abs(float(part.sum())) for part in gaps.tensor_split(num_bins)) / max(len(gaps), 1)


def grouped_bootstrap(
    groups: Sequence[Hashable],
    measure: Callable[[Tensor], float],
    *,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the percentile interval of a measure over resampled groups (cluster bootstrap; Davison and Hinkley 1997).

    Each sample has as many groups as there are, chosen with replacement, with all their examples each time. Examples of one
    group are alike, so that an interval over examples would be too narrow.

    Args:
        groups: the group of each example, (N,).
        measure: a figure of the examples with these numbers, an int64 tensor with repetitions; NaN where it has no value,
            which leaves the sample out.
        samples: number of resampled sets.
        level: share of the samples within the interval.
        seed: of the samples.

    Raises:
        ValueError: no examples, or no sample with a value.
    """
    members: dict[Hashable, list[int]] = {}
    for number, group in enumerate(groups):
        members.setdefault(group, []).append(number)
    if not members:
        raise ValueError("a bootstrap needs examples")
    each = [torch.tensor(numbers) for numbers in members.values()]
    rng = np.random.default_rng(seed)
    values = [measure(torch.cat([each[i] for i in rng.integers(len(each), size=len(each))])) for _ in range(samples)]
    known = [value for value in values if not math.isnan(value)]
    if not known:
        raise ValueError("the measure has no value for any sample")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def f1_of_each(matrix: Tensor) -> list[float | None]:
    """Return the F1 of each label of a confusion matrix; None for a label without examples.

    F1 = 2 * hits / (examples of the label + predictions of the label).
    """
    hits, examples, predictions = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    both = (examples + predictions).tolist()
    return [
        2 * hit / total if example else None
        for hit, example, total in zip(hits.tolist(), examples.tolist(), both, strict=True)
    ]


def fit_temperature(
    scores: Tensor,
    targets: Tensor,
    *,
    balanced: bool = True,
    smoothing: float = 0.0,
    bounds: tuple[float, float] = (0.2, 5.0),
) -> float:
    """Return the temperature with the lowest cross-entropy (temperature scaling, Guo et al. 2017).

    Args:
        scores: logits, (N, L).
        targets: numbers of the labels, (N,).
        balanced: whether all labels have the same weight, however many examples each has.
        smoothing: share of each target that is spread over all labels, so that few examples that are all right do not make
            predictions certain (Platt 1999).
        bounds: of the temperature.
    """
    counts = torch.bincount(targets, minlength=scores.shape[1]).float()
    weights = 1 / counts[targets] if balanced else torch.ones(len(targets))
    grid = torch.logspace(math.log10(bounds[0]), math.log10(bounds[1]), 200)
    losses = [
        float((F.cross_entropy(scores / t, targets, reduction="none", label_smoothing=smoothing) * weights).sum())
        for t in grid
    ]
    return float(grid[int(np.argmin(losses))])


def fit_threshold(confidence: Tensor, right: Tensor) -> float:
    """Return the confidence below which a prediction is unsure: with the most right minus wrong answers of those above.

    Of several the nearest to one half, which it is for calibrated probabilities.

    Args:
        confidence: probability of each prediction, (N,).
        right: whether it is correct, (N,), bool.
    """
    worth = 2 * right.double() - 1
    values = [float(worth[confidence >= threshold].sum()) for threshold in THRESHOLDS]
    return max(zip(values, THRESHOLDS, strict=True), key=lambda pair: (pair[0], -abs(pair[1] - 0.5)))[1]


def report(probabilities: Tensor, targets: Tensor, unsure: Sequence[bool], labels: Sequence[str]) -> dict[str, Any]:
    """Return the measures of a set of examples, at least one; a label without examples is in no mean.

    Args:
        probabilities: (N, L), rows summing to 1.
        targets: numbers of the labels, (N,).
        unsure: of each example, whether the prediction says that it is unsure.
        labels: the L names.

    Returns:
        Accuracy with its standard error (binomial), macro-F1, the accuracy of always the most frequent label, the
        cross-entropy in nats, the calibration error, the share that is unsure, the accuracy of the others (None without any),
        recall and F1 of each label, and the confusion matrix.
    """
    confidence, predicted = probabilities.max(dim=1)
    right = predicted == targets
    matrix = confusion(predicted, targets, len(labels))
    counts, f1 = matrix.sum(1).tolist(), f1_of_each(matrix)
    accuracy = float(right.double().mean())
    sure = ~torch.tensor(list(unsure), dtype=torch.bool)
    known = [value for value in f1 if value is not None]
    return {
        "num_pieces": len(targets),
        "accuracy": accuracy,
        "accuracy_standard_error": math.sqrt(accuracy * (1 - accuracy) / len(targets)),
        "macro_f1": sum(known) / len(known),
        "majority": max(counts) / len(targets),
        "nats": float(F.nll_loss(probabilities.clamp_min(1e-12).log(), targets)),
        "calibration_error": calibration_error(confidence, right),
        "unsure": float((~sure).double().mean()),
        "accuracy_when_sure": float(right[sure].double().mean()) if bool(sure.any()) else None,
        "labels": {
            label: {
                "num_pieces": counts[i],
                "recall": float(matrix[i, i]) / counts[i] if counts[i] else None,
                "f1": f1[i],
            }
            for i, label in enumerate(labels)
        },
        "confusion": matrix.tolist(),
    }
