"""Keys, modes, pitch names and General MIDI programs, as musicians write them."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


DRUMS = -1  # stands for the drum kit among program numbers


MODES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "harmonic minor": (0, 2, 3, 5, 7, 8, 11),
    "melodic minor": (0, 2, 3, 5, 7, 9, 11),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "phrygian": (0, 1, 3, 5, 7, 8, 10),
    "lydian": (0, 2, 4, 6, 7, 9, 11),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
    "major pentatonic": (0, 2, 4, 7, 9),
    "minor pentatonic": (0, 3, 5, 7, 10),
}


SHORT_MODES = {"m": "minor", "min": "minor", "maj": "major", "aeolian": "minor", "ionian": "major"}


LETTERS = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}


ACCIDENTALS = {"": 0, "#": 1, "♯": 1, "sharp": 1, "b": -1, "♭": -1, "flat": -1}


def programs(wanted: str | int | Iterable[str | int]) -> tuple[int, ...]:
    """Return sorted program numbers, `DRUMS` first, from families, instruments and numbers of General MIDI.

    A name is a family's, else an instrument's, else part of some instruments' names.

    Raises:
        ValueError: none is called so.
    """
    each = [wanted] if isinstance(wanted, int) else wanted.split(",") if isinstance(wanted, str) else list(wanted)
    found = {program for one in each for program in _programs_called(one)}
    if not found:
        raise ValueError("name at least one instrument")
    return tuple(sorted(found))


def _programs_called(name: str | int) -> list[int]:
    text = _plain(str(name))
    if text in ("drums", "drum kit", str(DRUMS)):
        return [DRUMS]
    if text.isdigit():
        if int(text) > 127:
            raise ValueError(f"program numbers are 0 to 127, not {text}")
        return [int(text)]
    from pretty_midi.constants import INSTRUMENT_CLASSES, INSTRUMENT_MAP

    families = [_plain(f) for f in INSTRUMENT_CLASSES]
    names = [_plain(n) for n in INSTRUMENT_MAP]
    if text in families:
        first = 8 * families.index(text)
        return list(range(first, first + 8))
    if text in names:
        return [names.index(text)]
    found = [i for i, n in enumerate(names) if text and set(text.split()) <= set(n.split())]
    found = found or [i for i, n in enumerate(names) if text and text in n]
    if not found:
        near = difflib.get_close_matches(text, [*families, *names, "drums"], 3, 0.5)
        way_out = f"did you mean {' or '.join(near)}?" if near else "a family is " + ", ".join(families[:6]) + ", …"
        raise ValueError(f"no instrument '{str(name).strip()}' in General MIDI: {way_out}")
    return found


def _plain(name: str) -> str:
    return " ".join(re.sub(r"[^a-z0-9#+-]", " ", name.lower()).split())


def parse_key(text: str) -> tuple[str, frozenset[int]]:
    """Return the name of a key as we write it, and its pitch classes."""
    found = re.fullmatch(r"([A-Ga-g])[ -]?(#|♯|sharp|b(?=[ m-]|$)|♭|flat|)[ -]?(.*)", text.strip())
    mode = " ".join(found[3].replace("-", " ").lower().split()) if found else ""
    mode = SHORT_MODES.get(mode, mode)
    if not found or mode not in MODES:
        raise ValueError(f"'{text}' is no key: write 'C major', 'f# minor', 'Bb mixolydian'; modes: {', '.join(MODES)}")
    sign = {1: "#", 0: "", -1: "b"}[ACCIDENTALS[found[2]]]
    tonic = LETTERS[found[1].lower()] + ACCIDENTALS[found[2]]
    return f"{found[1].upper()}{sign} {mode}", frozenset((tonic + step) % 12 for step in MODES[mode])


def key_name(number: int) -> str:
    """Return the name of a key by its row in `key_profiles`."""
    tonics = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
    return f"{tonics[number % 12]} {'major' if number < 12 else 'minor'}"


def parse_pitch(name: str) -> int:
    """Return the MIDI pitch of a number or of a name such as C#4 (C4 is 60); the caller has checked its form."""
    if name.isdigit():
        return int(name)
    found = re.fullmatch(r"(.)(\D??)(-?\d)", name)
    assert found
    return LETTERS[found[1].lower()] + ACCIDENTALS[found[2]] + 12 * (int(found[3]) + 1)


MAJOR_PROFILE = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)  # from the tonic up
MINOR_PROFILE = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)


@functools.cache
def key_profiles() -> np.ndarray:
    """Return how well pitch classes fit keys, as listeners rated it, (24, 12): C major to B major, then C minor to B minor.

    Krumhansl and Kessler (1982), from Krumhansl, Cognitive Foundations of Musical Pitch (1990), page 30; each row has mean 0
    and standard deviation 1.
    """
    import numpy as np

    profiles = np.array([np.roll(profile, tonic) for profile in (MAJOR_PROFILE, MINOR_PROFILE) for tonic in range(12)])
    standardized: np.ndarray = (profiles - profiles.mean(1, keepdims=True)) / profiles.std(1, keepdims=True)
    return standardized
