"""Test-time augmentation of the note classifier: the recall with probabilities averaged over crops and small detunings.

    python benchmarks/crops.py CLASSIFIER NOTES [--split dev]

NOTES is what `musiclm classifier evaluate` takes. The views of a note are the whole note (as in `classify`), its first 60 and
30 %, the note without its first tenth of a second, and the note 3 % lower and higher. Probabilities are averaged (arithmetic
mean). Figures are mean family recalls.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

from musiclm.audio import FAMILIES, dataset, mel, onsets
from musiclm.audio import io as audio_io
from musiclm.audio.classifier import NoteClassifier
from musiclm.errors import AudioError

MEANS = {
    "whole": ("whole",),
    "whole, first 60 %": ("whole", "first 60 %"),
    "whole, without attack": ("whole", "without attack"),
    "whole, lower, higher": ("whole", "lower", "higher"),
    "all six": ("whole", "first 60 %", "first 30 %", "without attack", "lower", "higher"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("classifier", type=Path)
    parser.add_argument("notes", type=Path)
    parser.add_argument("--split", help="only notes of this split")
    parser.add_argument("--quick", action="store_true", help="a hundred notes")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    a = parser.parse_args()
    torch.set_num_threads(1)
    classifier = NoteClassifier.load(a.classifier)
    notes = [n for n in dataset.read_notes(a.notes) if a.split is None or n.split == a.split]
    probabilities, truth = [], []
    for note in notes[:: max(1, len(notes) // 100) if a.quick else 1]:
        recording = audio_io.read(note.path)
        try:
            pictures = torch.stack([mel.log_mel(view) for view in views(recording.audio).values()])
        except AudioError:
            continue
        with torch.inference_mode():
            probabilities.append((classifier.model(pictures) / classifier.temperature).softmax(1))
        truth.append(FAMILIES.index(note.family))
    of_notes, families = torch.stack(probabilities), torch.tensor(truth)
    names = list(views(torch.zeros(16000)))
    found = {
        mean: recall(of_notes[:, [names.index(v) for v in looked_at]].mean(1), families)
        for mean, looked_at in MEANS.items()
    }
    if a.json:
        print(json.dumps({"num_notes": len(truth), "mean_family_recall": found}))
        return
    print(f"{len(truth)} notes")
    for mean, value in found.items():
        print(f"{mean:24} {value:.3f}")


def views(note: Tensor) -> dict[str, Tensor]:
    """Return the views of the loudest note of a recording."""
    span = onsets.loudest_note(note)
    whole = note[span.start : span.end]
    least = mel.SAMPLE_RATE // 5
    return {
        "whole": whole,
        "first 60 %": whole[: max(least, len(whole) * 6 // 10)],
        "first 30 %": whole[: max(least, len(whole) * 3 // 10)],
        "without attack": whole[min(len(whole) // 7, mel.SAMPLE_RATE // 10) :],
        "lower": mel.resample(whole, round(mel.SAMPLE_RATE * 0.97)),
        "higher": mel.resample(whole, round(mel.SAMPLE_RATE * 1.03)),
    }


def recall(probabilities: Tensor, families: Tensor) -> float:
    """Return the mean over families of the share of their notes that are classified correctly."""
    right = probabilities.argmax(1) == families
    return float(torch.stack([right[families == f].float().mean() for f in families.unique()]).mean())


if __name__ == "__main__":
    main()
