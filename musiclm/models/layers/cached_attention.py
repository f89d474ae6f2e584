"""KV-cache attention for one new token of each batch element.

The cache is a ring buffer: token number p is stored in slot p mod `context`, so that nothing ever moves.

B batch, H heads, S slots that are filled, E size of a head, R distances (`context` of them).
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from ..base import State

ROW_EXTRA = 8  # bytes of the scale and the offset of a row in 8 bits
GROWTH = 128  # slots that are added at a time, until there are `context`


class FloatWindow:
    """Attention in float32. The cache holds keys and values, (B, H, room, E) each, as they are."""

    def __init__(self, num_heads: int, size: int, context: int) -> None:
        self.num_heads, self.size, self.context = num_heads, size, context

    def attend(
        self, q_BHE: Tensor, k_BHE: Tensor, v_BHE: Tensor, kept: State, num_before: int | Tensor
    ) -> tuple[Tensor, State]:
        """Return the output of attention for a token, (B, H E), and the new cache.

        Args:
            q_BHE: scaled queries of the token.
            k_BHE: its keys.
            v_BHE: its values.
            kept: the cache of the tokens before it; it is written into.
            num_before: the number of tokens before it; or that in a tensor, (1,), with a cache that has room for all slots:
                then the same operations are computed at each position, see `step_graph`.
        """
        if isinstance(num_before, Tensor):
            return self._attend_at(num_before, q_BHE, k_BHE, v_BHE, kept, 0.0), kept
        slot, num_seen = num_before % self.context, min(num_before + 1, self.context)
        keys, values = (_with_room(t, 2, slot, self.context) for t in kept)
        keys[:, :, slot], values[:, :, slot] = k_BHE, v_BHE
        scores_BH1S = q_BHE[:, :, None] @ keys[:, :, :num_seen].transpose(2, 3)
        return (scores_BH1S.softmax(-1) @ values[:, :, :num_seen]).flatten(1), (keys, values)

    def _attend_at(
        self, position: Tensor, q_BHE: Tensor, k_BHE: Tensor, v_BHE: Tensor, kept: State, far_BHS: Tensor | float
    ) -> Tensor:
        """Return the output of attention, (B, H E), at a position in a tensor, (1,); `far_BHS` is added to the scores."""
        keys, values = kept
        slot = position % self.context
        keys.index_copy_(2, slot, k_BHE[:, :, None])
        values.index_copy_(2, slot, v_BHE[:, :, None])
        is_empty = torch.arange(self.context, device=position.device) > position
        scores_BHS = (q_BHE[:, :, None] @ keys.transpose(2, 3))[:, :, 0] + far_BHS
        weights_BHS = scores_BHS.masked_fill(is_empty, float("-inf")).softmax(-1)
        return (weights_BHS[:, :, None] @ values).flatten(1)

    def closed(self, keys: Tensor, values: Tensor, num_seen: int) -> State:
        """Return the cache of the last keys and values, (B, H, at most `context`, E), after `num_seen` tokens."""
        return _in_ring(keys, 2, num_seen, self.context), _in_ring(values, 2, num_seen, self.context)

    def opened(self, kept: State, num_seen: int) -> tuple[Tensor, Tensor]:
        """Return the cached keys and values in chronological order, (B, H, at most `context`, E); inverts `closed`."""
        keys, values = (_in_time(t, 2, num_seen, self.context) for t in kept)
        return keys, values


class FloatAttention(FloatWindow):
    """Attention in float32, with vectors for distances in the scores.

    Args:
        distances_HRE: a vector for each head and distance 0 … R - 1.
        bias_HR: a number for each head and distance, which is added to the scores; None for zeros.
    """

    def __init__(self, distances_HRE: Tensor, bias_HR: Tensor | None = None) -> None:
        num_heads, context, size = distances_HRE.shape
        super().__init__(num_heads, size, context)
        # twice, the farthest first: whichever slot the new token is in, a slice of them has the order of the ring
        far_HRE = distances_HRE.detach().flip(1)
        self.distances_HRE = torch.cat([far_HRE, far_HRE], 1)
        self.bias_HR = None if bias_HR is None else bias_HR.flip(1).repeat(1, 2)

    def __call__(self, qkv: Tensor, kept: State, num_before: int | Tensor) -> tuple[Tensor, State]:
        """Return the output of attention for a token, (B, H E), and the new cache.

        Args:
            qkv: scaled queries, keys and values of the token, (B, 3 H E).
            kept: the cache of the tokens before it; it is written into.
            num_before: the number of tokens before it; see `attend`.
        """
        q_BHE, k_BHE, v_BHE = qkv.view(len(qkv), 3, self.num_heads, -1).unbind(1)
        if isinstance(num_before, Tensor):
            # of each slot, where its distance is: the farthest first
            at_S = (torch.arange(self.context, device=qkv.device) - num_before - 1) % self.context
            far_HBS = torch.bmm(q_BHE.transpose(0, 1), self.distances_HRE[:, : self.context].transpose(1, 2))
            if self.bias_HR is not None:
                far_HBS += self.bias_HR[:, None, : self.context]
            far_BHS = far_HBS.index_select(2, at_S).transpose(0, 1)
            return self._attend_at(num_before, q_BHE, k_BHE, v_BHE, kept, far_BHS), kept
        slot, num_seen = num_before % self.context, min(num_before + 1, self.context)
        keys, values = (_with_room(t, 2, slot, self.context) for t in kept)
        keys[:, :, slot], values[:, :, slot] = k_BHE, v_BHE
        nearest = self.context - 1 - slot
        far_HBS = torch.bmm(q_BHE.transpose(0, 1), self.distances_HRE[:, nearest : nearest + num_seen].transpose(1, 2))
        if self.bias_HR is not None:
            far_HBS += self.bias_HR[:, None, nearest : nearest + num_seen]
        scores = torch.baddbmm(  # (B H, 1, S)
            far_HBS.transpose(0, 1).reshape(-1, 1, num_seen),
            q_BHE.flatten(0, 1)[:, None],
            keys.flatten(0, 1)[:, :num_seen].transpose(1, 2),
        )
        y = torch.bmm(scores.softmax(-1), values.flatten(0, 1)[:, :num_seen])
        return y.view(len(qkv), -1), (keys, values)


class PackedWindow:
    """Attention with keys in float16, (B, H, E, room), and values in 8 bits, (B, H, room, E + 8), on x86.

    Both products are weighted sums of rows, which torch's `embedding_bag` computes by FBGEMM: a query weighs the rows of
    the transposed keys, the attention weighs the values. It reads narrow rows at the speed of the memory, and needs one
    call for all batch elements and heads. At 1,000 keys it takes less than half the time of float32 products. Each row of
    values has a scale and an offset of its own. Sums are in float32: nothing saturates. Batch elements are independent.
    """

    def __init__(self, num_heads: int, size: int, context: int) -> None:
        self.num_heads, self.size, self.context = num_heads, size, context

    def attend(
        self, q_BHE: Tensor, k_BHE: Tensor, v_BHE: Tensor, kept: State, num_before: int | Tensor
    ) -> tuple[Tensor, State]:
        """Return the output of attention for a token, (B, H E), and the new cache: see `FloatWindow`."""
        num_before = int(num_before)
        num_bags, num_seen = len(q_BHE) * self.num_heads, min(num_before + 1, self.context)
        keys, values = self._stored(k_BHE, v_BHE, kept, num_before % self.context)
        scores = self._scores(q_BHE.reshape(-1), keys, num_bags)
        y = self._weighted(scores[:, :num_seen].float().softmax(-1), values, num_bags)
        return y.view(len(q_BHE), -1), (keys, values)

    def _stored(self, k_BHE: Tensor, v_BHE: Tensor, kept: State, slot: int) -> State:
        """Return the cache with a token's keys and values in a slot."""
        keys, values = kept
        if slot >= keys.shape[3]:
            keys, values = _with_room(keys, 3, slot, self.context), _with_room(values, 2, slot, self.context)
        keys.select(3, slot).copy_(k_BHE)
        values.select(2, slot).copy_(_pack(v_BHE.reshape(-1, self.size)).view(*v_BHE.shape[:2], -1))
        return keys, values

    def _scores(self, queries: Tensor, keys: Tensor, num_bags: int) -> Tensor:
        """Return the products of each batch element's and head's query, (B H E,), with its keys, (B H, room)."""
        rows, begins = _rows_of_keys(num_bags, self.size)
        flat = keys.view(-1, keys.shape[3])
        scores: Tensor = torch.embedding_bag(flat, rows, begins, False, 0, False, queries.to(keys.dtype))[0]
        return scores

    def _weighted(self, weights: Tensor, values: Tensor, num_bags: int) -> Tensor:
        """Return the sums of each batch element's and head's values with its weights, (B H, S) -> (B H, E)."""
        rows, begins = _rows_of_values(num_bags, values.shape[2], weights.shape[1])
        return _sums(values.view(-1, values.shape[3]), rows, begins, weights.view(-1))

    def closed(self, keys: Tensor, values: Tensor, num_seen: int) -> State:
        """Return the cache of the last keys and values: see `FloatWindow`."""
        packed = _pack(values.flatten(0, 2)).view(*values.shape[:3], self.size + ROW_EXTRA)
        return (
            _in_ring(keys.transpose(2, 3).half(), 3, num_seen, self.context),
            _in_ring(packed, 2, num_seen, self.context),
        )

    def opened(self, kept: State, num_seen: int) -> tuple[Tensor, Tensor]:
        """Return the cached keys and values in chronological order, float32; inverts `closed`."""
        keys = _in_time(kept[0], 3, num_seen, self.context).transpose(2, 3).float()
        packed = _in_time(kept[1], 2, num_seen, self.context)
        values = torch.ops.quantized.embedding_bag_byte_unpack(packed.flatten(0, 2)).view(*packed.shape[:3], self.size)
        return keys, values


