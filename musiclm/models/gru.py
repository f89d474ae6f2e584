"""The gated recurrent unit (Cho et al. 2014): two gates, without the cell of the LSTM."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .base import State
from .layers import gru_cpu, recurrent

Config = recurrent.RecurrentConfig
PRESETS = recurrent.PRESETS
TRAINING = {
    "learning_rate": 3e-3,
    "batch_size": 8,
    "window": 256,
}  # many small steps: 0.63 nats/token after 45 s at batch size 16, 0.55 at 8


class Model(recurrent.RecurrentModel):
    """h(t) = (1 - z) n + z h(t-1), with an update gate z and a candidate n that receives h(t-1) through a reset gate."""

    cell = nn.GRU

    def _run(self, x_BTD: Tensor, state: State | None) -> tuple[Tensor, State]:
        if x_BTD.device.type != "cpu" or not torch.is_grad_enabled():
            return super()._run(x_BTD, state)
        assert isinstance(self.layers, nn.GRU)
        y_BTD, after = gru_cpu.run_gru(self.layers, x_BTD, None if state is None else state[0], self.dropout)
        return y_BTD, (after,)

    @staticmethod
    def step(input_gates: Tensor, hidden_gates: Tensor, memory: State) -> State:
        size = memory[0].shape[1]
        r, z = (input_gates[:, : 2 * size] + hidden_gates[:, : 2 * size]).sigmoid().chunk(2, 1)
        n = (input_gates[:, 2 * size :] + r * hidden_gates[:, 2 * size :]).tanh()
        return (torch.lerp(n, memory[0], z),)
