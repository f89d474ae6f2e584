"""Make `accompany-seq2seq_transformer`, from the sets' archives to the bundled checkpoint; it can be stopped and continued.

    python recipes/accompany.py DATA/train -o work/ --minutes 80 --bundle checkpoints/

Embedding and decoder are those of `score-transformer`, frozen; the encoder, attention to the source, the last norm and the
head are trained. The checkpoint leaves out what `score-transformer` has.

Four steps, each left out when it is done: mend the sets' quirks and arrange bands as for `score-transformer` (score_data.py,
band_data.py), build a corpus of pairs, train, bundle. Weights of the sets are those of score.py; drums alone have no pairs.

--aligned adds pairs of two bands that play the same song in different styles. The bundled checkpoint was trained without them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from score import DATA, HERE, LICENCE, WEIGHTS, call, musiclm, prepare

NAME = "accompany-seq2seq_transformer"
START = "score-transformer"
ENCODER = {"num_encoder_layers": 2}
DRUMS = "groove-v1.0.0-midi"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder with the sets' .tar.xz")
    parser.add_argument("-o", "--output", type=Path, required=True, help="where all of it is made")
    parser.add_argument("--minutes", type=float, default=80.0, help="of training")
    parser.add_argument("--learning-rate", type=float, default=1.2e-3)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--aligned", action="store_true", help="train on songs by two bands, too")
    parser.add_argument("--bundle", type=Path, help="folder for the checkpoint and its card, checkpoints/ for one")
    arguments = parser.parse_args()
    prepared = prepare(arguments.data, arguments.output)
    corpus, run = arguments.output / "pairs", arguments.output / "accompany"
    if not (corpus / "corpus.json").exists():
        sources = [prepared, *([aligned(arguments.data, arguments.output)] if arguments.aligned else [])]
        musiclm("corpus", "build", *sources, "-o", corpus, "--tokenizer", "score-pairs")
    if (run / "run.json").exists():
        musiclm("train", "--resume", run, "--minutes", arguments.minutes)
    else:
        start = ["--arch", "seq2seq_transformer", "--from", START, "--frozen"]
        start += [part for name, value in ENCODER.items() for part in ("--set", f"{name}={value}")]
        weights = [f"--weight={name}={weight:g}" for name, weight in WEIGHTS.items() if name != DRUMS]
        options = ["--dropout", 0, "--window", 1024, "--batch-size", 4, "--learning-rate", arguments.learning_rate]
        budget = ["--minutes", arguments.minutes, "--seed", arguments.seed, "-o", run]
        musiclm("train", corpus, *start, *options, "--patience", 1000, *weights, *budget)
    if arguments.bundle:
        said = ["--data", DATA, "--licence", LICENCE, "--source", corpus, "-o", arguments.bundle]
        call(sys.executable, HERE / "bundle.py", run, "--name", NAME, *said, "--most-tokens", 100_000)


def aligned(data: Path, folder: Path) -> Path:
    """Return the folder of songs by two bands, which is made unless it is there."""
    made = folder / "aligned"
    if not (made / "done").exists():
        call(sys.executable, HERE / "band_data.py", data, "-o", made, "--aligned")
        (made / "done").touch()
    return made


if __name__ == "__main__":
    main()
