"""Every architecture obeys the streaming invariant, attends to the past only, and refuses impossible configs."""

from __future__ import annotations

import itertools

import pytest
import torch

from musiclm import models
from musiclm.errors import CheckpointError
from musiclm.models import base, transformer
from musiclm.models.layers import gru_cpu
from musiclm.models.layers.dropout import Dropout
from musiclm.models.layers.positions import sinusoids
from tests.conftest import tiny

ARCHS = models.names()


def run_in_pieces(model: base.LanguageModel, tokens: torch.Tensor, cuts: list[int]) -> torch.Tensor:
    edges = [0, *cuts, tokens.shape[1]]
    state, logits = None, []
    for start, stop in itertools.pairwise(edges):
        piece, state = model(tokens[:, start:stop], state)
        logits.append(piece)
    return torch.cat(logits, 1)


def test_the_architectures_are_there():
    assert {"absolute", "gru", "lstm", "rnn", "transformer", "transformer_xl"} <= set(ARCHS)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("cuts", [[1], [7], [19], [1, 7, 19], list(range(1, 30))], ids=str)
def test_pieces_give_the_logits_of_the_whole_past_the_context(arch: str, cuts: list[int]):
    model = tiny(arch)
    tokens = torch.randint(0, 40, (3, 30))
    with torch.no_grad():
        whole, _ = model(tokens)
        torch.testing.assert_close(run_in_pieces(model, tokens, cuts), whole, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("arch", ARCHS)
def test_pieces_give_the_logits_of_the_whole_with_gradients_too(arch: str):
    model = tiny(arch)
    tokens = torch.randint(0, 40, (2, 30))
    whole, _ = model(tokens)
    torch.testing.assert_close(run_in_pieces(model, tokens, [5, 6, 20]), whole, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("arch", ARCHS)
def test_a_state_of_shuffled_rows_goes_on_as_those_rows(arch: str):
    model = tiny(arch)
    tokens = torch.randint(0, 40, (4, 25))
    order = [2, 0, 3, 3]
    with torch.no_grad():
        whole, _ = model(tokens[order])
        _, state = model(tokens[:, :13])
        rest, _ = model(tokens[order, 13:], base.rows(state, order))
    torch.testing.assert_close(rest, whole[:, 13:], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("arch", [arch for arch in ARCHS if models.starts_from_zeros(arch)])
def test_an_element_whose_state_is_zeros_is_at_the_beginning(arch: str):
    model = tiny(arch)
    tokens = torch.randint(0, 40, (3, 25))
    with torch.no_grad():
        _, state = model(tokens[:, :13])
        reset = base.reset(state, torch.tensor([False, True, False]))
        rest, _ = model(tokens[:, 13:], reset)
        fresh, _ = model(tokens[1:2, 13:])
        others, _ = model(tokens[[0, 2]])
    torch.testing.assert_close(rest[1:2], fresh, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(rest[[0, 2]], others[:, 13:], atol=1e-5, rtol=1e-4)


def test_recurrent_networks_and_transformer_xl_start_from_zeros():
    found = {arch for arch in ARCHS if models.starts_from_zeros(arch)}
    assert {"gru", "lstm", "rnn", "transformer_xl"} <= found and not {"absolute", "transformer"} & found


@pytest.mark.parametrize("arch", ARCHS)
def test_a_copied_state_can_be_gone_back_to(arch: str):
    model = tiny(arch)
    tokens = torch.randint(0, 40, (1, 20))
    with torch.no_grad():
        _, state = model(tokens)
        kept = base.copy_state(state)
        for _ in range(10):
            _, state = model(torch.zeros(1, 1, dtype=torch.int64), state)
        whole, _ = model(torch.cat([tokens, tokens], 1))
        again, _ = model(tokens, kept)
    torch.testing.assert_close(again, whole[:, 20:], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("arch", ARCHS)
def test_gradients_prove_that_nothing_looks_ahead(arch: str):
    model = tiny(arch)
    embedded: list[torch.Tensor] = []
    model.embedding.register_forward_hook(lambda _m, _i, out: embedded.append(out) or out.retain_grad())
    tokens = torch.randint(0, 40, (1, 24))
    logits, _ = model(tokens)
    for place in (0, 5, 14):
        model.zero_grad()
        embedded[0].grad = None
        logits[0, place].sum().backward(retain_graph=True)
        gradient = embedded[0].grad[0].abs().sum(1)
        assert (gradient[place + 1 :] == 0).all()
        assert gradient[place] > 0


@pytest.mark.parametrize(
    ("arch", "field"),
    [("absolute", "context"), ("rotary", "context"), ("transformer", "context"), ("transformer_xl", "memory")],
)
@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_transformer_forgets_what_lies_behind_its_context_layer_by_layer(arch: str, field: str, num_layers: int):
    """Layers of context C together reach C - 1 tokens back each."""
    model = tiny(arch, **{"num_layers": num_layers, field: 8})
    tokens = torch.randint(0, 40, (1, 20))
    other = tokens.clone()
    forgotten = 20 - (num_layers * (8 - 1) + 1)
    other[0, :forgotten] = (other[0, :forgotten] + 1) % 40
    with torch.no_grad():
        torch.testing.assert_close(model(tokens)[0][0, -1], model(other)[0][0, -1])
        assert not torch.allclose(model(tokens)[0][0, -2], model(other)[0][0, -2])


@pytest.mark.parametrize(
    "queries, keys, distances", [(1, 1, 4), (5, 5, 8), (300, 300, 40), (3, 9, 20), (130, 170, 16), (1, 9, 9)]
)
def test_relative_attention_and_its_gradients_are_those_of_a_naive_gather(queries: int, keys: int, distances: int):
    torch.manual_seed(0)
    inputs = [torch.randn(2, 3, n, 4) for n in (queries, keys, keys)] + [torch.randn(3, distances, 4)]
    inputs = [t.double().requires_grad_() for t in inputs]
    q, k, v, table = inputs
    away = torch.arange(keys - queries, keys)[:, None] - torch.arange(keys)[None]
    allowed = (away >= 0) & (away < distances)
    relative = table[:, away.clamp(0, distances - 1)]  # heads x queries x keys x size: what skewing avoids
    scores = (q @ k.transpose(-1, -2) + torch.einsum("bhqe,hqke->bhqk", q, relative)) / 2
    wanted = scores.masked_fill(~allowed, float("-inf")).softmax(-1) @ v
    found = transformer.relative_attention(q, k, v, table)
    torch.testing.assert_close(found, wanted)
    towards = torch.randn_like(wanted)
    for mine, theirs in zip(*(torch.autograd.grad(y, inputs, towards) for y in (found, wanted)), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_absolute_places_tell_the_same_window_apart_and_relative_ones_do_not():
    """One layer that sees 8 tokens: the last logits know the place in the whole only where places are absolute."""
    tokens = torch.randint(0, 40, (1, 8)).repeat(1, 3)
    for arch, knows in (("absolute", True), ("transformer", False)):
        model = tiny(arch, num_layers=1, context=8)
        with torch.no_grad():
            logits, _ = model(tokens)
        assert torch.allclose(logits[0, 15], logits[0, 23], atol=1e-5) != knows


def test_places_are_the_sines_and_cosines_of_the_paper():
    found = sinusoids(torch.tensor([5, 6]), 6)
    angles = [place / 10000 ** (2 * i / 6) for place in (5, 6) for i in range(3)]
    wanted = torch.tensor(angles).view(2, 3)
    torch.testing.assert_close(found, torch.cat([wanted.sin(), wanted.cos()], -1))


@pytest.mark.parametrize("arch", ["absolute", "rotary", "transformer", "transformer_xl"])
def test_the_cache_has_a_bounded_size_however_long_the_music(arch: str):
    model = tiny(arch)  # with a context, or a memory, of 8
    state = None
    with torch.no_grad():
        for _ in range(100):
            _, state = model(torch.zeros(1, 1, dtype=torch.int64), state)
    assert max(t.shape[2] for t in state[1:]) <= 16


@pytest.mark.parametrize("arch", ARCHS)
def test_features_change_what_is_predicted_and_are_asked_for(arch: str):
    model = tiny(arch, feature_sizes=(3, 5))
    tokens = torch.randint(0, 40, (1, 6))
    features = torch.zeros(1, 6, 2, dtype=torch.int64)
    with torch.no_grad():
        assert not torch.allclose(model(tokens, None, features)[0], model(tokens, None, features + 1)[0])
    with pytest.raises(ValueError, match="2 features"):
        model(tokens)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("size", models.SIZES)
def test_presets_make_models_of_growing_size(arch: str, size: str):
    with torch.device("meta"):
        model = models.create(arch, 100, **models.preset(arch, size))
    assert model.num_parameters > 10_000
    assert models.training(arch).keys() - {"crops"} == {"learning_rate", "batch_size", "window"}


@pytest.mark.parametrize("arch", ARCHS)
def test_impossible_configs_are_refused(arch: str):
    with pytest.raises(ValueError, match="num_layers"):
        models.create(arch, 10, num_layers=0)
    with pytest.raises(ValueError, match="dropout"):
        models.create(arch, 10, dropout=1.5)
    with pytest.raises(ValueError, match="nonsense"):
        models.create(arch, 10, nonsense=1)


def test_an_unknown_architecture_names_those_there_are():
    with pytest.raises(CheckpointError, match=", ".join(models.names(None))):
        models.create("mamba", 10)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.97])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_drops_its_part_and_keeps_the_mean(p: float, dtype: torch.dtype):
    x = torch.ones(401, 503, dtype=dtype, requires_grad=True)
    dropout = Dropout(p)
    torch.manual_seed(0)
    y = dropout(x)
    y.float().sum().backward()
    assert y.dtype == dtype
    assert (y == 0).float().mean() == pytest.approx(p, abs=0.005)
    assert y[y != 0].unique().tolist() == pytest.approx([1 / (1 - p)], rel=5e-3)
    assert torch.equal(x.grad, y.detach())
    assert abs(y[:, 1:].eq(0).float().sub(p).mul(y[:, :-1].eq(0).float().sub(p)).mean()) < 0.005  # neighbours
    torch.manual_seed(0)
    assert torch.equal(dropout(x), y)
    assert dropout.eval()(x) is x


@pytest.mark.parametrize("given", [False, True])
def test_the_gru_that_is_trained_and_its_gradients_are_those_of_torch(given: bool):
    torch.manual_seed(0)
    layers = torch.nn.GRU(5, 5, num_layers=2, batch_first=True).double()
    x = torch.randn(3, 11, 5, dtype=torch.float64, requires_grad=True)
    state = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    inputs = [x, *layers.parameters(), *([state] if given else [])]
    towards = torch.randn(3, 11, 5, dtype=torch.float64)
    results = []
    for ran in (layers(x, state if given else None), gru_cpu.run_gru(layers, x, state if given else None)):
        y, after = ran
        gradients = torch.autograd.grad((y * towards).sum() + after.square().sum(), inputs)
        results.append((y, after, *gradients))
    for theirs, mine in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("arch", ARCHS)
def test_what_is_said_of_steps_moves_with_the_reference(arch: str):
    """A reference two ids higher moves the part of the logits that speaks of steps two ids up, and nothing else."""
    model = tiny(arch, feature_sizes=(40,), relative_pitch=((3, 39, 0),))
    head = model.head
    x = torch.randn(1, 1, head.in_features)
    plain = torch.nn.functional.linear(x, head.weight, head.bias)
    with torch.no_grad():
        low = head(x, torch.full((1, 1, 1), 20)) - plain
        high = head(x, torch.full((1, 1, 1), 22)) - plain
        none = head(x, torch.full((1, 1, 1), 2)) - plain  # no id of the scale: silence, for one
    assert low[..., 3:].abs().max() > 0 and not low[..., :3].any()
    torch.testing.assert_close(high[..., 5:], low[..., 3:-2], atol=1e-6, rtol=1e-5)
    assert not none.any()


def test_features_are_looked_up_at_once_as_one_by_one():
    embedding = base.Embedding(base.BaseConfig(vocab_size=40, feature_sizes=(3, 5)), 8)
    tokens = torch.randint(0, 40, (2, 6))
    features = torch.stack([torch.randint(0, 3, (2, 6)), torch.randint(0, 5, (2, 6))], 2)
    at_once = embedding(tokens, features)
    one_by_one = torch.cat([embedding(tokens[:, t : t + 1], features[:, t : t + 1]) for t in range(6)], 1)
    torch.testing.assert_close(at_once, one_by_one)


@pytest.mark.parametrize(
    "wrong",
    [(3, 0), (3, 40, 0), (9, 3, 0), (3, 9, 1)],
)
def test_impossible_ranges_of_relative_pitch_are_refused(wrong: tuple[int, ...]):
    with pytest.raises(ValueError, match="relative_pitch"):
        base.BaseConfig(vocab_size=40, feature_sizes=(40,), relative_pitch=(wrong,))


@pytest.mark.parametrize("arch", ARCHS)
def test_each_scale_has_steps_of_its_own(arch: str):
    model = tiny(arch, feature_sizes=(40, 40), relative_pitch=((3, 19, 0), (20, 39, 1)))
    head = model.head
    x = torch.randn(1, 1, head.in_features)
    with torch.no_grad():
        both = head(x, torch.tensor([[[10, 30]]]))
        moved = head(x, torch.tensor([[[10, 32]]]))
    torch.testing.assert_close(both[..., :20], moved[..., :20])
    assert not torch.allclose(both[..., 20:], moved[..., 20:])
