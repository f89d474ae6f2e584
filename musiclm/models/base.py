"""The contract of every architecture, the layers that they share at both ends, and operations on a streaming state.

This module does not depend on music: tokens are integers, input features are further integers.

B batch, T tokens, D hidden size, F features, V vocabulary.
"""

from __future__ import annotations

import dataclasses
import itertools
from abc import ABCMeta, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..devices import resolve_precision

MAX_INTERVAL = 24  # of a relative-pitch head, in ids from the reference; two octaves where ids are semitones
TEMPERATURE = "temperature"  # the buffer of a model whose head cannot be rescaled

State = tuple[Tensor, ...]
"""A streaming state (recurrent state or KV cache): flat, batch first in every tensor, its order private to the model.

Numbers that Python reads in each step, `host_counts`, are on the CPU whatever the model's device: reading a number from a GPU
waits for all that it computes.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BaseConfig:
    """The hyperparameters that every architecture's `Config` has.

    Attributes:
        vocab_size: number of token ids.
        feature_sizes: number of values of each input feature. Each feature has an embedding, which is added to the
            token's.
        relative_pitch: ranges of ids that are ordered like pitches, so that differences of ids are intervals. Each is
            (first id, last id, index of the input feature that holds the reference): the id that the next token of this
            range is likely to be close to. A fourth number is added to the feature to make it an id. A `Head` learns
            logits of intervals for each range.
    """

    vocab_size: int
    feature_sizes: tuple[int, ...] = ()
    relative_pitch: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "feature_sizes", tuple(self.feature_sizes))  # JSON has lists
        object.__setattr__(self, "relative_pitch", tuple(tuple(r) for r in self.relative_pitch))
        for each in self.relative_pitch:
            if len(each) not in (3, 4) or not 0 <= each[0] < each[1] < self.vocab_size:
                raise ValueError(
                    f"relative_pitch takes (first id, last id, feature) with ids below {self.vocab_size}, not {each}"
                )
            if not 0 <= each[2] < len(self.feature_sizes):
                raise ValueError(f"relative_pitch refers to one of {len(self.feature_sizes)} features, not {each}")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "dropout":
                if not 0 <= value < 1:
                    raise ValueError(f"dropout must be in [0, 1), not {value}")
            elif isinstance(value, int) and not isinstance(value, bool) and value < 1:
                raise ValueError(f"{field.name} must be at least 1, not {value}")


class _CheckedClass(ABCMeta):
    """Checks each new `LanguageModel` once the outermost `__init__` has returned."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        model = super().__call__(*args, **kwargs)
        model.check_contract()
        return model


