"""A performer: a network that predicts what a performance adds to a score, its file, and its predictions.

Each note has a distribution of each parameter, see `parameters`: a mean and a standard deviation, and of the pedal a
probability. Samples of neighbouring notes belong together: the deviations from the means have a part that all notes of an
onset share and that changes slowly (an autoregressive process of order 1 in score time), and a part of each note's own.

The file is a safetensors file (`musiclm.checkpoint.pack`) whose metadata has `performer`, a JSON object. Nothing in it can run
code.

B batch, N notes, P parameters, M onsets.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import checkpoint, models
from ..checkpoint.model_file import PERFORMER, read_model
from ..errors import CheckpointError
from ..files import write_whole
from ..models.encoder import EncoderModel
from .features import DYNAMICS, FEATURE_SIZES, HIDDEN, note_features
from .notes import ScoreNotes, onset_numbers, onset_times
from .parameters import Parameters

PITCHES = 128
PIANO, DRUMS = "piano", "drums"
PARAMETERS = {PIANO: ("velocity", "tempo", "deviation", "articulation", "pedal"), DRUMS: ("velocity", "deviation")}
PEDAL = "pedal"
MAX_DEVIATIONS = 3.0  # standard deviations of a sample from the mean
MAX_SPREAD = 4.0
WINDOW, MARGIN = 512, 128  # notes that are read at once, and those at each end whose predictions are not used
LOG_STD = (-4.0, 1.5)  # bounds, of standardised parameters


class Network(nn.Module):
    """An encoder of notes, and of each parameter a mean and a log standard deviation: (B, N) -> (B, N, P) each."""

    def __init__(self, encoder: EncoderModel, num_parameters: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.size, 2 * num_parameters)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, pitches: Tensor, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return means (of the pedal: logits) and log standard deviations, (B, N, P) each, of standardised parameters."""
        mean_BNP, log_std_BNP = self.head(self.encoder(pitches, features, mask)).float().chunk(2, -1)
        return mean_BNP, log_std_BNP.clamp(*LOG_STD)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Noise:
    """How the deviations of a parameter from its means belong together.

    Attributes:
        shared: the share of their variance that all notes of an onset have in common, 0 … 1.
        correlation: of that common part with itself a quarter later, 0 … 1.
        spread: their standard deviation over the predicted one, which is too small where a network has overfitted.
    """

    shared: float
    correlation: float
    spread: float = 1.0


def new_network(arch: str, kind: str, config: Mapping[str, Any] | None = None) -> Network:
    """Return a new network, initialised from torch's global random generator.

    Args:
        arch: one of `models.names(models.ENCODER)`.
        kind: piano or drums.
        config: fields of the architecture's `Config`.
    """
    encoder: Any = models.create(arch, PITCHES, **{"feature_sizes": FEATURE_SIZES, **(config or {})})
    return Network(encoder, len(PARAMETERS[kind]))


