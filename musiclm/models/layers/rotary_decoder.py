"""Decoding with a rotary transformer, one token per batch element, on packed weights.

The cache is a ring buffer of rotated keys and of values, as in `cached_attention`, without scores of distances.

B batch, T tokens, H heads, D size of the model, E size of a head, S slots that are filled, R rotations (E / 2 of them).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ... import devices
from ..base import Embedding, LanguageModel, State, on_device
from . import quantized
from .cached_attention import FloatWindow, PackedWindow, with_all_slots
from .incremental import IncrementalModel
from .positions import rotate, rotations
from .rms_norm import RMSNorm, inverse_rms
from .step_graph import GraphedStep, capture


class IncrementalRotary(IncrementalModel):
    """The form of a rotary transformer for decoding: one token at a time runs on packed weights, several as in training.

    The state is the number of tokens so far, (B,), followed by the KV cache of each layer.

    Args:
        whole: the model, with `context`, `num_heads` and `size` in its config. Its state is the number of tokens so far,
            (B,), then the last keys and values of each layer, (B, H, S, E), in chronological order.
        blocks: its blocks.
        norm: after the last block.
        precision: of the packed weights.
    """

    def __init__(self, whole: LanguageModel, blocks: Iterable[Any], norm: RMSNorm, precision: str) -> None:
        super().__init__(whole, precision)
        assert isinstance(whole.embedding, Embedding)
        self._embedding = quantized.fuse_embedding(whole.embedding)
        self.norm = norm
        self._steps = [_Step(block, self.config, precision) for block in blocks]
        self._graphed = None
        if norm.weight.is_cuda:
            self._graphed = GraphedStep(
                lambda tokens, features, caches, at: self._step(tokens, features, caches, at, at)[0], capture
            )

    def encode(
        self, tokens: Tensor, state: State | None = None, features: Tensor | None = None
    ) -> tuple[Tensor, State]:
        if state is None or tokens.shape[1] > 1:
            return self._read(tokens, state, features)
        num_before = int(state[0][0])
        if self._graphed is not None and bool((state[0] == num_before).all()):
            caches = with_all_slots(state[1:], self.config.context)
            return self._graphed(tokens, features, caches, num_before)[:, None], (state[0] + 1, *caches)
        x_BD, after = self._step(tokens, features, state[1:], num_before, on_device(state[0], tokens.device))
        return x_BD[:, None], (state[0] + 1, *after)

    def _step(
        self, tokens: Tensor, features: Tensor | None, caches: State, num_before: int | Tensor, positions: Tensor
    ) -> tuple[Tensor, State]:
        """Return the hidden states of a token at some positions, (B,) or (1,), as (B, D), and the new caches."""
        x_BD = self._embedding(tokens, features)[:, 0]
        rotations_B1R = rotations(positions, self.config.size // self.config.num_heads)[:, None]
        after: list[Tensor] = []
        for i, step in enumerate(self._steps):
            x_BD, kept = step(x_BD, rotations_B1R, caches[2 * i : 2 * i + 2], num_before)
            after += kept
        return (x_BD * inverse_rms(x_BD)).mul_(self.norm.weight), tuple(after)

    def _read(self, tokens: Tensor, state: State | None, features: Tensor | None) -> tuple[Tensor, State]:
        """Return the hidden states of the whole model, run on a state of its own kind, and the new state of this one."""
        if state is not None:
            num_before = int(state[0][0])
            opened: list[Tensor] = []
            for i, step in enumerate(self._steps):
                opened += step.attention.opened(state[1 + 2 * i : 3 + 2 * i], num_before)
            state = (state[0], *opened)
        hidden_BTD, after = self.whole.encode(tokens, state, features)
        num_seen = tokens.shape[1] + (0 if state is None else int(state[0][0]))
        closed: list[Tensor] = []
        for i, step in enumerate(self._steps):
            closed += step.attention.closed(after[1 + 2 * i], after[2 + 2 * i], num_seen)
        return hidden_BTD, (after[0], *closed)


class _Step:
    """A block for one token per batch element."""

    def __init__(self, block: Any, config: Any, precision: str) -> None:
        head_size = config.size // config.num_heads
        # the scales of the norms, and that of the scores, are parts of the weights
        qkv = block.attention.queries_keys_values.weight.detach() * block.norm_attention.weight.detach()
        qkv[: config.size] *= head_size**-0.5
        self.queries_keys_values = _pack(qkv, precision)
        self.out = _pack(block.attention.out.weight, precision)
        self.gate_up = _pack(block.gate_up.weight.detach() * block.norm_forward.weight.detach(), precision)
        self.down = _pack(block.down.weight, precision)
        # values in 8 bits are coarser than fp16 weights: in a test their error is six times that of the weights
        is_int8 = devices.ENGINES.get(precision, precision) == "int8"
        kind = PackedWindow if is_int8 else FloatWindow
        self.attention = kind(config.num_heads, head_size, config.context)

    def __call__(
        self, x_BD: Tensor, rotations_B1R: Tensor, kept: State, num_before: int | Tensor
    ) -> tuple[Tensor, State]:
        """Return the residual stream after the block, and the KV cache of its attention."""
        qkv = self.queries_keys_values(x_BD * inverse_rms(x_BD)).view(len(x_BD), 3, self.attention.num_heads, -1)
        q_k = rotate(qkv[:, :2], rotations_B1R[:, None])  # (B, 2, H, E)
        y_BD, kept = self.attention.attend(q_k[:, 0], q_k[:, 1], qkv[:, 2], kept, num_before)
        x_BD = x_BD + self.out(y_BD)
        gate, up = self.gate_up(x_BD * inverse_rms(x_BD)).chunk(2, -1)
        x_BD += self.down(F.silu(gate) * up)
        return x_BD, kept


def _pack(weight: Tensor, precision: str) -> quantized.Product:
    return quantized.pack_linear(weight, weight.new_zeros(len(weight)), precision)