class PackedAttention(PackedWindow):
    """Attention as a `PackedWindow`, with vectors for distances in the scores, in 8 bits too; see `FloatAttention`."""

    def __init__(self, distances_HRE: Tensor, bias_HR: Tensor | None = None) -> None:
        num_heads, context, size = distances_HRE.shape
        super().__init__(num_heads, size, context)
        # the farthest first, as in the ring; also of the nearest only, so that short music does not compute all of them
        lengths = [*(n for n in (128, 256, 512, 1024, 2048) if n < self.context), self.context]
        far = distances_HRE.detach().float().flip(1).transpose(1, 2).flatten(0, 1)  # (H E, R)
        self.distances = {n: _pack(far[:, self.context - n :].contiguous()) for n in lengths}
        self.bias_HR = None if bias_HR is None else bias_HR.float().flip(1)

    def __call__(self, qkv: Tensor, kept: State, num_before: int | Tensor) -> tuple[Tensor, State]:
        """Return the output of attention for a token, and the new cache: see `FloatAttention`."""
        num_before = int(num_before)
        num_bags = len(qkv) * self.num_heads
        q, k, v = qkv.view(len(qkv), 3, -1).unbind(1)
        slot, num_seen = num_before % self.context, min(num_before + 1, self.context)
        k_BHE, v_BHE = k.view(len(k), self.num_heads, -1), v.view(len(v), self.num_heads, -1)
        keys, values = self._stored(k_BHE, v_BHE, kept, slot)
        by_key = self._scores(q.reshape(-1), keys, num_bags)
        length = next(n for n in self.distances if n >= num_seen)
        rows, begins = _rows_of_distances(num_bags, self.num_heads, self.size), _rows_of_keys(num_bags, self.size)[1]
        far = _sums(self.distances[length], rows, begins, q.reshape(-1))
        if self.bias_HR is not None:
            far = (far.view(len(qkv), self.num_heads, -1) + self.bias_HR[:, self.context - length :]).flatten(0, 1)
        if num_seen < length:
            far = far[:, length - num_seen :]
        elif slot < self.context - 1:  # the ring's oldest slot follows its newest
            far = torch.cat([far[:, self.context - 1 - slot :], far[:, : self.context - 1 - slot]], 1)
        weights = (far + by_key[:, :num_seen]).softmax(-1)
        return self._weighted(weights, values, num_bags).view(len(qkv), -1), (keys, values)


