"""Weights as generation holds them: a step of one row reads each of them once, and that is most of what it costs.

On x86 torch has FBGEMM's products of float32 with packed weights. In float16 they are exact but for the weights' last
bits and read half the memory of float32. In int8 (a scale for each output; activations are quantised to 8 bits as they
come) they read a quarter. Each row is computed by itself.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from ..base import Embedding

Product = Callable[[Tensor], Tensor]
"""(..., in) float32 -> (..., out) float32."""


def pack_linear(weight: Tensor, bias: Tensor, precision: str) -> Product:
    """Return x -> x weight^T + bias, with the weight held in a precision.

    Args:
        weight: (out, in) float32.
        bias: (out,) float32.
        precision: one of `PRECISIONS`.
    """
    weight, bias = weight.detach().float().contiguous(), bias.detach().float().contiguous()
    if precision == "fp32":
        return lambda x: F.linear(x, weight, bias)
    if precision == "bf16":
        weight, bias = weight.bfloat16(), bias.bfloat16()
        return lambda x: F.linear(x.bfloat16(), weight, bias).float()
    with _fbgemm():
        if precision == "fp16":
            packed = torch.ops.quantized.linear_prepack_fp16(weight, bias)
            product = torch.ops.quantized.linear_dynamic_fp16.default
            return lambda x: product(x, packed)
        return _Int8Product(weight, bias)


class _Int8Product:
    """x -> x weight^T + bias in int8.

    FBGEMM quantises activations by the least and the greatest of all of them, so rows would depend on each other. Where
    there are several each is divided by its greatest, and two columns more, 1 and -1, with weights of 0, pin the range.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self.bias = bias
        self.ends = torch.tensor([1.0, -1.0])
        self.one = _pack(weight, bias)
        self.several: Any = None  # packed when it is needed

    def __call__(self, x: Tensor) -> Tensor:
        product = torch.ops.quantized.linear_dynamic.default
        if x.shape[0] == 1:
            y: Tensor = product(x, self.one)
            return y
        if self.several is None:
            weight = torch.ops.quantized.linear_unpack(self.one)[0].dequantize()
            with _fbgemm():
                self.several = _pack(F.pad(weight, (0, 2)), None)
        most = x.abs().amax(1, keepdim=True).clamp_min_(1e-12)
        wide = x.new_empty(len(x), x.shape[1] + 2)
        torch.div(x, most, out=wide[:, :-2])
        wide[:, -2:] = self.ends
        return torch.addcmul(self.bias, product(wide, self.several), most)


def _pack(weight: Tensor, bias: Tensor | None) -> Any:
    """Return a weight for FBGEMM in int8, with a scale for each output."""
    scales = weight.abs().amax(1).clamp_min(1e-12).double() / 127
    zeros = torch.zeros(len(scales), dtype=torch.int64)
    quantised = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
    return torch.ops.quantized.linear_prepack(quantised, bias)


def fuse_embedding(embedding: Embedding) -> Callable[[Tensor, Tensor | None], Tensor]:
    """Return what an `Embedding` does, in one look-up for the token and all its features."""
    tables = [t.weight.detach() for t in embedding.modules() if isinstance(t, nn.Embedding)]  # the token's is first
    if len(tables) == 1:
        return embedding
    begins = torch.tensor([0, *itertools.accumulate(len(t) for t in tables[:-1])], device=tables[0].device)
    table = torch.cat(tables)

    def embedded(tokens: Tensor, features: Tensor | None) -> Tensor:
        if features is None or features.shape[-1] != len(tables) - 1:
            return embedding.forward(tokens, features)  # which says what is wrong
        ids = torch.cat([tokens[..., None], features], -1).add_(begins)
        return F.embedding_bag(ids.flatten(0, 1), table, mode="sum").unflatten(0, tokens.shape)

    return embedded


@contextmanager
def _fbgemm() -> Iterator[None]:
    """Pack for FBGEMM: torch's default on x86 takes oneDNN for int8 where it can, 1.6 times as slow at one row."""
    engine = torch.backends.quantized.engine
    torch.backends.quantized.engine = "fbgemm"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch wants quantised tensors to be made by torchao one day
            yield
    finally:
        torch.backends.quantized.engine = engine
