"""What every architecture obeys, and the few things that can be done to a state.

Knows nothing of music: tokens are integers, features are more integers.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ._held import resolve as resolve_precision

State = tuple[Tensor, ...]
"""What a model remembers: flat, batch first in every tensor, its order private to the model."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BaseConfig:
    """What every architecture's `Config` has.

    Attributes:
        vocab_size: number of token ids.
        feature_sizes: for each feature that comes with a token, the number of its values; one embedding each, added to
            the token's.
    """

    vocab_size: int
    feature_sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "feature_sizes", tuple(self.feature_sizes))  # JSON has lists
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "dropout":
                if not 0 <= value < 1:
                    raise ValueError(f"dropout must be in [0, 1), not {value}")
            elif isinstance(value, int) and value < 1:
                raise ValueError(f"{field.name} must be at least 1, not {value}")


class LanguageModel(nn.Module, ABC):
    """A distribution of the next token given all before it.

    The law: running two pieces one after the other, handing the state on, gives the logits of running them together.
    """

    def __init__(self, config: BaseConfig) -> None:
        super().__init__()
        self.config: Any = config

    @abstractmethod
    def forward(
        self, tokens: Tensor, state: State | None = None, features: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Return the logits of each next token, and the state after the last.

        Args:
            tokens: (B, T) int64.
            state: what an earlier call returned, or None at the beginning. It is spent: the model may write into it.
                Who wants to branch or go back keeps a `copy_state` of it.
            features: (B, T, F) int64, where F is `len(config.feature_sizes)`; left out only if F is 0.

        Returns:
            (B, T, V) logits, position t being about token t + 1; and the new state.
        """

    def for_generation(self, precision: str = "auto") -> LanguageModel:
        """Return the model in the form that generates fastest, under the same law; it is for evaluation only.

        An architecture that has no form of its own for it runs one token as it runs many.

        Args:
            precision: of the weights: fp32, bf16, fp16, int8, or "auto", the best for one row; see `resolve_precision`.

        Raises:
            ValueError: there is no such precision, or not on the model's device.
        """
        resolve_precision(precision, next(self.parameters()).device)
        return self

    @property
    def num_parameters(self) -> int:
        """How many numbers were learnt."""
        return sum(p.numel() for p in self.parameters())


class Embedding(nn.Module):
    """The sum of a token's embedding and those of its features: (B, T), (B, T, F) -> (B, T, D)."""

    def __init__(self, config: BaseConfig, size: int) -> None:
        super().__init__()
        self.token = nn.Embedding(config.vocab_size, size)
        self.features = nn.ModuleList(nn.Embedding(n, size) for n in config.feature_sizes)
        for table in self.modules():
            if isinstance(table, nn.Embedding):
                nn.init.normal_(table.weight, std=0.02)

    def forward(self, tokens: Tensor, features: Tensor | None) -> Tensor:
        num_given = 0 if features is None else features.shape[-1]
        if num_given != len(self.features):
            raise ValueError(f"the model takes {len(self.features)} features a token, {num_given} were given")
        embedded = self.token(tokens)
        for i, table in enumerate(self.features):
            assert features is not None
            embedded = embedded + table(features[..., i])
        return embedded


def detach(state: State) -> State:
    """Return the state cut off from the graph: what truncated back-propagation hands on."""
    return tuple(t.detach() for t in state)


def copy_state(state: State) -> State:
    """Return a state of its own memory, to branch from or go back to."""
    return tuple(t.clone() for t in state)


def rows(state: State, index: Sequence[int] | Tensor) -> State:
    """Return the state of these rows of the batch, in this order; a row may stand in it more than once."""
    index = torch.as_tensor(index)
    return tuple(t[index.to(t.device)] for t in state)
