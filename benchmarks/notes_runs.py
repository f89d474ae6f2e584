"""Training and measuring of note classifiers for `notes.py`: each run is trained and measured once.

    FOLDER/NAME.safetensors     the classifier
    FOLDER/NAME.json            what was asked for, and the probabilities of each measured note; asked again, it is read
    FOLDER/strips-DIGEST.npz    prepared notes

Budgets are CPU time of the process, with one thread, so that a busy machine does not distort them; the about twenty
validations of a run are in them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from musiclm.audio import FAMILIES, fit, models, training
from musiclm.audio import io as audio_io
from musiclm.audio.classifier import NoteClassifier, loudest_picture
from musiclm.audio.dataset import LabelledNote
from musiclm.devices import faster_in_bf16
from musiclm.errors import AudioError, CorpusError
from musiclm.files import write_whole


class Run(NamedTuple):
    """What is trained: a name, the architecture with the fields of its config, the budget, the seed, the distortions."""

    name: str
    arch: str
    config: dict[str, Any]
    minutes: float | None
    steps: int | None
    seed: int
    extended: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasuredSet:
    """Notes as `musiclm classify` sees them.

    Attributes:
        notes: those that can be read.
        pictures: (notes, 64 mel bands, 64 frames), of the loudest note of each file.
        targets: (notes,), the number of each one's family.
        dropped: how many cannot be read.
    """

    notes: list[LabelledNote]
    pictures: Tensor
    targets: Tensor
    dropped: int

    def part(self, wanted: Sequence[bool]) -> MeasuredSet:
        """Return the notes that are wanted."""
        notes, index = _chosen(self.notes, wanted)
        return MeasuredSet(notes=notes, pictures=self.pictures[index], targets=self.targets[index], dropped=0)


def measured_set(notes: Sequence[LabelledNote]) -> MeasuredSet:
    """Return notes to measure.

    Raises:
        CorpusError: none can be read.
    """
    kept, pictures = [], []
    for note in notes:
        try:
            pictures.append(loudest_picture(audio_io.read(note.path).audio))
            kept.append(note)
        except AudioError as error:
            print(f"left out: {note.path}: {error}", file=sys.stderr)
    if not kept:
        raise CorpusError("none of the measured notes can be read: is the sound where the list of notes says?")
    targets = torch.tensor([FAMILIES.index(n.family) for n in kept])
    return MeasuredSet(notes=kept, pictures=torch.stack(pictures), targets=targets, dropped=len(notes) - len(pictures))


def prepared(
    folder: Path, notes: Sequence[LabelledNote], versions: int, seed: int, *, extended: bool = False
) -> training.PreparedNotes:
    """Return notes as strips, from the folder where they are there; for `extended` see `audio.distort.distort`."""
    path = folder / f"strips-{digest(notes, versions, seed, *(['extended'] if extended else []))}.npz"
    if path.is_file():
        with np.load(path) as stored:
            kept, strips = stored["kept"].tolist(), torch.from_numpy(stored["strips"])
        targets = torch.tensor([FAMILIES.index(notes[i].family) for i in kept])
        return training.PreparedNotes(notes=[notes[i] for i in kept], strips=strips, targets=targets, dropped=[])
    *_, found = training.prepare(notes, versions=versions, seed=seed, extended=extended)
    for name, reason in found.dropped:
        print(f"left out: {name}: {reason}", file=sys.stderr)
    lost = {name for name, _ in found.dropped}
    kept = [i for i, note in enumerate(notes) if str(note.path) not in lost]
    folder.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part.npz")
    np.savez(temporary, kept=np.array(kept), strips=found.strips.numpy())
    temporary.replace(path)
    return found


def digest(notes: Sequence[LabelledNote], *more: Any) -> str:
    """Return a short digest of what a list of notes says, and of further values."""
    rows = [(str(n.path), n.family, n.source, n.instrument, n.weight) for n in notes]
    return hashlib.sha256(json.dumps([rows, *more]).encode()).hexdigest()[:16]


def part(data: training.PreparedNotes, wanted: Sequence[bool]) -> training.PreparedNotes:
    """Return the notes of a set that are wanted."""
    notes, index = _chosen(data.notes, wanted)
    return training.PreparedNotes(notes=notes, strips=data.strips[index], targets=data.targets[index], dropped=[])


def joined(*sets: training.PreparedNotes) -> training.PreparedNotes:
    """Return several sets as one."""
    return training.PreparedNotes(
        notes=[note for each in sets for note in each.notes],
        strips=torch.cat([each.strips for each in sets]),
        targets=torch.cat([each.targets for each in sets]),
        dropped=[],
    )


def _chosen(notes: Sequence[LabelledNote], wanted: Sequence[bool]) -> tuple[list[LabelledNote], Tensor]:
    index = [i for i, is_wanted in enumerate(wanted) if is_wanted]
    return [notes[i] for i in index], torch.tensor(index, dtype=torch.long)


def result(
    folder: Path,
    run: Run,
    learn: training.PreparedNotes,
    choose: training.PreparedNotes,
    sets: dict[str, MeasuredSet],
) -> dict[str, Any]:
    """Return the result of a run, after training and measuring what is missing.

    `probabilities` has for each measured set a list of the families' probabilities for each note.

    Raises:
        CorpusError: no notes to train on, or to choose the weights by.
        DivergedError: training diverged.
    """
    if not learn.notes or not choose.notes:
        raise CorpusError(f"{run.name}: no training notes are left, or none that choose the weights")
    path = folder / f"{run.name}.json"
    notes = [learn.notes, choose.notes, *(each.notes for each in sets.values())]
    asked = {
        **run._asdict(),
        "recipe": models.training(run.arch),
        "versions": learn.strips.shape[1],
        "notes": [digest(each) for each in notes],
    }
    if path.is_file():
        stored: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if stored["asked"] == asked:
            return stored
        sys.exit(f"Error: '{path}' was made with other options or notes: choose another folder with -o")
    folder.mkdir(parents=True, exist_ok=True)
    classifier, checks = trained(run, learn, choose)
    classifier.save(folder / f"{run.name}.safetensors")
    found = {
        "asked": asked,
        "num_parameters": sum(p.numel() for p in classifier.model.parameters()),
        "num_learnt": len(learn.notes),
        "steps": checks[-1].step,
        "cpu_seconds": checks[-1].seconds,
        "validation_mean_family_recall": max(check.recall or 0.0 for check in checks),
        "probabilities": {name: probabilities(classifier, each.pictures).tolist() for name, each in sets.items()},
    }
    write_whole(path, (json.dumps(found) + "\n").encode())
    return found


def trained(
    run: Run, learn: training.PreparedNotes, choose: training.PreparedNotes
) -> tuple[NoteClassifier, list[fit.Check]]:
    """Return a classifier and the checks of its training.

    Raises:
        DivergedError: training diverged.
    """
    recipe = training.Recipe(
        steps=run.steps,
        seconds=None if run.minutes is None else 60 * run.minutes,
        seed=run.seed,
        bf16=faster_in_bf16(),
        **models.training(run.arch),
    )
    checks: list[fit.Check] = []
    classifier = None
    for event in fit.fit(learn, choose, recipe, arch=run.arch, config=run.config, clock=time.process_time):
        if isinstance(event, NoteClassifier):
            classifier = event  # if training diverged, the error follows
            continue
        checks.append(event)
        line = f"{run.name}: step {event.step:,}, {event.seconds:.0f} s, {event.loss:.3f} nats, {event.recall:.3f}"
        print(line, file=sys.stderr, flush=True)
    assert classifier is not None, "fit yields it at last, or raises"
    return classifier, checks


@torch.inference_mode()
def probabilities(classifier: NoteClassifier, pictures: Tensor) -> Tensor:
    """Return the calibrated probability of each family for each picture, (notes, 11), to four decimals."""
    scores = training.scores(classifier.model, pictures) / classifier.temperature
    return scores.softmax(dim=1).double().mul(1e4).round().div(1e4)
