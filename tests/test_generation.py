"""The form of a model that generates: the streaming invariant and the samples of the whole model, with fewer bits."""

from __future__ import annotations

import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from musiclm import checkpoint, devices, evaluation, midi, models
from musiclm.data import bundled
from musiclm.generation import decode
from musiclm.generation.decode import sample_ids
from musiclm.generation.sampler import Sampler
from musiclm.models import base
from musiclm.models.layers import quantized
from tests.conftest import tiny

ARCHS = models.names()
EXAMPLES = Path(__file__).parents[1] / "examples"
FARTHEST = {"fp32": 1e-5, "fp16": 3e-3, "bf16": 0.05, "int8": 0.1}  # from logits that spread by 0.5 to 0.6
HERE = [p for p in FARTHEST if p in ("fp32", "bf16") or devices.has_fbgemm("cpu")]


@torch.no_grad()
def run_in_pieces(model: base.LanguageModel, tokens: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    state, logits = None, []
    for piece in tokens.split(lengths, 1):
        given, state = model(piece, state)
        logits.append(given)
    return torch.cat(logits, 1)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("precision", HERE)
@pytest.mark.parametrize("lengths", [[1] * 40, [5, *[1] * 8, 3, *[1] * 24], [38, 1, 1], [40]], ids=str)
def test_pieces_and_steps_give_the_logits_of_the_whole_past_the_context(arch: str, precision: str, lengths: list[int]):
    model = tiny(arch)
    tokens = torch.randint(0, 40, (3, 40))
    with torch.no_grad():
        whole, _ = model(tokens)
    found = run_in_pieces(model.for_generation(precision), tokens, lengths)
    torch.testing.assert_close(found, whole, atol=FARTHEST[precision], rtol=0)


@pytest.mark.parametrize("arch", ARCHS)
def test_a_state_of_shuffled_batch_elements_continues_as_those(arch: str):
    model = tiny(arch).for_generation(devices.resolve_precision("auto", "cpu"))
    tokens, order = torch.randint(0, 40, (4, 25)), [2, 0, 3, 3]
    whole = run_in_pieces(model, tokens[order], [1] * 25)
    with torch.no_grad():
        state = None
        for t in range(13):
            _, state = model(tokens[:, t : t + 1], state)
        state = base.rows(base.copy_state(state), order)
        for t in range(13, 25):
            logits, state = model(tokens[order, t : t + 1], state)
            torch.testing.assert_close(logits[:, 0], whole[:, t], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("arch", ARCHS)
def test_features_reach_a_step(arch: str):
    model = tiny(arch, feature_sizes=(3, 40), relative_pitch=((3, 39, 1),))
    tokens = torch.randint(0, 40, (2, 6))
    features = torch.stack([torch.randint(0, 3, (2, 6)), torch.randint(0, 40, (2, 6))], 2)
    form, state = model.for_generation("fp32"), None
    with torch.no_grad():
        whole, _ = model(tokens, None, features)
        for t in range(6):
            logits, state = form(tokens[:, t : t + 1], state, features[:, t : t + 1])
            torch.testing.assert_close(logits[:, 0], whole[:, t], atol=1e-5, rtol=1e-4)
        with pytest.raises(ValueError, match="2 features"):
            form(tokens[:, :1], state)


@pytest.mark.parametrize("arch", ARCHS)
def test_it_samples_what_the_whole_model_samples(arch: str):
    model, prompt = tiny(arch), torch.randint(0, 40, (2, 5))
    whole = torch.stack(list(islice(sample_ids(model, prompt), 30)), 1)
    assert torch.equal(torch.stack(list(islice(sample_ids(model.for_generation("fp32"), prompt), 30)), 1), whole)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("precision", HERE)
def test_the_same_seed_samples_the_same_and_batch_elements_are_independent(arch: str, precision: str):
    form, prompt = tiny(arch).for_generation(precision), torch.randint(0, 40, (3, 5))

    def sampled(given: torch.Tensor) -> torch.Tensor:
        return torch.stack(list(islice(sample_ids(form, given, Sampler(), seed=3), 30)), 1)

    together = sampled(prompt)
    assert torch.equal(sampled(prompt), together)
    other = prompt.clone()
    other[1:] = 7
    assert torch.equal(sampled(other)[0], together[0])


@pytest.mark.parametrize("arch", ARCHS)
def test_a_long_prompt_is_read_in_pieces_and_samples_the_same(arch: str, monkeypatch: pytest.MonkeyPatch):
    form, prompt = tiny(arch).for_generation("fp32"), torch.randint(0, 40, (2, 30))
    at_once = torch.stack(list(islice(sample_ids(form, prompt), 10)), 1)
    monkeypatch.setattr(decode, "CHUNK", 7)
    assert torch.equal(torch.stack(list(islice(sample_ids(form, prompt), 10)), 1), at_once)


def test_the_cache_has_a_bounded_size_however_long_the_music():
    for precision in HERE:
        model, state, sizes = tiny("transformer", context=8).for_generation(precision), None, []
        with torch.no_grad():
            for _ in range(100):
                _, state = model(torch.zeros(1, 1, dtype=torch.int64), state)
                sizes.append(sum(t.nbytes for t in state))
        assert max(sizes) == sizes[7], precision


@pytest.mark.skipif(not devices.has_fbgemm("cpu"), reason="needs an x86 CPU")
def test_batch_elements_in_int8_do_not_change_each_other_to_the_last_bit():
    """FBGEMM quantizes activations by the range of the whole batch; a large element made the others coarser."""
    torch.manual_seed(0)
    product, x = quantized.pack_linear(torch.randn(40, 16), torch.randn(40), "int8"), torch.randn(5, 16)
    louder = x.clone()
    louder[1:] *= 9
    assert torch.equal(product(louder)[0], product(x)[0])
    assert torch.equal(product(x[:2]), product(x)[:2])


@pytest.mark.parametrize("precision", HERE)
@pytest.mark.parametrize("num_read", [3, 7, 8, 9, 20])
def test_steps_continue_the_state_of_one_pass_and_one_pass_that_of_steps(precision: str, num_read: int):
    """Before the ring is full, when it just is, and after: what steps wrote is put back into chronological order."""
    model, tokens = tiny("transformer", context=8), torch.randint(0, 40, (2, 40))
    with torch.no_grad():
        whole, _ = model(tokens)
    found = run_in_pieces(model.for_generation(precision), tokens, [num_read, 1, 1, 1, 5, 1, 1, 29 - num_read, 1])
    torch.testing.assert_close(found, whole, atol=FARTHEST[precision], rtol=0)


@pytest.mark.parametrize("precision", HERE)
def test_generation_can_rewind_to_a_copied_state_of_steps(precision: str):
    form, tokens = tiny("transformer", context=8).for_generation(precision), torch.randint(0, 40, (2, 30))
    with torch.no_grad():
        for length in (5, 20):
            _, state = form(tokens[:, :length])
            kept = base.copy_state(state)
            there, _ = form(tokens[:, length : length + 1], state)
            again, _ = form(tokens[:, length : length + 1], kept)
            assert torch.equal(there, again)


@pytest.mark.parametrize("precision", HERE)
def test_room_in_the_ring_grows_with_the_music_up_to_the_context(precision: str):
    """Room for 300 tokens is allocated in three parts of 128; in each, attention is that of the whole model."""
    model = tiny("transformer", context=300)
    tokens = torch.randint(0, 40, (1, 330))
    with torch.no_grad():
        whole, _ = model(tokens)
    found = run_in_pieces(model.for_generation(precision), tokens, [100, *[1] * 230])
    torch.testing.assert_close(found, whole, atol=FARTHEST[precision], rtol=0)


def test_a_precision_that_is_not_there_is_refused_with_a_way_out(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match="one of auto, fp32, bf16, fp16, int8"):
        tiny("gru").for_generation("fp8")
    monkeypatch.setattr(devices, "has_fbgemm", lambda device: False)
    assert devices.resolve_precision("auto", "cpu") == "fp32"
    with pytest.raises(ValueError, match="fp32 works everywhere"):
        tiny("gru").for_generation("int8")


@pytest.mark.slow
def test_what_fewer_bits_cost_a_trained_model_is_less_than_a_hundredth_of_a_nat():
    """Of the 0.38 nats per grid cell of bach-transformer on validation; `benchmarks/precision.py` has all figures."""
    loaded = checkpoint.load("bach-transformer")
    tokenizer, model = loaded.tokenizer(), loaded.model()
    tokens = evaluation.sample_pieces(bundled(tokenizer).pieces("validation"), 1)[0].tokens[:400]
    ids = torch.from_numpy(tokens.astype("int64"))[None]
    features, _ = tokenizer.features(ids, None)
    found = {}
    for precision in HERE:
        form, state, nats = model.for_generation(precision), None, 0.0
        with torch.inference_mode():
            for t in range(len(tokens) - 1):
                logits, state = form(ids[:, t : t + 1], state, features[:, t : t + 1])
                nats -= float(logits[0, -1].log_softmax(0)[ids[0, t + 1]])
        found[precision] = nats / (len(tokens) - 1)
    for precision, farthest in {"fp16": 0.0005, "bf16": 0.01, "int8": 0.01}.items():
        if precision in found:
            assert abs(found[precision] - found["fp32"]) < farthest, precision


def some_music(loaded: checkpoint.Checkpoint, length: int) -> torch.Tensor:
    """Return the first ids, (1, T), of a chorale of the validation set, or of a song for models of other music."""
    tokenizer = loaded.tokenizer()
    if tokenizer.name.startswith("grid"):
        tokens = evaluation.sample_pieces(bundled(tokenizer).pieces("validation"), 1)[0].tokens
    else:
        tokens, _ = tokenizer.encode(midi.read(EXAMPLES / "lied.mid"))
    return torch.from_numpy(np.asarray(tokens[:length], dtype=np.int64))[None]


@pytest.mark.slow
@pytest.mark.parametrize("name", checkpoint.bundled())
def test_what_auto_takes_here_costs_a_bundled_model_less_than_a_thousandth_of_a_nat(name: str):
    """The loss token by token, as `generate` reads; without AVX-512 VNNI int8 cost `score` 0.062 nats/token.

    The KL divergence is the expected cost. The measured one also has the noise of so few tokens: two standard errors.
    `benchmarks/precision.py` measures more.
    """
    loaded = checkpoint.load(name)
    model, tokenizer = loaded.model(), loaded.tokenizer()
    if tokenizer.is_paired:
        source, ids = (
            torch.from_numpy(side[:200])[None] for side in tokenizer.split(some_music(loaded, 10**6)[0].numpy())[0]
        )
        model = model.conditioned(source, tokenizer.features(source)[0])
    else:
        ids = some_music(loaded, 200)
    features, _ = tokenizer.features(ids, None)
    form, state, found = model.for_generation("auto"), None, []
    with torch.inference_mode():
        whole = model(ids[:, :-1], None, features[:, :-1])[0][0].log_softmax(-1)
        for t in range(ids.shape[1] - 1):
            logits, state = form(ids[:, t : t + 1], state, features[:, t : t + 1])
            found.append(logits[0, -1].log_softmax(-1))
    stepwise = torch.stack(found)
    assert float((whole.exp() * (whole - stepwise)).sum(1).mean()) < 0.001
    cost = (whole - stepwise).gather(1, ids[0, 1:, None])
    assert abs(float(cost.mean())) < 0.001 + 2 * float(cost.std()) / len(cost) ** 0.5


@pytest.mark.parametrize("arch", ARCHS)
def test_a_model_on_the_meta_device_has_no_memory_and_the_usual_shapes(arch: str):
    with models.meta_init():
        empty = models.create(arch, 40)
    shapes = {name: (p.shape, p.is_meta) for name, p in empty.state_dict().items()}
    assert shapes == {name: (p.shape, True) for name, p in models.create(arch, 40).state_dict().items()}


@pytest.mark.parametrize("name", ["score", "bach-lstm"])
@pytest.mark.slow
def test_loading_a_model_does_not_import_torchs_compiler(name: str):
    """Initializing weights on the meta device, to be thrown away, made `generate` take a second longer."""
    code = f"import sys; from musiclm import checkpoint; checkpoint.load({name!r}).model()\n"
    code += "print('torch._dynamo' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
