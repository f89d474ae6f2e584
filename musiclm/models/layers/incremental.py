"""What the forms of models for decoding one token at a time share: a packed head and the choice between two ways.

B batch, T tokens, D hidden size, F features, V vocabulary.
"""

from __future__ import annotations

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
