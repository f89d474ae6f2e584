"""Which number formats this CPU computes right, which of them is the fastest, and what happens where torch drops them.

Saturation is simulated, so these tests find it on every machine: FBGEMM adds pairs of 8-bit products in 16 bits on a CPU
without AVX-512 VNNI.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from musiclm import devices, models
from musiclm.models.layers import quantized
from tests.conftest import tiny

REAL = torch.ops.quantized


@pytest.fixture(autouse=True)
def fresh_choices() -> Iterator[None]:
    """Let each test check and measure anew, and leave nothing of a simulated CPU behind."""
    cached = [f for f in vars(devices).values() if hasattr(f, "cache_clear")]
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


class SimulatedFbgemm:
    """`torch.ops.quantized` of a CPU that adds products of 8 bits in pairs, as vpmaddubsw does.

    Args:
        bits: of the sums of pairs; 16 saturates, 32 never does.
        pairs: the order of the inputs, of each four; neighbours in it are added.
    """

    def __init__(self, bits: int, pairs: tuple[int, ...] = (0, 1, 2, 3)) -> None:
        self.limit = 2 ** (bits - 1)
        self.pairs = torch.tensor(pairs)

    def __getattr__(self, name: str) -> Any:
        return getattr(REAL, name)

    def linear_prepack(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return weight, bias

    def linear_unpack(self, packed: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor | None]:
        return packed

    def linear_prepack_fp16(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        return weight.half().float(), bias

    @property
    def linear_dynamic_fp16(self) -> SimpleNamespace:
        return SimpleNamespace(default=lambda x, packed: torch.nn.functional.linear(x, *packed))

    @property
    def linear_dynamic(self) -> SimpleNamespace:
        return SimpleNamespace(default=self.product)

    def product(self, x: Tensor, packed: tuple[Tensor, Tensor | None]) -> Tensor:
        """Return x weight^T + bias of unsigned activations and signed weights, both of 8 bits."""
        weight, bias = packed
        low, high = float(x.min().clamp_max(0)), float(x.max().clamp_min(0))
        step = max(high - low, 1e-12) / 255
        zero = round(-low / step)
        activations = (x / step).round().add(zero).clamp(0, 255).long()
        whole = weight.int_repr().long()
        products = activations[:, None] * whole
        products = torch.nn.functional.pad(products, (0, -products.shape[2] % 4)).unflatten(2, (-1, 4))
        sums = products[..., self.pairs].unflatten(3, (2, 2)).sum(4).clamp(-self.limit, self.limit - 1)
        y = (sums.sum((2, 3)) - zero * whole.sum(1)).double() * step * weight.q_per_channel_scales()
        return y.float() if bias is None else y.float() + bias


@pytest.fixture
def simulate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Any], None]:
    """Replace `torch.ops.quantized`, and say that this is an x86 CPU with FBGEMM, where nothing was measured before."""
    monkeypatch.setattr(devices, "choice_path", lambda candidates: tmp_path / "engines" / candidates[0])

    def replace(operators: Any) -> None:
        monkeypatch.setattr(torch.ops, "quantized", operators)
        monkeypatch.setattr(torch.backends, "quantized", SimpleNamespace(engine="x86", supported_engines=["fbgemm"]))
        monkeypatch.setattr(platform, "machine", lambda: "x86_64")

    return replace


def large_values() -> tuple[Tensor, Tensor, Tensor]:
    """Return activations of several rows, weights and exact products: large ones of one sign, then usual ones."""
    torch.manual_seed(3)
    x = torch.cat([torch.rand(2, 32) / 8 + 0.875, torch.randn(2, 32)])
    weight = torch.cat([torch.rand(4, 32) / 8 + 0.875, torch.randn(4, 32)])
    return x, weight, x @ weight.T


def farthest(product: Callable[[Tensor], Tensor], x: Tensor, exact: Tensor) -> float:
    """Return the largest error of a product, row by row and of all rows, relative to the largest output."""
    found = [product(x), torch.cat([product(row[None]) for row in x])]
    return max(float((each - exact).abs().max() / exact.abs().max()) for each in found)


def test_a_cpu_that_saturates_is_found_and_what_auto_takes_is_right(simulate: Callable[[Any], None]):
    """On such a CPU `score` lost 0.062 nats/token in int8, and 17 tests failed."""
    simulate(SimulatedFbgemm(16))
    x, weight, exact = large_values()
    packed = devices.pack_for_fbgemm("fbgemm-int8", weight, torch.zeros(8))
    assert farthest(lambda rows: devices.fbgemm_product("fbgemm-int8")(rows, packed), x, exact) > 0.2
    assert not devices.is_right("fbgemm-int8")
    assert devices.int8_engine() == "fbgemm-int8-pairs"
    assert devices.engine_label("int8", "cpu").startswith("fbgemm-int8-pairs/x86_64-")
    with pytest.raises(ValueError, match="no engine computes"):
        quantized.pack_linear(weight, torch.zeros(8), "fbgemm-int8")
    for precision in ("int8", "auto"):
        resolved = devices.resolve_precision(precision, "cpu")
        assert precision in ("auto", resolved)
        assert farthest(quantized.pack_linear(weight, torch.zeros(8), resolved), x, exact) < 0.02


@pytest.mark.parametrize("arch", models.names())
def test_a_model_on_a_cpu_that_saturates_keeps_its_logits(simulate: Callable[[Any], None], arch: str):
    simulate(SimulatedFbgemm(16))
    model, tokens, state, found = tiny(arch), torch.randint(0, 40, (2, 12)), None, []
    form = model.for_generation("int8")
    with torch.no_grad():
        for token in tokens.split(1, 1):
            logits, state = form(token, state)
            found.append(logits)
        whole, _ = model(tokens)
    torch.testing.assert_close(torch.cat(found, 1), whole, atol=0.08, rtol=0)


def test_a_cpu_that_adds_in_32_bits_takes_all_of_8_bits(simulate: Callable[[Any], None]):
    simulate(SimulatedFbgemm(32))
    assert devices.int8_engine() == "fbgemm-int8"
    x, weight, exact = large_values()
    assert farthest(quantized.pack_linear(weight, torch.zeros(8), "int8"), x, exact) < 0.02


@pytest.mark.parametrize("pairs", [(0, 2, 1, 3), (0, 3, 1, 2)], ids=str)
def test_a_cpu_that_pairs_other_inputs_gets_no_int8(simulate: Callable[[Any], None], caplog, pairs: tuple[int, ...]):
    """The scales keep pairs of neighbours within 16 bits: that they are the pairs is checked, too."""
    simulate(SimulatedFbgemm(16, pairs))
    assert devices.int8_engine() is None
    assert devices.resolve_precision("auto", "cpu") in ("fp16", "fp32")
    with caplog.at_level(logging.WARNING, "musiclm"):
        assert devices.resolve_precision("int8", "cpu") == "fp32"
    assert "wrong on this CPU" in caplog.text


def test_an_operator_that_refuses_this_cpu_is_not_taken(simulate: Callable[[Any], None]):
    class Refusing(SimulatedFbgemm):
        def linear_prepack(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
            raise RuntimeError("needs AVX2")

    simulate(Refusing(32))
    assert devices.int8_engine() is None
    assert devices.resolve_precision("auto", "cpu") in ("fp16", "fp32")


@pytest.mark.skipif(not devices.has_fbgemm("cpu"), reason="needs an x86 CPU")
def test_this_cpu_computes_right_what_auto_and_int8_take():
    x, weight, exact = large_values()
    for precision in ("auto", "int8", "fp16"):
        resolved = devices.resolve_precision(precision, "cpu")
        assert farthest(quantized.pack_linear(weight, torch.zeros(8), resolved), x, exact) < 0.02


@pytest.mark.parametrize("missing", devices.OPERATORS)
def test_a_torch_without_an_operator_falls_back_to_fp32_with_one_warning(
    simulate: Callable[[Any], None], caplog: pytest.LogCaptureFixture, missing: str
):
    """torch has deprecated them: a version to come has none."""
    simulate(SimpleNamespace(**{name: None for name in devices.OPERATORS if name != missing}))
    model, tokens, state = tiny("transformer"), torch.randint(0, 40, (2, 5)), None
    with torch.no_grad(), caplog.at_level(logging.WARNING, "musiclm"):
        whole, _ = model(tokens)
        for precision in ("int8", "fp16", "auto", "bf16"):
            resolved = devices.resolve_precision(precision, "cpu")
            assert resolved == ("bf16" if precision == "bf16" else "fp32")
            form, state = model.for_generation(precision), None
            for t in range(5):
                logits, state = form(tokens[:, t : t + 1], state)
                error = 0.05 if precision == "bf16" else 1e-5
                torch.testing.assert_close(logits[:, 0], whole[:, t], atol=error, rtol=0)
    assert [f"this torch has no {missing}; weights stay in fp32" in r.getMessage() for r in caplog.records] == [
        True
    ] * 3
    assert devices.engine_label("int8", "cpu").startswith("fp32/")


def test_a_torch_without_fbgemm_at_all_computes_in_fp32(simulate, monkeypatch: pytest.MonkeyPatch, caplog):
    simulate(SimpleNamespace())
    monkeypatch.setattr(torch.backends, "quantized", SimpleNamespace())
    monkeypatch.delattr(torch, "quantize_per_channel")
    with caplog.at_level(logging.WARNING, "musiclm"):
        assert devices.resolve_precision("auto", "cpu") == "fp32"
    assert "this torch has no fbgemm and 9 others of FBGEMM's operators; weights stay in fp32" in caplog.text


def test_a_cpu_that_is_not_x86_is_no_surprise(simulate, monkeypatch: pytest.MonkeyPatch, caplog):
    simulate(SimpleNamespace())
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    with caplog.at_level(logging.WARNING, "musiclm"):
        assert devices.resolve_precision("auto", "cpu") == "fp32"
        with pytest.raises(ValueError, match="needs an x86 CPU; fp32 works everywhere"):
            devices.resolve_precision("int8", "cpu")
    assert not caplog.records
    assert devices.precision_like("int8", "fbgemm-int8/x86_64-avx512", "cpu") == "fp32"


@pytest.mark.parametrize(
    ("microseconds", "engine"),
    [((100, 200, 300), "fbgemm-int8-pairs"), ((100, 90, 85), "fbgemm-int8-pairs"), ((100, 70, 65), "fbgemm-fp16")],
    ids=str,
)
def test_auto_takes_the_fastest_and_keeps_an_order_when_they_are_close(
    simulate, monkeypatch: pytest.MonkeyPatch, caplog, microseconds: tuple[int, ...], engine: str
):
    simulate(SimulatedFbgemm(16))
    monkeypatch.setattr(devices, "time_products", lambda names: dict(zip(names, microseconds, strict=True)))
    with caplog.at_level(logging.DEBUG, "musiclm"):
        assert devices.fastest_engine() == engine
    assert f"precision auto: {engine}" in caplog.text  # what -v shows


def test_what_auto_measured_holds_for_every_later_process(simulate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The same seed gave other bytes in another process, where the clock had chosen another engine."""
    simulate(SimulatedFbgemm(16))
    monkeypatch.setattr(devices, "time_products", lambda names: dict(zip(names, (100, 70, 65), strict=True)))
    assert devices.fastest_engine() == "fbgemm-fp16"
    devices.fastest_engine.cache_clear()  # another process, at a moment when the clock says something else
    monkeypatch.setattr(devices, "time_products", lambda names: dict(zip(names, (100, 200, 300), strict=True)))
    assert devices.fastest_engine() == "fbgemm-fp16"
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    monkeypatch.setattr(devices, "choice_path", lambda _: blocked / "engines" / "key")
    monkeypatch.setattr(devices, "time_products", lambda names: dict(zip(names, (100, 70, 65), strict=True)))
    devices.fastest_engine.cache_clear()
    assert devices.fastest_engine() == "fbgemm-int8-pairs"  # it cannot be stored: the order decides, not the clock


