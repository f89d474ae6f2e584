"""Transformer-XL: its scores are those of the paper, its memory has no gradient, and segments may end anywhere."""

from __future__ import annotations

import pytest
import torch

from musiclm.models import base, transformer_xl
from musiclm.models.layers.positions import sinusoids
from musiclm.models.layers.transformer_decoder import IncrementalTransformer
from tests.conftest import tiny


def naive(layer: transformer_xl.Attention, x: torch.Tensor, num_new: int, absent: torch.Tensor) -> torch.Tensor:
    """Return attention of the last tokens of x by the paper's formula, score by score, with a masked softmax."""
    batch, num_keys, size = x.shape
    heads = layer.num_heads
    q, k, v = (t.view(batch, num_keys, heads, -1) for t in layer.queries_keys_values(x).chunk(3, -1))
    away = torch.arange(num_keys)[:, None] - torch.arange(num_keys)
    table = sinusoids(torch.arange(layer.memory), size).to(x.dtype)
    r = layer.of_distances(table[away.clamp(0, layer.memory - 1)]).view(num_keys, num_keys, heads, -1)
    u, bias_v = layer.content_bias_H1E[:, 0], layer.position_bias_H1E[:, 0]
    scores = torch.einsum("bqhe,bkhe->bhqk", q + u, k) + torch.einsum("bqhe,qkhe->bhqk", q + bias_v, r)
    forbidden = (away < 0) | (away >= layer.memory)
    forbidden = forbidden | (torch.arange(num_keys) < absent[:, None, None, None])
    weights = (scores / (size // heads) ** 0.5)[:, :, -num_new:].masked_fill(forbidden[..., -num_new:, :], -torch.inf)
    attended = torch.einsum("bhqk,bkhe->bqhe", weights.softmax(-1), v).flatten(2)
    return layer.out(attended)


@pytest.mark.parametrize(
    "num_memory, num_new, context", [(0, 5, 8), (0, 20, 8), (8, 5, 8), (3, 1, 8), (150, 200, 150), (40, 300, 40)]
)
def test_attention_and_its_gradients_are_those_of_the_papers_formula(num_memory: int, num_new: int, context: int):
    torch.manual_seed(0)
    layer = transformer_xl.Attention(transformer_xl.Config(vocab_size=9, size=12, num_heads=3, memory=context)).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    x = torch.randn(2, num_memory + num_new, 12, dtype=torch.float64, requires_grad=True)
    absent = torch.tensor([0, num_memory // 2])
    table = sinusoids(torch.arange(context), 12).double()
    memory = None
    if num_memory:
        memory = tuple(
            t.unflatten(-1, (3, -1)).transpose(1, 2)[:, :, :num_memory] for t in layer.queries_keys_values(x).chunk(3, -1)[1:]
        )  # fmt: skip
    found, (keys, _) = layer(x[:, num_memory:], (memory, table, absent if num_memory else None))
    wanted = naive(layer, x, num_new, absent)
    torch.testing.assert_close(found, wanted)
    assert keys.shape[2] == min(context, num_memory + num_new)
    inputs = [x, *layer.parameters()]
    towards = torch.randn_like(wanted)
    for mine, theirs in zip(*(torch.autograd.grad(y, inputs, towards) for y in (found, wanted)), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_segments_of_any_size_give_the_logits_of_the_whole(size: int):
    model = tiny("transformer_xl", memory=48).double()
    tokens = torch.randint(0, 40, (2, 150))
    with torch.no_grad():
        whole, _ = model(tokens)
        state, found = None, []
        for segment in tokens.split(size, 1):
            logits, state = model(segment, state)
            found.append(logits)
    torch.testing.assert_close(torch.cat(found, 1), whole, atol=1e-10, rtol=1e-10)


def test_no_gradient_flows_into_the_memory():
    model = tiny("transformer_xl")
    embedded: list[torch.Tensor] = []
    hook = model.embedding.register_forward_hook(lambda _m, _i, out: embedded.append(out) or out.retain_grad())
    tokens = torch.randint(0, 40, (1, 12))
    _, state = model(tokens[:, :6])
    assert not any(t.requires_grad for t in state)
    logits, _ = model(tokens[:, 6:], state)
    logits.sum().backward()
    hook.remove()
    assert embedded[0].grad is None and (embedded[1].grad != 0).any()
    other = tokens.clone()
    other[0, 5] = (other[0, 5] + 1) % 40
    with torch.no_grad():  # though the memory is attended to
        changed, _ = model(other[:, 6:], model(other[:, :6])[1])
    assert not torch.allclose(changed, logits)


def test_one_layer_attends_to_exactly_the_last_tokens_wherever_a_segment_ends():
    model = tiny("transformer_xl", num_layers=1, memory=8)
    tokens = torch.randint(0, 40, (1, 20))
    for cut in (11, 12, 16, 19):
        seen = []
        for place in range(20):
            other = tokens.clone()
            other[0, place] = (other[0, place] + 1) % 40
            with torch.no_grad():
                logits = [model(t[:, cut:], model(t[:, :cut])[1])[0][0, -1] for t in (tokens, other)]
            if not torch.equal(*logits):
                seen.append(place)
        assert seen == list(range(12, 20)), cut


def test_an_element_is_reset_while_others_continue():
    model = tiny("transformer_xl")
    tokens = torch.randint(0, 40, (3, 30))
    with torch.no_grad():
        whole, _ = model(tokens)
        _, state = model(tokens[:, :11])
        state = base.reset(state, torch.tensor([False, True, False]))
        found = []
        for segment in tokens[:, 11:].split([4, 1, 14], 1):
            logits, state = model(segment, state)
            found.append(logits)
        fresh, _ = model(tokens[1:2, 11:])
    logits = torch.cat(found, 1)
    torch.testing.assert_close(logits[1:2], fresh, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(logits[[0, 2]], whole[[0, 2], 11:], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("precision, atol", [("fp32", 1e-5), ("int8", 0.25)])
def test_the_form_for_generation_gives_the_same_logits_and_its_state_is_bounded(precision: str, atol: float):
    model = tiny("transformer_xl", size=64)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name and "bias_H1E" not in name:
                parameter.mul_(0.3)
        tokens = torch.randint(0, 40, (3, 40))
        whole, _ = model(tokens)
        fast = model.for_generation(precision)
        assert isinstance(fast, IncrementalTransformer)
        state, found = None, []
        for segment in tokens.split([10, 1, 1, 6, *[1] * 22], 1):
            logits, state = fast(segment, state)
            found.append(logits)
    torch.testing.assert_close(torch.cat(found, 1), whole, atol=atol, rtol=0)
    assert max(max(t.shape[1:]) for t in state[1:]) <= 64


def test_the_biases_count():
    """Without u and v, which keys and which distances matter would depend on the query alone."""
    model = tiny("transformer_xl", num_layers=1)
    tokens = torch.randint(0, 40, (1, 20))
    with torch.no_grad():
        before, _ = model(tokens)
        for name in ("content_bias_H1E", "position_bias_H1E"):
            bias = getattr(model.blocks[0].attention, name)
            kept = bias.clone()
            bias.zero_()
            assert not torch.allclose(model(tokens)[0], before, atol=1e-4)
            bias.copy_(kept)


def test_biases_of_attention_are_not_trained_as_matrices():
    from musiclm.training.optim import Recipe, make_optimizers

    model = tiny("transformer_xl")
    of_muon = {
        id(p)
        for optimizer in make_optimizers(model, Recipe(steps=1))
        if isinstance(optimizer, torch.optim.Muon)
        for p in optimizer.param_groups[0]["params"]
    }
    attention = model.blocks[0].attention
    assert id(attention.of_distances.weight) in of_muon
    assert not {id(attention.content_bias_H1E), id(attention.position_bias_H1E)} & of_muon
