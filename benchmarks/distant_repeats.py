"""Targets that repeat something from far back, and the loss on them: what a longer context can be worth.

A target is the token to predict. Its match is the nearest earlier place that follows the same `num_matched` symbols, where
symbols are the tokens themselves, or only those that are the onset of a pitch (in expressive performances times and
velocities hardly ever repeat). The distance of a match is the number of tokens between the last symbols before the two
places. A target is

    distant   its match lies more than `back` tokens back: attention to the last `back` tokens does not reach it in one layer.
              L such layers, one above the other, reach L (back - 1) + 1 tokens
    near      its match lies within the last `back` tokens
    none      it has no match

No look at the target itself: the groups depend on what precedes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from musiclm.evaluation import token_losses
from musiclm.tokenizers.vocabulary import pitch_ids

GROUPS = ("distant", "near", "none")


def match_distances(tokens: np.ndarray, is_symbol: np.ndarray, num_matched: int) -> np.ndarray:
    """Return how many tokens back the match of each token but the first lies, (T - 1,) int64; 0 for none.

    Args:
        tokens: (T,) ids.
        is_symbol: (T,) booleans, which of them are compared.
        num_matched: how many symbols in front of a target have to be the same.
    """
    places = np.flatnonzero(is_symbol)
    symbols = np.ascontiguousarray(np.asarray(tokens, np.int64)[places])
    latest: dict[bytes, int] = {}
    distances = np.zeros(len(places) + 1, np.int64)  # by the number of symbols in front of a target
    for last in range(num_matched - 1, len(places)):
        key = symbols[last - num_matched + 1 : last + 1].tobytes()
        if key in latest:
            distances[last + 1] = places[last] - places[latest[key]]
        latest[key] = last
    return distances[np.searchsorted(places, np.arange(1, len(tokens)))]


def group_masks(distances: np.ndarray, back: int) -> dict[str, np.ndarray]:
    """Return which targets are in each group, booleans by the names of `GROUPS`."""
    return {"distant": distances > back, "near": (distances > 0) & (distances <= back), "none": distances == 0}


def symbol_mask(tokenizer: Any, compared: str) -> np.ndarray:
    """Return which ids are symbols, (V,) booleans: all that count ("tokens"), or onsets of one pitch ("pitches")."""
    ids = np.arange(tokenizer.vocab_size)
    if compared == "tokens":
        return np.asarray(tokenizer.eval_mask(ids))
    return np.isin(ids, list(pitch_ids(tokenizer.vocabulary).values()))


def loss_by_group(
    model: Any,
    tokenizer: Any,
    pieces: Sequence[Any],
    *,
    compared: str,
    num_matched: int,
    back: int,
    bf16: bool = False,
) -> dict[str, dict[str, float | int | None]]:
    """Return the number of targets, how many pieces they are in, and their mean loss (nats/token), by group.

    Only targets that the tokenizer evaluates count.
    """
    is_symbol = symbol_mask(tokenizer, compared)
    nats, counts = dict.fromkeys(GROUPS, 0.0), dict.fromkeys(GROUPS, 0)
    num_pieces = dict.fromkeys(GROUPS, 0)
    for piece, of_piece in token_losses(model, tokenizer, pieces, bf16):
        tokens = np.asarray(piece.tokens, np.int64)
        counted = np.asarray(tokenizer.eval_mask(tokens[1:]))
        masks = group_masks(match_distances(tokens, is_symbol[tokens], num_matched), back)
        for name, mask in masks.items():
            chosen = mask & counted
            nats[name] += float(of_piece[chosen].sum())
            counts[name] += int(chosen.sum())
            num_pieces[name] += bool(chosen.any())
    return {
        name: {
            "num_targets": counts[name],
            "num_pieces": num_pieces[name],
            "nats_per_token": nats[name] / counts[name] if counts[name] else None,
        }
        for name in GROUPS
    }
