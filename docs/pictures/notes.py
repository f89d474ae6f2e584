"""Render single notes of General MIDI instruments, one folder per family: a small set for the lecture's note classifier.

python docs/pictures/notes.py -o runs/notes
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import soundfile
from symusic import Note, Score, Tempo, Track

from musiclm import rendering

FAMILIES = {  # programs, and the lowest pitch; each instrument plays NUM_PITCHES from there, STEP semitones apart
    "bass": (range(32, 36), 28),
    "brass": (range(56, 60), 44),
    "flute": (range(72, 76), 60),
    "guitar": (range(24, 28), 43),
    "keyboard": (range(4), 48),
    "mallet": (range(11, 15), 55),
    "organ": (range(16, 20), 45),
    "reed": (range(65, 69), 50),
    "string": (range(40, 43), 55),
    "synth_lead": (range(80, 84), 50),
    "vocal": (range(52, 55), 48),
}
NUM_PITCHES, STEP = 6, 4
SPACING, HELD = 1.5, 1.0  # seconds from one note to the next, and until the key goes up
VELOCITIES = (60, 80, 100)
TICKS = 480  # per quarter, of half a second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    folder = parser.parse_args().output
    score, names = Score(TICKS), []
    score.tempos.append(Tempo(0, 120))
    for family, (programs, lowest) in FAMILIES.items():
        for program in programs:
            track = Track(family, program)
            for i in range(NUM_PITCHES):
                pitch = lowest + STEP * i
                at = round(2 * TICKS * SPACING) * len(names)
                track.notes.append(Note(at, round(2 * TICKS * HELD), pitch, VELOCITIES[len(names) % len(VELOCITIES)]))
                names.append(folder / family / f"program-{program:03d}" / f"{pitch}.wav")
            score.tracks.append(track)
    with tempfile.TemporaryDirectory() as temporary:
        whole = Path(temporary) / "all.wav"
        rendering.render(score, whole)
        rate = soundfile.info(whole).samplerate
        for number, name in enumerate(names):
            name.parent.mkdir(parents=True, exist_ok=True)
            start = round(SPACING * number * rate)
            sound, _ = soundfile.read(whole, round(SPACING * rate), start)
            soundfile.write(name, sound.mean(axis=1), rate, subtype="PCM_16")


if __name__ == "__main__":
    main()
