"""Autoregressive decoding: ids in, ids out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..models.base import LanguageModel, State, rows
from .sampler import Constraint, Sampler

CHUNK = 1024  # prompt tokens per forward pass; bounds the memory that a long prompt takes
AHEAD = 64  # random numbers that are copied to a GPU at once


Features = Callable[[Tensor, Any], tuple[Tensor, Any]]
"""(B, T) tokens and an earlier state or None -> (B, T, F) features and the state after them."""


def sample_ids(
    model: LanguageModel,
    prompt: Tensor,
    sampler: Sampler | None = None,
    *,
    seed: int = 0,
    features: Features | None = None,
    model_ids: Tensor | None = None,
) -> Iterator[Tensor]:
    """Yield the next token of each batch element, (B,) int64, endlessly; the caller takes as many as it needs.

    Each batch element samples from its own generator, made from (seed, index), so no element changes another.

    Args:
        model: in evaluation mode; it is not changed.
        prompt: (B, T) int64 on the model's device, T >= 1; a prompt that all elements share is run through the model once.
        sampler: plain sampling at temperature 1 if left out.
        seed: same seed, same prompt, same model, same machine: same tokens.
        features: needed by a model that takes features.
        model_ids: (B, T') what the model reads instead of the prompt, which then only the constraints read; the prompt if left
            out.

    Raises:
        ValueError: the constraints ban every token.
    """
    sampler = sampler or Sampler()
    uniforms = _uniforms(seed, prompt.shape[0], prompt.device)
    with torch.inference_mode():
        logits, state, given, feature_state = _read(model, prompt if model_ids is None else model_ids, features)
    constraint_states = [_after_prompt(constraint, prompt) for constraint in sampler.constraints]
    penalty_states = [_after_prompt(penalty, prompt) for penalty in sampler.penalties]
    while True:
        with torch.inference_mode():
            logits = _constrained(logits, sampler.constraints, constraint_states)
            penalty = _sum(sampler.penalties, penalty_states)
            token = _sample(_probabilities(sampler, logits, penalty, given), next(uniforms))
        yield token
        with torch.inference_mode():
            constraint_states = _stepped(sampler.constraints, constraint_states, token)
            penalty_states = _stepped(sampler.penalties, penalty_states, token)
            if features:
                given, feature_state = features(token[:, None], feature_state)
            logits, state = _run(model, token[:, None], state, given)


def _read(
    model: LanguageModel, ids: Tensor, features: Features | None
) -> tuple[Tensor, State | None, Tensor | None, Any]:
    """Return what follows from the ids that a model reads first, (B, T).

    Returns:
        The logits of the next token, (B, V); the model's state; the features of the last token, (B, 1, F), and the state of
        the features, or None twice.
    """
    batch, is_shared = ids.shape[0], _is_shared(ids)
    first = ids[:1] if is_shared else ids
    given, feature_state = features(ids, None) if features else (None, None)
    state: State | None = None
    for begin in range(0, ids.shape[1], CHUNK):
        chunk = slice(begin, begin + CHUNK)
        logits, state = _run(model, first[:, chunk], state, None if given is None else given[: len(first), chunk])
    if is_shared and batch > 1 and state is not None:
        state = rows(state, [0] * batch)
    return logits.expand(batch, -1), state, None if given is None else given[:, -1:], feature_state


def _constrained(logits: Tensor, constraints: Sequence[Constraint], states: Sequence[Any]) -> Tensor:
    """Return logits, (B, V), with what constraints add to them.

    Raises:
        ValueError: every token of a batch element is banned.
    """
    is_constrained = False
    for constraint, state in zip(constraints, states, strict=True):
        added = constraint.allow(state)
        if added is not None:
            is_constrained, logits = True, logits + added.to(logits.device)
    if is_constrained and bool(torch.isneginf(logits).all(1).any()):  # on a GPU, reading it waits for the logits
        raise ValueError("the constraints ban every token")
    return logits


def _probabilities(sampler: Sampler, logits: Tensor, penalty: Tensor | None, given: Tensor | None) -> Tensor:
    """Return the probabilities of the next token, (B, V), behind a token with these features, (B, 1, F), if any."""
    last = None if given is None else given[:, -1]
    exempt = sampler.exempt(last) if sampler.exempt is not None else None
    tempered = sampler.tempers_rhythm(last) if sampler.tempers_rhythm is not None else None
    return sampler.probabilities(logits, exempt, penalty, tempered)


def _stepped(constraints: Sequence[Constraint], states: Sequence[Any], token: Tensor) -> list[Any]:
    """Return the states of constraints after one more token of each batch element, (B,)."""
    return [constraint.step(state, token) for constraint, state in zip(constraints, states, strict=True)]


def _is_shared(ids: Tensor) -> bool:
    """Return whether all batch elements have the same ids."""
    return bool((ids == ids[:1]).all())


def _after_prompt(constraint: Constraint, prompt: Tensor) -> Any:
    """Return the state of a constraint after a prompt, (B, T)."""
    state = constraint.start(prompt.shape[0])
    for t in range(prompt.shape[1]):
        state = constraint.step(state, prompt[:, t])
    return state


def _sum(constraints: Sequence[Constraint], states: Sequence[Any]) -> Tensor | None:
    """Return the sum of what constraints add, (B, V); None for nothing."""
    added = [constraint.allow(state) for constraint, state in zip(constraints, states, strict=True)]
    found = [each for each in added if each is not None]
    return torch.stack(found).sum(0) if found else None


def _run(model: LanguageModel, tokens: Tensor, state: State | None, features: Tensor | None) -> tuple[Tensor, State]:
    """Return the logits after the last token, (B, V), and the state."""
    logits, state = model(tokens, state, features)
    return logits[:, -1], state


def _uniforms(seed: int, batch: int, device: torch.device) -> Iterator[Tensor]:
    """Yield uniform numbers in [0, 1), (B, 1) float64 on a device, endlessly; each element has its own generator.

    They are copied to a GPU `AHEAD` steps at a time: a copy in each step would make it wait.
    """
    generators = [np.random.default_rng((seed, index)) for index in range(batch)]
    num_steps = 1 if device.type == "cpu" else AHEAD
    while True:
        block = torch.from_numpy(np.stack([generator.random(num_steps) for generator in generators])).to(device)
        yield from block.split(1, 1)


def _sample(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Return one token per batch element, (B,): inverse transform sampling with a uniform number each, (B, 1)."""
    cumulated = probabilities.double().cumsum(1)
    token = torch.searchsorted(cumulated, uniform * cumulated[:, -1:], right=True)
    return token.squeeze(1).clamp_(max=probabilities.shape[1] - 1)
