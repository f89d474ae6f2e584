"""Make `score-transformer`, from the sets' archives to the bundled checkpoint; it can be stopped at any moment and continued.

    python recipes/score.py DATA/train -o work/ --start score-transformer --minutes 88 --bundle checkpoints/

Five steps, each left out when it is done: mend the sets' quirks (score_data.py) and arrange bands (band_data.py), build a
corpus of all of them (`musiclm corpus build`), train (`musiclm train`, continued by --resume), bundle (bundle.py). The model
starts from a checkpoint, so that no training is lost: one of version 2 of the tokens grows first (grow_score.py); one of
version 5 is trained as it is. Without --start the weights begin at random. --name gives the run a folder of its own, for
another round that starts from the last one.

Weights: what is rare (games, chorales, hymns) counts three times, drums half, bands made by MMA and Polish scores two thirds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from musiclm import checkpoint, tokenizers

HERE = Path(__file__).parent
DATA = (
    "OpenScore Lieder and Orchestra, Polish scores, Chopin first editions, POP909, bands arranged from POP909 by MMA, "
    "free games, Groove, Open Hymnal, Bach chorales"
)
SAMPLING = {"temperature": 1.0, "rhythm_temperature": 0.95, "key": "auto", "key_strength": 0.5}
LICENCE = "CC BY 4.0 (credits in NOTICE)"
LAYERS = 5  # of a model that grows
WEIGHTS = {
    "free-game-midi": 3,
    "free-game-midi-2": 3,
    "chorales": 3,
    "openhymnal-midi": 3,
    "pop909": 1.2,
    "pop909-bands": 0.6,
    "polish-scores-sample-midi": 0.7,
    "groove-v1.0.0-midi": 0.5,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder with the sets' .tar.xz")
    parser.add_argument("-o", "--output", type=Path, required=True, help="where all of it is made")
    parser.add_argument("--start", help="a checkpoint to start from; left out, random weights")
    parser.add_argument("--minutes", type=float, default=88.0, help="of training")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--name", default="run", help="of the run's folder")
    parser.add_argument("--bundle", type=Path, help="folder for the checkpoint and its card, checkpoints/ for one")
    arguments = parser.parse_args()
    folder = arguments.output
    prepared = prepare(arguments.data, folder)
    corpus, run = folder / "corpus", folder / arguments.name
    if not (corpus / "corpus.json").exists():
        musiclm("corpus", "build", prepared, "-o", corpus, "--tokenizer", "score")
    if (run / "run.json").exists():
        musiclm("train", "--resume", run, "--minutes", arguments.minutes)
    else:
        start = ["--from", started(arguments.start, folder)] if arguments.start else new_model()
        options = ["--learning-rate", arguments.learning_rate, "--batch-size", 4, "--dropout", 0, "--patience", 1000]
        weights = [part for name, weight in WEIGHTS.items() for part in ("--weight", f"{name}={weight:g}")]
        budget = ["--minutes", arguments.minutes, "--seed", arguments.seed, "-o", run]
        musiclm("train", corpus, *start, *options, *weights, *budget)
    if arguments.bundle:
        said = ["--data", DATA, "--licence", LICENCE, "--source", corpus, "-o", arguments.bundle]
        said += ["--most-tokens", 100_000, "--sampling", json.dumps(SAMPLING)]
        call(sys.executable, HERE / "bundle.py", run, "--name", "score-transformer", *said)


def prepare(data: Path, folder: Path) -> Path:
    """Return the folder of mended sets and arranged bands, which is made unless it is there.

    Args:
        data: the folder with the sets' archives.
        folder: where all of it is made.
    """
    prepared = folder / "prepared"
    prepared.mkdir(parents=True, exist_ok=True)
    if not (prepared / "done").exists():
        call(sys.executable, HERE / "score_data.py", data, "-o", prepared)
        call(sys.executable, HERE / "band_data.py", data, "-o", prepared)
        (prepared / "done").touch()
    return prepared


def started(model: str, folder: Path) -> str | Path:
    """Return a checkpoint with the plan of score tokens to start from: a model's own, or one grown from it."""
    tokenizer = checkpoint.load(model).tokenizer()
    if tokenizer.vocab_size == tokenizers.create("score-infill").vocab_size:
        return model
    grown = folder / "grown.safetensors"
    if not grown.exists():
        call(sys.executable, HERE / "grow_score.py", model, "-o", grown, "--layers", LAYERS)
    return grown


def new_model() -> list[object]:
    """Return the options of a model with random weights."""
    size = ["--arch", "transformer", "--preset", "small", "--layers", LAYERS, "--context", 1024]
    return [*size, "--tokenizer", "score-infill"]


def musiclm(*arguments: object) -> None:
    call(sys.executable, "-m", "musiclm", *arguments)


def call(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True)


if __name__ == "__main__":
    main()
