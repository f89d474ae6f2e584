"""The Longformer: windows with dilation, global tokens that count once, bounded state, against a naive masked softmax."""

from __future__ import annotations

import functools

import pytest
import torch

from musiclm import models, tokenizers
from musiclm.errors import RunError
from musiclm.models import base, longformer
from musiclm.models.layers.attention_recording import record_attention
from musiclm.models.layers.window_attention import in_window
from musiclm.tokenizers.vocabulary import Kind
from musiclm.training.config import TrainConfig
from musiclm.training.setup import _config
from tests.conftest import GRID, tiny

GLOBAL = (2, 3, 5, 7)
SETTINGS = [
    {"dilations": (), "global_ids": ()},
    {"dilations": (1, 3), "global_ids": ()},
    {"dilations": (), "global_ids": GLOBAL},
    {"dilations": (2, 1), "global_ids": GLOBAL},
]


def naive_attention(attention: longformer.Attention, x: torch.Tensor, tokens: torch.Tensor, config) -> torch.Tensor:
    """Return what `Attention` gives for a whole pass, by a masked softmax over all pairs of tokens."""
    batch, length, size = x.shape
    head_size = size // config.num_heads
    is_global = torch.isin(tokens, torch.tensor(config.global_ids, dtype=torch.int64))
    q, k, v = attention.queries_keys_values(x).chunk(3, -1)
    if config.global_ids:
        k_global, v_global = attention.global_keys_values(x).chunk(2, -1)
        k, v = (torch.where(is_global[..., None], g, t) for g, t in ((k_global, k), (v_global, v)))
    away = torch.arange(length)[:, None] - torch.arange(length)
    counts = is_global.cumsum(1)
    outputs = []
    for head in range(config.num_heads):
        part = slice(head * head_size, (head + 1) * head_size)
        pair = torch.arange(head_size // 2)
        rates = 10000.0 ** (-2 * pair.double() / head_size)
        q_pairs, k_pairs = (torch.view_as_complex(t[..., part].double().unflatten(-1, (-1, 2))) for t in (q, k))
        products = q_pairs[:, :, None] * k_pairs[:, None].conj()

        def scores(distance: torch.Tensor, products=products, rates=rates) -> torch.Tensor:
            return (products * torch.exp(1j * distance[..., None] * rates)).real.sum(-1) / head_size**0.5

        near = in_window(away, config.window, (config.dilations or (1,) * config.num_heads)[head])
        ago = counts[:, :, None] - counts[:, None]  # global tokens after the key, up to the query
        far = is_global[:, None] & (away >= 0) & (ago < config.num_global) & ~near
        wanted = torch.where(near, scores(away.expand(batch, -1, -1)), scores(ago))
        weights = wanted.masked_fill(~(near | far), float("-inf")).softmax(-1)
        outputs.append(weights @ v[..., part])
    return attention.out(torch.cat(outputs, -1))


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_attention_and_its_gradients_are_those_of_a_naive_masked_softmax(setting: dict):
    config = longformer.Config(vocab_size=20, size=16, num_heads=2, window=5, num_global=3, **setting)
    torch.manual_seed(0)
    attention = longformer.Attention(config).double()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.normal_(std=0.5)
    tokens = torch.randint(0, 20, (3, 300))
    tokens[1][torch.isin(tokens[1], torch.tensor(GLOBAL))] = 0  # one batch element without global tokens
    x = torch.randn(3, 300, 16, dtype=torch.float64, requires_grad=True)
    plan, _, layers = longformer.begin_pass(config, tokens, None, torch.float64)
    found, _ = attention(x, (layers[0], plan))
    wanted = naive_attention(attention, x, tokens, config)
    close = functools.partial(torch.testing.assert_close, atol=1e-4, rtol=1e-4)  # rotations are in float32
    close(found, wanted)
    towards = torch.randn_like(wanted)
    inputs = [x, *attention.parameters()]
    for mine, theirs in zip(*(torch.autograd.grad(y, inputs, towards) for y in (found, wanted)), strict=True):
        close(mine, theirs)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("size", [1, 7, 64, 200])
def test_chunks_of_any_size_give_one_pass(setting: dict, size: int):
    model = tiny("longformer", window=20, **setting).double()
    tokens = torch.randint(0, 40, (2, 420))
    with torch.no_grad():
        whole, _ = model(tokens)
        state, parts = None, []
        for chunk in tokens.split(size, 1):
            logits, state = model(chunk, state)
            parts.append(logits)
    torch.testing.assert_close(torch.cat(parts, 1), whole)


def test_chunks_with_gradients_give_one_pass_and_its_gradients():
    model = tiny("longformer").double()
    tokens = torch.randint(0, 40, (2, 50))
    found = []
    for cuts in ([50], [1, 20, 1, 1, 27]):
        state, parts = None, []
        for chunk in tokens.split(cuts, 1):
            logits, state = model(chunk, state)
            parts.append(logits)
        loss = torch.cat(parts, 1).square().sum()
        found.append(torch.autograd.grad(loss, list(model.parameters())))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_the_state_does_not_grow():
    model, state, sizes = tiny("longformer"), None, []
    with torch.no_grad():
        for chunk in torch.randint(0, 40, (2, 300)).split(50, 1):
            _, state = model(chunk, state)
            sizes.append([tuple(t.shape) for t in state])
    assert all(size == sizes[0] for size in sizes)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_the_form_for_generation_gives_one_pass_and_takes_shuffled_rows(setting: dict):
    model = tiny("longformer", **setting)
    fast, tokens, order = model.for_generation("fp32"), torch.randint(0, 40, (3, 40)), [2, 0, 0]
    with torch.no_grad():
        whole, _ = model(tokens)
        first, state = fast(tokens[:, :5])
        found = [first]
        for t in range(5, 20):
            logits, state = fast(tokens[:, t : t + 1], state)
            found.append(logits)
        torch.testing.assert_close(torch.cat(found, 1), whole[:, :20], atol=1e-5, rtol=1e-4)
        rest, _ = fast(tokens[order, 20:], base.rows(state, order))
    torch.testing.assert_close(rest, whole[order, 20:], atol=1e-5, rtol=1e-4)


def test_a_global_token_is_seen_from_any_distance_until_newer_ones_take_its_place():
    model = tiny("longformer", num_layers=1, window=4, dilations=(), num_global=2, global_ids=(1,))
    tokens = torch.randint(2, 40, (1, 100))
    tokens[0, [10, 60, 80]] = 1
    other = tokens.clone()
    other[0, 10] = 0  # no longer global
    with torch.no_grad():
        differs = ~torch.isclose(model(tokens)[0], model(other)[0], atol=1e-6).all(-1)[0]
    assert differs[10:80].all() and not differs[:10].any() and not differs[80:].any()


def test_recorded_attention_reaches_the_window_and_the_global_tokens():
    model = tiny("longformer", num_layers=1, window=4, dilations=(1, 2), num_global=2, global_ids=(1,))
    tokens = torch.randint(2, 40, (1, 32))
    tokens[0, [3, 9, 20]] = 1
    with torch.no_grad(), record_attention(torch.eye(32), torch.arange(32)) as recorder:
        model(tokens)
    (weights,) = recorder.layers
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 2, 32))
    assert weights[0, 0, 19].nonzero()[:, 0].tolist() == [3, 9, 16, 17, 18, 19]
    assert weights[0, 1, 31].nonzero()[:, 0].tolist() == [9, 20, 25, 27, 29, 31]


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("grid", set()),
        ("performance", set()),
        ("score", {Kind.BAR, Kind.SECTION}),
        ("REMI", {Kind.BAR}),
        ("TSD", set()),
    ],
)
def test_training_takes_the_global_ids_of_the_tokenizer(name: str, kinds: set[Kind]):
    tokenizer = tokenizers.create(name)
    assert {tokenizer.vocabulary[i].kind for i in tokenizer.global_ids} == kinds
    config = _config(TrainConfig(arch="longformer", preset="tiny"), None, tokenizer)
    assert config["global_ids"] == tokenizer.global_ids
    assert "global_ids" not in _config(TrainConfig(arch="gru", preset="tiny"), None, tokenizer)
    model = models.create("longformer", tokenizer.vocab_size, **config)
    assert model.config.global_ids == tokenizer.global_ids


@pytest.mark.parametrize(
    "wrong", [{"dilations": (1,)}, {"dilations": (1, 1, 1, 0)}, {"global_ids": (40,)}, {"size": 20}], ids=str
)
def test_impossible_configs_are_refused(wrong: dict):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        models.create("longformer", 40, **wrong)


def test_global_ids_are_not_set_by_hand():
    with pytest.raises(RunError, match="global_ids"):
        _config(TrainConfig(arch="longformer", preset="tiny", config={"global_ids": 3}), None, GRID)


def test_the_number_of_global_tokens_can_be_set():
    config = _config(TrainConfig(arch="longformer", preset="tiny", config={"num_global": 32}), None, GRID)
    assert models.create("longformer", GRID.vocab_size, **config).config.num_global == 32


def test_presets_differ_from_absolute_only_by_the_projections_of_global_tokens():
    for size in models.SIZES:
        mine, theirs = (models.create(a, 500, **models.preset(a, size)) for a in ("longformer", "absolute"))
        assert mine.num_parameters == theirs.num_parameters
        wide = models.create("longformer", 500, **models.preset("longformer", size), global_ids=(1,))
        config = mine.config
        assert wide.num_parameters - mine.num_parameters == 2 * config.num_layers * config.size * (config.size + 1)
