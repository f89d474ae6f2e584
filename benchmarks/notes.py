"""Measure note classifiers: architectures beside each other, unseen sources, what fails, and onsets.

    python benchmarks/notes.py --part architectures --train renders/train notes --measure renders/unseen notes -o work/
    python benchmarks/notes.py --part sources --train renders/train --recorded notes -o work/
    python benchmarks/notes.py --part failures --measure notes                  # the bundled classifier; or --model FILE
    python benchmarks/notes.py --part onsets [--midi FOLDER] [--soundfont FILE]     # needs mir_eval: pip install '.[bench]'
    python benchmarks/notes.py --part sources --quick                           # to see that it works; any part

Folders of notes are what `musiclm classifier train` takes; recipes/soundfonts.py renders some. Tables are printed as Markdown,
and written to PART.json in -o. One thread; budgets are CPU time. An interrupted command continues when it is given again: each
run is trained and measured once. A tenth of the instruments of --train chooses weights and temperature; the time this takes
is in the budget.

architectures  --archs with equal data and CPU time, --seeds; a recorded training note counts as two rendered ones. Of --train
               the splits dev and test are left out, and the notes of measured sources, but for a set of one source with splits.
               Of a measured set with splits dev or test only these are measured. ± is the standard deviation over seeds.
               NSynth's table: --train nsynth/ --measure nsynth/nsynth-test --versions 1; its validation set chooses.
sources        grouped cross-validation: the sources of --recorded are cut into --folds; each fold is measured by a classifier
               that was trained on --train and on the recorded notes of the other folds' sources. Mean recall of the families
               with 30 notes from two sources; intervals of 95 % resample sources; calibration error of ten bins of equal mass,
               of all notes.
failures       confusions, and accuracy by source, pitch, duration, loudness (loudest 50 ms) and attack, beside the accuracy
               that the group's families would give.
onsets         see notes_onsets.py. The pieces are --midi, or the bundled examples.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import notes_failures
import notes_onsets
import notes_runs as runs
import numpy as np
import soundfile
import torch
from notes_runs import MeasuredSet, Run
from torch import Tensor

from musiclm.audio import FAMILIES, dataset, mel, metrics, models
from musiclm.audio.classifier import NoteClassifier
from musiclm.errors import CorpusError, MusicLMError
from musiclm.evaluation.classification import equal_mass_calibration_error, grouped_bootstrap
from musiclm.files import write_whole

RECORDED_WEIGHT = 2.0  # a recorded note counts as two rendered ones, as in recipes/notes.py
CHOOSING = 0.1  # of the instruments of each family
LEAST_NOTES = 30  # of a family whose recall counts in --part sources
EXAMPLES = Path(__file__).parents[1] / "examples"
QUICK_STEPS = 4


def architectures(a: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of each architecture on each measured set."""
    sets = {str(place): runs.measured_set(_to_measure(place)) for place in a.measure}
    measured_sources = {note.source for each in sets.values() for note in each.notes}
    places = [weighted(place, dataset.read_notes(place)) for place in a.train]
    learn, choose = prepared_sides(a, [n for notes in places for n in learnable(notes, measured_sources)])
    found: dict[str, Any] = {}
    for arch in a.archs:
        each = []
        for seed in a.seeds:
            run = Run(f"{arch}-seed{seed}", arch, a.config.get(arch, {}), a.minutes, a.steps, seed, a.extended)
            each.append(runs.result(a.output / "architectures", run, learn, choose, sets))
        found[arch] = {key: [r[key] for r in each] for key in ("steps", "cpu_seconds", "validation_mean_family_recall")}
        found[arch]["num_parameters"] = each[0]["num_parameters"]
        found[arch]["sets"] = {
            name: [figures(torch.tensor(r["probabilities"][name]), target.targets) for r in each]
            for name, target in sets.items()
        }
    sizes = {name: len(each.notes) for name, each in sets.items()}
    return {"num_learnt": len(learn.notes), "num_chosen_by": len(choose.notes), "sizes": sizes, "archs": found}


