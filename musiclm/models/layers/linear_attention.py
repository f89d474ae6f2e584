"""Causal attention whose weights are products of features: a running sum in place of a KV cache (Katharopoulos et al. 2020).

The weight of key s for query t is f(q_t)·g(k_s), where f and g are maps to vectors of positive features. So attention is

    y_t = f(q_t) S_t / f(q_t)·z_t,    S_t = sum of g(k_s) v_s^T,    z_t = sum of g(k_s),    over s <= t.

S and z are the whole memory of the tokens so far: one more token costs the same however many there were. In training a
sequence is cut into chunks. The weights within a chunk are a matrix, those of earlier chunks are in S and z at the chunk's
beginning. Time and memory are linear in the length. The backward pass computes features, sums and y again, so that between the
passes only q, k, v and the denominators are stored. All of it is in float32 under autocast, too: sums over a long piece
must not be rounded to 8 bits.

B batch, H heads, T tokens, D size of the model, E size of a head, F features, M size of a value, K = B H, C tokens in a chunk,
N chunks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..base import State
from .attention_recording import recordable
from .blocks import merge_heads, split_heads

CHUNK = 64  # tokens; the weights within chunks take as many numbers per token and head
LONG = 1024  # tokens; more are processed head by head


class FeatureMap(nn.Module, ABC):
    """The features of queries and keys: (..., E) -> (..., F), positive, and the gradients through them.

    Features of a query may have any common factor, which the quotient cancels. Those of keys may not.
    """

    @abstractmethod
    def of_queries(self, q: Tensor) -> Tensor:
        """Return the features of queries, in memory of their own."""

    @abstractmethod
    def of_keys(self, k: Tensor) -> Tensor:
        """Return the features of keys, in memory of their own."""

    @abstractmethod
    def to_queries(self, dfeatures: Tensor, features: Tensor, q: Tensor) -> Tensor:
        """Return the gradient of queries, given that of their features."""

    @abstractmethod
    def to_keys(self, dfeatures: Tensor, features: Tensor, k: Tensor) -> Tensor:
        """Return the gradient of keys, given that of their features."""


class LinearAttention(nn.Module):
    """Attention to all tokens so far, by a feature map."""

    def __init__(self, size: int, num_heads: int, features: FeatureMap) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.queries_keys_values = nn.Linear(size, 3 * size)
        self.out = nn.Linear(size, size)
        self.features = features

    def forward(self, x_BTD: Tensor, cache: State | None) -> tuple[Tensor, State]:
        """Return the output, (B, T, D), and the sums S, (B, H, F, M), and z, (B, H, F)."""
        q_BHTE, k_BHTE, v_BHTM = (split_heads(t, self.num_heads) for t in self.queries_keys_values(x_BTD).chunk(3, -1))
        y_BHTM, s_BHFM, z_BHF = linear_attention(q_BHTE, k_BHTE, v_BHTM, self.features, cache)
        return self.out(merge_heads(y_BHTM)), (s_BHFM, z_BHF)


@recordable
def linear_attention(
    q_BHTE: Tensor, k_BHTE: Tensor, v_BHTM: Tensor, features: FeatureMap, sums: State | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return attention, (B, H, T, M), and the sums S, (B, H, F, M), and z, (B, H, F), after the last token.

    Args:
        q_BHTE: queries.
        k_BHTE: keys at the same positions.
        v_BHTM: values.
        features: the maps f and g.
        sums: S and z of the tokens before; left out, there are none.
    """
    attend = _LinearAttention.apply
    s_BHFM, z_BHF = (None, None) if sums is None else sums
    y_BHTM, s_BHFM, z_BHF = attend(q_BHTE, k_BHTE, v_BHTM, s_BHFM, z_BHF, features)
    return y_BHTM, s_BHFM, z_BHF


def attend_one(q_BHE: Tensor, k_BHE: Tensor, v_BHM: Tensor, features: FeatureMap, sums: State) -> Tensor:
    """Return attention for one token of each batch element, (B, H M); the sums are updated in place."""
    q_BHF, k_BHF = features.of_queries(q_BHE), features.of_keys(k_BHE)
    s_BHFM, z_BHF = sums
    s_BHFM.addcmul_(k_BHF[..., None], v_BHM[..., None, :])
    z_BHF.add_(k_BHF)
    y_BHM = torch.matmul(q_BHF[..., None, :], s_BHFM)[..., 0, :]
    return y_BHM.div_((q_BHF * z_BHF).sum(-1, keepdim=True)).flatten(1)


