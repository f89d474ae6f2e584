"""Render single notes from the patches of Freepats: a folder of 16 kHz WAV files and its notes.csv, as soundfonts.py writes.

    python recipes/freepats.py --families gm-families.json -o freepats/

Needs the Debian packages freepats and timidity, which plays its Gravis Ultrasound patches, here without reverberation and
chorus. Every program that has a patch and a family is played at pitches spread over its realistic range, in five velocities,
held for 0.15 to 2 seconds, at 48 kHz.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import soxr
import symusic
from soundfonts import FILE_RATE, LONGEST, RATE, VELOCITIES, save_note, without_end, write_table

SOURCE = "freepats"
CONFIG = Path("/etc/timidity/freepats.cfg")
LEFT_OUT = {7, 45, 46}  # samples that the soundfont GeneralUser, which is only measured, holds too
APART = 4.0  # seconds from note to note
PLAY = ("-EFreverb=0", "-EFchorus=0", "-EFdelay=0", "-EFns=0", "--preserve-silence", "-s", str(RATE), "-Ow")


def patches(config: Path) -> list[int]:
    """Return the programs of bank 0 that have a patch."""
    bank = config.read_text().split("\nbank 0", 1)[1]
    return [int(number) for number in re.findall(r"^\s*(\d+)\s+\S+\.pat", bank, re.MULTILINE)]


def played(program: int, notes: list[tuple[int, int, float]]) -> list[np.ndarray]:
    """Return notes (pitch, velocity, seconds held) of a program, mono at RATE, LONGEST seconds each."""
    score = symusic.Score(1000)
    score.tempos.append(symusic.Tempo(0, 60.0))  # a tick is a millisecond
    track = symusic.Track(program=program)
    for i, (pitch, velocity, held) in enumerate(notes):
        track.notes.append(symusic.Note(int(1000 * APART * i), int(1000 * held), pitch, velocity))
    score.tracks.append(track)
    with tempfile.TemporaryDirectory() as folder:
        midi, wav = Path(folder, "notes.mid"), Path(folder, "notes.wav")
        score.dump_midi(midi)
        subprocess.run(["timidity", "-c", CONFIG, *PLAY, "-o", wav, midi], check=True, stdout=subprocess.DEVNULL)
        audio = soundfile.read(wav, always_2d=True)[0].mean(axis=1)
    audio = np.pad(audio, (0, int(RATE * APART)))
    starts = (int(RATE * APART) * i for i in range(len(notes)))
    return [audio[start : start + int(RATE * LONGEST)] for start in starts]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", type=Path, required=True, help="gm-families.json")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--notes", type=int, default=48, help="of each program")
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    if not CONFIG.is_file():
        raise SystemExit(f"{CONFIG} is missing: apt-get install freepats timidity")
    families = json.loads(a.families.read_text())["programs"]
    began, rows, silent = time.perf_counter(), [], 0
    a.output.mkdir(parents=True, exist_ok=True)
    for program in patches(CONFIG):
        family = families.get(str(program))
        if family is None or program in LEFT_OUT:
            continue
        rng = np.random.default_rng([a.seed, *SOURCE.encode(), program])
        edges = np.linspace(family["lowest"], family["highest"] + 1, a.notes + 1)
        pitches = [min(int(rng.uniform(edges[i], edges[i + 1])), family["highest"]) for i in range(a.notes)]
        notes = [
            (p, int(rng.choice(VELOCITIES)), float(np.exp(rng.uniform(np.log(0.15), np.log(2.0))))) for p in pitches
        ]
        for i, audio in enumerate(played(program, notes)):
            file = f"{program:03d}-{i:03d}.wav"
            if not save_note(a.output / file, without_end(soxr.resample(audio, RATE, FILE_RATE))):
                silent += 1
                continue
            rows.append(
                [file, family["family"], SOURCE, f"{SOURCE}-{program:03d}", notes[i][0], 0, f"program {program}"]
            )
    write_table(a.output, rows)
    print(f"{a.output}: {len(rows)} notes, {silent} silent ones left out, {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
