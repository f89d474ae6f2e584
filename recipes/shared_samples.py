"""Find programs that a soundfont plays with the samples of another one: what one of them teaches, the other must not measure.

    python recipes/shared_samples.py --families gm-families.json --unseen GeneralUser-v1.47.sf2 FluidR3_GM.sf2 A320U.sf2 ...

Each program of bank 0 with a family is played at four pitches by both; the figures are the largest correlation of their
first seconds at any shift. Of the same sample, that is 1 or little less; of other samples usually 0.2 to 0.7, more for nearly
sinusoidal sounds. Needs tinysoundfont, see soundfonts.py.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soxr
from soundfonts import FILE_RATE, RATE

VELOCITY = 100
PLACES = (0.2, 0.4, 0.6, 0.8)  # of the pitches, in the program's range
SIZE = 1 << 16  # of the Fourier transform, for two seconds

Player = Callable[[int, int], np.ndarray | None]


def player(path: Path) -> Player:
    """Return a function of program and pitch that gives a second of a note, mono at FILE_RATE; None without the program."""
    import tinysoundfont

    synth = tinysoundfont.Synth(samplerate=RATE, gain=-6)
    soundfont = synth.sfload(str(path))

    def play(program: int, pitch: int) -> np.ndarray | None:
        try:
            synth.program_select(0, soundfont, 0, program)
        except RuntimeError:
            return None
        synth.noteon(0, pitch, VELOCITY)
        audio = np.frombuffer(synth.generate_simple(RATE), np.float32).copy()
        synth.sounds_off(0)
        synth.generate_simple(RATE)  # until it is silent
        return soxr.resample(audio.reshape(-1, 2).mean(axis=1), RATE, FILE_RATE)

    return play


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return the largest correlation of two sounds at any shift, from 0 to 1; of at most SIZE / 2 samples each."""
    a, b = a - a.mean(), b - b.mean()
    products = np.fft.irfft(np.fft.rfft(a, SIZE) * np.conj(np.fft.rfft(b, SIZE)), SIZE)
    return float(np.abs(products).max() / np.sqrt((a**2).sum() * (b**2).sum() + 1e-12))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("soundfonts", type=Path, nargs="+")
    parser.add_argument("--families", type=Path, required=True, help="gm-families.json")
    parser.add_argument("--unseen", type=Path, required=True, help="the soundfont that is only measured")
    parser.add_argument("--least", type=float, default=0.98, help="list correlations from here on")
    a = parser.parse_args()
    families = json.loads(a.families.read_text())["programs"]
    unseen = player(a.unseen)
    print("| program | family | soundfont | correlation |\n|---|---|---|---|")
    for path in a.soundfonts:
        other = player(path)
        for program, family in sorted((int(p), f) for p, f in families.items()):
            span = family["highest"] - family["lowest"]
            pitches = [int(family["lowest"] + place * span) for place in PLACES]
            pairs = [(unseen(program, pitch), other(program, pitch)) for pitch in pitches]
            found = max((correlation(x, y) for x, y in pairs if x is not None and y is not None), default=0.0)
            if found >= a.least:
                print(f"| {program} | {family['family']} | {path.stem} | {found:.3f} |")


if __name__ == "__main__":
    main()
