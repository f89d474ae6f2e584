"""Logits processors: temperature, top-k, top-p and min-p, after the constraints. This module handles ids only, no music.

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
    """A logit mask or bias for the next token. Its state is explicit, as in the models, and does not grow with the history."""

    def start(self, batch: int) -> ConstraintState:
        """Return the state before the first token."""

    def allow(self, state: ConstraintState) -> Tensor | None:
        """Return (B, V) to add to the logits, -inf for banned tokens; None to add nothing."""

    def step(self, state: ConstraintState, token: Tensor) -> ConstraintState:
        """Return the state after one more token, (B,) int64. The tokens of the prompt are stepped through too."""


Exempt = Callable[[Tensor | None], Tensor | None]
"""(B, F) features of the token to come, or None -> (B, V) or (V,) booleans, or None."""

COLDEST = 1e-6  # lower temperatures count as 0: greedy


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampler:
    """How to sample from the logits. The filters apply in this order.

    Attributes:
        temperature: divides the logits; 0 is greedy.
        top_k: keep the k most probable tokens.
        top_p: keep the most probable tokens that together reach this probability (Holtzman et al. 2020).
        min_p: keep tokens with at least this fraction of the highest probability (Nguyen et al. 2024).
        constraints: each may ban tokens, before everything else.
        exempt: which tokens are exempt from the temperature and the filters, by the features of the token to come (see
            `Tokenizer.exempt_from_temperature`); the temperature and the filters choose among the others (but temperature
            0 among all). None for no such tokens.
        rhythm_temperature: divides the logits of the exempt tokens, and that of all others together as one; 1 leaves them
            the probability that the model gives them.
        tempers_rhythm: where it does, by the features of the token to come (see `Tokenizer.tempers_rhythm`); None for
            everywhere.
        penalties: biases that choose among the tokens that are not exempt: all of those together keep the probability that
            they have without, as far as the exempt tokens have no penalty themselves. As `constraints` otherwise.
        processors: each returns new logits, (B, V), after the temperature and before the filters; see `logits_processors`.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    constraints: Sequence[Constraint] = ()
    exempt: Exempt | None = None
    rhythm_temperature: float = 1.0
    tempers_rhythm: Exempt | None = None
    penalties: Sequence[Constraint] = ()
    processors: Sequence[Callable[[Tensor], Tensor]] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature must be at least 0, not {self.temperature}")
        if not 0 < self.rhythm_temperature < float("inf"):
            raise ValueError(f"rhythm_temperature must be more than 0, not {self.rhythm_temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, not {self.top_k}")
        for name in ("top_p", "min_p"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise ValueError(f"{name} must be in (0, 1], not {value}")

    def probabilities(
        self,
        logits: Tensor,
        exempt: Tensor | None = None,
        penalty: Tensor | None = None,
        tempered: Tensor | None = None,
    ) -> Tensor:
        """Return (B, V) float32 probabilities to sample from, given (B, V) logits with the constraints added.

        Args:
            exempt: (B, V) or (V,) booleans, the tokens that have the rhythm's temperature and no filters.
            penalty: (B, V) finite, what the penalties add.
            tempered: (B, 1) booleans, where the rhythm's temperature applies; None for everywhere.
        """
        logits = logits.float()
        if penalty is not None:
            logits = _penalized(logits, exempt, penalty.to(logits.device))
        if self.temperature < COLDEST:
            return torch.zeros_like(logits).scatter_(1, logits.argmax(1, keepdim=True), 1.0)
        if exempt is None:
            return self._filtered(logits)
        exempt = exempt.to(logits.device)
        others = logits.masked_fill(exempt, float("-inf"))
        own = self._own(logits, others, tempered) * exempt
        share = own.sum(1, keepdim=True)
        is_free = ~torch.isneginf(others).all(1, keepdim=True)
        others = torch.where(is_free, self._filtered(others) * (1 - share), 0.0)
        return others + torch.where(is_free, own, own / share)

    def _own(self, logits: Tensor, others: Tensor, tempered: Tensor | None) -> Tensor:
        """Return the probabilities of the exempt tokens, (B, V), given all logits and those without them; others have any."""
        if self.rhythm_temperature == 1:
            return logits.softmax(1)
        together = others.logsumexp(1, keepdim=True)
        both = torch.cat([logits.masked_fill(~torch.isneginf(others), float("-inf")), together], 1)
        cold = (both / self.rhythm_temperature).softmax(1)[:, :-1]
        return cold if tempered is None else torch.where(tempered.to(logits.device), cold, both.softmax(1)[:, :-1])

    def _filtered(self, logits: Tensor) -> Tensor:
        """Return the probabilities after temperature and filters."""
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


def _penalized(logits: Tensor, exempt: Tensor | None, penalty: Tensor) -> Tensor:
    """Return logits with a penalty; the tokens that are not exempt are raised again so that they keep their sum.

    Penalties count from that of the least penalized token that is not exempt: what all of them have moves nothing but the
    probability of the exempt tokens.
    """
    if exempt is None:
        return logits + penalty
    exempt = exempt.to(logits.device)
    others = logits.float().masked_fill(exempt, float("-inf"))
    is_free = ~torch.isneginf(others)
    has_free = is_free.any(1, keepdim=True)
    least = penalty.masked_fill(~is_free, float("-inf")).amax(1, keepdim=True)
    penalty = penalty - torch.where(has_free, least, 0.0)
    lowered = others + penalty
    raised = lowered + torch.where(
        has_free, others.logsumexp(1, keepdim=True) - lowered.logsumexp(1, keepdim=True), 0.0
    )
    return torch.where(exempt, logits + penalty, raised)
