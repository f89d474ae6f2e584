"""Byte-pair encoding of ids: nothing is lost, the merges are the textbook's, and grammars see through them."""

import itertools
import json
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from musiclm import tokenizers
from musiclm.errors import TokenizerError
from musiclm.generation import constraints
from musiclm.tokenizers.bpe import MergedTokenizer
from tests.tokenizers_data import band, pressed, real_scores

torch.set_num_threads(1)
BASE = tokenizers.create("performance")
few = st.lists(st.integers(3, 7), max_size=60).map(lambda ids: np.array(ids, dtype=np.int64))


def textbook(ids, merges, first):
    """Return ids after each merge in turn, from left to right."""
    ids = list(ids)
    for number, (left, right) in enumerate(merges):
        merged, i = [], 0
        while i < len(ids):
            if ids[i : i + 2] == [left, right]:
                merged.append(first + number)
                i += 2
            else:
                merged.append(ids[i])
                i += 1
        ids = merged
    return ids


@settings(max_examples=150, deadline=None)
@given(st.lists(few, min_size=1, max_size=5), few, st.integers(1, 12))
def test_merging_is_the_textbooks_and_loses_nothing(sequences, ids, num_merges):
    tokenizer = BASE.trained_bpe(sequences, num_merges)
    assert len(tokenizer.merges) <= num_merges
    merged = tokenizer.merged_ids(ids)
    assert merged.tolist() == textbook(ids.tolist(), tokenizer.merges, BASE.vocab_size)
    assert np.array_equal(tokenizer.base_ids(merged), ids)


@settings(max_examples=100, deadline=None)
@given(st.lists(few, min_size=1, max_size=4))
def test_each_merge_is_the_most_frequent_pair(sequences):
    """Counted plainly: pairs do not overlap with themselves and do not reach from one piece to the next."""
    with_marks = [np.concatenate([[BASE.bos], s, [BASE.eos]]) for s in sequences]
    merges = BASE.trained_bpe(with_marks, 5).merges
    ids = [s.tolist() for s in sequences]
    for number, pair in enumerate(merges):
        counted = Counter()
        for s in ids:
            run = 0  # how many pairs of the same id stand right before
            for candidate in itertools.pairwise(s):
                alike = candidate[0] == candidate[1]
                counted[candidate] += not alike or run % 2 == 0
                run = run + 1 if alike else 0
        assert counted[pair] == max(counted.values()) >= 2
        ids = [textbook(s, [pair], BASE.vocab_size + number) for s in ids]


@pytest.fixture(scope="module", params=["score", "performance", "TSD"])
def merged(request):
    base = tokenizers.create(request.param)
    return base.trained_bpe([base.encode(band())[0]] * 2, 60)


def test_a_score_goes_through_merges_unchanged(merged):
    ids, left_out = merged.encode(band())
    base_ids, base_left_out = merged.base.encode(band())
    assert (left_out, len(ids) < len(base_ids)) == (base_left_out, True)
    assert ids.max() >= merged.base.vocab_size
    assert np.array_equal(merged.base_ids(ids), base_ids)
    assert merged.decode(ids) == merged.base.decode(base_ids)
    assert merged.quarters(ids) == merged.base.quarters(base_ids)
    assert merged.num_events(ids) == merged.base.num_events(base_ids)
    assert merged.eval_mask(ids).tolist() == [False] + [True] * (len(ids) - 2) + [False]
    assert np.array_equal(merged.encode(merged.decode(ids))[0], ids)


def test_a_description_keeps_the_merges(merged):
    again = tokenizers.from_description(json.loads(json.dumps(merged.describe())))
    assert again.merges == merged.merges
    assert again.vocab_size == merged.vocab_size
    assert np.array_equal(again.encode(band())[0], merged.encode(band())[0])


def test_varied_music_is_merged_again(merged):
    ids, _ = merged.encode(band())
    varied = merged.varied(ids, semitones=1, louder=1)
    plain = merged.base.varied(merged.base_ids(ids), semitones=1, louder=1)
    assert np.array_equal(merged.base_ids(varied), plain)
    assert np.array_equal(merged.merged_ids(plain), varied)
    assert np.array_equal(merged.transpose_ids(ids, 1), merged.varied(ids, semitones=1))
    table, base_table = merged.transposed(1), merged.base.transposed(1)
    for i in range(merged.vocab_size):
        moved = tuple(base_table[list(merged.expansions[i])].tolist())
        assert table[i] == -1 if moved not in merged.expansions else merged.expansions[table[i]] == moved
    assert merged.varied(ids, semitones=90) is None


def test_a_merged_id_may_come_where_its_base_ids_may_one_after_the_other(merged):
    rule, base = constraints.constraints(merged)[0], constraints.constraints(merged.base)[0]
    draw = np.random.default_rng(0)
    place = rule.after(rule.beginning(), merged.bos)
    for _ in range(25):
        allowed = rule.allowed(place)
        for i, expansion in enumerate(merged.expansions):
            at, possible = place, True
            for base_id in expansion:
                possible = possible and bool(base.allowed(at)[base_id])
                at = base.after(at, base_id)
            assert allowed[i] == possible
        legal = np.flatnonzero(allowed)
        longer = legal[legal >= merged.base.vocab_size]
        place = rule.after(place, int(draw.choice(longer if len(longer) else legal)))


def test_the_grammar_allows_what_was_encoded(merged):
    rule = constraints.constraints(merged)[0]
    ids, _ = merged.encode(band())
    state = rule.step(rule.start(1), torch.tensor(ids[:1]))
    for i in ids[1:-1]:
        assert rule.allow(state)[0, i] == 0
        state = rule.step(state, torch.tensor([i]))


def test_silence_behind_merged_ids(merged):
    ids, _ = merged.encode(band())
    longer = merged.pad_with_silence(ids[:-1], 40)
    assert np.array_equal(merged.base_ids(longer), merged.base.pad_with_silence(merged.base_ids(ids[:-1]), 40))


def test_real_files_become_shorter_by_merges_of_others():
    scores = real_scores("openhymnal-midi", 12)
    base = tokenizers.create("score").mergeable
    ids = [base.encode(score)[0] for score in scores]
    tokenizer = base.trained_bpe(iter(ids[:8]), 200)
    for held_out in ids[8:]:
        merged = tokenizer.merged_ids(held_out)
        assert len(merged) < 0.8 * len(held_out)
        assert np.array_equal(tokenizer.base_ids(merged), held_out)


def test_merges_that_cannot_be_are_refused():
    with pytest.raises(TokenizerError, match="BPE"):
        tokenizers.create("grid").trained_bpe([np.arange(5)], 3)
    merged = BASE.trained_bpe([BASE.encode(pressed([(0, 1, 60, 64), (1, 2, 60, 64), (2, 3, 60, 64)]))[0]], 3)
    with pytest.raises(TokenizerError, match="BPE"):
        merged.trained_bpe([np.arange(5)], 3)
    with pytest.raises(TokenizerError, match="merges"):
        MergedTokenizer(tokenizers.create("performance", features=1), [(3, 4), (3, 999)])
    with pytest.raises(ValueError, match="num_merges"):
        BASE.trained_bpe([np.arange(5)], 0)
