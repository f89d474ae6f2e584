"""Attention with relative positions: scores are products with keys, plus products with vectors of distances.

The skewing of the Music Transformer (Huang et al. 2018) turns (query, distance) into (query, key) without a tensor of
queries x keys x size. Queries are processed in blocks, so that keys in a block's future or behind its context are not
computed: with a fixed context, time and memory are linear in the number of queries. On CUDA, where Triton is installed (PyTorch
for CUDA brings it on Linux), `relative_attention_triton` computes the same.

B batch, H heads, T queries, S keys, E size of a head, R distances, N queries in a block, M keys that they may attend to.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .attention_recording import recordable

KERNELS: Any = None  # imported here: torch.compile must not meet an import
if torch.version.cuda is not None and importlib.util.find_spec("triton") is not None:
    KERNELS = importlib.import_module(".relative_attention_triton", __package__)
BLOCK = 128  # queries; measured on two cores: 64 and 256 are slower at 512 tokens


@recordable
def relative_attention(
    q_BHTE: Tensor,
    k_BHSE: Tensor,
    v_BHSE: Tensor,
    distances_HRE: Tensor,
    *,
    position_q_BHTE: Tensor | None = None,
    num_absent_B: Tensor | None = None,
) -> Tensor:
    """Return attention whose scores are (q·k + p·distances[query's position - key's position]) / sqrt(E).

    The last T of the S keys are at the queries' own positions. A query attends to itself and the R - 1 keys before it.

    Args:
        q_BHTE: queries.
        k_BHSE: keys, S >= T.
        v_BHSE: values.
        distances_HRE: a vector for each head and distance 0 … R - 1.
        position_q_BHTE: p, the queries for distances; q if left out.
        num_absent_B: how many of the first S - T keys each batch element does not have: its memory is shorter than others'.

    Returns:
        (B, H, T, E), in the queries' dtype.
    """
    attend: Any = _RelativeAttention.apply
    if q_BHTE.is_cuda and KERNELS is not None and KERNELS.is_supported(q_BHTE, v_BHSE):
        attend = KERNELS.triton_relative_attention
    return _attend(attend, q_BHTE, k_BHSE, v_BHSE, distances_HRE, position_q_BHTE, num_absent_B)


def reference_relative_attention(
    q_BHTE: Tensor,
    k_BHSE: Tensor,
    v_BHSE: Tensor,
    distances_HRE: Tensor,
    *,
    position_q_BHTE: Tensor | None = None,
    num_absent_B: Tensor | None = None,
) -> Tensor:
    """Return `relative_attention` by blocks of torch's operations, which is the same on every device."""
    attend: Any = _RelativeAttention.apply
    return _attend(attend, q_BHTE, k_BHSE, v_BHSE, distances_HRE, position_q_BHTE, num_absent_B)


def _attend(
    attend: Callable[..., Tensor],
    q_BHTE: Tensor,
    k_BHSE: Tensor,
    v_BHSE: Tensor,
    distances_HRE: Tensor,
    position_q_BHTE: Tensor | None,
    num_absent_B: Tensor | None,
) -> Tensor:
    scale = q_BHTE.shape[-1] ** -0.5
    p_BHTE = None if position_q_BHTE is None else position_q_BHTE * scale
    return attend(q_BHTE * scale, p_BHTE, k_BHSE, v_BHSE, distances_HRE.to(q_BHTE.dtype), num_absent_B)


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
    def forward(
        ctx: Any,
        q_BHTE: Tensor,
        p_BHTE: Tensor | None,
        k_BHSE: Tensor,
        v_BHSE: Tensor,
        distances_HRE: Tensor,
        num_absent_B: Tensor | None,
    ) -> Tensor:
        y_BHTE = q_BHTE.new_empty(*q_BHTE.shape[:3], v_BHSE.shape[3])
        num_distances = distances_HRE.shape[1]
        most_absent = 0 if num_absent_B is None else int(num_absent_B.max())
        by_position_BHTE = q_BHTE if p_BHTE is None else p_BHTE
        weights = []
        with torch.autocast(q_BHTE.device.type, enabled=False):  # all of the type that autocast has chosen already
            for new, seen in _blocks(q_BHTE.shape[2], k_BHSE.shape[2], num_distances):
                q_BHNE, k_BHME = q_BHTE[:, :, new], k_BHSE[:, :, seen]
                scores_BHNM = q_BHNE @ k_BHME.transpose(-1, -2)
                scores_BHNM += _by_distance(by_position_BHTE[:, :, new], distances_HRE, k_BHME.shape[2])
                if num_absent_B is not None and most_absent > seen.start:
                    keys_M = torch.arange(seen.start, seen.stop, device=q_BHTE.device)
                    is_absent_BM = keys_M < num_absent_B[:, None]
                    scores_BHNM.masked_fill_(is_absent_BM[:, None, None], float("-inf"))
                weights.append(_masked_softmax(scores_BHNM, num_distances))
                y_BHTE[:, :, new] = weights[-1] @ v_BHSE[:, :, seen]
        ctx.save_for_backward(q_BHTE, p_BHTE, k_BHSE, v_BHSE, distances_HRE, *weights)
        return y_BHTE

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator,unused-ignore]
    def backward(ctx: Any, dy_BHTE: Tensor) -> tuple[Tensor | None, ...]:
        q_BHTE, p_BHTE, k_BHSE, v_BHSE, distances_HRE, *weights = ctx.saved_tensors
        dq, dk, dv, ddistances = (torch.zeros_like(t) for t in (q_BHTE, k_BHSE, v_BHSE, distances_HRE))
        dp = None if p_BHTE is None else torch.zeros_like(p_BHTE)
        by_position, dby_position = (q_BHTE, dq) if dp is None else (p_BHTE, dp)  # one query, one gradient
        dy_BHTE = dy_BHTE.contiguous()
        blocks = _blocks(q_BHTE.shape[2], k_BHSE.shape[2], distances_HRE.shape[1])
        for (new, seen), weights_BHNM in zip(blocks, weights, strict=True):
            q_BHNE, k_BHME, dy_BHNE = q_BHTE[:, :, new], k_BHSE[:, :, seen], dy_BHTE[:, :, new]
            dv[:, :, seen] += weights_BHNM.transpose(-1, -2) @ dy_BHNE
            dweights_BHNM = dy_BHNE @ v_BHSE[:, :, seen].transpose(-1, -2)
            dscores_BHNM = torch.ops.aten._softmax_backward_data(dweights_BHNM, weights_BHNM, -1, weights_BHNM.dtype)
            dk[:, :, seen] += dscores_BHNM.transpose(-1, -2) @ q_BHNE
            dq[:, :, new] = dscores_BHNM @ k_BHME
            _add_by_distance(dscores_BHNM, by_position[:, :, new], distances_HRE, dby_position[:, :, new], ddistances)
        return dq, dp, dk, dv, ddistances, None


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
