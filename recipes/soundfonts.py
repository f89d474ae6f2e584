"""Render single notes from General-MIDI soundfonts: a folder of 16 kHz WAV files and its notes.csv.

    python recipes/soundfonts.py --families gm-families.json -o renders/ FluidR3_GM.sf2 A320U.sf2 ...

Needs tinysoundfont (`pip install --no-deps tinysoundfont`), which has no reverb and no chorus. Every preset below bank
120 whose program has a family is played at pitches spread over its realistic range, in five velocities, held for 0.15
to 2 seconds and then released, at 48 kHz, because a synthesiser's own 16 kHz output aliases. Presets that play samples
of other sources are left out (see LEFT_OUT_PROGRAMS and LEFT_OUT_BANKS).
"""

from __future__ import annotations

import argparse
import csv
import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

RATE, FILE_RATE = 48_000, 16_000  # Hz
LONGEST = 2.4  # seconds of a file
VELOCITIES = (25, 50, 75, 100, 127)  # those of NSynth
FIRST_SPECIAL_BANK = 120  # percussion, sound effects, MT-32
# MuseScore General: its piano and its string sections are recordings that other sources hold too; its "Expr." banks
# repeat the plain ones. The second lists are samples that GeneralUser, which is only measured, holds too: the largest
# correlation of the waveforms of a note is 0.98 or more.
LEFT_OUT_PROGRAMS = {
    "MuseScore_General_Full": {0, 1, 3, 44, 45, 48, 49} | {5, 10, 39, 42},
    "TimGM6mb": {53, 108},
    "sf_GMbank": {53, 108},
    "A320U": {108},
}
LEFT_OUT_BANKS = {"MuseScore_General_Full": {8, 17, 18, 20, 21, 25, 26, 30, 31, 40, 41, 50, 51}}
# Soundfonts that share samples count as one source, so that a split by source never tears them apart.
SOURCES = {
    "FluidR3_GM": "C1",
    "MuseScore_General_Full": "C1",
    "TimGM6mb": "C2",
    "sf_GMbank": "C2",
    "A320U": "C2",
    "GeneralUser-v1.47": "C3",
    "OPL-3_FM_128M": "C4",
}


def presets(path: Path) -> list[tuple[int, int, str]]:
    """Return (bank, program, name) of each preset of a soundfont, in order."""
    with path.open("rb") as file:
        file.seek(12)
        for name, size, start in _chunks(file, path.stat().st_size):
            if name == b"LIST" and file.read(4) == b"pdta":
                for inner, length, _ in _chunks(file, start + size):
                    if inner == b"phdr":
                        records = list(struct.iter_unpack("<20sHHHIII", file.read(length)))[:-1]
                        return sorted((r[2], r[1], r[0].split(b"\0")[0].decode("latin-1")) for r in records)
    raise SystemExit(f"{path} is not a soundfont")


def _chunks(file, end: int) -> Iterator[tuple[bytes, int, int]]:
    at = file.tell()
    while at < end - 7:
        file.seek(at)
        name, size = struct.unpack("<4sI", file.read(8))
        yield name, size, at + 8
        at += 8 + size + size % 2


def render(synth, soundfont: int, bank: int, program: int, pitch: int, velocity: int, held: float) -> np.ndarray:
    """Return one note, mono at 16 kHz, cut where it has died away."""
    synth.program_select(0, soundfont, bank, program)
    synth.noteon(0, pitch, velocity)
    parts = [np.frombuffer(synth.generate_simple(int(held * RATE)), np.float32).copy()]
    synth.noteoff(0, pitch)
    parts.append(np.frombuffer(synth.generate_simple(int((LONGEST - held) * RATE)), np.float32).copy())
    synth.sounds_off(0)
    synth.generate_simple(RATE // 10)
    return without_end(soxr.resample(np.concatenate(parts).reshape(-1, 2).mean(axis=1), RATE, FILE_RATE))


def without_end(mono: np.ndarray) -> np.ndarray:
    """Return a note cut where it has died away: where it stays 60 dB below its peak."""
    loud = np.flatnonzero(np.abs(mono) > 1e-3 * np.abs(mono).max(initial=0))
    return mono[: loud[-1] + 1] if len(loud) else mono[:0]


def save_note(path: Path, note: np.ndarray) -> bool:
    """Write a note with a peak of 0.7, and return whether it was: it is not if it is silent or shorter than 0.1 s."""
    peak = float(np.abs(note).max(initial=0))
    if peak < 1e-4 or len(note) < 0.1 * FILE_RATE:
        return False
    soundfile.write(path, note / peak * 0.7, FILE_RATE, subtype="PCM_16")
    return True


def write_table(folder: Path, rows: list[list[object]]) -> None:
    """Write the table of the notes in a folder."""
    with (folder / "notes.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "family", "source", "instrument", "midi_pitch", "bank", "preset"])
        writer.writerows(rows)


def render_all(
    paths: list[Path], families: dict, output: Path, *, notes: int, variation_notes: int, seed: int
) -> tuple[int, int]:
    """Render `notes` of each preset of bank 0, `variation_notes` of others; return (notes, silent ones left out)."""
    import tinysoundfont  # so that --help and notes.py need it only when something is rendered

    rows, silent = [], 0
    for path in paths:
        bank_name = path.stem
        synth = tinysoundfont.Synth(samplerate=RATE, gain=-6)
        soundfont = synth.sfload(str(path))
        (output / bank_name).mkdir(parents=True, exist_ok=True)
        for bank, program, name in presets(path):
            family = families.get(str(program))
            if family is None or bank >= FIRST_SPECIAL_BANK:
                continue
            if program in LEFT_OUT_PROGRAMS.get(bank_name, ()) or bank in LEFT_OUT_BANKS.get(bank_name, ()):
                continue
            rng = np.random.default_rng([seed, *bank_name.encode(), bank, program])
            count = notes if bank == 0 else variation_notes
            edges = np.linspace(family["lowest"], family["highest"] + 1, count + 1)
            for i in range(count):
                pitch = min(int(rng.uniform(edges[i], edges[i + 1])), family["highest"])
                velocity = int(rng.choice(VELOCITIES))
                held = float(np.exp(rng.uniform(np.log(0.15), np.log(2.0))))
                note = render(synth, soundfont, bank, program, pitch, velocity, held)
                file = f"{bank_name}/{bank:03d}-{program:03d}-{i:03d}.wav"
                if not save_note(output / file, note):
                    silent += 1
                    continue
                source = SOURCES.get(bank_name, bank_name)
                rows.append([file, family["family"], bank_name, f"{source}-{program:03d}", pitch, bank, name])
    write_table(output, rows)
    return len(rows), silent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("soundfonts", type=Path, nargs="+")
    parser.add_argument("--families", type=Path, required=True, help="gm-families.json")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--notes", type=int, default=48, help="of each preset of bank 0")
    parser.add_argument("--variation-notes", type=int, default=16, help="of each preset of another bank")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    families = json.loads(arguments.families.read_text())["programs"]
    began = time.perf_counter()
    count, silent = render_all(
        arguments.soundfonts,
        families,
        arguments.output,
        notes=arguments.notes,
        variation_notes=arguments.variation_notes,
        seed=arguments.seed,
    )
    print(f"{arguments.output}: {count} notes, {silent} silent ones left out, {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