def test_pairs_of_quantized_weights_fit_into_16_bits_with_any_activations():
    torch.manual_seed(0)
    for weight in (torch.randn(50, 33), torch.ones(3, 8), -torch.ones(3, 7), torch.rand(9, 64), torch.zeros(2, 4)):
        scales = devices.weight_scales("fbgemm-int8-pairs", weight)
        steps = (weight.double() / scales[:, None]).round()
        assert int(steps.abs().max()) <= 127
        pairs = torch.nn.functional.pad(steps, (0, weight.shape[1] % 2)).unflatten(1, (-1, 2))
        assert 255 * float(pairs.clamp_min(0).sum(2).max()) < 2**15
        assert 255 * float(pairs.clamp_max(0).sum(2).min()) >= -(2**15)


@pytest.mark.skipif(not devices.has_fbgemm("cpu"), reason="needs an x86 CPU")
def test_packing_leaves_torchs_engine_and_random_numbers_as_they_were():
    engine, state = torch.backends.quantized.engine, torch.get_rng_state()
    devices.fastest_engine()
    with pytest.raises(RuntimeError), devices.using_fbgemm():
        assert torch.backends.quantized.engine == "fbgemm"
        raise RuntimeError
    assert torch.backends.quantized.engine == engine
    assert torch.equal(torch.get_rng_state(), state)


def test_an_engine_is_repeated_where_it_is_right_and_else_its_precision(simulate: Callable[[Any], None]):
    simulate(SimulatedFbgemm(16))
    for precision, label, like in (
        ("int8", "fbgemm-int8-pairs/x86_64-avx2", "fbgemm-int8-pairs"),
        ("int8", "fbgemm-int8/x86_64-avx512", "int8"),
        ("int8", "", "int8"),
        ("fp16", "fbgemm-fp16/x86_64-avx2", "fbgemm-fp16"),
        ("fp32", "", "fp32"),
        ("bf16", "", "bf16"),
        ("int8", "npu-int8/riscv", "int8"),
    ):
        assert devices.precision_like(precision, label, "cpu") == like
    assert devices.engine_label("fbgemm-int8-pairs", "cpu") == devices.engine_label("int8", "cpu")
