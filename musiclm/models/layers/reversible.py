"""Reversible residual layers (Gomez et al. 2017; Kitaev et al. 2020): the backward pass computes activations again.

A layer maps two streams: x1 becomes x1 + f(x2), then x2 becomes x2 + g(x1). Both can be undone by subtraction, so only the
last streams are kept, and the memory of activations does not grow with depth.
"""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..base import State
from . import dropout


class ReversibleLayer(nn.Module):
    """A layer with the two functions of a reversible residual layer."""

    @abstractmethod
    def attended(self, x_BTD: Tensor, kept: State | None, chosen: Tensor | None) -> tuple[Tensor, State, Tensor]:
        """Return f(x), what the next tokens need, and discrete choices, which make the same f again as `chosen`.

        What the next tokens need is two tensors with gradients and one of integers.
        """

    @abstractmethod
    def forwarded(self, x_BTD: Tensor) -> Tensor:
        """Return g(x)."""

    @abstractmethod
    def parts(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Return the parameters of f and of g."""


def run_layers(
    layers: Sequence[ReversibleLayer], x_BTD: Tensor, kept: Sequence[State | None]
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return both streams after all layers, both begun with `x_BTD`, and what each layer keeps, one behind the other.

    Without earlier state activations are not kept for the backward pass. With one, autograd keeps them.
    """
    if torch.is_grad_enabled() and all(state is None for state in kept):
        parameters = [p for layer in layers for part in layer.parts() for p in part]
        first, second, *after = _Reversible.apply(layers, x_BTD, *parameters)
        return first, second, after
    first = second = x_BTD
    after = []
    for layer, state in zip(layers, kept, strict=True):
        y_BTD, new, _ = layer.attended(second, state, None)
        first = first + y_BTD
        second = second + layer.forwarded(first)
        after += new
    return first, second, after


class _Reversible(torch.autograd.Function):
    """All layers at once. Their parameters are inputs, so that they get their gradients in the usual way.

    Discrete choices (hash buckets) are kept: subtraction restores activations up to rounding only, and a choice that
    rounding changes would give the gradient of another function.
    """

    @staticmethod
    def forward(ctx: Any, layers: Sequence[ReversibleLayer], x_BTD: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        ctx.layers = layers
        ctx.randomness = []
        ctx.autocast = _autocast_of(x_BTD.device.type)
        first = second = x_BTD
        after: list[Tensor] = []
        choices = []
        for layer in layers:
            before = _randomness(layer, x_BTD.device)
            y_BTD, new, chosen = layer.attended(second, None, None)
            first = first + y_BTD
            ctx.randomness.append((before, _randomness(layer, x_BTD.device)))
            second = second + layer.forwarded(first)
            after += new
            choices.append(chosen)
        ctx.save_for_backward(first, second, *choices)
        ctx.mark_non_differentiable(*after[2::3])
        ctx.set_materialize_grads(False)
        return first, second, *after

    @staticmethod
    def backward(ctx: Any, dfirst: Tensor | None, dsecond: Tensor | None, *dafter: Tensor | None) -> tuple[Any, ...]:
        first, second, *choices = ctx.saved_tensors
        dfirst = torch.zeros_like(first) if dfirst is None else dfirst
        dsecond = torch.zeros_like(second) if dsecond is None else dsecond
        gradients: list[Tensor | None] = []
        for i, layer in reversed(list(enumerate(ctx.layers))):
            of_f, of_g = layer.parts()
            before, between = ctx.randomness[i]
            x_BTD = first.detach().requires_grad_()
            with torch.enable_grad(), _replayed(between, first.device), torch.autocast(**ctx.autocast):
                y_BTD = layer.forwarded(x_BTD)
            second = second - y_BTD.detach()
            (dx_BTD, *dg) = _gradients([y_BTD], [x_BTD, *of_g], [dsecond])
            dfirst = dfirst + dx_BTD
            x_BTD = second.detach().requires_grad_()
            with torch.enable_grad(), _replayed(before, first.device), torch.autocast(**ctx.autocast):
                y_BTD, new, _ = layer.attended(x_BTD, None, choices[i])
            first = first - y_BTD.detach()
            (dx_BTD, *df) = _gradients([y_BTD, *new[:2]], [x_BTD, *of_f], [dfirst, *dafter[3 * i : 3 * i + 2]])
            dsecond = dsecond + dx_BTD
            gradients = [*df, *dg, *gradients]
        return None, dfirst + dsecond, *gradients


def _gradients(outputs: Sequence[Tensor], inputs: Sequence[Tensor], towards: Sequence[Tensor | None]) -> list[Any]:
    """Return the gradient of each input; None for an input that takes none."""
    pairs = [(y, dy.to(y.dtype)) for y, dy in zip(outputs, towards, strict=True) if dy is not None]
    wanted = [x for x in inputs if x.requires_grad]
    found = iter(torch.autograd.grad([y for y, _ in pairs], wanted, [dy for _, dy in pairs], allow_unused=True))
    return [next(found) if x.requires_grad else None for x in inputs]


def _autocast_of(device: str) -> dict[str, Any]:
    return {
        "device_type": device,
        "dtype": torch.get_autocast_dtype(device),
        "enabled": torch.is_autocast_enabled(device),
    }


def _randomness(layer: nn.Module, device: torch.device) -> tuple[list[Tensor], list[Tensor]] | None:
    """Return the states of the random generators that dropout uses, torch's and the elements'; None in evaluation mode."""
    if not layer.training:
        return None
    of_torch = [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]
    return of_torch, dropout.generator_states()


@contextlib.contextmanager
def _replayed(states: tuple[list[Tensor], list[Tensor]] | None, device: torch.device) -> Iterator[None]:
    """Put the random generators back to earlier states within the block."""
    if states is None:
        yield
        return
    of_torch, of_elements = states
    with torch.random.fork_rng([device] if device.type == "cuda" else []), dropout.replayed(of_elements):
        torch.set_rng_state(of_torch[0])
        for state in of_torch[1:]:
            torch.cuda.set_rng_state(state, device)
        yield
