"""Ensemble: the mean of several models' predicted probabilities."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .base import LanguageModel, State


class Ensemble(LanguageModel):
    """A model whose probabilities are the mean of its members' probabilities; its logits are their logarithms.

    The hidden states are the members' log-probabilities, (B, T, members, V), and the head averages them. The state is
    the number of state tensors of each member, (B, members), followed by those tensors, member by member.

    Args:
        members: of one vocabulary, of any architectures. A member may take only the first of the input features.
    """

    def __init__(self, members: Sequence[LanguageModel]) -> None:
        super().__init__(max((m.config for m in members), key=lambda config: len(config.feature_sizes)))
        self.members = nn.ModuleList(members)
        self.head = MeanProbability()

    def encode(
        self, tokens: Tensor, state: State | None = None, features: Tensor | None = None
    ) -> tuple[Tensor, State]:
        states = [None] * len(self.members) if state is None else _split(state)
        log_probs: list[Tensor] = []
        after: list[State] = []
        for member, own_state in zip(self.members, states, strict=True):
            assert isinstance(member, LanguageModel)
            num_features = len(member.config.feature_sizes)
            own_features = None if features is None else features[..., :num_features]
            logits_BTV, new_state = member(tokens, own_state, own_features)
            log_probs.append(logits_BTV.float().log_softmax(-1))
            after.append(new_state)
        counts = torch.tensor([len(s) for s in after], device="cpu").repeat(tokens.shape[0], 1)
        return torch.stack(log_probs).movedim(0, 2), (counts, *itertools.chain.from_iterable(after))


class MeanProbability(nn.Module):
    """Log-probabilities of several models, (B, T, members, V) -> the logarithm of their mean probability, (B, T, V)."""

    def forward(self, log_probs_BTMV: Tensor) -> Tensor:
        return log_probs_BTMV.logsumexp(2) - torch.tensor(float(log_probs_BTMV.shape[2])).log()


def _split(state: State) -> list[State]:
    """Return the states of the members."""
    tensors = iter(state[1:])
    return [tuple(itertools.islice(tensors, count)) for count in state[0][0].tolist()]
