"""The contract of an architecture, held by each one and by the example in docs/contributing."""

from __future__ import annotations

import dataclasses
import json
import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, load_file
from torch import nn

from musiclm import checkpoint, evaluation, models, tokenizers
from musiclm.checkpoint.format import pack
from musiclm.data import open_source
from musiclm.errors import CheckpointError
from musiclm.models import base, weights
from musiclm.models.ensemble import Ensemble
from musiclm.training.config import TrainConfig
from musiclm.training.optim import Recipe, make_optimizers
from musiclm.training.run import Run
from tests.conftest import GRID, tiny
from tests.test_readme import example_of_an_architecture

EXAMPLE = "bigram"
ARCHS = [*models.names(), EXAMPLE]


@pytest.fixture(autouse=True)
def example(tmp_path: Path, monkeypatch) -> None:
    """The architecture of docs/contributing, in the folder of architectures."""
    (tmp_path / "architectures").mkdir()
    (tmp_path / "architectures" / f"{EXAMPLE}.py").write_text(example_of_an_architecture())
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path / "architectures")])


def of_grid(arch: str) -> base.LanguageModel:
    torch.manual_seed(0)
    return models.create(arch, GRID.vocab_size, **models.preset(arch, "tiny"), **GRID.model_config).eval()


def chorales_file(folder: Path) -> str:
    """Return the path of a small archive of chorales."""
    from tests.test_training_run import some_chorales

    return some_chorales(folder)


class Tied(base.LanguageModel):
    """A head that shares its matrix with the embedding."""

    def __init__(self, config: base.BaseConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, 8)
        self.head = nn.Linear(8, config.vocab_size, bias=False)
        self.head.weight = self.embedding.weight

    def encode(self, tokens, state=None, features=None):
        return self.embedding(tokens), ()


class Deep(Tied):
    """A head that is not linear in its parameters."""

    def __init__(self, config: base.BaseConfig) -> None:
        super().__init__(config)
        self.head = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, config.vocab_size))


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHS)
def test_the_recorded_loss_is_that_of_the_saved_weights(arch: str, tmp_path: Path):
    """The example's output layer was not scaled by the fitted temperature at which its loss was recorded."""
    data = chorales_file(tmp_path / "data")
    plan = TrainConfig(arch=arch, preset="tiny", data=data, steps=2, precision="fp32", device="cpu", tokenizer="grid")
    run = Run.create(tmp_path / "run", plan)
    (validation,) = [found for _, found in run.train() if found is not None]
    run.close()
    assert validation.temperature != 1
    kept = checkpoint.load(str(tmp_path / "run"))
    pieces = open_source(data, kept.tokenizer()).pieces("validation")
    found = evaluation.measure_loss(kept.model(), kept.tokenizer(), pieces)
    assert found.nats_per_token == pytest.approx(validation.validation_nats_per_token, abs=1e-5)
    assert kept.card["figures"]["validation_nats_per_token"] == validation.validation_nats_per_token


