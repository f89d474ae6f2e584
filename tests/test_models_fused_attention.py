"""Attention to a sliding window: FlexAttention is that of `scaled_dot_product_attention` with a mask."""

from __future__ import annotations

import pytest
import torch

from musiclm.models.layers.fused_attention import attention, sliding_window


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.slow
@pytest.mark.parametrize(("length", "context"), [(40, 7), (200, 130)])
def test_flex_attention_attends_to_the_window(length: int, context: int):
    """Forward alone: torch does not differentiate FlexAttention on a CPU."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 2, length, 16) for _ in range(3))
    ours = sliding_window(q, k, v, context, compiled=False)
    torch.testing.assert_close(ours, attention(q, k, v, context), rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_compiled_kernel_attends_to_the_window():
    torch.manual_seed(0)
    q, k, v, dy = (torch.randn(2, 2, 300, 64) for _ in range(4))
    found = []
    for device in ("cpu", "cuda"):
        inputs = [t.to(device).requires_grad_() for t in (q, k, v)]
        y = attention(*inputs, 100)
        found.append([t.cpu() for t in (y, *torch.autograd.grad(y, inputs, dy.to(device)))])
    for expected, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-2, atol=1e-2)
