"""Autoregressive decoding: ids in, ids out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..models.base import LanguageModel, State, rows
from .sampler import Sampler

PIECE = 1024  # tokens of the prompt a pass: bounds what a long one takes of memory


Features = Callable[[Tensor, Any], tuple[Tensor, Any]]
"""(B, T) tokens and an earlier state or None -> (B, T, F) features and the state after them."""


def sample_ids(
    model: LanguageModel,
    prompt: Tensor,
    sampler: Sampler | None = None,
    *,
    seed: int = 0,
    features: Features | None = None,
    heard: Tensor | None = None,
) -> Iterator[Tensor]:
    """Yield one token a row, (B,) int64, for ever; the caller takes as many as are wanted.

    Each row draws from its own generator, made from (seed, row), so what happens in one row changes no other.

    Args:
        model: in evaluation mode; it is not changed.
        prompt: (B, T) int64 on the model's device, T >= 1; rows that are equal are run through the model once.
        sampler: plain sampling at temperature 1 if left out.
        seed: same seed, same prompt, same model, same machine: same tokens.
        features: needed by a model that takes features.
        heard: (B, T') what the model reads instead of the prompt, which then only the rules see; the prompt if left out.

    Raises:
        ValueError: the rules forbid every token.
    """
    heard = prompt if heard is None else heard
    sampler = sampler or Sampler()
    num_rows = prompt.shape[0]
    generators = [np.random.default_rng((seed, row)) for row in range(num_rows)]
    with torch.inference_mode():
        same = bool((heard == heard[:1]).all())
        first = heard[:1] if same else heard
        given, feature_state = features(heard, None) if features else (None, None)
        last_given = None if given is None else given[:, -1]
        state: State | None = None
        for begin in range(0, heard.shape[1], PIECE):
            piece = slice(begin, begin + PIECE)
            given_piece = given[: len(first), piece] if given is not None else None
            logits, state = _run(model, first[:, piece], state, given_piece)
        logits = logits.expand(num_rows, -1)
        if same and num_rows > 1 and state is not None:
            state = rows(state, [0] * num_rows)
    rule_states = []
    for rule in sampler.constraints:
        rule_state = rule.start(num_rows)
        for t in range(prompt.shape[1]):
            rule_state = rule.step(rule_state, prompt[:, t])
        rule_states.append(rule_state)
    while True:
        with torch.inference_mode():
            for rule, rule_state in zip(sampler.constraints, rule_states, strict=True):
                opinion = rule.allow(rule_state)
                if opinion is not None:
                    logits = logits + opinion.to(logits.device)
            if bool(torch.isneginf(logits).all(1).any()):
                raise ValueError("the rules forbid every token")
            exempt = sampler.exempt(last_given) if sampler.exempt is not None else None
            token = _draw(sampler.probabilities(logits, exempt), generators)
        yield token
        with torch.inference_mode():
            rule_states = [r.step(s, token) for r, s in zip(sampler.constraints, rule_states, strict=True)]
            given = None
            if features:
                given, feature_state = features(token[:, None], feature_state)
                last_given = given[:, -1]
            logits, state = _run(model, token[:, None], state, given)


def _run(model: LanguageModel, tokens: Tensor, state: State | None, features: Tensor | None) -> tuple[Tensor, State]:
    """Return the logits after the last token only, (B, V), and the state."""
    logits, state = model(tokens, state, features)
    return logits[:, -1], state


def _draw(probabilities: Tensor, generators: list[np.random.Generator]) -> Tensor:
    """Return one token a row by inverting its distribution at one uniform number."""
    cumulated = probabilities.double().cumsum(1)
    uniform = torch.tensor([[g.random()] for g in generators], dtype=torch.float64, device=probabilities.device)
    token = torch.searchsorted(cumulated, uniform * cumulated[:, -1:], right=True)
    return token.squeeze(1).clamp_(max=probabilities.shape[1] - 1)
