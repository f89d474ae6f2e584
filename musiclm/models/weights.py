"""Operations on the weights of whole models: temperature scaling, extrapolation and resizing."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch

from .base import Head, LanguageModel


def scale_logits(model: LanguageModel, temperature: float) -> LanguageModel:
    """Return a copy of a model whose logits are divided by a temperature."""
    copy = deepcopy(model)
    with torch.no_grad():
        for module in copy.modules():
            if isinstance(module, Head):
                for parameter in module.parameters():
                    parameter.div_(temperature)
    return copy


def extrapolate(start: LanguageModel, end: LanguageModel, factor: float) -> LanguageModel:
    """Return a model whose weights lie beyond those of `end`, `factor` times as far from `start` as they do.

    Where `end` was trained on from `start`: as if it had gone on in the direction that it took (Zheng et al. 2024).
    """
    moved = deepcopy(end)
    first, last = start.state_dict(), end.state_dict()
    moved.load_state_dict({name: torch.lerp(first[name], tensor, factor) for name, tensor in last.items()})
    return moved


def resize_embeddings(weights: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """Return the weights of a model, with those for ids that it has not got yet as they are in another.

    What features say that it has not got is nothing at first: with plain music it begins as the model that it was.
    """
    import torch

    def whole(name: str, tensor: Any) -> Any:
        if wanted[name].shape == tensor.shape:
            return tensor
        return torch.cat([tensor, wanted[name][len(tensor) :]])

    silent = {name: torch.zeros_like(tensor) for name, tensor in wanted.items() if name not in weights}
    return silent | {name: whole(name, tensor) for name, tensor in weights.items()}
