"""Write the bundled chorales into the folders major and minor, by the key whose profile fits their pitches best.

    python docs/pictures/modes.py -o runs/modes

Labels for the lecture: what `musiclm tag train` learns from there is the mode of a chorale in any key.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from symusic import Score

from musiclm import midi
from musiclm.data import open_source
from musiclm.midi.theory import key_profiles


def mode(score: Score) -> str:
    """Return major or minor (Krumhansl and Kessler 1982)."""
    weights = np.zeros(12)
    for track in score.tracks:
        for note in track.notes:
            weights[note.pitch % 12] += note.duration
    return "major" if int(np.argmax(key_profiles() @ (weights - weights.mean()))) < 12 else "minor"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    folder = parser.parse_args().output
    chorales = open_source(None)
    for number, piece in enumerate(chorales.pieces("all")):
        score = chorales.tokenizer.decode(piece.tokens)
        target = folder / mode(score) / f"{number:03d}.mid"
        target.parent.mkdir(parents=True, exist_ok=True)
        midi.write(score, target, force=True)


if __name__ == "__main__":
    main()
