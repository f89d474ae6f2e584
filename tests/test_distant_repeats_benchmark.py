"""benchmarks/efficient.py and its parts: matches that can be counted by hand, masks, buckets, and configurations."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest
import torch

from musiclm import models, tokenizers
from musiclm.data import bundled
from musiclm.errors import RunError
from musiclm.evaluation import measure_loss, token_losses
from musiclm.training import setup
from musiclm.training.run import Run

from .data_files import ROOT

sys.path.append(str(ROOT / "benchmarks"))
import distant_repeats
import efficient
import efficient_training


def all_symbols(tokens: np.ndarray) -> np.ndarray:
    return np.ones(len(tokens), bool)


def test_the_match_of_a_target_is_the_nearest_place_behind_the_same_tokens():
    #                  0  1  2  3  4  5  6  7  8  9 10 11
    tokens = np.array([1, 2, 3, 9, 1, 2, 3, 8, 7, 2, 3, 5])
    found = distant_repeats.match_distances(tokens, all_symbols(tokens), 2)
    # targets 1 … 11; behind "2 3" stand 9 (place 3), 8 (place 7) and 5 (place 11); behind "1 2" 3 (place 2) and 3 (place 6)
    assert found.tolist() == [0, 0, 0, 0, 0, 4, 4, 0, 0, 0, 4]
    longer = distant_repeats.match_distances(tokens, all_symbols(tokens), 3)
    assert longer.tolist() == [0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0]


def test_a_match_is_distant_only_if_there_is_none_nearer():
    block = list(range(100, 120))
    between = list(range(1000, 1040))
    tokens = np.array([*block, *between, *block, 1, *block])
    masks = distant_repeats.group_masks(distant_repeats.match_distances(tokens, all_symbols(tokens), 16), 30)
    assert set(np.flatnonzero(masks["distant"]) + 1) == set(range(60 + 16, 60 + 21))  # 60 tokens back: 20 + 40
    assert set(np.flatnonzero(masks["near"]) + 1) == set(range(81 + 16, 81 + 20))  # 21 back, and 81 back
    assert (masks["distant"].astype(int) + masks["near"] + masks["none"] == 1).all()
    at_the_edge = distant_repeats.group_masks(distant_repeats.match_distances(tokens, all_symbols(tokens), 16), 60)
    assert not at_the_edge["distant"].any()


def test_only_symbols_are_compared_and_distances_are_tokens():
    tokens = np.array([50, 1, 51, 2, 2, 52, 3, 50, 7, 7, 51, 8, 53])
    found = distant_repeats.match_distances(tokens, tokens >= 50, 2)  # symbols at 0, 2, 5, 7, 10, 12
    # "50 51" ends at 2 and at 10: targets 11 and 12 follow the second, 8 tokens later
    assert found.tolist() == [0] * 10 + [8, 8]


def test_symbols_of_a_tokenizer():
    performance = tokenizers.create("performance")
    onsets = distant_repeats.symbol_mask(performance, "pitches")
    assert onsets.sum() == 88
    assert distant_repeats.symbol_mask(performance, "tokens").sum() == performance.vocab_size - 3


@pytest.fixture(scope="module")
def small():
    corpus = bundled(tokenizers.create("grid"))
    tokenizer, pieces = corpus.tokenizer, sorted(corpus.pieces("validation"), key=lambda p: len(p.tokens))[:3]
    torch.manual_seed(0)
    sizes = models.preset("gru", "tiny") | tokenizer.model_config
    return models.create("gru", tokenizer.vocab_size, **sizes).eval(), tokenizer, pieces


def test_the_losses_of_groups_add_up_to_that_of_all_targets(small):
    model, tokenizer, pieces = small
    groups = distant_repeats.loss_by_group(model, tokenizer, pieces, compared="tokens", num_matched=4, back=16)
    whole = measure_loss(model, tokenizer, pieces)
    assert sum(each["num_targets"] for each in groups.values()) == whole.num_tokens
    total = sum(each["num_targets"] * (each["nats_per_token"] or 0) for each in groups.values())
    assert total == pytest.approx(whole.nats, rel=1e-6)
    assert all(each["num_targets"] > 0 for each in groups.values())


def test_buckets_of_positions_hold_the_targets_that_count(small):
    model, tokenizer, pieces = small
    reach = min(len(piece.tokens) for piece in pieces) - 1
    buckets = efficient.by_position(model, tokenizer, pieces, 100, reach)
    losses = {piece.name: nats for piece, nats in token_losses(model, tokenizer, pieces)}
    counted = [nats[100:200][tokenizer.eval_mask(p.tokens[101:201])] for p in pieces for nats in [losses[p.name]]]
    assert buckets[1]["num_targets"] == sum(map(len, counted))
    assert buckets[1]["nats_per_token"] == pytest.approx(np.concatenate(counted).mean())
    assert buckets[-1]["stop"] == reach


@pytest.mark.parametrize("context", [512, 1024, 2048, 4096])
@pytest.mark.parametrize("arch", models.names())
def test_a_context_goes_to_architectures_that_have_one_and_batches_keep_their_tokens(arch: str, context: int):
    training, preset = models.training(arch), models.preset(arch, "small")
    plan = efficient_training.config_of(arch, context=context, dropout=0.0, minutes=20.0)
    assert plan.window == context and plan.threads == 1 and plan.minutes == 20
    assert plan.context == (context if "context" in preset else None)
    assert plan.config == ({"memory": context} if "memory" in preset else {})
    default = training["batch_size"] * preset.get("context", training["window"])
    assert default == 2048
    assert plan.batch_size * plan.window == max(default, context)
    untouched = efficient_training.config_of(arch, minutes=10.0)
    assert (untouched.window, untouched.context, untouched.batch_size, untouched.dropout) == (None, None, None, None)


@pytest.mark.slow
def test_an_interrupted_run_continues_and_a_finished_one_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(setup, "MAX_VALIDATION_TOKENS", 500)
    pieces = {"validation": bundled(tokenizers.create("grid")).pieces("validation")}
    plan = efficient_training.config_of("gru", preset="tiny", steps=2)
    folder = tmp_path / "gru"
    first = efficient_training.measured(folder, plan, pieces, 500)
    assert first["steps"] == 2 and first["problem"] is None and first["cpu_seconds"] > 0
    monkeypatch.setattr(efficient_training, "trained", None)  # called again, it would fail
    assert efficient_training.measured(folder, plan, pieces, 500) == first
    monkeypatch.undo()
    monkeypatch.setattr(setup, "MAX_VALIDATION_TOKENS", 500)
    longer = efficient_training.measured(
        folder, efficient_training.config_of("gru", preset="tiny", steps=3), pieces, 500
    )
    assert longer["steps"] == 3 and longer["tokens"] > first["tokens"]


def test_the_plan_of_every_architecture_can_be_trained_and_says_what_a_token_attends_to():
    tokenizer = tokenizers.create("performance")
    found = {}
    for arch in models.names():
        plan = efficient_training.config_of(arch, context=1024, dropout=0.0, steps=1)
        config = setup._config(plan, None, tokenizer)
        fields = dataclasses.asdict(models._architecture(arch).Config(vocab_size=tokenizer.vocab_size, **config))
        row = efficient_training.described({"config": fields}, plan)
        found[arch] = row["attends_to"], row["crops"]
    assert found["rotary"] == ("context 1,024", "random")
    assert found["transformer_xl"] == ("memory 1,024", "contiguous")
    assert found["longformer"] == ("window 256, gaps to 4", "random")
    assert found["reformer"] == ("buckets 2 x 64", "random")
    assert found["linear"] == found["performer"] == ("all tokens", "random")
    assert found["lstm"] == ("recurrent state", "random")
    bars = efficient_training.attended({"window": 512, "dilations": (), "num_global": 64, "global_ids": (1,)})
    assert bars == "window 512, 64 global"


@pytest.fixture
def stored(tmp_path):
    """Return a run folder of two minutes of training, with the precision that was measured, and its plan."""
    plan = efficient_training.config_of("gru", context=64, dropout=0.0, data="/corpus", minutes=2.0)
    folder = tmp_path / "gru"
    run = Run.create(folder, dataclasses.replace(plan, precision="fp32", patient_from=7, command="another"))
    run.close()
    return folder, plan


@pytest.mark.parametrize(
    "change",
    [{"dropout": 0.1}, {"data": "/other"}, {"data": None}, {"minutes": 1.0}, {"minutes": None, "steps": 4}],
    ids=str,
)
def test_a_run_of_other_settings_or_of_a_larger_budget_is_refused(stored, change: dict):
    """The folder's name does not have them: a result was reported under settings it was not trained with."""
    folder, plan = stored
    with pytest.raises(RunError) as refused:
        efficient_training.measured(folder, dataclasses.replace(plan, **change), {}, None)
    assert "\n" not in str(refused.value) and f"trained with {next(iter(change))} " in str(refused.value)


def test_the_same_settings_and_a_larger_budget_are_not_refused(stored, tmp_path):
    folder, plan = stored
    efficient_training.check_stored(folder, plan)
    efficient_training.check_stored(folder, dataclasses.replace(plan, minutes=3.0))
    efficient_training.check_stored(tmp_path / "new", plan)


def test_the_benchmark_refuses_in_one_line_before_it_trains(stored, monkeypatch, tmp_path):
    folder, _ = stored
    (tmp_path / "chorales").mkdir()
    folder.rename(tmp_path / "chorales" / "gru-small-seed1")
    monkeypatch.setattr(efficient_training, "trained", None)  # called, it would fail
    options = ["--part", "chorales", "-o", str(tmp_path), "--archs", "rnn,gru", "--minutes", "5"]
    monkeypatch.setattr(sys, "argv", ["efficient.py", *options])
    with pytest.raises(SystemExit) as end:
        efficient.main()
    assert str(end.value.code).startswith("Error: ") and "was trained with" in end.value.code
