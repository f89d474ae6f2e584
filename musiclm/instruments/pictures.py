"""Pictures of what the classifier learnt, as bytes of PNG files: needs matplotlib."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import FAMILIES, augment, mel
from .classifier import NoteClassifier

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .training import Prepared

NOTES_A_KERNEL = 4
PATCH, PATCH_STEP = 8, 4  # bands and frames that are hidden at a time in a saliency map


def kernels(classifier: NoteClassifier) -> bytes:
    """Return the first layer's kernels: red adds, blue takes away; time goes right, pitch goes up."""
    weights = classifier.model.first.weight.detach()[:, 0]
    columns = 8
    rows = -(-len(weights) // columns)
    figure = _figure(columns * 1.1, rows * 1.2 + 0.5)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes:
        ax.axis("off")
    for i, weight in enumerate(weights):
        largest = float(weight.abs().max()) or 1.0
        axes[i].imshow(weight, origin="lower", cmap="RdBu_r", vmin=-largest, vmax=largest)
        axes[i].set_title(str(i), fontsize=7, pad=2)
    size = classifier.model.config.kernel
    figure.suptitle(
        f"First kernels: {size} mel bands (up) x {size} frames of 20 ms (right), each to its own scale", fontsize=9
    )
    return _png(figure)


def excitation(classifier: NoteClassifier, prepared: Prepared) -> bytes:
    """Return, a row a kernel, the notes that excite it most, and where: at most one note of each instrument."""
    pictures = augment.pictures(prepared.strips[:, 0])
    values, places = _strongest(classifier, pictures)
    num_kernels, size = values.shape[1], classifier.model.config.kernel
    pairs = -(-num_kernels // 2)
    figure = _figure(2 * (NOTES_A_KERNEL + 1) * 1.15, pairs * 1.25 + 0.4)
    axes = figure.subplots(pairs, 2 * (NOTES_A_KERNEL + 1), squeeze=False)
    for ax in axes.ravel():
        ax.axis("off")
    weights = classifier.model.first.weight.detach()[:, 0]
    for kernel in range(num_kernels):
        row, first = kernel % pairs, (kernel // pairs) * (NOTES_A_KERNEL + 1)
        largest = float(weights[kernel].abs().max()) or 1.0
        axes[row, first].imshow(weights[kernel], origin="lower", cmap="RdBu_r", vmin=-largest, vmax=largest)
        axes[row, first].set_title(f"kernel {kernel}", fontsize=7, pad=2)
        for column, i in enumerate(_of_different_instruments(values[:, kernel], prepared), first + 1):
            axes[row, column].imshow(
                pictures[i], origin="lower", cmap="magma", vmin=mel.FLOOR_DB, vmax=0, aspect="auto"
            )
            band, frame = divmod(int(places[i, kernel]), mel.NUM_FRAMES // 2)
            corner = (2 * frame - size / 2, 2 * band - size / 2)
            axes[row, column].add_patch(_rectangle(corner, size))
            axes[row, column].set_title(prepared.notes[i].family, fontsize=7, pad=2)
    figure.suptitle("What excites each first kernel most (64 mel bands up, 1.28 s to the right)", fontsize=9)
    return _png(figure)


@torch.inference_mode()
def _strongest(classifier: NoteClassifier, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Return (strongest answer, its place) of each kernel to each picture, both (pictures, kernels)."""
    found = [classifier.model.first_layer(part).flatten(2).max(dim=2) for part in pictures.split(256)]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


def _of_different_instruments(values: Tensor, prepared: Prepared) -> list[int]:
    seen: dict[tuple[str, str], int] = {}
    for i in values.argsort(descending=True, stable=True).tolist():
        note = prepared.notes[i]
        seen.setdefault((note.family, note.instrument), i)
        if len(seen) == NOTES_A_KERNEL:
            break
    return list(seen.values())


def saliency(classifier: NoteClassifier, picture: Tensor, name: str) -> bytes:
    """Return a note's picture beside a map of what its answer hangs on.

    The map is how many nats the answer's log-probability loses when a patch of 8 bands x 8 frames is silenced (Zeiler
    and Fergus 2014): red speaks for the answer, blue against it.
    """
    prediction = classifier.look([picture])[0]
    drop = occlusion(classifier, picture)
    largest = float(drop.abs().max()) or 1.0
    figure = _figure(9, 3.6)
    left, right = figure.subplots(1, 2)
    left.imshow(picture, origin="lower", cmap="magma", vmin=mel.FLOOR_DB, vmax=0, aspect="auto")
    left.set_title(f"{name}: {prediction.family}, {prediction.probability:.0%}", fontsize=9)
    right.imshow(picture, origin="lower", cmap="gray", vmin=mel.FLOOR_DB, vmax=0, aspect="auto")
    shown = right.imshow(drop, origin="lower", cmap="RdBu_r", vmin=-largest, vmax=largest, alpha=0.65, aspect="auto")
    right.set_title(f"what speaks for {prediction.family}: nats lost when silenced", fontsize=9)
    figure.colorbar(shown, ax=right)
    for ax in (left, right):
        ax.set_xlabel("frames of 20 ms", fontsize=8)
        ax.set_ylabel("mel bands", fontsize=8)
    return _png(figure)


@torch.inference_mode()
def occlusion(classifier: NoteClassifier, picture: Tensor) -> Tensor:
    """Return how much of its log-probability the answer loses where a patch is silenced, in nats, (64, 64)."""
    starts = range(0, mel.NUM_BANDS - PATCH + 1, PATCH_STEP)
    hidden = picture.repeat(len(starts) ** 2, 1, 1)
    for n, (band, frame) in enumerate((b, f) for b in starts for f in starts):
        hidden[n, band : band + PATCH, frame : frame + PATCH] = mel.FLOOR_DB
    log_probabilities = (classifier.model(torch.cat([picture[None], hidden])) / classifier.temperature).log_softmax(
        dim=1
    )
    answer = int(log_probabilities[0].argmax())
    drop = (log_probabilities[0, answer] - log_probabilities[1:, answer]).view(1, 1, len(starts), len(starts))
    return F.interpolate(drop, size=picture.shape, mode="bilinear", align_corners=False)[0, 0]


def confusion(report: dict[str, Any]) -> bytes:
    """Return the confusion matrix of a report (`evaluation.report`): rows are what plays, columns the answers."""
    matrix = np.array(report["confusion"])
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    figure = _figure(7.2, 6.4)
    ax = figure.subplots()
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*matrix.shape):
        if matrix[row, column]:
            colour = "white" if shares[row, column] > 0.5 else "black"
            ax.text(column, row, str(matrix[row, column]), ha="center", va="center", fontsize=8, color=colour)
    recalls = [report["families"][f]["recall"] for f in FAMILIES]
    ax.set_xticks(range(len(FAMILIES)), FAMILIES, rotation=45, ha="right", fontsize=8)
    ax.set_yticks(
        range(len(FAMILIES)),
        [f if r is None else f"{f} {r:.2f}" for f, r in zip(FAMILIES, recalls, strict=True)],
        fontsize=8,
    )
    ax.set_xlabel("answer", fontsize=9)
    ax.set_ylabel("what plays, and its recall", fontsize=9)
    ax.set_title(f"mean family recall {report['mean_family_recall']:.3f}, {report['num_notes']:,} notes", fontsize=10)
    return _png(figure)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _rectangle(corner: tuple[float, float], size: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(corner, size, size, fill=False, edgecolor="cyan", linewidth=0.8)


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=130)
    return file.getvalue()
