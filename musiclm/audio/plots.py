"""Plots of a note classifier, as bytes of PNG files. Needs matplotlib.

Saliency is of any network; kernels and excitation are of networks with `HasKernels`, patches, positions and rollout of
networks with `HasPatches`.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import augment, mel, models
from .classifier import NoteClassifier
from .models.base import HasKernels, HasPatches

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .training import PreparedNotes

NOTES_PER_KERNEL = 4
COLUMNS = 8  # of the plot of kernels
COMPONENTS, COMPONENT_COLUMNS = 28, 7  # of the plot of patches, as in ViT's figure 7
TILE_GAP, TITLE = 0.03, 0.16  # shares of a tile's side: the margin, and the height of its title
OUTLINE_DB = (-40.0, -20.0)  # levels of the picture that are outlined in a plot of the rollout
PATCH, PATCH_STEP = 8, 4  # bands and frames that a saliency map silences at a time


def has_kernels(classifier: NoteClassifier) -> bool:
    """Return whether the network has a first layer of kernels, which `kernels` and `excitation` plot."""
    return isinstance(classifier.model, HasKernels)


def _with_kernels(classifier: NoteClassifier) -> HasKernels:
    """Return the network of a classifier, if it has kernels."""
    if not isinstance(classifier.model, HasKernels):
        raise ValueError(f"a network of architecture '{models.arch_of(classifier.model)}' has no kernels to plot")
    return classifier.model


def has_patches(classifier: NoteClassifier) -> bool:
    """Return whether the network is a transformer over patches, which `patches`, `positions` and `rollout` plot."""
    return isinstance(classifier.model, HasPatches)


def _with_patches(classifier: NoteClassifier) -> HasPatches:
    """Return the network of a classifier, if it has patches."""
    if not isinstance(classifier.model, HasPatches):
        raise ValueError(f"a network of architecture '{models.arch_of(classifier.model)}' has no patches to plot")
    return classifier.model


def kernels(classifier: NoteClassifier) -> bytes:
    """Return the kernels of the first layer: red is positive, blue negative; time goes right, pitch goes up.

    Raises:
        ValueError: the network has no kernels: see `has_kernels`.
    """
    weights = _with_kernels(classifier).first_kernels()
    rows = -(-len(weights) // COLUMNS)
    size = weights.shape[-1]
    title = f"First kernels: {size} mel bands (up) x {size} frames of 20 ms (right), each to its own scale"
    figure, ax = _grid(COLUMNS, rows, title)
    for i, weight in enumerate(weights):
        _kernel_tile(ax, weight, i % COLUMNS, i // COLUMNS, str(i))
    return _png(figure)


def excitation(classifier: NoteClassifier, prepared: PreparedNotes) -> bytes:
    """Return beside each kernel the notes with the strongest response, at most one note of each instrument.

    Raises:
        ValueError: the network has no kernels: see `has_kernels`.
    """
    model = _with_kernels(classifier)
    weights = model.first_kernels()
    pictures = augment.pictures(prepared.strips[:, 0])
    values, places = _strongest(model, pictures)
    rows = -(-len(weights) // 2)
    figure, ax = _grid(
        2 * (NOTES_PER_KERNEL + 1), rows, "What excites each first kernel most: notes, 64 bands up, 1.28 s right"
    )
    for kernel, weight in enumerate(weights):
        row, first = kernel % rows, kernel // rows * (NOTES_PER_KERNEL + 1)
        _kernel_tile(ax, weight, first, row, f"kernel {kernel}")
        for column, i in enumerate(_of_different_instruments(values[:, kernel], prepared), first + 1):
            _tile(ax, pictures[i], column, row, prepared.notes[i].family, "magma", mel.FLOOR_DB, 0)
            band, frame = divmod(int(places[i, kernel]), mel.NUM_FRAMES // 2)
            _frame_tile(ax, column, row, band=2 * band, frame=2 * frame, size=weights.shape[-1])
    return _png(figure)


@torch.inference_mode()
def _strongest(model: HasKernels, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Return (strongest response, its flat position) of each kernel to each picture, both (pictures, kernels)."""
    found = [model.first_layer(part).flatten(2).max(dim=2) for part in pictures.split(256)]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


def _of_different_instruments(values: Tensor, prepared: PreparedNotes) -> list[int]:
    seen: dict[tuple[str, str], int] = {}
    for i in values.argsort(descending=True, stable=True).tolist():
        note = prepared.notes[i]
        seen.setdefault((note.family, note.instrument), i)
        if len(seen) == NOTES_PER_KERNEL:
            break
    return list(seen.values())


