"""The Reformer: attention within buckets against a naive one, exact chunks, and a backward pass that computes again."""

from __future__ import annotations

import pytest
import torch

from musiclm import models
from musiclm.models import base, reformer
from musiclm.models.layers import hashed_attention as hashed
from musiclm.models.layers import reversible
from musiclm.models.layers.attention_recording import record_attention
from musiclm.training.config import TrainConfig
from musiclm.training.setup import _config
from tests.conftest import GRID, tiny


def naive_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, buckets: torch.Tensor, reach: int
) -> torch.Tensor:
    """Return attention of each query to the last tokens of its own bucket, round by round, by loops over tokens."""
    output = torch.zeros_like(v)
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            for t in range(q.shape[2]):
                seen = []
                for bucket in buckets[b, h]:
                    seen += [s for s in range(t) if bucket[s] == bucket[t]][-reach:]
                seen = seen or [t]
                scores = k[b, h, seen] @ q[b, h, t] / q.shape[-1] ** 0.5
                output[b, h, t] = scores.softmax(0) @ v[b, h, seen]
    return output


@pytest.mark.parametrize(
    ("length", "rounds", "buckets", "reach"), [(1, 2, 4, 3), (50, 1, 2, 4), (60, 3, 6, 5), (33, 2, 30, 4)]
)
def test_attention_and_its_gradients_are_those_of_naive_buckets(length: int, rounds: int, buckets: int, reach: int):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, length, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    chosen = torch.randint(0, buckets, (2, 3, rounds, length))
    wanted = naive_attention(q, k, v, chosen, reach)
    found = hashed.hashed_attention(q, k, v, hashed.sort_keys(chosen, None, buckets, reach))
    torch.testing.assert_close(found, wanted)
    towards = torch.randn_like(wanted)
    pairs = (torch.autograd.grad(y, (q, k, v), towards, allow_unused=True) for y in (found, wanted))
    for mine, theirs in zip(*pairs, strict=True):
        torch.testing.assert_close(mine, torch.zeros_like(mine) if theirs is None else theirs)


def test_a_bucket_is_the_nearest_of_the_rotated_axes():
    torch.manual_seed(0)
    x, rotations = torch.randn(2, 3, 9, 4), torch.randn(3, 2, 4, 5)
    found = hashed.hash_buckets(x, rotations)
    for (b, h, r, t), bucket in [(index, int(found[tuple(index)])) for index in found.ne(-1).nonzero().tolist()]:
        turned = x[b, h, t] @ rotations[h, r]
        assert bucket == int(torch.cat([turned, -turned]).argmax())


@pytest.mark.parametrize("size", [1, 7, 64, 200])
@pytest.mark.parametrize("setting", [{}, {"num_rounds": 3, "num_buckets": 2, "bucket_context": 30}], ids=str)
def test_chunks_of_any_size_give_one_pass(size: int, setting: dict):
    model = tiny("reformer", **setting).double()
    tokens = torch.randint(0, 40, (2, 420))
    with torch.no_grad():
        whole, _ = model(tokens)
        state, parts = None, []
        for chunk in tokens.split(size, 1):
            logits, state = model(chunk, state)
            parts.append(logits)
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-5)


def gradients(model: base.LanguageModel, tokens: torch.Tensor, cuts: list[int]) -> tuple[torch.Tensor, ...]:
    state, parts = None, []
    for chunk in tokens.split(cuts, 1):
        logits, state = model(chunk, state)
        parts.append(logits)
    return torch.autograd.grad(torch.cat(parts, 1).square().sum(), list(model.parameters()))


def test_chunks_give_the_gradients_of_one_pass_through_the_state():
    """The first chunk runs in reversible layers, the later ones in plain autograd."""
    model, tokens = tiny("reformer").double(), torch.randint(0, 40, (2, 50))
    for cuts in ([20, 30], [1, 20, 1, 28]):
        for mine, theirs in zip(gradients(model, tokens, cuts), gradients(model, tokens, [50]), strict=True):
            torch.testing.assert_close(mine, theirs)


