"""A training run: a folder that can be killed at any moment and gone on with.

    run.json             what was asked for, written before torch is imported
    metrics.jsonl        one line a validation
    resume.safetensors   where the run stands: weights, their average, the optimiser's moments, counters
    best.safetensors     the checkpoint with the lowest validation nats a token
    last.safetensors     the checkpoint of the last save
    tensorboard/         curves, if tensorboard is installed
    lock                 held by the process that trains

`resume.safetensors` is the one authority: it is written whole, metrics beyond it are cut back, and a run without one
starts again from its stored seed. With a budget in steps or epochs, one process and the stored number of threads, a run
that was killed and resumed gives the weights of an uninterrupted one, bit for bit (CPU).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import shutil
import time
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RunError
from ..files import lock, write_whole
from .config import TrainConfig, stored_config
from .setup import TrainingSetup, prepare
from .tensorboard import FOLDER

if TYPE_CHECKING:
    from .loop import Step
    from .optim import Recipe

log = logging.getLogger(__name__)

DEFAULT_MINUTES = 10.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Validation:
    """One line of metrics.jsonl. Validation is that of the model as it is saved, its logits divided by the temperature."""

    step: int
    tokens: int
    seconds: float
    train_nats_per_token: float
    validation_nats_per_token: float
    temperature: float
    learning_rate: float
    is_best: bool


class Run:
    """A run folder, locked by this process from `create` or `open` until `close`.

    Attributes:
        folder: it.
        plan: what was asked for.
        best: the lowest validation so far, nats a token.
        best_step: at which step it was; 0 for the model that was started from.
        before: validation of the model that was started from, nats a token; None without one, and on resume.
        last_validation: a line of metrics.jsonl.
        stopped_because: once it is over: "budget", or "validation" if that did not fall any more.
    """

    def __init__(self, folder: Path, plan: TrainConfig) -> None:
        self.folder, self.plan = folder, plan
        self.best = float("inf")
        self.best_step = 0
        self.last_validation: dict[str, Any] | None = None
        self.stopped_because = "budget"
        self.before: float | None = None
        self._validated: list[int] = []
        self._lock = lock(folder / "lock")
        if self._lock is None:
            raise RunError(f"another process trains the run '{folder}': wait for it, or choose another with -o")

    @classmethod
    def create(cls, folder: Path, plan: TrainConfig, *, force: bool = False) -> Run:
        """Return a new run in a new folder.

        Raises:
            RunError: the folder is there already, or cannot be made.
        """
        if (folder / "run.json").exists() and not force:
            raise RunError(f"'{folder}' is a run already: 'musiclm train --resume {folder}' goes on with it")
        if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not force)):
            raise RunError(f"'{folder}' is there already: choose another place with -o")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"the folder '{folder}' cannot be made: {error.strerror}") from error
        run = cls(folder, plan)
        for name in ("resume.safetensors", "best.safetensors", "last.safetensors", "metrics.jsonl"):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / FOLDER, ignore_errors=True)
        run.write_plan()
        return run

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Return the run in a folder.

        Raises:
            RunError: there is none, or another process trains it.
        """
        plan = stored_config(folder)
        if plan is None:
            raise RunError(f"no run in '{folder}': 'musiclm train -o {folder}' starts one")
        return cls(folder, plan)

    def renew(self, *, minutes: float | None, steps: int | None, epochs: float | None) -> None:
        """Give the run a new total budget, and its validation time to fall again."""
        from ..checkpoint import read_header

        self.plan.minutes, self.plan.steps, self.plan.epochs = minutes, steps, epochs
        if (self.folder / "resume.safetensors").exists():
            metadata, _ = read_header(self.folder / "resume.safetensors")
            self.plan.patient_from = json.loads(metadata["run"])["step"]
        self.write_plan()

    @property
    def is_stale(self) -> bool:
        """Whether validation has not fallen for as long as the plan has patience."""
        since = max(self.best_step, self.plan.patient_from)
        return self.plan.patience is not None and sum(step > since for step in self._validated) >= self.plan.patience

    def write_plan(self) -> None:
        """Write run.json."""
        write_whole(self.folder / "run.json", (json.dumps(dataclasses.asdict(self.plan), indent=1) + "\n").encode())

    def close(self) -> None:
        """Let another process have the run."""
        if self._lock is not None:
            self._lock.release()

    def discard(self) -> None:
        """Remove the folder of a run that came to nothing, if nothing but its plan was written."""
        if {p.name for p in self.folder.iterdir()} <= {"run.json", "lock"}:
            self.close()
            for path in self.folder.iterdir():
                path.unlink()
            self.folder.rmdir()

    def train(self) -> Generator[tuple[Step, Validation | None], None, None]:
        """Yield each step, with a `Validation` where one was made and the run was saved; saves at the end, too.

        Closing the generator saves the step that was yielded last. An exception within a step leaves what was saved before: the
        weights may be half way to the next, or a validation that was due not made.
        """
        import torch

        from ..checkpoint import save
        from ..evaluation import fit_temperature
        from ..models.weights import scale_logits
        from .loop import train
        from .tensorboard import TensorBoard

        plan = self.plan
        torch.set_num_threads(plan.threads)
        prepared = prepare(plan)
        if plan.precision is None:
            plan.precision = "bf16" if prepared.recipe.bf16 else "fp32"
            self.write_plan()
        state = self._load_state()
        if state is not None:
            shapes = {f"weights.{name}": tensor.shape for name, tensor in prepared.model.state_dict().items()}
            if shapes != {name: t.shape for name, t in state.tensors.items() if name.startswith("weights.")}:
                raise RunError(
                    f"the run '{self.folder}' was begun by another version of musiclm: '{prepared.tokenizer.name}' has other "
                    "features now; begin a new one"
                )
        if state is None and plan.start_from is not None:
            self._keep_start(prepared)
        model, average = prepared.model, prepared.average
        is_over = self.is_stale
        self.stopped_because = "validation" if is_over else "budget"
        steps = train(model, prepared.windows, prepared.recipe, average=average, start=state, teacher=prepared.teacher)
        next_validation = _Cadence(prepared.recipe, state.step if state else 0, state.seconds if state else 0.0)
        step: Step | None = None
        is_whole = False  # whether nothing of the step that was taken last is left to do
        saved = state.step if state else 0
        losses: list[float] = []
        scalars = TensorBoard(self.folder, saved)
        try:
            for step in steps if not is_over else ():
                losses.append(step.nats)
                validation = None
                if step.progress >= 1 or next_validation.is_due(step):
                    began = time.monotonic()
                    temperature, found = fit_temperature(
                        average, prepared.tokenizer, prepared.validation, bf16=prepared.recipe.bf16
                    )
                    kept = scale_logits(average, temperature)
                    validation = Validation(
                        step=step.number,
                        tokens=step.tokens,
                        seconds=round(step.seconds, 3),
                        train_nats_per_token=sum(losses) / len(losses),
                        validation_nats_per_token=found.nats_per_token,
                        temperature=temperature,
                        learning_rate=step.rate,
                        is_best=found.nats_per_token < self.best,
                    )
                    losses.clear()
                    next_validation.made(step, time.monotonic() - began)
                    card = self._card(prepared, found.nats_per_token, step, temperature)
                    if validation.is_best:
                        self.best, self.best_step = validation.validation_nats_per_token, step.number
                        save(
                            self.folder / "best.safetensors",
                            kept,
                            arch=plan.arch,
                            tokenizer=prepared.tokenizer,
                            card=card,
                        )
                    save(
                        self.folder / "last.safetensors",
                        kept,
                        arch=plan.arch,
                        tokenizer=prepared.tokenizer,
                        card=card,
                    )
                    self._append(validation)
                    self._save_state(step)
                    saved = step.number
                nats = None if validation is None else validation.validation_nats_per_token
                scalars.add(step.number, nats=step.nats, rate=step.rate, tokens=step.tokens, validation_nats=nats)
                is_whole = True
                yield step, validation
                is_whole = False
                if validation is not None and self.is_stale:
                    self.stopped_because = "validation"
                    break
        finally:
            scalars.close()
            if step is not None and is_whole and step.number > saved:
                self._save_state(step)

    def _keep_start(self, prepared: TrainingSetup) -> None:
        """Keep the model that was started from as the best so far: no training makes a worse one of it."""
        from ..checkpoint import save
        from ..evaluation import measure_loss

        prepared.model.eval()
        found = measure_loss(prepared.model, prepared.tokenizer, prepared.validation, bf16=prepared.recipe.bf16)
        self.best, self.best_step, self.before = found.nats_per_token, 0, found.nats_per_token
        save(
            self.folder / "best.safetensors",
            prepared.model,
            arch=self.plan.arch,
            tokenizer=prepared.tokenizer,
            card=self._card(prepared, found.nats_per_token, None),
        )

    def _card(
        self, prepared: TrainingSetup, nats: float, step: Step | None, temperature: float | None = None
    ) -> dict[str, Any]:
        card = {
            "data": prepared.corpus.name,
            "licence": "the trainer's own data: yours to say",
            "command": self.plan.command,
            "steps": step.number if step else 0,
            "tokens": step.tokens if step else 0,
            "minutes": round(step.seconds / 60, 1) if step else 0.0,
            "precision": self.plan.precision,
            "figures": {"validation_nats_per_token": nats},
        }
        if temperature is not None:
            card["calibrated"] = f"logits divided by {temperature:g}, chosen on validation"
        if self.plan.teachers:
            card["teachers"] = ", ".join(Path(name).name for name in self.plan.teachers)
        if prepared.started is not None:
            name = Path(prepared.started.name).name
            card["started_from"] = f"{name}: {prepared.started.card.get('data')}"
            card["licence"] = (
                f"that of {name} ({prepared.started.card.get('licence')}), and that of the trainer's own data"
            )
        return card

    def _append(self, validation: Validation) -> None:
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(dataclasses.asdict(validation)) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.last_validation = dataclasses.asdict(validation)
        self._validated.append(validation.step)

    def _save_state(self, step: Step) -> None:
        from ..checkpoint import pack

        state = step.state()
        numbers = {
            "step": state.step,
            "tokens": state.tokens,
            "seconds": state.seconds,
            "best": self.best,
            "best_step": self.best_step,
        }
        tensors = {name: t.detach().cpu().contiguous() for name, t in state.tensors.items()}
        write_whole(self.folder / "resume.safetensors", pack(tensors, {"run": json.dumps(numbers)}))

    def _load_state(self) -> Any:
        """Return the `TrainingState` that was saved last, and cut metrics.jsonl back to it; None if there is none."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        from ..checkpoint import read_header, rename_tensors
        from .loop import TrainingState

        path = self.folder / "resume.safetensors"
        metrics = self.folder / "metrics.jsonl"
        if not path.exists():
            metrics.unlink(missing_ok=True)
            return None
        metadata, _ = read_header(path)
        try:
            numbers = json.loads(metadata["run"])
            tensors = rename_tensors(load_file(path))
        except (KeyError, ValueError, SafetensorError) as error:
            raise RunError(f"'{path}' is damaged: {error}") from error
        self.best, self.best_step = numbers["best"], numbers["best_step"]
        kept = []
        for line in metrics.read_text("utf-8").splitlines() if metrics.exists() else []:
            with contextlib.suppress(ValueError):  # the last line may be half written
                if json.loads(line)["step"] <= numbers["step"]:
                    kept.append(line)
        write_whole(metrics, "".join(line + "\n" for line in kept).encode())
        self.last_validation = json.loads(kept[-1]) if kept else None
        self._validated = [json.loads(line)["step"] for line in kept]
        return TrainingState(
            step=numbers["step"], tokens=numbers["tokens"], seconds=numbers["seconds"], tensors=tensors
        )


class _Cadence:
    """When to validate and save: by steps twenty times a run; by the clock each 20 s, or seldom enough to cost a tenth."""

    def __init__(self, recipe: Recipe, step: int, seconds: float) -> None:
        self.every_steps = None if recipe.steps is None or recipe.seconds else max(10, min(500, recipe.steps // 20))
        self.last_seconds, self.interval = seconds, 20.0

    def is_due(self, step: Step) -> bool:
        if self.every_steps is not None:
            return step.number % self.every_steps == 0
        return step.seconds - self.last_seconds >= self.interval

    def made(self, step: Step, cost: float) -> None:
        self.last_seconds = step.seconds + cost
        self.interval = max(20.0, 10 * cost)
