"""Make a performer for `musiclm perform`, from aligned performances to the file with its card.

    python recipes/perform.py groove-v1.0.0-midi.tar.xz -o work/ --kind drums --minutes 1 --bundle checkpoints/
    python recipes/perform.py asap-aligned.tar.xz -o work/ --kind piano --minutes 0.7 --bundle checkpoints/noncommercial/

DATA is an archive or a folder: of Groove for drums, of ASAP with alignments for piano. Minutes are CPU time of this process,
with one thread. Groove has an official split: its validation performances choose the weights, its test performances give the
figures of the card. Of ASAP the robust alignments are used, and each twelfth piece chooses the weights; its performances give
the figures of the card (`validation_…`), while the comparison with rules is benchmarks/performing.py's, by folds.
"""

from __future__ import annotations

import argparse
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from musiclm.checkpoint import card as cards
from musiclm.checkpoint.model_file import PERFORMER, read_model
from musiclm.errors import MusicLMError
from musiclm.files import write_whole
from musiclm.performing import metrics
from musiclm.performing.asap import TABLE, read_asap
from musiclm.performing.groove import read_groove
from musiclm.performing.model import DRUMS, PIANO, Performer
from musiclm.performing.training import RECIPES, Check, Played, train_performer

CARDS = {
    DRUMS: {
        "data": "Groove MIDI Dataset v1.0.0 (Gillick et al. 2019), quantized hits and their performances",
        "licence": "CC BY 4.0 (Groove MIDI Dataset, Google LLC)",
    },
    PIANO: {
        "data": "(n)ASAP (Foscarin et al. 2020, Peter et al. 2023): scores aligned to performances of MAESTRO",
        "licence": "CC BY-NC-SA 4.0 ((n)ASAP; MAESTRO v3, Hawthorne et al. 2019)",
    },
}
CHOOSING = 12  # each so many pieces of ASAP choose the weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="an archive or a folder")
    parser.add_argument("-o", "--output", type=Path, required=True, help="where all of it is made")
    parser.add_argument("--kind", choices=(PIANO, DRUMS), required=True)
    parser.add_argument("--minutes", type=float, default=1.0, help="of CPU time (1)")
    parser.add_argument("--steps", type=int, help="of training at most")
    parser.add_argument("--arch", help="another encoder than that of the recipe")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bundle", type=Path, help="folder for the file and its card, checkpoints/ for one")
    a = parser.parse_args()
    torch.set_num_threads(1)
    try:
        run(a)
    except MusicLMError as error:
        parser.exit(1, f"Error: {error}\n")


def run(a: argparse.Namespace) -> None:
    a.output.mkdir(parents=True, exist_ok=True)
    learn, choose, test = splits(a.kind, a.data, a.output)
    print(f"{len(learn)} performances to learn from, {len(choose)} to choose by, {len(test)} to test", file=sys.stderr)
    performer, last = trained(learn, choose, a)
    figures = {"validation_loss": last.validation, **measured(performer, choose, "validation")}
    figures |= measured(performer, test, "test") if test else {}
    judged = "velocity and tempo" if a.kind == PIANO else "velocity"
    performer.card = {
        **CARDS[a.kind],
        "command": command(a),
        "chosen_by": f"highest correlation of {judged} with {len(choose)} held-out performances",
        "steps": last.step,
        "cpu_minutes": round(last.seconds / 60, 1),
        "threads": 1,
        "weights": "float16",
        "figures_of": "mean over performances; written dynamics hidden; means, not samples",
        "figures": {k: round(float(v), 4) for k, v in figures.items() if v is not None},
    }
    folder = a.bundle or a.output
    path = folder / f"{PERFORMER.full_name(a.kind)}.safetensors"
    performer.save(path)
    write_whole(path.with_suffix(".md"), cards.model_page(read_model(path, role=PERFORMER), path.stem).encode())
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, {performer.card['figures']}")


def command(a: argparse.Namespace) -> str:
    """Return the command line that gives a performer again."""
    budget = f"--minutes {a.minutes:g}" + (f" --steps {a.steps}" if a.steps else "")
    arch = f" --arch {a.arch}" if a.arch else ""
    return f"python recipes/perform.py {a.data.name} -o work/ --kind {a.kind} {budget}{arch} --seed {a.seed}"


def splits(kind: str, data: Path, output: Path) -> tuple[list[Played], list[Played], list[Played]]:
    """Return the performances to learn from, to choose weights by, and to test."""
    if kind == DRUMS:
        found = read_groove(data)
        names = ("train", "validation", "test")
        learn, choose, test = ([Played(p.notes, p.parameters) for p in found if p.split == n] for n in names)
        return learn, choose, test
    performances = [p for p in read_asap(asap_folder(data, output)) if p.is_robust]
    held_out = set(sorted({p.piece for p in performances})[::CHOOSING])
    sides: tuple[list[Played], list[Played]] = ([], [])
    for p in performances:
        sides[p.piece in held_out].append(Played(p.notes, p.parameters))
    return (*sides, [])


def asap_folder(data: Path, output: Path) -> Path:
    """Return the folder of ASAP; an archive is unpacked first."""
    if data.is_file():
        with tarfile.open(data) as archive:
            archive.extractall(output, filter="data")
        data = output
    tables = sorted(data.rglob(TABLE))
    return tables[0].parent if tables else data


def trained(learn: Sequence[Played], choose: Sequence[Played], a: argparse.Namespace) -> tuple[Performer, Check]:
    """Return the performer with the best weights, and the check of these."""
    recipe = RECIPES[a.kind]
    best: Check | None = None
    options: Any = {"kind": a.kind, "arch": a.arch or recipe.arch, "config": None if a.arch else recipe.config}
    how = recipe.how(minutes=a.minutes, steps=a.steps, seed=a.seed)
    for each in train_performer(learn, choose, how, clock=time.process_time, **options):
        if isinstance(each, Performer):
            assert best is not None
            return each, best
        figures = f"loss {each.loss:.4f}, {each.validation or 0:.4f}, r {each.figure or 0:.3f}"
        print(f"step {each.step:,}, {each.seconds:.0f} s: {figures}", file=sys.stderr)
        best = each if each.is_best or best is None else best
    raise AssertionError("a training ends with its performer")


def measured(performer: Performer, performances: Sequence[Played], split: str) -> dict[str, float]:
    """Return figures of the means that a performer predicts, mean over performances."""
    names = ["velocity_r", "velocity_error"] + (["tempo_r"] if performer.kind == PIANO else ["deviation_error_ms"])
    found = [
        metrics.compare(notes, performer.predict(notes, with_dynamics=False), human) for notes, human in performances
    ]
    return {f"{split}_performances": len(found)} | {
        f"{split}_{name}": float(np.mean([f[name] for f in found])) for name in names
    }


if __name__ == "__main__":
    main()
