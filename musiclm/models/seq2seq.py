"""The contract of sequence-to-sequence models (Sutskever et al. 2014): an encoder reads a source, a decoder writes a target.

A model of this kind is a `LanguageModel` of the target whose streaming state begins with the encoded source. So sampling,
constraints and evaluation do not know it: `Seq2SeqModel.conditioned` is a causal language model given one source.

B batch, S tokens of the source, T tokens of the target, F features, D size.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod

import torch
from torch import Tensor

from .base import BaseConfig, LanguageModel, State
from .layers.alignment_bias import AlignmentBias


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seq2SeqConfig(BaseConfig):
    """The hyperparameters that sequence-to-sequence models have in common.

    Attributes:
        aligned_features: indices of input features that say where in the piece a token is, in source and target alike; see
            `layers.alignment_bias`. Training takes them from the tokenizer.
        alignment_slopes: of each of them by how much attention falls at first with a difference of 1.
    """

    aligned_features: tuple[int, ...] = ()
    alignment_slopes: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("aligned_features", "alignment_slopes"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # JSON has lists
        if any(not 0 <= i < len(self.feature_sizes) for i in self.aligned_features):
            raise ValueError(f"aligned_features: there are {len(self.feature_sizes)}, not {self.aligned_features}")
        if len(self.alignment_slopes) != len(self.aligned_features):
            raise ValueError(f"alignment_slopes must be {len(self.aligned_features)}, not {self.alignment_slopes}")


class Seq2SeqModel(LanguageModel):
    """A distribution of the next token of a target, given a source and all tokens of the target before it.

    Source and target have the same vocabulary and features. The encoded source and its mask are part of the state.
    """

    @abstractmethod
    def start(self, source: Tensor, source_features: Tensor | None = None, source_mask: Tensor | None = None) -> State:
        """Return the state before the first token of the target.

        Args:
            source: (B, S) int64, S >= 1.
            source_features: (B, S, F) int64, where F is `len(config.feature_sizes)`; may be left out if F is 0.
            source_mask: (B, S) bool, True for tokens of the source, False for the padding behind them; each source has at
                least one token. All are tokens if left out.
        """

    def conditioned(
        self, source: Tensor, source_features: Tensor | None = None, source_mask: Tensor | None = None
    ) -> Conditioned:
        """Return the causal language model of the target of a source; the arguments are those of `start`."""
        return Conditioned(self, source, source_features, source_mask)

    def alignment_bias(self, num_heads: int) -> AlignmentBias:
        """Return a new module of biases by aligned features, for so many heads."""
        sizes = [self.config.feature_sizes[i] for i in self.config.aligned_features]
        return AlignmentBias(sizes, self.config.alignment_slopes, num_heads)

    def aligned(self, tokens: Tensor, features: Tensor | None) -> Tensor:
        """Return the aligned features of tokens, (B, T, A)."""
        if features is None:
            return tokens.new_zeros(*tokens.shape, 0)
        return features[..., list(self.config.aligned_features)]

    def given(self, state: State | None) -> State:
        """Return a state that there must be.

        Raises:
            ValueError: there is none.
        """
        if state is None:
            raise ValueError(f"the model {type(self).__module__} reads a source first: begin with start(source)")
        return state


class Conditioned(LanguageModel):
    """A sequence-to-sequence model given its source: a causal language model of the target.

    Its state is that of the model. A batch of any size has one source, or as many sources as elements.

    Args:
        model: in evaluation mode; it is shared, not copied.
        source: see `Seq2SeqModel.start`, as the other arguments; one source, or one for each element of later batches.
    """

    def __init__(
        self,
        model: Seq2SeqModel,
        source: Tensor,
        source_features: Tensor | None = None,
        source_mask: Tensor | None = None,
    ) -> None:
        super().__init__(model.config)
        self.model = model
        self.head = model.head
        self.source, self.source_features, self.source_mask = source, source_features, source_mask
        self.train(model.training)

    def check_contract(self) -> None:
        """Nothing is left to check: the model is complete."""

    def encode(
        self, tokens: Tensor, state: State | None = None, features: Tensor | None = None
    ) -> tuple[Tensor, State]:
        if state is None:
            state = self.model.start(self.source, self.source_features, self.source_mask)
            if len(self.source) == 1 != len(tokens):
                state = tuple(t.expand(len(tokens), *t.shape[1:]).contiguous() for t in state)
        return self.model.encode(tokens, state, features)

    def logits(self, hidden_BTD: Tensor, features: Tensor | None = None) -> Tensor:
        return self.model.logits(hidden_BTD, features)

    def for_generation(self, precision: str = "auto") -> LanguageModel:
        """Return the same source with the form of the model that generates fastest."""
        form = self.model.for_generation(precision)
        return Conditioned(form, self.source, self.source_features, self.source_mask)  # type: ignore[arg-type]


def lengths(source: Tensor, source_mask: Tensor | None) -> Tensor:
    """Return the number of tokens of each source, (B,)."""
    if source_mask is None:
        return torch.full((len(source),), source.shape[1], device=source.device)
    return source_mask.sum(1)


def mask_of(source: Tensor, source_mask: Tensor | None) -> Tensor:
    """Return the mask of a source, (B, S) bool; all True if there is none."""
    return torch.ones_like(source, dtype=torch.bool) if source_mask is None else source_mask
