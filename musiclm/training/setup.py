"""The parts of a training run, made from its configuration: corpus, tokenizer, models, batches and recipe."""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..devices import resolve_bf16, resolve_device
from ..errors import RunError
from .config import TrainConfig
from .starting import config_of, start

if TYPE_CHECKING:
    from ..data.contiguous import ContiguousCrops
    from ..data.crops import RandomCrops
    from ..data.pair_crops import PairCrops
    from ..models.base import LanguageModel
    from .optim import Recipe

log = logging.getLogger(__name__)

# fine-tuning; selected on the validation split of Nottingham (docs/results/score.md)
TUNED_RATE = 0.8  # times the peak learning rate of the architecture
TUNED_DROPOUT = 0.1  # at least
TUNED_WARM_UP = 20  # steps
PATIENCE = 5  # validations
MAX_VALIDATION_TOKENS = 100_000  # during a run; `evaluate` measures all


@dataclasses.dataclass(kw_only=True)
class TrainingSetup:
    """The parts of a training run.

    Attributes:
        corpus: see `data.open_source`.
        tokenizer: of the corpus and of the model.
        started: the checkpoint that the run starts from, or None.
        base: that checkpoint, if the model keeps its weights and it can be found by its name; or None.
        model: the model before the first step, on its device.
        average: another model of that architecture, for the EMA weights.
        crops: random or contiguous: batches by number.
        recipe: how to train.
        teacher: the ensemble to distil, or None.
        validation: pieces of at most `MAX_VALIDATION_TOKENS` tokens.
    """

    corpus: Any
    tokenizer: Any
    started: Any
    base: Any
    model: Any
    average: Any
    crops: Any
    recipe: Recipe
    teacher: LanguageModel | None
    validation: Any


def prepare(plan: TrainConfig) -> TrainingSetup:
    """Return the parts of a run, which depend on its configuration alone.

    Raises:
        RunError: the configuration does not fit the architecture or the data.
        CorpusError: the data has no music, or is a corpus of another tokenizer.
        CheckpointError: no such checkpoint to start from.
    """
    import torch

    from .. import checkpoint, models
    from ..data import open_source
    from ..evaluation import masked_pieces, measured_pieces, sample_pieces

    started = checkpoint.load(plan.start_from) if plan.start_from else None
    source = open_source(plan.data, _wanted(plan, started))
    tokenizer = source.tokenizer
    _check_pairs(plan, tokenizer)
    config = _config(plan, started, tokenizer)
    crops = _crops(plan, source.pieces("train"), tokenizer, config.get("context"))
    device = resolve_device(plan.device)
    recipe = _recipe(plan, crops, device)
    torch.manual_seed(plan.seed)
    try:
        model, average = (models.create(plan.arch, tokenizer.vocab_size, **config) for _ in range(2))
    except (TypeError, ValueError) as error:
        raise RunError(f"there is no such model: {error}") from error
    base = None
    if started is not None:
        start(plan, started, model)
        if plan.frozen and started.name in (*checkpoint.bundled(), *checkpoint.installed()):
            base = started
    if plan.compile:
        _compile(model, device)
    log.debug("%s, %d parameters, %s; %s on %s", plan.arch, model.num_parameters, config, recipe, device)
    log.debug("%s, %d ids; features %s", tokenizer.name, tokenizer.vocab_size, tokenizer.feature_sizes)
    validation = sample_pieces(source.pieces("validation"), MAX_VALIDATION_TOKENS)
    return TrainingSetup(
        corpus=source,
        tokenizer=tokenizer,
        started=started,
        base=base,
        model=model.to(device),
        average=average.to(device),
        crops=crops,
        recipe=recipe,
        teacher=_teacher(plan.teachers, tokenizer, device),
        validation=(
            masked_pieces(tokenizer, validation)
            if tokenizer.supports_infilling
            else measured_pieces(tokenizer, validation)
        ),
    )


