"""Measure performers beside trivial rules and other humans; drums beside a mean; architectures beside each other.

    python benchmarks/performing.py --part piano --data ASAP -o work/           # five folds, half a CPU minute of training each
    python benchmarks/performing.py --part drums --data groove-v1.0.0-midi.tar.xz      # the bundled performer
    python benchmarks/performing.py --part architectures --data ASAP -o work/   # half a CPU minute each
    python benchmarks/performing.py --part curves --data ASAP -o work/          # pictures and MIDI files of held-out pieces
    python benchmarks/performing.py --part piano --quick                        # to see that it works; any part

One thread; budgets are CPU time. An interrupted command continues when it is given again: each run is trained and measured
once. What a figure is, is in musiclm/performing/metrics.py.

piano          ASAP's robust alignments, five folds by piece; of the other folds' pieces each twelfth chooses the weights. The
               written dynamics are hidden from the model where nothing else is said: rules do not see them either. Means over
               pieces of the means over their performances; standard errors over pieces, of differences paired by piece.
               Performances that are compared with the mean human are of pieces with three or more.
drums          Groove's official split, test performances; standard errors over these. With --minutes a performer is trained,
               and kept in -o; else --model is measured.
architectures  the first fold: recurrent encoders and Transformers, that read both directions or the past only.
curves         three pieces that the first fold's performer has not seen, the shortest of their composers with two humans or
               more: its mean and a sample over the humans, OUTPUT/curves/*.png, and both as MIDI files. The model's curves
               have the mean tempo of the first human.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import performing_runs as runs
import torch
from performing_runs import GIVEN, HUMAN, MEAN, SAMPLE, Human, Run
from symusic import Note, Score, Track

from musiclm import midi
from musiclm.checkpoint.model_file import PERFORMER, find_model
from musiclm.errors import MusicLMError
from musiclm.files import write_whole
from musiclm.performing.asap import folds, read_asap
from musiclm.performing.groove import read_groove
from musiclm.performing.model import DRUMS, PIANO, Performer
from musiclm.performing.notes import drum_notes, keyboard_notes
from musiclm.performing.parameters import Parameters
from musiclm.performing.render import Expression, perform
from musiclm.plotting import expression

FOLDS = 5
HUMANS = 3  # at most, in a picture
VELOCITY_RULES = ("pitch", "pitch, top of chord", "pitch, top line")
SYSTEMS = (MEAN, SAMPLE, GIVEN, "flat", *VELOCITY_RULES, "slow ending", HUMAN)
DRUM_SYSTEMS = (MEAN, SAMPLE, "mean per drum and position", "flat")
COLUMNS = {
    "velocity_r": "velocity r",
    "tempo_r": "tempo r",
    "velocity_std": "velocity sd",
    "tempo_std": "tempo sd",
    "deviation_std": "deviation sd",
    "articulation_std": "articulation sd",
    "velocity_js": "velocity JS",
    "interval_js": "interval JS",
    "duration_js": "duration JS",
}
DRUM_COLUMNS = {
    "velocity_error": "velocity error",
    "velocity_r": "velocity r",
    "deviation_error_ms": "timing error, ms",
    "velocity_std": "velocity sd",
    "deviation_std": "timing sd",
    "velocity_js": "velocity JS",
}
ARCHS = ("bidirectional_lstm", "bidirectional_gru", "bidirectional_rnn", "bidirectional_transformer")


def piano(a: argparse.Namespace) -> dict[str, Any]:
    """Return the table of the five folds, with differences to the rules."""
    performances = asap(a)
    parts = folds(performances, FOLDS)
    found = [fold(a, performances, parts, number) for number in range(a.folds or FOLDS)]
    rows = [row for each in found for row in each["rows"]]
    strongest = max(VELOCITY_RULES, key=lambda rule: np.mean(list(runs.by_piece(rows, rule, "velocity_r").values())))
    differences = {}
    for among in ("systems", "mean_human"):
        for system in (MEAN, SAMPLE, GIVEN):
            for key, rule in (("velocity_r", strongest), ("tempo_r", "slow ending")):
                if any(system in row.get(among, {}) for row in rows):
                    label = f"{system} - {rule}, {key}" + (" with the mean human" if among == "mean_human" else "")
                    differences[label] = runs.difference(rows, system, rule, key, among)
    return {
        "runs": [{key: each[key] for key in each if key != "rows"} for each in found],
        "pieces": len({tuple(row["piece"]) for row in rows}),
        "performances": len(rows),
        "systems": table(rows, SYSTEMS, COLUMNS),
        "mean_human": table(rows, SYSTEMS, {"velocity_r": "", "tempo_r": ""}, "mean_human"),
        "differences": differences,
    }


def drums(a: argparse.Namespace) -> dict[str, Any]:
    """Return the table of Groove's test split."""
    if a.quick:
        sides = [made_up(4, DRUMS, seed=seed) for seed in range(3)]
    else:
        read = read_groove(a.data)
        sides = [
            [Human((p.name,), p.name, p.notes, p.parameters) for p in read if p.split == split]
            for split in ("train", "validation", "test")
        ]
    if a.quick or a.minutes:
        run = Run("drums", DRUMS, None, {}, None if a.quick else a.minutes, 4 if a.quick else None, a.seed)
        found = runs.result(a.output / "drums", run, *sides)
    else:
        found = {"rows": runs.rows(Performer.load(find_model(PERFORMER, a.model).path), sides[0], sides[2])}
    rows, rule = found.pop("rows"), "mean per drum and position"
    errors = runs.by_piece(rows, rule, "velocity_error")
    gain = runs.difference(rows, MEAN, rule, "velocity_error")
    return {
        "runs": [found] if found else [],
        "performances": len(rows),
        "systems": table(rows, DRUM_SYSTEMS, DRUM_COLUMNS),
        "differences": {f"{MEAN} - {rule}, velocity_error": gain},
        "relative_velocity_error": gain["difference"] / float(np.mean(list(errors.values()))),
    }


