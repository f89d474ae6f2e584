"""Training: a resumed run equals an uninterrupted one; schedule, distillation, calibration, early stopping."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import math
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from musiclm import evaluation, models
from musiclm.errors import DivergedError
from musiclm.models import base, weights
from musiclm.models.ensemble import Ensemble
from musiclm.training.cadence import Cadence, EarlyStopping
from musiclm.training.checks import Measured, check_steps
from musiclm.training.language_model import train
from musiclm.training.loop import Step
from musiclm.training.optim import Recipe
from tests.conftest import GRID, tiny, windows


def test_the_rate_warms_up_and_falls_by_steps_and_by_the_clock():
    by_steps = Recipe(steps=1000, learning_rate=1.0, warmup_steps=10)
    assert by_steps.rate(0, 0) == pytest.approx(0.1)
    assert by_steps.rate(500, 0) == pytest.approx(0.525)
    assert by_steps.rate(1000, 0) == pytest.approx(0.05)
    by_clock = Recipe(seconds=60, learning_rate=1.0, warmup_steps=1)
    assert by_clock.rate(5, 30) == pytest.approx(0.525)
    assert by_clock.progress(5, 61) == 1
    with pytest.raises(ValueError, match="budget"):
        Recipe()


@pytest.mark.slow
@pytest.mark.parametrize("arch", models.names())
def test_training_lowers_the_loss(arch: str, chorales):
    made = windows(chorales.pieces("train")[:10])
    config = {**models.preset(arch, "tiny"), **GRID.model_config}
    model, average = (models.create(arch, GRID.vocab_size, **config) for _ in range(2))
    losses = [s.nats for s in train(model, made, Recipe(steps=30, learning_rate=0.01, warmup_steps=3), average=average)]
    assert len(losses) == 30
    assert np.mean(losses[-5:]) < 0.8 * losses[0]


def test_an_ensemble_predicts_the_mean_and_has_the_streaming_invariant(chorales):
    batch = windows(chorales.pieces("train")[:5])(0)
    members = [tiny(arch, GRID.vocab_size, **GRID.model_config) for arch in ("gru", "transformer", "lstm")]
    mean = Ensemble(members)
    with torch.no_grad():
        apart = [member(batch.tokens, None, batch.features)[0].softmax(-1) for member in members]
        whole, _ = mean(batch.tokens, None, batch.features)
        first, state = mean(batch.tokens[:, :30], None, batch.features[:, :30])
        second, _ = mean(batch.tokens[:, 30:], state, batch.features[:, 30:])
    torch.testing.assert_close(whole.exp(), sum(apart) / 3)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)


@pytest.mark.slow
def test_distillation_brings_a_model_closer_to_its_teacher(chorales):
    made = windows(chorales.pieces("train")[:10])
    teacher = tiny("gru", GRID.vocab_size, **GRID.model_config)  # of random weights, unlike the data
    config = {**models.preset("transformer", "tiny"), **GRID.model_config, "dropout": 0.0}
    model, average = (models.create("transformer", GRID.vocab_size, **config) for _ in range(2))

    def difference() -> float:
        batch = made(1000)
        with torch.no_grad():
            wanted = teacher(batch.tokens, None, batch.features)[0][batch.mask].softmax(-1)
            found = model(batch.tokens, None, batch.features)[0][batch.mask].log_softmax(-1)
        return float((wanted * (wanted.log() - found)).sum(-1).mean())

    before = difference()
    recipe = Recipe(steps=30, learning_rate=0.01, warmup_steps=3)
    steps = list(train(model, made, recipe, average=average, teacher=teacher, distillation_weight=1.0))
    assert difference() < 0.7 * before
    assert (
        steps[-1].nats > math.log(GRID.vocab_size) - 1
    )  # the reported loss is that of the data, not that of the teacher


def test_batches_may_come_in_order_instead_of_by_number(chorales):
    made = windows(chorales.pieces("train")[:10])
    recipe = Recipe(steps=4, warmup_steps=2)

    def trained(batches, start=None):
        model, average = (tiny("gru", GRID.vocab_size, **GRID.model_config) for _ in range(2))
        return [(s.nats, s.tokens, s.state()) for s in train(model, batches, recipe, average=average, start=start)]

    by_number = trained(made)
    assert len(by_number) == 4
    in_order = trained(made(number) for number in range(4))
    assert [each[:2] for each in in_order] == [each[:2] for each in by_number]
    assert len(trained(iter([made(0)]))) == 1  # the run ends with its batches
    model, average = (tiny("gru", GRID.vocab_size, **GRID.model_config) for _ in range(2))
    first = next(train(model, made, recipe, average=average)).state()
    rest = trained((made(number) for number in range(1, 4)), start=first)
    assert [each[:2] for each in rest] == [each[:2] for each in by_number[1:]]


def test_a_run_validates_twenty_times_by_steps_and_each_twenty_seconds_by_the_clock():
    def step(number: int, seconds: float, progress: float = 0.5) -> Step:
        return Step(
            number=number, nats=1.0, tokens=0, seconds=seconds, rate=0.1, progress=progress, model=None, state=None
        )

    by_steps = Cadence(Recipe(steps=1000), 0.0)
    assert [n for n in range(1, 1000) if by_steps.is_due(step(n, 0.0))] == list(range(50, 1000, 50))
    assert by_steps.is_due(step(1000, 0.0, progress=1.0))
    by_clock = Cadence(Recipe(seconds=600), 100.0)  # the run was resumed at 100 seconds
    assert not by_clock.is_due(step(50, 119.0))
    assert by_clock.is_due(step(51, 121.0))
    by_clock.done(step(51, 121.0), 5.0)  # a validation of 5 seconds: the next one 50 seconds later
    assert not by_clock.is_due(step(52, 175.0))
    assert by_clock.is_due(step(53, 176.0))


def test_early_stopping_counts_the_validations_after_the_best_and_after_a_new_budget():
    stopping = EarlyStopping()
    for number, nats in ((10, 3.0), (20, 2.0), (30, 2.0)):
        stopping.add(number, nats)
    assert (stopping.best, stopping.best_step) == (2.0, 20)
    assert stopping.is_over(1, since=0)
    assert not stopping.is_over(2, since=0)
    assert not stopping.is_over(1, since=30)
    assert not stopping.is_over(None, since=0)
    stopping.add(40, 2.5)
    assert stopping.is_over(2, since=0)
    assert stopping.is_over(1, since=30)


@pytest.mark.slow
@pytest.mark.parametrize("arch", models.names())
def test_a_resumed_run_gives_the_same_weights_bit_for_bit(arch: str, chorales):
    made = windows(chorales.pieces("train")[:10])
    recipe = Recipe(steps=8, warmup_steps=3)

    def fresh() -> list[base.LanguageModel]:
        config = {**GRID.model_config, "dropout": 0.3}
        return [tiny(arch, GRID.vocab_size, **config) for _ in range(2)]

    whole, whole_average = fresh()
    list(train(whole, made, recipe, average=whole_average))
    first, first_average = fresh()
    for step in train(first, made, recipe, average=first_average):
        if step.number == 3:
            state = step.state()
            state = dataclasses.replace(state, tensors={k: t.clone() for k, t in state.tensors.items()})
            break
    second, second_average = fresh()
    for model in (second, second_average):
        for parameter in model.parameters():
            parameter.data.zero_()
    list(train(second, made, recipe, average=second_average, start=state))
    for wanted, found in ((whole, second), (whole_average, second_average)):
        for name, tensor in wanted.state_dict().items():
            assert torch.equal(tensor, found.state_dict()[name]), name


def test_the_loss_is_the_sum_over_pieces_measured_alone(chorales):
    model = tiny("gru", GRID.vocab_size, **GRID.model_config)
    pieces = chorales.pieces("validation")[:5]
    total = 0.0
    for piece in pieces:
        ids = torch.from_numpy(piece.tokens)[None]
        with torch.no_grad():
            logits, _ = model(ids[:, :-1], None, GRID.features(ids[:, :-1])[0])
        nats = torch.nn.functional.cross_entropy(logits[0], ids[0, 1:], reduction="none")
        total += float(nats[:-1].sum())  # all but the token that ends the piece
    found = evaluation.measure_loss(model, GRID, pieces)
    assert found.num_tokens == sum(len(p.tokens) - 2 for p in pieces)
    assert found.nats == pytest.approx(total, rel=1e-5)
    assert found.bits_per_note == pytest.approx(total / math.log(2) / sum(p.num_notes for p in pieces), rel=1e-5)


@pytest.mark.parametrize("arch", models.names())
def test_an_overconfident_model_is_calibrated(arch: str, chorales):
    pieces = chorales.pieces("validation")[:3]
    model = weights.scale_logits(tiny(arch, GRID.vocab_size, **GRID.model_config), 0.2)  # overconfident and wrong
    temperature, found = evaluation.fit_temperature(model, GRID, pieces)
    assert temperature > 1
    assert found.nats < evaluation.measure_loss(model, GRID, pieces).nats
    mended = weights.scale_logits(model, temperature)
    again = evaluation.measure_loss(mended, GRID, pieces)
    assert (again.num_tokens, again.nats) == (found.num_tokens, pytest.approx(found.nats, rel=1e-5))


def test_extrapolated_weights_lie_on_the_line_from_start_to_end():
    start, end = tiny("gru"), tiny("gru")
    with torch.no_grad():
        for parameter in end.parameters():
            parameter.add_(torch.randn_like(parameter))
    for factor in (0.0, 1.0, 1.5):
        moved = weights.extrapolate(start, end, factor)
        for first, last, found in zip(start.parameters(), end.parameters(), moved.parameters(), strict=True):
            torch.testing.assert_close(found, first + factor * (last - first))


def test_the_repeat_baseline_is_the_published_share_of_repeated_cells(chorales):
    same, total = importlib.import_module("musiclm.evaluation.baselines")._repeats(GRID, chorales.pieces("all"))
    assert same / total == pytest.approx(0.778, abs=0.003)
    found = evaluation.baselines(chorales, "validation")
    assert found["uniform"] == pytest.approx(math.log(131))
    assert found["repeat"] == pytest.approx(1.5806, abs=1e-4)


def weighted_steps(*weights_of: float) -> Iterator[Step[torch.nn.Linear]]:
    """Return the steps of a run whose model, trained in place as the EMA weights are, has these weights one after another."""
    model = torch.nn.Linear(1, 1)
    for i, weight in enumerate(weights_of, 1):
        torch.nn.init.constant_(model.weight, weight)
        yield Step(
            number=i, nats=float(i), tokens=i, seconds=i / 2, rate=0.1, progress=i / len(weights_of), model=model,
            state=dict,
        )  # fmt: skip


UNTIMED = {"clock": time.monotonic, "seconds": None}


def of_weight(model: torch.nn.Linear) -> Measured:
    return Measured(loss=1.0, figure=0.5, merit=-abs(model.weight.item() - 3))


def test_checks_keep_the_weights_of_most_merit():
    found = list(check_steps(weighted_steps(9, 8, 4, 2, 7, 3.5, 0, 1), of_weight, 4, **UNTIMED))
    assert [(check.step, check.is_best) for check in found] == [(2, True), (4, True), (6, True), (8, False)]
    assert [check.best.weight.item() for check in found] == [8, 2, 3.5, 3.5]
    assert [check.loss for check in found] == [1.5, 3.5, 5.5, 7.5] and found[0].seconds == 1.0


def test_checks_that_take_long_are_rarer():
    now = (
        itertools.count()
    )  # a measurement takes one second, a fortieth of the budget: a sixth of what lies between two
    found = list(check_steps(weighted_steps(*range(20)), of_weight, 20, clock=lambda: next(now), seconds=40.0))
    assert [check.step for check in found] == [1, 5, 9, 13, 17, 20]


def test_checks_without_held_out_data_keep_the_last_weights():
    found = list(check_steps(weighted_steps(9, 8, 4), lambda _: None, 20, **UNTIMED))
    assert [(check.best.weight.item(), check.is_best, check.validation) for check in found][-1] == (4, True, None)


def test_a_held_out_loss_that_is_not_finite_is_a_divergence():
    with pytest.raises(DivergedError, match="the validation loss of step 2 "):
        list(check_steps(weighted_steps(1, 2), lambda _: Measured(loss=math.nan, figure=0.0, merit=0.0), 1, **UNTIMED))
