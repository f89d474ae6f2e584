"""What a run works with, made from its plan: corpus, tokenizer, models, batches and recipe."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..devices import resolve_bf16, resolve_device
from ..errors import RunError
from ..models.weights import resize_embeddings
from .config import TrainConfig

if TYPE_CHECKING:
    from ..models.base import LanguageModel
    from .optim import Recipe

log = logging.getLogger(__name__)

# going on from a checkpoint; chosen on the validation split of Nottingham (benchmarks/RESULTS.md)
TUNED_RATE = 0.8  # of the architecture's own highest rate
TUNED_DROPOUT = 0.1  # at least
TUNED_WARM_UP = 20  # steps
PATIENCE = 5  # validations
MAX_VALIDATION_TOKENS = 100_000  # during a run; `evaluate` takes all


@dataclasses.dataclass(kw_only=True)
class TrainingSetup:
    """What a run works with.

    Attributes:
        corpus: see `corpus.open_source`.
        tokenizer: of it, and of the model.
        started: the checkpoint that is started from, or None.
        model: as it is before the first step, on its device.
        average: another of that architecture, for the averaged weights.
        windows: batches by number.
        recipe: how to train.
        teacher: the mean of those to learn from, or None.
        validation: pieces of no more than `MAX_VALIDATION_TOKENS`.
    """

    corpus: Any
    tokenizer: Any
    started: Any
    model: Any
    average: Any
    windows: Any
    recipe: Recipe
    teacher: LanguageModel | None
    validation: Any


def prepare(plan: TrainConfig) -> TrainingSetup:
    """Return everything that follows from the plan alone.

    Raises:
        RunError: the plan asks for what its architecture or its data does not have.
        CorpusError: no music where it is looked for, or a corpus of another tokenizer.
        CheckpointError: no such checkpoint to start from.
    """
    import torch

    from .. import checkpoint, models
    from ..data import open_source
    from ..data.crops import RandomCrops
    from ..evaluation import masked_pieces, sample_pieces
    from .optim import Recipe

    started = checkpoint.load(plan.start_from) if plan.start_from else None
    source = open_source(plan.data, _wanted(plan, started))
    tokenizer = source.tokenizer
    config = _config(plan, started, tokenizer)
    training = models.training(plan.arch)
    # windows no longer than the context, nor shorter: distances that were never trained must not be met later
    length = plan.window or config.get("context", training["window"])
    pieces = list(source.pieces("train"))
    windows = RandomCrops(
        [piece.tokens for piece in pieces],
        tokenizer,
        pitches=[piece.pitches for piece in pieces],
        length=min(length, config.get("context", length)),
        batch_size=plan.batch_size or training["batch_size"],
        seed=plan.seed,
        weights=_weights(pieces, plan.weights),
    )
    steps = plan.steps
    if plan.epochs is not None:
        by_epochs = max(1, round(plan.epochs * windows.tokens_an_epoch / windows.tokens_a_batch))
        steps = by_epochs if steps is None else min(steps, by_epochs)
    device = resolve_device(plan.device)
    recipe = Recipe(
        steps=steps,
        seconds=None if plan.minutes is None else 60 * plan.minutes,
        learning_rate=plan.learning_rate or training["learning_rate"] * (TUNED_RATE if started else 1.0),
        warmup_steps=TUNED_WARM_UP if started else 100,
        seed=plan.seed,
        bf16=resolve_bf16(plan.precision, device),
    )
    torch.manual_seed(plan.seed)
    try:
        model, average = (models.create(plan.arch, tokenizer.vocab_size, **config) for _ in range(2))
    except (TypeError, ValueError) as error:
        raise RunError(f"there is no such model: {error}") from error
    if started is not None:
        model.load_state_dict(resize_embeddings(started.model().state_dict(), model))
    if plan.compile and device == "cpu" and not _has_compiler():
        log.warning("--compile needs a C++ compiler (g++, clang++, or what CXX names), and there is none: not compiled")
    elif plan.compile:
        model.compile()
    log.debug("%s, %d parameters, %s; %s on %s", plan.arch, model.num_parameters, config, recipe, device)
    log.debug("%s, %d ids; features %s", tokenizer.name, tokenizer.vocab_size, tokenizer.feature_sizes)
    log.debug("%d pieces, %d tokens, %d a batch", len(pieces), windows.tokens_an_epoch, windows.tokens_a_batch)
    validation = sample_pieces(source.pieces("validation"), MAX_VALIDATION_TOKENS)
    return TrainingSetup(
        corpus=source,
        tokenizer=tokenizer,
        started=started,
        model=model.to(device),
        average=average.to(device),
        windows=windows,
        recipe=recipe,
        teacher=_teacher(plan.teachers, tokenizer, device),
        validation=masked_pieces(tokenizer, validation) if tokenizer.supports_infilling else validation,
    )


def _wanted(plan: TrainConfig, started: Any) -> Any:
    """Return the tokenizer that the plan wants, or that of the checkpoint; None for what suits the data.

    Raises:
        RunError: the checkpoint has other tokens.
    """
    from .. import tokenizers

    theirs = None if started is None else started.tokenizer()
    if plan.tokenizer is None:
        return theirs
    wanted = tokenizers.parse(plan.tokenizer)
    if theirs is not None and wanted.plain_size != theirs.plain_size:
        raise RunError(f"the model '{started.name}' has tokens of '{theirs.name}', not of '{wanted.name}'")
    return wanted


def _config(plan: TrainConfig, started: Any, tokenizer: Any) -> dict[str, Any]:
    """Return what the model is built with: sizes of the preset or the checkpoint, the tokenizer's part, the plan's own.

    Raises:
        RunError: the plan sets what the architecture has not, or what the checkpoint has settled.
    """
    from .. import models

    preset = models.preset(plan.arch, plan.preset)
    config = dict(preset)
    if started is not None:
        config = dict(started.config)
        known = tuple(config.pop("feature_sizes", ()))
        config.pop("vocab_size")
        if known != tokenizer.feature_sizes[: len(known)]:
            raise RunError(
                f"the model '{started.name}' has other features than '{tokenizer.name}' gives now: train anew"
            )
        if plan.config:
            raise RunError(f"the sizes of '{started.name}' are what they are: leave out --set and --layers")
    config |= tokenizer.model_config
    for name, number in sorted(plan.config.items()):
        if name not in preset:
            own = ", ".join(sorted(preset))
            raise RunError(f"the architecture '{plan.arch}' has no '{name}' to set: it has {own}")
        if isinstance(preset[name], int) and not isinstance(number, int):
            raise RunError(f"{name} is a whole number, not {number:g}")
    config |= plan.config
    if plan.dropout is not None:
        config["dropout"] = plan.dropout
    elif started is not None:
        config["dropout"] = max(TUNED_DROPOUT, config.get("dropout", 0.0))
    if plan.context is not None:
        if "context" not in config:
            raise RunError(f"the architecture '{plan.arch}' has no context: leave out --context")
        config["context"] = plan.context
    return config


def _teacher(names: Sequence[str], tokenizer: Any, device: str) -> LanguageModel | None:
    """Return the mean of the checkpoints of these names, as a model; None for none.

    Raises:
        RunError: one of them has another tokenizer.
    """
    from .. import checkpoint
    from ..models.ensemble import Ensemble

    found = [checkpoint.load(name) for name in names]
    for each in found:
        own = each.tokenizer()
        knows = own.feature_sizes == tokenizer.feature_sizes[: len(own.feature_sizes)]
        if own.name != tokenizer.name or own.vocab_size != tokenizer.vocab_size or not knows:
            theirs = own.name
            other = f"tokens of '{theirs}', not of" if theirs != tokenizer.name else "another version or options of"
            raise RunError(f"the teacher '{each.name}' has {other} '{tokenizer.name}'")
    return Ensemble([each.model() for each in found]).eval().requires_grad_(False).to(device) if found else None


def _weights(pieces: Sequence[Any], by_folder: dict[str, float]) -> list[float] | None:
    """Return how much more often than its length says each piece is drawn; None for all alike.

    Raises:
        RunError: a folder that no piece comes from.
    """
    if not by_folder:
        return None
    weights, used = [], set()
    for piece in pieces:
        named = [folder for folder in by_folder if folder in Path(piece.name).parts]
        used.update(named)
        weights.append(math.prod(by_folder[folder] for folder in named))
    if unused := sorted(set(by_folder) - used):
        raise RunError(f"no training piece comes from a folder '{unused[0]}': see --weight")
    return weights


def _has_compiler() -> bool:
    names = (os.environ.get("CXX"), "g++", "clang++", "c++", "cl")
    return any(shutil.which(name) for name in names if name)
