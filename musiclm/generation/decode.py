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
    model_ids = prompt if model_ids is None else model_ids
    sampler = sampler or Sampler()
    batch = prompt.shape[0]
    uniforms = _uniforms(seed, batch, prompt.device)
    with torch.inference_mode():
        is_shared = _is_shared(model_ids)
        first = model_ids[:1] if is_shared else model_ids
        given, feature_state = features(model_ids, None) if features else (None, None)
        last_given = None if given is None else given[:, -1]
        state: State | None = None
        for begin in range(0, model_ids.shape[1], CHUNK):
            chunk = slice(begin, begin + CHUNK)
            given_chunk = given[: len(first), chunk] if given is not None else None
            logits, state = _run(model, first[:, chunk], state, given_chunk)
        logits = logits.expand(batch, -1)
        if is_shared and batch > 1 and state is not None:
            state = rows(state, [0] * batch)
    constraint_states = [_after_prompt(constraint, prompt) for constraint in sampler.constraints]
    penalty_states = [_after_prompt(penalty, prompt) for penalty in sampler.penalties]
    while True:
        with torch.inference_mode():
            is_constrained = False
            for constraint, constraint_state in zip(sampler.constraints, constraint_states, strict=True):
                added = constraint.allow(constraint_state)
                if added is not None:
                    is_constrained, logits = True, logits + added.to(logits.device)
            if is_constrained and bool(
                torch.isneginf(logits).all(1).any()
            ):  # on a GPU, reading it waits for the logits
                raise ValueError("the constraints ban every token")
            exempt = sampler.exempt(last_given) if sampler.exempt is not None else None
            penalty = _sum(sampler.penalties, penalty_states)
            tempered = sampler.tempers_rhythm(last_given) if sampler.tempers_rhythm is not None else None
            token = _sample(sampler.probabilities(logits, exempt, penalty, tempered), next(uniforms))
        yield token
        with torch.inference_mode():
            constraint_states = [
                constraint.step(each, token)
                for constraint, each in zip(sampler.constraints, constraint_states, strict=True)
            ]
            penalty_states = [
                penalty.step(each, token) for penalty, each in zip(sampler.penalties, penalty_states, strict=True)
            ]
            given = None
            if features:
                given, feature_state = features(token[:, None], feature_state)
                last_given = given[:, -1]
            logits, state = _run(model, token[:, None], state, given)


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
