"""The recurrent encoder and decoder with additive attention (Cho et al. 2014, Bahdanau et al. 2015).

A bidirectional stack reads the source, another stack writes the target. The first layer of the decoder attends to all
encoded tokens of the source, and what it finds is added to what goes to the layers above (after Wu et al. 2016): so a whole
target is trained at once, where Bahdanau et al. attend before the first layer, one token after another. What is added is zero
at first, so that a decoder with attention begins as one without (Bachlechner et al. 2021). With `attention` 0 the decoder is
conditioned on the source by its first state alone (Sutskever et al. 2014), which is what attention was invented for.

B batch, S tokens of the source, T tokens of the target, D size, A size of a comparison.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from .base import Embedding, Head, State
from .layers.bidirectional import CELLS, Bidirectional
from .layers.cross_attention import AdditiveAttention
from .layers.dropout import Dropout
from .layers.gru_cpu import run_gru
from .layers.recurrent import set_forget_bias
from .seq2seq import Seq2SeqConfig, Seq2SeqModel, lengths, mask_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Seq2SeqConfig):
    """The hyperparameters of a recurrent encoder and decoder.

    Attributes:
        size: of a layer; even, half of it for each direction of the encoder.
        num_layers: of the encoder, and of the decoder.
        comparison: size of the space in which queries and keys are compared.
        attention: whether the decoder attends to the source, 1 or 0.
        cell: gru, lstm or rnn, of encoder and decoder.
        dropout: of embeddings and between layers.
    """

    size: int = 256
    num_layers: int = 2
    comparison: int = 64
    attention: bool = True
    cell: str = "gru"
    dropout: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "attention", bool(self.attention))
        super().__post_init__()
        if self.size % 2:
            raise ValueError(f"size must be even, not {self.size}")
        if self.cell not in CELLS:
            raise ValueError(f"cell must be one of {', '.join(CELLS)}, not '{self.cell}'")


PRESETS = {
    "tiny": {"size": 128, "num_layers": 1, "comparison": 32, "attention": True, "cell": "gru", "dropout": 0.1},
    "small": {"size": 256, "num_layers": 2, "comparison": 64, "attention": True, "cell": "gru", "dropout": 0.1},
    "base": {"size": 384, "num_layers": 3, "comparison": 64, "attention": True, "cell": "gru", "dropout": 0.2},
}
TRAINING = {"learning_rate": 2e-3, "batch_size": 4, "window": 512}


class Model(Seq2SeqModel):
    """Embedding, encoder, decoder. Source and target share the embedding.

    The state is, with attention, the encoded source (B, S, D), its keys (B, S, A), its aligned features and its mask (B, S);
    then of each layer of the decoder its state, (B, D) each, one tensor for gru and rnn, two for lstm.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        c = config
        self.embedding = Embedding(c, c.size)
        self.dropout = Dropout(c.dropout)
        self.encoder = Bidirectional(c.cell, c.size, c.num_layers, c.dropout)
        self.bridges = nn.ModuleList(nn.Linear(c.size, c.size) for _ in range(c.num_layers))
        self.layers = nn.ModuleList(CELLS[c.cell](c.size, c.size, batch_first=True) for _ in range(c.num_layers))
        for layer in self.layers:
            if isinstance(layer, nn.LSTM):
                set_forget_bias(layer, c.size)
        if c.attention:
            self.attention = AdditiveAttention(c.size, c.comparison)
            self.alignment = self.alignment_bias(1)
            self.context = nn.Linear(c.size, c.size)
            nn.init.zeros_(self.context.weight)
            nn.init.zeros_(self.context.bias)
        self.norm = nn.LayerNorm(c.size)
        self.head = Head(c, c.size)

    def start(self, source: Tensor, source_features: Tensor | None = None, source_mask: Tensor | None = None) -> State:
        x_BSD = self.dropout(self.embedding(source, source_features))
        memory_BSD, finals = self.encoder(x_BSD, lengths(source, source_mask))
        states: list[Tensor] = []
        for bridge, final_BD in zip(self.bridges, finals, strict=True):
            h_BD = torch.tanh(bridge(final_BD))
            states += [h_BD, torch.zeros_like(h_BD)] if self.config.cell == "lstm" else [h_BD]
        if not self.config.attention:
            return tuple(states)
        mask_BS = mask_of(source, source_mask)
        memory_BSD = memory_BSD.masked_fill(~mask_BS[..., None], 0.0)
        aligned = self.aligned(source, source_features)
        return (memory_BSD, self.attention.keys(memory_BSD), aligned, mask_BS, *states)

    def encode(
        self, tokens: Tensor, state: State | None = None, features: Tensor | None = None
    ) -> tuple[Tensor, State]:
        state = self.given(state)
        encoded, states = (state[:4], state[4:]) if self.config.attention else ((), state)
        each = len(states) // len(self.layers)
        x_BTD = self.dropout(self.embedding(tokens, features))
        if self.config.attention:
            memory, keys, *where = encoded
            source = memory, keys, self.alignment(self.aligned(tokens, features), *where)
        after: list[Tensor] = []
        for i, layer in enumerate(self.layers):
            y_BTD, own = _run(layer, x_BTD, states[each * i : each * (i + 1)])
            after += own
            if i:
                x_BTD = x_BTD + self.dropout(y_BTD)
            elif self.config.attention:
                x_BTD = y_BTD + self.context(self.attention(y_BTD, *source))
            else:
                x_BTD = y_BTD
        return self.norm(x_BTD), (*encoded, *after)


def _run(layer: Any, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
    """Return the output of one layer, (B, T, D), and its state, (B, D) each."""
    if isinstance(layer, nn.LSTM):
        y_BTD, (h, c) = layer(x_BTD, tuple(t[None].contiguous().to(x_BTD.dtype) for t in state))
        return y_BTD, (h[0], c[0])
    if isinstance(layer, nn.GRU) and x_BTD.device.type == "cpu" and torch.is_grad_enabled():
        y_BTD, after = run_gru(layer, x_BTD, state[0][None])
        return y_BTD, (after[0],)
    y_BTD, h = layer(x_BTD, state[0][None].contiguous().to(x_BTD.dtype))
    return y_BTD, (h[0],)
