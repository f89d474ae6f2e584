"""The vanilla recurrent network (Elman 1990): a tanh layer whose output is fed back. Its memory spans tens of tokens."""

from __future__ import annotations

from torch import Tensor, nn

from .base import State
from .layers import recurrent

Config = recurrent.RecurrentConfig
PRESETS = recurrent.PRESETS
TRAINING = {"learning_rate": 1e-3, "batch_size": 8, "window": 256}


class Model(recurrent.RecurrentModel):
    """h(t) = tanh(W x(t) + U h(t-1) + b)."""

    cell = nn.RNN

    @staticmethod
    def step(input_gates: Tensor, hidden_gates: Tensor, memory: State) -> State:
        return ((input_gates + hidden_gates).tanh(),)
