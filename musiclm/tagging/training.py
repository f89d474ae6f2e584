"""Training of taggers: class-balanced random crops, validation on whole pieces, early stopping, calibration.

The loop is `training.loop.fit`. Weights, temperature and threshold are selected on validation pieces; a figure of these pieces
is optimistic.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import checkpoint, models
from ..checkpoint import Checkpoint
from ..data.augment import TRANSPOSITIONS
from ..errors import CheckpointError
from ..evaluation.classification import TEMPERATURES, fit_temperature, fit_threshold
from ..models.base import LanguageModel
from ..tokenizers.base import Tokenizer
from ..training.checks import Check, Measured, check_steps
from ..training.loop import Loss, Step, fit
from ..training.optim import Recipe
from .crops import BATCH, LabelledCrops, TagBatch, batch_of, spread_crops
from .model import MAX_CROPS, Network, Tagger, network_of
from .notes import STEPS
from .probe import pooled, train_head

CHECKS = 20  # validations in a run
PATIENCE = 7  # validations without a better one that end a run
LEAST_STEPS = 200  # of a run before patience counts, and at least the warm-up
FEW_PIECES = 20  # with fewer validation pieces the threshold has a floor
QUICK_CROPS = 4  # of a piece, in a validation during a run
MOST_PIECES = 200  # in a validation during a run
TUNED_BODY = 0.3  # learning rate of a body from a language model, as a share of the head's
WARM_UP = 30  # steps


class Labelled(NamedTuple):
    """The ids of a whole piece, (T,), and the number of its label."""

    ids: np.ndarray
    target: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class TagConfig:
    """What is trained, beside the recipe.

    Attributes:
        arch: of the body, one of `models.names()` or `models.names("encoder")`; with a checkpoint to start from its own.
        preset: tiny, small or base; with a checkpoint to start from its own.
        config: fields of the body's `Config` that differ.
        pooling: mean, last or attention.
        dropout: of the pooled state.
        frozen: whether a body from a language model stays as it is.
        body_rate: learning rate of the body, as a share of the head's; left out, 1 from scratch and `TUNED_BODY` from a model.
        length: tokens of a crop; left out, the architecture's context or crop length.
        batch_size: crops of a step; left out, twice the architecture's.
        balance: see `LabelledCrops`.
        smoothing: share of each target that is spread over all labels.
        transpose: semitones to choose from.
        steps: see `notes.neutral`; it is only stored.
    """

    arch: str = "gru"
    preset: str = "tiny"
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    pooling: str = "mean"
    dropout: float = 0.2
    frozen: bool = False
    body_rate: float | None = None
    length: int | None = None
    batch_size: int | None = None
    balance: float = 1.0
    smoothing: float = 0.1
    transpose: range = TRANSPOSITIONS
    steps: int = STEPS


def train_tagger(
    learn: Sequence[Labelled],
    choose: Sequence[Labelled],
    recipe: Recipe,
    config: TagConfig,
    *,
    labels: Sequence[str],
    tokenizer: Tokenizer,
    start: Checkpoint | None = None,
    device: str = "cpu",
    clock: Callable[[], float] = time.monotonic,
    should_stop: Callable[[], bool] = bool,
) -> Iterator[Check[Network] | Tagger]:
    """Yield a `Check` about every twentieth of the budget, and at last the tagger with the best weights, on the CPU.

    The loss of a check is that of smoothed labels in nats, its validation the cross-entropy of the validation pieces in nats,
    after temperature scaling, which selects the weights; its figure is their accuracy. A run that is stopped before its
    first check yields nothing.

    Args:
        learn: the training pieces.
        choose: the validation pieces; without them the last weights are kept, at temperature 1 and threshold 0.5.
        recipe: how to train; its learning rate is the head's.
        config: what to train.
        labels: their names, two or more.
        tokenizer: of the ids.
        start: a language model with this tokenizer, whose body is taken.
        device: where to train.
        clock: see `training.loop.fit`.
        should_stop: asked before each step; if it is true, the run ends and the best weights so far are the tagger's.

    Raises:
        CheckpointError: `start` cannot be a body.
        DivergedError: a loss, a gradient or a validation loss was not finite.
        ValueError: nothing to learn from, fewer than two labels, or an impossible config.
    """
    if len(labels) < 2:
        raise ValueError("a tagger needs at least two labels")
    torch.manual_seed(recipe.seed)
    network = new_network(config, len(labels), tokenizer, start).to(device)
    arch = start.arch if start is not None else config.arch
    length = config.length or network_config(network).get("context") or models.training(arch)["window"]
    crops = _crops(learn, tokenizer, config, arch, length, recipe.seed)
    held_out = _ValidationSet(choose, tokenizer, length)
    if config.frozen and config.pooling != "attention":
        checks = _head_checks(network, crops, held_out, recipe, clock, should_stop)
    else:
        steps = _steps(network, crops, recipe, config, _body_rate(config, start), clock, should_stop)
        checks = check_steps(steps, held_out.measured, CHECKS, clock=clock, seconds=recipe.seconds)
    kept, waited = None, 0
    for check in checks:
        kept = check.best
        yield check
        counts = check.step > max(LEAST_STEPS, recipe.warmup_steps)
        waited = 0 if check.is_best else waited + counts
        if waited >= PATIENCE:
            break
    if kept is None:
        return
    tagger = Tagger(kept.to("cpu"), arch=arch, tokenizer=tokenizer, labels=labels, length=length, steps=config.steps)
    if config.frozen and start is not None and start.name in (*checkpoint.bundled(), *checkpoint.installed()):
        tagger.body = start
    calibrate(tagger, choose)
    yield tagger


def _head_checks(
    network: Network,
    crops: LabelledCrops,
    held_out: _ValidationSet,
    recipe: Recipe,
    clock: Callable[[], float],
    should_stop: Callable[[], bool],
) -> Iterator[Check[Network]]:
    """Yield the checks of a head of a frozen body; the validation pieces are read once, too."""
    vectors = held_out.read(functools.partial(pooled, network, recipe=recipe))
    measure = functools.partial(held_out.judged, vectors)
    yield from train_head(network, crops, measure, recipe, clock=clock, should_stop=should_stop)


def _crops(
    learn: Sequence[Labelled], tokenizer: Tokenizer, config: TagConfig, arch: str, length: int, seed: int
) -> LabelledCrops:
    """Return the training crops of an architecture."""
    return LabelledCrops(
        [each.ids for each in learn],
        [each.target for each in learn],
        tokenizer,
        length=length,
        batch_size=config.batch_size or 2 * models.training(arch)["batch_size"],
        seed=seed,
        balance=config.balance,
        transpose=config.transpose,
    )


def _steps(
    network: Network,
    crops: LabelledCrops,
    recipe: Recipe,
    config: TagConfig,
    body_rate: float,
    clock: Callable[[], float],
    should_stop: Callable[[], bool],
) -> Iterator[Step[Network]]:
    """Return the steps of the training of a network."""
    average = copy.deepcopy(network)

    def before_step(step: int) -> None:
        for each in (network, average):
            if isinstance(each.body, LanguageModel) and not config.frozen:
                each.body.on_step(step)

    return fit(
        network,
        crops,
        _losses(recipe, config.smoothing),
        recipe,
        average=average,
        optimizers=[make_optimizer(network, recipe, body_rate)],
        clock=clock,
        should_stop=should_stop,
        before_step=before_step,
    )


def new_network(config: TagConfig, num_labels: int, tokenizer: Tokenizer, start: Checkpoint | None = None) -> Network:
    """Return a new network; its body is that of `start`, or is initialised from torch's global random generator.

    Raises:
        CheckpointError: `start` is no causal language model or encoder, or there is no such architecture.
        ValueError: the architecture does not allow the config.
    """
    arch = start.arch if start is not None else config.arch
    if models.kind_of(arch) == models.SEQ2SEQ:
        raise CheckpointError(f"a body of '{arch}' reads pairs: take one of {', '.join(bodies())}")
    if start is not None:
        network = network_of(start, num_labels, config.pooling, config.dropout)
    else:
        fields = models.preset(arch, config.preset) | dict(config.config) | _of_tokens(arch, tokenizer)
        body = models.create(arch, tokenizer.vocab_size, **fields)
        network = Network(body, num_labels, config.pooling, config.dropout)
    if config.frozen:
        network.freeze()
    return network


def bodies() -> list[str]:
    """Return the names of the architectures that can be a tagger's body."""
    return [*models.names(models.CAUSAL), *models.names(models.ENCODER)]


