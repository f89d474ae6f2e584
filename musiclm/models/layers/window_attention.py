"""Causal attention to a sliding window and to global tokens before it, in memory that is linear in the length of the music.

A query attends to its window, W keys at the distances 0, d, 2d … of a head's dilation d, and to the last G global tokens. A key
that is both counts once, as one of the window. Queries are processed in spans. The weights are computed again in the
backward pass instead of being kept.

B batch, H heads, T new tokens, S cached and new tokens, E size of a head, N queries of a span, M keys of a span,
J slots of global tokens, F slots that a span's queries may attend to.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .attention_recording import recordable

SPAN = 128  # queries


class GlobalTokens(NamedTuple):
    """The global tokens of a pass: the G last ones before it in slots 0 … G - 1, the newest in the last, then the new ones.

    Attributes:
        num_kept: G.
        positions_BJ: of the slots; undefined in empty ones.
        before_B: the number of global tokens before the new tokens. Slot j has number before - G + j; a negative one is empty.
        counts_BT: the number of global tokens up to each new token, itself included.
        indices_BJ: of the global tokens among the new tokens, without the G slots of earlier ones.
    """

    num_kept: int
    positions_BJ: Tensor
    before_B: Tensor
    counts_BT: Tensor
    indices_BJ: Tensor


class Span(NamedTuple):
    """Queries that are processed at once, and what they attend to.

    Attributes:
        queries: among the new tokens.
        keys: among the cached and new tokens.
        near_NM: 0 for a key of the query's window, -inf for others.
        slots_BF: of the global tokens; None for none.
        far_B1NF: 0 for a global token that the query attends to, -inf for others.
    """

    queries: slice
    keys: slice
    near_NM: Tensor
    slots_BF: Tensor | None
    far_B1NF: Tensor | None


class Group(NamedTuple):
    """Neighbouring heads with one dilation, and the spans of their queries."""

    heads: slice
    spans: list[Span]


def head_groups(dilations: Sequence[int]) -> list[tuple[slice, int]]:
    """Return (heads, dilation) for each run of heads with the same dilation."""
    groups, begin = [], 0
    for dilation, run in itertools.groupby(dilations):
        end = begin + len(list(run))
        groups.append((slice(begin, end), dilation))
        begin = end
    return groups


def make_spans(
    num_new: int,
    num_cached: int,
    window: int,
    dilation: int,
    num_before: int,
    global_tokens: GlobalTokens | None,
    like: Tensor,
) -> list[Span]:
    """Return the spans of all new tokens as queries.

    Args:
        num_new: T.
        num_cached: keys in front of the new ones: as many as a window may reach.
        window: W.
        dilation: d.
        num_before: tokens before the new ones.
        global_tokens: None for none.
        like: a tensor of the masks' dtype and device.
    """
    masks: dict[tuple[int, int], Tensor] = {}
    spans = []
    for phase in range(min(dilation, num_new)):  # tokens whose positions differ by multiples of the dilation
        for begin in range(phase, num_new, SPAN * dilation):
            queries = slice(begin, min(begin + SPAN * dilation, num_new), dilation)
            num_queries = len(range(*queries.indices(num_new)))
            reach = min(window - 1, (begin + num_before) // dilation)  # keys before the first query
            first = begin - reach * dilation + num_cached
            keys = slice(first, first + (num_queries + reach - 1) * dilation + 1, dilation)
            if (num_queries, reach) not in masks:
                allowed = torch.ones(num_queries, num_queries + reach, dtype=torch.bool, device=like.device)
                allowed = allowed.tril(reach).triu(reach - window + 1)
                masks[num_queries, reach] = _mask(allowed, like)
            slots, far = None, None
            if global_tokens is not None:
                slots, far = _far(global_tokens, queries, window, dilation, num_before, like)
            spans.append(Span(queries, keys, masks[num_queries, reach], slots, far))
    return spans


def _far(
    global_tokens: GlobalTokens, queries: slice, window: int, dilation: int, num_before: int, like: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """Return the slots of global tokens that queries may attend to, and the mask of those that each does."""
    counts_BN = global_tokens.counts_BT[:, queries]
    start_B = counts_BN[:, 0] - global_tokens.before_B  # the slot of the first global token of the first query
    width = global_tokens.num_kept + int((counts_BN[:, -1] - counts_BN[:, 0]).max())
    slots_BF = start_B[:, None] + torch.arange(width, device=like.device)
    numbers_B1F = (global_tokens.before_B[:, None] - global_tokens.num_kept + slots_BF)[:, None]
    slots_BF = slots_BF.clamp_max(global_tokens.positions_BJ.shape[1] - 1)
    positions_N = torch.arange(queries.start, queries.stop, queries.step, device=like.device) + num_before
    away_BNF = positions_N[:, None] - global_tokens.positions_BJ.gather(1, slots_BF)[:, None]
    counts_BN1 = counts_BN[..., None]
    allowed = (numbers_B1F >= 0) & (numbers_B1F < counts_BN1) & (numbers_B1F >= counts_BN1 - global_tokens.num_kept)
    allowed &= ~in_window(away_BNF, window, dilation)
    if not allowed.any():
        return None, None
    return slots_BF, _mask(allowed, like)[:, None]


def in_window(away: Tensor, window: int, dilation: int) -> Tensor:
    """Return whether keys at these distances belong to the window."""
    return (away >= 0) & (away < window * dilation) & (away % dilation == 0)


def _mask(allowed: Tensor, like: Tensor) -> Tensor:
    return torch.zeros_like(allowed, dtype=like.dtype).masked_fill_(~allowed, float("-inf"))


@recordable
def window_attention(
    q_BHTE: Tensor,
    k_BHSE: Tensor,
    v_BHSE: Tensor,
    groups: Sequence[Group],
    q_far_BHTE: Tensor | None = None,
    k_far_BHJE: Tensor | None = None,
    v_kept_BHGE: Tensor | None = None,
    global_tokens: GlobalTokens | None = None,
) -> Tensor:
    """Return attention to the window and to global tokens, (B, H, T, E): one softmax over both, scaled by 1 / sqrt(E).

    Args:
        q_BHTE: queries for keys of the window.
        k_BHSE: keys; the last T are at the queries' own positions.
        v_BHSE: values.
        groups: all heads, in order.
        q_far_BHTE: queries for global tokens; None for none.
        k_far_BHJE: keys of the global tokens' slots.
        v_kept_BHGE: values of the global tokens before the new ones, whose own are taken from `v_BHSE`; None at the beginning.
        global_tokens: what is in the slots.
    """
    scale = q_BHTE.shape[-1] ** -0.5
    v_far_BHJE = None
    if global_tokens is not None:
        assert q_far_BHTE is not None
        q_far_BHTE = q_far_BHTE * scale
        new_BHJE = at(v_BHSE[:, :, v_BHSE.shape[2] - q_BHTE.shape[2] :], global_tokens.indices_BJ)
        if v_kept_BHGE is None:
            v_kept_BHGE = new_BHJE.new_zeros(*new_BHJE.shape[:2], global_tokens.num_kept, new_BHJE.shape[3])
        v_far_BHJE = torch.cat([v_kept_BHGE, new_BHJE], 2)
    attend = _WindowAttention.apply
    attended: Tensor = attend(q_BHTE * scale, k_BHSE, v_BHSE, q_far_BHTE, k_far_BHJE, v_far_BHJE, groups)
    return attended


def at(x_BHTE: Tensor, indices_BJ: Tensor) -> Tensor:
    """Return the vectors at some indices of each batch element, (B, H, J, E)."""
    return x_BHTE.gather(2, _expanded(indices_BJ, x_BHTE))


def _expanded(indices_BJ: Tensor, like_BHTE: Tensor) -> Tensor:
    return indices_BJ[:, None, :, None].expand(-1, like_BHTE.shape[1], -1, like_BHTE.shape[3])


class _WindowAttention(torch.autograd.Function):
    """`window_attention` of scaled queries and its gradient, span by span."""

    @staticmethod
    def forward(
        ctx: Any,
        q_BHTE: Tensor,
        k_BHSE: Tensor,
        v_BHSE: Tensor,
        q_far_BHTE: Tensor | None,
        k_far_BHJE: Tensor | None,
        v_far_BHJE: Tensor | None,
        groups: Sequence[Group],
    ) -> Tensor:
        # laid out as the next layer merges heads, which then copies nothing
        y_BHTE = q_BHTE.new_empty(len(q_BHTE), q_BHTE.shape[2], q_BHTE.shape[1], v_BHSE.shape[3]).transpose(1, 2)
        with torch.autocast(q_BHTE.device.type, enabled=False):  # all of the type that autocast has chosen already
            for heads, spans in groups:
                q, k, v, q_far, k_far, v_far = _of(heads, q_BHTE, k_BHSE, v_BHSE, q_far_BHTE, k_far_BHJE, v_far_BHJE)
                y = y_BHTE[:, heads]
                for span in spans:
                    weights_BHNC, _ = _weights(q, k, q_far, k_far, span)
                    near, far = weights_BHNC.split(_sizes(span), -1)
                    y_BHNE = near @ v[:, :, span.keys]
                    if span.slots_BF is not None:
                        y_BHNE += far @ at(v_far, span.slots_BF)
                    y[:, :, span.queries] = y_BHNE
        ctx.save_for_backward(q_BHTE, k_BHSE, v_BHSE, q_far_BHTE, k_far_BHJE, v_far_BHJE)
        ctx.groups = groups
        return y_BHTE

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator,unused-ignore]
    def backward(ctx: Any, dy_BHTE: Tensor) -> tuple[Any, ...]:
        saved = ctx.saved_tensors
        gradients = [None if t is None else torch.zeros_like(t, memory_format=torch.contiguous_format) for t in saved]
        for heads, spans in ctx.groups:
            q, k, v, q_far, k_far, v_far = _of(heads, *saved)
            dq, dk, dv, dq_far, dk_far, dv_far = _of(heads, *gradients)
            dy = dy_BHTE[:, heads]
            for span in spans:
                weights_BHNC, far_keys = _weights(q, k, q_far, k_far, span)
                dy_BHNE = dy[:, :, span.queries]
                near, far = weights_BHNC.split(_sizes(span), -1)
                dv[:, :, span.keys] += near.transpose(-1, -2) @ dy_BHNE
                dweights = dy_BHNE @ v[:, :, span.keys].transpose(-1, -2)
                if span.slots_BF is not None:
                    slots = _expanded(span.slots_BF, dv_far)
                    dv_far.scatter_add_(2, slots, far.transpose(-1, -2) @ dy_BHNE)
                    dweights = torch.cat([dweights, dy_BHNE @ at(v_far, span.slots_BF).transpose(-1, -2)], -1)
                dscores = torch.ops.aten._softmax_backward_data(dweights, weights_BHNC, -1, weights_BHNC.dtype)
                near, far = dscores.split(_sizes(span), -1)
                dq[:, :, span.queries] = near @ k[:, :, span.keys]
                dk[:, :, span.keys] += near.transpose(-1, -2) @ q[:, :, span.queries]
                if span.slots_BF is not None:
                    dq_far[:, :, span.queries] = far @ far_keys
                    dk_far.scatter_add_(2, slots, far.transpose(-1, -2) @ q_far[:, :, span.queries])
        return *gradients, None


def _of(heads: slice, *tensors: Tensor | None) -> list[Any]:
    return [None if t is None else t[:, heads] for t in tensors]


def _sizes(span: Span) -> tuple[int, int]:
    return span.near_NM.shape[1], 0 if span.far_B1NF is None else span.far_B1NF.shape[3]


def _weights(
    q_BHTE: Tensor, k_BHSE: Tensor, q_far_BHTE: Tensor | None, k_far_BHJE: Tensor | None, span: Span
) -> tuple[Tensor, Tensor | None]:
    """Return a span's weights of keys and global tokens, (B, H, N, M + F), and the global tokens' keys, (B, H, F, E)."""
    scores = q_BHTE[:, :, span.queries] @ k_BHSE[:, :, span.keys].transpose(-1, -2)
    scores += span.near_NM
    if span.slots_BF is None:
        return scores.softmax(-1), None
    assert q_far_BHTE is not None and k_far_BHJE is not None and span.far_B1NF is not None
    far_keys = at(k_far_BHJE, span.slots_BF)
    far = q_far_BHTE[:, :, span.queries] @ far_keys.transpose(-1, -2)
    far += span.far_B1NF
    return torch.cat([scores, far], -1).softmax(-1), far_keys
