"""An encoder and decoder that starts from a language model: predictions, what is frozen, what its file leaves out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from musiclm import checkpoint, data, models, tokenizers
from musiclm.errors import CheckpointError, RunError
from musiclm.training import setup
from musiclm.training.config import TrainConfig
from musiclm.training.run import Run
from tests.test_training_pairs import losses_of
from tests.test_training_run import some_chorales

PAIRS = tokenizers.create("score-pairs")
SIZE = {"size": 32, "num_layers": 2, "num_heads": 2, "context": 64}
NAME = "small-transformer"


@pytest.fixture
def language_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an installed language model of the same tokens."""
    monkeypatch.setenv("MUSICLM_MODELS", str(tmp_path / "models"))
    (tmp_path / "models").mkdir()
    monkeypatch.setattr(setup, "MAX_VALIDATION_TOKENS", 300)
    monkeypatch.chdir(tmp_path)
    some_chorales(tmp_path / "data", 8)
    install(tmp_path, seed=0)
    return NAME


def install(folder: Path, seed: int) -> None:
    tokenizer = tokenizers.create("score-infill")
    torch.manual_seed(seed)
    model = models.create("transformer", tokenizer.vocab_size, **SIZE, **tokenizer.model_config)
    card = {"data": "none", "licence": "MIT"}
    path = folder / "models" / f"{NAME}.safetensors"
    checkpoint.save(path, model, arch="transformer", tokenizer=tokenizer, card=card, dtype=torch.float16)


def plan(**given) -> TrainConfig:
    fixed = {"arch": "seq2seq_transformer", "tokenizer": "score-pairs", "start_from": NAME, "seed": 1, "steps": 2}
    fixed |= {"data": str(Path("data").resolve()), "threads": 1}
    fixed |= {"window": 64, "precision": "fp32", "batch_size": 1, "dropout": 0.0}
    fixed |= {"config": {"num_encoder_layers": 1}, "learning_rate": 0.01}
    return TrainConfig(**fixed | given)


def trained(folder: Path, **given) -> checkpoint.Checkpoint:
    run = Run.create(folder, plan(**given))
    for _ in run.train():
        pass
    run.close()
    return checkpoint.load(str(folder / "last.safetensors"))


def test_it_begins_as_the_language_model_of_its_targets(language_model: str):
    model = setup.prepare(plan()).model.eval()
    pair = PAIRS.split(data.open_source("data", PAIRS).pieces("train")[0].tokens)[0]
    source, target = (torch.from_numpy(ids[:40])[None] for ids in pair)
    of_source, features = (PAIRS.features(ids)[0] for ids in (source, target))
    with torch.no_grad():
        state = model.start(source, of_source)
        logits, _ = model(target, state, features)
        alone, _ = checkpoint.load(language_model).model()(target, None, features[..., :-1])
    assert torch.allclose(logits, alone, atol=1e-5)
    assert alone.std() > 0.01


def test_a_frozen_decoder_keeps_its_weights_and_all_else_is_trained(language_model: str, tmp_path: Path):
    before = models.of_decoder("seq2seq_transformer", checkpoint.load(language_model).model().state_dict())
    after = trained(tmp_path / "run", frozen=True).model().state_dict()
    start = setup.prepare(plan(frozen=True)).model.state_dict()
    for name, tensor in after.items():
        is_kept = name in before and not name.startswith(("head.", "norm."))
        if name == "embedding.features.31.weight":  # of the number of the bar: new, and zero at first
            is_kept = False
        assert tensor.equal(start[name]) == is_kept, name


def test_without_frozen_the_decoder_is_trained_too(language_model: str, tmp_path: Path):
    found = trained(tmp_path / "run")
    before = models.of_decoder("seq2seq_transformer", checkpoint.load(language_model).model().state_dict())
    assert found.base is None
    assert not found.model().state_dict()["decoder.0.up.weight"].equal(before["decoder.0.up.weight"])


def test_the_file_of_a_frozen_decoder_leaves_out_what_the_language_model_has(language_model: str, tmp_path: Path):
    found = trained(tmp_path / "run", frozen=True)
    stored = checkpoint.read_header(found.path).shapes
    assert found.base is not None and found.base.name == language_model
    assert (
        "decoder.0.up.weight" not in stored
        and "decoder.0.cross.query.weight" in stored
        and "encoder.0.up.weight" in stored
    )
    assert found.num_parameters == found.model().num_parameters
    half = tmp_path / "half.safetensors"
    model = found.model()
    of_file = {"arch": found.arch, "tokenizer": found.tokenizer(), "card": found.card, "base": found.base}
    checkpoint.save(half, model, **of_file, dtype=torch.float16)
    again = checkpoint.load(str(half))
    assert half.stat().st_size < 0.6 * found.path.stat().st_size
    for name, tensor in again.model().state_dict().items():
        assert torch.allclose(tensor, model.state_dict()[name], rtol=1e-3, atol=1e-6), name


def test_a_file_without_its_base_says_what_it_needs(language_model: str, tmp_path: Path):
    path = str(trained(tmp_path / "run", frozen=True).path)
    install(tmp_path, seed=5)
    with pytest.raises(CheckpointError, match=f"other weights of '{NAME}'"):
        checkpoint.load(path)
    (tmp_path / "models" / f"{NAME}.safetensors").unlink()
    with pytest.raises(CheckpointError, match=f"needs the model '{NAME}'"):
        checkpoint.load(path)


def test_a_file_without_its_base_is_installed_where_the_base_is(language_model: str, run, tmp_path: Path):
    path = trained(tmp_path / "run", frozen=True).path
    assert run("models", "install", path, "--name", "mine")[0] == 0
    assert checkpoint.load("mine").model().num_parameters == checkpoint.load(str(path)).num_parameters
    install(tmp_path, seed=5)
    code, _, told = run("models", "install", path, "--name", "other")
    assert code == 1 and told.count("\n") == 1 and f"other weights of '{NAME}'" in told


def test_a_frozen_run_resumes_exactly(language_model: str, tmp_path: Path):
    whole = losses_of(tmp_path / "whole", plan(frozen=True, steps=4), 4)
    assert losses_of(tmp_path / "parted", plan(frozen=True, steps=4), 2, 4) == whole and len(whole) == 4


def test_sizes_of_the_language_model_are_fixed(language_model: str):
    with pytest.raises(RunError, match="fixed"):
        setup.prepare(plan(config={"size": 64}))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--frozen",), "seq2seq_transformer"),
        (("--frozen", "--from", "bach-transformer"), "seq2seq_transformer"),
        (("--from", "bach-gru", "--arch", "seq2seq_transformer"), "leave out --arch"),
        (("--from", "bach-transformer", "--arch", "seq2seq_transformer", "--preset", "tiny"), "leave out --arch"),
    ],
)
def test_impossible_starts_are_usage_errors(run, arguments: tuple[str, ...], named: str):
    code, _, told = run("train", "--steps", 1, *arguments)
    assert code == 2 and named in told


def test_a_language_model_of_other_tokens_is_refused(run, tmp_path: Path):
    data = some_chorales(tmp_path / "data", 4)
    options = [data, "--arch", "seq2seq_transformer", "--steps", 1, "-o", tmp_path / "run"]
    code, _, told = run("train", *options, "--from", "bach-transformer")
    assert code == 1 and "'bach-transformer' has tokens of 'grid', not of 'score-pairs'" in told
    assert not (tmp_path / "run").exists()
