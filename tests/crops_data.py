"""Synthetic pieces, and a digest of training batches, for the golden hashes of `test_data_crops`."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from typing import Any

import numpy as np
from symusic import Note, Score, Tempo, TimeSignature, Track

PROGRAMS = (0, 33, 48, 73)
NUM_BATCHES = 6
KINDS = ("plain", "pitches", "short")

# of each tokenizer the digests of its batches, one of each kind, as the code made them that computed features id by id
GOLDEN = {
    "grid 1": ("cefd9d770285ea7f", "d8651b29634a8de4", "5b0de4e4190b1309"),
    "grid 2": ("acebc90aa8859e88", "a97ea4ed60636123", "ee9ccefb28a34600"),
    "grid 3": ("ddac262ffd9182f5", "f60e8108d3f767d7", "83ae79ca58c3d263"),
    "grid 4": ("00f0b9f9478ef6df", "b0626cb21dd91741", "54a4d117a7babd7f"),
    "grid-infill 2": ("7eed52d0b68589ee", "13bdccadf7a7316b", "25955d5bd38c0fce"),
    "grid-infill": ("6f9b8da8d96e38ed", "3f73fa37e4589c28", "9a3d54aef380331b"),
    "score 1": ("bb23028845a13b76", "a3a6b4ed9b20511e", "a94c9be08f1eada2"),
    "score 2": ("b8089621cb045e69", "cd4a3fcb94081fc0", "d6a22e4cd195e58c"),
    "score-infill 2": ("c7b3d1b0be5852de", "0534d205e019b61b", "b4c3df4fbfc91ddb"),
    "performance 1": ("46af11e654fb11ea", "196893bfd8df6cbb", "8201ce7a28595833"),
    "performance": ("d6cb2b5cfbf82741", "2828bf1cfc9a53ea", "0f9b410e40c9198a"),
    "REMI": ("bb23028845a13b76", "a3a6b4ed9b20511e", "a94c9be08f1eada2"),
    "REMI bpe": ("1d21e4c8a8e464d5", "8a23883fe0c630ab", "f67b87c837511a6b"),
    "score bpe": ("1d21e4c8a8e464d5", "8a23883fe0c630ab", "f67b87c837511a6b"),
    "performance bpe": ("37ac6cc251fe97e6", "7c73f67a06e7969f", "4fa4309e51046976"),
}


def four_voices(seed: int, num_beats: int) -> Score:
    """Return a piece for soprano, alto, tenor and bass, with held notes, repeated notes and rests."""
    draw = random.Random(seed)
    score = Score(480)
    for name, middle in (("Soprano", 74), ("Alto", 67), ("Tenor", 60), ("Bass", 50)):
        track, time = Track(name, 52, False), 0
        pitch = middle
        while time < num_beats * 480:
            length = draw.choice([120, 240, 240, 480, 480, 960, 4800])
            pitch = min(middle + 9, max(middle - 9, pitch + draw.choice([-4, -2, -1, 0, 1, 2, 3])))
            if draw.random() < 0.93:
                track.notes.append(Note(time, length, pitch, 80))
            time += length
        score.tracks.append(track)
    return score


def band(seed: int, num_bars: int) -> Score:
    """Return a piece for several programs and drums, with changes of tempo and time signature and repeated bars."""
    draw = random.Random(seed)
    score = Score(480)
    tracks = [Track(f"track {program}", program, False) for program in PROGRAMS[: draw.randint(1, 4)]]
    drums = Track("drums", 0, True)
    time, bar = 0, []
    beats = 4
    for number in range(num_bars):
        if number % 8 == 0:
            beats = draw.choice([3, 4, 4, 5])
            score.time_signatures.append(TimeSignature(time, beats, 4))
        if draw.random() < 0.1 or not number:
            score.tempos.append(Tempo(time, draw.choice([72.0, 96.0, 120.0, 150.0])))
        if draw.random() < 0.6 or not bar:
            bar = [
                (i, draw.randrange(beats * 4) * 120, draw.choice([60, 120, 240, 480, 1920]), draw.randint(40, 80))
                for i in range(len(tracks))
                for _ in range(draw.randint(0, 7))
            ]
        for i, at, length, pitch in bar:
            tracks[i].notes.append(Note(time + at, length, pitch, 30 + 6 * draw.randint(0, 15)))
        for beat in range(beats):
            drums.notes.append(Note(time + 480 * beat, 120, draw.choice([36, 38, 42]), 100))
        time += beats * 480
    for track in (*tracks, drums):
        score.tracks.append(track)
    return score


def pieces(tokenizer: Any) -> list[np.ndarray]:
    """Return the ids of pieces shorter and longer than a crop, and ids that no encoder writes, uint16 and int64."""
    voices = "grid" in tokenizer.name
    sizes = (6, 30, 60, 120) if voices else (1, 6, 60, 90)
    scores = [(four_voices if voices else band)(seed, size) for seed, size in enumerate(sizes)]
    return [tokenizer.encode(score)[0].astype((np.int64, np.uint16)[i % 2]) for i, score in enumerate(scores)]


def digest(batch: Callable[[int], Any]) -> str:
    """Return a hash of the first batches: tokens, targets and features, with their types and shapes."""
    found = hashlib.sha256()
    for number in (*range(NUM_BATCHES), 10**9):
        made = batch(number)
        for part in (made.tokens, made.targets, made.features):
            found.update(b"none" if part is None else f"{part.dtype}{tuple(part.shape)}".encode())
            found.update(b"" if part is None else part.contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def cases(create: Callable[..., Any]) -> dict[str, Any]:
    """Return tokenizers by name; `create` makes one from its name and options."""
    remi, score, performance = create("REMI"), create("score", features=1), create("performance")
    return {
        **{f"grid {version}": create("grid", features=version) for version in (1, 2, 3, 4)},
        "grid-infill 2": create("grid-infill", features=2),
        "grid-infill": create("grid-infill"),
        "score 1": create("score", features=1),
        "score 2": create("score", features=2),
        "score-infill 2": create("score-infill", features=2),
        "performance 1": create("performance", features=1),
        "performance": performance,
        "REMI": remi,
        "REMI bpe": merged(remi),
        "score bpe": merged(score),
        "performance bpe": merged(performance),
    }


def merged(tokenizer: Any) -> Any:
    """Return the tokenizer with a BPE vocabulary learnt from the synthetic pieces."""
    return tokenizer.trained_bpe([np.asarray(p, np.int64) for p in pieces(tokenizer)], 60)


def options(tokenizer: Any, kind: str) -> dict[str, Any]:
    """Return options of random crops: `plain`, with `pitches` of each piece, or `short` crops with weights."""
    if kind == "pitches":
        return {"length": 96, "batch_size": 5, "seed": 3, "pitches": [(43, 80), (41, 83), (44, 80), (41, 81)]}
    if kind == "short":
        return {"length": 17, "batch_size": 7, "seed": 4, "weights": [1.0, 2.0, 0.5, 1.0]}
    return {"length": 300, "batch_size": 4, "seed": 1}
