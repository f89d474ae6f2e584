"""What the forms of models for decoding one token at a time share: a packed head, a block, and the choice between two ways.

B batch, T tokens, D hidden size, F features, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..base import TEMPERATURE, Head, LanguageModel, State
from . import quantized


class IncrementalModel(LanguageModel):
    """A model for decoding: one token at a time runs on packed weights, several tokens run as in training.

    Several tokens, and the first token of all, use the weights of the whole model in full precision.

    Args:
        whole: the model.
        precision: of the packed weights; see `quantized.pack_linear`.
    """

    def __init__(self, whole: LanguageModel, precision: str) -> None:
        super().__init__(whole.config)
        self.whole = whole
        self.head = PackedHead(whole, precision)

    def forward(
        self, tokens: Tensor, state: State | None = None, features: Tensor | None = None
    ) -> tuple[Tensor, State]:
        hidden_BTD, after = self.encode(tokens, state, features)
        is_step = state is not None and tokens.shape[1] == 1
        return (self if is_step else self.whole).logits(hidden_BTD, features), after

    def scale_logits(self, temperature: float) -> None:
        raise TypeError("the weights are packed: scale the logits before for_generation")


class IncrementalBlock:
    """A pre-norm block with GELU for one token per batch element: x + attention(norm(x)), then x + feed-forward(norm(x)).

    Args:
        block: with `norm_attention`, `norm_forward`, `up` and `down`.
        out: the layer after attention, D -> D.
        attend: returns the attention of a normed residual stream, (B, D), before `out`, and what the next token attends to;
            further arguments are those of the call.
        precision: of the packed weights; see `quantized.pack_linear`.
    """

    def __init__(self, block: Any, out: nn.Linear, attend: Callable[..., tuple[Tensor, State]], precision: str) -> None:
        self.attend = attend
        self.out, self.up, self.down = (pack(layer, precision) for layer in (out, block.up, block.down))
        self.norm_attention, self.norm_forward = block.norm_attention.forward, block.norm_forward.forward

    def __call__(self, x_BD: Tensor, *args: Any) -> tuple[Tensor, State]:
        """Return the residual stream after the block, (B, D), and what the next token attends to."""
        y_BD, kept = self.attend(self.norm_attention(x_BD), *args)
        x_BD = x_BD + self.out(y_BD)
        x_BD += self.down(F.gelu(self.up(self.norm_forward(x_BD))))
        return x_BD, kept


def pack(layer: nn.Linear, precision: str) -> quantized.Product:
    """Return the product with a layer's packed weights, plus its bias."""
    return quantized.pack_linear(layer.weight, layer.bias, precision)


class PackedHead(nn.Module):
    """The logits of one position: (B, 1, D), (B, 1, F) -> (B, 1, V).

    The weights of a `Head` and of an `nn.Linear` are packed. Any other head runs as it is.
    """

    takes_features = True
    is_linear = True  # it needs no buffer of its own: the temperature is that of the whole model

    def __init__(self, whole: LanguageModel, precision: str) -> None:
        super().__init__()
        self._head = (whole.head,)  # in a tuple: its parameters are those of the whole model
        self._takes_features = getattr(whole.head, "takes_features", False)
        self._temperature = getattr(whole, TEMPERATURE, None)
        self._product = None
        if isinstance(whole.head, (Head, nn.Linear)) and type(whole.head) in (Head, nn.Linear):
            bias = (
                whole.head.bias if whole.head.bias is not None else whole.head.weight.new_zeros(len(whole.head.weight))
            )
            self._product = quantized.pack_linear(whole.head.weight, bias, precision)

    def forward(self, x_B1D: Tensor, features: Tensor | None = None) -> Tensor:
        (head,) = self._head
        if self._product is None:
            logits_B1V: Tensor = head(x_B1D, features) if self._takes_features else head(x_B1D)
        else:
            logits_B1V = self._product(x_B1D[:, 0])[:, None]
            if isinstance(head, Head):
                logits_B1V = head.add_relative_pitch(logits_B1V, x_B1D, features)
        return logits_B1V if self._temperature is None else logits_B1V / self._temperature
