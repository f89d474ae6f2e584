"""Drawing tokens from a model: ids in, ids out. Knows nothing of music; rules and features bring that.

B batch, T tokens, V vocabulary, F features.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

ConstraintState = Any


class Constraint(Protocol):
    """What may come next. Its state is explicit, as in the models: constant work a token, no history."""

    def start(self, batch: int) -> ConstraintState:
        """Return the state before the first token."""

    def allow(self, state: ConstraintState) -> Tensor | None:
        """Return (B, V) to be added to the logits, -inf for what must not come; None for no opinion."""

    def step(self, state: ConstraintState, token: Tensor) -> ConstraintState:
        """Return the state after a token, (B,). The prompt goes through here too."""


COLDEST = 1e-6  # temperatures below it are none


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampler:
    """How to choose among what the model offers; the filters apply in this order.

    Attributes:
        temperature: divides the logits; below 1 safer, above 1 bolder, 0 always the likeliest.
        top_k: only the k likeliest tokens.
        top_p: only the likeliest tokens that together have this probability (Holtzman et al. 2020).
        min_p: only tokens at least this times as likely as the likeliest (Nguyen et al. 2024).
        rules: each may forbid tokens, before anything else.
        held: which feature is a token whose probability stays what the model gives it, or None; temperature and filters
            choose among the others (but temperature 0 among all). Where most tokens only say that nothing changes,
            a low temperature would leave nothing but those.
        timing: (V,) booleans, tokens of which each keeps its probability in the same way, or None. Where time goes on by one
            of a hundred shifts and a note ends by one certain token, a low temperature would make notes too short.
        processors: each returns new logits, (B, V), after the temperature and before the filters; see `logits_processors`.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    constraints: Sequence[Constraint] = ()
    held: int | None = None
    timing: Tensor | None = None
    processors: Sequence[Callable[[Tensor], Tensor]] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature must be at least 0, not {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, not {self.top_k}")
        for name in ("top_p", "min_p"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise ValueError(f"{name} must be in (0, 1], not {value}")

    def probabilities(self, logits: Tensor, kept: Tensor | None = None) -> Tensor:
        """Return (B, V) float32 probabilities to draw from, given (B, V) logits that the rules have seen.

        Args:
            kept: (B, V) or (V,) booleans, tokens whose probability stays as it is; see `kept`.
        """
        logits = logits.float()
        if self.temperature < COLDEST:
            return torch.zeros_like(logits).scatter_(1, logits.argmax(1, keepdim=True), 1.0)
        if kept is None:
            return self._chosen(logits)
        own = logits.softmax(1) * kept
        share = own.sum(1, keepdim=True)
        others = logits.masked_fill(kept, float("-inf"))
        is_free = ~torch.isneginf(others).all(1, keepdim=True)
        others = torch.where(is_free, self._chosen(others) * (1 - share), 0.0)
        return others + torch.where(is_free, own, own / share)

    def kept(self, given: Tensor | None, size: int) -> Tensor | None:
        """Return which of so many tokens keep their probability, given the (B, F) features of the last; None for none."""
        if self.held is None or given is None:
            return self.timing
        return given[:, self.held, None] == torch.arange(size, device=given.device)

    def _chosen(self, logits: Tensor) -> Tensor:
        """Return the probabilities that temperature and filters leave."""
        logits = logits / self.temperature
        for process in self.processors:
            logits = process(logits)
        if self.top_k is not None and self.top_k < logits.shape[1]:
            smallest = logits.topk(self.top_k).values[:, -1:]
            logits = logits.masked_fill(logits < smallest, float("-inf"))
        probabilities = logits.softmax(1)
        if self.top_p is not None:
            falling, order = probabilities.sort(descending=True, stable=True)
            beyond = falling.cumsum(1) - falling >= self.top_p
            probabilities = torch.zeros_like(probabilities).scatter_(1, order, falling.masked_fill(beyond, 0.0))
        if self.min_p is not None:
            least = self.min_p * probabilities.max(1, keepdim=True).values
            probabilities = probabilities.masked_fill(probabilities < least, 0.0)
        return probabilities / probabilities.sum(1, keepdim=True)
