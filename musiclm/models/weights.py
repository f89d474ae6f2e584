"""Operations on the weights of whole models: temperature scaling, extrapolation and vocabulary growth."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor

from ..errors import CheckpointError
from .base import TEMPERATURE, LanguageModel


def scale_logits(model: LanguageModel, temperature: float) -> LanguageModel:
    """Return a copy of a model whose logits are divided by a temperature; see `LanguageModel.scale_logits`."""
    copy = deepcopy(model)
    copy.scale_logits(temperature)
    return copy


def extrapolate(start: LanguageModel, end: LanguageModel, factor: float) -> LanguageModel:
    """Extrapolate weights: return a model with start + factor * (end - start) (Zheng et al. 2024).

    With factor > 1, and `end` trained from `start`, the model lies beyond `end` in the direction that training took.
    Buffers, other than the temperature, are those of `end`.
    """
    moved = deepcopy(end)
    first, last = start.state_dict(), end.state_dict()
    constant = {name for name, _ in end.named_buffers()} - {TEMPERATURE}
    moved.load_state_dict(
        {name: t if name in constant else torch.lerp(first[name], t, factor) for name, t in last.items()}
    )
    return moved


def resize_embeddings(weights: dict[str, Tensor], model: LanguageModel) -> dict[str, Tensor]:
    """Resize a checkpoint's embedding and head to the larger vocabulary of a new model, and return all its weights.

    New token ids keep the fresh initialisation of `model`. The tables of new input features and of new relative-pitch
    ranges are zero, so that the model initially behaves like the checkpoint on music without them.

    Args:
        weights: the state dict of the checkpoint's model, of the same architecture and hidden size.
        model: with the new vocabulary; it is not changed.

    Raises:
        CheckpointError: tensors outside `embedding` and `head` differ.
    """
    wanted = model.state_dict()
    ends = tuple(f"{name}." for name in ("embedding", "head"))
    others = {name: tensor.shape for name, tensor in wanted.items() if not name.startswith(ends)}
    if others != {name: tensor.shape for name, tensor in weights.items() if not name.startswith(ends)}:
        raise CheckpointError("only the embedding and the head of a model can be resized, and its other layers differ")

    def grown(name: str, fresh: Tensor) -> Tensor:
        if name not in weights:
            return torch.zeros_like(fresh)
        return torch.cat([weights[name], fresh[len(weights[name]) :]])

    return {name: weights[name] if name in others else grown(name, tensor) for name, tensor in wanted.items()}