class _LinearAttention(torch.autograd.Function):
    """`linear_attention` and its gradient: long sequences head by head, which takes less memory, short ones all at once."""

    @staticmethod
    def forward(
        ctx: Any,
        q_BHTE: Tensor,
        k_BHTE: Tensor,
        v_BHTM: Tensor,
        s_BHFM: Tensor | None,
        z_BHF: Tensor | None,
        features: FeatureMap,
    ) -> tuple[Tensor, Tensor, Tensor]:
        batch, num_heads, num_tokens = q_BHTE.shape[:3]
        y_BTHM = v_BHTM.new_empty(batch, num_tokens, num_heads, v_BHTM.shape[3])  # `merge_heads` of it is no copy
        sums, sums_of_keys, denominators = [], [], []
        with torch.autocast(q_BHTE.device.type, enabled=False):
            for heads in _parts(num_heads, num_tokens):
                chunks = _Chunks(heads, q_BHTE, k_BHTE, v_BHTM, s_BHFM, z_BHF, features)
                denominators.append(chunks.denominators())
                y = chunks.numerators().div_(denominators[-1])
                y_BTHM[:, :, heads] = _joined(y, num_tokens, batch).transpose(1, 2)
                sums.append(chunks.s_after.unflatten(0, (batch, -1)))
                sums_of_keys.append(chunks.z_after.unflatten(0, (batch, -1)))
        ctx.save_for_backward(q_BHTE, k_BHTE, v_BHTM, s_BHFM, z_BHF, *denominators)
        ctx.features = features
        return y_BTHM.transpose(1, 2), torch.cat(sums, 1), torch.cat(sums_of_keys, 1)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator,unused-ignore]
    def backward(ctx: Any, dy_BHTM: Tensor, ds_BHFM: Tensor, dz_BHF: Tensor) -> tuple[Tensor | None, ...]:
        given, denominators = ctx.saved_tensors[:5], ctx.saved_tensors[5:]
        num_heads, num_tokens = dy_BHTM.shape[1:3]
        gradients = [None if t is None else torch.empty_like(t) for t in given]
        with torch.autocast(dy_BHTM.device.type, enabled=False):
            for heads, of_part in zip(_parts(num_heads, num_tokens), denominators, strict=True):
                q, k, v, s, z = given
                chunks = _Chunks(heads, q, k, v, s, z, ctx.features)
                found = chunks.gradients(of_part, dy_BHTM[:, heads], ds_BHFM[:, heads], dz_BHF[:, heads])
                for whole, part in zip(gradients, found, strict=True):
                    if whole is not None:
                        whole[:, heads] = part
        return *gradients, None


def _parts(num_heads: int, num_tokens: int) -> list[slice]:
    """Return the heads that are computed together."""
    return [slice(0, num_heads)] if num_tokens <= LONG else [slice(h, h + 1) for h in range(num_heads)]


