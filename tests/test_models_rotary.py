"""The rotary transformer: rotations, the norm, and the window of its single-token form."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from musiclm import models
from musiclm.models.layers import cached_attention
from musiclm.models.layers.positions import rotate, rotations
from musiclm.models.layers.rms_norm import EPSILON, RMSNorm
from tests.conftest import tiny


def test_rotations_are_those_of_the_paper():
    found = rotations(torch.tensor([3, 7]), 6)
    angles = torch.tensor([[place / 10000 ** (2 * i / 6) for i in range(3)] for place in (3, 7)])
    torch.testing.assert_close(found, torch.polar(torch.ones(2, 3), angles))
    x = torch.randn(2, 6)
    a, b = x[:, 0::2], x[:, 1::2]
    wanted = torch.stack([a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()], -1).flatten(-2)
    torch.testing.assert_close(rotate(x, found), wanted)


@pytest.mark.parametrize("far", [1_000, 1_000_000, 2**31 - 100])
def test_products_depend_on_distances_alone_however_far_out(far: int):
    """Angles in float32 are off by 0.03 at a position of a million, and by whole turns at two thousand million."""
    torch.manual_seed(0)
    q, k = torch.randn(64), torch.randn(64)
    for distance in (0, 1, 50):
        near = rotate(q, rotations(torch.tensor(distance), 64)) @ rotate(k, rotations(torch.tensor(0), 64))
        there = rotate(q, rotations(torch.tensor(far + distance), 64)) @ rotate(k, rotations(torch.tensor(far), 64))
        torch.testing.assert_close(there, near, atol=3e-5, rtol=0)


def test_a_million_tokens_later_the_logits_are_the_same():
    model, tokens = tiny("rotary"), torch.randint(0, 40, (2, 12))
    empty = [torch.zeros(2, 2, 0, 8)] * 4
    with torch.no_grad():
        here, _ = model(tokens)
        there, state = model(tokens, (torch.tensor([1_000_000, 5]), *empty))  # each batch element has its own count
    torch.testing.assert_close(there, here, atol=1e-5, rtol=1e-4)
    assert state[0].tolist() == [1_000_012, 17]


def test_the_norm_and_its_gradients_are_those_of_torch():
    torch.manual_seed(0)
    norm = RMSNorm(6).double()
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(3, 5, 6, dtype=torch.float64, requires_grad=True)
    towards = torch.randn_like(x)
    wanted = F.rms_norm(x, (6,), norm.weight, EPSILON)
    torch.testing.assert_close(norm(x), wanted)
    inputs = (x, norm.weight)
    for mine, theirs in zip(*(torch.autograd.grad(y, inputs, towards) for y in (norm(x), wanted)), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("size", models.SIZES)
def test_presets_have_about_as_many_parameters_as_the_baseline(size: str):
    with torch.device("meta"):
        ours, theirs = (models.create(a, 300, **models.preset(a, size)).num_parameters for a in ("rotary", "absolute"))
    assert ours == pytest.approx(theirs, rel=0.01)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("context", [1, 8, 129])
def test_the_cache_of_the_form_for_generation_is_a_window(precision: str, context: int):
    if precision == "int8" and not hasattr(torch.ops.quantized, "embedding_bag_byte_prepack"):
        pytest.skip("needs FBGEMM")
    torch.manual_seed(0)
    size = 8
    kind = cached_attention.FloatWindow if precision == "fp32" else cached_attention.PackedWindow
    window = kind(2, size, context)
    q, k, v = (torch.randn(3, 2, 150, size) for _ in range(3))
    first = 140
    kept = window.closed(*(t[:, :, max(0, first - context + 1) : first] for t in (k, v)), first)
    for t in range(first, 150):
        found, kept = window.attend(q[:, :, t], k[:, :, t], v[:, :, t], kept, t)
        seen = slice(max(0, t + 1 - context), t + 1)
        wanted = F.scaled_dot_product_attention(q[:, :, t : t + 1], k[:, :, seen], v[:, :, seen], scale=1.0)
        torch.testing.assert_close(found, wanted.flatten(1), atol=1e-5 if precision == "fp32" else 0.02, rtol=0)
    opened, _ = window.opened(kept, 150)
    torch.testing.assert_close(opened, k[:, :, 150 - context :], atol=0 if precision == "fp32" else 2e-3, rtol=0)


def test_a_rotary_transformer_forgets_what_lies_before_its_context():
    model, tokens = tiny("rotary", num_layers=1), torch.randint(0, 40, (1, 20))
    other = tokens.clone()
    other[0, :12] = (other[0, :12] + 1) % 40
    with torch.no_grad():
        torch.testing.assert_close(model(tokens)[0][0, -1], model(other)[0][0, -1])
        assert not torch.allclose(model(tokens)[0][0, -2], model(other)[0][0, -2])
        state = None
        for _ in range(100):
            _, state = model(tokens[:, :1], state)
    assert state[1].shape[2] == 7
