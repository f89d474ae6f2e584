"""Decoding by a captured step is decoding step by step; a stand-in for CUDA graphs repeats the captured function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from musiclm import models
from musiclm.models.base import copy_state, rows
from musiclm.models.layers.step_graph import GraphedStep, capture

VOCAB, CONTEXT = 20, 12
ARCHS = ["rotary", "transformer", "transformer_xl"]


class Recorder:
    """Captures as CUDA does: a replay repeats the kernels on the tensors of the capture, and Python is not asked again."""

    def __init__(self) -> None:
        self.num_captures = self.num_replays = 0

    def __call__(self, run: Callable[[], Tensor]) -> tuple[Callable[[], object], Tensor]:
        self.num_captures += 1
        run(), run()
        output = run().clone()

        def replay() -> None:
            self.num_replays += 1
            output.copy_(run())

        return replay, output


def form(arch: str, recorder: Recorder | None = None) -> Any:
    torch.manual_seed(0)
    length = {"memory": CONTEXT} if arch == "transformer_xl" else {"context": CONTEXT}
    config = models.preset(arch, "tiny") | {"size": 16, "num_heads": 2, "feature_sizes": (3,)} | length
    model = models.create(arch, VOCAB, **config).eval().for_generation("fp32")
    assert model._graphed is None  # on a CPU
    if recorder is not None:
        step = model._step
        if arch == "rotary":
            model._graphed = GraphedStep(lambda *given: step(*given, given[-1])[0], recorder)
        else:
            model._graphed = GraphedStep(lambda *given: step(*given)[0], recorder)
    return model


def music(batch: int, length: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(batch)
    tokens = torch.randint(0, VOCAB, (batch, length), generator=draw)
    return tokens, torch.randint(0, 3, (batch, length, 1), generator=draw)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("num_read", [1, 5, 17])
def test_a_captured_step_gives_the_logits_of_a_step(arch: str, num_read: int):
    """From before the context is full until its ring buffer has begun again twice."""
    recorder = Recorder()
    plain, graphed = form(arch), form(arch, recorder)
    tokens, features = music(2, num_read + 3 * CONTEXT)
    with torch.inference_mode():
        states = [m(tokens[:, :num_read], None, features[:, :num_read])[1] for m in (plain, graphed)]
        for t in range(num_read, tokens.shape[1]):
            found = []
            for i, model in enumerate((plain, graphed)):
                logits, states[i] = model(tokens[:, t : t + 1], states[i], features[:, t : t + 1])
                found.append(logits)
            torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)
    # the first step gives the caches room for all slots, the second is the first with these
    assert recorder.num_captures == 1
    assert recorder.num_replays == 3 * CONTEXT - 1


@pytest.mark.parametrize("arch", ARCHS)
def test_branches_and_several_tokens_at_once_do_not_disturb_each_other(arch: str):
    plain, graphed = form(arch), form(arch, Recorder())
    tokens, features = music(2, 40)

    def step(model: Any, state: Any, t: int, count: int = 1) -> tuple[Tensor, Any]:
        return model(tokens[:, t : t + count], state, features[:, t : t + count])

    def run(model: Any) -> list[Tensor]:
        logits, state = step(model, None, 0, 4)
        found = [logits]
        for t in range(4, 9):
            logits, state = step(model, state, t)
            found.append(logits)
        branch = copy_state(state)
        for t in range(9, 15):
            logits, state = step(model, state, t)
            other, branch = step(model, branch, t + 10)
            found += logits, other
        logits, state = step(model, state, 15, 6)
        found.append(logits)
        branch = rows(branch, [1, 0])
        for t in range(21, 25):
            logits, state = step(model, state, t)
            found.append(logits)
        for t in range(21, 25):
            logits, branch = step(model, branch, t)
            found.append(logits)
        return found

    with torch.inference_mode():
        for ours, expected in zip(run(graphed), run(plain), strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_a_step_that_cannot_be_captured_is_computed_all_the_same(caplog):
    def refuse(run: Callable[[], Tensor]) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    plain, graphed = form("transformer"), form("transformer")
    step = graphed._step
    graphed._graphed = GraphedStep(lambda *given: step(*given)[0], refuse)
    tokens, features = music(1, 8)
    with torch.inference_mode():
        states = [m(tokens[:, :2], None, features[:, :2])[1] for m in (plain, graphed)]
        for t in range(2, 8):
            found = []
            for i, model in enumerate((plain, graphed)):
                logits, states[i] = model(tokens[:, t : t + 1], states[i], features[:, t : t + 1])
                found.append(logits)
            torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)
    assert [record.getMessage() for record in caplog.records] == [
        "decoding without a CUDA graph: operation not permitted when stream is capturing"
    ]


@pytest.mark.parametrize("arch", ARCHS)
def test_what_is_captured_neither_reads_a_number_nor_makes_shapes_of_the_position(arch: str):
    """On the meta device there are no numbers to read."""
    model = form(arch).whole.to("meta").for_generation("fp32")
    num_layers = len(model._steps)
    caches = tuple(torch.zeros(2, 2, CONTEXT, 8, device="meta") for _ in range(2 * num_layers))
    tokens, features = (t[:, :1].to("meta") for t in music(2, 1))
    position = torch.zeros(1, dtype=torch.int64, device="meta")
    more = (position,) if arch == "rotary" else ()
    with torch.inference_mode():
        hidden, after = model._step(tokens, features, caches, position, *more)
    assert hidden.shape == (2, 16)
    assert all(a is b for a, b in zip(after, caches, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_cuda_graph_is_replayed():
    x = torch.zeros(3, device="cuda")
    replay, y = capture(lambda: x * 2)
    x.fill_(4.0)
    replay()
    assert y.tolist() == [8.0, 8.0, 8.0]
