"""Contiguous crops: each batch element reads whole pieces, one after the other, and says where one begins."""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from musiclm import tokenizers
from musiclm.data import loader
from musiclm.data.contiguous import ContiguousCrops
from musiclm.data.crops import IGNORE
from musiclm.tokenizers import grid
from tests import crops_data

PLAIN = tokenizers.create("grid", features=1)


def some_pieces(count: int, first_size: int = 10) -> list[np.ndarray]:
    """Return pieces of different lengths, each of its own pitch."""
    return [np.array([grid.BOS, *[50 + i] * (first_size + 7 * i), grid.EOS]) for i in range(count)]


def contiguous(pieces: Any, tokenizer: Any = PLAIN, **options: Any) -> ContiguousCrops:
    return ContiguousCrops(pieces, tokenizer, **{"length": 16, "batch_size": 3, "seed": 1} | options)


def passes(made: ContiguousCrops, num_batches: int) -> list[np.ndarray]:
    """Return the ids of each pass that is over within the first batches, in the order of their beginnings."""
    begun: list[tuple[int, list[int]]] = []
    for number in range(num_batches):
        batch = made(number)
        for i, ids in enumerate(batch.tokens):
            if batch.begins[i]:
                begun.append((i, []))
            read = next(read for element, read in reversed(begun) if element == i)
            read += ids[batch.mask[i]].tolist()
    last = dict(begun)
    return [np.array(read) for i, read in begun if read is not last[i]]


def test_crops_continue_those_of_the_batch_before():
    made = contiguous(some_pieces(7))
    before = made(0)
    assert before.begins.all()
    num_continued = 0
    for number in range(1, 30):
        batch = made(number)
        for i in range(3):
            if batch.begins[i]:
                assert batch.tokens[i, 0] == grid.BOS
                assert before.targets[i][before.mask[i]][-1] == grid.EOS  # the piece before was read to its end
            else:
                assert before.mask[i].all() and batch.tokens[i, 0] == before.targets[i, -1]
                num_continued += 1
        before = batch
    assert num_continued > 20


@pytest.mark.parametrize("batch_size", [1, 3, 9])  # the last is more than there are pieces
def test_each_epoch_reads_every_token_of_every_piece_once_in_another_order(batch_size: int):
    pieces = some_pieces(7)
    read = passes(contiguous(pieces, batch_size=batch_size, transpose=range(1)), 120)
    assert len(read) > 21
    epochs = [read[:7], read[7:14]] if batch_size == 1 else [read[:7]]
    for epoch in epochs:
        assert sorted(ids.tolist() for ids in epoch) == sorted(p[:-1].tolist() for p in pieces)
    if batch_size == 1:
        assert [len(ids) for ids in read[:7]] != [len(ids) for ids in read[7:14]]


def test_a_batch_is_a_function_of_its_number_in_whatever_order_it_is_asked_for():
    made, again = contiguous(some_pieces(7)), contiguous(some_pieces(7))
    wanted = [made(number) for number in range(12)]
    for number in (11, 3, 3, 4, 0, 9):
        found = again(number)
        assert all(torch.equal(getattr(found, p), getattr(wanted[number], p)) for p in ("tokens", "targets", "begins"))
    other = contiguous(some_pieces(7), seed=2)
    assert not all(torch.equal(other(n).tokens, wanted[n].tokens) for n in range(3))


@pytest.mark.parametrize(
    "workers", [0, pytest.param(2, marks=pytest.mark.skipif(sys.platform != "linux", reason="fork"))]
)
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_loader_gives_the_same_batches_from_any_number_on(workers: int):
    made = contiguous(some_pieces(7))
    for number, batch in enumerate(itertools.islice(loader.load(made, 5, torch.device("cpu"), workers=workers), 6), 5):
        assert all(torch.equal(getattr(batch, p), getattr(made(number), p)) for p in ("tokens", "targets", "begins"))