class Performer:
    """Predicts the parameters of a performance.

    Attributes:
        network: in evaluation mode.
        arch: of its encoder.
        kind: piano or drums.
        scales: of each parameter mean and standard deviation in training performances; a network predicts what is left.
        noise: of each parameter but the pedal.
        card: data, licence, command, figures.
    """

    def __init__(
        self,
        network: Network,
        *,
        arch: str,
        kind: str,
        scales: Mapping[str, tuple[float, float]],
        noise: Mapping[str, Noise] | None = None,
        card: dict[str, Any] | None = None,
    ) -> None:
        self.network = network.eval()
        self.arch, self.kind, self.scales = arch, kind, dict(scales)
        self.noise = dict(noise or {})
        self.card = card or {}

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters that are predicted."""
        return PARAMETERS[self.kind]

    @classmethod
    def load(cls, path: Path) -> Performer:
        """Return the performer of a file.

        Raises:
            CheckpointError: there is no such file, it is damaged, or it reads other features than this version has.
        """
        file = read_model(path, role=PERFORMER)
        stored, arch, kind = file.described, file.arch, file.kind
        try:
            config = dict(stored["config"])
            scales = {name: (float(mean), float(std)) for name, (mean, std) in stored["scales"].items()}
            noise = {name: Noise(**fields) for name, fields in stored["noise"].items()}
            is_complete = set(scales) == set(PARAMETERS[kind]) and all(std > 0 for _, std in scales.values())
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"'{path}' is not a performer: {error!r} in its header") from error
        if tuple(config.get("feature_sizes", ())) != FEATURE_SIZES or not is_complete:
            raise CheckpointError(f"'{path}' was trained on other features or parameters than this version has")
        called = f"the performer '{path}'"
        tensors = checkpoint.read_tensors(path, file.sha256, called)
        config.pop("vocab_size", None)
        network = checkpoint.load_weights(lambda: new_network(arch, kind, config), tensors, called, "its network")
        return cls(network, arch=arch, kind=kind, scales=scales, noise=noise, card=file.card)

    def save(self, path: Path, *, dtype: torch.dtype | None = torch.float16) -> None:
        """Write the performer to a file, whole or not at all, with its weights in half precision.

        Raises:
            OutputError: the place cannot be written.
        """
        tensors = {
            name: t.detach().to("cpu", dtype if t.is_floating_point() else None).contiguous()
            for name, t in self.network.state_dict().items()
        }
        stored = {
            "arch": self.arch,
            "kind": self.kind,
            "config": dataclasses.asdict(self.network.encoder.config),
            "scales": self.scales,
            "noise": {name: dataclasses.asdict(noise) for name, noise in self.noise.items()},
            "card": self.card,
        }
        write_whole(path, checkpoint.pack(tensors, {PERFORMER.name: json.dumps(stored, sort_keys=True)}))

    @torch.inference_mode()
    def distributions(
        self, notes: ScoreNotes, *, with_dynamics: bool = True
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return mean and standard deviation of each parameter of each note, (N,) float64 each; of the pedal its probability.

        Long scores are read in overlapping windows, so that memory does not grow with the square of their length.

        Args:
            notes: N of them, at least one.
            with_dynamics: whether the written velocities are an input. Performers of drums never have them: they learn
                from performances, whose velocities they predict.
        """
        columns = note_features(notes)
        if not with_dynamics or self.kind == DRUMS:
            columns[:, DYNAMICS] = HIDDEN
        pitches, features = torch.from_numpy(notes.pitch)[None], torch.from_numpy(columns)[None]
        means, stds = [], []
        for begin, first, last, end in windows(len(notes)):
            mean_BNP, log_std_BNP = self.network(pitches[:, begin:end], features[:, begin:end])
            means.append(mean_BNP[0, first - begin : last - begin])
            stds.append(log_std_BNP[0, first - begin : last - begin].exp())
        mean_NP, std_NP = torch.cat(means).double().numpy(), torch.cat(stds).double().numpy()
        mean, std = {}, {}
        for i, name in enumerate(self.names):
            centre, scale = self.scales[name]
            if name == PEDAL:
                mean[name], std[name] = 1 / (1 + np.exp(-mean_NP[:, i])), np.zeros(len(notes))
            else:
                mean[name], std[name] = centre + scale * mean_NP[:, i], scale * std_NP[:, i]
        return mean, std

    def predict(self, notes: ScoreNotes, seed: int | None = None, *, with_dynamics: bool = True) -> Parameters:
        """Return the parameters of a performance: a sample, or the means.

        Args:
            notes: N of them, at least one.
            seed: of the sample; None for the means.
            with_dynamics: see `distributions`.
        """
        mean, std = self.distributions(notes, with_dynamics=with_dynamics)
        number = onset_numbers(notes)
        rng = None if seed is None else np.random.default_rng(seed)
        values = {}
        for name in self.names:
            values[name] = mean[name]
            if name == PEDAL:
                values[name] = pedal_down(mean[name], number)
            elif rng is not None:
                how = self.noise.get(name, Noise(shared=0.0, correlation=0.0))
                deviations = sample_noise(notes, how, rng)
                values[name] = mean[name] + std[name] * how.spread * deviations
            if name == "tempo":  # one for all notes of an onset
                values[name] = (np.bincount(number, values[name]) / np.bincount(number))[number]
        zeros = np.zeros(len(notes))
        values["velocity"] = np.clip(values["velocity"], 1 / 127, 1.0)
        return Parameters(
            **{name: values.get(name, zeros) for name in PARAMETERS[PIANO]},
            mask=np.ones(len(notes), bool),
            seconds_per_quarter=0.5,
        )


