"""FAVOR+ features: how good the estimate of softmax's kernel is, and what a redraw changes."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from musiclm import checkpoint
from musiclm.models import base, performer, weights
from musiclm.models.layers.linear_attention import linear_attention
from musiclm.training.language_model import train
from musiclm.training.loop import TrainingState
from musiclm.training.optim import Recipe
from tests.conftest import GRID, tiny, windows


def test_vectors_are_orthogonal_in_groups_and_as_long_as_gaussian_ones():
    vectors = performer.random_vectors(1000, 16, (3, 1, 4))
    for group in vectors[:992].reshape(62, 16, 16):
        products = group @ group.T
        assert np.abs(products - np.diag(np.diag(products))).max() < 1e-10
    squares = (vectors**2).sum(1)  # chi-squared: mean 16, variance 32
    assert squares.mean() == pytest.approx(16, abs=4 * math.sqrt(32 / 1000))
    assert squares.var() == pytest.approx(32, rel=0.25)
    assert np.abs(vectors.mean(0)).max() < 4 / math.sqrt(1000)


def test_the_squared_error_of_the_kernel_falls_as_one_over_the_number_of_features():
    rng = np.random.default_rng(0)
    size, numbers, errors = 16, (16, 32, 64, 128, 256, 512, 1024), []
    q, k = (torch.from_numpy(rng.standard_normal((50, size))) / 2 for _ in range(2))  # longer ones: heavy tails
    exact = (q * k).sum(1).div(size**0.5).exp()
    for num_features in numbers:
        features = performer.RandomFeatures(size, num_features).double()
        squares = []
        for number in range(60):
            vectors = performer.random_vectors(num_features, size, (7, number, num_features))
            features.vectors_FE.copy_(torch.from_numpy(vectors))
            estimate = (features.of_keys(q) * features.of_keys(k)).mean(1)
            squares.append((estimate / exact - 1).square().mean())
        errors.append(float(torch.stack(squares).mean()))
    slope = np.polyfit(np.log(numbers), np.log(errors), 1)[0]
    assert slope == pytest.approx(-1, abs=0.2)


def test_orthogonal_vectors_estimate_better_than_independent_ones():
    rng = np.random.default_rng(1)
    q, k = (torch.from_numpy(rng.standard_normal((50, 16))) / 2 for _ in range(2))
    exact = (q * k).sum(1).div(4).exp()
    features = performer.RandomFeatures(16, 16).double()

    def error(vectors: np.ndarray) -> float:
        features.vectors_FE.copy_(torch.from_numpy(vectors))
        return float(((features.of_keys(q) * features.of_keys(k)).mean(1) / exact - 1).square().mean())

    orthogonal = np.mean([error(performer.random_vectors(16, 16, (n, 0, 0))) for n in range(200)])
    independent = np.mean([error(rng.standard_normal((16, 16))) for _ in range(200)])
    assert orthogonal < 0.97 * independent


def test_attention_comes_close_to_that_of_softmax():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 2, 40, 16) * torch.tensor([0.5, 0.5, 1]).view(3, 1, 1, 1, 1)
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    errors = []
    for num_features in (64, 4096):
        features, squares = performer.RandomFeatures(16, num_features), []
        for number in range(6):
            features.vectors_FE.copy_(torch.from_numpy(performer.random_vectors(num_features, 16, (0, number, 0))))
            squares.append((linear_attention(q, k, v, features)[0] - wanted).square().mean())
        errors.append(float(torch.stack(squares).mean().sqrt()))
    assert errors[1] < 0.03 and errors[1] < errors[0] / 4  # 1 / 8 is expected


def test_a_huge_key_to_come_changes_nothing_before_it_and_nothing_overflows():
    """A stabilizer over the whole sequence would make all earlier features vanish."""
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 1, 40, 16)
    features = performer.RandomFeatures(16, 64)
    features.vectors_FE.copy_(torch.from_numpy(performer.random_vectors(64, 16, (0, 0, 0))))
    plain, _, _ = linear_attention(q, k, v, features)
    for scale in (30.0, 1e4):
        larger = k.clone()
        larger[:, :, 25:] = scale * features.vectors_FE[0]
        found = linear_attention(q.requires_grad_(), larger.requires_grad_(), v, features)
        torch.testing.assert_close(found[0][:, :, :25], plain[:, :, :25])
        assert all(bool(torch.isfinite(t).all()) for t in found)
        gradients = torch.autograd.grad(found[0].sum(), (q, larger))
        assert all(bool(torch.isfinite(t).all()) for t in gradients)


def vectors_of(model: base.LanguageModel) -> list[torch.Tensor]:
    return [block.attention.features.vectors_FE.clone() for block in model.blocks]


def equal(some: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


def test_vectors_are_a_function_of_the_seed_the_redraw_number_and_the_layer():
    model = tiny("performer")
    first = vectors_of(model)
    assert not torch.equal(first[0], first[1])
    model.redraw(1)
    assert not equal(vectors_of(model), first) and int(model.redraws) == 1
    model.redraw(0)
    assert equal(vectors_of(model), first)
    torch.manual_seed(1)
    other = tiny("performer")  # of the same global seed
    assert equal(vectors_of(other), first)
    other.seed.add_(1)
    other.redraw(0)
    assert not equal(vectors_of(other), first)


def test_a_state_of_another_redraw_number_is_treated_as_empty():
    model, tokens = tiny("performer"), torch.randint(0, 40, (3, 20))
    for form in (model, model.for_generation("fp32")):
        with torch.no_grad():
            model.redraw(0)
            _, old = form(tokens[:, :8])
            model.redraw(1)
            _, new = form(tokens[:, :8])
            mixed = tuple(torch.cat([a[:1], b[1:]]) for a, b in zip(old, new, strict=True))
            for length in (1, 12):
                given = base.copy_state(mixed)
                found, after = form(tokens[:, 8 : 8 + length], given)
                fresh, _ = model(tokens[:1, 8 : 8 + length])
                continued, _ = model(tokens[:, : 8 + length])
                torch.testing.assert_close(found[:1], fresh, atol=1e-5, rtol=1e-4)
                torch.testing.assert_close(found[1:], continued[1:, 8:], atol=1e-5, rtol=1e-4)
                assert after[0].tolist() == [length, 8 + length, 8 + length] and after[1].tolist() == [1, 1, 1]


def test_a_state_keeps_its_redraw_number_when_the_model_is_redrawn():
    model = tiny("performer")
    with torch.no_grad():
        _, state = model(torch.zeros(2, 3, dtype=torch.int64))
    model.redraw(5)
    assert state[1].tolist() == [0, 0]


def trained(chorales, start: TrainingState | None = None, steps: int = 7):
    """Return the model, its EMA copy and the last state of a run with a redraw every three steps."""
    model, average = (
        tiny("performer", GRID.vocab_size, redraw_steps=3, dropout=0.1, **GRID.model_config) for _ in range(2)
    )
    average.seed.add_(1)  # it is given the seed of the model
    recipe = Recipe(steps=7, warmup_steps=2)
    made, numbers, state = windows(chorales.pieces("train")[:5]), [], None
    for step in train(model, made, recipe, average=average, start=start):
        numbers.append(int(model.redraws))
        assert equal(vectors_of(model), vectors_of(average))  # the current ones, to the last bit
        assert int(average.redraws) == int(model.redraws)
        if step.number == steps or step.progress == 1:
            state = copy.deepcopy(step.state())
            break
    return numbers, state


@pytest.mark.slow
def test_vectors_are_redrawn_in_training_and_a_resumed_run_is_exact(chorales):
    numbers, whole = trained(chorales)
    assert numbers == [0, 0, 0, 1, 1, 1, 2]
    for cut in (2, 3, 5):
        first, state = trained(chorales, steps=cut)
        rest, resumed = trained(chorales, start=state)
        assert first + rest == numbers
        assert whole.tensors.keys() == resumed.tensors.keys()
        assert all(torch.equal(t, resumed.tensors[name]) for name, t in whole.tensors.items()), cut


def test_other_architectures_have_nothing_to_do_before_a_step():
    model = tiny("linear")
    before = {name: t.clone() for name, t in model.state_dict().items()}
    for step in range(3):
        model.on_step(step)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_a_checkpoint_has_the_vectors_and_the_numbers_in_half_precision_too(tmp_path: Path):
    model = tiny("performer", GRID.vocab_size, **GRID.model_config)
    model.redraw(3)
    path = tmp_path / "m.safetensors"
    checkpoint.save(path, model, arch="performer", tokenizer=GRID, card={}, dtype=torch.float16)
    stored = load_file(path)
    assert stored["seed"].dtype == torch.int64 and stored["blocks.0.norm_forward.weight"].dtype == torch.float16
    again = checkpoint.load(str(path)).model()
    assert int(again.redraws) == 3 and torch.equal(again.seed, model.seed)
    torch.testing.assert_close(vectors_of(again), vectors_of(model), atol=2e-3, rtol=1e-3)


def test_extrapolated_weights_have_the_vectors_of_the_end():
    start, end = tiny("performer"), tiny("performer")
    end.redraw(2)
    moved = weights.extrapolate(start, end, 1.5)
    assert equal(vectors_of(moved), vectors_of(end)) and int(moved.redraws) == 2
