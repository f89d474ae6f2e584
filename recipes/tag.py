"""Train the taggers of this project: style from prepared scores, composer from MAESTRO; a table of labels, then a training.

    python recipes/score_data.py DATA/train -o prepared/ && python recipes/band_data.py DATA/train -o prepared/
    python recipes/tag.py style prepared/ -o work/ --minutes 30
    python recipes/tag.py composer maestro-v3.0.0/ -o work/ --minutes 60 --arch gru
    python recipes/tag.py style prepared/ -o work/ --minutes 30 -- --from score --frozen    # options of musiclm tag train
    python recipes/tag.py style --quick                                                     # to see that it works

style: the label of a file is the marker "style: NAME" that score_data.py wrote; the split is that of the table beside the
files, else by hash. Files without a marker are left out, or with --unsure are examples of none. Of a style with more than
--most training files of one set, the first by hash are taken, so that no set is all of a style.
composer: the --num-labels most frequent single composers, official split. MAESTRO is CC BY-NC-SA 4.0: such a tagger belongs in
checkpoints/noncommercial/.

Writes OUTPUT/labels-NAME.csv, OUTPUT/NAME-tagger.safetensors and its card, OUTPUT/NAME-tagger.md.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter, defaultdict
from importlib import resources
from pathlib import Path

from musiclm import midi
from musiclm.checkpoint import card as cards
from musiclm.checkpoint.model_file import TAGGER, read_model
from musiclm.errors import MidiError
from musiclm.tagging.model import UNSURE, Tagger
from musiclm.tokenizers.score import style_of

Row = tuple[str, str, str]  # file, label, split
FACTS: dict[str, dict[str, str]] = {
    "style": {
        "data": "OpenScore Lieder and Orchestra (CC0), Polish scores and Chopin's first editions (CC BY 4.0, NIFC), POP909 "
        "(MIT), games (BSD-3, Artistic, GPL, zlib, CC BY 4.0), Groove (CC BY 4.0, Magenta), Open Hymnal and JSB chorales "
        "(public domain)",
        "licence": "MIT",
    },
    "composer": {
        "data": "MAESTRO v3.0.0 (Hawthorne et al. 2019)",
        "licence": "CC BY-NC-SA 4.0 (MAESTRO v3, Hawthorne et al. 2019)",
    },
}


def styles(prepared: Path, *, unsure: bool, most: int) -> list[Row]:
    """Return the files of prepared scores with their styles; see the module."""
    splits: dict[str, str] = {}
    for table in sorted(prepared.glob("*.csv")):
        with table.open(encoding="utf-8", newline="") as file:
            splits |= {row["midi_filename"]: row["split"] for row in csv.DictReader(file) if row.get("midi_filename")}
    groups: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for path in sorted(prepared.rglob("*.mid")):
        name = path.relative_to(prepared).as_posix()
        try:
            style = style_of(midi.read(path))
        except MidiError:
            continue
        label = style or (UNSURE if unsure else "")
        if label:
            split = splits.get(name, "")
            groups[label, split, name.split("/")[0]].append((name, label, split))
    rows = []
    for (_, split, _), of_group in groups.items():
        by_hash = sorted(of_group, key=lambda row: hashlib.sha256(row[0].encode()).digest())
        rows += by_hash[:most] if split in ("", "train") else by_hash
    return sorted(rows)


def composers(maestro: Path, num_labels: int) -> list[Row]:
    """Return the files of the most frequent single composers of MAESTRO, with the official split."""
    (table,) = maestro.rglob("maestro-v*.csv")
    with table.open(encoding="utf-8", newline="") as file:
        found = [row for row in csv.DictReader(file) if "/" not in row["canonical_composer"]]
    chosen = {name for name, _ in Counter(row["canonical_composer"] for row in found).most_common(num_labels)}
    folder = table.parent.relative_to(maestro)
    return [
        ((folder / row["midi_filename"]).as_posix(), row["canonical_composer"], row["split"])
        for row in found
        if row["canonical_composer"] in chosen
    ]


def train(rows: list[Row], data: Path, a: argparse.Namespace) -> Tagger:
    """Write the table, train on it, and return the tagger with its card."""
    a.output.mkdir(parents=True, exist_ok=True)
    table, tagger = a.output / f"labels-{a.kind}.csv", a.output / f"{TAGGER.full_name(a.kind)}.safetensors"
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("file", "label", "split"))
        writer.writerows(rows)
    budget = ["--steps", "20", "--preset", "tiny"] if a.quick else ["--minutes", f"{a.minutes:g}"]
    body = [] if any(option.startswith("--from") for option in a.options) else ["--arch", a.arch, "--preset", a.preset]
    options = [*budget, *(body if not a.quick else []), "--pooling", a.pooling, "--seed", str(a.seed), *a.options]
    command = [sys.executable, "-m", "musiclm", "tag", "train", str(table), "--data", str(data), "-o", str(tagger)]
    subprocess.run([*command, *options, "--force"], check=True, stdout=sys.stderr)
    made = Tagger.load(tagger)
    made.card |= FACTS[a.kind] | {"command": " ".join(["python", "recipes/tag.py", a.kind, *options])}
    made.save(tagger)
    tagger.with_suffix(".md").write_text(
        cards.model_page(read_model(tagger, role=TAGGER), tagger.stem), encoding="utf-8"
    )
    return made


def quick_pieces(folder: Path) -> Path:
    """Write some bundled chorales, every other one for piano, with markers of their styles; return the folder."""
    from musiclm.midi import add_text
    from musiclm.tokenizers.score_plan import STYLE_MARKER

    with zipfile.ZipFile(str(resources.files("musiclm") / "chorales.zip")) as archive:
        for i, name in enumerate(sorted(archive.namelist())[:24]):
            score = midi.parse(archive.read(name), name)
            for track in score.tracks if i % 2 else ():
                track.program = 0
            add_text(score, STYLE_MARKER + ("chorale", "piano")[i % 2])
            (folder / "set").mkdir(parents=True, exist_ok=True)
            midi.write(score, folder / "set" / f"{i}.mid")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s KIND [DATA] -o OUTPUT [options] [-- options of musiclm tag train]",
    )
    parser.add_argument("kind", choices=list(FACTS))
    parser.add_argument("data", type=Path, nargs="?", help="prepared scores, or MAESTRO v3 unpacked")
    parser.add_argument("-o", "--output", type=Path, help="where all of it is made")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--arch", default="gru")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--pooling", default="mean")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--num-labels", type=int, default=13, help="composers (13)")
    parser.add_argument("--most", type=int, default=600, help="style: training files of a style from one set (600)")
    parser.add_argument("--unsure", action="store_true", help="style: files without one are examples of none")
    parser.add_argument("--quick", action="store_true", help="a few steps on bundled chorales; style only")
    given, options = sys.argv[1:], []
    if "--" in given:
        at = given.index("--")
        given, options = given[:at], given[at + 1 :]
    a = parser.parse_args(given)
    a.options = options
    with tempfile.TemporaryDirectory() as temporary:
        if a.quick:
            a.kind, a.output = "style", a.output or Path(temporary) / "work"
            a.data = quick_pieces(Path(temporary) / "prepared")
        if a.data is None or a.output is None:
            parser.error("the data and -o are needed, or --quick")
        is_style = a.kind == "style"
        rows = styles(a.data, unsure=a.unsure, most=a.most) if is_style else composers(a.data, a.num_labels)
        made = train(rows, a.data, a)
    print(json.dumps(made.card["figures"], indent=1))


if __name__ == "__main__":
    main()
