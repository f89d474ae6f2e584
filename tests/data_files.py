"""Tiny real music for the tests of corpora."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from symusic import Note, Score, Tempo, TimeSignature, Track

from musiclm import midi, tokenizers
from musiclm.data import Options, build_corpus, describe

ROOT = Path(__file__).parents[1]


def piece(seed: int, num_bars: int = 8, *, semitones: int = 0, stretch: float = 1.0, tpq: int = 480) -> Score:
    """Return a random tune with chords and drums, always the same for a seed; its ticks may be stretched."""
    draw = random.Random(seed)
    score = Score(tpq)
    score.tempos.append(Tempo(0, 100))
    score.time_signatures.append(TimeSignature(0, 4, 4))
    tune, chords, drums = Track("Tune", 73), Track("Chords", 0), Track("Drums", 0, True)

    def at(quarters: float) -> int:
        return round(quarters * tpq * stretch)

    for bar in range(num_bars):
        for eighth in range(8):
            if draw.random() < 0.8:
                where = 4 * bar + eighth / 2
                tune.notes.append(Note(at(where), max(1, at(0.5)), 60 + semitones + draw.randrange(24), 80))
        root = draw.randrange(36, 48) + semitones
        for interval in (0, 7, draw.choice((3, 4)) + 12):
            chords.notes.append(Note(at(4 * bar), max(1, at(4)), root + interval, 64))
        drums.notes.append(Note(at(4 * bar), max(1, at(0.25)), 36, 100))
    for track in (tune, chords, drums):
        score.tracks.append(track)
    return score


def midi_bytes(seed: int, **how: Any) -> bytes:
    """Return `piece` as a MIDI file."""
    return midi.to_bytes(piece(seed, **how))


def folder_of(path: Path, files: dict[str, bytes]) -> Path:
    """Write files into a new folder and return it."""
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def built(
    output: Path, *sources: Path, tokenizer: str = "score", force: bool = False, **options: Any
) -> dict[str, Any]:
    """Build a corpus in this process and return its corpus.json."""
    options.setdefault("workers", 0)
    for _ in build_corpus(sources, output, tokenizers.create(tokenizer), Options(**options), force=force):
        pass
    document = describe(output)
    assert document["found"] == document["kept"] + sum(document["dropped"].values())
    return document


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all files of a folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def benchmark(name: str) -> ModuleType:
    """Return a script of benchmarks/ as a module."""
    path = ROOT / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
