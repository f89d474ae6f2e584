"""What every architecture obeys, and the few things that can be done to a state.

Knows nothing of music: tokens are integers, features are more integers.
"""

from __future__ import annotations

import dataclasses
import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..devices import resolve_precision

MAX_STEP = 24  # on the scale, from the reference; two octaves where it is of pitches

State = tuple[Tensor, ...]
"""What a model remembers: flat, batch first in every tensor, its order private to the model."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BaseConfig:
    """What every architecture's `Config` has.

    Attributes:
        vocab_size: number of token ids.
        feature_sizes: for each feature that comes with a token, the number of its values; one embedding each, added to
            the token's.
        references: the first and the last of ids that stand in a row as pitches do (a scale), so that their distances mean
            something, and which feature is the one of them that the next token, if it is of these, is likely to be near.
    """

    vocab_size: int
    feature_sizes: tuple[int, ...] = ()
    references: tuple[tuple[int, int, int], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "feature_sizes", tuple(self.feature_sizes))  # JSON has lists
        object.__setattr__(self, "references", tuple(tuple(r) for r in self.references))
        for each in self.references:
            if len(each) != 3 or not 0 <= each[0] < each[1] < self.vocab_size:
                raise ValueError(
                    f"references begin with the first and the last of some of {self.vocab_size} ids, not {each}"
                )
            if not 0 <= each[2] < len(self.feature_sizes):
                raise ValueError(f"references end with one of {len(self.feature_sizes)} features, not {each}")
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
            precision: of the weights: fp32, bf16, fp16, int8, or "auto", the best here; see `resolve_precision`.

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
        if features is None or tokens.shape[1] == 1:
            embedded = self.token(tokens)
            for i, table in enumerate(self.features):
                assert features is not None
                embedded = embedded + table(features[..., i])
            return embedded
        # one look-up of the sum: 14 features of 4 x 512 tokens took 20.6 ms a step one by one, 7.9 ms so
        tables = [table.weight for table in self.modules() if isinstance(table, nn.Embedding)]  # the token's is first
        begins = torch.tensor([0, *itertools.accumulate(len(t) for t in tables[:-1])], device=tokens.device)
        ids = torch.cat([tokens[..., None], features], -1) + begins
        return F.embedding_bag(ids.flatten(0, 1), torch.cat(tables), mode="sum").unflatten(0, tokens.shape)


class Head(nn.Linear):
    """Logits of the next token: of each id, and of each step on a scale from its reference to the id.

    What is said of steps (the voice holds, falls a second) holds wherever the reference stands, so that it need not be
    learnt for each pitch anew. (B, T, D), (B, T, F) -> (B, T, V).
    """

    def __init__(self, config: BaseConfig, size: int) -> None:
        super().__init__(size, config.vocab_size)
        self.references = config.references
        nn.init.normal_(self.weight, std=0.02)
        nn.init.zeros_(self.bias)
        if self.references:
            self.steps = nn.Linear(size, len(self.references) * (2 * MAX_STEP + 1))
            nn.init.normal_(self.steps.weight, std=0.02)
            nn.init.zeros_(self.steps.bias)

    def forward(self, x_BTD: Tensor, features: Tensor | None = None) -> Tensor:
        return self.with_steps(super().forward(x_BTD), x_BTD, features)

    def with_steps(self, logits_BTV: Tensor, x_BTD: Tensor, features: Tensor | None) -> Tensor:
        """Return the logits of ids with what is said of steps added to them."""
        if not self.references:
            return logits_BTV
        assert features is not None
        for (first, last, feature), by_step in zip(
            self.references, self.steps(x_BTD).split(2 * MAX_STEP + 1, -1), strict=True
        ):
            reference_BT1 = features[..., feature, None]
            ids = torch.arange(first, last + 1, device=x_BTD.device)
            steps = (ids - reference_BT1 + MAX_STEP + 1).clamp(0, 2 * MAX_STEP + 2)  # both ends: beyond what is learnt
            steps = steps.masked_fill((reference_BT1 < first) | (reference_BT1 > last), 0)
            by_id = F.pad(by_step, (1, 1)).gather(-1, steps)
            logits_BTV = logits_BTV + F.pad(by_id, (first, self.out_features - last - 1))
        return logits_BTV


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
