"""Labels of whole pieces: composer and style, beside the majority and a logistic regression on histograms.

    python benchmarks/tagging.py --part composer --data maestro-v3.0.0/ -o work/ --minutes 20
    python benchmarks/tagging.py --part composer --data maestro-v3.0.0/ -o work/ --archs "" --from piano-transformer.safetensors
    python benchmarks/tagging.py --part curve --data maestro-v3.0.0/ -o work/ --archs gru --from work/lm.safetensors
    python benchmarks/tagging.py --part style --data prepared/ --labels work/labels-style.csv -o work/ \\
        --model work/style-tagger.safetensors \\
        --other chorale=jsb/ --other piano=asap-scores/ --other unsure=nottingham/
    python benchmarks/tagging.py --part composer --quick                 # to see that it works; any part

One thread; every budget is CPU time of the process, so that a busy machine does not distort it. An interrupted command
continues when it is given again: tokens are cached, and a tagger is trained once and measured once. Weights, temperature and
threshold are selected on validation; test is only reported. Pieces are whole test pieces; crops are their crops by themselves.
Accuracies have binomial standard errors, macro-F1 has that of a bootstrap over pieces.

composer  the --num-labels most frequent single composers of MAESTRO v3 on its official split. Each architecture of --archs from
          scratch; each language model of --from fine-tuned, and with its body frozen.
curve     test accuracy against the number of labelled pieces of each composer, --counts: all ways of `composer`. The validation
          pieces are as few, one for five.
style     the table of labels of recipes/tag.py: always the most frequent style, the logistic regression, and --model
          (or --archs trained here). --other LABEL=FOLDER are pieces of another source, of which each should have that label,
          "unsure" for none: the share that has it, the share that is unsure, and the commonest answers.

The logistic regression has, of the same neutral copy, the shares of pitches, pitch classes relative to the most frequent one,
intervals, durations, times between onsets, notes that sound together, and families; standardised, C selected on validation.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import tagging_data as data
import tagging_ways as ways
import torch
from tagging_baselines import baselines

from musiclm.tagging.measure import measure
from musiclm.tagging.model import Tagger


def composer(a: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of all ways on the composers of MAESTRO."""
    files = data.composers(a.data, a.num_labels)
    rows = baselines(files, a)
    for way in ways.ways(a):
        rows.append(ways.trained(way, files, a, a.output / "composer" / way.name, minutes=a.minutes))
    return {"rows": rows}


def curve(a: argparse.Namespace) -> dict[str, Any]:
    """Return the test figures of all ways against the number of labelled pieces of each label."""
    files = data.composers(a.data, a.num_labels)
    rows = []
    for count in a.counts:
        for seed in a.seeds:
            few = data.subset(files, count, seed)
            rows += [row | {"count": count, "seed": seed} for row in baselines(few, a)]
            for way in ways.ways(a):
                folder = a.output / "curve" / f"{way.name}-{count}-seed{seed}"
                row = ways.trained(way, few, a, folder, minutes=a.minutes, seed=seed)
                rows.append(row | {"count": count, "seed": seed})
    return {"rows": rows}


