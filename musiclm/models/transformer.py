"""The Music Transformer (Huang et al. 2018): self-attention with relative positions.

Each token attends to itself and the `context - 1` tokens before it, in one pass and step by step alike. So music can be
longer than the context, at a constant cost per token. Relative positions are distances 0 … context - 1, each with a learned
vector per layer and head. The paper's skewing turns (query, distance) into (query, key) without a tensor of
queries x keys x size. Queries are processed in blocks, so that keys in a block's future are not computed: on a CPU in bf16
a layer of 8 x 512 tokens trains faster than with torch's fused attention without positions (34 ms against 45 ms).

B batch, H heads, T new tokens, S cached and new tokens, D size of the model, E size of a head, R distances,
N queries in a block, M keys that they may attend to, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..devices import resolve_precision
from .base import BaseConfig, Embedding, Head, LanguageModel, State
from .layers.attention_recording import recordable
from .layers.blocks import Block, initialize, merge_heads, split_heads
from .layers.dropout import Dropout
from .layers.transformer_decoder import BlockWeights, IncrementalTransformer

BLOCK = 128  # queries; measured on two cores: 64 and 256 are slower at 512 tokens


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(BaseConfig):
    """The hyperparameters of a Music Transformer.

    Attributes:
        size: of the residual stream; a multiple of `num_heads`.
        num_layers: blocks of attention and feed-forward.
        num_heads: attention heads per layer.
        context: number of tokens that a token attends to, including itself.
        dropout: of embeddings and of the output of each sub-layer.
    """

    size: int = 256
    num_layers: int = 4
    num_heads: int = 4
    context: int = 512
    dropout: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size % self.num_heads:
            raise ValueError(f"size must be a multiple of num_heads: {self.size} is none of {self.num_heads}")


PRESETS = {
    "tiny": {"size": 128, "num_layers": 2, "num_heads": 2, "context": 256, "dropout": 0.1},
    "small": {"size": 256, "num_layers": 4, "num_heads": 4, "context": 512, "dropout": 0.1},
    "base": {"size": 384, "num_layers": 6, "num_heads": 6, "context": 1024, "dropout": 0.1},
}
TRAINING = {"learning_rate": 1.5e-3, "batch_size": 4, "window": 512}


class Model(LanguageModel):
    """Embedding, then pre-norm blocks.

    The state is the number of cached tokens, (B,), then keys and values of each layer, (B, H, capacity, E). The first
    `count` of them are filled, and the last `context - 1` of those are attended to.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.embedding = Embedding(config, config.size)
        self.dropout = Dropout(config.dropout)
        blocks = [Block(RelativeAttention(config), config.size, config.dropout) for _ in range(config.num_layers)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(config.size)
        self.head = Head(config, config.size)
        initialize(self, blocks)

    def encode(
        self, tokens: Tensor, state: State | None = None, features: Tensor | None = None
    ) -> tuple[Tensor, State]:
        x_BTD = self.dropout(self.embedding(tokens, features))
        num_cached = 0 if state is None else int(state[0][0])
        after: list[Tensor] = []
        count = num_cached
        for i, block in enumerate(self.blocks):
            cache = None if state is None else (state[1 + 2 * i], state[2 + 2 * i], num_cached)
            x_BTD, (keys, values, count) = block(x_BTD, cache)
            after += keys, values
        counts = torch.full((tokens.shape[0],), count, dtype=torch.int64, device=tokens.device)
        return self.norm(x_BTD), (counts, *after)

    def for_generation(self, precision: str = "auto") -> LanguageModel:
        precision = resolve_precision(precision, next(self.parameters()).device)
        blocks = [block_weights(block) for block in self.blocks]
        return IncrementalTransformer(self, blocks, self.norm, precision)


def block_weights(block: Any) -> BlockWeights:
    """Return the parameters of a block for decoding one token at a time; they are shared, not copied."""
    return BlockWeights(
        norm_attention=block.norm_attention,
        queries_keys_values=block.attention.queries_keys_values,
        distances_HRE=block.attention.distances_HRE,
        out=block.attention.out,
        norm_forward=block.norm_forward,
        up=block.up,
        down=block.down,
    )


class RelativeAttention(nn.Module):
    """Causal attention to the last `context` tokens, with learned vectors for distances."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.num_heads, self.context = config.num_heads, config.context
        self.queries_keys_values = nn.Linear(config.size, 3 * config.size)
        self.out = nn.Linear(config.size, config.size)
        head_size = config.size // config.num_heads
        self.distances_HRE = nn.Parameter(torch.empty(config.num_heads, config.context, head_size))
        nn.init.normal_(self.distances_HRE, std=0.02)

    def forward(
        self, x_BTD: Tensor, cache: tuple[Tensor, Tensor, int] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor, int]]:
        """Return the output, (B, T, D), and the KV cache: keys, values and how many of them are filled."""
        q, k, v = (
            split_heads(t, self.num_heads).contiguous()  # otherwise each block of queries copies them
            for t in self.queries_keys_values(x_BTD).chunk(3, -1)
        )
        if cache is None:
            keys, values, count = k, v, k.shape[2]
        else:
            keys, count = _append(cache[0], cache[2], k, self.context)
            values, _ = _append(cache[1], cache[2], v, self.context)
        seen = max(0, count - k.shape[2] - self.context + 1)  # keys that no new token attends to
        y_BHTE = relative_attention(q, keys[:, :, seen:count], values[:, :, seen:count], self.distances_HRE)
        return self.out(merge_heads(y_BHTE)), (keys, values, count)


def _append(cache: Tensor, count: int, new: Tensor, context: int) -> tuple[Tensor, int]:
    """Return keys (or values) with the new ones after the first `count`, and the new count.

    Without gradients the cache has spare capacity and is written in place. When it is full, the part that is still attended
    to moves to a new one with capacity for another `context`, at a constant cost per token.
    """
    num_new = new.shape[2]
    if torch.is_grad_enabled() and (cache.requires_grad or new.requires_grad):
        return torch.cat([cache[:, :, :count], new], 2), count + num_new
    if count + num_new > cache.shape[2]:
        last = cache[:, :, max(0, count - context + 1) : count]
        count = last.shape[2]
        larger = cache.new_empty(*cache.shape[:2], max(2 * context, count + num_new), cache.shape[3])
        larger[:, :, :count] = last
        cache = larger
    cache[:, :, count : count + num_new] = new
    return cache, count + num_new


@recordable
def relative_attention(q_BHTE: Tensor, k_BHSE: Tensor, v_BHSE: Tensor, distances_HRE: Tensor) -> Tensor:
    """Return attention whose scores are (q·k + q·distances[query's position - key's position]) / sqrt(E).

    The last T of the S keys are at the queries' own positions. A query attends to itself and the R - 1 keys before it.

    Args:
        q_BHTE: queries.
        k_BHSE: keys, S >= T.
        v_BHSE: values.
        distances_HRE: a vector for each head and distance 0 … R - 1.

    Returns:
        (B, H, T, E), in the queries' dtype.
    """
    attend = _RelativeAttention.apply
    attended: Tensor = attend(q_BHTE * q_BHTE.shape[-1] ** -0.5, k_BHSE, v_BHSE, distances_HRE.to(q_BHTE.dtype))
    return attended


def _blocks(num_queries: int, num_keys: int, num_distances: int) -> Iterator[tuple[slice, slice]]:
    """Yield each block of queries, and the keys that it may attend to."""
    for begin in range(0, num_queries, BLOCK):
        end = min(begin + BLOCK, num_queries)
        last = num_keys - num_queries + end
        yield slice(begin, end), slice(max(0, last - (end - begin) - num_distances + 1), last)


class _RelativeAttention(torch.autograd.Function):
    """`relative_attention` of scaled queries and its gradient, which is summed in place, block by block too.

    With autograd the gradient of each slice is a whole tensor, zero outside the slice: that took a sixth of a step.
    """

    @staticmethod
    def forward(ctx: Any, q_BHTE: Tensor, k_BHSE: Tensor, v_BHSE: Tensor, distances_HRE: Tensor) -> Tensor:
        y_BHTE = q_BHTE.new_empty(*q_BHTE.shape[:3], v_BHSE.shape[3])
        num_distances = distances_HRE.shape[1]
        weights = []
        with torch.autocast(q_BHTE.device.type, enabled=False):  # all of the type that autocast has chosen already
            for new, seen in _blocks(q_BHTE.shape[2], k_BHSE.shape[2], num_distances):
                q_BHNE, k_BHME = q_BHTE[:, :, new], k_BHSE[:, :, seen]
                scores_BHNM = q_BHNE @ k_BHME.transpose(-1, -2)
                scores_BHNM += _by_distance(q_BHNE, distances_HRE, k_BHME.shape[2])
                weights.append(_masked_softmax(scores_BHNM, num_distances))
                y_BHTE[:, :, new] = weights[-1] @ v_BHSE[:, :, seen]
        ctx.save_for_backward(q_BHTE, k_BHSE, v_BHSE, distances_HRE, *weights)
        return y_BHTE

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator,unused-ignore]
    def backward(ctx: Any, dy_BHTE: Tensor) -> tuple[Tensor, ...]:
        q_BHTE, k_BHSE, v_BHSE, distances_HRE, *weights = ctx.saved_tensors
        dq, dk, dv, ddistances = (torch.zeros_like(t) for t in (q_BHTE, k_BHSE, v_BHSE, distances_HRE))
        dy_BHTE = dy_BHTE.contiguous()
        blocks = _blocks(q_BHTE.shape[2], k_BHSE.shape[2], distances_HRE.shape[1])
        for (new, seen), weights_BHNM in zip(blocks, weights, strict=True):
            q_BHNE, k_BHME, dy_BHNE = q_BHTE[:, :, new], k_BHSE[:, :, seen], dy_BHTE[:, :, new]
            dv[:, :, seen] += weights_BHNM.transpose(-1, -2) @ dy_BHNE
            dweights_BHNM = dy_BHNE @ v_BHSE[:, :, seen].transpose(-1, -2)
            dscores_BHNM = torch.ops.aten._softmax_backward_data(dweights_BHNM, weights_BHNM, -1, weights_BHNM.dtype)
            dk[:, :, seen] += dscores_BHNM.transpose(-1, -2) @ q_BHNE
            dq[:, :, new] = dscores_BHNM @ k_BHME
            _add_by_distance(dscores_BHNM, q_BHNE, distances_HRE, dq[:, :, new], ddistances)
        return dq, dk, dv, ddistances


def _by_distance(q_BHNE: Tensor, distances_HRE: Tensor, num_keys: int) -> Tensor:
    """Return (B, H, N, M): each query times the vector of its distance to each key; undefined where that is out of range.

    The last query is at the last key's position. The distance of query n to key m is n - (N - 1) + (M - 1) - m, a constant
    along diagonals. With the distances in descending order in columns, row n must be shifted by n to the left (the paper's
    skewing). Reading the same memory with rows one shorter does that.
    """
    num_queries = q_BHNE.shape[2]
    if num_queries == 1:
        return q_BHNE @ distances_HRE[:, :num_keys].flip(1).transpose(-1, -2)
    num_table_keys = min(num_keys, distances_HRE.shape[1])
    table_HRE = distances_HRE[:, :num_table_keys].flip(1)
    if before := num_keys - num_table_keys:  # beyond the largest distance: masked
        table_HRE = F.pad(table_HRE, (0, 0, before, 0))
    table_HRE = F.pad(table_HRE, (0, 0, 0, num_queries - 1))  # the future: masked
    # batch elements become rows: a batched product would copy the table for each element
    rows_HME = q_BHNE.transpose(0, 1).flatten(1, 2)
    products_BHNR = (rows_HME @ table_HRE.transpose(-1, -2)).unflatten(1, (-1, num_queries)).transpose(0, 1)
    num_columns = num_keys + num_queries - 1
    flat = products_BHNR.flatten(-2)[..., num_queries - 1 : num_queries - 1 + num_queries * (num_columns - 1)]
    return flat.unflatten(-1, (num_queries, num_columns - 1))[..., :num_keys]


def _add_by_distance(
    dscores_BHNM: Tensor, q_BHNE: Tensor, distances_HRE: Tensor, dq_BHNE: Tensor, ddistances_HRE: Tensor
) -> None:
    """Add the gradients of `_by_distance` to `dq_BHNE` and `ddistances_HRE`: the same skewing, reversed."""
    num_queries, num_keys = dscores_BHNM.shape[-2:]
    num_table_keys = min(num_keys, distances_HRE.shape[1])  # the columns' distances descend from num_keys - 1 to 0
    rows_BHNR = dscores_BHNM
    if num_queries > 1:
        num_columns = num_keys + num_queries - 1
        flat = dscores_BHNM.new_zeros(*dscores_BHNM.shape[:2], num_queries * num_columns)
        skewed = flat[..., num_queries - 1 : num_queries - 1 + num_queries * (num_columns - 1)]
        skewed.unflatten(-1, (num_queries, num_columns - 1))[..., :num_keys] = dscores_BHNM
        rows_BHNR = flat.unflatten(-1, (num_queries, num_columns))
    rows_BHNR = rows_BHNR[..., num_keys - num_table_keys : num_keys]
    rows_HMR = rows_BHNR.transpose(0, 1).flatten(1, 2)
    table_HRE = distances_HRE[:, :num_table_keys].flip(1)
    dq_BHNE += (rows_HMR @ table_HRE).unflatten(1, (-1, num_queries)).transpose(0, 1)
    ddistances_HRE[:, :num_table_keys] += (rows_HMR.transpose(1, 2) @ q_BHNE.transpose(0, 1).flatten(1, 2)).flip(1)


def _masked_softmax(scores_BHNM: Tensor, num_distances: int) -> Tensor:
    """Return attention weights over the keys at distances 0 … num_distances - 1 before each query."""
    num_queries, num_keys = scores_BHNM.shape[-2:]
    if num_queries > 1:
        allowed = torch.ones(num_queries, num_keys, dtype=torch.bool, device=scores_BHNM.device)
        allowed = allowed.tril(num_keys - num_queries)
        if num_keys > num_distances:
            allowed = allowed.triu(num_keys - num_queries - num_distances + 1)
        mask_NM = torch.zeros_like(allowed, dtype=scores_BHNM.dtype).masked_fill_(~allowed, float("-inf"))
        scores_BHNM = scores_BHNM + mask_NM  # the gradient of a sum is free, that of masked_fill is another pass
    return scores_BHNM.softmax(-1)
