"""Confusion matrices as pictures: rows are the true labels with their recall, columns the predicted ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import figure, to_bytes

LARGEST = 40  # labels whose counts are written into the cells


def picture(
    matrix: Sequence[Sequence[int]],
    labels: Sequence[str],
    recalls: Sequence[float | None],
    kind: str = ".png",
    *,
    title: str = "",
    true_name: str = "true label, and its recall",
) -> bytes:
    """Return a confusion matrix as the bytes of a picture; the colour is the share of a row.

    Args:
        matrix: (L, L) counts.
        labels: L names.
        recalls: of each label; None without examples.
        kind: ".png" or ".svg".
        title: above the picture.
        true_name: of the axis of the true labels.
    """
    counts = np.array(matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = max(3.2, 0.45 * len(labels) + 2.2)
    plot = figure(size + 0.8, size)
    axes = plot.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*counts.shape) if len(labels) <= LARGEST else ():
        if counts[row, column]:
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right", fontsize=8)
    named = [n if r is None else f"{n} {r:.2f}" for n, r in zip(labels, recalls, strict=True)]
    axes.set_yticks(range(len(labels)), named, fontsize=8)
    axes.set_xlabel("answer", fontsize=9)
    axes.set_ylabel(true_name, fontsize=9)
    axes.set_title(title, fontsize=10)
    return to_bytes(plot, kind)
