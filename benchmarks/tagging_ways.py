"""The ways of `tagging.py` to train a tagger: from scratch, from a language model, with a frozen body; one folder each.

FOLDER/tagger.safetensors    the tagger
FOLDER/result.json           its figures, kept with what was asked for; the same question again reads them
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tagging_data as data
import torch
from efficient_training import read_json, write_json

from musiclm import checkpoint, models, tokenizers
from musiclm.data import sources
from musiclm.devices import faster_in_bf16
from musiclm.errors import DivergedError, MidiError
from musiclm.evaluation.classification import f1_of_each
from musiclm.tagging.dataset import TOKENIZER
from musiclm.tagging.labels import LabelledFile, read_found
from musiclm.tagging.measure import measure
from musiclm.tagging.model import UNSURE, Tagger
from musiclm.tagging.notes import STEPS
from musiclm.tagging.training import Check, Labelled, TagConfig, train_tagger
from musiclm.training.optim import Recipe

FILE = "tagger.safetensors"
RESAMPLES = 1000  # of the bootstrap


class Way(NamedTuple):
    """A way to train: its name, the architecture from scratch, or the model to start from and whether it stays."""

    name: str
    arch: str | None = None
    start: str | None = None
    frozen: bool = False


def ways(a: argparse.Namespace) -> list[Way]:
    """Return the ways that are asked for."""
    found = [Way(f"{arch} from scratch", arch=arch) for arch in a.archs]
    for model in a.models_from:
        stem = Path(model).stem if Path(model).is_file() else Path(model).name
        found += [Way(f"{stem} fine-tuned", start=model), Way(f"{stem} frozen", start=model, frozen=True)]
    return found


def trained(
    way: Way, files: list[LabelledFile], a: argparse.Namespace, folder: Path, *, minutes: float, seed: int | None = None
) -> dict[str, Any]:
    """Return the figures of a way on the test pieces, after training and measuring what is missing."""
    seed = a.seeds[0] if seed is None else seed
    asked = {"way": list(way), "minutes": minutes, "seed": seed, "files": data.digest(files), "tokenizer": a.tokenizer}
    asked |= {name: getattr(a, name) for name in ("preset", "pooling", "length", "learning_rate", "balance")}
    stored = read_json(folder / "result.json")
    if stored is not None and stored["asked"] == json.loads(json.dumps(asked)):
        return stored
    start = None if way.start is None else checkpoint.load(way.start)
    tokenizer = start.tokenizer() if start is not None else tokenizers.parse(a.tokenizer or TOKENIZER)
    found = data.pieces(files, tokenizer, STEPS, a.output)
    config = TagConfig(
        arch=way.arch or "gru",
        preset=a.preset,
        pooling=a.pooling,
        frozen=way.frozen,
        length=a.length,
        balance=a.balance,
    )
    rate = a.learning_rate or models.training(start.arch if start is not None else config.arch)["learning_rate"]
    recipe = Recipe(seconds=60 * minutes, learning_rate=rate, warmup_steps=30, seed=seed, bf16=faster_in_bf16())
    tagger, run = _fitted(way, found, recipe, config, tokenizer, start)
    result: dict[str, Any] = {"way": way.name, "asked": asked} | run
    if tagger is not None:
        tagger.seen = found.seen()
        tagger.card = {"labels": dict(Counter(piece.label for piece in found.pieces("train")))}
        folder.mkdir(parents=True, exist_ok=True)
        tagger.save(folder / FILE)
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bf16):
            result |= {"validation": figures(measure(tagger, found.pieces("validation")))}
            result |= figures(measure(tagger, found.pieces("test")))
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "result.json", result)
    return result


def _fitted(
    way: Way, found: Any, recipe: Recipe, config: TagConfig, tokenizer: Any, start: Any
) -> tuple[Tagger | None, dict[str, Any]]:
    """Return the tagger, and what its training took; None if it diverged."""
    number = {label: i for i, label in enumerate(found.labels)}
    learn, choose = (
        [Labelled(piece.ids, number[piece.label]) for piece in found.pieces(split)] for split in ("train", "validation")
    )
    events = train_tagger(
        learn,
        choose,
        recipe,
        config,
        labels=found.labels,
        tokenizer=tokenizer,
        start=start,
        clock=time.process_time,
    )
    run: dict[str, Any] = {"num_training_pieces": len(learn)}
    try:
        for event in events:
            if isinstance(event, Tagger):
                run["num_parameters"] = sum(p.numel() for p in event.network.parameters())
                return event, run
            assert isinstance(event, Check)
            run |= {"steps": event.step, "cpu_seconds": event.seconds}
            best = " best" if event.is_best else ""
            print(
                f"{way.name}: step {event.step:,}, {event.seconds:.0f} CPU s, validation {event.validation:.3f} nats, "
                f"{event.figure:.3f}{best}",
                file=sys.stderr,
            )
    except DivergedError as error:
        run["problem"] = str(error)
    return None, run


def figures(found: dict[str, Any]) -> dict[str, Any]:
    """Return the measures of a report that tables have, with the standard error of macro-F1."""
    keys = (
        "num_pieces", "accuracy", "accuracy_standard_error", "macro_f1", "majority", "nats", "calibration_error", "unsure",
        "accuracy_when_sure", "crop_accuracy", "labels", "confusion",
    )  # fmt: skip
    error = macro_f1_error(np.array(found["confusion"]))
    return {key: found[key] for key in keys if key in found} | {"macro_f1_standard_error": error}


def macro_f1_error(matrix: np.ndarray, seed: int = 0) -> float:
    """Return the standard error of macro-F1 by a bootstrap over pieces (Efron 1979), from their confusion matrix."""
    num_labels, total = len(matrix), int(matrix.sum())
    rng = np.random.default_rng(seed)
    values = []
    for sample in rng.multinomial(total, matrix.ravel() / total, size=RESAMPLES):
        known = [f for f in f1_of_each(torch.from_numpy(sample.reshape(num_labels, num_labels))) if f is not None]
        values.append(sum(known) / len(known))
    return float(np.std(values))


def elsewhere(tagger: Tagger, label: str, folder: str) -> dict[str, Any]:
    """Return how pieces of another source are labelled: the share that has a label, or is unsure if that is the label."""
    answers: Counter[str] = Counter()
    unsure = 0
    for event in sources.walk([Path(folder)]):
        if not isinstance(event, sources.Found):
            continue
        try:
            prediction = tagger.predict(read_found(event))
        except MidiError:
            continue
        unsure += prediction.unsure
        answers[UNSURE if prediction.unsure and label == UNSURE else prediction.label] += 1
    count = max(1, sum(answers.values()))
    share = answers[label] / count
    return {
        "folder": Path(folder).name,
        "label": label,
        "num_pieces": sum(answers.values()),
        "share": share,
        "standard_error": float(np.sqrt(share * (1 - share) / count)),
        "unsure": unsure / count,
        "answers": {name: number / count for name, number in answers.most_common(4)},
    }