@pytest.mark.parametrize("arch", ARCHS)
def test_chunks_give_the_logits_of_one_forward_pass(arch: str):
    model, tokens = of_grid(arch), torch.randint(0, GRID.vocab_size, (2, 12))
    features = torch.zeros(2, 12, len(GRID.feature_sizes), dtype=torch.int64)
    with torch.no_grad():
        whole, _ = model(tokens, None, features)
        first, state = model(tokens[:, :5], None, features[:, :5])
        second, _ = model(tokens[:, 5:], state, features[:, 5:])
    torch.testing.assert_close(torch.cat([first, second], 1), whole, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("arch", ARCHS)
def test_logits_are_those_of_the_head_on_what_was_encoded(arch: str):
    model, tokens = of_grid(arch), torch.randint(0, GRID.vocab_size, (2, 6))
    features = torch.zeros(2, 6, len(GRID.feature_sizes), dtype=torch.int64)
    with torch.no_grad():
        hidden, _ = model.encode(tokens, None, features)
        assert torch.equal(model.logits(hidden, features), model(tokens, None, features)[0])
    assert model.token_embeddings().shape[0] == GRID.vocab_size


@pytest.mark.parametrize("arch", ARCHS)
def test_no_matrix_of_the_head_or_the_embedding_goes_to_muon(arch: str):
    model = of_grid(arch)
    optimizers = make_optimizers(model, Recipe(steps=1))
    given = [p for o in optimizers for group in o.param_groups for p in group["params"]]
    assert sorted(map(id, given)) == sorted(map(id, model.parameters()))
    of_muon = {id(p) for o in optimizers if isinstance(o, torch.optim.Muon) for p in o.param_groups[0]["params"]}
    assert not of_muon & {id(p) for end in (model.head, model.embedding) for p in end.parameters()}
    decayed = {id(p) for p in optimizers[0].param_groups[0]["params"]}
    assert id(model.head.weight) in decayed


@pytest.mark.parametrize("arch", ARCHS)
def test_a_larger_vocabulary_keeps_the_logits_of_the_old_ids(arch: str):
    config = models.preset(arch, "tiny")
    torch.manual_seed(0)
    old = models.create(arch, 20, **config, feature_sizes=(3,)).eval()
    new = models.create(arch, 25, **config, feature_sizes=(3, 4)).eval()
    new.load_state_dict(weights.resize_embeddings(old.state_dict(), new))
    tokens, features = torch.randint(0, 20, (2, 7)), torch.randint(0, 3, (2, 7, 2))
    with torch.no_grad():
        before, after = old(tokens, None, features[..., :1])[0], new(tokens, None, features)[0]
    torch.testing.assert_close(after[..., :20], before)
    assert after.shape[2] == 25 and after[..., 20:].abs().max() > 0


def test_weights_of_another_size_are_not_resized():
    old, new = tiny("gru", size=16), tiny("gru", size=24)
    with pytest.raises(CheckpointError, match="only the embedding and the head"):
        weights.resize_embeddings(old.state_dict(), new)


@pytest.mark.parametrize("kind", [Tied, Deep])
def test_a_head_of_any_kind_is_scaled_and_nothing_else(kind: type[base.LanguageModel], tmp_path: Path):
    torch.manual_seed(0)
    model = kind(base.BaseConfig(vocab_size=9))
    tokens = torch.arange(9)[None]
    scaled = weights.scale_logits(weights.scale_logits(model, 2.0), 1.5)
    torch.testing.assert_close(scaled(tokens)[0], model(tokens)[0] / 3)
    assert torch.equal(scaled.encode(tokens)[0], model.encode(tokens)[0])
    again = kind(base.BaseConfig(vocab_size=9))
    again.load_state_dict(load(pack({n: t.clone() for n, t in scaled.state_dict().items()}, {})))
    torch.testing.assert_close(again(tokens)[0], model(tokens)[0] / 3)


def test_a_model_with_shared_weights_is_saved_and_comes_back(tmp_path: Path, monkeypatch):
    import types

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(base.BaseConfig):
        pass

    monkeypatch.setattr(models, "_architecture", lambda _name: types.SimpleNamespace(Model=Tied, Config=Config))
    tokenizer = tokenizers.create("TSD")
    model = models.create("tied", tokenizer.vocab_size)
    checkpoint.save(tmp_path / "m.safetensors", model, arch="tied", tokenizer=tokenizer, card={})
    again = checkpoint.load(str(tmp_path / "m.safetensors")).model()
    tokens = torch.arange(9)[None]
    assert torch.equal(again(tokens)[0], model(tokens)[0])


def test_a_model_without_a_head_is_refused_when_it_is_made():
    class Headless(base.LanguageModel):
        def encode(self, tokens, state=None, features=None):
            return tokens[..., None].float(), ()

    with pytest.raises(TypeError, match="Headless has no head"):
        Headless(base.BaseConfig(vocab_size=9))


def test_an_architecture_without_a_head_is_refused_in_a_line(tmp_path: Path):
    code = (tmp_path / "architectures" / f"{EXAMPLE}.py").read_text()
    (tmp_path / "architectures" / "headless.py").write_text(code.replace("self.head =", "self.readout ="))
    with pytest.raises(ValueError, match=r"'headless': .* has no head"):
        models.create("headless", 9)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("arch", ["gru", "transformer", "transformer_xl"])
def test_the_form_for_generation_takes_any_head(arch: str, precision: str):
    model, tokens = tiny(arch), torch.randint(0, 40, (2, 10))
    for head in (nn.Linear(16, 40), nn.Linear(16, 40, bias=False), nn.Sequential(nn.Tanh(), nn.Linear(16, 40))):
        model.head = head
        model.check_contract()
        scaled = weights.scale_logits(model, 2.0)
        fast, state, found = scaled.for_generation(precision), None, []
        with torch.no_grad():
            for t in range(10):
                logits, state = fast(tokens[:, t : t + 1], state)
                found.append(logits)
            wanted = model(tokens)[0] / 2
        torch.testing.assert_close(torch.cat(found, 1), wanted, atol=1e-5 if precision == "fp32" else 0.1, rtol=0)


def members() -> list[base.LanguageModel]:
    return [tiny("lstm"), tiny("transformer"), tiny("gru")]


def test_an_ensemble_continues_a_state_that_it_has_not_made():
    """It kept the sizes of its members' states from its last call, so a first call with a state failed."""
    tokens = torch.randint(0, 40, (2, 9))
    with torch.no_grad():
        whole, _ = Ensemble(members())(tokens)
        _, state = Ensemble(members())(tokens[:, :4])
        rest, _ = Ensemble(members())(tokens[[1, 0], 4:], base.rows(state, [1, 0]))
    torch.testing.assert_close(rest, whole[[1, 0], 4:], atol=1e-5, rtol=1e-4)


def as_before(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return tensors by the names that they had when the head was called `readout`."""
    names = {
        n: re.sub(r"(^|\.)head\.(relative_pitch)?", lambda m: f"{m[1]}readout.{'steps' if m[2] else ''}", n)
        for n in tensors
    }
    assert any("readout.steps." in name for name in names.values())
    return {names[name]: tensor for name, tensor in tensors.items()}


def rewrite(path: Path, change: Callable[[dict[str, object]], None] | None = None) -> None:
    """Give a file of musiclm the names of before."""
    metadata, _ = checkpoint.read_header(path)
    metadata = {k: v for k, v in metadata.items() if k not in ("format", "sha256")}
    if "checkpoint" in metadata:
        stored = json.loads(metadata["checkpoint"])
        stored["config"]["references"] = stored["config"].pop("relative_pitch")
        metadata["checkpoint"] = json.dumps(stored)
    path.write_bytes(pack(as_before(load_file(path)), metadata))


def test_a_checkpoint_with_the_names_of_before_is_read(tmp_path: Path):
    path = tmp_path / "m.safetensors"
    model = of_grid("gru")
    assert model.config.relative_pitch
    checkpoint.save(path, model, arch="gru", tokenizer=GRID, card={})
    rewrite(path)
    again = checkpoint.load(str(path)).model()
    assert again.config == model.config
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())


@pytest.mark.slow
def test_a_run_with_the_names_of_before_is_resumed_bit_for_bit(tmp_path: Path):
    plan = TrainConfig(
        arch="gru", preset="tiny", data=chorales_file(tmp_path / "data"), steps=4, precision="fp32", device="cpu",
        tokenizer="grid",
    )  # fmt: skip
    hashes = []
    for name, stop in (("whole", None), ("cut", 2)):
        run = Run.create(tmp_path / name, dataclasses.replace(plan))
        steps = run.train()
        for step, _ in steps:
            if step.number == stop:
                break
        steps.close()
        run.close()
        if stop:
            rewrite(tmp_path / name / "resume.safetensors")
            run = Run.open(tmp_path / name)
            assert [step.number for step, _ in run.train()] == [3, 4]
            run.close()
        hashes.append(checkpoint.read_header(tmp_path / name / "last.safetensors")[0]["sha256"])
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize(
    ("arch", "field"), [("transformer", "context"), ("absolute", "context"), ("transformer_xl", "memory")]
)
def test_attention_is_recorded_in_one_thread_while_another_generates(arch: str, field: str):
    from musiclm.models.layers.attention_recording import record_attention

    model = tiny(arch, **{field: 64})
    tokens = torch.randint(0, 40, (1, 32))
    groups, queries = torch.eye(32), torch.arange(32)
    with torch.no_grad(), record_attention(groups, queries) as alone:
        model(tokens)
    assert len(alone.layers) == 2
    torch.testing.assert_close(alone.layers[0].sum(-1), torch.ones(1, 2, 32))  # each query's weights add up to 1
    begun, done, others = threading.Event(), threading.Event(), []

    def generate() -> None:
        with torch.no_grad():
            while not done.is_set():
                others.append(model(tokens[:, :7])[0])
                begun.set()

    thread = threading.Thread(target=generate)
    thread.start()
    try:
        with torch.no_grad(), record_attention(groups, queries) as recorder:
            begun.wait()
            num_before = len(others)
            model(tokens)
            while len(others) < num_before + 3:
                pass
    finally:
        done.set()
        thread.join()
    assert [layer.shape for layer in recorder.layers] == [layer.shape for layer in alone.layers]
    assert all(torch.equal(a, b) for a, b in zip(recorder.layers, alone.layers, strict=True))
    assert all(torch.equal(logits, others[0]) for logits in others)
    with torch.no_grad():
        model(tokens)
    assert len(recorder.layers) == 2  # nothing is recorded behind the block


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "layers"), [("gru", 3), ("transformer", 1)])
def test_layers_sets_the_depth_of_the_model(run, tmp_path: Path, arch: str, layers: int):
    data = chorales_file(tmp_path / "data")
    options = ["--preset", "tiny", "--steps", 1, "--device", "cpu", "--precision", "fp32", "-q"]
    code, _, told = run("train", data, "--arch", arch, "--layers", layers, *options, "-o", "deep")
    assert code == 0, told
    kept = checkpoint.load(str(tmp_path / "deep"))
    assert kept.config["num_layers"] == layers != models.preset(arch, "tiny")["num_layers"]
    assert json.loads((tmp_path / "deep" / "run.json").read_text())["config"] == {"num_layers": layers}
    assert run("train", "--resume", "deep", "--steps", 2, "-q")[0] == 0


def test_layers_of_a_model_without_layers_are_refused_and_nothing_is_left(run, tmp_path: Path):
    options = ["--preset", "tiny", "--steps", 1, "-q", "-o", "flat"]
    code, _, told = run("train", chorales_file(tmp_path / "data"), "--arch", EXAMPLE, "--layers", 2, *options)
    assert code == 1 and "no 'num_layers' to set" in told and told.count("\n") == 1
    assert not (tmp_path / "flat").exists()
    assert run("train", "--arch", "gru", "--layers", 2, "--set", "num_layers=3", *options)[0] == 2
    code, _, told = run("train", "--from", "bach-gru", "--layers", 2, "--steps", 1, "-q", "-o", "flat")
    assert code == 1 and "leave out --set and --layers" in told
