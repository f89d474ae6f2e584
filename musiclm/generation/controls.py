"""What a user can ask of new music, read from the words that a musician would use. Knows no tokenizer and no model."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from ..midi.theory import DRUMS, parse_key, parse_pitch, programs

SLOWEST, FASTEST = 4.0, 1000.0  # quarters a minute; a MIDI file can say no less than 3.6


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
            object.__setattr__(self, "key", parse_key(self.key)[0])
        if not 0 <= self.key_strength <= 1:
            raise ValueError(f"key strength must be 0 to 1, not {self.key_strength:g}")
        if self.pitch_range is not None:
            object.__setattr__(self, "pitch_range", _pitch_range(self.pitch_range))
        if self.max_polyphony is not None and self.max_polyphony < 1:
            raise ValueError(f"max polyphony must be at least 1, not {self.max_polyphony}")
        if not self.pitches:
            raise ValueError(f"no pitch of {self.key} lies within {self.to_dict()['pitch_range']}")

    @property
    def pitches(self) -> frozenset[int]:
        """The pitches that may be begun, of instruments that have any; a key that is no strict one forbids none."""
        low, high = self.pitch_range or (0, 127)
        classes = parse_key(self.key)[1] if self.key is not None and self.key_strength == 1 else frozenset(range(12))
        return frozenset(p for p in range(low, high + 1) if p % 12 in classes)

    @property
    def outside_key(self) -> frozenset[int]:
        """The pitches outside the key, however strictly it is meant; none where there is no key."""
        classes = parse_key(self.key)[1] if self.key is not None else frozenset(range(12))
        return frozenset(p for p in range(128) if p % 12 not in classes)

    def to_dict(self) -> dict[str, Any]:
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


def _time_signature(given: Any) -> tuple[int, int]:
    text = given if isinstance(given, str) else "/".join(map(str, given))
    found = re.fullmatch(r"\s*(\d{1,2})\s*/\s*(\d{1,2})\s*", text)
    if not found or int(found[1]) == 0 or int(found[2]) not in (1, 2, 4, 8, 16, 32, 64):
        raise ValueError(f"'{text}' is no time signature: write 3/4, 6/8, …")
    return int(found[1]), int(found[2])


def _pitch_range(given: Any) -> tuple[int, int]:
    text = given if isinstance(given, str) else "-".join(map(str, given))
    pitch = r"[A-Ga-g](?:#|♯|b|♭)?-?\d|\d+"
    found = re.fullmatch(rf"\s*({pitch})\s*(?:-|–|\.\.)\s*({pitch})\s*", text)
    if not found:
        raise ValueError(f"'{text}' is no pitch range: write C3-C6 or 48-84")
    low, high = parse_pitch(found[1]), parse_pitch(found[2])
    if not 0 <= low <= high <= 127:
        raise ValueError(f"'{text}' is no pitch range: pitches are 0 to 127, C-1 to G9, the lower first")
    return low, high