def windows(num_notes: int) -> list[tuple[int, int, int, int]]:
    """Return windows of a sequence: where each begins, the first and the last note (exclusive) that are used, where it ends."""
    step = WINDOW - 2 * MARGIN
    found = []
    for first in range(0, max(num_notes, 1), step):
        last = min(first + step, num_notes)
        found.append((max(0, first - MARGIN), first, last, min(num_notes, last + MARGIN)))
    return found


def sample_noise(notes: ScoreNotes, noise: Noise, rng: np.random.Generator) -> np.ndarray:
    """Return deviations of variance 1 for each note, within `MAX_DEVIATIONS`, (N,) float64."""
    number, at = onset_numbers(notes), onset_times(notes)
    steps = noise.correlation ** np.diff(at) if noise.correlation > 0 else np.zeros(len(at) - 1)
    drawn = rng.standard_normal(len(at))
    common = [float(drawn[0])]
    for keep, new in zip(steps.tolist(), drawn[1:].tolist(), strict=True):
        common.append(keep * common[-1] + (1 - keep**2) ** 0.5 * new)
    own = rng.standard_normal(len(notes))
    deviations: np.ndarray = noise.shared**0.5 * np.array(common)[number] + (1 - noise.shared) ** 0.5 * own
    return np.clip(deviations, -MAX_DEVIATIONS, MAX_DEVIATIONS)


def pedal_down(probability: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Return where the pedal is down, 0 or 1, (N,): where its probability, the mean of an onset's notes, is above one half."""
    mean = np.bincount(number, probability) / np.bincount(number)
    return (mean > 0.5)[number].astype(np.float64)


def fit_noise(performers: Sequence[tuple[ScoreNotes, np.ndarray, np.ndarray]]) -> Noise:
    """Return how deviations belong together, from those of real performances.

    Args:
        performers: of each performance its notes, the deviations of a parameter from the predicted means over the predicted
            standard deviations, (N,), and which of them are known, (N,) bool.
    """
    within = pairs = total = count = 0.0
    products, gaps = [], []
    for notes, deviations, mask in performers:
        number = onset_numbers(notes)
        known = np.bincount(number[mask], minlength=number[-1] + 1)
        sums = np.bincount(number[mask], deviations[mask], len(known))
        squares = np.bincount(number[mask], deviations[mask] ** 2, len(known))
        within += float((sums**2 - squares).sum())  # twice the sum over pairs of notes of an onset
        pairs += float((known * (known - 1)).sum())
        total, count = total + float(squares.sum()), count + float(known.sum())
        mean = sums / np.maximum(known, 1)
        both = (known[1:] > 0) & (known[:-1] > 0)
        products.append((mean[1:] * mean[:-1])[both])
        gaps.append(np.diff(onset_times(notes))[both])
    variance = max(total / max(count, 1.0), 1e-9)
    own = [np.sqrt(np.mean(deviations[mask] ** 2)) for _, deviations, mask in performers if mask.any()]
    spread = min(float(np.median(own)), MAX_SPREAD)  # the median: a few pieces have far larger deviations
    product, gap = np.concatenate(products), np.concatenate(gaps)
    next_one = float(product.mean()) / variance if len(product) else 0.0
    shared = min(max(within / pairs / variance if pairs else next_one, next_one, 0.0), 1.0)
    if shared <= 1e-6 or next_one <= 0:
        return Noise(shared=shared, correlation=0.0, spread=spread)
    mean_gap = float(np.mean(np.minimum(gap, 4.0)))
    correlation = min((next_one / shared) ** (1 / max(mean_gap, 1e-3)), 0.999)
    return Noise(shared=shared, correlation=correlation, spread=spread)
