"""The chorale table: nats a cell of each architecture on the JSB chorales, from nothing, by one command.

    python benchmarks/chorales.py --minutes 100 --clean jsb-clean-test.json -o work/
    python benchmarks/chorales.py --quick

Each architecture is a run of `musiclm train` in --output and goes on where it was stopped; the checkpoint with the lowest
validation nats of its run is measured. --minutes is the budget of one architecture. Conditions, the same for each row:

- data: the bundled 382 chorales of Boulanger-Lewandowski et al. (2012), four voices on a sixteenth grid, official split of
  229 / 76 / 77 pieces; training on the 229 and their transpositions that stay within the pitches of those 229;
- a token is what a voice has in a sixteenth: all 73,632 validation and 75,600 test cells count, marks around a piece do not;
- each piece is read from its beginning: a prediction sees all cells before it, at most `context` of them (transformers);
- three training windows in four are of a chorale with its voices in any of their 24 orders, forwards or backwards (`grid`,
  features of version 3), and dropout is what `DROPOUT` says; measured is the order soprano, alto, tenor, bass, forwards;
- natural logarithm; the architecture's own recipe (`musiclm/models/NAME.py`), chosen on validation; test read at the end;
- --clean: the test pieces that share no tune with a training piece, a figure of their own.

Published, validation: Coconet in chronological order 0.436, Transformer 0.417, with relative attention over time and pitch
0.335 (Huang et al. 2018, table 2).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from musiclm import checkpoint, corpus, evaluation, models, tokens
from musiclm.plan import stored_plan

DROPOUT = {"rnn": 0.1, "lstm": 0.35, "gru": 0.35, "absolute": 0.25, "transformer": 0.25}
SET = {"absolute": ["--set", "size=192"], "transformer": ["--set", "size=192"]}  # else small: 256 learn by heart sooner
PUBLISHED = {"Coconet, chronological": 0.436, "Transformer": 0.417, "Transformer, relative over time and pitch": 0.335}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", "--archs", dest="archs", default=",".join(models.names()), help="separated by commas")
    parser.add_argument("--minutes", type=float, default=100.0, help="of each architecture")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clean", type=Path, help='JSON whose "clean" lists indices into the test split')
    parser.add_argument("-o", "--output", type=Path, help="where the runs are; left out, a folder that goes at the end")
    parser.add_argument("--quick", action="store_true", help="the smallest models, 20 steps each")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = a.output or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        rows = [measured(arch, trained(arch, folder / arch, a), a.clean) for arch in a.archs.split(",")]
    source = corpus.bundled(tokens.create("grid"))
    baselines = {split: evaluation.baselines(source, split) for split in ("validation", "test")}
    if a.json:
        print(json.dumps({"rows": rows, "baselines": baselines, "published_validation": PUBLISHED}))
        return
    print("nats a cell                                validation   test   clean   parameters  tokens seen  minutes")
    for name, nats in PUBLISHED.items():
        print(f"{name:42} {nats:10.3f}")
    for name in baselines["test"]:
        print(f"{name + ' (baseline)':42} {baselines['validation'][name]:10.3f} {baselines['test'][name]:6.3f}")
    for row in rows:
        clean = f"{row['clean_test']:7.3f}" if "clean_test" in row else " " * 7
        figures = f"{row['validation']:10.3f} {row['test']:6.3f} {clean}"
        print(f"{row['arch']:42} {figures} {row['num_parameters']:12,} {row['tokens']:12,} {row['minutes']:8.1f}")


def trained(arch: str, run: Path, a: argparse.Namespace) -> Path:
    """Return the run of an architecture, trained to the budget."""
    budget = ["--steps", "20", "--preset", "tiny"] if a.quick else ["--minutes", f"{a.minutes:g}"]
    if arch in DROPOUT:
        budget += ["--dropout", f"{DROPOUT[arch]:g}", *(() if a.quick else SET.get(arch, ()))]
    if stored_plan(run) is not None:
        command = ["train", "--resume", str(run), *budget[:2]]
    else:
        command = ["train", "--arch", arch, *budget, "--seed", str(a.seed), "-o", str(run)]
    subprocess.run([sys.executable, "-m", "musiclm", *command, "-q"], check=True, stdout=sys.stderr)
    return run


def measured(arch: str, run: Path, clean: Path | None) -> dict[str, Any]:
    """Return a row of the table."""
    best = checkpoint.load(str(run))
    model, tokenizer = best.model(), best.tokenizer()
    source = corpus.bundled(tokenizer)
    row: dict[str, Any] = {"arch": arch, "num_parameters": best.num_parameters, "config": best.config}
    row |= {k: best.card[k] for k in ("tokens", "minutes", "precision", "command")}
    for split in ("validation", "test"):
        found = evaluation.surprise(model, tokenizer, source.pieces(split))
        row |= {split: found.nats_per_token, f"{split}_cells": found.num_tokens, f"{split}_pieces": found.num_pieces}
    if clean is not None:
        pieces = sorted(source.pieces("test"), key=lambda p: p.name)
        chosen = [pieces[i] for i in json.loads(clean.read_text("utf-8"))["clean"]]
        found = evaluation.surprise(model, tokenizer, chosen)
        row |= {"clean_test": found.nats_per_token, "clean_test_pieces": found.num_pieces}
    return row


if __name__ == "__main__":
    main()
