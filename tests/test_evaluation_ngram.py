"""The n-gram model: a proper distribution, the published formula, and no look-ahead."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musiclm import evaluation, tokenizers
from musiclm.data import Corpus, bundled
from musiclm.evaluation.ngram import FALLBACK, NGram

VOCAB = 7
PIECES = st.lists(st.lists(st.integers(1, VOCAB - 2), min_size=1, max_size=20), min_size=1, max_size=6)


def with_marks(pieces: list[list[int]]) -> list[np.ndarray]:
    """Return pieces behind the mark 0; the id VOCAB - 1 is never seen."""
    return [np.array([0, *piece]) for piece in pieces]


@settings(max_examples=40)
@given(PIECES, st.integers(1, 5), st.lists(st.integers(0, VOCAB - 1), max_size=8))
def test_probabilities_sum_to_one_behind_any_context_and_none_is_zero(pieces, order, context):
    p = NGram(with_marks(pieces), VOCAB, order).probabilities(context)
    assert p.sum() == pytest.approx(1, abs=1e-12)
    assert (p > 0).all()


@settings(max_examples=40)
@given(PIECES, st.integers(1, 5), st.lists(st.integers(0, VOCAB - 1), min_size=2, max_size=9))
def test_the_nats_of_a_piece_are_those_of_its_tokens_one_by_one(pieces, order, piece):
    """So nothing is known of tokens to come, and order and length of context agree in both ways of asking."""
    model = NGram(with_marks(pieces), VOCAB, order)
    nats = model.nats(np.array(piece))
    alone = [-np.log(model.probabilities(piece[:t])[piece[t]]) for t in range(1, len(piece))]
    assert nats == pytest.approx(alone, abs=1e-9)


def by_the_book(pieces: list[list[int]], order: int, context: tuple[int, ...], token: int) -> float:
    """Return p(token | context) by Chen and Goodman's formula, with dictionaries."""
    counts: list[Counter] = [Counter() for _ in range(order + 1)]
    begins: list[Counter] = [Counter() for _ in range(order + 1)]
    for piece in pieces:
        for length in range(1, order + 1):
            for start in range(len(piece) - length + 1):
                gram = tuple(piece[start : start + length])
                if start + length > 1:  # the mark is given
                    counts[length][gram] += 1
                    begins[length][gram] += start == 0
    seen = {length: set(counts[length]) for length in range(1, order + 1)}
    p = 1 / VOCAB
    for length in range(1, order + 1):
        adjusted = counts[length]
        if length < order:
            adjusted = Counter({g: begins[length][g] for g in seen[length] if begins[length][g]})
            for gram in seen[length + 1]:
                adjusted[gram[1:]] += 1
        n = [sum(c == i for c in adjusted.values()) for i in range(5)]
        discounts = list(FALLBACK)
        if all(n[1:]):
            y = n[1] / (n[1] + 2 * n[2])
            found = [i - (i + 1) * y * n[i + 1] / n[i] for i in (1, 2, 3)]
            if all(0 < d <= i for i, d in enumerate(found, 1)):
                discounts = found
        discount = defaultdict(float, {1: discounts[0], 2: discounts[1]})
        cut = context[len(context) - length + 1 :] if length > 1 else ()
        if len(cut) < length - 1:
            break
        following = {g[-1]: c for g, c in adjusted.items() if g[:-1] == tuple(cut) and c}
        total = sum(following.values())
        if total:
            d = {c: discount[c] or discounts[2] for c in following.values()}
            own = following.get(token, 0)
            left = sum(d[c] for c in following.values()) / total
            p = (own - (d[own] if own else 0)) / total + left * p
    return p


def test_it_is_chen_and_goodmans_formula():
    draw = np.random.default_rng(0)
    pieces = [
        [0, *(draw.integers(1, VOCAB - 1, 30) * draw.integers(1, 3, 30) % (VOCAB - 2) + 1).tolist()] for _ in range(8)
    ]
    for order in (1, 2, 3, 4):
        model = NGram([np.array(p) for p in pieces], VOCAB, order)
        for context in [(0,), (0, 3), (2, 5, 1), (4, 4, 4, 4), tuple(pieces[0][:9]), tuple(pieces[3][:20])]:
            found = model.probabilities(context)
            for token in range(VOCAB):
                assert found[token] == pytest.approx(by_the_book(pieces, order, context, token), abs=1e-12)


def test_a_longer_order_knows_a_tune_by_heart_and_a_strange_token_costs_more():
    tune = [0, *[1, 2, 3, 1, 2, 4] * 20]
    model = NGram([np.array(tune)], VOCAB, 4)
    assert model.nats(np.array(tune))[10:].max() < 0.1
    assert model.probabilities([1, 2, 3])[1] > 0.9
    assert NGram([np.array(tune)], VOCAB, 1).nats(np.array(tune)).mean() > 1


def test_what_cannot_be_counted_is_a_wrong_argument():
    with pytest.raises(ValueError, match="order"):
        NGram([np.array([0, 1])], VOCAB, 0)
    with pytest.raises(ValueError, match="no pieces"):
        NGram([np.array([0])], VOCAB)


def test_baselines_of_the_chorales_fall_in_order_and_the_5_gram_is_a_step_of_memory():
    found = evaluation.baselines(bundled(tokenizers.create("grid")), "validation")
    assert found["uniform"] > found["unigram"] > found["repeat"] > found["5-gram"]
    assert found["5-gram"] == pytest.approx(0.990, abs=1e-3)
    assert found["unigram"] == pytest.approx(3.392, abs=1e-3)


def test_a_piece_tells_an_n_gram_nothing_about_itself():
    """Measured on what was counted, a 5-gram would know each chorale by heart (0.3 nats)."""
    whole = bundled(tokenizers.create("grid"))
    found = evaluation.baselines(whole, "train")
    assert found["5-gram"] > 0.9
    pieces = whole.pieces("train")
    alone = Corpus(
        name="one", tokenizer=whole.tokenizer, splits={"train": pieces[:1], "validation": [], "test": []}, dropped={}
    )
    assert evaluation.baselines(alone, "all").keys() == {"uniform", "repeat"}
