"""A training run: a crash-safe, exactly resumable folder.

    run.json             the `TrainConfig`, written before torch is imported
    metrics.jsonl        one line per validation
    resume.safetensors   the training state: weights, EMA weights, state of the optimizers, carried state, counters
    best.safetensors     the checkpoint with the lowest validation loss (nats/token)
    last.safetensors     the checkpoint of the last validation
    tensorboard/         curves, if tensorboard is installed
    lock                 locked by the process that trains

`resume.safetensors` is the only authority: it is written whole, later lines of the metrics are removed on resume, and a
run without it starts again from its seed. With a budget in steps or epochs and the same number of threads, a run that
was killed and resumed has the weights of an uninterrupted one, bit for bit (CPU). Several processes may train a run, see
`ranks`: the first one writes. The folder must be one that all of them can read.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import shutil
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..devices import resolve_bf16, resolve_device
from ..errors import DivergedError, RunError
from ..files import lock, write_whole
from . import metrics
from .cadence import Cadence, EarlyStopping
from .config import TrainConfig, stored_config
from .messages import STATE, after_divergence, after_loss_of_a_rank, card
from .metrics import Validation
from .ranks import ALONE, Ranks, is_loss_of_a_rank
from .setup import TrainingSetup, prepare
from .tensorboard import FOLDER

if TYPE_CHECKING:
    from ..models.base import LanguageModel
    from .loop import Step, TrainingState

log = logging.getLogger(__name__)

DEFAULT_MINUTES = 10.0


class Run:
    """A run folder, locked by this process from `create` or `open` until `close`.

    Attributes:
        folder: the run folder.
        plan: the configuration, run.json.
        before: the validation loss of the checkpoint that the run starts from, nats/token; None without one, and on
            resume.
        last_validation: the last line of metrics.jsonl.
        saved_step: the step whose state was saved last; None if there is none.
        stopped_because: after the run: "budget", "validation" if it stopped early, or "interrupted".
        ranks: the processes that train the run.
    """

    def __init__(self, folder: Path, plan: TrainConfig, ranks: Ranks = ALONE) -> None:
        self.folder, self.plan, self.ranks = folder, plan, ranks
        self.last_validation: dict[str, Any] | None = None
        self.stopped_because = "budget"
        self.saved_step: int | None = None
        self.before: float | None = None
        self._stopping = EarlyStopping()
        self._made: list[Path] = []  # folders around the run's that were made for it, the inner ones first
        self._lock = lock(folder / "lock") if ranks.is_first else None
        if self._lock is None and ranks.is_first:
            raise RunError(f"another process trains the run '{folder}': wait for it, or choose another with -o")

    @property
    def best(self) -> float:
        """The lowest validation loss so far, nats/token."""
        return self._stopping.best

    @property
    def best_step(self) -> int:
        """The step of the lowest validation loss; 0 for the checkpoint that the run starts from."""
        return self._stopping.best_step

    @classmethod
    def create(cls, folder: Path, plan: TrainConfig, *, force: bool = False, ranks: Ranks = ALONE) -> Run:
        """Return a new run in a new folder.

        Raises:
            RunError: the folder exists already, or cannot be made.
        """
        if (folder / "run.json").exists() and not force:
            raise RunError(f"'{folder}' is a run already: 'musiclm train --resume {folder}' continues it")
        if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not force)):
            raise RunError(f"'{folder}' exists already: choose another place with -o")
        made = [parent for parent in folder.parents if not parent.exists()]
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"the folder '{folder}' cannot be made: {error.strerror}") from error
        run = cls(folder, plan, ranks)
        run._made = made
        for name in (STATE, "best.safetensors", "last.safetensors", metrics.FILE):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / FOLDER, ignore_errors=True)
        run.write_plan()
        return run

    @classmethod
    def open(cls, folder: Path, ranks: Ranks = ALONE) -> Run:
        """Return the run in a folder.

        Raises:
            RunError: there is no run, or another process trains it.
        """
        plan = stored_config(folder)
        if plan is None:
            raise RunError(f"no run in '{folder}': 'musiclm train -o {folder}' starts one")
        return cls(folder, plan, ranks)

    def lower(self, learning_rate: float) -> None:
        """Give the rest of the run another peak learning rate, for example because it diverged."""
        self.plan.learning_rate = learning_rate
        self.write_plan()

    def renew(self, *, minutes: float | None, steps: int | None, epochs: float | None) -> None:
        """Give the run a new total budget; early stopping counts validations from here on."""
        from ..checkpoint import read_header

        self.plan.minutes, self.plan.steps, self.plan.epochs = minutes, steps, epochs
        if (self.folder / STATE).exists():
            metadata, _ = read_header(self.folder / STATE)
            self.plan.patient_from = json.loads(metadata["run"])["step"]
        self.write_plan()

    @property
    def is_stale(self) -> bool:
        """Whether early stopping applies: the last `patience` validations did not improve on the best."""
        return self._stopping.is_over(self.plan.patience, since=self.plan.patient_from)

    def write_plan(self) -> None:
        """Write run.json."""
        if not self.ranks.is_first:
            return
        write_whole(self.folder / "run.json", (json.dumps(dataclasses.asdict(self.plan), indent=1) + "\n").encode())

    def close(self) -> None:
        """Release the lock of the run."""
        if self._lock is not None:
            self._lock.release()

    def discard(self) -> None:
        """Remove the folder, and those that were made around it, if nothing but run.json was written."""
        if not self.ranks.is_first:
            return
        if {p.name for p in self.folder.iterdir()} <= {"run.json", "lock", FOLDER}:
            self.close()
            shutil.rmtree(self.folder / FOLDER, ignore_errors=True)
            for path in self.folder.iterdir():
                path.unlink()
            self.folder.rmdir()
            for parent in self._made:
                if any(parent.iterdir()):
                    break
                parent.rmdir()

    def train(
        self, clock: Callable[[], float] = time.monotonic, should_stop: Callable[[], bool] = bool
    ) -> Generator[tuple[Step[LanguageModel], Validation | None], None, None]:
        """Yield each step, with a `Validation` where the run was validated and saved.

        The step that uses up the budget always is.

        Closing the generator saves the step that was yielded last, as `should_stop` does, unless several processes train the
        run: they may have yielded different steps. An exception within a step or its validation leaves the last save as it
        is: the weights may be half updated, or the validation may be missing.

        Args:
            clock: what a budget in minutes counts, see `loop.fit`.
            should_stop: asked before each step; if it is true in one process, the run ends in all of them.

        Raises:
            DivergedError: a loss, a gradient or a weight was not finite; the message names the checkpoint that is kept.
            RunError: another process of the run has ended, or continues another state.
            FailedElsewhere: another process of the run could not begin it.
        """
        try:
            yield from self._train(clock, should_stop)
        except DivergedError as error:
            advice = after_divergence(self.folder, self.plan, self.best, self.best_step)
            raise DivergedError(error.what, error.step, advice) from error
        except RuntimeError as error:
            if self.ranks.is_joined and is_loss_of_a_rank(error):
                raise RunError(after_loss_of_a_rank(self.folder, error)) from error
            raise

    def _train(
        self, clock: Callable[[], float], should_stop: Callable[[], bool]
    ) -> Generator[tuple[Step[LanguageModel], Validation | None], None, None]:
        import torch

        from .language_model import train

        torch.set_num_threads(self.plan.threads)
        self._resolve_precision()
        setup = self.ranks.in_turns(self._prepare)
        state = self._start(setup)
        self.stopped_because = "validation" if self.is_stale else "budget"
        if self.is_stale:
            return
        steps = train(
            setup.model,
            setup.crops,
            setup.recipe,
            average=setup.average,
            start=state,
            teacher=setup.teacher,
            clock=clock,
            should_stop=should_stop,
            accumulation=self.plan.accumulation,
            ranks=self.ranks,
        )
        yield from self._validated(setup, steps, state, clock)
        if self.stopped_because == "budget" and any(self.ranks.total([float(should_stop())])):
            self.stopped_because = "interrupted"

    def _prepare(self) -> TrainingSetup:
        setup = prepare(self.plan)
        if self.ranks.is_joined or self.plan.accumulation > 1:
            self.ranks.elements(setup.crops.batch_size, self.plan.accumulation)  # raises if that cannot be
        return setup

    def _validated(
        self,
        setup: TrainingSetup,
        steps: Iterable[Step[LanguageModel]],
        start: TrainingState | None,
        clock: Callable[[], float],
    ) -> Generator[tuple[Step[LanguageModel], Validation | None], None, None]:
        """Yield each step with its validation, if one is due, and save the run; see `train`."""
        from .tensorboard import TensorBoard

        cadence = Cadence(setup.recipe, start.seconds if start else 0.0)
        curves = TensorBoard(self.folder, start.step if start else 0) if self.ranks.is_first else None
        losses: list[float] = []  # since the last validation
        unsaved: Step[LanguageModel] | None = None  # a step that is complete, its validation included, but not saved
        try:
            for step in steps:
                losses.append(step.nats)
                validation = None
                if cadence.is_due(step):
                    began = clock()
                    validation = self._validate(setup, step, losses)
                    cadence.done(step, self.ranks.of_first(clock() - began))
                    self._save(setup, step, validation)
                    losses.clear()
                if curves is not None:
                    curves.add(step, None if validation is None else validation.validation_nats_per_token)
                unsaved = step if validation is None else None
                try:
                    yield step, validation
                except GeneratorExit:
                    if unsaved is not None and not self.ranks.is_joined:
                        self._save_state(unsaved)
                    raise
                if validation is not None and self.is_stale:
                    self.stopped_because = "validation"
                    return
            if unsaved is not None:
                self._save_state(unsaved)
        finally:
            if curves is not None:
                curves.close()

    def _resolve_precision(self) -> None:
        """Keep the precision that is faster on the first process's device, unless one was chosen."""
        if self.plan.precision is None:
            bf16 = self.ranks.agreed(lambda: resolve_bf16(None, resolve_device(self.plan.device)))
            self.plan.precision = self.ranks.of_first("bf16" if bf16 else "fp32")
            self.write_plan()

    def _start(self, setup: TrainingSetup) -> TrainingState | None:
        """Return the state to resume from; None for a new run, whose starting checkpoint is then kept as the best.

        Raises:
            RunError: the saved state is damaged, or has other shapes than the model of this version; or processes have
                different ones.
            FailedElsewhere: see `Ranks.agreed`.
        """
        from .resume import check_shapes

        state = self._load_state()
        if state is None:
            if self.plan.start_from is not None:
                self._keep_start(setup)
            return None
        self.saved_step = state.step
        self.ranks.agreed(lambda: check_shapes(state, setup.model, self.folder, setup.tokenizer.name))
        return state

    def _validate(self, setup: TrainingSetup, step: Step[LanguageModel], losses: Sequence[float]) -> Validation:
        """Return the validation of the EMA weights after a step, with the temperature that suits them best."""
        from ..evaluation import fit_temperature

        temperature, found = fit_temperature(
            setup.average,
            setup.tokenizer,
            setup.validation,
            bf16=setup.recipe.bf16,
            share=slice(self.ranks.rank, None, self.ranks.size),
            total=self.ranks.total,
        )
        if not math.isfinite(found.nats_per_token):
            raise DivergedError("the validation loss", step.number)
        return Validation(
            step=step.number,
            tokens=step.tokens,
            seconds=round(step.seconds, 3),
            train_nats_per_token=sum(losses) / len(losses),
            validation_nats_per_token=found.nats_per_token,
            temperature=temperature,
            learning_rate=step.rate,
            is_best=self._stopping.improves(found.nats_per_token),
        )

    def _save(self, setup: TrainingSetup, step: Step[LanguageModel], validation: Validation) -> None:
        """Write the checkpoint of a validation, calibrated, then the metrics, then the state to resume from."""
        from ..models.weights import scale_logits
        from .loop import are_finite

        if not are_finite(setup.average.parameters()):  # without validation pieces the loss is 0 whatever they are
            raise DivergedError("a weight", step.number)
        nats, temperature = validation.validation_nats_per_token, validation.temperature
        calibrated = scale_logits(setup.average, temperature)
        words = card(self.plan, setup, nats, step, temperature)
        self._stopping.add(step.number, nats)
        if validation.is_best:
            self._save_checkpoint("best", setup, calibrated, words)
        self._save_checkpoint("last", setup, calibrated, words)
        self._append(validation)
        self._save_state(step)

    def _keep_start(self, setup: TrainingSetup) -> None:
        """Keep the checkpoint that the run starts from as the best so far: training must improve on it."""
        from ..evaluation import measure_loss

        setup.model.eval()
        found = measure_loss(setup.model, setup.tokenizer, setup.validation, bf16=setup.recipe.bf16)
        nats = self.ranks.of_first(found.nats_per_token)
        if not math.isfinite(nats):
            raise RunError(f"the loss of the model '{setup.started.name}' is not finite: start from another one")
        self.before = nats
        self._stopping = EarlyStopping(best=nats)
        self._save_checkpoint("best", setup, setup.model, card(self.plan, setup, nats))

    def _save_checkpoint(self, name: str, setup: TrainingSetup, model: LanguageModel, card: dict[str, Any]) -> None:
        from ..checkpoint import save

        if not self.ranks.is_first:
            return
        path = self.folder / f"{name}.safetensors"
        save(path, model, arch=self.plan.arch, tokenizer=setup.tokenizer, card=card, base=setup.base)

    def _append(self, validation: Validation) -> None:
        self.last_validation = dataclasses.asdict(validation)
        if self.ranks.is_first:
            metrics.append(self.folder / metrics.FILE, validation)

    def _save_state(self, step: Step[LanguageModel]) -> None:
        from .resume import save

        state = step.state()  # of all processes
        if self.ranks.is_first:
            save(self.folder / STATE, state, self.best, self.best_step)
        self.saved_step = step.number

    def _load_state(self) -> TrainingState | None:
        """Return the state that was saved last, and remove later lines of metrics.jsonl; None if there is none."""
        from .resume import digest, load

        path, lines = self.folder / STATE, self.folder / metrics.FILE
        if self.ranks.is_joined:
            self.ranks.require_same(
                self.ranks.agreed(lambda: digest(path)),
                f"'{path}' is not the same for all processes of the run: it must be in a folder that all of them can read",
            )
        if not path.exists():
            if self.ranks.is_first:
                lines.unlink(missing_ok=True)
            return None
        state, best, best_step = self.ranks.agreed(lambda: load(path))
        kept = self.ranks.of_first(metrics.until(lines, state.step) if self.ranks.is_first else [])
        if self.ranks.is_first:
            write_whole(lines, "".join(line + "\n" for line in kept).encode())
        validated = [json.loads(line) for line in kept]
        self.last_validation = validated[-1] if validated else None
        self._stopping = EarlyStopping(best=best, best_step=best_step, validated=[each["step"] for each in validated])
        return state
