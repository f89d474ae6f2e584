"""What a user can ask of new music, read from the words that a musician would use. Knows no tokenizer and no model."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable
from typing import Any

DRUMS = -1  # stands for the drum kit among program numbers
SLOWEST, FASTEST = 4.0, 1000.0  # quarters a minute; a MIDI file can say no less than 3.6
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Controls:
    """What is asked of new music; a prompt stays as it is, and what is said here wins over what it would carry over.

    Each may be given as users write it or as it is kept; None asks for nothing.

    Attributes:
        instruments: only these play, but not all need to: General MIDI families ("strings"), instruments ("violin",
            "electric bass"), program numbers 0 … 127, "drums"; with commas between, or a sequence. Kept as sorted
            program numbers, -1 for drums.
        tempo: in quarters a minute. The score carries it as it is; a model hears the nearest that its tokens have.
        time_signature: "3/4" or (3, 4).
        key: "C major", "a minor", "f# dorian", …: the pitch classes of notes, drums excepted. `MODES` has the modes;
            minor is the natural one.
        key_strength: 1 keeps strictly to the key; below it a note outside is 1 - strength times as likely as it was.
        pitch_range: "C3-C6", "48-84" or (48, 84), both ends included; C4 is 60. Drums excepted.
        max_polyphony: how many notes may sound at once, all instruments together, drums excepted. A note that ends
            where another begins does not sound at once with it.

    Raises:
        ValueError: one of them cannot be read, or no note is left by key and range together.
    """

    instruments: Any = None
    tempo: float | None = None
    time_signature: Any = None
    key: str | None = None
    key_strength: float = 1.0
    pitch_range: Any = None
    max_polyphony: int | None = None

    def __post_init__(self) -> None:
        if self.instruments is not None:
            object.__setattr__(self, "instruments", programs(self.instruments))
        if self.tempo is not None and not SLOWEST <= self.tempo <= FASTEST:
            raise ValueError(f"tempo must be {SLOWEST:g} to {FASTEST:g} quarters a minute, not {self.tempo:g}")
        if self.time_signature is not None:
            object.__setattr__(self, "time_signature", _time_signature(self.time_signature))
        if self.key is not None:
            object.__setattr__(self, "key", _key(self.key)[0])
        if not 0 <= self.key_strength <= 1:
            raise ValueError(f"key strength must be 0 to 1, not {self.key_strength:g}")
        if self.pitch_range is not None:
            object.__setattr__(self, "pitch_range", _pitch_range(self.pitch_range))
        if self.max_polyphony is not None and self.max_polyphony < 1:
            raise ValueError(f"max polyphony must be at least 1, not {self.max_polyphony}")
        if not self.pitches:
            raise ValueError(f"no pitch of {self.key} lies within {self.described()['pitch_range']}")

    @property
    def pitches(self) -> frozenset[int]:
        """The pitches that may be begun, of instruments that have any; a key that is no strict one forbids none."""
        low, high = self.pitch_range or (0, 127)
        classes = _key(self.key)[1] if self.key is not None and self.key_strength == 1 else frozenset(range(12))
        return frozenset(p for p in range(low, high + 1) if p % 12 in classes)

    @property
    def outside_key(self) -> frozenset[int]:
        """The pitches outside the key, however strictly it is meant; none where there is no key."""
        classes = _key(self.key)[1] if self.key is not None else frozenset(range(12))
        return frozenset(p for p in range(128) if p % 12 not in classes)

    def described(self) -> dict[str, Any]:
        """Return what was asked for and nothing else, as JSON that makes the same controls again."""
        told: dict[str, Any] = {}
        if self.instruments is not None:
            told["instruments"] = ",".join("drums" if p == DRUMS else str(p) for p in self.instruments)
        if self.tempo is not None:
            told["tempo"] = self.tempo
        if self.time_signature is not None:
            told["time_signature"] = "{}/{}".format(*self.time_signature)
        if self.key is not None:
            told["key"] = self.key
            if self.key_strength != 1:
                told["key_strength"] = self.key_strength
        if self.pitch_range is not None:
            told["pitch_range"] = "{}-{}".format(*self.pitch_range)
        if self.max_polyphony is not None:
            told["max_polyphony"] = self.max_polyphony
        return told


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


def _time_signature(given: Any) -> tuple[int, int]:
    text = given if isinstance(given, str) else "/".join(map(str, given))
    found = re.fullmatch(r"\s*(\d{1,2})\s*/\s*(\d{1,2})\s*", text)
    if not found or int(found[1]) == 0 or int(found[2]) not in (1, 2, 4, 8, 16, 32, 64):
        raise ValueError(f"'{text}' is no time signature: write 3/4, 6/8, …")
    return int(found[1]), int(found[2])


def _key(text: str) -> tuple[str, frozenset[int]]:
    """Return the name of a key as we write it, and its pitch classes."""
    found = re.fullmatch(r"([A-Ga-g])[ -]?(#|♯|sharp|b(?=[ m-]|$)|♭|flat|)[ -]?(.*)", text.strip())
    mode = " ".join(found[3].replace("-", " ").lower().split()) if found else ""
    mode = SHORT_MODES.get(mode, mode)
    if not found or mode not in MODES:
        raise ValueError(f"'{text}' is no key: write 'C major', 'f# minor', 'Bb mixolydian'; modes: {', '.join(MODES)}")
    sign = {1: "#", 0: "", -1: "b"}[ACCIDENTALS[found[2]]]
    tonic = LETTERS[found[1].lower()] + ACCIDENTALS[found[2]]
    return f"{found[1].upper()}{sign} {mode}", frozenset((tonic + step) % 12 for step in MODES[mode])


def _pitch_range(given: Any) -> tuple[int, int]:
    text = given if isinstance(given, str) else "-".join(map(str, given))
    pitch = r"[A-Ga-g](?:#|♯|b|♭)?-?\d|\d+"
    found = re.fullmatch(rf"\s*({pitch})\s*(?:-|–|\.\.)\s*({pitch})\s*", text)
    if not found:
        raise ValueError(f"'{text}' is no pitch range: write C3-C6 or 48-84")
    low, high = _pitch(found[1]), _pitch(found[2])
    if not 0 <= low <= high <= 127:
        raise ValueError(f"'{text}' is no pitch range: pitches are 0 to 127, C-1 to G9, the lower first")
    return low, high


def _pitch(name: str) -> int:
    if name.isdigit():
        return int(name)
    found = re.fullmatch(r"(.)(\D??)(-?\d)", name)
    assert found
    return LETTERS[found[1].lower()] + ACCIDENTALS[found[2]] + 12 * (int(found[3]) + 1)