class Unrolled(torch.nn.Module):
    """Reversible layers without their own backward pass: autograd keeps all activations."""

    @staticmethod
    def run(layers, x, kept):
        first = second = x
        after = []
        for layer, state in zip(layers, kept, strict=True):
            y, new, _ = layer.attended(second, state, None)
            first = first + y
            second = second + layer.forwarded(first)
            after += new
        return first, second, after


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_reversible_backward_pass_is_the_ordinary_one(dropout: float, monkeypatch):
    """With dropout too: the second forward pass must have the masks of the first, and leave the generator as it was."""
    model = tiny("reformer", num_layers=3, dropout=dropout).double().train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.3)
    tokens = torch.randint(0, 40, (2, 40))
    found = []
    for run in (reversible.run_layers, Unrolled.run):
        monkeypatch.setattr(reformer, "run_layers", run)
        torch.manual_seed(1)
        loss = model(tokens)[0].square().sum()
        of_all = torch.autograd.grad(loss, list(model.parameters()))
        found.append((loss.detach(), *of_all, torch.rand(3)))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_frozen_parameters_get_no_gradients_and_others_the_same():
    model, tokens = tiny("reformer").double(), torch.randint(0, 40, (1, 20))
    model(tokens)[0].sum().backward()
    before = model.blocks[0].up.weight.grad.clone()
    model.zero_grad()
    model.blocks[1].attention.requires_grad_(False)
    model(tokens)[0].sum().backward()
    assert model.blocks[1].attention.out.weight.grad is None
    torch.testing.assert_close(model.blocks[0].up.weight.grad, before)


@pytest.mark.parametrize("num_layers", [1, 6])
def test_kept_activations_do_not_grow_with_depth(num_layers: int):
    """Bucket numbers, one byte per token, head and round, are all that each layer keeps."""
    model, tokens = tiny("reformer", num_layers=num_layers, size=32), torch.randint(0, 40, (1, 512))
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden, _ = model.encode(tokens)
        assert hidden.requires_grad
    of_buckets = num_layers * 512 * 2 * 2
    assert sum(kept.values()) - of_buckets <= 7 * 512 * 32 * 4  # streams, their sum, norm


def test_the_state_does_not_grow():
    model, state, sizes = tiny("reformer"), None, []
    with torch.no_grad():
        for chunk in torch.randint(0, 40, (2, 300)).split(50, 1):
            _, state = model(chunk, state)
            sizes.append([tuple(t.shape) for t in state])
    assert all(size == sizes[0] for size in sizes)


def test_the_form_for_generation_gives_one_pass_and_takes_shuffled_rows():
    model = tiny("reformer")
    fast, tokens, order = model.for_generation("fp32"), torch.randint(0, 40, (3, 60)), [2, 0, 0]
    with torch.no_grad():
        whole, _ = model(tokens)
        first, state = fast(tokens[:, :5])
        found = [first]
        for t in range(5, 40):
            logits, state = fast(tokens[:, t : t + 1], state)
            found.append(logits)
        torch.testing.assert_close(torch.cat(found, 1), whole[:, :40], atol=1e-5, rtol=1e-4)
        rest, _ = fast(tokens[order, 40:], base.rows(state, order))
    torch.testing.assert_close(rest, whole[order, 40:], atol=1e-5, rtol=1e-4)


def test_recorded_attention_adds_up_to_one_and_is_to_oneself_only_where_alone():
    model = tiny("reformer", num_layers=1)
    with torch.no_grad(), record_attention(torch.eye(32), torch.arange(32)) as recorder:
        model(torch.randint(0, 40, (1, 32)))
    (weights,) = recorder.layers
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 2, 32))
    itself = weights.diagonal(dim1=-2, dim2=-1)
    assert ((itself == 0) | (itself == 1)).all() and (itself[..., 0] == 1).all() and (itself == 0).any()


def test_rotations_depend_on_the_seed_and_the_layer_and_nothing_else():
    first, other_layer, other_seed = (
        reformer.rotations(*numbers, (2, 2, 8, 4)) for numbers in ((1, 0), (1, 1), (2, 0))
    )
    assert float(first[0, 0, 0, 0]) == pytest.approx(-0.78014588)  # a checkpoint depends on it
    assert not torch.isclose(first, other_layer).any() and not torch.isclose(first, other_seed).any()


def test_an_odd_number_of_buckets_is_refused():
    with pytest.raises(ValueError, match="num_buckets"):
        models.create("reformer", 40, num_buckets=3)


def test_the_seed_of_the_rotations_can_be_set():
    config = _config(TrainConfig(arch="reformer", preset="tiny", config={"hash_seed": 7}), None, GRID)
    assert models.create("reformer", GRID.vocab_size, **config).config.hash_seed == 7


@pytest.mark.parametrize("size", models.SIZES)
def test_presets_are_near_absolute(size: str):
    mine, theirs = (models.create(a, 500, **models.preset(a, size)) for a in ("reformer", "absolute"))
    assert 0.9 < mine.num_parameters / theirs.num_parameters < 1
