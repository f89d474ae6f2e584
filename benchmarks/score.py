"""Make `score-transformer`, from the sets' archives to the bundled checkpoint; stopped anywhere, it goes on from there.

    python benchmarks/score.py DATA/train -o work/ --minutes 66

Four steps, each left out when it is done: mend the sets' quirks (score_data.py), build a corpus of all of them (`musiclm
corpus build`), train (`musiclm train`, gone on with by --resume), bundle (bundle.py). Weights: the one band-like set three
times as often as its size says, pop half as often again, since two thirds of the notes are classical scores.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
DATA = "OpenScore Lieder and Orchestra, Polish scores, Chopin first editions, POP909, free games, Groove, Open Hymnal"
LICENCE = "CC BY 4.0 (credits in NOTICE)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder with the sets' .tar.xz")
    parser.add_argument("-o", "--output", type=Path, required=True, help="where all of it is made")
    parser.add_argument("--minutes", type=float, default=66.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bundle", type=Path, help="folder for the checkpoint and its card, checkpoints/ for one")
    arguments = parser.parse_args()
    folder = arguments.output
    folder.mkdir(parents=True, exist_ok=True)
    prepared, corpus, run = folder / "prepared", folder / "score", folder / "score-transformer"
    if not (prepared / "done").exists():
        call(sys.executable, HERE / "score_data.py", arguments.data, "-o", prepared)
        (prepared / "done").touch()
    if not (corpus / "corpus.json").exists():
        musiclm("corpus", "build", prepared, "-o", corpus, "--tokenizer", "score")
    if (run / "run.json").exists():
        musiclm("train", "--resume", run, "--minutes", arguments.minutes)
    else:
        options = ["--arch", "transformer", "--preset", "small", "--context", 1024, "--batch-size", 2, "--dropout", 0]
        options += ["--learning-rate", 1e-3, "--weight", "free-game-midi=3", "--weight", "pop909=1.5"]
        musiclm("train", corpus, *options, "--minutes", arguments.minutes, "--seed", arguments.seed, "-o", run)
    if arguments.bundle:
        told = ["--data", DATA, "--licence", LICENCE, "--source", corpus, "-o", arguments.bundle]
        call(sys.executable, HERE / "bundle.py", run, "--name", "score-transformer", *told)


def musiclm(*arguments: object) -> None:
    call(sys.executable, "-m", "musiclm", *arguments)


def call(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True)


if __name__ == "__main__":
    main()
