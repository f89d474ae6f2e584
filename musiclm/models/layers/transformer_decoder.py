"""Decoding with a transformer, one token per batch element: few operations, and few bytes read per step.

B batch, T tokens, H heads, S keys, D size of the model, E size of a head, R distances, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from torch import Tensor, nn

from ... import devices
from ..base import Embedding, LanguageModel, State, host_counts
from . import quantized
from .cached_attention import FloatAttention, PackedAttention, with_all_slots
from .incremental import IncrementalBlock, IncrementalModel
from .step_graph import GraphedStep, capture


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockWeights:
    """The parameters of one pre-norm block with relative attention: x + attention(norm(x)), x + feed-forward(norm(x)).

    Attributes:
        norm_attention, norm_forward: before each sub-layer.
        queries_keys_values: D -> 3 D.
        distances_HRE: a vector for each head and distance 0 … R - 1.
        out: D -> D, after attention.
        up, down: D -> 4 D -> D, with GELU between them.
        distance_bias_HR: a number for each head and distance, which is added to the queries' products with
            `distances_HRE`; None for zeros.
    """

    norm_attention: nn.LayerNorm
    queries_keys_values: nn.Linear
    distances_HRE: Tensor
    out: nn.Linear
    norm_forward: nn.LayerNorm
    up: nn.Linear
    down: nn.Linear
    distance_bias_HR: Tensor | None = None


class IncrementalTransformer(IncrementalModel):
    """The form of a transformer for decoding: one token at a time runs on packed weights, several as in training.

    The state is the number of tokens so far, (B,), followed by the KV cache of each layer.

    Args:
        whole: the model. Its state is the number of cached tokens, (B,), then keys and values of each layer,
            (B, H, S, E), in chronological order.
        blocks: its parameters, layer by layer.
        norm: after the last block.
        precision: of the packed weights.
    """

    def __init__(
        self, whole: LanguageModel, blocks: Sequence[BlockWeights], norm: nn.LayerNorm, precision: str
    ) -> None:
        super().__init__(whole, precision)
        assert isinstance(whole.embedding, Embedding)
        self._embedding = quantized.fuse_embedding(whole.embedding)
        self._attentions = [_Attention(block, precision) for block in blocks]
        self._steps = [
            IncrementalBlock(block, block.out, attention, precision)
            for block, attention in zip(blocks, self._attentions, strict=True)
        ]
        self._context = blocks[0].distances_HRE.shape[1]
        self.norm = norm
        self._graphed = None
        if blocks[0].distances_HRE.is_cuda:
            self._graphed = GraphedStep(lambda *given: self._step(*given)[0], capture)

    def encode(
        self, tokens: Tensor, state: State | None = None, features: Tensor | None = None
    ) -> tuple[Tensor, State]:
        if state is None or tokens.shape[1] > 1:
            return self._read(tokens, state, features)
        num_before = int(state[0][0])
        if self._graphed is not None:
            caches = with_all_slots(state[1:], self._context)
            return self._graphed(tokens, features, caches, num_before)[:, None], (state[0] + 1, *caches)
        x_BD, after = self._step(tokens, features, state[1:], num_before)
        return x_BD[:, None], (state[0] + 1, *after)

    def _step(
        self, tokens: Tensor, features: Tensor | None, caches: State, num_before: int | Tensor
    ) -> tuple[Tensor, State]:
        """Return the hidden states of a token, (B, D), and the new caches."""
        x_BD = self._embedding(tokens, features)[:, 0]
        after: list[Tensor] = []
        each = len(caches) // len(self._steps)
        for i, step in enumerate(self._steps):
            x_BD, kept = step(x_BD, caches[each * i : each * (i + 1)], num_before)
            after += kept
        return self.norm(x_BD), tuple(after)

    def _read(self, tokens: Tensor, state: State | None, features: Tensor | None) -> tuple[Tensor, State]:
        """Return the hidden states of the whole model, run on a state of its own kind, and the new state of this one."""
        num_before = 0
        if state is not None:
            num_before = int(state[0][0])
            each = (len(state) - 1) // len(self._steps)
            opened: list[Tensor] = []
            for i, attention in enumerate(self._attentions):
                opened += attention.cached.opened(state[1 + each * i : 1 + each * (i + 1)], num_before)
            state = (host_counts(min(num_before, self._context), len(tokens)), *opened)
        hidden_BTD, after = self.whole.encode(tokens, state, features)
        count, num_seen = int(after[0][0]), num_before + tokens.shape[1]
        closed: list[Tensor] = []
        for i, attention in enumerate(self._attentions):
            keys, values = (t[:, :, max(0, count - self._context) : count] for t in after[1 + 2 * i : 3 + 2 * i])
            closed += attention.cached.closed(keys, values, num_seen)
        return hidden_BTD, (host_counts(num_seen, len(tokens)), *closed)


class _Attention:
    """Relative attention of one token per batch element."""

    def __init__(self, block: BlockWeights, precision: str) -> None:
        distances_HRE = block.distances_HRE.detach()
        weight = block.queries_keys_values.weight.detach().clone()
        bias = block.queries_keys_values.bias.detach().clone()
        size = block.out.in_features
        scale = distances_HRE.shape[2] ** -0.5
        weight[:size] *= scale  # the queries' part: the scores need no scaling any more
        bias[:size] *= scale
        self.queries_keys_values = quantized.pack_linear(weight, bias, precision)
        kind = PackedAttention if precision != "fp32" and devices.has_fbgemm(weight.device) else FloatAttention
        bias_HR = None if block.distance_bias_HR is None else block.distance_bias_HR.detach() * scale
        self.cached = kind(distances_HRE, bias_HR)

    def __call__(self, x_BD: Tensor, kept: State, num_before: int | Tensor) -> tuple[Tensor, State]:
        """Return attention, (B, D), and the KV cache."""
        return self.cached(self.queries_keys_values(x_BD), kept, num_before)