def _pack(rows: Tensor) -> Tensor:
    """Return rows of float32 in 8 bits per number, each followed by its scale and its offset."""
    packed: Tensor = torch.ops.quantized.embedding_bag_byte_prepack(rows)
    return packed


def _sums(packed: Tensor, rows: Tensor, begins: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted sums of the packed rows from each begin to the next, (begins, row size) float32."""
    sums: Tensor = torch.ops.quantized.embedding_bag_byte_rowwise_offsets(
        packed, rows, begins, False, 0, False, weights
    )
    return sums


@functools.lru_cache(maxsize=8)
def _rows_of_keys(num_bags: int, size: int) -> tuple[Tensor, Tensor]:
    """Return the rows of the keys of each batch element and head in turn, and where each begins."""
    rows = torch.arange(num_bags * size, dtype=torch.int32)
    return rows, torch.arange(0, num_bags * size, size, dtype=torch.int32)


@functools.lru_cache(maxsize=8)
def _rows_of_distances(num_bags: int, num_heads: int, size: int) -> Tensor:
    return torch.arange(num_heads * size, dtype=torch.int32).repeat(num_bags // num_heads)


@functools.lru_cache(maxsize=2)  # one token's is shared by all layers
def _rows_of_values(num_bags: int, room: int, num_seen: int) -> tuple[Tensor, Tensor]:
    first = torch.arange(0, num_bags * room, room, dtype=torch.int32)
    rows = (first[:, None] + torch.arange(num_seen, dtype=torch.int32)).view(-1)
    return rows, torch.arange(0, num_bags * num_seen, num_seen, dtype=torch.int32)


def with_all_slots(kept: State, context: int) -> State:
    """Return caches of a `FloatWindow` with room for all slots; themselves if they have that."""
    return tuple(_with_room(t, 2, context - 1, context) for t in kept)


def _room(num_slots: int, context: int) -> int:
    """Return how many slots to allocate, so that `num_slots` fit."""
    return min(context, -(-num_slots // GROWTH) * GROWTH)


def _with_room(kept: Tensor, dim: int, slot: int, context: int) -> Tensor:
    """Return a cache, enlarged if it has no room for a slot yet; slots that are not filled are zero."""
    missing = _room(slot + 1, context) - kept.shape[dim]
    if missing <= 0:
        return kept
    return F.pad(kept, (0, 0) * (kept.dim() - 1 - dim) + (0, missing))


def _slots(num_seen: int, context: int) -> Tensor:
    """Return the slots of the last tokens of `num_seen`, in chronological order."""
    return torch.arange(max(0, num_seen - context), num_seen) % context


def _in_ring(in_time: Tensor, dim: int, num_seen: int, context: int) -> Tensor:
    """Return a tensor in chronological order along a dimension as a ring buffer, with room for more."""
    shape, slots = list(in_time.shape), _slots(num_seen, context).to(in_time.device)
    num_missing = len(slots) - shape[dim]  # at the beginning: the next token replaces the oldest, which may be absent
    shape[dim] = _room(len(slots), context)
    return in_time.new_zeros(shape).index_copy_(dim, slots[num_missing:], in_time)


def _in_time(kept: Tensor, dim: int, num_seen: int, context: int) -> Tensor:
    """Return a ring buffer in chronological order along a dimension."""
    return kept.index_select(dim, _slots(num_seen, context).to(kept.device))
