"""Random crops: batches are pure functions of their number, and crops of pieces as they may be played."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from musiclm import tokenizers
from musiclm.data.crops import IGNORE, RandomCrops
from musiclm.tokenizers import grid
from tests import crops_data
from tests.conftest import GRID, windows


class TwoSemitones:
    """One transposition for every piece."""

    def of_piece(self, i: int) -> list[int]:
        return [2]


@pytest.mark.slow
@pytest.mark.parametrize("name", crops_data.GOLDEN)
def test_batches_are_those_of_earlier_versions_bit_for_bit(name: str, case):
    tokenizer = case(name)
    pieces = crops_data.pieces(tokenizer)
    for kind, expected in zip(crops_data.KINDS, crops_data.GOLDEN[name], strict=True):
        made = RandomCrops(pieces, tokenizer, **crops_data.options(tokenizer, kind))
        assert crops_data.digest(made) == expected, kind


@pytest.fixture(scope="module")
def case():
    """Give a tokenizer by its name in the golden table."""
    made = crops_data.cases(tokenizers.create)
    return made.__getitem__


def test_a_batch_is_a_function_of_its_number(chorales):
    first, again = windows(chorales.pieces("train")), windows(chorales.pieces("train"))
    first(0), first(1)
    assert torch.equal(first(7).tokens, again(7).tokens)
    assert not torch.equal(first(7).tokens, first(8).tokens)


def test_a_crop_is_a_part_of_a_transposed_piece_in_some_order_with_its_own_features(chorales):
    (piece,) = chorales.pieces("train")[:1]
    made = windows([piece], transpose=range(2, 3), length=60)
    made.augmenter.transpositions = TwoSemitones()
    orders = []
    for number in range(12):
        batch = made(number)
        for row in range(3):
            order = int(batch.features[row, 0, GRID.last_cell_feature - 1])
            moved = torch.from_numpy(GRID.rearranged(GRID.transposed(2)[piece.tokens], order))
            features, _ = GRID.features(moved[None])
            starts = [s for s in range(len(moved) - 60) if torch.equal(moved[s : s + 60], batch.tokens[row])]
            assert starts
            assert torch.equal(moved[starts[0] + 1 : starts[0] + 61], batch.targets[row])
            assert any(torch.equal(features[0, s : s + 60], batch.features[row]) for s in starts)
            orders.append(order)
    assert 4 < orders.count(0) < 20 and len(set(orders)) > 15  # a quarter as it is, the others of 48


def test_transposition_stays_within_the_pitches_of_the_training_pieces(chorales):
    pieces = chorales.pieces("train")[:30]
    used = set(np.concatenate([p.tokens for p in pieces]).tolist())
    made = windows(pieces)
    seen = set(torch.cat([made(i).tokens.flatten() for i in range(50)]).tolist())
    assert seen - set(range(grid.FIRST_ARRANGED, GRID.vocab_size)) <= used
    allowed = [made.augmenter.transpositions.of_piece(i) for i in range(len(pieces))]
    assert all(0 in shifts for shifts in allowed) and sum(map(len, allowed)) > 2 * len(pieces)


def test_beginnings_and_ends_of_pieces_are_seen(chorales):
    made = windows(chorales.pieces("train")[:20], batch_size=16)
    batches = [made(i) for i in range(40)]
    starts = torch.cat([~torch.from_numpy(GRID.eval_mask(b.tokens[:, 0].numpy())) for b in batches]).float().mean()
    ends = torch.cat([(b.targets == GRID.eos).any(1) for b in batches]).float().mean()
    assert 0.01 < starts < 0.2
    assert 0.01 < ends < 0.2


def test_weights_say_how_often_a_piece_is_sampled():
    """Weights of 3 : 1, each divided by the piece's length, make three crops in four of the first piece."""
    tokenizer = tokenizers.create("grid", features=1)
    low, high = (
        np.array([grid.BOS, *[pitch] * 4 * num_steps, grid.EOS]) for pitch, num_steps in ((50, 100), (80, 250))
    )
    options = {"length": 20, "batch_size": 20, "seed": 1, "transpose": range(1)}
    made = RandomCrops([low, high], tokenizer, weights=[3 / len(low), 1 / len(high)], **options)
    tokens = torch.cat([made(number).tokens for number in range(50)])
    assert 0.70 < (tokens == 50).any(1).float().mean() < 0.80


def test_short_pieces_are_padded_and_the_padding_does_not_count(chorales):
    (piece,) = chorales.pieces("train")[:1]
    batch = windows([piece], length=len(piece.tokens) + 30)(0)
    assert (batch.targets[:, len(piece.tokens) - 1 :] == IGNORE).all()
    assert batch.num_tokens == 3 * (len(piece.tokens) - 1)


def test_an_epoch_is_once_through_the_pieces_even_if_they_are_shorter_than_a_crop(chorales):
    """Divided by whole crops, an epoch of pieces a quarter as long was a quarter of one."""
    pieces = [np.asarray(p.tokens)[: 40 + i] for i, p in enumerate(chorales.pieces("train")[:30])]
    for length in (32, 256):
        made = RandomCrops(pieces, tokenizers.create("grid", features=1), length=length, batch_size=4, seed=1)
        seen = np.mean([int((made(number).targets != IGNORE).sum()) for number in range(200)])
        assert made.tokens_a_batch == pytest.approx(seen, rel=0.02)
