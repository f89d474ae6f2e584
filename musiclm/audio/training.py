"""Trains the note classifier: strips of a set's notes, batches in which families weigh the same, a generator of steps.

The caller draws, saves and stops. Choosing (of the weights to keep, of the temperature) is done by the notes that
`dataset.split_by_instrument` holds out, never by notes that a figure is reported of.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import AudioError, CorpusError
from . import FAMILIES, augment, mel
from . import io as audio_io
from .dataset import LabelledNote
from .models.cnn import NoteCNN

CHUNK = 256  # notes prepared by a worker at a time


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train.

    Attributes:
        steps: the budget in steps, or None.
        seconds: the budget in seconds, without preparing the notes, or None; what comes first ends the run. At least
            one of them is given.
        batch: notes a step.
        learning_rate: the highest, after the warm-up; it then follows a cosine to zero at the budget's end.
        warmup_steps: in which the rate rises evenly.
        weight_decay: of everything but norms and biases (Loshchilov and Hutter 2019).
        label_smoothing: this share of each target is spread over all families.
        mixup: of this share of the batches, each picture is laid over another one (Zhang et al. 2018).
        average: decay of the moving average of the weights, which is what is kept.
        seed: of weights, batches and what spoils the notes.
        bf16: compute in bfloat16, weights staying in float32.
    """

    steps: int | None = None
    seconds: float | None = None
    batch: int = 128
    learning_rate: float = 2e-3
    warmup_steps: int = 200
    weight_decay: float = 0.05
    label_smoothing: float = 0.05
    mixup: float = 0.3
    average: float = 0.999
    seed: int = 0
    bf16: bool = False

    def __post_init__(self) -> None:
        if self.steps is None and self.seconds is None:
            raise ValueError("a recipe needs a budget: steps or seconds")

    def progress(self, step: int, seconds: float) -> float:
        """Return which part of the budget is used, 0 … 1."""
        by_steps = step / self.steps if self.steps else 0.0
        by_seconds = seconds / self.seconds if self.seconds else 0.0
        return min(1.0, max(by_steps, by_seconds))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreparedNotes:
    """Notes that could be read, as strips.

    Attributes:
        notes: which.
        strips: (notes, versions, 64 mel bands, 80 frames), uint8; version 0 is the note as it is.
        targets: (notes,), the number of each one's family.
        dropped: (file, reason) of those that could not be read.
    """

    notes: list[LabelledNote]
    strips: Tensor
    targets: Tensor
    dropped: list[tuple[str, str]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """One step taken.

    Attributes:
        number: counted from 1.
        loss: of its batch, in nats, with smoothed labels.
        seconds: so far.
        progress: which part of the budget is used, 0 … 1.
        model: the averaged weights, in evaluation mode.
    """

    number: int
    loss: float
    seconds: float
    progress: float
    model: NoteCNN


def prepare(notes: Sequence[LabelledNote], *, versions: int, seed: int, workers: int | None = None) -> Iterator[Any]:
    """Yield how many notes are prepared so far, again and again, and at last the Prepared.

    Args:
        notes: in this order.
        versions: of each note: 1 for the note as it is, and each further one spoilt by `augment.distort`.
        seed: of that.
        workers: processes; as many as there are cores if left out.

    Raises:
        CorpusError: no note could be read.
    """
    chunks = [(notes[i : i + CHUNK], versions, seed, i) for i in range(0, len(notes), CHUNK)]
    workers = min(workers or os.cpu_count() or 1, len(chunks))
    parts, done = [], 0
    if workers <= 1:
        for chunk in chunks:
            parts.append(_prepare_chunk(*chunk))
            done += len(chunk[0])
            yield done
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
            for chunk, future in [(c, pool.submit(_prepare_chunk, *c)) for c in chunks]:
                parts.append(future.result())
                done += len(chunk[0])
                yield done
    strips = [s for part in parts for s in part[0]]
    kept = [i for part in parts for i in part[1]]
    if not strips:
        raise CorpusError("none of the notes can be read: is the sound where the list of notes says?")
    yield PreparedNotes(
        notes=[notes[i] for i in kept],
        strips=torch.from_numpy(np.stack(strips)),
        targets=torch.tensor([FAMILIES.index(notes[i].family) for i in kept]),
        dropped=[d for part in parts for d in part[2]],
    )


def _one_thread() -> None:
    torch.set_num_threads(1)


def _prepare_chunk(
    notes: Sequence[LabelledNote], versions: int, seed: int, first: int
) -> tuple[list[np.ndarray], list[int], list[tuple[str, str]]]:
    strips, kept, dropped = [], [], []
    for number, note in enumerate(notes, first):
        try:
            sound = audio_io.read(note.path).audio
            mel.check(sound)
            rng = np.random.default_rng([seed, number])
            spoilt = [torch.from_numpy(augment.distort(sound.numpy(), rng)) for _ in range(versions - 1)]
            strips.append(torch.stack([augment.strip(s) for s in [sound, *spoilt]]).numpy())
            kept.append(number)
        except AudioError as error:
            dropped.append((str(note.path), str(error)))
    return strips, kept, dropped


def draw_weights(notes: Sequence[LabelledNote]) -> Tensor:
    """Return how likely each note is drawn, (notes,), summing to 1.

    Families are equally likely; within a family a source, and within a source an instrument, is as likely as the root
    of its number of notes, times the notes' own weight.
    """
    sizes: dict[tuple[str, ...], int] = defaultdict(int)
    for n in notes:
        for key in ((n.family, n.source), (n.family, n.source, n.instrument)):
            sizes[key] += 1
    instruments: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for n in notes:
        instruments[n.family, n.source].add(n.instrument)
    roots = {
        key: sum(math.sqrt(sizes[(*key, name)]) for name in sorted(names)) for key, names in sorted(instruments.items())
    }
    weights = torch.tensor(
        [
            n.weight
            * math.sqrt(sizes[n.family, n.source])
            / roots[n.family, n.source]
            / math.sqrt(sizes[n.family, n.source, n.instrument])
            for n in notes
        ],
        dtype=torch.float64,
    )
    families = torch.tensor([FAMILIES.index(n.family) for n in notes])
    totals = torch.zeros(len(FAMILIES), dtype=torch.float64).index_add_(0, families, weights)
    return weights / totals[families] / len({n.family for n in notes})


def train(model: NoteCNN, data: PreparedNotes, recipe: Recipe) -> Iterator[Step]:
    """Yield each step of a training run until the budget is used.

    Args:
        model: is trained in place, on the CPU.
        data: what to learn from.
        recipe: how.
    """
    model.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(model).eval().requires_grad_(False)
    vectors = [p for p in model.parameters() if p.ndim == 1]
    others = [p for p in model.parameters() if p.ndim != 1]
    groups = [{"params": others, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=True)
    likely = draw_weights(data.notes)
    generator = torch.Generator().manual_seed(recipe.seed)
    torch.manual_seed(recipe.seed)  # of dropout
    began, step = time.monotonic(), 0
    while (progress := recipe.progress(step, time.monotonic() - began)) < 1:
        rate = (
            recipe.learning_rate * (1 + math.cos(math.pi * progress)) / 2 * min(1.0, (step + 1) / recipe.warmup_steps)
        )
        for group in optimiser.param_groups:
            group["lr"] = rate
        pictures, targets = _batch(data, likely, recipe, generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bf16):
            scores = model(pictures)
        loss = F.cross_entropy(scores.float(), targets, label_smoothing=recipe.label_smoothing)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimiser.step()
        step += 1
        _move_average(average, model, min(recipe.average, 1 - 10 / (10 + step)))
        seconds = time.monotonic() - began
        yield Step(
            number=step,
            loss=float(loss.detach()),
            seconds=seconds,
            progress=recipe.progress(step, seconds),
            model=average,
        )


def _batch(data: PreparedNotes, likely: Tensor, recipe: Recipe, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return (pictures (B, 64, 64) in dB, targets (B, families)) of notes drawn by their weights."""
    index = torch.multinomial(likely, recipe.batch, replacement=True, generator=g)
    version = torch.randint(data.strips.shape[1], (recipe.batch,), generator=g)
    pictures = augment.vary(data.strips[index, version], g)
    targets = F.one_hot(data.targets[index], len(FAMILIES)).float()
    if float(torch.rand((), generator=g)) < recipe.mixup:
        share = torch.rand(recipe.batch, generator=g) * 0.5  # of the other note
        other = torch.randperm(recipe.batch, generator=g)
        pictures = torch.lerp(pictures, pictures[other], share[:, None, None])
        targets = torch.lerp(targets, targets[other], share[:, None])
    return pictures, targets


@torch.no_grad()
def _move_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
    for mine, theirs in zip(average.buffers(), model.buffers(), strict=True):
        if mine.is_floating_point():  # running mean and variance of the norms
            mine.lerp_(theirs, 1 - decay)


@torch.inference_mode()
def scores(model: NoteCNN, pictures: Tensor, batch: int = 256) -> Tensor:
    """Return the model's scores of pictures, (B, families), a batch at a time."""
    return torch.cat([model(part) for part in pictures.split(batch)])


def fit_temperature(scores: Tensor, targets: Tensor) -> float:
    """Return what to divide scores by for probabilities that come true (Guo et al. 2017); families weigh the same.

    Args:
        scores: (notes, families).
        targets: (notes,).
    """
    counts = torch.bincount(targets, minlength=scores.shape[1]).float()
    weights = 1 / counts[targets]
    grid = torch.logspace(math.log10(0.2), math.log10(5.0), 200)
    losses = [float((F.cross_entropy(scores / t, targets, reduction="none") * weights).sum()) for t in grid]
    return float(grid[int(np.argmin(losses))])
