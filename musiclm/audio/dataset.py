"""Sets of labelled notes on disk: an NSynth download, one folder per family, or a table (CSV).

Splits are by instrument, never by note: with notes of one violin in two splits one would measure memorization.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ..errors import CorpusError
from . import FAMILIES
from .formats import SUFFIXES

TABLE = "notes.csv"
NSYNTH = "examples.json"
SPLITS = {"train": "train", "valid": "validation", "validation": "validation", "dev": "dev", "test": "test", "": None}
_NSYNTH_NAME = re.compile(r"^(.+_(?:acoustic|electronic|synthetic)_\d{3})-\d+-\d+$")
_PITCH_OR_NUMBER = re.compile(r"[-_. ](?=[A-Ga-g][#b]?-?\d|\d)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledNote:
    """A file with one note.

    Attributes:
        path: the file.
        family: one of FAMILIES.
        source: a soundfont, a sample library or a data set.
        instrument: the instrument; all its notes are in the same split.
        split: train, validation, dev or test, if the set defines it.
        weight: sampling weight in training, relative to notes of the same instrument.
        midi_pitch: MIDI number of the pitch, if the set says it.
    """

    path: Path
    family: str
    source: str
    instrument: str
    split: str | None = None
    weight: float = 1.0
    midi_pitch: int | None = None


def read_notes(place: Path) -> list[LabelledNote]:
    """Return the notes of a set, in order of their files.

    Args:
        place: a table with the columns file (relative to the table) and family, and optionally instrument, source,
            split, weight and midi_pitch; a folder with such a table as notes.csv; an NSynth folder (examples.json and
            audio/), or a folder of such folders; a folder with one folder per family, whose folders are instruments.

    Raises:
        CorpusError: it is none of these, or an unknown family is named.
    """
    if place.is_file():
        return _table(place)
    if not place.is_dir():
        raise CorpusError(f"no '{place}': neither a folder of notes nor a table")
    if (place / TABLE).is_file():
        return _table(place / TABLE)
    nsynth = [place] if (place / NSYNTH).is_file() else sorted(p.parent for p in place.glob(f"*/{NSYNTH}"))
    notes = [note for folder in nsynth for note in _nsynth(folder)] if nsynth else _family_folders(place)
    if not notes:
        raise CorpusError(
            f"no notes in '{place}': it needs a {TABLE}, NSynth's {NSYNTH}, or one folder per family "
            f"({', '.join(FAMILIES)})"
        )
    return notes


def _table(path: Path) -> list[LabelledNote]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CorpusError(f"the table '{path}' cannot be read: {error}") from error
    if not rows or not {"file", "family"} <= rows[0].keys():
        raise CorpusError(f"the table '{path}' needs a first line that names the columns file and family, and rows")
    notes = []
    for number, row in enumerate(rows, 2):
        family, split = row["family"] or "", row.get("split") or ""
        if family not in FAMILIES:
            raise CorpusError(f"line {number} of '{path}': no family '{family}', only {', '.join(FAMILIES)}")
        if split not in SPLITS:
            raise CorpusError(f"line {number} of '{path}': no split '{split}', only {', '.join(filter(None, SPLITS))}")
        file_name = row["file"] or ""
        try:
            weight = float(row.get("weight") or 1)
        except ValueError as error:
            raise CorpusError(f"line {number} of '{path}': the weight '{row['weight']}' is not a number") from error
        if not 0 < weight < math.inf:  # NaN is refused as well
            raise CorpusError(f"line {number} of '{path}': the weight '{row['weight']}' is not above 0 and finite")
        pitch = row.get("midi_pitch") or ""
        notes.append(
            LabelledNote(
                path=path.parent / file_name,
                family=family,
                source=row.get("source") or path.parent.name,
                instrument=row.get("instrument") or instrument_of(Path(file_name).stem),
                split=SPLITS[split],
                weight=weight,
                midi_pitch=int(pitch) if pitch.isdecimal() else None,
            )
        )
    return notes


def _nsynth(folder: Path) -> list[LabelledNote]:
    try:
        examples = json.loads((folder / NSYNTH).read_text(encoding="utf-8"))
        named = [
            (name, e["instrument_family_str"], e["instrument_str"], e.get("pitch"))
            for name, e in sorted(examples.items())
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorpusError(f"'{folder / NSYNTH}' is not a file of NSynth: {error!r}") from error
    split = SPLITS.get(folder.name.removeprefix("nsynth-"))
    return [
        LabelledNote(
            path=folder / "audio" / f"{name}.wav",
            family=family,
            source="nsynth",
            instrument=instrument,
            split=split,
            midi_pitch=pitch,
        )
        for name, family, instrument, pitch in named
        if family in FAMILIES
    ]


def _family_folders(place: Path) -> list[LabelledNote]:
    notes = []
    for family in FAMILIES:
        folder = place / family
        for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES):
            inner = path.relative_to(folder).parent
            instrument = str(inner) if inner.parts else instrument_of(path.stem)
            notes.append(LabelledNote(path=path, family=family, source=place.name, instrument=f"{family}/{instrument}"))
    return notes


def instrument_of(stem: str) -> str:
    """Return the instrument in a file name without its suffix: the part before the pitch or a number.

    Names of NSynth keep the number of the instrument: bass_synthetic_068-049-025 is a note of bass_synthetic_068.
    """
    nsynth = _NSYNTH_NAME.match(stem)
    return nsynth.group(1) if nsynth else _PITCH_OR_NUMBER.split(stem, maxsplit=1)[0]


def split_by_instrument(
    notes: Iterable[LabelledNote], *, share: float, seed: int
) -> tuple[list[LabelledNote], list[LabelledNote]]:
    """Return (training notes, held-out notes).

    If the set defines a validation split, it is held out. Otherwise a random `share` of the instruments of each family
    is held out, at least one; a family with a single instrument is used for training only. Notes of the splits dev and
    test are in neither.
    """
    kept = [n for n in notes if n.split not in ("dev", "test")]
    if any(n.split == "validation" for n in kept):
        return [n for n in kept if n.split != "validation"], [n for n in kept if n.split == "validation"]
    instruments: dict[str, set[str]] = defaultdict(set)
    for note in kept:
        instruments[note.family].add(note.instrument)
    rng = np.random.default_rng(seed)
    held_out: set[tuple[str, str]] = set()
    for family in sorted(instruments):
        names = sorted(instruments[family])
        count = max(1, round(share * len(names))) if len(names) > 1 else 0
        held_out |= {(family, names[i]) for i in rng.permutation(len(names))[:count]}
    learn = [n for n in kept if (n.family, n.instrument) not in held_out]
    return learn, [n for n in kept if (n.family, n.instrument) in held_out]
