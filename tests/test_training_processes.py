"""Two ranks: they compute what one process does, agree on what they begin, and end together."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from musiclm.cli import _ranks, _training

from musiclm import models, tokenizers
from musiclm.data.contiguous import ContiguousCrops
from musiclm.data.crops import IGNORE, Batch, RandomCrops
from musiclm.data.pair_crops import PairCrops
from musiclm.errors import DivergedError, RunError
from musiclm.training import language_model, ranks, resume
from musiclm.training.carry import CarriedState
from musiclm.training.config import TrainConfig
from musiclm.training.language_model import BatchLoss, Predicting, train
from musiclm.training.loop import TrainingState
from musiclm.training.optim import Recipe, make_adamw
from musiclm.training.ranks import ALONE, FailedElsewhere, Ranks
from musiclm.training.run import Run
from tests.conftest import GRID, tiny
from tests.data_files import piece
from tests.two_ranks import in_two

pytestmark = [
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),
    pytest.mark.skipif(sys.platform != "linux", reason="ranks are forked"),
]
CPU = torch.device("cpu")
PAIRS = tokenizers.create("score-pairs")


def gradient_of(ranks: Ranks, batch: Batch, num_parts: int = 1) -> torch.Tensor:
    """Return the gradient of the loss of a batch, of all parameters behind each other."""
    model = tiny("gru", GRID.vocab_size, **GRID.model_config).train()
    elements = ranks.elements(len(batch.tokens), num_parts)
    carried = CarriedState({}, CPU, elements, ranks)
    losses = BatchLoss(ranks.parallel(Predicting(model)), Recipe(steps=1), elements, carried, ranks, None, 0.0)
    for loss in losses(model, [batch.elements(slice(each.start, each.stop)) for each in elements], 0):
        loss.total.backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])


@pytest.mark.parametrize("num_parts", [1, 2])
def test_ranks_with_unequal_numbers_of_targets_have_the_gradient_of_the_whole_batch(num_parts, chorales, tmp_path):
    """AdamW hides a gradient of another size, and a mean of means would weigh targets by their neighbours."""
    batch = RandomCrops([p.tokens for p in chorales.pieces("train")[:6]], GRID, length=24, batch_size=4, seed=1)(0)
    batch.targets[0, 4:] = batch.targets[1, 9:] = batch.targets[3, 20:] = IGNORE
    whole = gradient_of(ALONE, batch)
    for found in in_two(lambda ranks: gradient_of(ranks, batch, num_parts).numpy(), tmp_path):
        assert torch.allclose(torch.from_numpy(found), whole, rtol=1e-4, atol=1e-6 * float(whole.abs().max()))


def losses_of(ranks: Ranks, accumulation: int, crops, *, arch: str = "gru", steps: int = 50, start=None, dropout=0.2):
    """Return the losses of some steps, and the state after the last one."""
    torch.manual_seed(0)
    model, average = (tiny(arch, GRID.vocab_size, dropout=dropout, **GRID.model_config) for _ in range(2))
    recipe = Recipe(steps=steps, warmup_steps=10, seed=3)
    taken = train(model, crops, recipe, average=average, start=start, accumulation=accumulation, ranks=ranks)
    losses, state = [], None
    for step in taken:
        losses.append(step.nats)
        state = step.state() if step.number == steps else None
    return losses, state


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "tolerance"), [("adamw", 1e-5), ("muon", 1e-3)])
def test_a_batch_of_64_has_the_same_losses_in_parts_and_by_ranks(optimizer, tolerance, chorales, tmp_path, monkeypatch):
    if optimizer == "adamw":
        monkeypatch.setattr(language_model, "make_optimizers", lambda model, recipe: [make_adamw(model, recipe)])
    crops = RandomCrops([p.tokens for p in chorales.pieces("train")[:20]], GRID, length=16, batch_size=64, seed=1)
    whole, _ = losses_of(ALONE, 1, crops)
    assert len(whole) == 50 and whole[-1] < whole[0]
    for accumulation in (2, 4):
        assert losses_of(ALONE, accumulation, crops)[0] == pytest.approx(whole, rel=tolerance)
    for accumulation in (1, 2):
        folder = tmp_path / str(accumulation)
        folder.mkdir()
        for found in in_two(lambda ranks, parts=accumulation: losses_of(ranks, parts, crops)[0], folder):
            assert found == pytest.approx(whole, rel=tolerance)


@pytest.mark.parametrize("arch", ["lstm", "transformer_xl"])
def test_a_carried_state_is_resumed_by_another_number_of_ranks(arch: str, chorales, tmp_path):
    def crops() -> ContiguousCrops:
        pieces = [p.tokens for p in chorales.pieces("train")[:6]]
        return ContiguousCrops(pieces, GRID, length=32, batch_size=4, seed=1)

    def half(ranks: Ranks) -> TrainingState:
        return losses_of(ranks, 1, crops(), arch=arch, steps=3)[1]

    whole = losses_of(ALONE, 1, crops(), arch=arch, steps=6)[0]
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    of_two, _ = in_two(half, folders[0])
    assert any(name.startswith("carried.") for name in of_two.tensors)
    rest = {"arch": arch, "steps": 6}
    alone, _ = losses_of(ALONE, 2, crops(), start=of_two, **rest)
    assert alone == pytest.approx(whole[3:], rel=3e-3)  # another schedule up to step 3, and Muon in bfloat16
    of_one = half(ALONE)
    both = in_two(lambda ranks: losses_of(ranks, 1, crops(), start=of_one, **rest)[0], folders[1])
    uncut, _ = losses_of(ALONE, 1, crops(), start=of_one, **rest)
    assert both[0] == pytest.approx(uncut, rel=3e-4) and both[1] == both[0]


@pytest.mark.parametrize("arch", models.names(models.SEQ2SEQ))
def test_pairs_in_parts_are_the_whole(arch: str):
    pieces = [PAIRS.encode(piece(seed))[0] for seed in range(3)]
    crops = PairCrops(pieces, PAIRS, length=64, batch_size=4, seed=1)
    found = []
    for accumulation in (1, 2, 4):
        torch.manual_seed(0)
        model, average = (tiny(arch, PAIRS.vocab_size, dropout=0.2, **PAIRS.model_config) for _ in range(2))
        recipe = Recipe(steps=4, warmup_steps=2, seed=3)
        found.append([s.nats for s in train(model, crops, recipe, average=average, accumulation=accumulation)])
    assert found[1] == pytest.approx(found[0], rel=3e-4)
    assert found[2] == pytest.approx(found[0], rel=3e-4)


def test_parts_are_cut_from_a_batch_that_is_made_once(chorales):
    made = RandomCrops([p.tokens for p in chorales.pieces("train")[:6]], GRID, length=24, batch_size=8, seed=1)
    calls = []

    def batches(number: int, elements: slice) -> Batch:
        calls.append(elements)
        return made(number, elements)

    parts = language_model._parts(batches, Ranks(rank=1, size=2).elements(8, 2), 5)
    assert calls == [slice(4, 8)]
    assert torch.equal(torch.cat([part.tokens for part in parts]), made(5).tokens[4:])


def test_without_dropout_no_generators_are_made(chorales, monkeypatch):
    def fails(*_):
        raise AssertionError("a generator for each element")

    crops = RandomCrops([p.tokens for p in chorales.pieces("train")[:6]], GRID, length=24, batch_size=2, seed=1)
    monkeypatch.setattr(language_model, "by_element", fails)
    assert len(losses_of(ALONE, 1, crops, steps=2, dropout=0.0)[0]) == 2
    with pytest.raises(AssertionError):
        losses_of(ALONE, 1, crops, steps=2)


def test_ranks_agree_and_one_of_them_has_the_error(tmp_path):
    def both(ranks: Ranks) -> list[str]:
        said = [str(ranks.agreed(lambda: ranks.rank + 5))]
        for failing in ([1], [0], [0, 1]):
            try:
                ranks.agreed(lambda failing=failing: 1 // (ranks.rank not in failing))
            except (ZeroDivisionError, FailedElsewhere) as error:
                said.append(type(error).__name__)
        return said

    assert in_two(both, tmp_path) == [
        ["5", "FailedElsewhere", "ZeroDivisionError", "ZeroDivisionError"],
        ["6", "ZeroDivisionError", "FailedElsewhere", "FailedElsewhere"],
    ]


def test_the_first_rank_has_written_its_files_before_the_others_begin(tmp_path):
    def both(ranks: Ranks) -> list[str]:
        seen = ranks.in_turns(lambda: [path.name for path in tmp_path.glob("of-*")])
        ranks.in_turns((tmp_path / f"of-{ranks.rank}").touch)
        return seen + ranks.in_turns(lambda: sorted(path.name for path in tmp_path.glob("of-*")))

    assert in_two(both, tmp_path) == [["of-0", "of-1"]] * 2

    def writes(ranks: Ranks) -> list[str]:
        def make() -> list[str]:
            found = [path.name for path in tmp_path.glob("by-*")]
            (tmp_path / f"by-{ranks.rank}").touch()
            return found

        return ranks.in_turns(make)

    (tmp_path / "connection").unlink(missing_ok=True)
    assert in_two(writes, tmp_path) == [[], ["by-0"]]


def test_ranks_that_would_resume_different_states_are_told(tmp_path):
    """A folder that is not shared has an older state on one machine: weights would be averaged that do not belong together."""
    for rank in range(2):
        Run.create(tmp_path / f"of-{rank}", TrainConfig(arch="gru", steps=3)).close()
        state = TrainingState(step=5 + rank, tokens=1, seconds=1.0, tensors={"weights.x": torch.ones(2)})
        resume.save(tmp_path / f"of-{rank}" / "resume.safetensors", state, 1.0, 1)

    def both(ranks: Ranks) -> int:
        return Run.open(tmp_path / f"of-{ranks.rank}", ranks)._load_state().step

    first, second = in_two(both, tmp_path)
    assert first.startswith("FailedElsewhere") and second.startswith("RunError") and "is not the same" in second
    second_state = tmp_path / "of-1" / "resume.safetensors"
    second_state.write_bytes((tmp_path / "of-0" / "resume.safetensors").read_bytes())
    (tmp_path / "connection").unlink(missing_ok=True)
    assert in_two(both, tmp_path) == [5, 5]


@pytest.mark.parametrize(
    ("text", "is_lost"),
    [
        ("[../gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]:4242", True),
        ("[1] NCCL: remote process exited or there was a network error, NCCL version 2.21", True),
        ("NCCL error in: NCCLUtils.cpp:93, invalid usage (run with NCCL_DEBUG=WARN for details)", False),
        ("[enforce fail at gloo/algorithm.cc:1] sizes differ", False),
        ("shape '[2, 3]' is invalid for input of size 5", False),
    ],
)
def test_what_tells_that_a_rank_is_lost(text: str, is_lost: bool):
    assert ranks.is_loss_of_a_rank(RuntimeError(text)) == is_lost


def test_the_loss_of_a_rank_names_its_cause_and_what_there_is_to_resume(tmp_path, monkeypatch):
    run = Run.create(tmp_path / "run", TrainConfig(arch="gru", steps=3), ranks=Ranks(size=2, is_joined=True))
    error = RuntimeError("Connection closed by peer [10.0.0.7]:99\nmore")
    monkeypatch.setattr(Run, "_train", lambda *_: (_ for _ in ()).throw(error))
    with pytest.raises(RunError, match=r"has ended \(Connection closed by peer \[10\.0\.0\.7\]:99\)$"):
        list(run.train())
    (tmp_path / "run" / "resume.safetensors").touch()
    with pytest.raises(RunError, match="--resume"):
        list(run.train())
    run.close()


def test_variables_that_torchrun_did_not_set_start_no_ranks(monkeypatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert ranks.join() is ALONE and _ranks.joined(None, "cpu") is ALONE


@pytest.mark.parametrize(("before", "kept"), [(1, True), (4, False)])
def test_threads_are_those_of_before_for_one_process_alone(before: int, kept: bool, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    Run.create(tmp_path / "run", TrainConfig(arch="gru", steps=3, threads=7, processes=before)).close()
    run = _ranks.opened(ALONE, lambda: Run.open(tmp_path / "run"))
    assert (run.plan.threads, run.plan.processes) == (7 if kept else 3, 1)
    run.close()


def test_who_says_what_is_wrong(capsys):
    other = Ranks(rank=1, size=2, is_joined=True)
    assert not _ranks.end_silently(ALONE, RunError("mine"))
    assert _ranks.end_silently(ALONE, FailedElsewhere("theirs"))
    assert _ranks.end_silently(other, FailedElsewhere("theirs"))
    assert _ranks.end_silently(other, DivergedError("the loss", 3))
    assert not capsys.readouterr().err
    assert _ranks.end_silently(other, RunError("no such folder here"))
    assert capsys.readouterr().err == "process 1: no such folder here\n"


def small_run(folder: Path, **given) -> Run:
    sizes = {"arch": "gru", "preset": "tiny", "window": 16, "batch_size": 2, "precision": "fp32", "seed": 1}
    return Run.create(folder, TrainConfig(**sizes | {"steps": 40} | given))


def test_a_stop_skips_the_validation_that_is_due_and_saves_the_step(tmp_path):
    """`torchrun` kills its processes half a minute after it passed a signal on: a validation may take longer."""
    asked = []

    def should_stop() -> bool:
        asked.append(1)
        return len(asked) >= 20  # behind step 10, after which a validation is due

    run = small_run(tmp_path / "run")
    last = [step.number for step, _ in run.train(should_stop=should_stop)][-1]
    run.close()
    assert (last, run.saved_step, run.stopped_because) == (10, 10, "interrupted")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    assert resume.load(tmp_path / "run" / "resume.safetensors")[0].step == 10


def test_joined_ranks_save_nothing_when_their_generator_is_closed(tmp_path):
    """The state is gathered from all of them, and the others may be within a step."""
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        run = small_run(tmp_path / "run")
        run.ranks = Ranks(is_joined=True)
        steps = run.train()
        next(steps)
        steps.close()
        run.close()
    finally:
        torch.distributed.destroy_process_group()
    assert run.saved_step is None and not (tmp_path / "run" / "resume.safetensors").exists()


def test_only_a_second_ctrl_c_stops_at_once(capfd):
    with _training.interrupts() as watching:
        watching.is_patient = True
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        assert watching.seen and watching.exit_code == 143
        os.kill(os.getpid(), signal.SIGINT)
        assert watching.exit_code == 130
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert capfd.readouterr().err.count("Stopping") == 2
    with _training.interrupts() as watching, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
