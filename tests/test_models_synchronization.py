"""A decoding step does not wait for the device, as far as a machine without a GPU can tell.

torch's meta device has shapes and no numbers. What reads a number of it fails, and what copies from the CPU to it is seen: on a
GPU the first waits for all that is computed there, the second does unless it is asked not to.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import islice
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from musiclm import models
from musiclm.generation import decode
from musiclm.generation.sampler import Sampler

META = torch.device("meta")
ATEN = torch.ops.aten
VOCAB = 20
WAITING = {"longformer"}  # its step reads which tokens are global
WAITING_FOR_THE_PROMPT = {"transformer_xl"}
ARCHS = [name for name in models.names() if models.kind_of(name) == models.CAUSAL]


@pytest.fixture(autouse=True)
def no_autocast(monkeypatch) -> None:
    """torch.autocast does not know the meta device; the models turn it off around their attention."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())


class Copies(TorchDispatchMode):
    """Counts copies from the CPU to the device that wait."""

    def __init__(self) -> None:
        super().__init__()
        self.num = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = dict(zip((each.name for each in func._schema.arguments), args, strict=False)) | (kwargs or {})
        if func.overloadpacket in (ATEN.to, ATEN._to_copy, ATEN.copy_):
            source = given["src"] if func.overloadpacket is ATEN.copy_ else given["self"]
            is_copy = source.device.type == "cpu" and result.device == META
            self.num += is_copy and not given.get("non_blocking")
        return result


@contextmanager
def waiting_copies(monkeypatch: pytest.MonkeyPatch) -> Iterator[Copies]:
    """Count copies that wait; `torch.tensor` of numbers on the device is one, and not seen as such on meta."""
    copies, make = Copies(), torch.tensor

    def tensor(data: Any, *args: Any, device: Any = None, **kwargs: Any) -> torch.Tensor:
        copies.num += device is not None and torch.device(device) == META
        return make(data, *args, device=device, **kwargs)

    with monkeypatch.context() as patch, copies:
        patch.setattr(torch, "tensor", tensor)
        yield copies


def form(arch: str, device: str | torch.device = META) -> Any:
    config = models.preset(arch, "tiny") | {"feature_sizes": (3,), "relative_pitch": ((4, 9, 0),)}
    torch.manual_seed(0)
    return models.create(arch, VOCAB, **config).to(device).eval().for_generation("fp32")


@pytest.mark.parametrize("arch", [name for name in ARCHS if name not in WAITING])
def test_a_step_of_a_model_neither_reads_from_the_device_nor_waits_for_a_copy(arch: str, monkeypatch):
    model = form(arch)
    with torch.inference_mode():
        tokens, features = (torch.zeros(s, dtype=torch.int64, device=META) for s in ((2, 3), (2, 3, 1)))
        if arch in WAITING_FOR_THE_PROMPT:
            _, (count, *kept) = form(arch, "cpu")(
                *(torch.zeros(2, 3, dtype=torch.int64), None, torch.zeros(2, 3, 1).long())
            )
            state = (count, *(t.to(META) for t in kept))
        else:
            _, state = model(tokens, None, features)
        _, state = model(tokens[:, :1], state, features[:, :1])  # tables that are made once are made
        with waiting_copies(monkeypatch) as copies:
            logits, _ = model(tokens[:, :1], state, features[:, :1])
    assert logits.shape == (2, 1, VOCAB) and logits.device == META
    assert copies.num == 0


@pytest.mark.parametrize("arch", ["rotary", "transformer"])
@pytest.mark.parametrize(
    "sampler", [Sampler(), Sampler(temperature=0.9, top_k=5, top_p=0.9, min_p=0.1), Sampler(temperature=0)]
)
def test_sampling_without_constraints_waits_once_in_many_tokens(arch: str, sampler: Sampler, monkeypatch):
    """The copy of random numbers, `AHEAD` steps at a time, is what is left."""
    monkeypatch.setattr(decode, "AHEAD", 3)
    model, num_features = form(arch), []

    def features(tokens: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        num_features.append(tokens.shape[1])
        return tokens.new_zeros(*tokens.shape, 1), state

    monkeypatch.setattr(decode, "_is_shared", lambda ids: False)  # reads the prompt's ids, once
    prompt = torch.zeros(2, 3, dtype=torch.int64, device=META)
    stream = decode.sample_ids(model, prompt, sampler, features=features)
    tokens = list(islice(stream, 2))
    with waiting_copies(monkeypatch) as copies:
        tokens += islice(stream, 2 * decode.AHEAD)
    assert all(each.shape == (2,) and each.device == META for each in tokens)
    assert copies.num == 2
    assert num_features == [3] + [1] * (len(tokens) - 1)


def test_the_counter_sees_what_waits(monkeypatch):
    x = torch.zeros(3, device=META)
    with waiting_copies(monkeypatch) as copies:
        torch.ones(3).to(META)
        torch.tensor([1.0], device=META)
        x.copy_(torch.ones(3))
        torch.ones(3).to(META, non_blocking=True)
        torch.ones(3, device=META) + x * 2
    assert copies.num == 3
    with pytest.raises((RuntimeError, NotImplementedError)):
        bool(x.any())
    with pytest.raises((RuntimeError, NotImplementedError)):
        x.cpu()


def test_numbers_that_are_drawn_ahead_are_those_drawn_one_by_one(monkeypatch):
    """So the same seed gives the same tokens on every device."""
    one_by_one = [x.clone() for x in islice(decode._uniforms(5, 3, torch.device("cpu")), 7)]
    generators = [decode.np.random.default_rng((5, index)) for index in range(3)]
    expected = [[[g.random()] for g in generators] for _ in range(7)]
    assert [x.tolist() for x in one_by_one] == expected
    moved = []
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device: moved.append(device) or self)
    ahead = list(islice(decode._uniforms(5, 3, torch.device("cuda")), 7))
    assert [x.tolist() for x in ahead] == expected
    assert moved == [torch.device("cuda")]