def saliency(classifier: NoteClassifier, picture: Tensor, name: str) -> bytes:
    """Return the picture of a note beside an occlusion map of its prediction (Zeiler and Fergus 2014).

    The map shows how many nats the log-probability of the predicted family loses when a patch of 8 bands x 8 frames is
    silenced: red is evidence for the family, blue is evidence against it.
    """
    prediction = classifier.look([picture])[0]
    drop = occlusion(classifier, picture)
    largest = float(drop.abs().max()) or 1.0
    title = f"{name}: {prediction.family}, {prediction.probability:.0%}"
    figure, right = _beside(picture, title, f"what speaks for {prediction.family}: nats lost when silenced")
    right.imshow(picture.numpy(), origin="lower", cmap="gray", vmin=mel.FLOOR_DB, vmax=0, aspect="auto")
    shown = right.imshow(
        drop.numpy(), origin="lower", cmap="RdBu_r", vmin=-largest, vmax=largest, alpha=0.65, aspect="auto"
    )
    figure.colorbar(shown, ax=right)
    return _png(figure)


@torch.inference_mode()
def occlusion(classifier: NoteClassifier, picture: Tensor) -> Tensor:
    """Return how much log-probability the predicted family loses where a patch is silenced, in nats, (64, 64)."""
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


def patches(classifier: NoteClassifier) -> bytes:
    """Return the first principal components of the patch embedding's filters (Dosovitskiy et al. 2021, figure 7).

    Each has its share of the variance as its title. Red is positive, blue negative; time goes right, pitch goes up.

    Raises:
        ValueError: the network has no patches: see `has_patches`.
    """
    filters = _with_patches(classifier).patch_filters()
    components, shares = principal_components(filters)
    rows, size = -(-len(components) // COMPONENT_COLUMNS), filters.shape[-1]
    figure, ax = _grid(COMPONENT_COLUMNS, rows, f"Principal components of {len(filters)} filters of {size} x {size}")
    for i, (component, share) in enumerate(zip(components, shares.tolist(), strict=True)):
        _kernel_tile(ax, component, i % COMPONENT_COLUMNS, i // COMPONENT_COLUMNS, f"{i + 1}: {share:.1%}")
    return _png(figure)


def principal_components(filters: Tensor, most: int = COMPONENTS) -> tuple[Tensor, Tensor]:
    """Return (the first components, (components, bands, frames); the share of the variance of each), of filters.

    Args:
        filters: (filters, bands, frames); their mean is subtracted.
        most: how many components at most; there are no more than filters less one, or numbers in a filter.
    """
    flat = filters.float().flatten(1)
    _, values, vectors = torch.linalg.svd(flat - flat.mean(dim=0), full_matrices=False)
    count = min(most, max(1, len(flat) - 1), flat.shape[1])
    shares = values.square() / values.square().sum().clamp(min=1e-30)
    return vectors[:count].unflatten(1, filters.shape[1:]), shares[:count]


def positions(classifier: NoteClassifier) -> bytes:
    """Return the cosine similarity of the positional embedding of each patch with those of all patches.

    One tile per patch, at its place in the picture: time goes right, pitch goes up, between tiles and within each.

    Raises:
        ValueError: the network has no patches: see `has_patches`.
    """
    embeddings = _with_patches(classifier).patch_positions()
    high, wide = embeddings.shape[:2]
    unit = F.normalize(embeddings.flatten(0, 1).float(), dim=1)
    similarity = (unit @ unit.T).view(high, wide, high, wide)
    tiles = torch.full((high, wide, high + 1, wide + 1), torch.nan)  # one image: many small plots would take seconds
    tiles[:, :, :high, :wide] = similarity
    image = tiles.permute(0, 2, 1, 3).reshape(high * (high + 1), wide * (wide + 1))[:-1, :-1]
    figure = _figure(6.4, 5.6)
    ax = figure.subplots()
    ax.set_axis_off()
    shown = ax.imshow(image.numpy(), origin="lower", cmap="viridis", vmin=-1, vmax=1, interpolation="nearest")
    figure.suptitle("Cosine similarity of each patch's positional embedding with all others", fontsize=9)
    figure.supxlabel("patch in time", fontsize=8)
    figure.supylabel("patch in frequency", fontsize=8)
    figure.colorbar(shown, ax=ax, fraction=0.04)
    return _png(figure)


def rollout(classifier: NoteClassifier, picture: Tensor, name: str) -> bytes:
    """Return the picture of a note beside the attention rollout of the class tokens (Abnar and Zuidema 2020).

    White lines outline the louder parts of the picture.

    Raises:
        ValueError: the network has no patches: see `has_patches`.
    """
    found = attention_rollout(_with_patches(classifier), picture)
    prediction = classifier.look([picture])[0]
    title = f"{name}: {prediction.family}, {prediction.probability:.0%}"
    figure, right = _beside(picture, title, "attention rollout of the class tokens; 1 is uniform")
    shown = right.imshow(found.numpy(), origin="lower", cmap="viridis", aspect="auto")
    right.contour(picture.numpy(), levels=OUTLINE_DB, colors="white", linewidths=0.5, linestyles="solid")
    figure.colorbar(shown, ax=right)
    return _png(figure)


def attention_rollout(model: HasPatches, picture: Tensor) -> Tensor:
    """Return how much of the class tokens' output comes from each point of a picture, (64, 64), with a mean of 1.

    The attention of a layer is the mean over its heads, averaged with the identity for the residual connection; the product
    over the layers is the rollout (Abnar and Zuidema 2020). It is taken from all class tokens, since all of them decide. The
    share of a patch is spread evenly over it; where patches overlap, their density is averaged.
    """
    layers = model.attention(picture[None])[0].mean(dim=1)
    eye = torch.eye(layers.shape[-1])
    product = eye
    for layer in layers:
        product = (0.5 * layer + 0.5 * eye) @ product
    high, wide = model.patch_positions().shape[:2]
    num_class_tokens = len(eye) - high * wide
    shares = product[:num_class_tokens, num_class_tokens:].mean(dim=0).view(1, 1, high, wide)
    spread = torch.ones(1, 1, *model.patch_filters().shape[1:])
    stride = model.patch_stride()
    total = F.conv_transpose2d(shares, spread, stride=stride)
    covered = F.conv_transpose2d(torch.ones_like(shares), spread, stride=stride)
    density = (total / covered.clamp(min=1))[0, 0, : mel.NUM_BANDS, : mel.NUM_FRAMES]
    return density / density.mean()


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _beside(picture: Tensor, left_title: str, right_title: str) -> tuple[Figure, Any]:
    """Return a figure with the picture of a note on its left, and the empty plot on its right."""
    figure = _figure(9, 3.6)
    left, right = figure.subplots(1, 2)
    left.imshow(picture.numpy(), origin="lower", cmap="magma", vmin=mel.FLOOR_DB, vmax=0, aspect="auto")
    for ax, title in ((left, left_title), (right, right_title)):
        ax.set_title(title, fontsize=9)
        ax.set_xlabel("frames of 20 ms", fontsize=8)
        ax.set_ylabel("mel bands", fontsize=8)
    return figure, right


def _grid(columns: int, rows: int, title: str) -> tuple[Figure, Any]:
    """Return a figure with one plot that has room for square tiles: many small plots would take seconds to render."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(columns * 1.05, rows * 1.2 + 0.4))
    ax = figure.add_axes((0.01, 0.01, 0.98, 0.98 - 0.4 / (rows * 1.2 + 0.4)))
    ax.set_axis_off()
    ax.set_xlim(0, columns)
    ax.set_ylim(rows, 0)
    figure.suptitle(title, fontsize=9, y=0.995, va="top")
    return figure, ax


def _tile(ax: Any, image: Tensor, column: int, row: int, title: str, cmap: str, low: float, high: float) -> None:
    left, right, top, bottom = column + TILE_GAP, column + 1 - TILE_GAP, row + TITLE, row + 1 - TILE_GAP
    extent = (left, right, bottom, top)
    pixels = image.flip(0).numpy()
    ax.imshow(pixels, extent=extent, cmap=cmap, vmin=low, vmax=high, aspect="auto", interpolation="nearest")
    ax.text((left + right) / 2, top - 0.02, title, ha="center", va="bottom", fontsize=6.5)


def _kernel_tile(ax: Any, weight: Tensor, column: int, row: int, title: str) -> None:
    largest = float(weight.abs().max()) or 1.0
    _tile(ax, weight, column, row, title, "RdBu_r", -largest, largest)


def _frame_tile(ax: Any, column: int, row: int, *, band: int, frame: int, size: int) -> None:
    """Plot a square of `size` bands and frames around a position of a note's tile."""
    from matplotlib.patches import Rectangle

    wide, high = (1 - 2 * TILE_GAP) / mel.NUM_FRAMES, (1 - TITLE - TILE_GAP) / mel.NUM_BANDS
    x = column + TILE_GAP + (frame - size / 2) * wide
    y = row + 1 - TILE_GAP - (band + size / 2) * high
    ax.add_patch(Rectangle((x, y), size * wide, size * high, fill=False, edgecolor="cyan", linewidth=0.8))


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=130)
    return file.getvalue()
