"""The start of a run from a checkpoint: its hyperparameters and weights, of the same architecture or of a decoder's alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import models
from ..errors import RunError
from ..models.weights import resize_embeddings
from .config import TrainConfig

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint
    from ..models.base import LanguageModel
    from ..tokenizers.base import Tokenizer

TRAINED = ("head", "norm")  # of a frozen decoder


def config_of(plan: TrainConfig, started: Checkpoint, tokenizer: Tokenizer, preset: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of the new model's `Config`: those of the checkpoint, and what a decoder's does not have.

    Args:
        plan: the configuration of the run.
        started: the checkpoint.
        tokenizer: of the new model.
        preset: of its architecture.

    Raises:
        RunError: other tokens or features than the tokenizer's, or a field is set that the checkpoint determines.
    """
    own = started.tokenizer()
    if own.plain_size != tokenizer.plain_size:
        raise RunError(f"the model '{started.name}' has tokens of '{own.name}', not of '{tokenizer.name}'")
    theirs = dict(started.config)
    known = tuple(theirs.pop("feature_sizes", ()))
    theirs.pop("vocab_size")
    if known != tokenizer.feature_sizes[: len(known)]:
        raise RunError(
            f"the model '{started.name}' has other features than '{tokenizer.name}' now has: train a new model"
        )
    is_same = started.arch == plan.arch
    if plan.config and (is_same or set(plan.config) & set(theirs)):
        raise RunError(f"the hyperparameters of '{started.name}' are fixed: leave out --set and --layers")
    return theirs if is_same else preset | {name: theirs[name] for name in preset if name in theirs}


def start(plan: TrainConfig, started: Checkpoint, model: LanguageModel) -> None:
    """Give a new model the weights of the checkpoint that it starts from, and freeze what is to be kept.

    Raises:
        RunError: a decoder of other sizes.
        CheckpointError: layers differ.
    """
    weights = started.model().state_dict()
    if started.arch == plan.arch:
        model.load_state_dict(resize_embeddings(weights, model))
        return
    try:
        model.load_state_dict(models.warm_start(plan.arch, weights, model))
    except ValueError as error:
        raise RunError(f"'{plan.arch}' cannot start from '{started.name}': {error}") from error
    if plan.frozen:
        for name in models.of_decoder(plan.arch, weights):
            if not name.startswith(tuple(f"{part}." for part in TRAINED)):
                model.get_parameter(name).requires_grad_(False)
