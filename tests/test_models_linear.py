"""Linear attention: explicit sums of kernels, streams, memory, and the weights that it implies."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from musiclm import models
from musiclm.models import performer
from musiclm.models.layers import linear_attention as layer
from musiclm.models.layers.attention_recording import record_attention
from musiclm.models.linear import EluFeatures
from tests.conftest import tiny

ARCHS = ["linear", "performer"]


def random_features(size: int, num_features: int) -> performer.RandomFeatures:
    features = performer.RandomFeatures(size, num_features).double()
    features.vectors_FE.copy_(torch.from_numpy(performer.random_vectors(num_features, size, (1, 0, 0))))
    return features


def naive_features(features: layer.FeatureMap, x: Tensor) -> Tensor:
    """Return the features by their formula, with no common factor taken out."""
    if isinstance(features, EluFeatures):
        return torch.where(x > 0, x + 1, x.clamp(max=0).exp())
    x = x / x.shape[-1] ** 0.25
    return torch.exp(x @ features.vectors_FE.t() - x.square().sum(-1, keepdim=True) / 2)


@pytest.mark.parametrize("num_tokens", [1, 5, 8, 29])
@pytest.mark.parametrize("features", [EluFeatures(), random_features(4, 10)], ids=["elu", "favor"])
@pytest.mark.parametrize("has_past", [False, True])
def test_attention_and_its_gradients_are_those_of_explicit_sums(
    num_tokens: int, features: layer.FeatureMap, has_past: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(layer, "CHUNK", 8)
    torch.manual_seed(0)
    num_past = 6 if has_past else 0
    q, k, v = (torch.randn(2, 3, num_past + num_tokens, n, dtype=torch.float64) for n in (4, 4, 6))
    inputs = [t[:, :, num_past:].clone().requires_grad_() for t in (q, k, v)]
    past = naive_features(features, k[:, :, :num_past])
    sums = [(past.mT @ v[:, :, :num_past]), past.sum(2)]
    inputs += [t.requires_grad_() for t in sums] if has_past else []
    q, k, v = inputs[:3]
    fq, fk = naive_features(features, q), naive_features(features, k)
    weights = (fq @ fk.mT).tril()  # queries x keys: what the sums avoid
    wanted_s, wanted_z = sums[0] + fk.mT @ v, sums[1] + fk.sum(2)
    wanted = (weights @ v + fq @ sums[0]) / (weights.sum(-1, keepdim=True) + fq @ sums[1][..., None])
    found = layer.linear_attention(q, k, v, features, (sums[0], sums[1]) if has_past else None)
    for mine, theirs in zip(found, (wanted, wanted_s, wanted_z), strict=True):
        torch.testing.assert_close(mine, theirs)
    towards = [torch.randn_like(t) for t in found]
    both = [torch.autograd.grad(y, inputs, towards) for y in (found, (wanted, wanted_s, wanted_z))]
    for mine, theirs in zip(*both, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("length", [1, 7, 64, 200])
def test_a_stream_in_chunks_of_any_length_gives_the_logits_of_the_whole(arch: str, length: int):
    model, tokens = tiny(arch), torch.randint(0, 40, (2, 330))
    forms, found = {"model": model, "form": model.for_generation("fp32")}, {}
    with torch.no_grad():
        whole, after = model(tokens)
        for name, form in forms.items():
            state, logits = None, []
            for chunk in tokens.split(length, 1):
                given, state = form(chunk, state)
                logits.append(given)
            found[name] = torch.cat(logits, 1)
            assert [t.shape for t in state] == [t.shape for t in after]  # of one size, however long the music
            torch.testing.assert_close(found[name], whole, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("arch", ARCHS)
def test_sums_and_denominators_are_in_float32_under_autocast(arch: str):
    """In bfloat16 a sum of ones stops at 256."""
    model, tokens = tiny(arch, num_heads=4), torch.randint(0, 40, (1, 300))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        _, state = model(tokens)
        attention = model.blocks[0].attention
        q, k, v = torch.randn(3, 1, 4, 300, 4).bfloat16()
        y, s, z = layer.linear_attention(q, k, v, attention.features)
    assert {t.dtype for t in state if t.is_floating_point()} == {torch.float32}
    wanted = layer.linear_attention(*(t.double() for t in (q, k, v)), attention.features)
    torch.testing.assert_close(y.double(), wanted[0], atol=2e-2, rtol=2**-8)  # the rounding of the result
    for mine, theirs in zip((s, z), wanted[1:], strict=True):
        torch.testing.assert_close(mine.double(), theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("features", [EluFeatures(), random_features(8, 16)], ids=["elu", "favor"])
def test_gradients_are_not_those_of_a_rounded_output(features: layer.FeatureMap):
    """Values with a large common component: y rounded to bfloat16 in the backward pass gives errors of 3 % and more."""
    torch.manual_seed(0)
    q, k, v, towards = (torch.randn(1, 2, 512, 8).bfloat16() for _ in range(4))
    found = []
    for dtype in (torch.bfloat16, torch.float64):
        inputs = [t.to(dtype).requires_grad_() for t in (q, k, v + 1)]
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            y, _, _ = layer.linear_attention(*inputs, features)
        found.append(torch.autograd.grad(y, inputs, towards.to(dtype)))
    for mine, wanted in zip(*found, strict=True):
        assert (mine.double() - wanted).norm() < 0.01 * wanted.norm()


@pytest.mark.parametrize("value", [-20.0, -80.0, -200.0])
def test_queries_and_keys_that_are_negative_throughout_have_weights(value: float):
    torch.manual_seed(0)
    q, k = (torch.full((1, 1, 70, 4), value, requires_grad=True) for _ in range(2))
    v, towards = torch.randn(2, 1, 1, 70, 4)
    y, _, _ = layer.linear_attention(q, k, v, EluFeatures())
    torch.testing.assert_close(y, v.cumsum(2) / torch.arange(1, 71)[:, None])  # all keys are alike
    assert all(torch.isfinite(t).all() for t in torch.autograd.grad(y, (q, k), towards))
    exact = EluFeatures().of_keys(torch.full((1,), value).clamp(min=-80))
    torch.testing.assert_close(exact.double(), torch.full((1,), max(value, -80.0)).double().exp(), rtol=1e-5, atol=0)


def test_long_keys_keep_their_exponents_down_to_the_limit_and_their_gradients():
    torch.manual_seed(0)
    features = random_features(64, 128).float()
    q, k, v = (torch.randn(1, 1, 70, 64) for _ in range(3))
    found = []
    for norm in (32, 200):  # exponents about -64, and all below the limit
        long = (k / k.norm(dim=-1, keepdim=True) * norm).requires_grad_()
        y, _, _ = layer.linear_attention(q, long, v, features)
        found += [y, *torch.autograd.grad(y, long, torch.randn_like(y))]
        assert all(torch.isfinite(t).all() for t in found)
    assert found[1].norm() > 10 and (found[3] == 0).all()
    wanted, _, _ = layer.linear_attention(
        *(t.double() for t in (q, k / k.norm(dim=-1, keepdim=True) * 32, v)), features
    )
    torch.testing.assert_close(found[0].double(), wanted, atol=1e-4, rtol=1e-4)


def stored_bytes(model: torch.nn.Module, num_tokens: int) -> int:
    """Return the bytes that a forward pass stores for the backward pass, without parameters and buffers."""
    known = {t.untyped_storage().data_ptr() for t in itertools.chain(model.parameters(), model.buffers())}
    stored: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            stored[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logits, _ = model(torch.arange(num_tokens)[None] % 40)
    assert logits.requires_grad
    return sum(stored.values())


@pytest.mark.parametrize(
    ("arch", "config", "most"),
    [
        ("linear", {}, 1.1),
        ("performer", {}, 1.1),
        ("longformer", {"global_ids": (0, 7), "num_global": 8}, 1.5),
        ("transformer_xl", {"memory": 64}, 1.5),
        ("reformer", {}, 0.5),
    ],
)
def test_what_is_stored_for_the_backward_pass_is_linear_in_the_length(arch: str, config: dict, most: float):
    model = models.create(arch, 40, **models.preset(arch, "tiny") | {"dropout": 0.0} | config)
    baseline = models.create("absolute", 40, **models.preset("absolute", "tiny") | {"dropout": 0.0, "context": 2048})
    at = {length: stored_bytes(model, length) for length in (512, 1024, 2048)}
    assert at[1024] / at[512] == pytest.approx(2, rel=0.02) and at[2048] / at[1024] == pytest.approx(2, rel=0.02)
    assert at[2048] < most * stored_bytes(baseline, 2048)


@pytest.mark.parametrize("arch", ARCHS)
def test_the_implied_weights_are_recorded(arch: str):
    model, tokens = tiny(arch, num_heads=4), torch.randint(0, 40, (2, 70))
    queries = torch.tensor([0, 10, 69])
    seen: list[Tensor] = []
    model.blocks[0].attention.queries_keys_values.register_forward_hook(lambda _m, _i, out: seen.append(out))
    with torch.no_grad(), record_attention(torch.eye(70), queries) as recorder:
        model(tokens)
    assert [t.shape for t in recorder.layers] == [(2, 4, 3, 70)] * 2
    q, k, _ = (t.unflatten(-1, (4, -1)).transpose(1, 2).double() for t in seen[0].chunk(3, -1))
    features = model.blocks[0].attention.features.double()
    weights = (naive_features(features, q) @ naive_features(features, k).mT).tril()
    wanted = (weights / weights.sum(-1, keepdim=True))[:, :, queries]
    torch.testing.assert_close(recorder.layers[0].double(), wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("size", models.SIZES)
def test_presets_have_about_as_many_parameters_as_the_baseline(arch: str, size: str):
    with torch.device("meta"):
        ours, theirs = (models.create(a, 300, **models.preset(a, size)).num_parameters for a in (arch, "absolute"))
    assert ours == theirs


def test_positions_are_counted_per_batch_element():
    model, tokens = tiny("linear"), torch.randint(0, 40, (2, 9))
    with torch.no_grad():
        _, state = model(tokens)
        _, other = model(tokens[:, :4])
        mixed = tuple(torch.stack([a[0], b[1]]) for a, b in zip(state, other, strict=True))
        found, after = model(tokens, mixed)
        torch.testing.assert_close(found[0], model(torch.cat([tokens, tokens], 1))[0][0, 9:], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(
            found[1], model(torch.cat([tokens[:, :4], tokens], 1))[0][1, 4:], atol=1e-5, rtol=1e-4
        )
    assert after[0].tolist() == [18, 13]


@pytest.mark.parametrize("has_state", [False, True])
def test_long_sequences_are_computed_head_by_head_with_the_same_result(monkeypatch, has_state: bool):
    torch.manual_seed(0)
    inputs = [torch.randn(2, 3, 150, 4, dtype=torch.float64) for _ in range(3)]
    if has_state:
        inputs += [torch.rand(2, 3, 4, 4, dtype=torch.float64), torch.rand(2, 3, 4, dtype=torch.float64)]
    towards = [torch.randn(2, 3, *shape, dtype=torch.float64) for shape in ((150, 4), (4, 4), (4,))]
    found = []
    for most in (150, 149):
        monkeypatch.setattr(layer, "LONG", most)
        own = [t.clone().requires_grad_() for t in inputs]
        results = layer.linear_attention(*own[:3], EluFeatures(), tuple(own[3:]) or None)
        found.append([*results, *torch.autograd.grad(results, own, towards)])
    for together, by_head in zip(*found, strict=True):
        torch.testing.assert_close(by_head, together)