def sources(a: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of a grouped cross-validation by source."""
    everything = runs.measured_set(dataset.read_notes(a.recorded))
    parts = folds_of([note.source for note in everything.notes], a.folds)
    rendered = [n for place in a.train for n in dataset.read_notes(place) if n.split not in ("dev", "test")]
    learn, choose = prepared_sides(a, rendered)
    weighed = [dataclasses.replace(n, weight=RECORDED_WEIGHT, split=None) for n in everything.notes]
    recorded = runs.prepared(a.output, weighed, a.versions, a.seeds[0], extended=a.extended)
    found: dict[str, Any] = {}
    for arch in a.archs:
        probabilities = torch.zeros(len(everything.notes), len(FAMILIES), dtype=torch.float64)
        each = []
        for number, held_out in enumerate(parts):
            is_held_out = [note.source in held_out for note in everything.notes]
            others = [runs.part(s, [n.source not in held_out for n in s.notes]) for s in (learn, recorded, choose)]
            run = Run(f"{arch}-fold{number}", arch, a.config.get(arch, {}), a.minutes, a.steps, a.seeds[0], a.extended)
            measured = {"fold": everything.part(is_held_out)}
            result = runs.result(a.output / "sources", run, runs.joined(*others[:2]), others[2], measured)
            probabilities[torch.tensor(is_held_out)] = torch.tensor(
                result["probabilities"]["fold"], dtype=torch.float64
            )
            each.append({"sources": held_out} | {key: result[key] for key in ("steps", "cpu_seconds", "num_learnt")})
        found[arch] = {"folds": each} | by_source(probabilities, everything, a.least_notes)
    return {"num_notes": len(everything.notes), "dropped": everything.dropped, "archs": found}


def failures(a: argparse.Namespace) -> dict[str, Any]:
    """Return what a classifier gets wrong on all measured sets together."""
    notes = [note for place in a.measure for note in _to_measure(place)]
    return notes_failures.failures(NoteClassifier.load(a.model), notes)


def onsets(a: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of `classify --notes` on rendered pieces."""
    pieces = notes_onsets.pieces(a.midi or EXAMPLES, a.files)
    rows = notes_onsets.measured(NoteClassifier.load(a.model), pieces, a.soundfont)
    return {"rows": rows, **notes_onsets.summary(rows)}


def _to_measure(place: Path) -> list[dataset.LabelledNote]:
    """Return the notes of a set that are measured: its splits dev and test, if it has them, else all."""
    notes = dataset.read_notes(place)
    return [n for n in notes if n.split in ("dev", "test")] or notes


def learnable(notes: Sequence[dataset.LabelledNote], measured_sources: Collection[str]) -> list[dataset.LabelledNote]:
    """Return the notes of a set that may be learnt from: none of measured sources, unless its splits are of one source.

    NSynth is one source, whose splits have no instrument in common.
    """
    kept = [n for n in notes if n.split not in ("dev", "test")]
    if len({n.source for n in notes}) == 1 and all(n.split is not None for n in notes):
        return kept
    return [n for n in kept if n.source not in measured_sources]


def weighted(place: Path, notes: Sequence[dataset.LabelledNote]) -> list[dataset.LabelledNote]:
    """Return notes with a higher weight if they are recorded: rendered ones have the table of recipes/soundfonts.py."""
    table = place / dataset.TABLE if place.is_dir() else place
    is_rendered = False
    if table.is_file():
        with table.open(newline="", encoding="utf-8") as file:
            is_rendered = "preset" in next(csv.reader(file), [])
    return list(notes) if is_rendered else [dataclasses.replace(n, weight=RECORDED_WEIGHT) for n in notes]


def prepared_sides(a: argparse.Namespace, notes: Sequence[dataset.LabelledNote]) -> tuple[Any, Any]:
    """Return prepared training notes, and prepared notes of other instruments that choose the weights.

    Raises:
        CorpusError: one of both has no notes.
    """
    learn, choose = dataset.split_by_instrument(notes, share=CHOOSING, seed=0)
    if not learn or not choose:
        raise CorpusError("too few training notes: a family needs two instruments for one to choose the weights")
    first = runs.prepared(a.output, learn, a.versions, a.seeds[0], extended=a.extended)
    return first, runs.prepared(a.output, choose, 1, a.seeds[0])


def folds_of(note_sources: Sequence[str], count: int) -> list[list[str]]:
    """Return sources in `count` folds of about as many notes each: the largest source first, each to the smallest fold."""
    sizes = Counter(note_sources)
    folds: list[list[str]] = [[] for _ in range(min(count, len(sizes)))]
    for source, _ in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
        min(folds, key=lambda fold: sum(sizes[s] for s in fold)).append(source)
    return folds


def figures(probabilities: Tensor, targets: Tensor) -> dict[str, Any]:
    """Return the figures of one run on one set."""
    confidence, predicted = probabilities.max(dim=1)
    report = metrics.report(probabilities, targets, (confidence < 0).tolist())
    return {
        "mean_family_recall": report["mean_family_recall"],
        "accuracy": report["accuracy"],
        "calibration_error": equal_mass_calibration_error(confidence, predicted == targets),
        "families": {f: report["families"][f]["recall"] for f in FAMILIES},
    }


def by_source(probabilities: Tensor, measured: MeasuredSet, least_notes: int) -> dict[str, Any]:
    """Return the figures of a cross-validation with intervals over sources.

    Recalls are of the families with enough notes; accuracy and calibration error are of all notes.

    Raises:
        CorpusError: no family has enough notes of two sources.
    """
    names = [note.source for note in measured.notes]
    confidence, predicted = probabilities.max(dim=1)
    targets, right = measured.targets, predicted == measured.targets
    families = metrics.covered_families(targets, names, min_notes=least_notes)
    if not families:
        raise CorpusError(f"no family has {least_notes} recorded notes from two sources: there is no recall to report")
    recall = grouped_bootstrap(names, lambda i: metrics.mean_recall(predicted[i], targets[i], families))
    calibration = grouped_bootstrap(names, lambda i: equal_mass_calibration_error(confidence[i], right[i]))
    return {
        "families": {
            FAMILIES[f]: {
                "num_notes": int((targets == f).sum()),
                "num_sources": len({n.source for n in measured.notes if n.family == FAMILIES[f]}),
                "recall": metrics.mean_recall(predicted, targets, [f]),
            }
            for f in families
        },
        "mean_family_recall": metrics.mean_recall(predicted, targets, families),
        "mean_family_recall_interval": recall,
        "calibration_error": equal_mass_calibration_error(confidence, right),
        "calibration_error_interval": calibration,
        "accuracy": float(right.double().mean()),
        "sources": {
            name: {"num_notes": names.count(name), "accuracy": float(right[[n == name for n in names]].double().mean())}
            for name in sorted(set(names))
        },
    }


def show_architectures(found: dict[str, Any]) -> None:
    """Print a table for each measured set."""
    archs = found["archs"]
    print(f"{found['num_learnt']:,} training notes, {found['num_chosen_by']:,} choose the weights")
    for name, size in found["sizes"].items():
        print(f"\n| {name}, {size:,} notes | " + " | ".join(archs) + " |\n|---" + "|---" * len(archs) + "|")
        for key in ("mean_family_recall", "accuracy", "calibration_error"):
            cells = [spread([run[key] for run in each["sets"][name]]) for each in archs.values()]
            print(f"| {key.replace('_', ' ')} | " + " | ".join(cells) + " |")
        for family in FAMILIES:
            values = [[run["families"][family] for run in each["sets"][name]] for each in archs.values()]
            if values[0][0] is not None:
                print(f"| recall, {family} | " + " | ".join(map(spread, values)) + " |")
    print("\n| | parameters | steps | CPU s |\n|---|---|---|---|")
    for arch, each in archs.items():
        steps, seconds = np.mean(each["steps"]), np.mean(each["cpu_seconds"])
        print(f"| {arch} | {each['num_parameters']:,} | {steps:,.0f} | {seconds:.0f} |")


def spread(values: Sequence[float]) -> str:
    """Return the mean of some runs with their standard deviation, as text."""
    mean = f"{np.mean(values):.3f}"
    return f"{mean} ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else mean


def show_sources(found: dict[str, Any]) -> None:
    """Print a table over architectures, and one of the sources for each."""
    archs = found["archs"]
    print(f"| {found['num_notes']:,} recorded notes | " + " | ".join(archs) + " |\n|---" + "|---" * len(archs) + "|")
    for key in ("mean_family_recall", "calibration_error"):
        cells = ["{:.3f} [{:.3f}, {:.3f}]".format(each[key], *each[f"{key}_interval"]) for each in archs.values()]
        print(f"| {key.replace('_', ' ')} | " + " | ".join(cells) + " |")
    first = next(iter(archs.values()))
    for family, counts in first["families"].items():
        of = f"{counts['num_notes']:,} of {counts['num_sources']} sources"
        cells = [f"{each['families'][family]['recall']:.3f}" for each in archs.values()]
        print(f"| recall, {family} ({of}) | " + " | ".join(cells) + " |")
    for name, counts in first["sources"].items():
        cells = [f"{each['sources'][name]['accuracy']:.3f}" for each in archs.values()]
        print(f"| accuracy, source {name} ({counts['num_notes']:,}) | " + " | ".join(cells) + " |")


def make_quick(a: argparse.Namespace, folder: Path) -> None:
    """Fill in what --quick leaves out: made-up notes of three families, five sources, and a few steps."""
    rng = np.random.default_rng(0)
    for name, of in (("train", ("made-1", "made-2")), ("measured", ("other-1", "other-2", "other-3"))):
        rows = []
        (folder / name).mkdir(parents=True, exist_ok=True)
        for source in of:
            for family, falls in (("flute", 3.0), ("reed", 1.0), ("guitar", 1.5)):
                for i in range(4):
                    pitch = int(rng.integers(50, 80))
                    t = np.arange(8000) / mel.SAMPLE_RATE
                    hz, decay = 440 * 2 ** ((pitch - 69) / 12), 8.0 if family == "guitar" else 0.5
                    wave = sum(np.sin(2 * np.pi * hz * k * t) / k**falls for k in range(1, 8)) * np.exp(-decay * t)
                    file = f"{source}-{family}-{i}.wav"
                    soundfile.write(folder / name / file, 0.2 * wave, mel.SAMPLE_RATE)
                    rows.append([file, family, source, f"{source}-{i % 2}", pitch])
        with (folder / name / dataset.TABLE).open("w", newline="") as file:
            csv.writer(file).writerows([["file", "family", "source", "instrument", "midi_pitch"], *rows])
    a.train, a.measure, a.recorded = [folder / "train"], [folder / "measured"], folder / "measured"
    a.minutes, a.steps, a.seeds = None, QUICK_STEPS, a.seeds[:2]
    a.folds, a.versions, a.least_notes, a.files = 2, 1, 2, 1
    a.config = {
        "ast": {"stride": 16, "width": 32, "layers": 1, "heads": 2},
        "cnn": {"channels": [4, 4, 8, 8]},
    }


def _numbers(text: str) -> list[int]:
    """Return the whole numbers of a list with commas."""
    return [int(number) for number in text.split(",")]


PARTS = {
    "architectures": (architectures, show_architectures, ("train", "measure", "output")),
    "sources": (sources, show_sources, ("train", "recorded", "output")),
    "failures": (failures, None, ("measure",)),
    "onsets": (onsets, notes_onsets.show, ()),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, required=True)
    parser.add_argument("--train", type=Path, nargs="+", metavar="NOTES", help="folders or tables of training notes")
    parser.add_argument("--measure", type=Path, nargs="+", metavar="NOTES", help="folders or tables of measured notes")
    parser.add_argument("--recorded", type=Path, metavar="NOTES", help="of --part sources: notes.csv or its folder")
    parser.add_argument("-o", "--output", type=Path, help="where runs and PART.json are kept")
    parser.add_argument("--archs", default="cnn,ast")
    parser.add_argument("--minutes", type=float, default=10.0, help="CPU minutes of each training")
    parser.add_argument("--seeds", type=_numbers, default="1,2,3", help="the first one is that of --part sources")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--versions", type=int, default=3, help="of each training note: see musiclm classifier train")
    parser.add_argument("--extended", action="store_true", help="more kinds of distortions of the training notes")
    parser.add_argument(
        "--model", type=Path, help="of failures and onsets: a classifier file; left out, the bundled one"
    )
    parser.add_argument("--midi", type=Path, help="of onsets: a folder of MIDI files; left out, examples/")
    parser.add_argument("--files", type=int, metavar="N", help="of onsets: only the first N files")
    parser.add_argument("--soundfont", type=Path, help="of onsets: left out, that of musiclm render")
    parser.add_argument("--quick", action="store_true", help="made-up notes and a few steps")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    return parser


def main() -> None:
    parser = _parser()
    a = parser.parse_args()
    a.archs = a.archs.split(",")
    unknown = [arch for arch in a.archs if arch not in models.names()]
    if unknown:
        parser.error(f"no architecture '{unknown[0]}': one of {', '.join(models.names())}")
    if min(a.minutes, a.folds - 1, a.versions, *a.seeds) <= 0:
        parser.error("--minutes, --versions and --seeds must be above 0, and --folds at least 2")
    a.steps, a.config, a.least_notes = None, {}, LEAST_NOTES
    measure, show, needed = PARTS[a.part]
    missing = [name for name in needed if getattr(a, name) is None]
    if missing and not a.quick:
        parser.error(f"--part {a.part} needs " + ", ".join(f"--{name}" for name in missing) + ", or --quick")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        if a.quick:
            a.output = a.output or Path(temporary)
            make_quick(a, a.output / "made-up")
        try:
            found = measure(a)
        except MusicLMError as error:
            sys.exit(f"Error: {error}")
        if a.output is not None:
            a.output.mkdir(parents=True, exist_ok=True)
            write_whole(a.output / f"{a.part}.json", (json.dumps(found, indent=1) + "\n").encode(), force=True)
    if a.json:
        print(json.dumps({"part": a.part, **found}, indent=1))
    elif show is not None:
        show(found)
    else:
        notes_failures.show(found, a.model)


if __name__ == "__main__":
    main()
