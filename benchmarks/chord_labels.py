"""How often the chords that `midi.chords` labels by template are those of POP909's annotations.

    python benchmarks/chord_labels.py DATA/train/pop909.tar.xz              # 100 songs each of three groups
    python benchmarks/chord_labels.py DATA/train/pop909.tar.xz --quick      # 10 each

A song is moved to its annotated beats as recipes/score_data.py does it and encoded by the tokenizer `score`; its plan labels
each half bar from the notes. The true chord of a half bar is the one annotated for most of it, which also weighs it:

    root          the root, of half bars with an annotated chord; no label is wrong
    major/minor   root and third, of those annotated as a major or minor triad, with a seventh or sixth or without
    quality       root and quality, the annotation's mapped to the ten of `midi.chords` (sus2 to sus4, sixths to triads)
    no chord      of half bars annotated as without a chord: how often nothing is labelled either

The groups: `tuned`, songs of the training split on which the constants of `midi.chords` were chosen; `training`, others of
that split; `held out`, songs of validation and test. recipes/score_split.csv.gz says the split; --seed shuffles the songs, and
with another than 21 the first group holds others than were tuned on.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tarfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from musiclm import midi, tokenizers
from musiclm.midi import chords
from musiclm.tokenizers.score import ScoreTokenizer

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))

import score_data

QUALITY = {
    "maj": "maj", "min": "min", "7": "7", "maj7": "maj7", "min7": "min7", "sus2": "sus4", "sus4": "sus4",
    "sus4(b7)": "sus4", "dim": "dim", "dim7": "dim7", "hdim7": "m7b5", "aug": "aug", "maj6": "maj", "min6": "min",
    "minmaj7": "min",
}  # fmt: skip
THIRD = {"maj": "maj", "7": "maj", "maj7": "maj", "min": "min", "min7": "min"}
LETTERS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
POSITIONS = 12  # of a quarter
Chord = tuple[int, str]


class Half(NamedTuple):
    """A half bar: for how many quarters its chord is annotated, that chord, and the label."""

    quarters: float
    true: Chord
    label: Chord


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, help="pop909.tar.xz")
    parser.add_argument("--songs", type=int, default=100, help="of each group")
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--quick", action="store_true", help="10 songs of each group")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    options = parser.parse_args()
    num_songs = 10 if options.quick else options.songs
    chosen = groups(num_songs, options.seed)
    songs = songs_of(options.archive, {number for numbers in chosen.values() for number in numbers})
    tokenizer = tokenizers.create("score")
    assert isinstance(tokenizer, ScoreTokenizer)
    found = {
        name: accuracy([half for n in numbers for half in halves(tokenizer, *songs[n])]) | {"songs": len(numbers)}
        for name, numbers in chosen.items()
    }
    if options.json:
        print(json.dumps(found))
        return
    columns = ("songs", "quarters", "root", "major/minor", "quality", "no chord")
    print(f"{'':<10}" + "".join(f"{column:>13}" for column in columns))
    for name, each in found.items():
        print(
            f"{name:<10}" + "".join(f"{each[c]:>13.3f}" if c in columns[2:] else f"{each[c]:>13,.0f}" for c in columns)
        )


def groups(num_songs: int, seed: int) -> dict[str, list[str]]:
    """Return the numbers of the songs of each group."""
    table = {Path(n).stem: split for n, (split, _) in score_data.split_table().items() if n.startswith("pop909/")}
    training = [number for number, split in table.items() if split == "train"]
    held_out = [number for number, split in table.items() if split != "train"]
    draw = random.Random(seed)
    draw.shuffle(training)
    draw.shuffle(held_out)
    return {
        "tuned": training[:num_songs],
        "training": training[100 : 100 + num_songs],
        "held out": held_out[:num_songs],
    }


def songs_of(archive: Path, numbers: set[str]) -> dict[str, tuple[bytes, bytes, str]]:
    """Return the MIDI file, the beats and the chords of songs by their numbers."""
    parts: dict[tuple[str, str], bytes] = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            path = Path(member.name)
            if path.stem in numbers and path.parent.name in ("midi", "beat_midi", "chord_midi"):
                file = tar.extractfile(member)
                assert file is not None
                parts[path.parent.name, path.stem] = file.read()
    return {n: (parts["midi", n], parts["beat_midi", n], parts["chord_midi", n].decode()) for n in numbers}


def halves(tokenizer: ScoreTokenizer, data: bytes, beats: bytes, annotation: str) -> list[Half]:
    """Return the half bars of a song that are annotated."""
    assert tokenizer.plan is not None
    performed = midi.parse(data, "song")
    grid = score_data.beats_of(performed.to("second"), beats)
    notes = tokenizer.plan.notes(tokenizer.plan.without(tokenizer.encode(score_data.on_beats(performed, beats))[0]))
    begins = np.concatenate([[0], np.cumsum(notes.bar_lengths)])
    middles = begins[:-1] + notes.bar_lengths // 2
    edges = np.append(np.column_stack([begins[:-1], middles]).ravel(), begins[-1]) / POSITIONS
    spans = []
    for line in annotation.splitlines():
        begin, end, name = line.split()
        spans.append((grid.quarters(float(begin)), grid.quarters(float(end)), annotated(name)))
    names = [chords.NO_CHORD, *chords.CHORDS]
    labels = [names[i + 1] for i in tokenizer.plan.chords_of(notes)]
    found = []
    for begin, end, label in zip(edges[:-1], edges[1:], labels, strict=True):
        times: dict[Chord, float] = {}
        for start, stop, chord in spans:
            if (overlap := min(stop, end) - max(start, begin)) > 0:
                times[chord] = times.get(chord, 0.0) + overlap
        if times:
            true = max(times, key=lambda chord: times[chord])
            found.append(Half(times[true], true, label))
    return found


def annotated(name: str) -> Chord:
    """Return the chord of an annotation such as "C#:min7/5"; the bass does not count."""
    if name == "N":
        return chords.NO_CHORD
    root, quality = name.split("/")[0].split(":")
    return (LETTERS[root[0]] + root.count("#") - root.count("b")) % 12, QUALITY[quality]


def accuracy(found: list[Half]) -> dict[str, float]:
    """Return the shares of the time that is labelled right, see the module, and the number of quarters with a chord."""
    with_chord = [half for half in found if half.true != chords.NO_CHORD]
    with_third = [half for half in with_chord if half.true[1] in THIRD]
    without = [half for half in found if half.true == chords.NO_CHORD]
    return {
        "quarters": sum(half.quarters for half in with_chord),
        "root": share(with_chord, [half.label[0] == half.true[0] for half in with_chord]),
        "major/minor": share(
            with_third,
            [h.label[0] == h.true[0] and THIRD.get(h.label[1]) == THIRD[h.true[1]] for h in with_third],
        ),
        "quality": share(with_chord, [half.label == half.true for half in with_chord]),
        "no chord": share(without, [half.label == half.true for half in without]),
    }


def share(found: list[Half], is_right: list[bool]) -> float:
    """Return the share of the time of half bars that are right; NaN without any."""
    total = sum(half.quarters for half in found)
    return sum(h.quarters for h, right in zip(found, is_right, strict=True) if right) / total if total else float("nan")


if __name__ == "__main__":
    main()
