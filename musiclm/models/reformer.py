"""The Reformer (Kitaev et al. 2020): attention within hash buckets, and reversible layers.

Queries and keys are one projection; keys are normalized. Vectors that are alike fall into one bucket, and a token attends to
the last `bucket_context` tokens of its own bucket, in each of `num_rounds` rounds of hashing (`layers/hashed_attention.py`).
The backward pass computes activations again, so that their memory does not grow with depth (`layers/reversible.py`); only
bucket numbers are kept per layer.

What differs from the paper:
- It cuts sorted tokens into chunks of a fixed length, whose borders move with later tokens. Here the reach is counted in
  tokens of the bucket, which is causal and the same in chunks. Hash buckets are discrete: where rounding makes two pieces of
  a pass choose another bucket than one pass, attention differs. That takes a tie within about 1e-6.
- Rotations are fixed: a function of `hash_seed` and the layer. The paper samples them again in each pass.
- A key that several rounds find counts several times.
- Positions are sines and cosines, which need no largest length; the paper learns axial ones. Head and output see the mean of
  the two streams.

B batch, H heads, T new tokens, R rounds, C buckets, K reach, D size of the model, E size of a head, V vocabulary.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..devices import resolve_precision
from .base import Embedding, Head, LanguageModel, State, host_counts, on_device
from .layers import quantized
from .layers.blocks import Block, TransformerConfig, initialize, merge_heads, split_heads
from .layers.dropout import Dropout
from .layers.hashed_attention import attend_once, hash_buckets, hashed_attention, last_keys, sort_keys
from .layers.incremental import IncrementalModel
from .layers.positions import sinusoids
from .layers.reversible import ReversibleLayer, run_layers

KEPT = 3  # tensors of the state per layer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(TransformerConfig):
    """The hyperparameters of a Reformer; size and buckets are even, and layers are reversible.

    Attributes:
        num_rounds: of hashing.
        num_buckets: per round; even.
        bucket_context: number of earlier tokens of its bucket that a token attends to in each round.
        hash_seed: of the random rotations.
    """

    num_rounds: int = 2
    num_buckets: int = 16
    bucket_context: int = 64
    hash_seed: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_even()
        if self.num_buckets % 2:
            raise ValueError(f"num_buckets must be even, not {self.num_buckets}")


PRESETS = {
    "tiny": {
        "size": 128, "num_layers": 2, "num_heads": 2, "num_rounds": 2, "num_buckets": 16, "bucket_context": 32,
        "hash_seed": 1, "dropout": 0.1,
    },
    "small": {
        "size": 256, "num_layers": 4, "num_heads": 4, "num_rounds": 2, "num_buckets": 16, "bucket_context": 64,
        "hash_seed": 1, "dropout": 0.1,
    },
    "base": {
        "size": 384, "num_layers": 6, "num_heads": 6, "num_rounds": 2, "num_buckets": 16, "bucket_context": 64,
        "hash_seed": 1, "dropout": 0.1,
    },
}  # fmt: skip
TRAINING = {"learning_rate": 1.5e-3, "batch_size": 4, "window": 512}


class Model(LanguageModel):
    """Embedding and positions, then reversible layers.

    The state is the number of tokens so far, (B,), then of each layer the last keys and values of each bucket,
    (B, H, R C K, E) each, and how many of them there are, (B, H, R, C).
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.embedding = Embedding(config, config.size)
        self.dropout = Dropout(config.dropout)
        layers = [Layer(Attention(config, number), config) for number in range(config.num_layers)]
        self.blocks = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(config.size)
        self.head = Head(config, config.size)
        initialize(self, layers)

    def encode(
        self, tokens: Tensor, state: State | None = None, features: Tensor | None = None
    ) -> tuple[Tensor, State]:
        num_before = 0 if state is None else int(state[0][0])
        size = self.config.size
        positions_T = torch.arange(num_before, num_before + tokens.shape[1], device=tokens.device)
        x_BTD = self.dropout(self.embedding(tokens, features) * size**0.5 + sinusoids(positions_T, size))
        layers: Any = list(self.blocks)
        first, second, after = run_layers(layers, x_BTD, split_state(state, len(layers)))
        return self.norm((first + second) / 2), (host_counts(num_before + tokens.shape[1], len(tokens)), *after)

    def for_generation(self, precision: str = "auto") -> LanguageModel:
        return IncrementalReformer(self, resolve_precision(precision, next(self.parameters()).device))


def split_state(state: State | None, num_layers: int) -> list[State | None]:
    """Return what each layer keeps."""
    if state is None:
        return [None] * num_layers
    return [state[1 + KEPT * i : 1 + KEPT * (i + 1)] for i in range(num_layers)]