def test_a_pass_has_one_augmentation_from_beginning_to_end():
    pieces = [np.array([grid.BOS, *(50 + 6 * i + np.arange(40 + 9 * i) % 12), grid.EOS]) for i in range(3)]
    read = passes(contiguous(pieces), 60)
    shifts: Counter[int] = Counter()
    for ids in read:
        moved = [
            semitones
            for semitones in range(-5, 7)
            for piece in pieces
            if ids.tolist() == PLAIN.transposed(semitones)[piece][:-1].tolist()
        ]
        shifts.update(moved)
        assert len(moved) == 1
    assert len(read) > 20 and len(shifts) > 3


CASES = ("grid 4", "grid-infill", "score 2", "score-infill", "performance", "REMI bpe")


@pytest.mark.parametrize("name", CASES)
def test_features_are_those_of_the_position_in_the_piece_and_pieces_are_whole(name: str):
    tokenizer = crops_data.cases(tokenizers.create)[name] if name != "score-infill" else tokenizers.create(name)
    pieces = crops_data.pieces(tokenizer)
    made = contiguous(pieces, tokenizer, length=100, batch_size=2)
    num_begun = 0
    for number in range(25):
        batch = made(number)
        for i, reading in enumerate(made._elements):
            num_begun += bool(batch.begins[i])
            size = min(100, len(reading.ids) - 1 - reading.start)
            ids = torch.from_numpy(np.asarray(reading.ids, np.int64))[None]
            assert torch.equal(ids[0, reading.start : reading.start + size], batch.tokens[i, :size])
            assert (batch.targets[i, size:] == IGNORE).all()
            assert set(batch.targets[i, :size].tolist()) <= {IGNORE, *reading.ids.tolist()}
            if tokenizer.num_rearrangements == 1:
                assert reading.ids[0] == tokenizer.bos and reading.ids[-1] == tokenizer.eos
                assert batch.mask[i, :size].all()
            if batch.features is not None:
                streamed, _ = tokenizer.features(ids)
                wanted = streamed[0, reading.start : reading.start + size]
                assert torch.equal(batch.features[i, :size], wanted)
                assert not batch.features[i, size:].any()
    assert 2 < num_begun < 50


def test_the_loss_mask_of_a_rearranged_piece_is_that_of_the_tokenizer():
    tokenizer = tokenizers.create("grid-infill")
    made = contiguous(crops_data.pieces(tokenizer), tokenizer, length=600, batch_size=8)
    batch = made(0)
    num_masked = 0
    for i, reading in enumerate(made._elements):
        if reading.is_target is not None:
            size = min(600, len(reading.ids) - 1)
            assert torch.equal(batch.mask[i, :size], torch.from_numpy(tokenizer.loss_mask(reading.ids)[1 : size + 1]))
            num_masked += int((~batch.mask[i, :size]).sum())
    assert num_masked > 0


def test_weights_say_how_often_a_piece_is_read():
    pieces = some_pieces(3, first_size=30)
    made = contiguous(pieces, weights=[3.0, 1.0, 0.5], transpose=range(1), batch_size=2)
    read = Counter(int(ids[1]) - 50 for ids in passes(made, 600))
    assert read[0] / read[1] == pytest.approx(3, rel=0.02)
    assert read[2] / read[1] == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("weights", [None, [1.0, 4.0, 1.0, 1.0, 0.2, 1.0, 2.0]])
def test_the_expected_tokens_of_a_batch_count_the_padding(weights: list[float] | None):
    made = contiguous(some_pieces(7), weights=weights)
    assert made.tokens_an_epoch == sum(len(p) - 1 for p in some_pieces(7))
    seen = np.mean([made(number).num_tokens for number in range(800)])
    assert made.tokens_a_batch == pytest.approx(seen, rel=0.02)


def test_without_pieces_there_is_nothing_to_train_on():
    for pieces in ([], [np.array([grid.BOS])]):
        with pytest.raises(ValueError, match="no pieces"):
            contiguous(pieces)