def _check_pairs(plan: TrainConfig, tokenizer: Any) -> None:
    """Refuse an architecture or crops that the tokens are not for.

    Raises:
        RunError: an encoder and decoder without pairs, or contiguous crops of pairs.
    """
    from .. import models

    if models.kind_of(plan.arch) == models.SEQ2SEQ and not tokenizer.is_paired:
        raise RunError(
            f"'{plan.arch}' learns from pairs of a source and a target, and tokens of '{tokenizer.name}' have none: build the "
            "corpus with --tokenizer score-pairs"
        )
    if tokenizer.is_paired and plan.crops == "contiguous":
        raise RunError("--crops contiguous: pairs are read in crops by themselves")


def _crops(
    plan: TrainConfig, pieces: Sequence[Any], tokenizer: Any, context: int | None
) -> RandomCrops | ContiguousCrops | PairCrops:
    """Return the crops that a run is trained on.

    Crops are as long as the context of a model that has one: distances that were never trained must not occur later.
    """
    from .. import models
    from ..data.contiguous import ContiguousCrops
    from ..data.crops import RandomCrops
    from ..data.pair_crops import PairCrops
    from ..data.store import Pieces

    training = models.training(plan.arch)
    length = plan.window or context or training["window"]
    kind: Any = ContiguousCrops if resolve_crops(plan) == "contiguous" else RandomCrops
    if tokenizer.is_paired:
        is_joined = models.kind_of(plan.arch) == models.CAUSAL
        if is_joined:  # its context has both sides
            length = plan.window or (context or training["window"]) // 2
        kind = functools.partial(PairCrops, joined=is_joined)
    tokens: Sequence[Any]
    pitches: Any
    if isinstance(pieces, Pieces):  # of a store, which are read on access
        tokens, pitches = pieces.tokens, pieces.pitches
    else:
        tokens, pitches = [piece.tokens for piece in pieces], [piece.pitches for piece in pieces]
    crops: RandomCrops | ContiguousCrops | PairCrops = kind(
        tokens,
        tokenizer,
        pitches=pitches,
        length=min(length, context or length),
        batch_size=plan.batch_size or training["batch_size"],
        seed=plan.seed,
        weights=_weights(pieces, plan.weights),
    )
    log.debug("%d pieces, %d tokens, %d per batch", len(pieces), crops.tokens_an_epoch, crops.tokens_a_batch)
    return crops


def resolve_crops(plan: TrainConfig) -> str:
    """Return which crops a run has, random or contiguous.

    Raises:
        RunError: they are contiguous, and the architecture or a teacher cannot carry its state from crop to crop.
    """
    from .. import models

    crops: str = plan.crops or models.training(plan.arch).get("crops", "random")
    if crops == "contiguous":
        if not models.starts_from_zeros(plan.arch):
            able = ", ".join(name for name in models.names() if models.starts_from_zeros(name))
            raise RunError(f"--crops contiguous: '{plan.arch}' cannot carry its state from crop to crop; {able} can")
        if plan.teachers:
            raise RunError("--teacher needs --crops random: teachers read each crop by itself")
    return crops


def _recipe(plan: TrainConfig, crops: RandomCrops | ContiguousCrops | PairCrops, device: str) -> Recipe:
    """Return the recipe: the budget in steps and seconds, and the learning rate, lower for fine-tuning."""
    from .. import models
    from .optim import Recipe

    steps = plan.steps
    if plan.epochs is not None:
        by_epochs = max(1, round(plan.epochs * crops.tokens_an_epoch / crops.tokens_a_batch))
        steps = by_epochs if steps is None else min(steps, by_epochs)
    is_tuned = bool(plan.start_from)
    peak = models.training(plan.arch)["learning_rate"] * (TUNED_RATE if is_tuned else 1.0)
    return Recipe(
        steps=steps,
        seconds=None if plan.minutes is None else 60 * plan.minutes,
        learning_rate=plan.learning_rate or peak,
        warmup_steps=TUNED_WARM_UP if is_tuned else 100,
        seed=plan.seed,
        bf16=resolve_bf16(plan.precision, device),
    )


