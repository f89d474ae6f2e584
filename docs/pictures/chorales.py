"""Write the beginnings of bundled chorales as MIDI files: pieces by Bach for the lecture's tagger.

python docs/pictures/chorales.py -o runs/pieces/bach
"""

from __future__ import annotations

import argparse
from pathlib import Path

from musiclm import midi
from musiclm.data import open_source

NUM_PIECES, BARS = 60, 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    folder = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    chorales = open_source(None)
    for number, piece in enumerate(chorales.pieces("train")[:NUM_PIECES]):
        score = chorales.tokenizer.decode(piece.tokens)
        beginning = midi.cut(score, 0.0, midi.bar_line(score, 0.0, BARS))
        midi.write(beginning, folder / f"{number:02d}.mid", force=True)


if __name__ == "__main__":
    main()
