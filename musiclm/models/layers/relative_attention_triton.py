"""Relative attention on a GPU by Triton kernels: scores are never in memory, forward or backward.

The online softmax is that of FlashAttention (Dao et al. 2022), the skewing that of the Music Transformer (Huang et al. 2018).
A tile has N queries and N keys. In it the distance of query n to key m is base + n - m, so 2 N - 1 vectors of distances
occur: the queries' products with these are computed as a matrix, from which `tl.gather` takes the diagonals. All tiles with
the same base lie on a diagonal of the matrix of scores, and each has the same distances: the gradient of distances is summed
along diagonals. No sum is atomic, so equal inputs give equal gradients.

Sums are in float32, products of float32 are not rounded to TF32. The backward pass computes the weights again from the
logarithms of their sums. What is tested without a GPU is the arithmetic, by Triton's interpreter; speeds are unmeasured.

B batch, H heads, T queries, S keys, E size of a head, R distances, N queries or keys of a tile.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

MAX_HEAD_SIZE = 128  # of what fits into a GPU's shared memory
BATCH_PARTS = 8  # in which the gradient of distances is summed: more programs run at once


def is_supported(q_BHTE: Tensor, v_BHSE: Tensor) -> bool:
    """Return whether the kernels take these queries and values: float32 or 16 bits, values as wide as queries."""
    is_float = q_BHTE.dtype in (torch.float32, torch.bfloat16, torch.float16) and v_BHSE.dtype == q_BHTE.dtype
    return is_float and q_BHTE.shape[3] == v_BHSE.shape[3] <= MAX_HEAD_SIZE


def triton_relative_attention(
    q_BHTE: Tensor,
    p_BHTE: Tensor | None,
    k_BHSE: Tensor,
    v_BHSE: Tensor,
    distances_HRE: Tensor,
    num_absent_B: Tensor | None,
) -> Tensor:
    """Return relative attention of scaled queries, (B, H, T, E); see `relative_attention`. All of one dtype and device."""
    y_BHTE: Tensor = _forward_op(q_BHTE, p_BHTE, k_BHSE, v_BHSE, distances_HRE, num_absent_B)[0]
    return y_BHTE


@triton.jit
def _load(pointer, rows, num_rows, columns, E: tl.constexpr):  # type: ignore[no-untyped-def]
    """Load rows of E numbers, zero where there is no such row."""
    is_there = (rows[:, None] >= 0) & (rows[:, None] < num_rows) & (columns[None, :] < E)
    return tl.load(pointer + rows[:, None] * E + columns[None, :], mask=is_there, other=0.0)


@triton.jit
def _store(pointer, x, rows, num_rows, columns, E: tl.constexpr):  # type: ignore[no-untyped-def]
    is_there = (rows[:, None] >= 0) & (rows[:, None] < num_rows) & (columns[None, :] < E)
    tl.store(pointer + rows[:, None] * E + columns[None, :], x.to(pointer.dtype.element_ty), mask=is_there)


@triton.jit
def _dot(a, b):  # type: ignore[no-untyped-def]
    return tl.dot(a, b, input_precision="ieee")


@triton.jit
def _scores(q, p, k, d, base, first_key, absent, S, R, N: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return the scores of a tile, (N, N), -inf where a query does not attend to a key.

    Row c of d is the vector of distance base - (N - 1) + c.
    """
    local = tl.arange(0, N)
    away = local[:, None] - local[None, :]
    by_distance = tl.gather(_dot(p, tl.trans(d)), away + (N - 1), 1)
    distance, keys = base + away, (first_key + local)[None, :]
    is_seen = (distance >= 0) & (distance < R) & (keys >= absent) & (keys < S)
    return tl.where(is_seen, _dot(q, tl.trans(k)) + by_distance, float("-inf"))


