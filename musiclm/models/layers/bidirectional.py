"""Stacked bidirectional recurrent layers (Schuster and Paliwal 1997) over padded batches.

Each layer reads its input in both directions, and the next one reads both outputs. The backward direction reads each
sequence from its own last token, so padding behind a sequence changes nothing.

B batch, S tokens, D size of input and output; each direction has size D / 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .dropout import Dropout
from .gru_cpu import run_gru
from .recurrent import set_forget_bias

CELLS: dict[str, Callable[..., nn.RNNBase]] = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn": nn.RNN}


class Bidirectional(nn.Module):
    """Stacked layers of one cell, one or both directions each.

    Args:
        cell: one of `CELLS`.
        size: D; even with both directions.
        num_layers: of each direction.
        dropout: of the output of each layer but the last.
        both: whether there is a backward direction; without it the forward one has size D.
    """

    def __init__(self, cell: str, size: int, num_layers: int, dropout: float, *, both: bool = True) -> None:
        super().__init__()
        own_size = size // 2 if both else size
        self.directions = nn.ModuleList(
            nn.ModuleList(CELLS[cell](size, own_size, batch_first=True) for _ in range(1 + both))
            for _ in range(num_layers)
        )
        for layer in self.modules():
            if isinstance(layer, nn.LSTM):
                set_forget_bias(layer, own_size)
        self.dropout = Dropout(dropout)

    def forward(self, x_BSD: Tensor, lengths_B: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """Return the output, (B, S, D), and of each layer the last output of all directions, (B, D).

        Args:
            x_BSD: the input.
            lengths_B: how many tokens of each sequence are real, 1 or more; all of them if left out. The output behind
                them is undefined.
        """
        num_tokens = x_BSD.shape[1]
        if lengths_B is None:
            lengths_B = torch.full((len(x_BSD),), num_tokens, device=x_BSD.device)
        indices_S = torch.arange(num_tokens, device=x_BSD.device)
        reversed_BS = (lengths_B[:, None] - 1 - indices_S).remainder(num_tokens)  # its own inverse where it is real
        last_B1 = lengths_B[:, None] - 1
        finals = []
        for i, directions in enumerate(self.directions):
            if i:
                x_BSD = self.dropout(x_BSD)
            layers: Any = directions
            outputs = [run_layer(layers[0], x_BSD)]
            last = [take(outputs[0], last_B1)[:, 0]]
            if len(layers) > 1:
                reversed_BSD = run_layer(layers[1], take(x_BSD, reversed_BS))
                last.append(take(reversed_BSD, last_B1)[:, 0])
                outputs.append(take(reversed_BSD, reversed_BS))
            x_BSD = torch.cat(outputs, -1)
            finals.append(torch.cat(last, -1))
        return x_BSD, finals


def run_layer(layer: nn.RNNBase, x_BSD: Tensor) -> Tensor:
    """Return the output of one layer in one direction, from a state of zeros."""
    if isinstance(layer, nn.GRU) and x_BSD.device.type == "cpu" and torch.is_grad_enabled():
        return run_gru(layer, x_BSD, None)[0]
    y_BSD: Tensor = layer(x_BSD)[0]
    return y_BSD


def take(x_BSD: Tensor, indices_BN: Tensor) -> Tensor:
    """Return the vectors of these tokens of each sequence, (B, N, D)."""
    return x_BSD.gather(1, indices_BN[..., None].expand(-1, -1, x_BSD.shape[-1]))