class _Chunks:
    """Features and sums of some heads, chunk by chunk, and what follows from them. All are computed twice, see above."""

    def __init__(
        self,
        heads: slice,
        q_BHTE: Tensor,
        k_BHTE: Tensor,
        v_BHTM: Tensor,
        s_BHFM: Tensor | None,
        z_BHF: Tensor | None,
        features: FeatureMap,
    ) -> None:
        self.batch, self.num_tokens, self.features = q_BHTE.shape[0], q_BHTE.shape[2], features
        self.q, self.k, self.v = (_chunked(t[:, heads]) for t in (q_BHTE, k_BHTE, v_BHTM))
        s_before, z_before = (None if t is None else t[:, heads] for t in (s_BHFM, z_BHF))
        self.fq, self.fk = features.of_queries(self.q), _masked(features.of_keys(self.k), self.num_tokens)
        self.s, self.s_after, self.z, self.z_after = _sums(self.fk, self.v, s_before, z_before)
        self.weights = (self.fq @ self.fk.transpose(2, 3)).tril_()

    def denominators(self) -> Tensor:
        """Return (K, N, C, 1)."""
        return self.weights.sum(-1, keepdim=True).add_(self.fq @ self.z)

    def numerators(self) -> Tensor:
        """Return (K, N, C, M)."""
        return (self.weights @ self.v).add_(self.fq @ self.s)

    def gradients(self, denominators: Tensor, dy: Tensor, ds_after: Tensor, dz_after: Tensor) -> tuple[Tensor, ...]:
        """Return the gradients of q, k, v, and of S and z before the first token."""
        fq, fk, v = self.fq, self.fk, self.v
        y = self.numerators().div_(denominators)  # not rounded, as the output is
        dnumerators = _chunked(dy).div_(denominators)
        ddenominators = -(dnumerators * y).sum(-1, keepdim=True)
        dweights = (dnumerators @ v.transpose(2, 3)).add_(ddenominators).tril_()
        dfq = (dweights @ fk).add_(dnumerators @ self.s.transpose(2, 3))
        dfq.addcmul_(ddenominators, self.z.transpose(2, 3))
        ds_begin, ds = _running(fq.transpose(2, 3) @ dnumerators, ds_after.flatten(0, 1), backwards=True)
        dz_begin, dz = _running(fq.transpose(2, 3) @ ddenominators, dz_after.flatten(0, 1)[..., None], backwards=True)
        dfk = (dweights.transpose(2, 3) @ fq).add_(v @ ds.transpose(2, 3)).add_(dz.transpose(2, 3))
        dv = (self.weights.transpose(2, 3) @ dnumerators).add_(fk @ ds)
        dq, dk = self.features.to_queries(dfq, fq, self.q), self.features.to_keys(dfk, fk, self.k)
        dq, dk, dv = (_joined(t, self.num_tokens, self.batch) for t in (dq, dk, dv))
        return dq, dk, dv, ds_begin.unflatten(0, (self.batch, -1)), dz_begin[..., 0].unflatten(0, (self.batch, -1))


def _chunked(x_BHTE: Tensor) -> Tensor:
    """Return (K, N, C, E) in memory of its own, in float32 or float64; the last chunk is filled up with zeros."""
    num_tokens = x_BHTE.shape[2]
    length = min(CHUNK, num_tokens)
    num_chunks = -(-num_tokens // length)
    dtype = x_BHTE.dtype if x_BHTE.dtype == torch.float64 else torch.float32
    chunked = torch.empty(*x_BHTE.shape[:2], num_chunks * length, x_BHTE.shape[3], dtype=dtype, device=x_BHTE.device)
    chunked[:, :, :num_tokens] = x_BHTE
    chunked[:, :, num_tokens:] = 0
    return chunked.flatten(0, 1).unflatten(1, (num_chunks, length))


def _joined(x_KNCE: Tensor, num_tokens: int, batch: int) -> Tensor:
    """Return (B, H, T, E) of a chunked tensor, without what fills up its last chunk."""
    return x_KNCE.flatten(1, 2)[:, :num_tokens].unflatten(0, (batch, -1))


def _masked(features_KNCF: Tensor, num_tokens: int) -> Tensor:
    """Return the features of keys with zeros for what fills up the last chunk."""
    features_KNCF.flatten(1, 2)[:, num_tokens:] = 0
    return features_KNCF


def _sums(
    fk_KNCF: Tensor, v_KNCM: Tensor, s_BHFM: Tensor | None, z_BHF: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return S at each chunk's beginning, (K, N, F, M), and after the last, (K, F, M); so z, (K, N, F, 1) and (K, F)."""
    of_chunks = fk_KNCF.transpose(2, 3) @ v_KNCM
    s_KFM, s = _running(of_chunks, None if s_BHFM is None else s_BHFM.flatten(0, 1))
    z_KF1, z = _running(fk_KNCF.sum(2)[..., None], None if z_BHF is None else z_BHF.flatten(0, 1)[..., None])
    return s, s_KFM, z, z_KF1[..., 0]


def _running(of_chunks: Tensor, first: Tensor | None, *, backwards: bool = False) -> tuple[Tensor, Tensor]:
    """Return `first` plus the sum of all chunks, and what each chunk finds: `first` plus the sum of those before it.

    Args:
        of_chunks: (K, N, F, any); it is overwritten. `cumsum` along a dimension that is not the last takes three times as
            long.
        first: (K, F, any); zero if left out.
        backwards: whether the chunks before are those that come later.
    """
    total = torch.zeros_like(of_chunks[:, 0]) if first is None else first.to(of_chunks.dtype, copy=True)
    for chunk in (reversed if backwards else iter)(of_chunks.unbind(1)):
        following = total + chunk
        chunk.copy_(total)
        total = following
    return total, of_chunks
