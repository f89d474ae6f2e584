"""Training on contiguous crops: the state is carried, reset at the beginnings of pieces, saved, and of use."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from musiclm import checkpoint, models, tokenizers
from musiclm.data.contiguous import ContiguousCrops
from musiclm.data.crops import IGNORE, Batch, RandomCrops
from musiclm.errors import RunError
from musiclm.models import base
from musiclm.tokenizers import grid
from musiclm.training.carry import CarriedState
from musiclm.training.config import TrainConfig
from musiclm.training.language_model import train
from musiclm.training.optim import Recipe
from musiclm.training.run import Run
from musiclm.training.setup import prepare, resolve_crops
from tests.conftest import GRID, tiny
from tests.test_training_run import some_chorales

PLAIN = copy.copy(tokenizers.create("grid", features=1))
PLAIN.feature_sizes, PLAIN.relative_pitch = (), ()
CARRYING = ["lstm", "transformer_xl"]


def fresh(arch: str, tokenizer: tokenizers.base.Tokenizer, **config: object) -> list[base.LanguageModel]:
    return [tiny(arch, tokenizer.vocab_size, **tokenizer.model_config, **config) for _ in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize(("stop", "bf16"), [(1, False), (4, True), (6, False)])
@pytest.mark.parametrize("arch", CARRYING)
def test_a_resumed_run_gives_the_same_weights_bit_for_bit(arch: str, stop: int, bf16: bool, chorales):
    whole_pieces = [p.tokens for p in chorales.pieces("train")[:6]]
    pieces = [np.append(p[: 1 + 4 * (20 + 8 * i)], GRID.eos) for i, p in enumerate(whole_pieces)]

    def crops() -> ContiguousCrops:
        return ContiguousCrops(pieces, GRID, length=32, batch_size=3, seed=1)

    recipe = Recipe(steps=9, warmup_steps=3, bf16=bf16)
    whole, whole_average = fresh(arch, GRID, dropout=0.3)
    states = {}
    for step in train(whole, crops(), recipe, average=whole_average):
        state = step.state()
        states[step.number] = dataclasses.replace(state, tensors={k: t.clone() for k, t in state.tensors.items()})
    batches = [crops()(number).begins for number in range(9)]
    assert batches[1:][stop - 1].sum() < 3  # at least one element continues the state that was saved
    resumed, resumed_average = fresh(arch, GRID, dropout=0.3)
    list(train(resumed, crops(), recipe, average=resumed_average, start=states[stop]))
    for wanted, found in ((whole, resumed), (whole_average, resumed_average)):
        for name, tensor in wanted.state_dict().items():
            assert torch.equal(tensor, found.state_dict()[name]), name
    without = {k: t for k, t in states[stop].tensors.items() if not k.startswith("carried.")}
    lost, lost_average = fresh(arch, GRID, dropout=0.3)
    list(train(lost, crops(), recipe, average=lost_average, start=dataclasses.replace(states[stop], tensors=without)))
    assert any(not torch.equal(t, lost.state_dict()[name]) for name, t in whole.state_dict().items())


@pytest.mark.parametrize("arch", [arch for arch in models.names() if models.starts_from_zeros(arch)])
def test_an_element_that_begins_a_piece_reads_it_as_from_no_state(arch: str):
    model, device = tiny(arch), torch.device("cpu")
    carried = CarriedState({}, device)
    tokens = torch.randint(0, 40, (3, 12))
    begins = [torch.tensor([True] * 3), torch.tensor([False, True, False])]
    found = []
    with torch.no_grad():
        for i, part in enumerate(tokens.split(6, 1)):
            batch = Batch(tokens=part, targets=part, features=None, begins=begins[i])
            logits, state = model(part, carried.before(batch))
            carried.keep(batch, state)
            found.append(logits)
        whole, _ = model(tokens)
        alone, _ = model(tokens[:, 6:])
    torch.testing.assert_close(found[1][[0, 2]], whole[[0, 2], 6:], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found[1][1], alone[1], atol=1e-5, rtol=1e-4)
    again = CarriedState(carried.tensors(), device)
    wanted, same = (c.before(dataclasses.replace(batch, begins=begins[1])) for c in (carried, again))
    assert all(torch.equal(a, b) for a, b in zip(wanted, same, strict=True))


def test_crops_by_themselves_carry_nothing():
    carried = CarriedState({}, torch.device("cpu"))
    tokens = torch.zeros(2, 3, dtype=torch.int64)
    batch = Batch(tokens=tokens, targets=tokens, features=None)
    carried.keep(batch, (torch.ones(2, 3),))
    assert carried.before(batch) is None and not carried.tensors()


@pytest.mark.parametrize("arch", CARRYING)
def test_no_gradient_crosses_from_a_crop_to_the_one_before(arch: str):
    """Truncated back-propagation: a graph that was kept would fail at the second backward pass."""
    model = tiny(arch)
    carried = CarriedState({}, torch.device("cpu"))
    for begin in (True, False, False):
        tokens = torch.randint(0, 40, (2, 5))
        batch = Batch(tokens=tokens, targets=tokens, features=None, begins=torch.tensor([begin, begin]))
        logits, state = model(tokens, carried.before(batch))
        carried.keep(batch, state)
        logits.sum().backward()
    assert not any(t.requires_grad for t in carried.tensors().values())


def recalling(number: int) -> np.ndarray:
    """Return a piece that repeats one of eight pitches every five tokens; the four between are always the same."""
    return np.array([grid.BOS, *10 * [40 + number % 8, 60, 61, 62, 63], grid.EOS])


@pytest.mark.slow
def test_a_carried_memory_learns_to_copy_from_further_back_than_a_crop():
    """No crop has the pitch and its repetition: it is a guess among eight, unless the memory has the crop before."""
    held_out = torch.from_numpy(np.stack([recalling(number) for number in range(8)]))
    found = {}
    for kind in (RandomCrops, ContiguousCrops):
        pieces = [recalling(number) for number in range(64)]
        crops = kind(pieces, PLAIN, length=4, batch_size=16, seed=1, transpose=range(1))
        torch.manual_seed(0)
        config = {"size": 32, "num_layers": 1, "num_heads": 2, "memory": 12, "dropout": 0.0}
        model, average = (models.create("transformer_xl", PLAIN.vocab_size, **config) for _ in range(2))
        list(train(model, crops, Recipe(steps=120, learning_rate=0.01, warmup_steps=10), average=average))
        with torch.no_grad():
            logits, _ = average.eval()(held_out[:, :-1])
        nats = torch.nn.functional.cross_entropy(logits.transpose(1, 2), held_out[:, 1:], reduction="none")
        found[kind] = float(nats[:, 5:50:5].mean())  # of the pitch from its second time on
    assert found[RandomCrops] > 2.0  # ln 8 is 2.08
    assert found[ContiguousCrops] < 1.0


def plan(arch: str, data: str, **options: object) -> TrainConfig:
    given = {"preset": "tiny", "tokenizer": "grid", "steps": 12, "seed": 3, "precision": "fp32", "device": "cpu"}
    return TrainConfig(arch=arch, data=data, **given | options)


@pytest.mark.slow
@pytest.mark.parametrize("arch", CARRYING)
def test_a_run_that_is_cut_at_any_step_continues_with_its_carried_state(arch: str, tmp_path: Path):
    data = some_chorales(tmp_path / "data", 8)
    made = plan(arch, data, crops="contiguous", window=64, batch_size=3)
    whole = Run.create(tmp_path / "whole", dataclasses.replace(made))
    list(whole.train())
    whole.close()
    run = Run.create(tmp_path / "cut", dataclasses.replace(made))
    for stop in (5, 7, None):
        steps = run.train()
        for step, _ in steps:
            if step.number == stop:
                break
        steps.close()
        run.close()
        if stop:
            run = Run.open(tmp_path / "cut")
            assert run.plan.crops == "contiguous"
    for name in ("best", "last"):
        hashes = [checkpoint.read_header(r.folder / f"{name}.safetensors")[0]["sha256"] for r in (whole, run)]
        assert hashes[0] == hashes[1], name
    names = checkpoint.read_header(tmp_path / "cut" / "resume.safetensors")[1]
    assert any(str(name).startswith("carried.") for name in names)


def test_the_default_is_that_of_the_architecture(tmp_path: Path):
    data = some_chorales(tmp_path / "data", 8)
    for arch, given, kind in (
        ("lstm", None, RandomCrops),
        ("lstm", "contiguous", ContiguousCrops),
        ("transformer", None, RandomCrops),
        ("transformer_xl", None, ContiguousCrops),
        ("transformer_xl", "random", RandomCrops),
    ):
        assert type(prepare(plan(arch, data, crops=given)).crops) is kind
    longer = prepare(plan("transformer_xl", data, config={"memory": 32}, window=64)).crops
    assert longer.length == 64  # a crop can be longer than the memory


def test_architectures_that_cannot_be_reset_and_teachers_are_refused():
    with pytest.raises(RunError, match=r"'absolute' cannot carry its state.*gru, lstm.*transformer_xl"):
        resolve_crops(TrainConfig(arch="absolute", crops="contiguous"))
    with pytest.raises(RunError, match="--crops random"):
        resolve_crops(TrainConfig(arch="transformer_xl", teachers=["bach"]))
    assert resolve_crops(TrainConfig(arch="transformer_xl", teachers=["bach"], crops="random")) == "random"


def test_the_command_takes_crops_and_refuses_what_cannot_be(run, tmp_path: Path):
    data = some_chorales(tmp_path / "data", 8)
    options = [data, "--tokenizer", "grid", "--preset", "tiny", "--precision", "fp32", "--steps", 3, "--seed", 1, "-q"]
    code, out, told = run("train", *options, "--arch", "lstm", "--crops", "contiguous", "-o", "a", "--json")
    assert code == 0, told
    assert json.loads(out)["steps"] == 3
    assert json.loads(Path("a/run.json").read_text())["crops"] == "contiguous"
    assert run("train", "--resume", "a", "--steps", 5, "-q")[0] == 0
    code, _, told = run("train", "--resume", "a", "--crops", "random", "--steps", 6)
    assert code == 2 and "leave out --crops" in told
    code, out, told = run("train", *options, "--arch", "lstm", "--crops", "sideways", "-o", "b")
    assert (code, out) == (2, "") and "'sideways' is not one of 'random', 'contiguous'" in told
    code, out, told = run("train", *options, "--arch", "transformer", "--crops", "contiguous", "-o", "b")
    assert (code, out) == (2, "")
    assert told.splitlines()[-1].startswith("Error: --crops contiguous: 'transformer' cannot carry its state")
    code, out, told = run("train", *options, "--arch", "transformer_xl", "--teacher", "bach", "-o", "b")
    assert (code, out) == (2, "") and "--teacher needs --crops random" in told
    assert not Path("b").exists()


def test_the_padding_behind_a_piece_is_no_target():
    made = ContiguousCrops([recalling(1)], PLAIN, length=40, batch_size=1, seed=1)
    first, second, third = made(0), made(1), made(2)
    assert [int(b.begins) for b in (first, second, third)] == [1, 0, 1]
    assert second.num_tokens == len(recalling(1)) - 1 - 40 and (second.targets[0, second.num_tokens :] == IGNORE).all()
