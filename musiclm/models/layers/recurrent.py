"""The body of rnn, gru and lstm: an embedding, stacked recurrent layers with dropout between them, and a norm.

B batch, T tokens, D size of a layer, L layers, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...devices import resolve_precision
from ..base import BaseConfig, Embedding, Head, LanguageModel, State
from . import quantized
from .dropout import Dropout
from .incremental import IncrementalModel


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecurrentConfig(BaseConfig):
    """The hyperparameters of a recurrent model.

    Attributes:
        size: of a layer.
        num_layers: the depth.
        dropout: of the input of each layer and of the head.
    """

    size: int = 512
    num_layers: int = 2
    dropout: float = 0.2


PRESETS = {
    "tiny": {"size": 128, "num_layers": 1, "dropout": 0.1},
    "small": {"size": 384, "num_layers": 2, "dropout": 0.2},
    "base": {"size": 640, "num_layers": 3, "dropout": 0.3},
}


class RecurrentModel(LanguageModel):
    """A stack of `cell` layers. The state is that of torch's layers, batch first: (B, L, D) each."""

    cell: Callable[..., nn.RNNBase]
    starts_from_zeros = True

    @staticmethod
    def step(input_gates: Tensor, hidden_gates: Tensor, memory: State) -> State:
        """Return a layer's state after a token, its output first.

        Args:
            input_gates: pre-activations from the input, (B, gates x D), gates in torch's order.
            hidden_gates: pre-activations from the last output, (B, gates x D).
            memory: the layer's state before the token, (B, D) each, the last output first.
        """
        raise NotImplementedError

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__(config)
        c = config
        self.embedding = Embedding(c, c.size)
        self.dropout = Dropout(c.dropout)
        self.layers = self.cell(c.size, c.size, num_layers=c.num_layers, batch_first=True)
        self.norm = nn.LayerNorm(c.size)
        self.head = Head(c, c.size)
        for name, weight in self.layers.named_parameters():
            if "weight_hh" in name:  # Saxe et al. 2014: orthogonal matrices preserve gradients over many steps
                for gate in weight.data.split(c.size):
                    nn.init.orthogonal_(gate)
            elif "weight_ih" in name:
                for gate in weight.data.split(c.size):
                    nn.init.xavier_uniform_(gate)
            else:
                nn.init.zeros_(weight)

    def encode(
        self, tokens: Tensor, state: State | None = None, features: Tensor | None = None
    ) -> tuple[Tensor, State]:
        x_BTD = self.dropout(self.embedding(tokens, features))
        layers_first = None if state is None else tuple(t.transpose(0, 1).contiguous() for t in state)
        y_BTD, after = self._run(x_BTD, layers_first)
        return self.dropout(self.norm(y_BTD)), tuple(t.transpose(0, 1) for t in after)

    def for_generation(self, precision: str = "auto") -> LanguageModel:
        return IncrementalRNN(self, resolve_precision(precision, next(self.parameters()).device))

    def _run(self, x_BTD: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Return the output of the layers, (B, T, D), and their state, (L, B, D) each; with dropout between layers."""
        if self.training and self.config.dropout and self.layers.num_layers > 1:
            return self._run_each(x_BTD, state)
        if self.cell is nn.LSTM:
            y, (h, c) = self.layers(x_BTD, state)
            return y, (h, c)
        y, h = self.layers(x_BTD, None if state is None else state[0])
        return y, (h,)

    def _run_each(self, x_BTD: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Run one layer after the other: torch's own dropout between layers would have one mask for a whole batch."""
        cell: Any = self.cell
        run: Any = {nn.RNN: torch.rnn_tanh, nn.GRU: torch.gru, nn.LSTM: torch.lstm}[cell]
        num_parts = 2 if self.cell is nn.LSTM else 1
        zeros = x_BTD.new_zeros(self.layers.num_layers, len(x_BTD), self.layers.hidden_size)
        before = (zeros,) * num_parts if state is None else state
        after: list[State] = []
        for i in range(self.layers.num_layers):
            if i:
                x_BTD = self.dropout(x_BTD)
            weights = self.layers.all_weights[i]
            of_layer = tuple(part[i : i + 1].contiguous() for part in before)
            x_BTD, *parts = run(
                x_BTD, of_layer if num_parts > 1 else of_layer[0], weights, True, 1, 0.0, True, False, True
            )
            after.append(tuple(parts))
        return x_BTD, tuple(torch.cat(parts) for parts in zip(*after, strict=True))


class IncrementalRNN(IncrementalModel):
    """The form of a recurrent model for decoding: one token at a time runs on packed weights, several as in training.

    torch's own layers re-pack all their weights at each call: one token of an LSTM of 2 x 640 took 5.8 ms.
    """

    def __init__(self, whole: RecurrentModel, precision: str) -> None:
        super().__init__(whole, precision)
        self.whole: RecurrentModel = whole
        self._layers = []
        for i in range(whole.config.num_layers):
            of_input, of_hidden = (
                quantized.pack_linear(
                    getattr(whole.layers, f"weight_{n}_l{i}"), getattr(whole.layers, f"bias_{n}_l{i}"), precision
                )
                for n in ("ih", "hh")
            )
            self._layers.append((of_input, of_hidden))

    def encode(
        self, tokens: Tensor, state: State | None = None, features: Tensor | None = None
    ) -> tuple[Tensor, State]:
        if state is None or tokens.shape[1] > 1:
            return self.whole.encode(tokens, state, features)
        x_BD = self.whole.embedding(tokens, features)[:, 0]
        after = []
        for i, (of_input, of_hidden) in enumerate(self._layers):
            memory = tuple(t[:, i] for t in state)
            after.append(self.whole.step(of_input(x_BD), of_hidden(memory[0].contiguous()), memory))
            x_BD = after[-1][0]
        return self.whole.norm(x_BD)[:, None], tuple(torch.stack(each, 1) for each in zip(*after, strict=True))


def set_forget_bias(layers: nn.RNNBase, size: int) -> None:
    """Set the forget gate's bias to 1, so that the LSTM remembers at first (Jozefowicz et al. 2015)."""
    for name, bias in layers.named_parameters():
        if "bias_ih" in name:
            with torch.no_grad():
                bias[size : 2 * size] = 1.0
