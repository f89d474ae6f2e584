"""Training and measuring of performers for `performing.py`: one run per fold or architecture, each trained and measured once.

    FOLDER/NAME.safetensors   the performer
    FOLDER/NAME.json          what was asked for, and a row for each held-out performance; the same question again reads it

Budgets are CPU time of the process, with one thread, so that a busy machine does not distort them.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from musiclm.files import write_whole
from musiclm.performing import metrics, rules
from musiclm.performing.model import PIANO, Performer
from musiclm.performing.notes import ScoreNotes
from musiclm.performing.parameters import Parameters
from musiclm.performing.training import RECIPES, Check, Played, train_performer

CHOOSING = 12  # each so many of the other folds' pieces choose the weights
MEAN, GIVEN, SAMPLE = "model, mean", "model, mean, dynamics given", "model, sample"
HUMAN = "another human"
AGAINST_MEAN = 3  # performances of a piece, from which on there is a mean human


class Human(NamedTuple):
    """A human performance: its piece, its name, the score's notes, and what was played."""

    piece: tuple[str, ...]
    name: str
    notes: ScoreNotes
    parameters: Parameters


class Run(NamedTuple):
    """What is trained: a name, the architecture (None: that of the recipe) with its config, and the budget."""

    name: str
    kind: str
    arch: str | None
    config: dict[str, Any]
    minutes: float | None
    steps: int | None
    seed: int


def result(
    folder: Path, run: Run, learn: Sequence[Human], choose: Sequence[Human], test: Sequence[Human]
) -> dict[str, Any]:
    """Return the result of a run, after training and measuring what is missing."""
    path = folder / f"{run.name}.json"
    asked = {**run._asdict(), "performances": [len(each) for each in (learn, choose, test)]}
    if path.is_file():
        stored: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if stored["asked"] == asked:
            return stored
        sys.exit(f"Error: '{path}' was made with other options: choose another folder with -o")
    folder.mkdir(parents=True, exist_ok=True)
    performer, best, last = trained(run, learn, choose)
    performer.save(folder / f"{run.name}.safetensors")
    found = {
        "asked": asked,
        "num_parameters": sum(p.numel() for p in performer.network.parameters()),
        "steps": last.step,
        "best_step": best.step,
        "validation_loss": best.validation,
        "cpu_seconds": last.seconds,
        "rows": rows(performer, learn, test, beside=run.arch is None),
    }
    write_whole(path, (json.dumps(found, indent=1) + "\n").encode())
    return found


def trained(run: Run, learn: Sequence[Human], choose: Sequence[Human]) -> tuple[Performer, Check, Check]:
    """Return a performer, the check of its weights, and the last check."""
    recipe = RECIPES[run.kind]
    sides = [[Played(human.notes, human.parameters) for human in each] for each in (learn, choose)]
    how = recipe.how(minutes=run.minutes, steps=run.steps, seed=run.seed)
    arch, config = run.arch or recipe.arch, {**recipe.config, **run.config}
    checks: list[Check] = []
    for each in train_performer(*sides, how, kind=run.kind, arch=arch, config=config, clock=time.process_time):
        if isinstance(each, Performer):
            return each, [check for check in checks if check.is_best][-1], checks[-1]
        checks.append(each)
        print(f"{run.name}: step {each.step:,}, {each.seconds:.0f} s, {each.validation or 0:.4f}", file=sys.stderr)
    raise AssertionError("a training ends with its performer")


def rows(
    performer: Performer, learn: Sequence[Human], test: Sequence[Human], *, beside: bool = True
) -> list[dict[str, Any]]:
    """Return a row for each held-out performance: figures of the model, and `beside` it of the rules and other humans."""
    humans: dict[tuple[tuple[str, ...], bytes], list[Human]] = {}
    for human in test:  # some pieces have two scores, with and without repeats
        humans.setdefault((human.piece, human.notes.onset.tobytes()), []).append(human)
    baselines = dict(rules.RULES)
    if performer.kind != PIANO:
        baselines = {
            "flat": rules.flat,
            "mean per drum and position": rules.DrumMeans([(h.notes, h.parameters) for h in learn]),
        }
    found = []
    for number, ((piece, _), of_piece) in enumerate(sorted(humans.items(), key=lambda item: item[0])):
        notes = of_piece[0].notes
        played = {MEAN: performer.predict(notes, with_dynamics=False)}
        if beside:
            played[SAMPLE] = performer.predict(notes, number, with_dynamics=False)
            played |= {name: rule(notes) for name, rule in baselines.items()}
        if beside and performer.kind == PIANO:
            played[GIVEN] = performer.predict(notes)
        for i, human in enumerate(of_piece):
            systems = {name: metrics.compare(notes, each, human.parameters) for name, each in played.items()}
            others = [other.parameters for j, other in enumerate(of_piece) if j != i]
            if beside and others:
                compared = [metrics.compare(notes, other, human.parameters) for other in others]
                systems[HUMAN] = {key: float(np.mean([c[key] for c in compared])) for key in compared[0]}
            row = {"piece": list(piece), "name": human.name, "systems": systems}
            if beside and len(of_piece) >= AGAINST_MEAN:
                row["mean_human"] = against_mean(notes, played, human, others, is_first=i == 0)
            found.append(row)
    return found


def against_mean(
    notes: ScoreNotes, played: dict[str, Parameters], human: Human, others: Sequence[Parameters], *, is_first: bool
) -> dict[str, Any]:
    """Return correlations with the mean human: of each system once a piece, and of each human with the mean of the others."""
    found = {HUMAN: metrics.compare(notes, human.parameters, metrics.mean_human(others))}
    if is_first:
        mean = metrics.mean_human([human.parameters, *others])
        found |= {name: metrics.compare(notes, each, mean) for name, each in played.items()}
    return {name: {key: figures[key] for key in ("velocity_r", "tempo_r")} for name, figures in found.items()}


def by_piece(rows: Sequence[dict[str, Any]], system: str, key: str, among: str = "systems") -> dict[str, float]:
    """Return a figure of each piece: the mean over its performances; without pieces that lack the system."""
    values: dict[str, list[float]] = {}
    for row in rows:
        figures = row.get(among, {}).get(system)
        if figures is not None:
            values.setdefault("/".join(row["piece"]), []).append(figures[key])
    return {piece: float(np.mean(each)) for piece, each in values.items()}


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and its standard error over pieces."""
    array = np.array(values)
    return float(array.mean()), float(array.std(ddof=1) / len(array) ** 0.5) if len(array) > 1 else 0.0


def difference(
    rows: Sequence[dict[str, Any]], one: str, other: str, key: str, among: str = "systems"
) -> dict[str, float]:
    """Return the paired difference of two systems over pieces that have both, its standard error, and their number."""
    first, second = (by_piece(rows, system, key, among) for system in (one, other))
    pairs = [first[piece] - second[piece] for piece in first if piece in second]
    mean, error = mean_and_error(pairs)
    return {"difference": mean, "standard_error": error, "pieces": len(pairs)}
