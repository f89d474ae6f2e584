"""Training of the note classifier: strips of the notes of a set, class-balanced batches, a generator of steps.

The loop is `training.loop.fit`; the caller reports, saves and stops. The weights to keep and the temperature are
selected on the notes that `dataset.split_by_instrument` holds out, never on notes for which a figure is reported.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import os
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import AudioError, CorpusError
from ..training import optim
from ..training.loop import Loss, Step, fit
from ..training.optim import make_adamw
from . import FAMILIES, augment, mel
from . import io as audio_io
from .dataset import LabelledNote
from .distort import distort
from .models.base import NoteModel

TAUGHT = 0.7  # share of the teachers in the targets
CHUNK = 32  # notes that a worker prepares at a time


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe(optim.Recipe):
    """How to train the classifier: other defaults than those of the language models, and three fields more.

    The time for preparing the notes is not part of a budget in seconds.

    Attributes:
        batch: notes per step.
        label_smoothing: this share of each target is spread over all families.
        mixup: the share of the batches in which each picture is mixed with another one (Zhang et al. 2018).
    """

    batch: int = 128
    learning_rate: float = 2e-3
    final_rate: float = 0.0
    warmup_steps: int = 200
    weight_decay: float = 0.05
    clip: float = 2.0
    label_smoothing: float = 0.05
    mixup: float = 0.3

    def seed_dropout(self, step: int) -> None:
        """Seed torch's global generator once: a classifier is not resumed."""
        if step == 0:
            torch.manual_seed(self.seed)

    def ema_decay_at(self, step: int) -> float:
        """Return the EMA decay; the step that is being taken counts."""
        return super().ema_decay_at(step + 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreparedNotes:
    """Notes that could be read, as strips.

    Attributes:
        notes: the notes, in the order of the tensors.
        strips: (notes, versions, 64 mel bands, 80 frames), uint8; version 0 is the unchanged note.
        targets: (notes,), the number of each one's family.
        dropped: (file, reason) of the notes that could not be read.
    """

    notes: list[LabelledNote]
    strips: Tensor
    targets: Tensor
    dropped: list[tuple[str, str]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoteBatch:
    """A training batch.

    Attributes:
        pictures: (B, 64 mel bands, 64 frames) in dB.
        targets: (B, families), soft labels that sum to 1.
    """

    pictures: Tensor
    targets: Tensor

    def to(self, device: torch.device) -> NoteBatch:
        """Return the batch on another device."""
        return NoteBatch(pictures=self.pictures.to(device), targets=self.targets.to(device))


def prepare(
    notes: Sequence[LabelledNote], *, versions: int, seed: int, workers: int | None = None, extended: bool = False
) -> Iterator[Any]:
    """Yield the number of notes prepared so far after each chunk, and at last the `PreparedNotes`.

    Args:
        notes: the notes; their order is kept.
        versions: how many versions of each note: the unchanged note, and versions - 1 distorted by `distort.distort`.
        seed: of the distortions.
        workers: the number of processes; by default one per core.
        extended: whether the distortions are the extended ones.

    Raises:
        CorpusError: no note could be read.
    """
    chunks = [(notes[i : i + CHUNK], versions, seed, i, extended) for i in range(0, len(notes), CHUNK)]
    workers = min(workers or os.cpu_count() or 1, len(chunks))
    parts, done = [], 0
    if workers <= 1:
        for chunk in chunks:
            parts.append(_prepare_chunk(*chunk))
            done += len(chunk[0])
            yield done
    else:
        pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start_worker)
        try:
            for chunk, future in [(c, pool.submit(_prepare_chunk, *c)) for c in chunks]:
                parts.append(future.result())
                done += len(chunk[0])
                yield done
        finally:
            pool.shutdown(cancel_futures=True)  # if it is interrupted, only the chunks that were begun are finished
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


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C in a terminal ends it without a traceback
    torch.set_num_threads(1)


def _prepare_chunk(
    notes: Sequence[LabelledNote], versions: int, seed: int, first: int, extended: bool
) -> tuple[list[np.ndarray], list[int], list[tuple[str, str]]]:
    strips, kept, dropped = [], [], []
    for number, note in enumerate(notes, first):
        try:
            sound = audio_io.read(note.path).audio
            mel.check(sound)
            rng = np.random.default_rng([seed, number])
            others = [distort(sound.numpy(), rng, note.family, extended=extended) for _ in range(versions - 1)]
            strips.append(torch.stack([augment.strip(s) for s in [sound, *map(torch.from_numpy, others)]]).numpy())
            kept.append(number)
        except AudioError as error:
            dropped.append((str(note.path), str(error)))
    return strips, kept, dropped


def sampling_weights(notes: Sequence[LabelledNote]) -> Tensor:
    """Return the sampling probability of each note, (notes,), summing to 1.

    Families have the same probability. Within a family the probability of a source, and within a source that of an
    instrument, is proportional to the square root of its number of notes; the weight of each note is a factor.
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


def train(
    model: NoteModel,
    data: PreparedNotes,
    recipe: Recipe,
    *,
    teachers: Sequence[NoteModel] = (),
    clock: Callable[[], float] = time.monotonic,
    should_stop: Callable[[], bool] = bool,
) -> Iterator[Step[NoteModel]]:
    """Yield each step of a training run until the budget is used, or the run is to stop.

    Args:
        model: trained in place, on its own device.
        data: the training notes.
        recipe: how to train.
        teachers: networks to distil, see `distilled`.
        clock: what a budget in seconds counts: see `training.loop.fit`.
        should_stop: asked before each step; if it is true, the run ends.
    """
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    device = next(model.parameters()).device

    def losses(model: NoteModel, batch: NoteBatch, _: int) -> Iterator[Loss]:
        batch = batch.to(device)
        with recipe.autocast(device):
            scores = model(batch.pictures)
        nats = F.cross_entropy(scores.float(), batch.targets, label_smoothing=recipe.label_smoothing)
        yield Loss(total=nats, nats=nats, num_targets=len(batch.targets))

    return fit(
        model,
        distilled(batches(data, recipe), teachers) if teachers else batches(data, recipe),
        losses,
        recipe,
        average=copy.deepcopy(model),
        optimizers=[make_adamw(model, recipe, model.embeddings())],
        clock=clock,
        should_stop=should_stop,
    )


def batches(data: PreparedNotes, recipe: Recipe) -> Iterator[NoteBatch]:
    """Yield batches without end: notes sampled by `sampling_weights`, augmented and mixed up, on the CPU."""
    weights = sampling_weights(data.notes)
    g = torch.Generator().manual_seed(recipe.seed)
    while True:
        index = torch.multinomial(weights, recipe.batch, replacement=True, generator=g)
        version = torch.randint(data.strips.shape[1], (recipe.batch,), generator=g)
        pictures = augment.vary(data.strips[index, version], g)
        targets = F.one_hot(data.targets[index], len(FAMILIES)).float()
        if float(torch.rand((), generator=g)) < recipe.mixup:
            share = torch.rand(recipe.batch, generator=g) * 0.5  # of the other note
            other = torch.randperm(recipe.batch, generator=g)
            pictures = torch.lerp(pictures, pictures[other], share[:, None, None])
            targets = torch.lerp(targets, targets[other], share[:, None])
        yield NoteBatch(pictures=pictures, targets=targets)


def distilled(batches: Iterable[NoteBatch], teachers: Sequence[NoteModel]) -> Iterator[NoteBatch]:
    """Yield batches whose targets are mostly the mean probabilities of teachers on the CPU (Hinton et al. 2015)."""
    for batch in batches:
        with torch.no_grad():
            told = torch.stack([teacher(batch.pictures).softmax(dim=1) for teacher in teachers]).mean(dim=0)
        yield NoteBatch(pictures=batch.pictures, targets=torch.lerp(batch.targets, told, TAUGHT))


@torch.inference_mode()
def scores(model: NoteModel, pictures: Tensor, batch: int = 256) -> Tensor:
    """Return the logits of a model for pictures, (B, families) on the CPU, computed a batch at a time."""
    device = next(model.parameters()).device
    return torch.cat([model(part.to(device)).cpu() for part in pictures.split(batch)])
