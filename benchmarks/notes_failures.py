"""What a note classifier gets wrong, for `notes.py`: confusions, the hardest instruments, accuracy by source and property."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from notes_runs import probabilities
from torch import Tensor

from musiclm.audio import FAMILIES, mel, metrics, onsets
from musiclm.audio import io as audio_io
from musiclm.audio.classifier import UNSURE_BELOW, NoteClassifier
from musiclm.audio.dataset import LabelledNote
from musiclm.errors import AudioError, CorpusError
from musiclm.evaluation.classification import equal_mass_calibration_error

BLOCK = 160  # samples per level of an attack: 10 ms
LOUD_BLOCK = 800  # samples per level of the loudness: 50 ms
ATTACKED_DB = -3.0  # the attack ends at the first level this near to the maximum
MOST_CONFUSIONS = 15
MOST_INSTRUMENTS, LEAST_NOTES = 12, 12  # how many instruments are listed, and how many notes they have
EDGES = {  # upper edges of the bins; the last bin has none
    "pitch, MIDI": (48, 60, 72, 84),
    "duration, s": (0.5, 1.0, 2.0),
    "loudness, dBFS": (-40, -30, -20, -10),
    "attack, ms": (20, 50, 100, 200),
}


def failures(classifier: NoteClassifier, notes: Sequence[LabelledNote]) -> dict[str, Any]:
    """Return the report of a set, its confusions, and accuracies by source and by property.

    Raises:
        CorpusError: none of the notes can be read.
    """
    kept, pictures, properties = [], [], []
    for note in notes:
        try:
            recording = audio_io.read(note.path)
            mel.check(recording.audio)
        except AudioError:
            continue
        span = onsets.loudest_note(recording.audio)
        audio = recording.audio[span.start : span.end]
        pictures.append(mel.log_mel(audio))
        kept.append(note)
        properties.append(properties_of(audio, recording.seconds, note.midi_pitch))
    if not kept:
        raise CorpusError("none of the measured notes can be read: is the sound where the list of notes says?")
    found = probabilities(classifier, torch.stack(pictures))
    targets = torch.tensor([FAMILIES.index(n.family) for n in kept])
    confidence, predicted = found.max(dim=1)
    right = predicted == targets
    report = metrics.report(found, targets, (confidence < UNSURE_BELOW).tolist())
    report["equal_mass_calibration_error"] = equal_mass_calibration_error(confidence, right)
    recall = {f: report["families"][f]["recall"] for f in FAMILIES}
    expected = [recall[n.family] for n in kept]
    return {
        "report": report,
        "dropped": len(notes) - len(kept),
        "confusions": confusions(report["confusion"]),
        "instruments": hardest(
            [(n.source, n.instrument, n.family) for n in kept], [FAMILIES[i] for i in predicted.tolist()]
        ),
        "source": groups([n.source for n in kept], right.tolist(), expected),
        **{
            name: groups([binned(p[name], edges) for p in properties], right.tolist(), expected)
            for name, edges in EDGES.items()
        },
    }


def properties_of(audio: Tensor, seconds: float, midi_pitch: int | None) -> dict[str, float | None]:
    """Return the value of a note for each name of EDGES; None where it is not known.

    Loudness is the mean square of the loudest 50 ms. The attack is the time from the onset (`mel.onset`) to the first 10 ms
    within 3 dB of the loudest 10 ms.
    """
    level = mel.levels(audio, BLOCK)
    peak = int((level >= level.max() * 10 ** (ATTACKED_DB / 10)).int().argmax()) * BLOCK
    attack = max(0, peak - (mel.onset(audio) + mel.LEAD)) / mel.SAMPLE_RATE
    loudest = float(mel.levels(audio, LOUD_BLOCK).max())
    return {
        "pitch, MIDI": midi_pitch,
        "duration, s": seconds,
        "loudness, dBFS": 10 * math.log10(max(loudest, 1e-12)),
        "attack, ms": 1000 * attack,
    }


def binned(value: float | None, edges: Sequence[float]) -> str:
    """Return the name of the bin of a value: a lower edge is in the bin above it."""
    if value is None:
        return "not known"
    at = sum(value >= edge for edge in edges)
    if at == 0:
        return f"below {edges[0]}"
    return f"{edges[at - 1]} and above" if at == len(edges) else f"{edges[at - 1]} to {edges[at]}"


def groups(names: Sequence[str], right: Sequence[bool], expected: Sequence[float]) -> dict[str, dict[str, float]]:
    """Return of each group its number of notes, its accuracy, and the accuracy that its families alone would give.

    Args:
        names: the group of each note.
        right: whether each is classified correctly.
        expected: the recall of each note's family over the whole set.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for number, name in enumerate(names):
        members[name].append(number)
    return {
        name: {
            "num_notes": len(members[name]),
            "accuracy": sum(right[i] for i in members[name]) / len(members[name]),
            "expected_accuracy": sum(expected[i] for i in members[name]) / len(members[name]),
        }
        for name in sorted(members, key=_order)
    }


