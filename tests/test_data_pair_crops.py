"""Crops of pairs: both sides have the same bars, fit the length, are augmented alike, and repeat by their number."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from musiclm import midi, tokenizers
from musiclm.data import SPLITS, open_store
from musiclm.data.crops import IGNORE
from musiclm.data.pair_crops import MAX_BARS, PairCrops, batch_of, windows
from musiclm.tokenizers.score_pairs import Pair
from musiclm.tokenizers.vocabulary import Kind
from tests import crops_data
from tests.data_files import built, contents, folder_of
from tests.tokenizers_data import band

PAIRS = tokenizers.create("score-pairs")


@lru_cache
def pieces() -> list[np.ndarray]:
    scores = [band(), *(crops_data.band(seed, bars) for seed, bars in ((2, 9), (3, 30), (5, 90), (9, 50)))]
    for style, score in zip(("lied", "band", "band", "orchestra", "lied"), scores, strict=True):
        midi.add_text(score, f"style: {style}")
    return [PAIRS.encode(score)[0].astype(np.uint16) for score in scores]


def crops(**options) -> PairCrops:
    return PairCrops(pieces(), PAIRS, **{"length": 400, "batch_size": 4, "seed": 1, **options})


PLAIN = {"transpose": range(1), "faster": range(1), "louder": range(1)}


def sides_of(batch) -> list[Pair]:
    """Return the ids of each pair of a batch; those of the target without the last, which is no input."""
    return [
        Pair(
            batch.source[i][batch.source_mask[i]].numpy(),
            batch.tokens[i][: int((batch.targets[i] != IGNORE).sum())].numpy(),
        )
        for i in range(len(batch.tokens))
    ]


def of_kind(ids: np.ndarray, *kinds: Kind) -> list:
    return [PAIRS.vocabulary[i].value for i in ids.tolist() if PAIRS.vocabulary[i].kind in kinds]


def test_a_corpus_of_pairs_is_built_and_its_pieces_give_batches(tmp_path):
    music = {f"{seed}.mid": midi.to_bytes(crops_data.band(seed, 6)) for seed in range(12)}
    for number, workers in enumerate((0, 1)):
        document = built(
            tmp_path / str(number), folder_of(tmp_path / "music", music), tokenizer="score-pairs", workers=workers
        )
    assert document["found"] == 12 == document["kept"] + sum(document["dropped"].values())
    assert contents(tmp_path / "0") == contents(tmp_path / "1")
    opened = open_store(tmp_path / "0")
    tokens = [piece.tokens for piece in opened.pieces("all")]
    assert PairCrops(tokens, opened.tokenizer, length=200, batch_size=2, seed=0)(0).num_tokens > 0
    for piece in opened.pieces("all"):
        score = midi.parse(music[piece.name.split("/")[-1]], piece.name)
        assert np.array_equal(piece.tokens, PAIRS.encode(score)[0])


def test_pairs_of_one_file_are_split_by_bars(tmp_path):
    score = crops_data.band(3, 30)
    built(tmp_path / "c", folder_of(tmp_path / "music", {"a.mid": midi.to_bytes(score)}), tokenizer="score-pairs")
    opened = open_store(tmp_path / "c")
    whole = opened.pieces("all")[0].tokens
    for split, bars in zip(SPLITS, ((0, 25), (25, 28), (28, 31)), strict=True):  # the last note ends in bar 31
        (part,) = opened.pieces(split)
        assert np.array_equal(part.tokens, PAIRS.bars_between(np.asarray(whole, np.int64), *bars))


@given(st.integers(0, 10**6), st.integers(0, 100))
def test_a_batch_is_a_function_of_seed_and_number(number: int, seed: int):
    first, second = (crops(seed=seed)(number) for _ in range(2))
    for name in ("tokens", "targets", "features", "source", "source_features", "source_mask"):
        assert torch.equal(getattr(first, name), getattr(second, name))


def test_other_numbers_and_seeds_give_other_batches():
    batches = [crops(seed=seed)(number).source for seed in (1, 2) for number in range(3)]
    shapes = {(*b.shape, int(b.sum())) for b in batches}
    assert len(shapes) == len(batches)


@given(st.integers(0, 10**6), st.integers(60, 1000))
def test_both_sides_have_the_same_bars_and_fit_the_length(number: int, length: int):
    batch = crops(length=length)(number)
    assert max(batch.source.shape[1], batch.tokens.shape[1] + 1) <= length
    for source, target in sides_of(batch):
        bars = [len(of_kind(side, Kind.BAR)) for side in (source, target)]
        assert 1 <= bars[0] <= MAX_BARS
        assert source[0] == target[0] == PAIRS.bos
        if bars[0] > 1:  # one bar may be longer than what fits, and is cut
            assert bars[0] == bars[1]


def test_a_side_ends_with_eos_if_the_other_does():
    seen = set()
    for number in range(20):
        batch = crops()(number)
        for i, (source, _) in enumerate(sides_of(batch)):
            ends = bool((batch.targets[i] == PAIRS.eos).any())
            assert (source[-1] == PAIRS.eos) == ends
            seen.add(ends)
    assert seen == {True, False}


def test_targets_follow_the_tokens_and_padding_counts_nowhere():
    batch = crops()(3)
    for i in range(4):
        size = int((batch.targets[i] != IGNORE).sum())
        assert torch.equal(batch.targets[i, : size - 1], batch.tokens[i, 1:size])
        assert (batch.targets[i, size:] == IGNORE).all()
        assert not batch.tokens[i, size:].any()
        assert not batch.features[i, size:].any()
        assert batch.source_mask[i].int().diff().le(0).all()
        assert not batch.source[i][~batch.source_mask[i]].any()
    assert batch.num_tokens == int((batch.targets != IGNORE).sum())


def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(PAIRS), "with_unknown", lambda self, ids, rng: ids)


def test_crops_that_are_not_augmented_are_bars_of_a_pair_as_they_are(monkeypatch):
    known(monkeypatch)
    small = pieces()[:3]
    pairs = [pair for piece in small for pair in PAIRS.split(piece)]
    starts = [tuple(map(PAIRS.bar_starts, pair)) for pair in pairs]
    made = PairCrops(small, PAIRS, length=400, batch_size=4, seed=1, **PLAIN)
    for number in range(8):
        for source, target in sides_of(made(number)):
            num_bars = len(of_kind(source, Kind.BAR))
            assert any(
                np.array_equal(PAIRS.crop(pair.source, of_source, first, first + num_bars)[:400], source)
                and np.array_equal(
                    PAIRS.crop(pair.target, of_target, first, first + num_bars)[:399][: len(target)], target
                )
                for pair, (of_source, of_target) in zip(pairs, starts, strict=True)
                for first in range(len(of_source) - num_bars)
            )


def test_both_sides_are_transposed_and_changed_in_tempo_alike(monkeypatch):
    known(monkeypatch)
    two = [pieces()[2], pieces()[0]]
    whole = {len(pair.source): pair for pair in PAIRS.split(two[0])}
    made = PairCrops(
        two, PAIRS, length=4000, batch_size=4, seed=1, weights=[1, 0], pitches=[(40, 80), (0, 127)]
    )  # each crop is a whole pair of the first, which may be transposed within the pitches of both
    found, tempi = set(), set()
    for number in range(8):
        for source, target in sides_of(made(number)):
            assert of_kind(source, Kind.CHORD) == of_kind(target, Kind.CHORD)
            assert of_kind(source, Kind.TEMPO)[:1] == of_kind(target, Kind.TEMPO)[:1]
            tempi.update(of_kind(source, Kind.TEMPO)[:1])
            shifts = {
                after - before
                for side, original in zip((source, target), whole[len(source)], strict=True)
                for before, after in zip(of_kind(original, Kind.NOTE_ON), of_kind(side, Kind.NOTE_ON), strict=False)
            }
            assert len(shifts) == 1
            found |= shifts
    assert len(found) > 4
    assert len(tempi) > 2


def test_what_is_unknown_differs_between_the_sides():
    kinds = set()
    for number in range(30):
        for pair in sides_of(crops()(number)):
            kinds.add(tuple(of_kind(side, Kind.STYLE)[0] is None for side in pair))
    assert len(kinds) == 4


def test_joined_crops_are_the_same_with_the_source_in_front():
    for number in range(4):
        apart, joined = crops()(number), crops(joined=True)(number)
        assert joined.source is joined.source_features is joined.source_mask is None
        assert joined.num_tokens == apart.num_tokens
        for i, (source, target) in enumerate(sides_of(apart)):
            size = len(source) + len(target)
            assert np.array_equal(joined.tokens[i, :size], np.concatenate([source, target]))
            assert (joined.targets[i, : len(source)] == IGNORE).all()
            assert torch.equal(joined.targets[i, len(source) : size], apart.targets[i, : len(target)])
            assert torch.equal(joined.features[i, len(source) : size], apart.features[i, : len(target)])
            assert torch.equal(joined.features[i, : len(source)], apart.source_features[i, : len(source)])


def test_features_are_those_of_each_side_from_its_own_beginning():
    batch = crops()(0)
    for i, (source, target) in enumerate(sides_of(batch)):
        assert np.array_equal(batch.source_features[i, : len(source)], PAIRS.features_of([source]))
        assert np.array_equal(batch.features[i, : len(target)], PAIRS.features_of([target]))


def test_beginnings_and_ends_come_more_often_than_bars_in_the_middle():
    long = [pieces()[3]]
    begins, ends, num = 0, 0, 0
    for number in range(60):
        batch = PairCrops(long, PAIRS, length=300, batch_size=4, seed=0)(number)
        for i, (_, target) in enumerate(sides_of(batch)):
            bars = of_kind(target, Kind.LENGTH)[0]
            if bars is not None:
                num += 1
                begins += bars == 96  # the next larger length of 90 bars
                ends += bool((batch.targets[i] == PAIRS.eos).any())
    assert begins > 1.3 * num / 90
    assert ends > 1.3 * num / 90
    assert begins + ends < num / 2


def test_weights_say_how_often_a_piece_comes():
    only = crops(weights=[0, 0, 0, 1, 0], **PLAIN)
    for number in range(6):
        for source, _ in sides_of(only(number)):
            assert of_kind(source, Kind.STYLE)[0] in ("orchestra", None)


def test_pairs_of_one_piece_come_evenly():
    piece = pieces()[2]
    sizes = [len(pair.source) for pair in PAIRS.split(piece)]
    assert len(set(sizes)) == len(sizes) > 2
    one = PairCrops([piece], PAIRS, length=4000, batch_size=4, seed=3, **PLAIN)
    counts = dict.fromkeys(sizes, 0)
    for number in range(50):
        for source, _ in sides_of(one(number)):
            nearest = min(sizes, key=lambda size: abs(size - len(source)))  # unknown parts of the header are left out
            counts[nearest] += 1
    assert min(counts.values()) > 0.6 * 200 / len(sizes)


@given(st.integers(100, 1500), st.integers(1, 40))
def test_windows_cover_each_bar_of_each_pair_once(length: int, max_bars: int):
    for piece in pieces():
        found = windows(piece, PAIRS, length=length, max_bars=max_bars)
        per_pair = [len(PAIRS.bar_starts(pair.source)) - 1 for pair in PAIRS.split(piece)]
        assert all(1 <= len(of_kind(w.source, Kind.BAR)) <= max_bars for w in found)
        assert sum(len(of_kind(w.source, Kind.BAR)) for w in found) == sum(per_pair)
        assert max(max(map(len, w)) for w in found) <= length
        assert sum(w.source[-1] == PAIRS.eos for w in found) <= len(per_pair)


def test_windows_have_all_notes_where_bars_fit():
    for piece in pieces():
        for pair in PAIRS.split(piece):
            found = windows(np.concatenate(pair), PAIRS, length=1500)
            for k, side in enumerate(pair):
                music = [
                    i
                    for w in found
                    for i in w[k]
                    if PAIRS.vocabulary[i].kind in (Kind.NOTE_ON, Kind.DRUM_ON, Kind.DURATION)
                ]
                whole = [i for i in side if PAIRS.vocabulary[i].kind in (Kind.NOTE_ON, Kind.DRUM_ON, Kind.DURATION)]
                assert music == whole
            assert batch_of(found, PAIRS).num_tokens == sum(len(w.target) - 1 for w in found)


def test_the_expected_number_of_targets_is_near_the_mean_of_batches():
    made = crops(length=600)
    mean = np.mean([made(number).num_tokens for number in range(60)])
    assert made.tokens_a_batch == pytest.approx(mean, rel=0.25)
    assert made.tokens_an_epoch == sum(len(p.target) - 1 for piece in pieces() for p in PAIRS.split(piece))


def test_pieces_without_pairs_are_refused():
    score = tokenizers.create("score").encode(band())[0]
    with pytest.raises(ValueError, match="score-pairs"):
        PairCrops([score], PAIRS, length=100, batch_size=1, seed=0)
    with pytest.raises(ValueError, match="no pieces"):
        PairCrops([], PAIRS, length=100, batch_size=1, seed=0)


def test_a_batch_moves_with_its_source():
    batch = crops()(0).to(torch.device("meta"))
    assert batch.source is not None
    assert {t.device.type for t in (batch.tokens, batch.source, batch.source_features, batch.source_mask)} == {"meta"}
    assert batch.begins is None
