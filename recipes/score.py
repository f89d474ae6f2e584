"""Make `score-transformer`, from the sets' archives to the bundled checkpoint; it can be stopped at any moment and continued.

    python recipes/score.py DATA/train -o work/ --minutes 100 --infill-minutes 22 --more-minutes 100 --told-minutes 75

Seven steps, each left out when it is done: mend the sets' quirks (score_data.py), build a corpus of all of them (`musiclm
corpus build`), train without features (`musiclm train`, continued by --resume), continue with masked spans (`--from` that,
`--tokenizer score-infill`), once more at the rate that it began with, and again with features, bundle (bundle.py). Whoever
begins anew may leave out the steps without features, which are there since features came later; what that saves was not
measured. Weights: the one band-like set three times as often as its size says, pop half as often again, since two thirds of
the notes are classical scores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
DATA = "OpenScore Lieder and Orchestra, Polish scores, Chopin first editions, POP909, free games, Groove, Open Hymnal"
SAMPLING = {"temperature": 0.9, "top_p": 0.98}  # of benchmarks/judge.py's rounds
LICENCE = "CC BY 4.0 (credits in NOTICE)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder with the sets' .tar.xz")
    parser.add_argument("-o", "--output", type=Path, required=True, help="where all of it is made")
    parser.add_argument("--minutes", type=float, default=100.0)
    parser.add_argument("--infill-minutes", type=float, default=22.0, help="then, with infilling")
    parser.add_argument("--more-minutes", type=float, default=100.0, help="then, the same at a higher rate again")
    parser.add_argument("--told-minutes", type=float, default=75.0, help="then, with features")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bundle", type=Path, help="folder for the checkpoint and its card, checkpoints/ for one")
    arguments = parser.parse_args()
    folder = arguments.output
    folder.mkdir(parents=True, exist_ok=True)
    prepared, corpus, run = (folder / name for name in ("prepared", "score", "plain"))
    filling, longer, last = folder / "filling", folder / "longer", folder / "score-transformer"
    plain = ["--tokenizer", 'score-infill:{"features": 1}']
    if not (prepared / "done").exists():
        call(sys.executable, HERE / "score_data.py", arguments.data, "-o", prepared)
        (prepared / "done").touch()
    if not (corpus / "corpus.json").exists():
        musiclm("corpus", "build", prepared, "-o", corpus, "--tokenizer", "score")
    common = ["--batch-size", 2, "--dropout", 0, "--weight", "free-game-midi=3", "--weight", "pop909=1.5"]
    options = ["--arch", "transformer", "--preset", "small", "--context", 1024, "--learning-rate", 1e-3, *common]
    options += ["--tokenizer", 'score:{"features": 1}']
    train(corpus, run, arguments.minutes, arguments.seed, options)
    options = ["--from", run, *plain, "--learning-rate", 5e-4, "--patience", 1000, *common]
    train(corpus, filling, arguments.infill_minutes, arguments.seed, options)
    options = ["--from", filling, *plain, "--learning-rate", 1e-3, "--patience", 1000, *common]
    train(corpus, longer, arguments.more_minutes, arguments.seed + 1, options)
    options = ["--from", longer, "--tokenizer", "score-infill", "--learning-rate", 1e-3, "--patience", 1000, *common]
    train(corpus, last, arguments.told_minutes, arguments.seed + 2, options)
    if arguments.bundle:
        told = ["--data", DATA, "--licence", LICENCE, "--source", corpus, "-o", arguments.bundle]
        told += ["--most-tokens", 100_000, "--sampling", json.dumps(SAMPLING)]
        call(sys.executable, HERE / "bundle.py", last, "--name", "score-transformer", *told)


def train(corpus: Path, run: Path, minutes: float, seed: int, options: list[object]) -> None:
    """Have a run trained for so many minutes, from where it stands."""
    if (run / "run.json").exists():
        musiclm("train", "--resume", run, "--minutes", minutes)
    else:
        musiclm("train", corpus, *options, "--minutes", minutes, "--seed", seed, "-o", run)


def musiclm(*arguments: object) -> None:
    call(sys.executable, "-m", "musiclm", *arguments)


def call(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True)


if __name__ == "__main__":
    main()