def _order(name: str) -> tuple[int, float, str]:
    """Return a key that puts bins in the order of their values, other names in alphabetical order, and unknown ones last."""
    first = name.removeprefix("below ").split(" ")[0]
    try:
        return (0, float(first) - (0.5 if name.startswith("below ") else 0.0), name)
    except ValueError:
        return (2 if name == "not known" else 1, 0.0, name)


def confusions(matrix: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
    """Return the most frequent wrong answers: the true family, the answer, how often, and which share of the family's notes."""
    counts = Counter(
        {
            (FAMILIES[i], FAMILIES[j]): count
            for i, row in enumerate(matrix)
            for j, count in enumerate(row)
            if i != j and count
        }
    )
    totals = {family: sum(row) for family, row in zip(FAMILIES, matrix, strict=True)}
    return [
        {"family": family, "answer": answer, "num_notes": count, "share": count / totals[family]}
        for (family, answer), count in counts.most_common(MOST_CONFUSIONS)
    ]


def hardest(names: Sequence[tuple[str, str, str]], answers: Sequence[str]) -> list[dict[str, Any]]:
    """Return the instruments with the lowest accuracy, and their most frequent answer; those with few notes are left out.

    Args:
        names: source, instrument and family of each note.
        answers: the family that each is classified as.
    """
    members: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for name, answer in zip(names, answers, strict=True):
        members[name].append(answer)
    rows = [
        {"source": name[0], "instrument": name[1], "family": name[2], "num_notes": len(found)}
        | {"accuracy": found.count(name[2]) / len(found), "answer": Counter(found).most_common(1)[0][0]}
        for name, found in sorted(members.items())
        if len(found) >= LEAST_NOTES
    ]
    return sorted(rows, key=lambda row: row["accuracy"])[:MOST_INSTRUMENTS]


def show(found: dict[str, Any], model: Path | None) -> None:
    """Print the tables."""
    report = found["report"]
    print(
        f"{model or 'the bundled classifier'}: mean family recall {report['mean_family_recall']:.3f} of "
        f"{report['num_notes']:,} notes, accuracy {report['accuracy']:.3f}, calibration error of equal mass "
        f"{report['equal_mass_calibration_error']:.3f}"
    )
    print("\n| family | answer | notes | share of the family |\n|---|---|---|---|")
    for row in found["confusions"]:
        print(f"| {row['family']} | {row['answer']} | {row['num_notes']} | {row['share']:.2f} |")
    print("\n| instrument | family | notes | accuracy | most frequent answer |\n|---|---|---|---|---|")
    for row in found["instruments"]:
        cells = f"{row['family']} | {row['num_notes']} | {row['accuracy']:.2f} | {row['answer']}"
        print(f"| {row['source']}: {row['instrument']} | {cells} |")
    for name in ("source", *EDGES):
        print(f"\n| {name} | notes | accuracy | expected of its families |\n|---|---|---|---|")
        for group, figures in found[name].items():
            cells = f"{figures['accuracy']:.2f} | {figures['expected_accuracy']:.2f}"
            print(f"| {group} | {figures['num_notes']} | {cells} |")