class LanguageModel(nn.Module, metaclass=_CheckedClass):
    """A distribution of the next token given all tokens before it: a body (`encode`) and a `head`.

    Streaming invariant: processing a sequence in chunks, passing the state along, gives the same logits as one forward
    pass.

    Attributes:
        config: the architecture's `Config`.
        head: required. Hidden states (B, T, D) -> logits (B, T, V). Any module will do, `nn.Linear` for one. A module
            whose attribute `takes_features` is true, `Head` for one, is called with the input features too.
        embedding: the module that embeds tokens and features, if the model has one: an `Embedding` or an
            `nn.Embedding`. Pictures and vocabulary growth use it.
        starts_from_zeros: whether a batch element whose part of the state is all zeros is at the beginning of a
            sequence, whatever the other elements have read. Only such a model is trained on contiguous crops, where
            elements reach the end of their pieces at different times.

    Raises:
        TypeError: on construction, if `__init__` did not set `head`.
    """

    head: nn.Module
    embedding: nn.Module
    temperature: Tensor  # a buffer, only if the head cannot be rescaled; see `check_contract`
    starts_from_zeros: bool = False

    def __init__(self, config: BaseConfig) -> None:
        super().__init__()
        self.config: Any = config

    @abstractmethod
    def encode(
        self, tokens: Tensor, state: State | None = None, features: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Return the hidden states and the streaming state after the last token.

        Args:
            tokens: (B, T) int64, T >= 1.
            state: what an earlier call returned, or None at the beginning. The model may write into it, so it must not
                be used again. Keep a `copy_state` of it to branch or to rewind. Its dtypes are those of the pass that
                returned it: a pass under autocast is continued under the same autocast.
            features: (B, T, F) int64, where F is `len(config.feature_sizes)`; may be left out if F is 0.

        Returns:
            (B, T, D) hidden states for `head`, and the new state.
        """

    def forward(
        self, tokens: Tensor, state: State | None = None, features: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Return the logits of each next token, (B, T, V), and the new state: `head` of `encode`.

        Position t predicts token t + 1. The arguments are those of `encode`.
        """
        hidden_BTD, state = self.encode(tokens, state, features)
        return self.logits(hidden_BTD, features), state

    def logits(self, hidden_BTD: Tensor, features: Tensor | None = None) -> Tensor:
        """Return the logits, (B, T, V), of hidden states that `encode` returned for these features."""
        logits_BTV: Tensor
        if getattr(self.head, "takes_features", False):
            logits_BTV = self.head(hidden_BTD, features)
        else:
            logits_BTV = self.head(hidden_BTD)
        if TEMPERATURE in self._buffers:
            logits_BTV = logits_BTV / self.temperature
        return logits_BTV

    def check_contract(self) -> None:
        """Check that there is a head, and make it possible to divide its logits by a temperature.

        Dividing the parameters of a linear layer by T divides its logits by T. For any other head, and for one that
        shares parameters with the body, the model gets a buffer `temperature` (1 at first), which is saved with the
        weights.

        Raises:
            TypeError: the model has no head.
        """
        if not isinstance(getattr(self, "head", None), nn.Module):
            name = f"{type(self).__module__}.{type(self).__name__}"
            raise TypeError(f"the model {name} has no head: its __init__ must set self.head, an nn.Module")
        if not self._head_is_linear():
            self.register_buffer(TEMPERATURE, torch.ones(()))

    def scale_logits(self, temperature: float) -> None:
        """Divide the logits by a temperature, in place (temperature scaling, Guo et al. 2017)."""
        with torch.no_grad():
            if TEMPERATURE in self._buffers:
                self.temperature.mul_(temperature)
            else:
                for parameter in self.head.parameters():
                    parameter.div_(temperature)

    def _head_is_linear(self) -> bool:
        """Return whether the logits are linear in the head's parameters and nothing else uses these."""
        own = {id(p) for p in self.head.parameters()}
        num_uses = sum(id(p) in own for _, p in self.named_parameters(remove_duplicate=False))
        is_linear = type(self.head) is nn.Linear or bool(getattr(self.head, "is_linear", False))
        return is_linear and num_uses == len(own)

    def token_embeddings(self) -> Tensor:
        """Return the learned vector of each token id, (V, D).

        Raises:
            TypeError: the model has no `embedding`, or one of an unknown kind; such a model overrides this method.
        """
        embedding = getattr(self, "embedding", None)
        table = embedding.token if isinstance(embedding, Embedding) else embedding
        if not isinstance(table, nn.Embedding):
            raise TypeError(f"the model {type(self).__name__} has no table of token embeddings")
        return table.weight

    def for_generation(self, precision: str = "auto") -> LanguageModel:
        """Return the form of the model that generates fastest. It obeys the same invariant and is for evaluation only.

        An architecture without such a form runs one token as it runs many.

        Args:
            precision: of the weights: fp32, bf16, fp16, int8, or "auto", the best here; see `resolve_precision`.

        Raises:
            ValueError: there is no such precision, or not on the model's device.
        """
        resolve_precision(precision, next(self.parameters()).device)
        return self

    def on_step(self, step: int) -> None:
        """Prepare for a training step, counted from 0; most architectures have nothing to do.

        The training loop calls this before each step, for the trained model and for its EMA copy. What it changes is a
        function of the step and of parameters and buffers, so that a resumed run is exact and the copy has the same
        buffers.
        """

    @property
    def num_parameters(self) -> int:
        """Return the number of parameters."""
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
            raise ValueError(f"the model takes {len(self.features)} features per token, {num_given} were given")
        if features is None or tokens.shape[1] == 1:
            embedded = self.token(tokens)
            for i, table in enumerate(self.features):
                assert features is not None
                embedded = embedded + table(features[..., i])
            return embedded
        # One look-up of the sum: 14 features of 4 x 512 tokens took 20.6 ms a step one by one, 7.9 ms this way.
        tables = [table.weight for table in self.modules() if isinstance(table, nn.Embedding)]  # the token's is first
        offsets = torch.tensor([0, *itertools.accumulate(len(t) for t in tables[:-1])], device=tokens.device)
        ids = torch.cat([tokens[..., None], features], -1) + offsets
        return F.embedding_bag(ids.flatten(0, 1), torch.cat(tables), mode="sum").unflatten(0, tokens.shape)


class Head(nn.Linear):
    """An output layer with relative pitch: logits of each id, plus logits of the interval from a reference to the id.

    What is learned about intervals (the voice holds its note, falls by a second) is shared by all references, so it
    need not be learned for each pitch. (B, T, D), (B, T, F) -> (B, T, V).
    """

    takes_features = True  # see `LanguageModel.head`
    is_linear = True  # in its parameters: dividing them by T divides the logits by T

    def __init__(self, config: BaseConfig, size: int) -> None:
        super().__init__(size, config.vocab_size)
        self.ranges = config.relative_pitch
        nn.init.normal_(self.weight, std=0.02)
        nn.init.zeros_(self.bias)
        if self.ranges:
            self.relative_pitch = nn.Linear(size, len(self.ranges) * (2 * MAX_INTERVAL + 1))
            nn.init.normal_(self.relative_pitch.weight, std=0.02)
            nn.init.zeros_(self.relative_pitch.bias)

    def forward(self, x_BTD: Tensor, features: Tensor | None = None) -> Tensor:
        return self.add_relative_pitch(super().forward(x_BTD), x_BTD, features)

    def add_relative_pitch(self, logits_BTV: Tensor, x_BTD: Tensor, features: Tensor | None) -> Tensor:
        """Return the logits of ids plus those of their intervals from the references."""
        if not self.ranges:
            return logits_BTV
        assert features is not None
        for (first, last, feature, *offset), by_interval in zip(
            self.ranges, self.relative_pitch(x_BTD).split(2 * MAX_INTERVAL + 1, -1), strict=True
        ):
            reference_BT1 = features[..., feature, None] + sum(offset)
            ids = torch.arange(first, last + 1, device=x_BTD.device)
            # 0 and 2 * MAX_INTERVAL + 2 stand for intervals that are too large: their logits are 0
            intervals = (ids - reference_BT1 + MAX_INTERVAL + 1).clamp(0, 2 * MAX_INTERVAL + 2)
            intervals = intervals.masked_fill((reference_BT1 < first) | (reference_BT1 > last), 0)
            by_id = F.pad(by_interval, (1, 1)).gather(-1, intervals)
            logits_BTV = logits_BTV + F.pad(by_id, (first, self.out_features - last - 1))
        return logits_BTV


def host_counts(count: int, batch_size: int) -> Tensor:
    """Return a count for each batch element, (B,) int64, on the CPU: the part of a state that Python reads."""
    return torch.full((batch_size,), count, dtype=torch.int64, device="cpu")


def on_device(counts: Tensor, device: torch.device) -> Tensor:
    """Return counts, (B,), on a device, copied without waiting for what it computes."""
    return counts.to(device, non_blocking=True)


def detach(state: State) -> State:
    """Return the state detached from the graph, for truncated back-propagation through time."""
    return tuple(t.detach() for t in state)


def reset(state: State, begins: Tensor) -> State:
    """Return the state with some batch elements at the beginning of a sequence, for a model that `starts_from_zeros`.

    Args:
        state: it is not written into.
        begins: (B,) bool, which elements.
    """
    return tuple(t.masked_fill(begins.view(-1, *[1] * (t.dim() - 1)), 0) for t in state)


def copy_state(state: State) -> State:
    """Return a copy of the state in memory of its own, to branch from or to rewind to."""
    return tuple(t.clone() for t in state)


def rows(state: State, index: Sequence[int] | Tensor) -> State:
    """Return the state of these batch elements, in this order; an element may be repeated."""
    index = torch.as_tensor(index)
    return tuple(t[index.to(t.device)] for t in state)
