"""The chorale table: nats/cell of each architecture on the JSB chorales, trained from scratch by one command.

    python recipes/chorales.py --minutes 100 --clean jsb-clean-test.json -o work/
    python recipes/chorales.py --quick

Each row is a run of `musiclm train` in --output, made with what `RUNS` says, and continues where it was stopped; the checkpoint
with the lowest validation nats of its run is measured. --minutes is the budget of an architecture, on two cores; a run is
of one thread, and has the share of it that `SHARES` says. Conditions, the same for each row:

- data: the bundled 382 chorales of Boulanger-Lewandowski et al. (2012), four voices on a sixteenth grid, official split of
  229 / 76 / 77 pieces; training on the 229 and their transpositions that stay within the pitches of those 229;
- a token is what a voice has in a sixteenth: all 73,632 validation and 75,600 test cells count, special tokens do
  not;
- each piece is read from its beginning: a prediction sees all cells before it, at most `context` of them (transformers);
- three training crops in four are of a chorale with its voices in any of their 24 orders, forwards or backwards (`grid`,
  features of version 3); measured is the order soprano, alto, tenor, bass, forwards;
- natural logarithm; the architecture's own recipe (`musiclm/models/NAME.py`), chosen on validation; test read at the end;
- --clean: the test pieces that share no tune with a training piece, a figure of their own.

`transformer-key` is `transformer` with the degree of the key of a voice as one more input feature (`grid`, version 4;
rows without `key` have version 3): no fewer nats, but music that stays in its key (`benchmarks/judge.py`).

`teachers` is the ensemble of `transformer` and two smaller ones of other seeds. `transformer-taught` is `transformer`,
distilled from that ensemble, too (`musiclm train --teacher`), on the 229 pieces and on those that `WRITTEN` says the
teachers wrote; `lstm-taught` and `gru-taught` are distilled from it, in turn. `transformer-key-taught` is
`transformer-key`, distilled from the ensemble of itself, `transformer` and `transformer-taught-further`, on the 229 pieces
and on what it wrote itself; `lstm-key-taught` and `gru-key-taught` are distilled from that. `transformer-in-key` has the same
pieces, but only teachers with that input feature: itself and two smaller ones of other seeds. Nothing but the 229 is
behind any of them, but the minutes of teachers come on top of their own. Rows of `FURTHER` have the weights of a distilled one
extrapolated: by a factor of their distance from those that it started from.

Published, validation: Coconet in chronological order 0.436, Transformer 0.417, with relative attention over time and pitch
0.335 (Huang et al. 2018, table 2).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import zipfile
from importlib import resources
from pathlib import Path
from typing import Any

from musiclm import checkpoint, evaluation, tokenizers
from musiclm.data import bundled
from musiclm.models.base import LanguageModel
from musiclm.models.ensemble import Ensemble
from musiclm.models.weights import extrapolate
from musiclm.tokenizers.base import Tokenizer
from musiclm.training.config import stored_config

THIRD = ["--tokenizer", 'grid:{"features": 3}']  # those of the day that these rows were made
KEY = ["--tokenizer", "grid"]
SMALL = ["--arch", "transformer", "--set", "size=128", "--dropout", "0.2", "--steps", "5000"]
LARGER = ["--set", "size=192", "--dropout", "0.25"]
TEACHERS = ["transformer", "teacher-2", "teacher-3"]
KEY_TEACHERS = ["transformer", "transformer-taught-further", "transformer-key"]
IN_KEY_TEACHERS = ["transformer-key", "key-teacher-2", "key-teacher-3"]


def taught(*teachers: str) -> list[str]:
    """Return the options that name teachers."""
    return [part for name in teachers for part in ("--teacher", f"@{name}")]


PUPIL = ["--dropout", "0.15", "--patience", "1000"]
RUNS = {  # of each row what makes it, beside the budget; sizes of small where nothing is said
    "rnn": ["--arch", "rnn", "--dropout", "0.1", *THIRD],
    "lstm": ["--arch", "lstm", "--dropout", "0.35", *THIRD],
    "gru": ["--arch", "gru", "--dropout", "0.35", *THIRD],
    "absolute": ["--arch", "absolute", *LARGER, *THIRD],
    "transformer": ["--arch", "transformer", *LARGER, *THIRD],
    "transformer-key": ["--arch", "transformer", *LARGER, *KEY],
    **{f"teacher-{seed}": [*SMALL, *THIRD, "--seed", str(seed)] for seed in (2, 3)},
    **{f"key-teacher-{seed}": [*SMALL, *KEY, "--seed", str(seed)] for seed in (2, 3)},
    "transformer-taught": ["%written", "--from", "@transformer", *PUPIL, *taught(*TEACHERS)],
    "transformer-key-taught": ["%written-key", "--from", "@transformer-key", *PUPIL, *taught(*KEY_TEACHERS)],
    "transformer-in-key": ["%written-key", "--from", "@transformer-key", *PUPIL, *taught(*IN_KEY_TEACHERS)],
    **{
        f"{arch}-taught": ["%written", "--arch", arch, "--dropout", "0.2", *taught("transformer-taught"), *THIRD]
        for arch in ("lstm", "gru")
    },
    **{
        f"{arch}-key-taught": [
            "%written-key",
            "--arch",
            arch,
            "--dropout",
            "0.2",
            *taught("transformer-key-taught"),
            *KEY,
        ]
        for arch in ("lstm", "gru")
    },
}  # @ is the run of another row, % is a folder of WRITTEN
SHARES = {  # of --minutes; what is behind `transformer-key-taught` comes to both cores, teachers and all
    **dict.fromkeys(["rnn", "lstm", "gru", "lstm-taught"], 0.14),
    "gru-taught": 0.16,
    "absolute": 0.28,
    "transformer": 0.32,
    "gru-key-taught": 0.36,
    "lstm-key-taught": 0.39,
    **dict.fromkeys(["transformer-key-taught", "transformer-in-key"], 0.5),
    "transformer-taught": 0.55,
    "transformer-key": 0.56,
}
WRITTEN = {  # who wrote how many pieces of 16 bars each, at which temperature and top-p
    "written": (TEACHERS, 400, 1, 1),
    "written-key": (["transformer-key"], 1000, 0.8, 0.98),
}
FURTHER = {  # validation chose how far
    "transformer-taught-further": ("transformer", "transformer-taught", 1.25),
    "transformer-key-taught-further": ("transformer-key", "transformer-key-taught", 1.2),
    "transformer-in-key-further": ("transformer-key", "transformer-in-key", 1.3),
}
TOGETHER = "teachers"  # the row of the mean of what they expect
PUBLISHED = {"Coconet, chronological": 0.436, "Transformer": 0.417, "Transformer, relative over time and pitch": 0.335}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = [*RUNS, *FURTHER, TOGETHER]
    parser.add_argument("--arch", "--archs", dest="rows", default=",".join(every), help=f"rows: {', '.join(every)}")
    parser.add_argument("--minutes", type=float, default=100.0, help="of an architecture: see SHARES")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clean", type=Path, help='JSON whose "clean" lists indices into the test split')
    parser.add_argument("-o", "--output", type=Path, help="where the runs are; left out, a folder that goes at the end")
    parser.add_argument(
        "--measure", action="store_true", help="train nothing: measure the runs in --output as they are"
    )
    parser.add_argument("--quick", action="store_true", help="the smallest models, 20 steps each")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    a = parser.parse_args()
    if unknown := set(a.rows.split(",")) - set(every):
        parser.error(f"no row '{unknown.pop()}': {', '.join(every)}")
    a.done = set()  # rows whose runs are at their budget
    with tempfile.TemporaryDirectory() as temporary:
        folder = a.output or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        rows = [row(name, folder, a) for name in a.rows.split(",")]
    source = bundled(tokenizers.create("grid"))
    baselines = {split: evaluation.baselines(source, split) for split in ("validation", "test")}
    if a.json:
        print(json.dumps({"rows": rows, "baselines": baselines, "published_validation": PUBLISHED}))
        return
    print("nats/cell                                validation   test   clean   parameters  tokens seen  minutes")
    for name, nats in PUBLISHED.items():
        print(f"{name:42} {nats:10.3f}")
    for name in baselines["test"]:
        print(f"{name + ' (baseline)':42} {baselines['validation'][name]:10.3f} {baselines['test'][name]:6.3f}")
    for each in rows:
        clean = f"{each['clean_test']:7.3f}" if "clean_test" in each else " " * 7
        figures = f"{each['validation']:10.3f} {each['test']:6.3f} {clean}"
        print(f"{each['row']:42} {figures} {each['num_parameters']:12,} {each['tokens']:12,} {each['minutes']:8.1f}")


def row(name: str, folder: Path, a: argparse.Namespace) -> dict[str, Any]:
    """Return a row of the table, trained first if need be."""
    behind = TEACHERS if name == TOGETHER else [name]
    found = [checkpoint.load(str(trained(each, folder, a))) for each in behind]
    model = found[0].model() if len(found) == 1 else Ensemble([each.model() for each in found])
    told = {
        "row": name,
        "num_parameters": sum(each.num_parameters for each in found),
        "tokens": sum(each.card["tokens"] for each in found),
        "minutes": sum(each.card["minutes"] for each in found),
        "commands": [each.card["command"] for each in found],
    }
    return told | measured(model, found[0].tokenizer(), a.clean)


def trained(name: str, folder: Path, a: argparse.Namespace) -> Path:
    """Return the run of a row, trained to the budget; what it is made of before it."""
    run = folder / name
    if name in FURTHER:
        start, end, factor = FURTHER[name]
        moved(*(trained(each, folder, a) for each in (start, end)), factor, run)
        return run
    if a.measure or name in a.done:
        return run
    a.done.add(name)
    options = [made(option, folder, a) for option in RUNS[name]]
    budget = [] if "--steps" in options else ["--minutes", f"{a.minutes * SHARES[name]:g}"]
    if a.quick:
        budget = ["--steps", "20"]
        options += ["--preset", "tiny"] if "--arch" in options else []
        for option in ("--set", "--steps"):
            if option in options:
                del options[options.index(option) : options.index(option) + 2]
    if stored_config(run) is None:
        seed = [] if "--seed" in options else ["--seed", str(a.seed)]
        command = ["train", *options, *budget, *seed, "-o", str(run)]
    else:
        command = ["train", "--resume", str(run), *(budget or ["--steps", options[options.index("--steps") + 1]])]
    musiclm(*command, "-q")
    return run


def made(option: str, folder: Path, a: argparse.Namespace) -> str:
    """Return an option of RUNS as musiclm takes it: a run or a folder of pieces by its path, made first if need be."""
    if option.startswith("@"):
        return str(trained(option[1:], folder, a))
    if option.startswith("%"):
        return str(written(option[1:], folder, a))
    return option


def written(name: str, folder: Path, a: argparse.Namespace) -> Path:
    """Return a folder of the bundled chorales, and among those for training what the teachers have written."""
    teachers, number, temperature, top_p = WRITTEN[name]
    if not (pieces := folder / name).exists():
        with zipfile.ZipFile(str(resources.files("musiclm") / "chorales.zip")) as archive:
            archive.extractall(pieces)
    for teacher in teachers:
        model = trained(teacher, folder, a)
        if not (told := pieces / "train" / "written" / teacher).exists():
            how = ["--temperature", temperature, "--top-p", top_p, "--no-loop-guard", "--seed", 11, "-q"]
            musiclm("generate", "--model", model, "-n", 4 if a.quick else number, "--bars", 16, *how, "-o", f"{told}/")
    return pieces


def moved(start: Path, end: Path, factor: float, run: Path) -> None:
    """Write the checkpoint whose weights lie `factor` times as far from those of `start` as those of `end` do."""
    first, last = checkpoint.load(str(start)), checkpoint.load(str(end))
    card = last.card | {"further": f"{factor:g} times as far from where it began, chosen on validation", "figures": {}}
    run.mkdir(parents=True, exist_ok=True)
    checkpoint.save(
        run / "best.safetensors",
        extrapolate(first.model(), last.model(), factor),
        arch=last.arch,
        tokenizer=last.tokenizer(),
        card=card,
    )


def musiclm(*arguments: object) -> None:
    """Run a command line; what it prints goes to standard error."""
    subprocess.run([sys.executable, "-m", "musiclm", *map(str, arguments)], check=True, stdout=sys.stderr)


def measured(model: LanguageModel, tokenizer: Tokenizer, clean: Path | None) -> dict[str, Any]:
    """Return nats/cell of each split, and how many cells and pieces were counted."""
    source = bundled(tokenizer)
    model.eval()
    found: dict[str, Any] = {}
    for split in ("validation", "test"):
        surprise = evaluation.measure_loss(model, tokenizer, source.pieces(split))
        found |= {split: surprise.nats_per_token}
        found |= {f"{split}_cells": surprise.num_tokens, f"{split}_pieces": surprise.num_pieces}
    if clean is not None:
        pieces = sorted(source.pieces("test"), key=lambda p: p.name)
        chosen = [pieces[i] for i in json.loads(clean.read_text("utf-8"))["clean"]]
        surprise = evaluation.measure_loss(model, tokenizer, chosen)
        found |= {"clean_test": surprise.nats_per_token, "clean_test_pieces": surprise.num_pieces}
    return found


if __name__ == "__main__":
    main()