class Layer(Block, ReversibleLayer):
    """The sub-layers of a pre-norm block, each of which adds to the other's stream."""

    def __init__(self, attention: Attention, config: Config) -> None:
        super().__init__(attention, config.size, config.dropout)

    def attended(self, x_BTD: Tensor, kept: State | None, chosen: Tensor | None) -> tuple[Tensor, State, Tensor]:
        y_BTD, kept, chosen = self.attention(self.norm_attention(x_BTD), kept, chosen)
        return self.dropout(y_BTD), kept, chosen

    def forwarded(self, x_BTD: Tensor) -> Tensor:
        y_BTD: Tensor = self.dropout(self.feed_forward(self.norm_forward(x_BTD)))
        return y_BTD

    def parts(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        of_f, of_g = (self.norm_attention, self.attention), (self.norm_forward, self.up, self.down)
        return [p for m in of_f for p in m.parameters()], [p for m in of_g for p in m.parameters()]


class Attention(nn.Module):
    """Causal attention to the last tokens of the same buckets, with shared queries and keys."""

    def __init__(self, config: Config, number: int) -> None:
        super().__init__()
        self.num_heads, self.num_buckets, self.reach = config.num_heads, config.num_buckets, config.bucket_context
        self.queries_values = nn.Linear(config.size, 2 * config.size)
        self.out = nn.Linear(config.size, config.size)
        shape = config.num_heads, config.num_rounds, config.size // config.num_heads, config.num_buckets // 2
        self._rotations = config.hash_seed, number, shape

    def buckets(self, k_BHTE: Tensor) -> Tensor:
        """Return the buckets of keys, (B, H, R, T)."""
        return hash_buckets(k_BHTE, rotations(*self._rotations).to(k_BHTE.device, non_blocking=True))

    def forward(self, x_BTD: Tensor, kept: State | None, chosen: Tensor | None = None) -> tuple[Tensor, State, Tensor]:
        """Return the output, (B, T, D), what the next tokens attend to, and the tokens' buckets, (B, H, R, T).

        Args:
            x_BTD: the input.
            kept: what an earlier call returned, or None at the beginning.
            chosen: the tokens' buckets, where they are known.
        """
        q, v = (split_heads(t, self.num_heads) for t in self.queries_values(x_BTD).chunk(2, -1))
        k = F.normalize(q, dim=-1).to(v.dtype)
        new_BHRT = self.buckets(k) if chosen is None else chosen.long()
        kinds = new_BHRT.to(torch.uint8 if self.num_buckets <= 256 else torch.int32)
        if kept is not None and x_BTD.shape[1] == 1 and not torch.is_grad_enabled():
            y_BHE, kept = attend_once(q[:, :, 0], k[:, :, 0], v[:, :, 0], new_BHRT[..., 0], kept)
            return self.out(y_BHE.flatten(1)[:, None]), kept, kinds
        if kept is not None:
            k, v = torch.cat([kept[0], k], 2), torch.cat([kept[1], v], 2)
        sorting = sort_keys(new_BHRT, None if kept is None else kept[2], self.num_buckets, self.reach)
        y_BHTE = hashed_attention(q, k, v, sorting)
        return self.out(merge_heads(y_BHTE)), last_keys(k, v, sorting, self.num_buckets), kinds


@functools.lru_cache(maxsize=64)
def rotations(seed: int, number: int, shape: tuple[int, ...]) -> Tensor:
    """Return the random rotations of a layer, (H, R, E, C / 2): standard normal, from a generator that numpy has frozen."""
    return torch.from_numpy(np.random.RandomState([seed, number]).standard_normal(shape).astype(np.float32))


class IncrementalReformer(IncrementalModel):
    """The form of a Reformer for decoding one token at a time; the state is the model's own.

    Only the head has the given precision. Rounding in the layers would put keys into other buckets than the whole model's.
    """

    def __init__(self, whole: Model, precision: str) -> None:
        super().__init__(whole, precision)
        self._embedding = quantized.fuse_embedding(whole.embedding)  # type: ignore[arg-type]
        self._steps = [_Step(layer) for layer in whole.blocks]
        self.norm = whole.norm

    def encode(
        self, tokens: Tensor, state: State | None = None, features: Tensor | None = None
    ) -> tuple[Tensor, State]:
        if state is None or tokens.shape[1] > 1:
            hidden_BTD: Tensor
            hidden_BTD, state = self.whole.encode(tokens, state, features)
            return hidden_BTD, state
        size = self.config.size
        first_BD = self._embedding(tokens, features)[:, 0] * size**0.5 + sinusoids(
            on_device(state[0], tokens.device), size
        )
        second_BD = first_BD
        after: list[Tensor] = []
        for step, kept in zip(self._steps, split_state(state, len(self._steps)), strict=True):
            assert kept is not None
            y_BD, new = step.attended(second_BD, kept)
            first_BD = first_BD + y_BD
            second_BD = second_BD + step.forwarded(first_BD)
            after += new
        return self.norm((first_BD + second_BD) / 2)[:, None], (state[0] + 1, *after)


class _Step:
    """A layer for one token per batch element."""

    def __init__(self, layer: Any) -> None:
        self.layer, self.attention = layer, layer.attention

    def attended(self, x_BD: Tensor, kept: State) -> tuple[Tensor, State]:
        """Return what attention adds, and what the next tokens attend to."""
        qv = self.attention.queries_values(self.layer.norm_attention(x_BD))
        q_BHE, v_BHE = qv.view(len(qv), 2, self.attention.num_heads, -1).unbind(1)
        k_BHE = F.normalize(q_BHE, dim=-1)
        bucket_BHR = self.attention.buckets(k_BHE[:, :, None])[..., 0]
        y_BHE, kept = attend_once(q_BHE, k_BHE, v_BHE, bucket_BHR, kept)
        return self.attention.out(y_BHE.flatten(1)), kept

    def forwarded(self, x_BD: Tensor) -> Tensor:
        """Return what the feed-forward layer adds."""
        y_BD: Tensor = self.layer.feed_forward(self.layer.norm_forward(x_BD))
        return y_BD
