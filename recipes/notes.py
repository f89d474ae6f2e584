"""Make checkpoints/instruments.safetensors from scratch: render soundfonts, prepare, train, measure.

    python recipes/notes.py --recorded notes/ --families gm-families.json --work work/ \\
        --soundfonts A320U.sf2 TimGM6mb.sf2 sf_GMbank.sf2 FluidR3_GM.sf2 OPL-3_FM_128M.sf2 MuseScore_General_Full.sf2 \\
        --unseen GeneralUser-v1.47.sf2 -o checkpoints/instruments.safetensors

The soundfonts are those of the Debian packages denemo-data, timgm6mb-soundfont, csound-soundfont, fluid-soundfont-gm,
opl3-soundfont, musescore-general-soundfont-lossless and minuet-data. --recorded is a folder with notes.csv (file,
split, family, source, instrument): its split dev and the unseen soundfont are only measured. Weights and temperature
are chosen by a tenth of the rendered instruments (a soundfont's samples of one program; soundfonts that share samples
count as one) and by the recorded sources of CHOSEN_BY. What was rendered, prepared and measured stays in --work and is
not made twice.

--synthesis adds notes of so many instruments of each engine of synthesis.py, --also folders of further notes that are only
learnt, such as those of zynaddsubfx.py and freepats.py. --extended adds an overdriven amplifier, second notes, ensembles,
reflections and tapes to the distortions.

--teachers distils classifiers: their mean probabilities are most of each target, and training starts from the first one, at
half the learning rate. They must not have learnt the measured sets: they are files measured.safetensors of other folders.

With --all the network that was measured is trained on for so many minutes, at a quarter of the learning rate, on all sets,
the measured ones too. The last weights are kept, with the temperature and the figures of the network that was measured.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import synthesis
import torch

from musiclm.audio import FAMILIES, dataset, metrics, training
from musiclm.audio import fit as fitting
from musiclm.audio import io as audio_io
from musiclm.audio.classifier import NoteClassifier, loudest_picture
from musiclm.audio.models.base import NoteModel
from musiclm.devices import faster_in_bf16

CHOSEN_BY = {"discordgm", "tonejs"}  # recorded sources held out for choosing
RECORDED_WEIGHT = 2.0  # a recorded note is sampled as often as two rendered ones of its family would be
CREDITS = (
    "Rendered from FluidR3 GM (MIT, Frank Wen), MuseScore General (MIT; without its piano and string sections), "
    "TimGM6mb (GPL-2), sf_GMbank of Csound (LGPL-2.1+), A320U (GPL-2, Milton Paredes), OPL-3 FM 128M (GPL-3+), "
    "GeneralUser GS 1.47 (S. Christian Collins, its own free licence). "
    "Recorded notes: Philharmonia Orchestra (CC BY-SA 3.0), and CC0, CC BY and public-domain sources. "
    "No sample and no note is in the file."
)


def rendered(soundfonts: list[Path], folder: Path, families: Path, *, notes: int, variations: int, seed: int) -> Path:
    """Return the folder of rendered notes, rendering them unless they are there."""
    if not (folder / dataset.TABLE).is_file():
        script = Path(__file__).with_name("soundfonts.py")
        counts = {"--notes": notes, "--variation-notes": variations, "--seed": seed}
        options = {"--families": families, "-o": folder, **counts}
        command = [sys.executable, script, *itertools.chain(*options.items()), *soundfonts]
        subprocess.run(list(map(str, command)), check=True, stdout=sys.stderr)
    return folder


def synthesized(folder: Path, instruments: int, *, notes: int) -> Path:
    """Return the folder of synthesized notes, making them unless they are there."""
    if not (folder / dataset.TABLE).is_file():
        synthesis.synthesize_all(folder, instruments=instruments, notes=notes, seed=0)
    return folder


def prepared(
    name: str, notes: list[dataset.LabelledNote], versions: int, a: argparse.Namespace
) -> training.PreparedNotes:
    """Return notes as strips, from the work folder where they are there."""
    seed, work = a.seed, a.work
    name += "-extended" if a.extended else ""
    file = work / f"{name}.pt"
    if file.is_file():
        kept, strips, targets = torch.load(file, weights_only=False)
        return training.PreparedNotes(notes=kept, strips=strips, targets=targets, dropped=[])
    *_, result = training.prepare(notes, versions=versions, seed=seed, extended=a.extended)
    torch.save((result.notes, result.strips, result.targets), file)
    return result


def part(data: training.PreparedNotes, wanted: list[bool]) -> training.PreparedNotes:
    """Return the notes of a set that are wanted."""
    index = torch.tensor(wanted).nonzero()[:, 0]
    notes = [n for n, w in zip(data.notes, wanted, strict=True) if w]
    return training.PreparedNotes(notes=notes, strips=data.strips[index], targets=data.targets[index], dropped=[])


def measured(classifier: NoteClassifier, notes: list[dataset.LabelledNote]) -> dict[str, Any]:
    """Return the report of a set, classified as `musiclm classify` does it."""
    predictions = []
    for first in range(0, len(notes), 64):
        pictures = [loudest_picture(audio_io.read(n.path).audio) for n in notes[first : first + 64]]
        predictions += classifier.look(pictures)
    probabilities = torch.tensor([[p.probabilities[f] for f in FAMILIES] for p in predictions])
    targets = torch.tensor([FAMILIES.index(n.family) for n in notes])
    return metrics.report(probabilities, targets, [p.unsure for p in predictions])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recorded", type=Path, required=True)
    parser.add_argument("--families", type=Path, required=True)
    parser.add_argument("--soundfonts", type=Path, nargs="+", required=True)
    parser.add_argument("--unseen", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--all", type=float, metavar="MINUTES", help="after measuring, train on, on all there is, and keep that"
    )
    parser.add_argument(
        "--synthesis", type=int, default=0, metavar="N", help="instruments of each engine of synthesis.py"
    )
    parser.add_argument(
        "--also",
        type=Path,
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="further folders of notes that are only learnt",
    )
    parser.add_argument("--teachers", type=Path, nargs="+", default=[], metavar="FILE", help="classifiers to distil")
    parser.add_argument("--extended", action="store_true", help="more kinds of distortions")
    parser.add_argument("--quick", action="store_true", help="few notes, ten seconds of training")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    return parser


class Sets(NamedTuple):
    """The notes of a run.

    Attributes:
        data: all that may be learnt from.
        learn: of them those that are learnt.
        choose: of them those that choose the weights: other instruments and sources.
        unseen: of a soundfont that is only measured.
        dev: recordings that are only measured.
    """

    data: training.PreparedNotes
    learn: training.PreparedNotes
    choose: training.PreparedNotes
    unseen: list[dataset.LabelledNote]
    dev: list[dataset.LabelledNote]


def main() -> None:
    a = _parser().parse_args()
    torch.set_num_threads(a.threads)
    a.work.mkdir(parents=True, exist_ok=True)
    sets = sets_of(a)
    recipe = training.Recipe(seconds=10 if a.quick else a.minutes * 60, seed=a.seed, bf16=faster_in_bf16())
    classifier, reports = first_trained(a, sets, recipe)
    if a.all:
        classifier = trained_on(a, sets, recipe, classifier)
    classifier.save(a.output)
    a.output.with_suffix(".md").write_text(card(classifier, reports), encoding="utf-8")
    if a.json:
        print(json.dumps({"figures": classifier.card["figures"], "reports": reports}))
    else:
        print(json.dumps(classifier.card["figures"], indent=1))


def sets_of(a: argparse.Namespace) -> Sets:
    """Return the notes, after rendering, synthesizing and preparing what is missing."""
    counts = {"notes": 2, "variations": 1} if a.quick else {"notes": 48, "variations": 16}
    train_folder = rendered(a.soundfonts, a.work / "renders/train", a.families, seed=0, **counts)
    counts = {"notes": 1, "variations": 1} if a.quick else {"notes": 16, "variations": 8}
    unseen = dataset.read_notes(rendered([a.unseen], a.work / "renders/unseen", a.families, seed=0, **counts))
    recorded = dataset.read_notes(a.recorded)
    dev = [n for n in recorded if n.split == "dev"]
    learnable = [dataclasses.replace(n, weight=RECORDED_WEIGHT) for n in recorded if n.split == "train"]
    if a.quick:
        learnable, dev = learnable[::40], dev[::10]
    data = prepared("train", dataset.read_notes(train_folder) + learnable, 3, a)
    rendered_notes = [n for n in data.notes if n.split is None]
    further = {f"also-{place.name}": place for place in a.also}
    if a.synthesis:
        name = f"synthesis-{a.synthesis}"
        further[name] = synthesized(a.work / "renders" / name, a.synthesis, notes=20)
    data = joined([data, *(prepared(name, dataset.read_notes(place), 3, a) for name, place in further.items())])
    _, held_out = dataset.split_by_instrument(rendered_notes, share=0.1, seed=0)
    names = {(n.family, n.source, n.instrument) for n in held_out}
    chosen_by = [n.source in CHOSEN_BY or (n.family, n.source, n.instrument) in names for n in data.notes]
    return Sets(data, part(data, [not c for c in chosen_by]), part(data, chosen_by), unseen, dev)


def first_trained(
    a: argparse.Namespace, sets: Sets, recipe: training.Recipe
) -> tuple[NoteClassifier, dict[str, dict[str, Any]]]:
    """Return the classifier that has not seen the measured sets, and its reports on them; made once if there is --all."""
    told, file = a.work / "measured.json", a.work / "measured.safetensors"
    command = f"python recipes/notes.py --minutes {a.minutes:g} --threads {a.threads} --seed {a.seed}"
    command += f" --synthesis {a.synthesis}" if a.synthesis else ""
    command += " ".join(["", *(["--also"] if a.also else []), *(place.name for place in a.also)])
    command += " --extended" if a.extended else ""
    command += " ".join(["", *(["--teachers"] if a.teachers else []), *(file.name for file in a.teachers)])
    if a.all and told.is_file() and json.loads(told.read_text())["command"] == command:
        return NoteClassifier.load(file), json.loads(told.read_text())["reports"]
    learn, choose, unseen, dev = sets.learn, sets.choose, sets.unseen, sets.dev
    teachers = [NoteClassifier.load(file).model for file in a.teachers]
    if teachers:
        recipe = dataclasses.replace(recipe, learning_rate=recipe.learning_rate / 2)
    classifier, best = fitted(learn, choose, recipe, *teachers[:1], teachers=teachers)
    reports = {"unseen": measured(classifier, unseen), "dev": measured(classifier, dev)}
    figures = {"validation_mean_family_recall": round(best, 4)}
    for name, report in reports.items():
        keys = ("mean_family_recall", "accuracy", "calibration_error")
        figures |= {f"{name}_{k}": round(report[k], 4) for k in keys}
    classifier.card |= {
        "data": f"{len(learn.notes)} notes of {len({(n.source, n.instrument) for n in learn.notes})} instruments",
        "chosen_by": f"mean family recall on {len(choose.notes)} notes of other instruments and sources",
        "measured_on": f"unseen: {len(unseen)} notes of {a.unseen.stem}; dev: {len(dev)} recordings; neither learnt from",
        "command": command,
        "seed": a.seed,
        "licence": "MIT",
        "credits": " ".join([CREDITS, *(f"Further notes: {place.name}." for place in a.also)]),
        "figures": figures,
    }
    classifier.save(file)
    told.write_text(json.dumps({"command": command, "reports": reports}), encoding="utf-8")
    return classifier, reports


def trained_on(a: argparse.Namespace, sets: Sets, recipe: training.Recipe, first: NoteClassifier) -> NoteClassifier:
    """Return a classifier trained on, on all sets, for --all minutes: its card has the figures it had before."""
    everything = joined(
        [sets.data, prepared("unseen-all", sets.unseen, 3, a), prepared("dev-all", sets.dev, 3, a)],
    )
    slower = dataclasses.replace(recipe, seconds=60 * a.all, learning_rate=recipe.learning_rate / 4)
    last, _ = fitted(everything, None, slower, first.model)
    more = f"{last.card['training']} on {len(everything.notes)} notes, all there are"
    told = {
        "training": f"{first.card['training']}, then {more}",
        "command": f"{first.card['command']} --all {a.all:g}",
        "figures_of": "these weights before the last minutes of training, in which they saw the measured sets, too",
    }
    return NoteClassifier(last.model, temperature=first.temperature, card=first.card | told)


def fitted(
    learn: training.PreparedNotes,
    choose: training.PreparedNotes | None,
    recipe: training.Recipe,
    start: NoteModel | None = None,
    teachers: Sequence[NoteModel] = (),
) -> tuple[NoteClassifier, float]:
    """Return a trained classifier, and its best mean family recall on the notes that choose (0 without them).

    `start`, if there is one, is the network that is trained on; `teachers` are distilled.
    """
    best = 0.0
    for event in fitting.fit(learn, choose, recipe, start=start, teachers=teachers):
        if isinstance(event, fitting.Check):
            check, best = event, max(best, event.recall or 0.0)
            told = f"step {check.step}  {check.seconds:.0f} s  {check.loss:.4f} nats  {best:.4f}"
            print(told, file=sys.stderr, flush=True)
        else:
            classifier = event
    classifier.card = {"training": f"{check.step} steps of {recipe.batch} notes in {check.seconds / 60:.0f} minutes"}
    return classifier, best


def joined(sets: list[training.PreparedNotes]) -> training.PreparedNotes:
    """Return several sets as one."""
    return training.PreparedNotes(
        notes=[note for each in sets for note in each.notes],
        strips=torch.cat([each.strips for each in sets]),
        targets=torch.cat([each.targets for each in sets]),
        dropped=[],
    )


def card(classifier: NoteClassifier, reports: dict[str, dict[str, Any]]) -> str:
    """Return the card as a page of Markdown."""
    told = {k: v for k, v in classifier.card.items() if k != "figures"}
    lines = ["# instruments", "", "The note classifier: which of NSynth's eleven families plays a recorded note.", ""]
    lines += [f"- **{k.replace('_', ' ')}**: {v}" for k, v in told.items()]
    lines += [
        f"- **network**: `{classifier.model.config}`, temperature {classifier.temperature:.3f}, "
        f"{sum(p.numel() for p in classifier.model.parameters()):,} parameters",
        "",
        "| figure | value |",
        "|---|---|",
        *(f"| {k.replace('_', ' ')} | {v} |" for k, v in classifier.card["figures"].items()),
    ]
    for name, report in reports.items():
        lines += [
            "",
            f"## {name}: {report['num_notes']} notes, mean family recall {report['mean_family_recall']:.3f}",
            "",
            "| plays | notes | recall | " + " | ".join(FAMILIES) + " |",
            "|---|---|---|" + "---|" * len(FAMILIES),
        ]
        for family, row in zip(FAMILIES, report["confusion"], strict=True):
            told = report["families"][family]
            recall = "" if told["recall"] is None else f"{told['recall']:.2f}"
            lines.append(f"| {family} | {told['num_notes']} | {recall} | " + " | ".join(str(n) for n in row) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