def architectures(a: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of each architecture on the first fold."""
    performances = asap(a)
    parts = folds(performances, FOLDS)
    found = {}
    for arch in a.archs.split(","):
        for both in (True, False):
            each = fold(a, performances, parts, 0, arch=arch, both=both)
            name = f"{arch}, {'both directions' if both else 'past only'}"
            figures = {key: each[key] for key in ("num_parameters", "steps", "best_step", "validation_loss")}
            found[name] = figures | table(each["rows"], (MEAN,), {"velocity_r": "", "tempo_r": ""})[MEAN]
    return {"systems": found}


def curves(a: argparse.Namespace) -> dict[str, Any]:
    """Plot and perform three held-out pieces; return the files that were written."""
    performances = asap(a)
    parts = folds(performances, FOLDS)
    fold(a, performances, parts, 0)
    performer = Performer.load(a.output / "piano" / "fold0.safetensors")
    folder = a.output / "curves"
    folder.mkdir(exist_ok=True)
    files = []
    for humans in shown(performances, parts[0]):
        first = humans[0]
        name = f"{first.piece[0]}-{first.piece[1]}".replace(" ", "_")
        played = {f"human {i + 1}": each.parameters for i, each in enumerate(humans[:HUMANS])}
        pace = first.parameters.seconds_per_quarter
        for label, seed in ((MEAN, None), (SAMPLE, a.seed)):
            played[label] = dataclasses.replace(performer.predict(first.notes, seed), seconds_per_quarter=pace)
        plotted = [expression.curve(label, first.notes, each) for label, each in played.items()]
        write_whole(folder / f"{name}.png", expression.picture(plotted, ".png", title=name), force=True)
        files.append(f"{name}.png")
        if not a.quick:
            score = midi.read((a.data / first.name).with_name("midi_score.mid"))
            for label, seed in (("mean", None), ("sample", a.seed)):
                performance = perform(score, {PIANO: performer}, Expression(seed=seed))
                write_whole(folder / f"{name}-{label}.mid", midi.to_bytes(performance), force=True)
                files.append(f"{name}-{label}.mid")
    return {"files": files}


def shown(performances: Sequence[Any], pieces: Sequence[tuple[str, str]]) -> list[list[Any]]:
    """Return the performances of three pieces: the shortest of their composers with two performances of one score or more."""
    of_score: dict[tuple[Any, int], list[Any]] = {}
    for each in performances:
        if each.piece in pieces:
            of_score.setdefault((each.piece, len(each.notes)), []).append(each)
    several = sorted(
        (humans for humans in of_score.values() if len(humans) > 1), key=lambda humans: len(humans[0].notes)
    )
    of_composer: dict[str, list[Any]] = {}
    for humans in several:
        of_composer.setdefault(humans[0].piece[0], humans)
    return list(of_composer.values())[:3]


def asap(a: argparse.Namespace) -> list[Any]:
    """Return the robust performances, or made-up ones."""
    if a.quick:
        return made_up(2 * FOLDS, PIANO)
    return [p for p in read_asap(a.data) if p.is_robust]


def fold(
    a: argparse.Namespace,
    performances: Sequence[Any],
    parts: Sequence[Sequence[tuple[str, str]]],
    number: int,
    *,
    arch: str | None = None,
    both: bool = True,
) -> dict[str, Any]:
    """Return the result of a run that holds out one of the folds."""
    rest = sorted(piece for i, part in enumerate(parts) if i != number for piece in part)
    choosing = set(rest[:: runs.CHOOSING])
    sides: tuple[list[Human], list[Human], list[Human]] = ([], [], [])
    for p in performances:
        side = 2 if p.piece in parts[number] else int(p.piece in choosing)
        sides[side].append(Human(p.piece, p.name, p.notes, p.parameters))
    name = f"fold{number}" if arch is None else f"{arch}-{'both' if both else 'past'}"
    minutes = None if a.quick else a.minutes or 0.5
    run = Run(name, PIANO, arch, {} if both else {"both": False}, minutes, 4 if a.quick else None, a.seed)
    return runs.result(a.output / ("piano" if arch is None else "architectures"), run, *sides)


def table(
    rows: Sequence[dict[str, Any]], systems: Sequence[str], columns: dict[str, str], among: str = "systems"
) -> dict[str, dict[str, Any]]:
    """Return mean and standard error over pieces of each figure of each system that the rows have."""
    found: dict[str, dict[str, Any]] = {}
    for system in systems:
        if any(system in row.get(among, {}) for row in rows):
            values = {key: list(runs.by_piece(rows, system, key, among).values()) for key in columns}
            found[system] = {key: runs.mean_and_error(each) for key, each in values.items()}
    return found


def made_up(count: int, kind: str, seed: int = 0) -> list[Human]:
    """Return performances of random notes, two of each piece, whose velocities follow the pitch: for --quick."""
    found = []
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        score = Score(480)
        track = Track("", 0, kind == DRUMS)
        for i in range(60):
            track.notes.append(Note(240 * i, 240, int(rng.integers(36, 84)), 64))
        score.tracks.append(track)
        notes = (drum_notes if kind == DRUMS else keyboard_notes)(score)
        assert notes is not None
        for take in range(2):
            noise = rng.standard_normal((3, len(notes)))
            parameters = Parameters(
                velocity=np.clip(notes.pitch / 127 + 0.05 * noise[0], 0.01, 1),
                tempo=np.cumsum(0.05 * noise[1]),
                deviation=0.01 * noise[2],
                articulation=0.1 * noise[0],
                pedal=np.zeros(len(notes)),
                mask=np.ones(len(notes), bool),
                seconds_per_quarter=0.5,
            )
            found.append(Human(("made up", str(number)), f"{number}-{take}", notes, parameters))
    return found


def show(found: dict[str, Any]) -> None:
    """Print the tables."""
    for name in found.get("files", ()):
        print(name)
    for part in ("systems", "mean_human"):
        systems = found.get(part)
        if not systems:
            continue
        columns = list(next(iter(systems.values())))
        names = {**COLUMNS, **DRUM_COLUMNS}
        print(
            f"\n| {'with the mean human' if part == 'mean_human' else ''} | "
            + " | ".join(names.get(c, c) for c in columns)
            + " |"
        )
        print("|---" * (len(columns) + 1) + "|")
        for system, figures in systems.items():
            print(f"| {system} | " + " | ".join(cell(figures[c]) for c in columns) + " |")
    for name, each in found.get("differences", {}).items():
        print(f"{name}: {each['difference']:+.3f} ± {each['standard_error']:.3f} ({each['pieces']} pieces)")
    if "relative_velocity_error" in found:
        print(f"velocity error relative to the mean per drum and position: {found['relative_velocity_error']:+.1%}")


def cell(value: Any) -> str:
    """Return a figure as text: a mean with its standard error, or a number."""
    if isinstance(value, (tuple, list)):
        return f"{value[0]:.3f} ± {value[1]:.3f}"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


PARTS = {"piano": piano, "drums": drums, "architectures": architectures, "curves": curves}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, required=True)
    parser.add_argument("--data", type=Path, help="the folder of ASAP; for drums the archive or folder of Groove")
    parser.add_argument("-o", "--output", type=Path, help="where runs are kept")
    parser.add_argument("--model", default="performer-drums", help="of --part drums: a performer's name or file")
    parser.add_argument("--minutes", type=float, help="CPU minutes of training a run")
    parser.add_argument("--folds", type=int, help="only the first N folds")
    parser.add_argument("--archs", default=",".join(ARCHS), help="of --part architectures")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="made-up data and a few steps")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    a = parser.parse_args()
    needs_output = a.part != "drums" or a.minutes
    if not a.quick and (a.data is None or (needs_output and a.output is None)):
        parser.error("name the data with --data and a folder with -o, or try --quick")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        a.output = a.output or Path(temporary)
        try:
            found = PARTS[a.part](a)
        except MusicLMError as error:
            sys.exit(f"Error: {error}")
    if a.json:
        print(json.dumps({"part": a.part, **found}, indent=1))
    else:
        show(found)


if __name__ == "__main__":
    main()