def style(a: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of styles on the test pieces, and on other sources."""
    files = data.table(a.labels or a.data / "labels.csv", a.data)
    rows = baselines(files, a)
    taggers = [(Path(name).stem, Tagger.load(name)) for name in a.models]
    for way in ways.ways(a) if not taggers else ():
        folder = a.output / "style" / way.name
        rows.append(ways.trained(way, files, a, folder, minutes=a.minutes))
        taggers.append((way.name, Tagger.load(folder / ways.FILE)))
    for name, tagger in taggers if a.models else ():
        pieces = data.pieces(files, tagger.tokenizer, tagger.steps, a.output)
        rows.append({"way": name} | ways.figures(measure(tagger, pieces.pieces("test"))))
    others = [
        {"way": name} | ways.elsewhere(tagger, *given.split("=", 1)) for name, tagger in taggers for given in a.others
    ]
    return {"rows": rows, "others": others}


PARTS = {"composer": composer, "curve": curve, "style": style}


def show(found: dict[str, Any]) -> None:
    """Print a table."""
    print(f"{'':34}{'n':>5}{'pieces':>16}{'macro-F1':>16}{'crops':>8}{'unsure':>8}{'sure':>8}{'CPU s':>8}")
    for row in found["rows"]:
        name = row["way"] + (f", {row['count']} each, seed {row['seed']}" if "count" in row else "")
        if "problem" in row:
            print(f"{name:34} {row['problem']}")
            continue
        cells = [f"{row['num_pieces']:>5}", f"{row['accuracy']:>8.3f} ± {row['accuracy_standard_error']:.3f}"]
        cells.append(f"{row['macro_f1']:>8.3f} ± {row['macro_f1_standard_error']:.3f}")
        cells += [f"{row[k]:>8.3f}" if row.get(k) is not None else f"{'':8}" for k in ("crop_accuracy", "unsure")]
        cells.append(f"{row['accuracy_when_sure']:>8.3f}" if row.get("accuracy_when_sure") is not None else f"{'':8}")
        cells.append(f"{row['cpu_seconds']:>8.0f}" if "cpu_seconds" in row else "")
        print(f"{name:34}" + "".join(cells))
    for row in found.get("others", ()):
        answers = ", ".join(f"{label} {share:.2f}" for label, share in row["answers"].items())
        print(
            f"{row['way']}: {row['folder']}, should be {row['label']}: {row['share']:.3f} ± {row['standard_error']:.3f} of "
            f"{row['num_pieces']}, unsure {row['unsure']:.3f}; answers {answers}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=list(PARTS), required=True)
    parser.add_argument("--data", type=Path, help="MAESTRO v3 unpacked; for style the folder of the files")
    parser.add_argument("--labels", type=Path, help="style: the table of labels; left out, labels.csv in --data")
    parser.add_argument("-o", "--output", type=Path, help="where tokens and taggers are kept")
    parser.add_argument("--archs", default="gru", help="bodies from scratch, by comma; '' for none")
    parser.add_argument("--from", dest="models_from", nargs="*", default=[], help="language models to start from")
    parser.add_argument("--model", dest="models", nargs="*", default=[], help="style: taggers that are trained already")
    parser.add_argument("--other", dest="others", action="append", default=[], metavar="LABEL=FOLDER")
    parser.add_argument("--num-labels", type=int, default=13, help="composers (13)")
    parser.add_argument("--counts", default="2,5,10,20", help="curve: labelled pieces of each composer")
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--pooling", default="mean")
    parser.add_argument("--tokenizer", help="of bodies from scratch; left out, that of musiclm tag train")
    parser.add_argument("--length", type=int, help="tokens of a crop; left out, the architecture's")
    parser.add_argument("--learning-rate", type=float, help="left out, the architecture's")
    parser.add_argument("--minutes", type=float, default=10.0, help="CPU minutes of each training")
    parser.add_argument("--balance", type=float, default=1.0, help="1: all labels alike; 0: as frequent as they are")
    parser.add_argument("--quick", action="store_true", help="bundled chorales and a few steps: to see that it works")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    a = parser.parse_args()
    if not a.quick and (a.data is None or a.output is None):
        parser.error("--data and -o are needed, or --quick")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        if a.quick:
            data.make_quick(a, Path(temporary))
        a.archs = [name for name in a.archs.split(",") if name]
        a.counts, a.seeds = ([int(n) for n in each.split(",")] for each in (a.counts, a.seeds))
        found = PARTS[a.part](a)
    if a.json:
        print(json.dumps({"part": a.part, "command": " ".join(sys.argv), **found}, indent=1))
    else:
        show(found)


if __name__ == "__main__":
    main()
