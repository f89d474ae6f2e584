"""A transformer as generation runs it: one token a row by the shortest way, with few operations and little to read.

B batch, H heads, S keys that are seen, D size of the model, E size of a head, R distances, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ... import devices
from ..base import LanguageModel, State
from . import quantized
from .cached_attention import FloatAttention, PackedAttention


class IncrementalTransformer(LanguageModel):
    """A model that reads several tokens at once as in training, and one at a time by the shortest way.

    The state is how many tokens came before, (B,), then what each layer's attention keeps.
    """

    def __init__(self, whole: Any, precision: str) -> None:
        super().__init__(whole.config)
        self.whole = whole
        self._embedding = quantized.fuse_embedding(whole.embedding)
        self._steps = [IncrementalBlock(block, precision) for block in whole.blocks]
        self._readout = quantized.pack_linear(whole.readout.weight, whole.readout.bias, precision)

    def forward(
        self, tokens: Tensor, state: State | None = None, features: Tensor | None = None
    ) -> tuple[Tensor, State]:
        if state is None or tokens.shape[1] > 1:
            return self._read(tokens, state, features)
        num_before = int(state[0][0])
        x_BD = self._embedding(tokens, features)[:, 0]
        after: list[Tensor] = []
        each = (len(state) - 1) // len(self._steps)
        for i, step in enumerate(self._steps):
            x_BD, kept = step(x_BD, state[1 + each * i : 1 + each * (i + 1)], num_before)
            after += kept
        x_BD = self.whole.norm(x_BD)
        logits_BTV = self.whole.readout.with_steps(self._readout(x_BD)[:, None], x_BD[:, None], features)
        return logits_BTV, (state[0] + 1, *after)

    def _read(self, tokens: Tensor, state: State | None, features: Tensor | None) -> tuple[Tensor, State]:
        """Run the whole model, on a state of its own kind."""
        num_before = 0
        if state is not None:
            num_before = int(state[0][0])
            each = (len(state) - 1) // len(self._steps)
            opened: list[Tensor] = []
            for i, step in enumerate(self._steps):
                opened += step.attention.opened(state[1 + each * i : 1 + each * (i + 1)], num_before)
            state = (torch.full_like(state[0], min(num_before, self.config.context)), *opened)
        logits_BTV, after = self.whole.forward(tokens, state, features)
        count, num_seen = int(after[0][0]), num_before + tokens.shape[1]
        closed: list[Tensor] = []
        for i, step in enumerate(self._steps):
            keys, values = (t[:, :, max(0, count - self.config.context) : count] for t in after[1 + 2 * i : 3 + 2 * i])
            closed += step.attention.closed(keys, values, num_seen)
        return logits_BTV, (torch.full_like(after[0], num_seen), *closed)


class IncrementalBlock:
    """A block at one token a row: x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, block: Any, precision: str) -> None:
        attention = block.attention
        head_size = attention.distances_HRE.shape[2]
        weight = attention.queries_keys_values.weight.detach().clone()
        bias = attention.queries_keys_values.bias.detach().clone()
        size = attention.out.in_features
        weight[:size] *= head_size**-0.5  # of the queries: scores need not be scaled any more
        bias[:size] *= head_size**-0.5
        self.queries_keys_values = quantized.pack_linear(weight, bias, precision)
        self.out = quantized.pack_linear(attention.out.weight, attention.out.bias, precision)
        self.up = quantized.pack_linear(block.up.weight, block.up.bias, precision)
        self.down = quantized.pack_linear(block.down.weight, block.down.bias, precision)
        self.norm_attention, self.norm_forward = block.norm_attention.forward, block.norm_forward.forward
        distances_HRE = attention.distances_HRE.detach()
        kind = PackedAttention if precision != "fp32" and devices.has_fbgemm(weight.device) else FloatAttention
        self.attention = kind(distances_HRE)

    def __call__(self, x_BD: Tensor, kept: State, num_before: int) -> tuple[Tensor, State]:
        """Return the stream behind the block, and what its attention keeps."""
        qkv = self.queries_keys_values(self.norm_attention(x_BD))
        y_BD, kept = self.attention(qkv, kept, num_before)
        x_BD = x_BD + self.out(y_BD)
        x_BD += self.down(F.gelu(self.up(self.norm_forward(x_BD))))
        return x_BD, kept
