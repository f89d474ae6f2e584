"""Windows: batches are functions of their number, and stretches of pieces as they may be played."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from musiclm import tokenizers
from musiclm.data.crops import IGNORE, RandomCrops
from musiclm.tokenizers import grid
from tests.conftest import GRID, windows


def test_a_batch_is_a_function_of_its_number(chorales):
    first, again = windows(chorales.pieces("train")), windows(chorales.pieces("train"))
    first(0), first(1)
    assert torch.equal(first(7).tokens, again(7).tokens)
    assert not torch.equal(first(7).tokens, first(8).tokens)


def test_a_window_is_a_stretch_of_a_transposed_piece_in_some_order_with_its_own_features(chorales):
    (piece,) = chorales.pieces("train")[:1]
    made = windows([piece], transpose=range(2, 3), length=60)
    made._allowed = [[2]]
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
    assert sum(len(shifts) for shifts in made._allowed) > 2 * len(pieces)


def test_beginnings_and_ends_of_pieces_are_seen(chorales):
    made = windows(chorales.pieces("train")[:20], batch_size=16)
    batches = [made(i) for i in range(40)]
    starts = torch.cat([~torch.from_numpy(GRID.eval_mask(b.tokens[:, 0].numpy())) for b in batches]).float().mean()
    ends = torch.cat([(b.targets == GRID.eos).any(1) for b in batches]).float().mean()
    assert 0.01 < starts < 0.2
    assert 0.01 < ends < 0.2


def test_weights_say_how_often_a_piece_is_drawn(chorales):
    pieces = [p for p in chorales.pieces("train") if len(p.tokens) > 200][:2]
    made = windows(pieces, weights=[3 / len(pieces[0].tokens), 1 / len(pieces[1].tokens)], length=20, batch_size=20)
    drawn = [int(np.searchsorted(made._cumulated, x, side="right")) for x in np.linspace(0, 0.999, 1000)]
    assert 0.70 < drawn.count(0) / 1000 < 0.80


def test_short_pieces_are_padded_and_the_padding_does_not_count(chorales):
    (piece,) = chorales.pieces("train")[:1]
    batch = windows([piece], length=len(piece.tokens) + 30)(0)
    assert (batch.targets[:, len(piece.tokens) - 1 :] == IGNORE).all()
    assert batch.num_tokens == 3 * (len(piece.tokens) - 1)


def test_an_epoch_is_once_through_the_pieces_be_they_shorter_than_a_window(chorales):
    """Divided by whole windows, an epoch of pieces a quarter as long was a quarter of one."""
    pieces = [np.asarray(p.tokens)[: 40 + i] for i, p in enumerate(chorales.pieces("train")[:30])]
    for length in (32, 256):
        made = RandomCrops(pieces, tokenizers.create("grid", features=1), length=length, batch_size=4, seed=1)
        seen = np.mean([int((made(number).targets != IGNORE).sum()) for number in range(200)])
        assert made.tokens_a_batch == pytest.approx(seen, rel=0.02)
