"""The encoder of the Transformer (Vaswani et al. 2017) over notes, with biases of distances (Raffel et al. 2020).

B batch, N notes, D size.
"""

from __future__ import annotations

import dataclasses

from torch import Tensor, nn

from .encoder import EncoderConfig, EncoderModel, mask_of
from .layers.bidirectional_attention import BidirectionalAttention
from .layers.blocks import Block, TransformerConfig, initialize
from .layers.dropout import Dropout


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(TransformerConfig, EncoderConfig):
    """The hyperparameters of a Transformer that reads notes in both directions."""

    size: int = 128
    num_layers: int = 3


PRESETS = {
    "tiny": {"size": 32, "num_layers": 1, "num_heads": 2, "both": True, "dropout": 0.1},
    "small": {"size": 128, "num_layers": 3, "num_heads": 4, "both": True, "dropout": 0.1},
    "base": {"size": 256, "num_layers": 4, "num_heads": 4, "both": True, "dropout": 0.1},
}
TRAINING = {"learning_rate": 1e-3, "batch_size": 8, "window": 256}


class Model(EncoderModel):
    """Embedding, then pre-norm blocks; with `both` 0 a note attends to itself and those before it."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, config.size)
        c = config
        self.dropout = Dropout(c.dropout)
        attentions = [BidirectionalAttention(c.size, c.num_heads, both=c.both) for _ in range(c.num_layers)]
        blocks = [Block(attention, c.size, c.dropout) for attention in attentions]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(c.size)
        initialize(self, blocks)

    def forward(self, notes: Tensor, features: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        x_BND = self.dropout(self.embedding(notes, features))
        for block in self.blocks:
            x_BND, _ = block(x_BND, mask_of(notes, mask))
        hidden_BND: Tensor = self.norm(x_BND)
        return hidden_BND
