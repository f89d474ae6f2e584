"""Quantized linear layers for decoding. At batch size 1 decoding is memory-bound: fewer bits of weights are faster.

On x86 torch has FBGEMM's products of float32 activations with packed weights. In float16 they are exact except for the
last bits of the weights, which take half the memory of float32. In int8 the weights have a scale per output and take a
quarter; the activations are quantized to 8 bits on the fly (dynamic quantization). Batch elements are independent.
`musiclm.devices` decides which engine computes a precision, and checks that its products are right.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ... import devices

if TYPE_CHECKING:
    from ..base import Embedding

Product = Callable[[Tensor], Tensor]
"""(..., in) float32 -> (..., out) float32."""


def pack_linear(weight: Tensor, bias: Tensor, precision: str) -> Product:
    """Return x -> x weight^T + bias, with the weight stored in a precision.

    Args:
        weight: (out, in) float32.
        bias: (out,) float32.
        precision: one of `devices.PRECISIONS` or of `devices.ENGINES`.

    Raises:
        ValueError: there is no such precision on this machine.
    """
    weight, bias = weight.detach().float().contiguous(), bias.detach().float().contiguous()
    engine = devices.engine(precision)
    if engine == "fp32":
        return lambda x: F.linear(x, weight, bias)
    if engine == "bf16":
        weight, bias = weight.bfloat16(), bias.bfloat16()
        return lambda x: F.linear(x.bfloat16(), weight, bias).float()
    if engine == "fbgemm-fp16":
        packed, product = devices.pack_for_fbgemm(engine, weight, bias), devices.fbgemm_product(engine)
        return lambda x: product(x, packed)
    return _Int8Product(weight, bias, engine)


class _Int8Product:
    """x -> x weight^T + bias by an int8 engine.

    FBGEMM quantizes activations by the minimum and the maximum of the whole batch, so batch elements would depend on
    each other. With more than one, each is divided by its largest magnitude, and two more columns, 1 and -1, whose
    weights are 0, fix the range.
    """

    def __init__(self, weight: Tensor, bias: Tensor, engine: str) -> None:
        self.engine = engine
        self.bias = bias
        self.ends = torch.tensor([1.0, -1.0])
        self.product = devices.fbgemm_product(engine)
        self.one = devices.pack_for_fbgemm(engine, weight, bias)
        self.several: Any = None  # packed when it is needed

    def __call__(self, x: Tensor) -> Tensor:
        if x.shape[0] == 1:
            return self.product(x, self.one)
        if self.several is None:
            weight = torch.ops.quantized.linear_unpack(self.one)[0]
            scales = weight.q_per_channel_scales()
            self.several = devices.pack_for_fbgemm(self.engine, F.pad(weight.dequantize(), (0, 2)), None, scales)
        largest = x.abs().amax(1, keepdim=True).clamp_min_(1e-12)
        wide = x.new_empty(len(x), x.shape[1] + 2)
        torch.div(x, largest, out=wide[:, :-2])
        wide[:, -2:] = self.ends
        return torch.addcmul(self.bias, self.product(wide, self.several), largest)


def fuse_embedding(embedding: Embedding) -> Callable[[Tensor, Tensor | None], Tensor]:
    """Return a function that equals an `Embedding`, with one look-up for the token and all its features."""
    tables = [t.weight.detach() for t in embedding.modules() if isinstance(t, nn.Embedding)]  # the token's is first
    if len(tables) == 1:
        return embedding
    begins = torch.tensor([0, *itertools.accumulate(len(t) for t in tables[:-1])], device=tables[0].device)
    table = torch.cat(tables)

    def embedded(tokens: Tensor, features: Tensor | None) -> Tensor:
        if features is None or features.shape[-1] != len(tables) - 1:
            return embedding.forward(tokens, features)  # which raises the error
        ids = torch.cat([tokens[..., None], features], -1).add_(begins)
        return F.embedding_bag(ids.flatten(0, 1), table, mode="sum").unflatten(0, tokens.shape)

    return embedded
