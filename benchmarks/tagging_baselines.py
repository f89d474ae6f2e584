"""What `tagging.py` compares with: always the most frequent label, and logistic regression on histograms."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import Any

import numpy as np
import tagging_data as data
import torch
from tagging_ways import figures

from musiclm import tokenizers
from musiclm.evaluation.classification import report
from musiclm.tagging.dataset import TOKENIZER, TagPiece
from musiclm.tagging.labels import LabelledFile
from musiclm.tagging.notes import DRUMS, FAMILY_SIZE, STEPS
from musiclm.tokenizers.base import Tokenizer

REGULARISATIONS = (0.001, 0.01, 0.1, 1.0)
LONGEST = 4 * STEPS  # steps of a histogram


def baselines(files: list[LabelledFile], a: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the figures of always the most frequent training label, and of logistic regression, on the test pieces."""
    tokenizer = tokenizers.parse(TOKENIZER)
    found = data.pieces(files, tokenizer, STEPS, a.output)
    test = found.pieces("test")
    number = {label: i for i, label in enumerate(found.labels)}
    counts = Counter(piece.label for piece in found.pieces("train"))
    frequent = number[max(found.labels, key=lambda label: counts[label])]
    certain = torch.zeros(len(test), len(found.labels))
    certain[:, frequent] = 1.0
    targets = torch.tensor([number[piece.label] for piece in test])
    rows = [{"way": "most frequent label"} | _measured(certain, targets, found.labels)]
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler
    except ImportError:
        return rows
    table = {s: np.array([histograms(tokenizer, p) for p in found.pieces(s)]) for s in found.splits}
    scaler = StandardScaler().fit(table["train"])
    target = {s: [number[p.label] for p in found.pieces(s)] for s in found.splits}
    best, kept = -1.0, None
    for strength in REGULARISATIONS:
        model = LogisticRegression(C=strength, max_iter=300).fit(scaler.transform(table["train"]), target["train"])
        held_out = model.score(scaler.transform(table["validation"]), target["validation"])
        if held_out > best:
            best, kept = held_out, model
    assert kept is not None
    rows_of_known = kept.predict_proba(scaler.transform(table["test"]))
    probabilities = np.zeros((len(test), len(found.labels)))
    probabilities[:, kept.classes_] = rows_of_known
    measured = _measured(torch.from_numpy(probabilities).float(), targets, found.labels)
    return [*rows, {"way": "logistic regression"} | measured]


def _measured(probabilities: torch.Tensor, targets: torch.Tensor, labels: list[str]) -> dict[str, Any]:
    return figures(report(probabilities, targets, [False] * len(targets), labels))


def histograms(tokenizer: Tokenizer, piece: TagPiece) -> np.ndarray:
    """Return the shares that the logistic regression reads; see `tagging.py`."""
    score = tokenizer.decode(piece.ids)
    onset, duration, pitch, family = [], [], [], []
    for track in score.tracks:
        for note in track.notes:
            onset.append(round(note.time * STEPS / score.ticks_per_quarter))
            duration.append(round(note.duration * STEPS / score.ticks_per_quarter))
            pitch.append(note.pitch)
            family.append(DRUMS if track.is_drum else track.program // FAMILY_SIZE)
    order = np.lexsort((pitch, onset))
    onset_n, duration_n, pitch_n, family_n = (np.array(each)[order] for each in (onset, duration, pitch, family))
    is_new = np.diff(onset_n, prepend=onset_n[0] - 1) > 0
    tops = pitch_n[np.append(np.flatnonzero(is_new)[1:] - 1, len(pitch_n) - 1)]
    pitched = pitch_n[family_n != DRUMS]
    classes = np.bincount(pitched % 12, minlength=12)
    parts = [
        np.bincount(pitch_n // 4, minlength=32),
        np.roll(classes, -int(classes.argmax())),
        np.bincount(np.clip(np.diff(tops), -12, 12) + 12, minlength=25),
        np.bincount(np.minimum(duration_n, LONGEST), minlength=LONGEST + 1),
        np.bincount(np.minimum(np.diff(onset_n[is_new]), LONGEST), minlength=LONGEST + 1),
        np.bincount(np.minimum(np.diff(np.append(np.flatnonzero(is_new), len(onset_n))), 12), minlength=13),
        np.bincount(family_n + 1, minlength=18),
    ]
    return np.concatenate([part / max(1, part.sum()) for part in parts])
