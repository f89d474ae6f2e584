"""Training and evaluation on pairs: encoder-decoder and decoder-only models predict the same ids from the same music."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from musiclm import checkpoint, data, evaluation, midi, models, tokenizers
from musiclm.comparison import Comparison, ComparisonConfig
from musiclm.data.pair_crops import batch_of
from musiclm.errors import RunError, TokenizerError
from musiclm.training import setup
from musiclm.training.config import TrainConfig
from musiclm.training.optim import make_optimizers
from musiclm.training.run import Run
from tests.songs import song

PAIRS = tokenizers.create("score-pairs")
ARCHS = models.names(models.SEQ2SEQ)


@pytest.fixture(scope="module")
def corpus() -> data.Corpus:
    return data.bundled(PAIRS)


def config_of(**given) -> TrainConfig:
    fixed = {"preset": "tiny", "seed": 1, "steps": 6, "threads": 1, "window": 96, "precision": "fp32", "batch_size": 2}
    return TrainConfig(**fixed | given)


def model_of(arch: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return models.create(arch, PAIRS.vocab_size, **models.preset(arch, "tiny"), **PAIRS.model_config).eval()


def losses_of(folder: Path, config: TrainConfig, *parts: int) -> dict[int, float]:
    """Return the training loss of each step of a run that is stopped at each of these steps, and continued."""
    losses = {}
    for until in parts:
        run = Run.create(folder, config) if until == parts[0] else Run.open(folder)
        steps = run.train()
        for step, _ in steps:
            losses[step.number] = step.nats
            if step.number == until:
                steps.close()
        run.close()
    return losses


@pytest.mark.parametrize("arch", ARCHS)
def test_a_run_trains_validates_saves_and_resumes_exactly(arch: str, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(setup, "MAX_VALIDATION_TOKENS", 500)
    whole = losses_of(tmp_path / "whole", config_of(arch=arch), 6)
    assert losses_of(tmp_path / "parted", config_of(arch=arch), 3, 6) == whole and len(whole) == 6
    loaded = checkpoint.load(str(tmp_path / "whole"))
    assert loaded.arch == arch and loaded.tokenizer().name == "score-pairs"
    assert math.isfinite(loaded.card["figures"]["validation_nats_per_token"])


def test_encoder_and_decoder_without_pairs_are_refused():
    with pytest.raises(RunError, match="score-pairs"):
        setup.prepare(config_of(arch="seq2seq_gru", tokenizer="grid"))
    with pytest.raises(RunError, match="contiguous"):
        setup.prepare(config_of(arch="gru", tokenizer="score-pairs", crops="contiguous"))


def test_the_loss_of_windows_is_that_of_their_targets_by_hand(corpus: data.Corpus):
    piece = corpus.pieces("test")[0]
    (window, *_) = evaluation.paired_pieces(PAIRS, [piece])
    (pair,) = PAIRS.split(window.tokens)
    for arch in (*ARCHS, "gru"):
        model = model_of(arch)
        found = evaluation.measure_loss(model, PAIRS, [window])
        batch = batch_of([pair], PAIRS, joined=arch == "gru")
        with torch.no_grad():
            state = None if arch == "gru" else model.start(batch.source, batch.source_features, batch.source_mask)
            logits, _ = model(batch.tokens, state, batch.features)
        chosen = logits[0, -(len(pair.target) - 1) :].log_softmax(-1)
        nats = -chosen[torch.arange(len(chosen)), torch.from_numpy(pair.target[1:])].numpy()
        counted = PAIRS.eval_mask(window.tokens)[len(pair.source) + 1 :]
        assert found.nats == pytest.approx(float(nats[counted].sum()), rel=1e-5)
        assert found.num_tokens == counted.sum() and found.num_notes == PAIRS.num_notes(pair.target)


def test_windows_have_all_notes_of_all_targets_and_none_of_sources(corpus: data.Corpus):
    pieces = corpus.pieces("test")[:4]
    windows = evaluation.paired_pieces(PAIRS, pieces)
    wanted = sum(PAIRS.num_notes(pair.target) for piece in pieces for pair in PAIRS.split(piece.tokens))
    assert sum(window.num_notes for window in windows) == wanted > 100


def test_an_evaluation_of_unequal_windows_in_batches_is_that_of_each_alone(corpus: data.Corpus):
    windows = evaluation.paired_pieces(PAIRS, corpus.pieces("test")[:6])
    assert len({len(window.tokens) for window in windows}) > 1
    for arch in (*ARCHS, "gru"):
        model = model_of(arch)
        together = evaluation.measure_loss(model, PAIRS, windows)
        alone = [evaluation.measure_loss(model, PAIRS, [window]).nats for window in windows]
        assert together.nats == pytest.approx(float(np.sum(alone)), rel=1e-5)


def test_the_report_counts_targets(corpus: data.Corpus):
    model = model_of("seq2seq_gru")
    report = evaluation.report(model, corpus, "test", name="mine", most_tokens=3000)
    assert 4 < report["nats_per_token"] < 8 and report["num_notes"] > 0
    assert report["bits_per_note"] == pytest.approx(
        report["nats_per_token"] * report["num_tokens"] / math.log(2) / report["num_notes"]
    )
    assert report["baselines"]["uniform"] == pytest.approx(math.log(PAIRS.plain_size))


def test_the_report_counts_pieces_and_their_windows(corpus: data.Corpus):
    """num_pieces was the number of windows."""
    report = evaluation.report(model_of("gru"), corpus, "test", name="mine", most_tokens=20_000)
    pieces = evaluation.sample_pieces(corpus.pieces("test"), 20_000)
    assert report["num_pieces"] == len(pieces) < report["num_windows"]
    assert report["num_windows"] == len(evaluation.paired_pieces(PAIRS, pieces))
    grid = tokenizers.create("grid")
    chorales, model = data.bundled(grid), models.create("gru", grid.vocab_size, **grid.model_config).eval()
    assert "num_windows" not in evaluation.report(model, chorales, "test", name="", most_tokens=2000)


def test_a_whole_piece_of_several_pairs_is_no_window(corpus: data.Corpus):
    """Its first pair alone was measured, and the shapes of its losses did not fit."""
    one = corpus.pieces("test")[0]
    two = dataclasses.replace(one, tokens=np.tile(one.tokens, 2))
    with pytest.raises(TokenizerError, match=r"2 pairs of parts.*measured_pieces"):
        evaluation.measure_loss(model_of("gru"), PAIRS, [two])


def test_a_comparison_measures_pairs_as_an_evaluation_does(tmp_path: Path):
    """It measured whole pieces, and those of several pairs ended in an error of shapes."""
    for split, bars in (("train", 5), ("validation", 6), ("test", 7)):
        (tmp_path / "data" / split).mkdir(parents=True)
        midi.write(song([(4, 4)] * bars, tracks="melody chords drums"), tmp_path / "data" / split / "song.mid")
    asked = {"tokenizer": "score-pairs", "archs": ["gru"], "preset": "tiny", "steps": 1, "samples": 3, "bars": 2}
    request = ComparisonConfig(data=str(tmp_path / "data"), seed=1, precision="fp32", **asked)
    comparison = Comparison.create(tmp_path / "a", request)
    list(comparison.train("gru"))
    document = comparison.report()
    model = checkpoint.load(str(tmp_path / "a" / "gru")).model()
    source = data.open_source(str(tmp_path / "data"), PAIRS)
    wanted = evaluation.report(model, source, "test", name="")
    (made,) = document["models"]
    assert len(PAIRS.split(source.pieces("test")[0].tokens)) > 1
    assert made["test_nats_per_token"] == pytest.approx(wanted["nats_per_token"])
    assert made["bits_per_note"] == pytest.approx(wanted["bits_per_note"])
    assert document["test"]["num_notes"] == wanted["num_notes"] and document["test"]["num_pieces"] == 1


def test_words_and_switches_can_be_set():
    made = setup.prepare(config_of(arch="seq2seq_gru", config={"cell": "lstm", "attention": 0}))
    assert made.model.config.cell == "lstm" and made.model.config.attention is False
    with pytest.raises(RunError, match="cell is a word, not 3"):
        setup.prepare(config_of(arch="seq2seq_gru", config={"cell": 3}))
    with pytest.raises(RunError, match="cell must be one of"):
        setup.prepare(config_of(arch="seq2seq_gru", config={"cell": "qrnn"}))


def test_the_command_line_sets_words(run, tmp_path: Path):
    options = ["--preset", "tiny", "--steps", 1, "--seed", 1, "--window", 64, "--set", "cell=lstm", "-q", "-o"]
    code, _, told = run("train", "--arch", "seq2seq_gru", *options, tmp_path / "a")
    assert code == 0, told
    assert checkpoint.load(str(tmp_path / "a")).config["cell"] == "lstm"
    code, _, told = run("train", "--arch", "seq2seq_gru", "--preset", "tiny", "--set", "cell=l:s", "--steps", 1)
    assert code == 2 and "NAME=N" in told


def test_biases_of_attention_are_trained_without_muon_and_without_decay():
    """They are matrices by shape alone: decay pulled them from their first slopes to 0."""
    made = setup.prepare(config_of(arch="seq2seq_transformer"))
    adamw, muon = make_optimizers(made.model, made.recipe)
    biases = {id(table) for table in made.model.alignment.tables}
    assert len(biases) == 2
    assert not biases & {id(p) for group in muon.param_groups for p in group["params"]}
    decay = {id(p): group["weight_decay"] for group in adamw.param_groups for p in group["params"]}
    assert [decay[each] for each in biases] == [0.0, 0.0]


@pytest.mark.parametrize("value", [2, -1, 0.5, "no"])
def test_a_switch_is_0_or_1(value):
    """2 was taken for 1, and a word was said to be no number."""
    with pytest.raises(RunError, match=f"attention is 0 or 1, not {value}"):
        setup.prepare(config_of(arch="seq2seq_gru", config={"attention": value}))


@pytest.mark.parametrize(
    ("arch", "tokenizer", "command"),
    [
        ("gru", "score-pairs", "accompany song.mid"),
        ("seq2seq_gru", None, "accompany song.mid"),
        ("gru", "grid", "generate"),
    ],
)
def test_a_run_says_the_command_for_its_model(run, tmp_path: Path, monkeypatch, arch: str, tokenizer, command: str):
    """A language model of pairs was sent to generate, which refuses it: the architecture decided."""
    monkeypatch.setattr(setup, "MAX_VALIDATION_TOKENS", 500)
    options = ["--preset", "tiny", "--steps", 1, "--seed", 1, "--window", 64, "-o", tmp_path / "a"]
    options += ["--tokenizer", tokenizer] * bool(tokenizer)
    code, _, err = run("train", "--arch", arch, *options)
    assert code == 0 and f"Next: musiclm {command} --model " in err, err


def test_encoders_of_notes_are_no_architectures_to_train_on_tokens(run):
    """A run was begun, and ended with a traceback."""
    code, _, err = run("train", "--arch", "bidirectional_gru", "--steps", 1)
    assert code == 2 and "no architecture 'bidirectional_gru': one of absolute" in err
