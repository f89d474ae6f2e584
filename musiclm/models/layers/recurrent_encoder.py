"""The body of bidirectional_rnn, bidirectional_gru and bidirectional_lstm.

B batch, N notes, D size.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from torch import Tensor, nn

from ..encoder import EncoderConfig, EncoderModel, mask_of
from .bidirectional import Bidirectional
from .dropout import Dropout


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecurrentEncoderConfig(EncoderConfig):
    """The hyperparameters of a recurrent encoder.

    Attributes:
        size: of a layer, half of it for each direction; even.
        num_layers: the depth.
        dropout: of embeddings and between layers.
    """

    size: int = 128
    num_layers: int = 2
    dropout: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size % 2:
            raise ValueError(f"size must be even, not {self.size}")


PRESETS = {
    "tiny": {"size": 32, "num_layers": 1, "both": True, "dropout": 0.1},
    "small": {"size": 128, "num_layers": 2, "both": True, "dropout": 0.1},
    "base": {"size": 256, "num_layers": 3, "both": True, "dropout": 0.2},
}
TRAINING = {"learning_rate": 2e-3, "batch_size": 8, "window": 256}


class RecurrentEncoder(EncoderModel):
    """Embedding, stacked recurrent layers in both directions, and a norm."""

    cell: ClassVar[str]

    def __init__(self, config: RecurrentEncoderConfig) -> None:
        super().__init__(config, config.size)
        self.dropout = Dropout(config.dropout)
        self.layers = Bidirectional(self.cell, config.size, config.num_layers, config.dropout, both=config.both)
        self.norm = nn.LayerNorm(config.size)

    def forward(self, notes: Tensor, features: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        x_BND = self.dropout(self.embedding(notes, features))
        y_BND, _ = self.layers(x_BND, mask_of(notes, mask).sum(1))
        hidden_BND: Tensor = self.norm(x_BND + y_BND)
        return hidden_BND