def _of_tokens(arch: str, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the fields of a body's `Config` that depend on the tokenizer. It has no head, so no relative pitch."""
    found: dict[str, Any] = {"feature_sizes": tokenizer.feature_sizes}
    return found | ({"global_ids": tokenizer.global_ids} if "global_ids" in models.fields(arch) else {})


def network_config(network: Network) -> dict[str, Any]:
    """Return the fields of the `Config` of a network's body."""
    config: Any = network.body.config
    return dataclasses.asdict(config)


def _body_rate(config: TagConfig, start: Checkpoint | None) -> float:
    if config.body_rate is not None:
        return config.body_rate
    return 1.0 if start is None else TUNED_BODY


def make_optimizer(network: Network, recipe: Recipe, body_rate: float) -> torch.optim.Optimizer:
    """Return AdamW (Loshchilov and Hutter 2019) with a learning rate of the body's own; vectors have no weight decay.

    Args:
        network: parameters without a gradient are left out.
        recipe: its rate is the head's.
        body_rate: of the body, as a share of it.
    """
    groups: list[dict[str, Any]] = []
    body = {id(p) for p in network.body.parameters()}
    learned = [p for p in network.parameters() if p.requires_grad]
    for of_body, scale in ((True, body_rate), (False, 1.0)):
        for is_vector, decay in ((True, 0.0), (False, recipe.weight_decay)):
            chosen = [p for p in learned if (id(p) in body) == of_body and (p.ndim == 1) == is_vector]
            if chosen:
                groups.append({"params": chosen, "weight_decay": decay, "rate_scale": scale})
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=True)


