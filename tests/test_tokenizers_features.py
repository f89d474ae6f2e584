"""Input features: the array form for training equals the streaming form, which generation takes id by id."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from musiclm import tokenizers
from musiclm.tokenizers.base import Tokenizer
from tests import crops_data

NAMES = [name for name in crops_data.GOLDEN if "bpe" not in name and name not in ("score 1", "performance 1", "REMI")]
NAMES += ["score", "score-infill"]
quickly = settings(max_examples=25)


@cache
def tokenizer(name: str) -> Tokenizer:
    name, _, version = name.partition(" ")
    return tokenizers.create(name, features=int(version)) if version else tokenizers.create(name)


@cache
def real_ids(name: str) -> tuple[np.ndarray, ...]:
    """Return the ids of pieces, and of permutations and infilling examples of them."""
    own = tokenizer(name)
    pieces = [ids.astype(np.int64) for ids in crops_data.pieces(own)]
    numbers = [0, 1, 2, 5, own.num_rearrangements - 1] if own.num_rearrangements > 1 else [0]
    return tuple(own.rearranged(ids, number) for ids in pieces for number in numbers)


def streamed(own: Tokenizer, ids: np.ndarray, num_single: int = 40) -> np.ndarray:
    """Return the features of a sequence: those of its first ids one by one, the others in chunks of 13."""
    cuts = [*range(num_single), *range(num_single, len(ids), 13)]
    found, state = [], None
    for begin, end in zip(cuts, [*cuts[1:], len(ids)], strict=True):
        if begin < len(ids):
            features, state = own.features(torch.from_numpy(ids[begin:end])[None], state)
            found.append(features[0].numpy())
    return np.concatenate(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_arrays_and_streams_give_the_same_features_of_real_pieces(name: str):
    own = tokenizer(name)
    pieces = [ids[begin : begin + 400] for ids in real_ids(name) for begin in (0, 133) if begin < len(ids)]
    found = own.features_of(pieces)
    assert found.shape == (sum(map(len, pieces)), len(own.feature_sizes)) and found.dtype == np.int64
    assert np.array_equal(found, np.concatenate([streamed(own, ids) for ids in pieces]))


@st.composite
def sequences(draw: st.DrawFn, own: Tokenizer, pieces: tuple[np.ndarray, ...]) -> list[np.ndarray]:
    """Draw some sequences of any ids: of the whole vocabulary, of a few that often come again, or mutated pieces."""
    any_id = st.integers(0, own.vocab_size - 1)
    found = []
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["any", "few", "piece"]))
        if kind == "piece":
            piece = draw(st.sampled_from(pieces))
            begin = draw(st.integers(0, len(piece) - 1))
            ids = piece[begin : begin + draw(st.integers(1, 120))].tolist()
            for _ in range(draw(st.integers(0, 3))):
                ids.insert(draw(st.integers(0, len(ids))), draw(any_id))
        else:
            one = any_id if kind == "any" else st.sampled_from(draw(st.lists(any_id, min_size=1, max_size=8)))
            ids = draw(st.lists(one, min_size=1, max_size=60))
        found.append(np.array(ids))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@quickly
@given(st.data())
def test_arrays_and_streams_give_the_same_features_of_any_ids(name: str, data: st.DataObject):
    own = tokenizer(name)
    drawn = data.draw(sequences(own, real_ids(name)))
    if name.startswith("grid-infill"):  # a part resumes one in front of it: without that no state is defined
        drawn = [ids[ids < own.vocab_size - 3] for ids in drawn]
        drawn = [ids for ids in drawn if len(ids)] or [np.array([own.bos])]
    found = own.features_of(drawn)
    assert np.array_equal(found, np.concatenate([streamed(own, ids) for ids in drawn]))
    sizes = np.array(own.feature_sizes)
    assert (found >= 0).all() and (found < sizes).all()


@pytest.mark.parametrize("name", NAMES)
def test_features_of_a_sequence_are_the_same_beside_others(name: str):
    own = tokenizer(name)
    pieces = [ids[:150] for ids in real_ids(name)[:4]]
    together = own.features_of(pieces)
    assert np.array_equal(together, np.concatenate([own.features_of([ids]) for ids in pieces]))
    assert np.array_equal(own.features_of(pieces[::-1])[: len(pieces[-1])], together[-len(pieces[-1]) :])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cut", [1, 7, 149])
def test_batches_and_chunks_give_the_features_of_arrays(name: str, cut: int):
    own = tokenizer(name)
    pieces = [ids[:150] for ids in real_ids(name) if len(ids) >= 150][:3]
    batch = torch.from_numpy(np.stack(pieces))
    first, state = own.features(batch[:, :cut])
    second, _ = own.features(batch[:, cut:], state)
    assert np.array_equal(torch.cat([first, second], 1).flatten(0, 1).numpy(), own.features_of(pieces))
