"""Relative attention by Triton is that of the reference: compiled where there is CUDA, else by Triton's interpreter."""

from __future__ import annotations

import os

import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"  # read when a kernel is defined
pytest.importorskip("triton", reason="Triton is not installed: pip install triton runs these tests without a GPU")

from musiclm.models.layers import relative_attention_triton as kernels  # noqa: E402
from musiclm.models.layers.relative_attention import reference_relative_attention  # noqa: E402

#        batch, heads, queries, keys, size of a head, distances
SHAPES = {
    "one tile": (1, 1, 32, 32, 16, 32),
    "a part of a tile": (2, 2, 7, 7, 8, 7),
    "several tiles": (1, 2, 70, 70, 16, 70),
    "a short context": (2, 1, 90, 90, 16, 20),
    "a context longer than the music": (1, 1, 40, 40, 16, 100),
    "cached keys": (2, 2, 35, 75, 16, 50),
    "one query": (2, 2, 1, 33, 16, 64),
    "a size that is no power of two": (1, 2, 40, 45, 24, 33),
}


def inputs(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    torch.manual_seed(0)
    batch, heads, queries, keys, size, distances = shape
    sizes = [(queries, size), (queries, size), (keys, size), (keys, size)]
    found = [torch.randn(batch, heads, *each) for each in sizes] + [torch.randn(heads, distances, size)]
    return [t.to(DEVICE, dtype).requires_grad_() for t in found]


def by_triton(q, p, k, v, distances, absent):
    scale = q.shape[-1] ** -0.5
    return kernels.triton_relative_attention(
        q * scale, None if p is None else p * scale, k, v, distances.to(q.dtype), absent
    )


def by_reference(q, p, k, v, distances, absent):
    """In float64."""
    q, k, v, distances = (t.double() for t in (q, k, v, distances))
    p = None if p is None else p.double()
    return reference_relative_attention(q, k, v, distances, position_q_BHTE=p, num_absent_B=absent)


def assert_same(given: list[torch.Tensor], *, own_positions: bool, absent: torch.Tensor | None, error: float) -> None:
    q, p, k, v, distances = given
    wanted = [t for t in given if own_positions or t is not p]
    found = []
    for attend in (by_triton, by_reference):
        y = attend(q, p if own_positions else None, k, v, distances, absent)
        dy = torch.linspace(-1, 1, y.numel(), device=DEVICE, dtype=y.dtype).view(y.shape).sin()
        found.append([y, *torch.autograd.grad(y, wanted, dy)])
    for ours, exact in zip(*found, strict=True):
        difference = (ours.double() - exact.double()).detach().abs().max()
        assert float(difference) <= error * float(exact.detach().abs().max())


@pytest.mark.parametrize("name", SHAPES)
def test_output_and_gradients_are_those_of_the_reference(name: str):
    assert_same(inputs(SHAPES[name]), own_positions=False, absent=None, error=1e-5)


def test_queries_of_positions_and_memories_of_different_lengths():
    """As Transformer-XL uses it."""
    absent = torch.tensor([0, 33], device=DEVICE)
    assert_same(inputs((2, 2, 35, 75, 16, 50)), own_positions=True, absent=absent, error=1e-5)


def test_16_bits_are_as_exact_as_their_numbers():
    """The interpreter multiplies float16 alone, and takes bfloat16 for integers."""
    dtype = torch.bfloat16 if DEVICE == "cuda" else torch.float16
    given = inputs((1, 2, 70, 100, 16, 60), dtype)
    assert_same(given, own_positions=False, absent=None, error=2e-2 if DEVICE == "cuda" else 3e-3)


def test_values_of_another_width_are_left_to_the_reference():
    """Recorded attention has one-hot rows as values."""
    q = torch.zeros(1, 1, 4, 16)
    assert kernels.is_supported(q, torch.zeros(1, 1, 4, 16))
    assert not kernels.is_supported(q, torch.zeros(1, 1, 4, 3))
    assert not kernels.is_supported(q.double(), torch.zeros(1, 1, 4, 16).double())


@pytest.mark.filterwarnings("ignore")
def test_the_operator_is_one_that_torch_compiles():
    q, _, k, v, distances = inputs((1, 1, 8, 12, 16, 8))
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(kernels._forward_op, (q, None, k, v, distances, None), test_utils=checks)