def _losses(recipe: Recipe, smoothing: float) -> Callable[[Network, TagBatch, int], Iterator[Loss]]:
    def losses(network: Network, batch: TagBatch, _: int) -> Iterator[Loss]:
        batch = batch.to(next(network.parameters()).device)
        with recipe.autocast(batch.tokens.device):
            logits_BL = network(batch)
        nats = F.cross_entropy(logits_BL, batch.targets, label_smoothing=smoothing)
        yield Loss(total=nats, nats=nats, num_targets=len(batch.targets))

    return losses


class _ValidationSet:
    """Some crops of at most `MOST_PIECES` validation pieces, made once."""

    def __init__(self, choose: Sequence[Labelled], tokenizer: Tokenizer, length: int) -> None:
        step = max(1, math.ceil(len(choose) / MOST_PIECES))
        chosen = choose[::step]
        found = [spread_crops(each.ids, tokenizer, length=length, most=QUICK_CROPS) for each in chosen]
        self.targets = torch.tensor([each.target for each in chosen], dtype=torch.int64)
        self.owner = torch.tensor([i for i, crops in enumerate(found) for _ in crops], dtype=torch.int64)
        every = [crop for crops in found for crop in crops]
        self.batches = [batch_of(every[i : i + BATCH]) for i in range(0, len(every), BATCH)]

    def measured(self, network: Network) -> Measured | None:
        """Return what a network reaches, see `judged`."""
        device = next(network.parameters()).device
        with torch.no_grad():
            return self.judged(self.read(lambda batch: network(batch.to(device)).cpu()), nn.Identity())

    def read(self, function: Callable[[TagBatch], Tensor]) -> Tensor:
        """Return a function's rows for all crops, (crops, ...); no rows without pieces."""
        return torch.cat([function(batch) for batch in self.batches]) if self.batches else torch.zeros(0)

    @torch.no_grad()
    def judged(self, vectors: Tensor, head: nn.Module) -> Measured | None:
        """Return cross-entropy after temperature scaling, which selects the weights, and accuracy; None without pieces.

        Args:
            vectors: what the head reads of each crop.
            head: returns logits, (crops, L).
        """
        if not self.batches:
            return None
        mean_NL = means(head(vectors).log_softmax(1), self.owner, len(self.targets))
        temperature = _temperature(mean_NL, self.targets)
        nats = float(F.cross_entropy(mean_NL / temperature, self.targets))
        accuracy = float((mean_NL.argmax(1) == self.targets).double().mean())
        return Measured(loss=nats, figure=accuracy, merit=-nats)


def means(values_CL: Tensor, owner_C: Tensor, num_pieces: int) -> Tensor:
    """Return the mean of the values of each piece's crops, (pieces, L)."""
    sums = torch.zeros(num_pieces, values_CL.shape[1]).index_add_(0, owner_C, values_CL)
    return sums / torch.bincount(owner_C, minlength=num_pieces)[:, None]


def _temperature(scores_NL: Tensor, targets_N: Tensor) -> float:
    """Return the temperature of the log probabilities of N pieces: as if there were two more, which say nothing."""
    smoothing = 1 / (len(targets_N) + 2)
    return fit_temperature(scores_NL, targets_N, balanced=False, smoothing=smoothing, bounds=TEMPERATURES)


def calibrate(tagger: Tagger, choose: Sequence[Labelled]) -> None:
    """Fit temperature and threshold of a tagger to validation pieces, read as in predictions; without any keep them.

    Fewer than `FEW_PIECES` say little about the threshold: it is at least halfway between the chance of a guess, 1/L, and 1.
    """
    if not choose:
        return
    mean_NL = torch.stack([tagger.crop_log_probabilities(each.ids, MAX_CROPS).mean(0) for each in choose])
    targets = torch.tensor([each.target for each in choose])
    tagger.temperature = _temperature(mean_NL, targets)
    confidence, predicted = (mean_NL / tagger.temperature).softmax(1).max(1)
    tagger.threshold = fit_threshold(confidence, predicted == targets)
    if len(choose) < FEW_PIECES:
        tagger.threshold = max(tagger.threshold, (1 + 1 / len(tagger.labels)) / 2)
