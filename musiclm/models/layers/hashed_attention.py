"""Causal attention to earlier tokens of the same hash bucket (LSH attention, Kitaev et al. 2020), exact in chunks.

Each round hashes keys by a random rotation: the bucket of x is argmax [xR; -xR] (Andoni et al. 2015). A query attends to the
last K tokens before it in its own bucket of each round. One softmax is over the keys of all rounds, which is the paper's
weighting of rounds by their sums; a key that several rounds find counts several times (no correction for duplicates). A
token attends to itself only if no round has another key.

The paper cuts sorted tokens into chunks, whose borders move with later tokens. Here the reach is counted in tokens of the
bucket, so that nothing after a token changes its attention.

B batch, H heads, R rounds, T new tokens, S keys: kept ones of all rounds and those of new tokens, P sorted keys of a round,
padded, C buckets, K reach, E size of a head.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..base import State
from .attention_recording import recordable

LEAST = -1e30  # below all scores; finite, so that a difference of two is 0


class Sorting(NamedTuple):
    """Keys in the order of buckets, and of time within a bucket, for each round.

    Attributes:
        order_BHRP: which key is at each sorted place; 0 in the padding.
        bucket_BHRP: its bucket; C and above for empty keys and in the padding.
        alone_BHS: keys of tokens that attend to themselves, since no round has an earlier token of their bucket.
        num_sorted: places that are no padding.
        reach: K.
    """

    order_BHRP: Tensor
    bucket_BHRP: Tensor
    alone_BHS: Tensor
    num_sorted: int
    reach: int


def hash_buckets(x_BHTE: Tensor, rotations_HRED: Tensor) -> Tensor:
    """Return the bucket of each vector in each round, (B, H, R, T); rotations are (heads, rounds, E, C / 2)."""
    with torch.no_grad(), torch.autocast(x_BHTE.device.type, enabled=False):
        rotations_HRED = rotations_HRED.to(torch.promote_types(x_BHTE.dtype, torch.float32))
        turned_BHRTD = x_BHTE.detach().to(rotations_HRED.dtype)[:, :, None] @ rotations_HRED
        return torch.cat([turned_BHRTD, -turned_BHRTD], -1).argmax(-1)


@torch.no_grad()
def sort_keys(new_BHRT: Tensor, filled_BHRC: Tensor | None, num_buckets: int, reach: int) -> Sorting:
    """Return the sorting of new tokens, behind the kept keys of all rounds if there are any.

    Args:
        new_BHRT: buckets of the new tokens.
        filled_BHRC: how many of each bucket's K kept keys are filled, the last ones of each; None for no kept keys.
        num_buckets: C.
        reach: K.
    """
    rounds, buckets, num_kept = new_BHRT.shape[2], new_BHRT, 0
    if filled_BHRC is not None:
        num_kept = num_buckets * reach
        ids_CK = torch.arange(num_buckets, device=new_BHRT.device)[:, None].expand(-1, reach)
        is_filled = torch.arange(reach, device=new_BHRT.device) >= reach - filled_BHRC[..., None]
        buckets = torch.cat([torch.where(is_filled, ids_CK, num_buckets).flatten(-2), new_BHRT], -1)
    bucket_BHRP, order_BHRP = torch.sort(buckets, dim=-1, stable=True)
    is_first = torch.ones_like(bucket_BHRP, dtype=torch.bool)
    is_first[..., 1:] = bucket_BHRP[..., 1:] != bucket_BHRP[..., :-1]
    alone_BHT = torch.zeros_like(is_first).scatter_(-1, order_BHRP, is_first)[..., num_kept:].all(2)
    if num_kept:  # each round has kept keys of its own, in front of the new ones
        shift_R1 = torch.arange(rounds, device=order_BHRP.device)[:, None] * num_kept
        order_BHRP = order_BHRP + torch.where(order_BHRP < num_kept, shift_R1, (rounds - 1) * num_kept)
    num_sorted = order_BHRP.shape[-1]
    padding = -num_sorted % reach
    return Sorting(
        F.pad(order_BHRP, (0, padding)),
        F.pad(bucket_BHRP, (0, padding), value=num_buckets + 1),
        F.pad(alone_BHT, (rounds * num_kept, 0)),
        num_sorted,
        reach,
    )


def last_keys(k_BHSE: Tensor, v_BHSE: Tensor, sorting: Sorting, num_buckets: int) -> State:
    """Return what the next tokens may attend to: the last K keys and values of each round's buckets, and how many there are.

    Keys and values are (B, H, R C K, E) each, bucket by bucket with the newest last; the numbers are (B, H, R, C).
    """
    with torch.no_grad():
        bucket_BHRP = sorting.bucket_BHRP.clamp_max(num_buckets)  # empty keys and padding: one more bucket
        counts = bucket_BHRP.new_zeros(*bucket_BHRP.shape[:3], num_buckets + 1)
        counts = counts.scatter_add_(-1, bucket_BHRP, torch.ones_like(bucket_BHRP))[..., :num_buckets]
        places = counts.cumsum(-1)[..., None] - torch.arange(sorting.reach, 0, -1, device=counts.device)
        found = sorting.order_BHRP.gather(-1, places.clamp_min_(0).flatten(-2)).flatten(2)
    index = found[..., None].expand(-1, -1, -1, k_BHSE.shape[-1])
    return k_BHSE.gather(2, index), v_BHSE.gather(2, index), counts.clamp_max(sorting.reach)


@recordable
def hashed_attention(q_BHTE: Tensor, k_BHSE: Tensor, v_BHSE: Tensor, sorting: Sorting) -> Tensor:
    """Return attention within buckets, (B, H, T, E), with scores scaled by 1 / sqrt(E).

    The last T keys are at the queries' own positions.
    """
    num_kept = k_BHSE.shape[2] - q_BHTE.shape[2]
    q_BHSE = F.pad(q_BHTE * q_BHTE.shape[-1] ** -0.5, (0, 0, num_kept, 0)).to(k_BHSE.dtype)
    attend = _HashedAttention.apply
    attended: Tensor = attend(q_BHSE, k_BHSE, v_BHSE, sorting)
    return attended[:, :, num_kept:]


class _HashedAttention(torch.autograd.Function):
    """`hashed_attention` of scaled queries, one per key, and its gradient; the weights are computed again, not kept.

    Each block of K sorted queries attends to its own keys and to those of the block before it.
    """

    @staticmethod
    def forward(ctx: Any, q_BHSE: Tensor, k_BHSE: Tensor, v_BHSE: Tensor, sorting: Sorting) -> Tensor:
        y_BHSE = torch.empty_like(v_BHSE, memory_format=torch.contiguous_format)
        norms_BHS = q_BHSE.new_empty(q_BHSE.shape[:3], dtype=torch.promote_types(q_BHSE.dtype, torch.float32))
        with torch.autocast(q_BHSE.device.type, enabled=False):
            for b, h in torch.cartesian_prod(*map(torch.arange, q_BHSE.shape[:2])).tolist():
                order_RP = sorting.order_BHRP[b, h]
                scores_RNKM = _scores(q_BHSE[b, h], k_BHSE[b, h], sorting, b, h)
                largest_RP = scores_RNKM.amax(-1).flatten(1).clamp_min_(LEAST)
                weights = (scores_RNKM - largest_RP.view(*scores_RNKM.shape[:3], 1)).exp_()
                sums_RPE = (
                    weights.to(v_BHSE.dtype) @ _with_block_before(v_BHSE[b, h][order_RP], sorting.reach)
                ).flatten(1, 2)
                totals_RP = weights.sum(-1).flatten(1)
                y_BHSE[b, h], norms_BHS[b, h] = _joined(
                    order_RP[:, : sorting.num_sorted], largest_RP, totals_RP, sums_RPE, len(k_BHSE[b, h])
                )
        ctx.save_for_backward(q_BHSE, k_BHSE, v_BHSE, y_BHSE, norms_BHS)
        ctx.sorting = sorting
        return y_BHSE

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator,unused-ignore]
    def backward(ctx: Any, dy_BHSE: Tensor) -> tuple[Any, ...]:
        q_BHSE, k_BHSE, v_BHSE, y_BHSE, norms_BHS = ctx.saved_tensors
        sorting: Sorting = ctx.sorting
        reach = sorting.reach
        dq, dk, dv = (torch.zeros_like(t, memory_format=torch.contiguous_format) for t in (q_BHSE, k_BHSE, v_BHSE))
        deltas_BHS = (dy_BHSE * y_BHSE).sum(-1)
        for b, h in torch.cartesian_prod(*map(torch.arange, q_BHSE.shape[:2])).tolist():
            order_RP = sorting.order_BHRP[b, h]
            scores_RNKM = _scores(q_BHSE[b, h], k_BHSE[b, h], sorting, b, h)
            norms, deltas = (t[b, h][order_RP].unflatten(1, (-1, reach))[..., None] for t in (norms_BHS, deltas_BHS))
            weights = (scores_RNKM - norms).exp_().to(v_BHSE.dtype)
            weights.flatten(1, 2)[:, sorting.num_sorted :] = 0
            dy = dy_BHSE[b, h][order_RP].unflatten(1, (-1, reach))
            dweights = dy @ _with_block_before(v_BHSE[b, h][order_RP], reach).transpose(-1, -2)
            dscores = dweights.sub_(deltas).mul_(weights)
            q_RNKE = q_BHSE[b, h][order_RP].unflatten(1, (-1, reach))
            _add(dq[b, h], order_RP, (dscores @ _with_block_before(k_BHSE[b, h][order_RP], reach)).flatten(1, 2))
            _add(dk[b, h], order_RP, _without_block_before(dscores.transpose(-1, -2) @ q_RNKE, reach))
            _add(dv[b, h], order_RP, _without_block_before(weights.transpose(-1, -2) @ dy, reach))
        return dq, dk, dv, None


def _scores(q_SE: Tensor, k_SE: Tensor, sorting: Sorting, b: int, h: int) -> Tensor:
    """Return the scores of sorted blocks of queries to their keys, (R, blocks, K, 2 K); -inf for keys out of reach."""
    reach, order_RP = sorting.reach, sorting.order_BHRP[b, h]
    scores = q_SE[order_RP].unflatten(1, (-1, reach)) @ _with_block_before(k_SE[order_RP], reach).transpose(-1, -2)
    bucket_RP1 = sorting.bucket_BHRP[b, h][..., None]
    allowed = bucket_RP1.unflatten(1, (-1, reach)) == _with_block_before(bucket_RP1, reach, -1).transpose(-1, -2)
    before = torch.ones(reach, 2 * reach, dtype=torch.bool, device=q_SE.device).tril(reach - 1).triu()
    allowed &= before  # at sorted distances 1 … K
    allowed.diagonal(reach, -2, -1).copy_(sorting.alone_BHS[b, h][order_RP].unflatten(1, (-1, reach)))
    return scores.to(torch.promote_types(scores.dtype, torch.float32)).masked_fill_(~allowed, float("-inf"))


def _with_block_before(x_RPE: Tensor, reach: int, fill: int = 0) -> Tensor:
    """Return each block of K sorted vectors behind the block before it, (R, blocks, 2 K, E)."""
    x_RNKE = F.pad(x_RPE, (0, 0, reach, 0), value=fill).unflatten(1, (-1, reach))
    return torch.cat([x_RNKE[:, :-1], x_RNKE[:, 1:]], 2)


def _without_block_before(dx_RNME: Tensor, reach: int) -> Tensor:
    """Return the gradient of sorted vectors, (R, P, E), from that of `_with_block_before`."""
    dx_RNKE = dx_RNME[:, :, reach:].clone()
    dx_RNKE[:, :-1] += dx_RNME[:, 1:, :reach]
    return dx_RNKE.flatten(1, 2)


def _add(total_SE: Tensor, order_RP: Tensor, x_RPE: Tensor) -> None:
    total_SE.index_add_(0, order_RP.flatten(), x_RPE.flatten(0, 1))


def _joined(
    order_RP: Tensor, largest_RP: Tensor, totals_RP: Tensor, sums_RPE: Tensor, num_keys: int
) -> tuple[Tensor, Tensor]:
    """Return the attention of each query over all rounds, and the logarithm of its sum of exponentials.

    Args:
        order_RP: the queries, without padding.
        largest_RP: largest score of each sorted query.
        totals_RP: sum of exp(score - largest).
        sums_RPE: values weighted by these.
        num_keys: S. The places of keys that other rounds kept remain empty.
    """
    rounds, num_sorted = order_RP.shape
    largest_RS = largest_RP.new_full((rounds, num_keys), LEAST)
    largest_RS.scatter_(1, order_RP, largest_RP[:, :num_sorted])
    largest_S = largest_RS.amax(0)
    scale_RP = (largest_RP[:, :num_sorted] - largest_S[order_RP]).exp_()
    totals_S = largest_S.new_zeros(num_keys)
    totals_S.index_add_(0, order_RP.flatten(), (totals_RP[:, :num_sorted] * scale_RP).flatten())
    totals_S.clamp_min_(1e-30)
    y_SE = sums_RPE.new_zeros(num_keys, sums_RPE.shape[2])
    _add(y_SE, order_RP, sums_RPE[:, :num_sorted] * scale_RP[..., None].to(y_SE.dtype))
    return y_SE / totals_S[:, None].to(y_SE.dtype), largest_S + totals_S.log()


def attend_once(q_BHE: Tensor, k_BHE: Tensor, v_BHE: Tensor, bucket_BHR: Tensor, kept: State) -> tuple[Tensor, State]:
    """Return the attention of a single token, (B, H, E), and what is kept after it; `kept` is written into."""
    keys, values, filled_BHRC = (t.contiguous() for t in kept)
    batch, heads, rounds, num_buckets = filled_BHRC.shape
    begins = torch.arange(batch * heads * rounds, device=keys.device) * num_buckets
    found = begins + bucket_BHR.flatten()
    of_keys, of_values = (t.view(len(begins) * num_buckets, -1, t.shape[-1]) for t in (keys, values))
    k_NKE, v_NKE, filled = of_keys[found], of_values[found], filled_BHRC.view(-1)
    reach = k_NKE.shape[1]
    shape = batch * heads, rounds * reach, k_NKE.shape[2]
    scale = q_BHE.shape[-1] ** -0.5
    scores = (k_NKE.view(shape) @ q_BHE.reshape(len(begins) // rounds, -1, 1)).squeeze(-1) * scale
    num_seen = filled[found]
    is_empty = torch.arange(reach, device=keys.device) < reach - num_seen[:, None]
    scores = scores.masked_fill_(is_empty.view(scores.shape), LEAST)
    y = (scores.softmax(-1)[:, None] @ v_NKE.view(shape)).view(v_BHE.shape)
    is_alone = (num_seen == 0).view(batch, heads, rounds).all(-1)
    y = torch.where(is_alone[..., None], v_BHE, y)
    for table, seen, new_BHE in ((of_keys, k_NKE, k_BHE), (of_values, v_NKE, v_BHE)):
        new = new_BHE[:, :, None].expand(-1, -1, rounds, -1).reshape(-1, 1, new_BHE.shape[-1])
        table[found] = torch.cat([seen[:, 1:], new], 1)
    filled[found] = (num_seen + 1).clamp_max_(reach)
    return y, (keys, values, filled_BHRC)
