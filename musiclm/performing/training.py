"""Training of performers: crops of performances as batches, the loss, validation, and the noise of samples.

Batches are functions of (seed, number). Parameters are standardised by the training performances. The loss of a parameter is
the negative log likelihood of a normal distribution, weighted by its variance to the power of one half, so that notes that
are hard to predict are learned too (Seitzer et al. 2022); that of the pedal is the binary cross-entropy.

B batch, N notes, P parameters.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .. import models
from ..training.checks import Check, Measured, check_steps
from ..training.loop import Loss, Step, fit
from ..training.optim import Recipe, make_adamw
from .features import DYNAMICS, HIDDEN, note_features
from .metrics import pearson
from .model import DRUMS, PARAMETERS, PEDAL, PIANO, Network, Noise, Performer, fit_noise, new_network
from .notes import ScoreNotes
from .parameters import Parameters

OUTLIER = 6.0  # standard deviations from the predicted mean, beyond which a note is a wrong alignment
CHECKS = 10  # validations in a run
LENGTH, BATCH_SIZE = 128, 16  # notes of a crop, crops of a step
WINDOWS = 32  # in one forward pass of a validation
TRANSPOSE = 3  # semitones up and down
P_HIDDEN = 0.5  # of a training crop's written dynamics
MOST = 4.0  # standard deviations of a parameter that count: wrong alignments and fermatas lie beyond


@dataclasses.dataclass(frozen=True, kw_only=True)
class PerformerRecipe:
    """How the performer of a kind is trained.

    Attributes:
        arch: of its encoder.
        config: fields of the encoder's `Config`; the others are those of the preset small.
        learning_rate: the peak.
        weight_decay: of matrices.
    """

    arch: str
    config: Mapping[str, Any]
    learning_rate: float
    weight_decay: float = 0.1

    def how(self, *, minutes: float | None = None, steps: int | None = None, seed: int = 0) -> Recipe:
        """Return the recipe of a run with a budget."""
        seconds = None if minutes is None else 60 * minutes
        return Recipe(
            steps=steps,
            seconds=seconds,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            ema_decay=0.995,
            seed=seed,
        )


RECIPES = {
    PIANO: PerformerRecipe(arch="bidirectional_lstm", config={"size": 96, "dropout": 0.4}, learning_rate=3e-3),
    DRUMS: PerformerRecipe(arch="bidirectional_lstm", config={"size": 96, "dropout": 0.1}, learning_rate=3e-3),
}


class Played(NamedTuple):
    """A score and a performance of it."""

    notes: ScoreNotes
    parameters: Parameters


class _Prepared(NamedTuple):
    """Arrays of a performance: pitches (N,), features (N, F), standardised parameters (N, P), mask (N,)."""

    pitch: np.ndarray
    features: np.ndarray
    values: np.ndarray
    mask: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """Crops of performances.

    Attributes:
        pitches: (B, N) int64.
        features: (B, N, F) int64.
        values: standardised parameters, (B, N, P) float32.
        notes: which are notes, (B, N) bool; padding lies behind them.
        known: which notes were performed, (B, N) bool.
    """

    pitches: Tensor
    features: Tensor
    values: Tensor
    notes: Tensor
    known: Tensor

    def to(self, device: torch.device) -> Batch:
        """Return the batch on another device."""
        return Batch(**{f.name: getattr(self, f.name).to(device) for f in dataclasses.fields(self)})


class Crops:
    """Batches of random crops of performances; calling it with a number gives that batch, a function of (seed, number).

    Performances are sampled by their numbers of notes. Each crop is transposed by up to `TRANSPOSE` semitones, but not drums.
    Its written dynamics are hidden with probability `P_HIDDEN`, so that scores without them can be performed.

    Args:
        prepared: the performances.
        kind: piano or drums.
        length: notes of a crop.
        batch_size: B.
        seed: of everything that is sampled.
    """

    def __init__(self, prepared: Sequence[_Prepared], kind: str, *, length: int, batch_size: int, seed: int) -> None:
        self.prepared, self.length, self.batch_size, self.seed = prepared, length, batch_size, seed
        self.transpose = TRANSPOSE if "tempo" in PARAMETERS[kind] else 0
        sizes = np.array([len(each.pitch) for each in prepared], float)
        self._cumulated = np.cumsum(sizes) / sizes.sum()

    def __call__(self, number: int) -> Batch:
        """Return batch `number`, always the same."""
        rng = np.random.default_rng((self.seed, number))
        crops = []
        for _ in range(self.batch_size):
            each = self.prepared[min(int(np.searchsorted(self._cumulated, rng.random())), len(self.prepared) - 1)]
            first = int(rng.integers(max(1, len(each.pitch) - self.length + 1)))
            part = _Prepared(*(array[first : first + self.length] for array in each))
            moved = part.pitch + int(rng.integers(-self.transpose, self.transpose + 1))
            part = part._replace(pitch=np.clip(moved, 0, 127))
            crops.append(hidden(part) if rng.random() < P_HIDDEN else part)
        return batch_of(crops)


def hidden(prepared: _Prepared) -> _Prepared:
    """Return a performance whose written dynamics are hidden."""
    features = prepared.features.copy()
    features[:, DYNAMICS] = HIDDEN
    return prepared._replace(features=features)


def batch_of(crops: Sequence[_Prepared]) -> Batch:
    """Return crops as a batch, padded to the longest."""
    sizes = [len(crop.pitch) for crop in crops]
    is_note = np.arange(max(sizes)) < np.array(sizes)[:, None]
    padded = []
    for column in zip(*crops, strict=True):
        array = np.zeros((*is_note.shape, *column[0].shape[1:]), column[0].dtype)
        array[is_note] = np.concatenate(column)
        padded.append(torch.from_numpy(array))
    pitches, features, values, known = padded
    return Batch(pitches=pitches, features=features, values=values, notes=torch.from_numpy(is_note), known=known)


def prepare(played: Sequence[Played], kind: str, scales: Mapping[str, tuple[float, float]]) -> list[_Prepared]:
    """Return performances as arrays, their parameters standardised and within `MOST`.

    The velocity of a piano is standardised within each performance: how loud all of it is has more to do with the piano and
    the recording than with the score, and would be learned piece by piece.
    """
    found = []
    for notes, parameters in played:
        own = _own_scales(parameters) if kind == PIANO else {}
        columns = []
        for name in PARAMETERS[kind]:
            mean, std = (0.0, 1.0) if name == PEDAL else own.get(name, scales[name])
            columns.append((getattr(parameters, name) - mean) / std)
        values = np.clip(np.column_stack(columns), -MOST, MOST).astype(np.float32)
        found.append(_Prepared(notes.pitch, note_features(notes), values, parameters.mask))
    return found


def scales_of(played: Sequence[Played], kind: str) -> dict[str, tuple[float, float]]:
    """Return mean and standard deviation of each parameter over the performed notes.

    Of a piano's velocity they are those within performances: the means of their means and of their variances.
    """
    found = {}
    for name in PARAMETERS[kind]:
        values = np.concatenate([getattr(p, name)[p.mask] for _, p in played])
        found[name] = float(values.mean()), max(float(values.std()), 1e-6)
    if kind == PIANO:
        own = np.array([_own_scales(p)["velocity"] for _, p in played])
        found["velocity"] = float(own[:, 0].mean()), float(np.sqrt((own[:, 1] ** 2).mean()))
    return found


def _own_scales(parameters: Parameters) -> dict[str, tuple[float, float]]:
    """Return mean and standard deviation of what is standardised within a performance."""
    velocity = parameters.velocity[parameters.mask]
    return {"velocity": (float(velocity.mean()), max(float(velocity.std()), 1e-3))}


def loss_of(mean_BNP: Tensor, log_std_BNP: Tensor, batch: Batch, names: Sequence[str]) -> Tensor:
    """Return the mean loss of the known notes over all parameters, a scalar.

    Args:
        mean_BNP: what the network predicts for the batch: means, of the pedal logits.
        log_std_BNP: log standard deviations.
        batch: with the values.
        names: of the parameters.
    """
    losses = []
    for i, name in enumerate(names):
        mean, value = mean_BNP[..., i][batch.known], batch.values[..., i][batch.known]
        if name == PEDAL:
            losses.append(F.binary_cross_entropy_with_logits(mean, value))
            continue
        log_std = log_std_BNP[..., i][batch.known]
        nats = log_std + 0.5 * ((value - mean) / log_std.exp()) ** 2
        losses.append((nats * log_std.detach().exp()).mean())
    return torch.stack(losses).sum()


def train_performer(
    learn: Sequence[Played],
    choose: Sequence[Played],
    recipe: Recipe,
    *,
    kind: str,
    arch: str,
    config: Mapping[str, Any] | None = None,
    length: int = LENGTH,
    batch_size: int = BATCH_SIZE,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Check[Network] | Performer]:
    """Yield a `Check` about every tenth of the budget, and at last the performer with the best weights.

    The figure of a check is the mean of Pearson's correlations of the predicted velocity, and of a piano's tempo, with those
    of held-out performances: the highest one selects the weights. The loss is at its lowest long before, as networks soon are
    too sure of themselves; what they are wrong about is measured on the same performances and gives the spread of samples.

    Args:
        learn: the training performances.
        choose: held-out performances, their written dynamics hidden, which choose the weights and give the noise of
            samples; without them the last weights are kept.
        recipe: how to train.
        kind: piano or drums.
        arch: one of `models.names(models.ENCODER)`.
        config: fields of its `Config`; the others are those of the preset small.
        length: notes of a crop.
        batch_size: crops of a step.
        clock: what a budget in seconds counts, see `fit`.

    Raises:
        DivergedError: a loss, a gradient or a validation loss was not finite.
        ValueError: there is nothing to learn from, or the config is impossible.
    """
    if not learn:
        raise ValueError("no performances to learn from")
    torch.manual_seed(recipe.seed)
    scales = scales_of(learn, kind)
    fields = models.preset(arch, "small") | dict(config or {})
    network, average = (new_network(arch, kind, fields) for _ in range(2))
    crops = Crops(prepare(learn, kind, scales), kind, length=length, batch_size=batch_size, seed=recipe.seed)
    held_out = [hidden(each) for each in prepare(choose, kind, scales)]
    names = PARAMETERS[kind]

    def measure(network: Network) -> Measured | None:
        return validated(network, held_out, names) if held_out else None

    kept = average
    for check in check_steps(
        _steps(network, average, crops, recipe, names, clock), measure, CHECKS, clock=clock, seconds=recipe.seconds
    ):
        kept = check.best
        yield check
    performer = Performer(kept, arch=arch, kind=kind, scales=scales)
    performer.noise = noise_of(performer, choose or learn)
    yield performer


def _steps(
    network: Network,
    average: Network,
    crops: Crops,
    recipe: Recipe,
    names: Sequence[str],
    clock: Callable[[], float],
) -> Iterator[Step[Network]]:
    """Return the steps of the training of a network that predicts the parameters of these names."""

    def losses(network: Network, batch: Batch, _: int) -> Iterator[Loss]:
        with recipe.autocast(batch.pitches.device):
            mean_BNP, log_std_BNP = network(batch.pitches, batch.features, batch.notes)
            total = loss_of(mean_BNP, log_std_BNP, batch, names)
        yield Loss(total=total, nats=total, num_targets=int(batch.known.sum()))

    return fit(network, crops, losses, recipe, average=average, optimizers=[make_adamw(network, recipe)], clock=clock)


@torch.no_grad()
def validated(network: Network, prepared: Sequence[_Prepared], names: Sequence[str], window: int = 512) -> Measured:
    """Return the mean loss and the mean correlation of velocity and tempo over whole performances, which selects the weights.

    Args:
        network: in evaluation mode.
        prepared: the performances, read in windows of so many notes; the loss is weighted by their known notes.
        names: of the parameters.
        window: notes.
    """
    total = count = 0.0
    predicted = [np.zeros_like(each.values) for each in prepared]
    places = [(i, first) for i, each in enumerate(prepared) for first in range(0, len(each.pitch), window)]
    for k in range(0, len(places), WINDOWS):
        part = places[k : k + WINDOWS]
        batch = batch_of([_Prepared(*(array[first : first + window] for array in prepared[i])) for i, first in part])
        mean_BNP, log_std_BNP = network(batch.pitches, batch.features, batch.notes)
        for (i, first), mean_NP in zip(part, mean_BNP.numpy(), strict=True):
            kept = predicted[i][first : first + window]
            kept[:] = mean_NP[: len(kept)]
        known = int(batch.known.sum())
        if known:
            total += float(loss_of(mean_BNP, log_std_BNP, batch, names)) * known
            count += known
    judged = [i for i, name in enumerate(names) if name in ("velocity", "tempo")]
    correlations = [
        pearson(mean_NP[each.mask, i], each.values[each.mask, i])
        for mean_NP, each in zip(predicted, prepared, strict=True)
        for i in judged
    ]
    correlation = float(np.mean(correlations))
    return Measured(loss=total / max(count, 1.0), figure=correlation, merit=correlation)


def noise_of(performer: Performer, played: Sequence[Played]) -> dict[str, Noise]:
    """Return how the deviations of each parameter from the predicted means belong together."""
    found: dict[str, list[tuple[ScoreNotes, np.ndarray, np.ndarray]]] = {}
    for notes, parameters in played:
        mean, std = performer.distributions(notes, with_dynamics=False)
        own = _own_scales(parameters) if performer.kind == PIANO else {}
        for name in performer.names:
            if name != PEDAL:
                scale = performer.scales[name]
                centre, width = own.get(name, scale)
                values = scale[0] + scale[1] * (getattr(parameters, name) - centre) / width
                deviations = np.clip((values - mean[name]) / np.maximum(std[name], 1e-9), -OUTLIER, OUTLIER)
                found.setdefault(name, []).append((notes, deviations, parameters.mask))
    return {name: fit_noise(each) for name, each in found.items()}