def _compile(model: LanguageModel, device: str) -> None:
    """Compile a model in place, or warn that there is no compiler."""
    if device == "cpu" and not _has_compiler():
        log.warning("--compile needs a C++ compiler (g++, clang++, or what CXX names), and there is none: not compiled")
    else:
        model.compile()


def _wanted(plan: TrainConfig, started: Any) -> Any:
    """Return the tokenizer of the configuration, or that of the checkpoint; None for the default of the data.

    Raises:
        RunError: the checkpoint has another vocabulary.
    """
    from .. import models, tokenizers

    theirs = None if started is None else started.tokenizer()
    if plan.tokenizer is None:
        is_new = started is None or started.arch != plan.arch
        if models.kind_of(plan.arch) == models.SEQ2SEQ and is_new:
            return None if _is_store(plan.data) else tokenizers.create("score-pairs")
        return theirs
    wanted = tokenizers.parse(plan.tokenizer)
    if theirs is not None and wanted.plain_size != theirs.plain_size:
        raise RunError(f"the model '{started.name}' has tokens of '{theirs.name}', not of '{wanted.name}'")
    return wanted


def _is_store(data: str | None) -> bool:
    """Return whether data is a corpus, which has its tokenizer already."""
    from ..data import is_store

    return data is not None and is_store(Path(data))


def _config(plan: TrainConfig, started: Any, tokenizer: Any) -> dict[str, Any]:
    """Return the fields of the model's `Config`: preset or checkpoint, then the tokenizer's, then those that are set.

    Raises:
        RunError: a field that the architecture does not have, or that the checkpoint determines.
    """
    from .. import models

    preset = models.preset(plan.arch, plan.preset)
    config = dict(preset)
    if started is not None:
        config = config_of(plan, started, tokenizer, preset)
    config |= tokenizer.model_config
    if "global_ids" in models.fields(plan.arch):
        config["global_ids"] = tokenizer.global_ids
    if "aligned_features" in models.fields(plan.arch):
        config["aligned_features"] = tuple(tokenizer.aligned_features)
        config["alignment_slopes"] = tuple(tokenizer.aligned_features.values())
    for name, number in sorted(plan.config.items()):
        if name not in preset:
            own = ", ".join(sorted(preset))
            raise RunError(f"the architecture '{plan.arch}' has no '{name}' to set: it has {own}")
        if isinstance(preset[name], bool) and number not in (0, 1):
            raise RunError(f"{name} is 0 or 1, not {number}")
        if isinstance(preset[name], str) != isinstance(number, str):
            raise RunError(f"{name} is a {'word' if isinstance(preset[name], str) else 'number'}, not {number}")
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
    """Return the ensemble of the checkpoints of these names; None without names.

    Raises:
        RunError: one of them has another tokenizer.
    """
    from .. import checkpoint
    from ..models.ensemble import Ensemble

    found = [checkpoint.load(name) for name in names]
    for each in found:
        own = each.tokenizer()
        has_features = own.feature_sizes == tokenizer.feature_sizes[: len(own.feature_sizes)]
        if own.name != tokenizer.name or own.vocab_size != tokenizer.vocab_size or not has_features:
            theirs = own.name
            other = f"tokens of '{theirs}', not of" if theirs != tokenizer.name else "another version or options of"
            raise RunError(f"the teacher '{each.name}' has {other} '{tokenizer.name}'")
    return Ensemble([each.model() for each in found]).eval().requires_grad_(False).to(device) if found else None


def _weights(pieces: Sequence[Any], by_folder: dict[str, float]) -> list[float] | None:
    """Return the sampling weight of each piece, by which its length is multiplied; None if all have the same.

    Raises:
        RunError: no piece comes from one of the folders.
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
    """Return whether a C++ compiler is on the path."""
    names = (os.environ.get("CXX"), "g++", "clang++", "c++", "cl")
    return any(shutil.which(name) for name in names if name)
