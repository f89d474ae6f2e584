"""The Transformer with encoder and decoder (Vaswani et al. 2017), with relative positions.

The encoder attends to the whole source in both directions; a learned bias for each head and distance is added to its scores,
in buckets that grow with the distance (Raffel et al. 2020). The decoder attends to the last `context` tokens of the target
as the Music Transformer does (Huang et al. 2018), and to the whole encoded source, with biases by where in the piece both
tokens are (`layers.alignment_bias`).

A model can start from a `transformer` (Rothe et al. 2020): its decoder has the layers of one, and attention to the source
between them.

B batch, H heads, S tokens of the source, T tokens of the target, D size, E size of a head.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .base import Embedding, Head, State, host_counts
from .layers.bidirectional_attention import BidirectionalAttention
from .layers.blocks import INIT_STD, Block, TransformerConfig, initialize
from .layers.cross_attention import CrossAttention
from .layers.dropout import Dropout
from .seq2seq import Seq2SeqConfig, Seq2SeqModel, mask_of
from .transformer import RelativeAttention


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(TransformerConfig, Seq2SeqConfig):
    """The hyperparameters of an encoder and a decoder, whose blocks are `num_layers`.

    Attributes:
        num_encoder_layers: blocks of the encoder.
        context: number of tokens of the target that a token attends to, including itself.
    """

    num_encoder_layers: int = 3
    context: int = 1024


PRESETS = {
    "tiny": {"size": 128, "num_layers": 2, "num_encoder_layers": 1, "num_heads": 2, "context": 512, "dropout": 0.1},
    "small": {"size": 256, "num_layers": 3, "num_encoder_layers": 2, "num_heads": 4, "context": 512, "dropout": 0.1},
    "base": {"size": 384, "num_layers": 5, "num_encoder_layers": 3, "num_heads": 6, "context": 1024, "dropout": 0.1},
}
TRAINING = {"learning_rate": 1.5e-3, "batch_size": 4, "window": 512}
DECODER = "transformer"  # the architecture whose weights a decoder can start from


class Model(Seq2SeqModel):
    """Embedding, encoder, decoder. Source and target share the embedding.

    The state is the number of cached tokens of the target, (B,), aligned features and mask of the source, (B, S); then of
    each layer keys and values of the target, (B, H, capacity, E), and of the source, (B, H, S, E).
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        c = config
        self.embedding = Embedding(c, c.size)
        self.dropout = Dropout(c.dropout)
        encoder = [
            Block(BidirectionalAttention(c.size, c.num_heads), c.size, c.dropout) for _ in range(c.num_encoder_layers)
        ]
        decoder = [DecoderBlock(c) for _ in range(c.num_layers)]
        self.encoder, self.decoder = nn.ModuleList(encoder), nn.ModuleList(decoder)
        self.alignment = self.alignment_bias(c.num_heads)
        self.encoder_norm, self.norm = nn.LayerNorm(c.size), nn.LayerNorm(c.size)
        self.head = Head(c, c.size)
        initialize(self, encoder)
        initialize(self.decoder, decoder)
        for block in decoder:
            nn.init.normal_(block.cross.out.weight, std=INIT_STD / (3 * c.num_layers) ** 0.5)

    def start(self, source: Tensor, source_features: Tensor | None = None, source_mask: Tensor | None = None) -> State:
        mask_BS = mask_of(source, source_mask)
        x_BSD = self.dropout(self.embedding(source, source_features))
        for block in self.encoder:
            x_BSD, _ = block(x_BSD, mask_BS)
        memory_BSD = self.encoder_norm(x_BSD)
        state = [host_counts(0, len(source)), self.aligned(source, source_features), mask_BS]
        for decoder_block in self.decoder:
            cross: Any = decoder_block.cross
            keys, values = cross.cache(memory_BSD)
            state += [keys[:, :, :0], values[:, :, :0], keys, values]
        return tuple(state)

    def encode(
        self, tokens: Tensor, state: State | None = None, features: Tensor | None = None
    ) -> tuple[Tensor, State]:
        state = self.given(state)
        num_cached, where = int(state[0][0]), state[1:3]
        added_BHTS = self.alignment(self.aligned(tokens, features), *where)
        x_BTD = self.dropout(self.embedding(tokens, features))
        after: list[Tensor] = []
        count = num_cached
        for i, block in enumerate(self.decoder):
            keys, values, *of_source = state[3 + 4 * i : 7 + 4 * i]
            x_BTD, (keys, values, count) = block(x_BTD, (keys, values, num_cached), (*of_source, added_BHTS))
            after += keys, values, *of_source
        return self.norm(x_BTD), (host_counts(count, len(tokens)), *where, *after)


class DecoderBlock(Block):
    """A pre-norm block with attention to the source between self-attention and feed-forward."""

    def __init__(self, config: Config) -> None:
        super().__init__(RelativeAttention(config), config.size, config.dropout)  # type: ignore[arg-type]
        self.norm_cross = nn.LayerNorm(config.size)
        self.cross = CrossAttention(config.size, config.num_heads)

    def forward(  # type: ignore[override]
        self, x_BTD: Tensor, cache: tuple[Tensor, Tensor, int], source: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, Tensor, int]]:
        """Return the residual stream after the block, (B, T, D), and the KV cache of the target.

        Args:
            x_BTD: the residual stream.
            cache: the KV cache of the target so far.
            source: keys and values of the source, and what is added to the scores; see `CrossAttention`.
        """
        attended_BTD, after = self.attention(self.norm_attention(x_BTD), cache)
        x_BTD = x_BTD + self.dropout(attended_BTD)
        x_BTD = x_BTD + self.dropout(self.cross(self.norm_cross(x_BTD), *source))
        return x_BTD + self.dropout(self.feed_forward(self.norm_forward(x_BTD))), after


def of_decoder(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a `transformer` by the names that a decoder of this architecture has for them."""
    return {_renamed(name, "blocks", "decoder"): tensor for name, tensor in weights.items()}


def warm_start(weights: Mapping[str, Tensor], model: Model) -> dict[str, Tensor]:
    """Return all weights of a new model that starts from a `transformer`.

    Embedding, decoder and head are those of the language model; the encoder's blocks begin as its first ones, without their
    distances. Attention to the source adds nothing at first, and the tables of new features are zero, so that the model
    begins as the language model of the target.

    Args:
        weights: the state dict of a `transformer` of the same size and vocabulary.
        model: the new model; it is not changed.

    Raises:
        ValueError: the sizes differ.
    """
    taken, found = of_decoder(weights), {}
    for name, fresh in model.state_dict().items():
        given = weights.get(_renamed(name, "encoder", "blocks"), taken.get(name))
        if given is not None and given.shape != fresh.shape:
            raise ValueError(f"'{name}' is {tuple(given.shape)} in the language model, not {tuple(fresh.shape)}")
        is_zero = given is None and (name.endswith("cross.out.weight") or name.startswith("embedding.features."))
        found[name] = given if given is not None else torch.zeros_like(fresh) if is_zero else fresh
    if missing := sorted(set(taken) - set(found)):
        raise ValueError(f"the language model has '{missing[0]}', which a decoder has no place for")
    return found


def _renamed(name: str, old: str, new: str) -> str:
    first, _, rest = name.partition(".")
    return f"{new}.{rest}" if first == old else name
