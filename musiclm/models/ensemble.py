"""Several models as one: the mean of what they expect. Each is a little wrong in its own way, together they are less so."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .base import LanguageModel, State


class Ensemble(LanguageModel):
    """A model whose probabilities are the mean of its members'; its logits are their logarithms.

    Its state is those of the members, one after the other.

    Args:
        members: of one vocabulary, of any architectures; some may know only the first of the features.
    """

    def __init__(self, members: Sequence[LanguageModel]) -> None:
        super().__init__(max((m.config for m in members), key=lambda config: len(config.feature_sizes)))
        self.members = nn.ModuleList(members)
        self._known = [len(m.config.feature_sizes) for m in members]
        self._ends: list[
            int
        ] = []  # of each member's part of the state: known after the first call, and the same always

    def forward(
        self, tokens: Tensor, state: State | None = None, features: Tensor | None = None
    ) -> tuple[Tensor, State]:
        starts = [0, *self._ends]
        logs, after, ends = [], [], []
        for i, member in enumerate(self.members):
            own = None if state is None else state[starts[i] : starts[i + 1]]
            known = None if features is None else features[..., : self._known[i]]
            logits, then = member(tokens, own, known)
            logs.append(logits.float().log_softmax(-1))
            after += then
            ends.append(len(after))
        self._ends = ends
        return torch.stack(logs).logsumexp(0) - torch.tensor(float(len(logs))).log(), tuple(after)
