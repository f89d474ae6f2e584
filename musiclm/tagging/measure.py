"""The measures of a tagger on labelled pieces: whole pieces, and their crops alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..evaluation.classification import report
from .dataset import TagPiece
from .model import Tagger


def measure(tagger: Tagger, pieces: Sequence[TagPiece]) -> dict[str, Any]:
    """Return the measures of a tagger on pieces, at least one; see `evaluation.classification.report`.

    `crop_accuracy` is the mean over pieces of the share of crops that are right by themselves. `majority` is the accuracy of
    always the label that is most frequent in training, where the tagger's card knows it.

    Raises:
        ValueError: a label that the tagger does not have.
    """
    number = {label: i for i, label in enumerate(tagger.labels)}
    if unknown := {piece.label for piece in pieces} - set(number):
        raise ValueError(f"the tagger has no label '{min(unknown)}'")
    targets = [number[piece.label] for piece in pieces]
    rows, unsure, crops = [], [], []
    for piece, target in zip(pieces, targets, strict=True):
        of_crops = tagger.crop_log_probabilities(piece.ids)
        row = (of_crops.mean(0) / tagger.temperature).softmax(0)
        rows.append(row)
        unsure.append(tagger.prediction(row, piece.num_notes).unsure)
        crops.append(float((of_crops.argmax(1) == target).double().mean()))
    found = report(torch.stack(rows), torch.tensor(targets), unsure, tagger.labels)
    counts = tagger.card.get("labels")
    if isinstance(counts, dict) and counts:
        frequent = max(counts, key=lambda label: (counts[label], label))
        found["majority"] = sum(piece.label == frequent for piece in pieces) / len(pieces)
    return found | {"crop_accuracy": sum(crops) / len(crops)}