@triton.jit
def _by_distance(dscores, N: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return the gradients of the products with distances, (N, 2 N): the skewing of a tile, reversed."""
    keys = tl.arange(0, N)[:, None] + (N - 1) - tl.arange(0, 2 * N)[None, :]
    is_there = (keys >= 0) & (keys < N)
    return tl.where(is_there, tl.gather(dscores, tl.where(is_there, keys, 0), 1), 0.0)


@triton.jit
def _forward(  # type: ignore[no-untyped-def]
    q_ptr, p_ptr, k_ptr, v_ptr, d_ptr, absent_ptr, y_ptr, lse_ptr, H, T, S, R,
    SHARED: tl.constexpr, HAS_ABSENT: tl.constexpr, E: tl.constexpr, C: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """One program for each N queries of a head: attention to all tiles of keys, nearest first."""
    first, bh, columns = tl.program_id(0) * N, tl.program_id(1).to(tl.int64), tl.arange(0, C)
    queries, offset, d_ptr = first + tl.arange(0, N), S - T, d_ptr + (bh % H) * R * E
    absent = 0
    if HAS_ABSENT:
        absent = tl.load(absent_ptr + bh // H)
    q = _load(q_ptr + bh * T * E, queries, T, columns, E)
    p = q
    if not SHARED:
        p = _load(p_ptr + bh * T * E, queries, T, columns, E)
    largest, total = tl.full([N], float("-inf"), tl.float32), tl.zeros([N], tl.float32)
    y = tl.zeros([N, C], tl.float32)
    for i in range(tl.minimum(tl.cdiv(R + N - 1, N), tl.cdiv(first + offset, N) + 1)):
        first_key = first + offset - i * N
        keys = first_key + tl.arange(0, N)
        k, v = _load(k_ptr + bh * S * E, keys, S, columns, E), _load(v_ptr + bh * S * E, keys, S, columns, E)
        d = _load(d_ptr, i * N - (N - 1) + tl.arange(0, 2 * N), R, columns, E)
        scores = _scores(q, p, k, d, i * N, first_key, absent, S, R, N)
        larger = tl.maximum(largest, tl.max(scores, 1))
        shift = tl.where(larger == float("-inf"), 0.0, larger)  # a row behind the last query attends to nothing
        weights, shrink = tl.exp(scores - shift[:, None]), tl.exp(largest - shift)
        total = total * shrink + tl.sum(weights, 1)
        y = y * shrink[:, None] + _dot(weights.to(v.dtype), v)
        largest = larger
    total = tl.where(total == 0.0, 1.0, total)
    _store(y_ptr + bh * T * E, y / total[:, None], queries, T, columns, E)
    tl.store(lse_ptr + bh * T + queries, largest + tl.log(total), mask=queries < T)


@triton.jit
def _weights_and_gradients(scores, lse, delta, dy, v):  # type: ignore[no-untyped-def]
    """Return a tile's attention weights and the gradients of its scores."""
    weights = tl.exp(scores - lse[:, None])
    return weights, weights * (_dot(dy, tl.trans(v)) - delta[:, None])


@triton.jit
def _backward_queries(  # type: ignore[no-untyped-def]
    q_ptr, p_ptr, k_ptr, v_ptr, d_ptr, absent_ptr, lse_ptr, delta_ptr, dy_ptr, dq_ptr, dp_ptr, H, T, S, R,
    SHARED: tl.constexpr, HAS_ABSENT: tl.constexpr, E: tl.constexpr, C: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """The gradients of N queries of a head, over all tiles of keys."""
    first, bh, columns = tl.program_id(0) * N, tl.program_id(1).to(tl.int64), tl.arange(0, C)
    queries, offset, d_ptr = first + tl.arange(0, N), S - T, d_ptr + (bh % H) * R * E
    absent = 0
    if HAS_ABSENT:
        absent = tl.load(absent_ptr + bh // H)
    q, dy = _load(q_ptr + bh * T * E, queries, T, columns, E), _load(dy_ptr + bh * T * E, queries, T, columns, E)
    p = q
    if not SHARED:
        p = _load(p_ptr + bh * T * E, queries, T, columns, E)
    lse = tl.load(lse_ptr + bh * T + queries, mask=queries < T, other=float("inf"))
    delta = tl.load(delta_ptr + bh * T + queries, mask=queries < T, other=0.0)
    dq, dp = tl.zeros([N, C], tl.float32), tl.zeros([N, C], tl.float32)
    for i in range(tl.minimum(tl.cdiv(R + N - 1, N), tl.cdiv(first + offset, N) + 1)):
        first_key = first + offset - i * N
        keys = first_key + tl.arange(0, N)
        k, v = _load(k_ptr + bh * S * E, keys, S, columns, E), _load(v_ptr + bh * S * E, keys, S, columns, E)
        d = _load(d_ptr, i * N - (N - 1) + tl.arange(0, 2 * N), R, columns, E)
        scores = _scores(q, p, k, d, i * N, first_key, absent, S, R, N)
        _, dscores = _weights_and_gradients(scores, lse, delta, dy, v)
        dq += _dot(dscores.to(k.dtype), k)
        dp += _dot(_by_distance(dscores, N).to(d.dtype), d)
    if SHARED:
        dq += dp
    else:
        _store(dp_ptr + bh * T * E, dp, queries, T, columns, E)
    _store(dq_ptr + bh * T * E, dq, queries, T, columns, E)


@triton.jit
def _backward_keys(  # type: ignore[no-untyped-def]
    q_ptr, p_ptr, k_ptr, v_ptr, d_ptr, absent_ptr, lse_ptr, delta_ptr, dy_ptr, dk_ptr, dv_ptr, H, T, S, R,
    SHARED: tl.constexpr, HAS_ABSENT: tl.constexpr, E: tl.constexpr, C: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """The gradients of N keys and values of a head, over all tiles of queries; tiles of keys begin where queries' do."""
    bh, columns, offset, d_ptr = tl.program_id(1).to(tl.int64), tl.arange(0, C), S - T, d_ptr
    block = tl.program_id(0) - tl.cdiv(offset, N)  # of queries at the same positions; negative before the first
    first_key = offset + block * N
    keys, d_ptr = first_key + tl.arange(0, N), d_ptr + (bh % H) * R * E
    absent = 0
    if HAS_ABSENT:
        absent = tl.load(absent_ptr + bh // H)
    k, v = _load(k_ptr + bh * S * E, keys, S, columns, E), _load(v_ptr + bh * S * E, keys, S, columns, E)
    dk, dv = tl.zeros([N, C], tl.float32), tl.zeros([N, C], tl.float32)
    for i in range(tl.maximum(block, 0), tl.minimum(tl.cdiv(T, N), block + tl.cdiv(R + N - 1, N))):
        queries, base = i * N + tl.arange(0, N), (i - block) * N
        q, dy = _load(q_ptr + bh * T * E, queries, T, columns, E), _load(dy_ptr + bh * T * E, queries, T, columns, E)
        p = q
        if not SHARED:
            p = _load(p_ptr + bh * T * E, queries, T, columns, E)
        lse = tl.load(lse_ptr + bh * T + queries, mask=queries < T, other=float("inf"))
        delta = tl.load(delta_ptr + bh * T + queries, mask=queries < T, other=0.0)
        d = _load(d_ptr, base - (N - 1) + tl.arange(0, 2 * N), R, columns, E)
        scores = _scores(q, p, k, d, base, first_key, absent, S, R, N)
        weights, dscores = _weights_and_gradients(scores, lse, delta, dy, v)
        dv += _dot(tl.trans(weights.to(dy.dtype)), dy)
        dk += _dot(tl.trans(dscores.to(q.dtype)), q)
    _store(dk_ptr + bh * S * E, dk, keys, S, columns, E)
    _store(dv_ptr + bh * S * E, dv, keys, S, columns, E)


@triton.jit
def _backward_distances(  # type: ignore[no-untyped-def]
    q_ptr, p_ptr, k_ptr, v_ptr, d_ptr, absent_ptr, lse_ptr, delta_ptr, dy_ptr, dd_ptr, B, H, T, S, R, PARTS,
    SHARED: tl.constexpr, HAS_ABSENT: tl.constexpr, E: tl.constexpr, C: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """The gradients of the 2 N distances on a diagonal of tiles of a head, of every PARTS-th batch element."""
    diagonal, h, part, columns = tl.program_id(0), tl.program_id(1), tl.program_id(2), tl.arange(0, C)
    offset, base, twice = S - T, diagonal * N, tl.arange(0, 2 * N)
    d = _load(d_ptr + h * R * E, base - (N - 1) + twice, R, columns, E)
    dd = tl.zeros([2 * N, C], tl.float32)
    for b in range(part, B, PARTS):
        bh = (b * H + h).to(tl.int64)
        absent = 0
        if HAS_ABSENT:
            absent = tl.load(absent_ptr + b)
        for i in range(tl.maximum(tl.cdiv(base - offset - N + 1, N), 0), tl.cdiv(T, N)):
            queries, first_key = i * N + tl.arange(0, N), i * N + offset - base
            keys = first_key + tl.arange(0, N)
            q, dy = (
                _load(q_ptr + bh * T * E, queries, T, columns, E),
                _load(dy_ptr + bh * T * E, queries, T, columns, E),
            )
            k, v = _load(k_ptr + bh * S * E, keys, S, columns, E), _load(v_ptr + bh * S * E, keys, S, columns, E)
            p = q
            if not SHARED:
                p = _load(p_ptr + bh * T * E, queries, T, columns, E)
            lse = tl.load(lse_ptr + bh * T + queries, mask=queries < T, other=float("inf"))
            delta = tl.load(delta_ptr + bh * T + queries, mask=queries < T, other=0.0)
            scores = _scores(q, p, k, d, base, first_key, absent, S, R, N)
            _, dscores = _weights_and_gradients(scores, lse, delta, dy, v)
            dd += _dot(tl.trans(_by_distance(dscores, N).to(p.dtype)), p)
    row = (part * H + h) * tl.num_programs(0) + diagonal
    _store(dd_ptr + row.to(tl.int64) * 2 * N * E, dd, twice, 2 * N, columns, E)


def _tile(q_BHTE: Tensor) -> tuple[int, dict[str, Any]]:
    """Return N, and the constants of all kernels."""
    size = q_BHTE.shape[3]
    num = 64 if q_BHTE.element_size() == 2 and size <= 64 else 32
    return num, {"E": size, "C": max(16, triton.next_power_of_2(size)), "N": num, "num_warps": 4, "num_stages": 2}


def _run_forward(
    q: Tensor, p: Tensor | None, k: Tensor, v: Tensor, distances: Tensor, absent: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return attention, (B, H, T, E), and the logarithms of the sums of the exponentials of scores, (B, H, T) float32."""
    q, k, v, distances = (t.contiguous() for t in (q, k, v, distances))
    p_given = q if p is None else p.contiguous()
    (batch, heads, length, _), num_keys, num_distances = q.shape, k.shape[2], distances.shape[1]
    y, lse = torch.empty_like(q), q.new_empty(batch, heads, length, dtype=torch.float32)
    num, constants = _tile(q)
    _forward[(triton.cdiv(length, num), batch * heads)](
        q, p_given, k, v, distances, absent, y, lse, heads, length, num_keys, num_distances,
        SHARED=p is None, HAS_ABSENT=absent is not None, **constants,
    )  # fmt: skip
    return y, lse


def _run_backward(
    q: Tensor, p: Tensor | None, k: Tensor, v: Tensor, distances: Tensor, absent: Tensor | None,
    y: Tensor, lse: Tensor, dy: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the gradients of q, p (empty if that is q), k, v and distances."""
    q, k, v, distances, dy = (t.contiguous() for t in (q, k, v, distances, dy))
    p_given = q if p is None else p.contiguous()
    (batch, heads, length, size), num_keys, num_distances = q.shape, k.shape[2], distances.shape[1]
    delta = (dy.float() * y.float()).sum(-1)
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    dp = q.new_empty(0) if p is None else torch.empty_like(q)
    num, constants = _tile(q)
    constants |= {"SHARED": p is None, "HAS_ABSENT": absent is not None}
    given = (q, p_given, k, v, distances, absent, lse, delta, dy)
    sizes = (heads, length, num_keys, num_distances)
    num_blocks, num_before = triton.cdiv(length, num), triton.cdiv(num_keys - length, num)
    _backward_queries[(num_blocks, batch * heads)](*given, dq, dp, *sizes, **constants)
    _backward_keys[(num_before + num_blocks, batch * heads)](*given, dk, dv, *sizes, **constants)
    # diagonals that have both a key and a distance: others keep the zeros
    num_diagonals = min(triton.cdiv(num_distances + num - 1, num), triton.cdiv(num_keys, num) + 1)
    parts = min(batch, BATCH_PARTS)
    by_diagonal = q.new_empty(parts, heads, num_diagonals, 2, num, size, dtype=torch.float32)
    _backward_distances[(num_diagonals, heads, parts)](*given, by_diagonal, batch, *sizes, parts, **constants)
    near, far = by_diagonal.sum(0).unbind(2)  # a diagonal shares half of its distances with each neighbour
    summed = near.new_zeros(heads, num_diagonals + 1, num, size)
    summed[:, :-1] += near
    summed[:, 1:] += far
    found = summed.flatten(1, 2)[:, num - 1 : num - 1 + num_distances]
    ddistances = torch.zeros_like(distances)
    ddistances[:, : found.shape[1]] = found
    return dq, dp, dk, dv, ddistances


# As operators of torch, so that torch.compile takes them as they are.
_FORWARD = "(Tensor q, Tensor? p, Tensor k, Tensor v, Tensor distances, Tensor? absent) -> (Tensor, Tensor)"
_BACKWARD = (
    "(Tensor q, Tensor? p, Tensor k, Tensor v, Tensor distances, Tensor? absent, Tensor y, Tensor lse, Tensor dy)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
)
_forward_op: Any = torch.library.custom_op(
    "musiclm::relative_attention", _run_forward, mutates_args=(), schema=_FORWARD
)
_backward_op: Any = torch.library.custom_op(
    "musiclm::relative_attention_backward", _run_backward, mutates_args=(), schema=_BACKWARD
)


@_forward_op.register_fake  # type: ignore[untyped-decorator,unused-ignore]
def _(q: Tensor, p: Any, k: Tensor, v: Tensor, distances: Tensor, absent: Any) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape[:3], dtype=torch.float32)


@_backward_op.register_fake  # type: ignore[untyped-decorator,unused-ignore]
def _(q: Tensor, p: Any, k: Tensor, v: Tensor, distances: Tensor, *_: Any) -> tuple[Tensor, ...]:
    dp = q.new_empty(0) if p is None else q.new_empty(q.shape)
    return q.new_empty(q.shape), dp, k.new_empty(k.shape), v.new_empty(v.shape), distances.new_empty(distances.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)


def _gradients(ctx: Any, dy: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    p = ctx.saved_tensors[1]
    dq, dp, dk, dv, ddistances = _backward_op(*ctx.saved_tensors, dy)
    return dq, None if p is None else dp, dk, dv, ddistances, None


_forward_op.register_autograd(_gradients, setup_context=_save)
