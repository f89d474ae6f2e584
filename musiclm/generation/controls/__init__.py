"""Controls: hard constraints on new music, in musical terms.

A control is one file here and one field of `Controls`, which names the file. The file has a `Control` called CONTROL: it
reads and stores the value, and masks the ids that the value excludes. The command line, the record in a MIDI file and
`repro` find it by the field. `constraints.limits` compiles the controls of this package to ids, since some of them
depend on each other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from ...midi.theory import parse_key
from ..options import OptionError
from .base import Control, control
from .chord_strength import DEFAULT_STRENGTH
from .ensemble import NONE as NO_ENSEMBLE
from .key import AUTO, NONE
from .key_strength import AUTO_STRENGTH, STRICT

if TYPE_CHECKING:
    import numpy as np

    from ...tokenizers.base import Tokenizer

__all__ = ["Control", "Controls"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Controls:
    """The constraints on new music. The prompt stays as it is; in new music a control takes precedence over the prompt.

    Each may be given as users write it or as it is stored here; None asks for nothing.

    Attributes:
        style: one of `score_plan.STYLES`; only where tokens have a header.
        instruments: sorted General MIDI program numbers, -1 for drums: only these play.
        ensemble: who has to play, one of each tuple of program numbers; "auto" or "none". By default one of what each word
            of the instruments stands for, or each, where they are given as numbers.
        tempo: quarters/minute. The file has exactly this tempo; the model is conditioned on the nearest of its tokens.
        time_signature: (numerator, denominator), from the next bar line on.
        key: its name; new notes have its pitch classes, drums excepted. "auto" makes notes outside the key of the music so
            far less likely, see `constraints.key_leaning`; "none" is none, whatever a checkpoint recommends.
        key_strength: 1 excludes notes outside the key; below 1 such a note is 1 - key_strength times as likely as before.
            None is 1 for a key that is named, and `key_strength.AUTO_STRENGTH` for "auto".
        pitch_range: (lowest, highest) MIDI pitch, both included, drums excepted; C4 is 60.
        max_polyphony: how many notes may sound at once, all instruments together, drums excepted. A note that ends where
            another begins does not overlap it.
        chords: (root, quality) of each half bar, see `controls.chords`; they begin with the first new bar, and again at their
            end. Where tokens have a plan, bars say them; notes outside them are less likely by `chord_strength`.
        chord_strength: a note outside the chord is 1 - chord_strength times as likely as before; 1 excludes it, drums
            excepted. None is `chord_strength.DEFAULT_STRENGTH` where there are chords.
        form: a letter for each of several equal parts of the new bars, see `constraints.form_plan`.
        repeat_strength: in a bar that repeats another, any other token than its own is 1 - repeat_strength times as likely; see
            `constraints.repeats`. None is off here; `Composer.completed` fills it in where tokens have a plan.

    Raises:
        ValueError: one of them cannot be read, or no note is left by key and range together.
    """

    style: str | None = control("style")
    instruments: Any = control("instruments")
    ensemble: Any = control("ensemble")
    tempo: float | None = control("tempo")
    time_signature: Any = control("time_signature")
    key: str | None = control("key")
    key_strength: float | None = control("key_strength")
    pitch_range: Any = control("pitch_range")
    max_polyphony: int | None = control("max_polyphony")
    chords: Any = control("chords")
    chord_strength: float | None = control("chord_strength")
    form: str | None = control("form")
    repeat_strength: float | None = control("repeat_strength")

    def __post_init__(self) -> None:
        if self.ensemble is None and self.instruments is not None:
            object.__setattr__(self, "ensemble", self.instruments)  # its words, before they are program numbers
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None:
                object.__setattr__(self, field.name, field.metadata["control"].parse(value))
        if self.key in (None, NONE) and self.key_strength not in (None, STRICT):
            raise OptionError("{} needs a {}", "key_strength", "key")
        if self.chords is None and not self.chord_strength:
            object.__setattr__(self, "chord_strength", None)  # off, as a record without it says
        if not self.pitches:
            raise ValueError(f"no pitch of {self.key} lies within {self.to_dict()['pitch_range']}")

    def joining(self, played: Collection[int]) -> list[int]:
        """Return the program numbers of the instruments that were asked for and are to join what has played.

        Of those of the ensemble that stand for each other it is one, and none where one of them has played.
        """
        groups = () if self.ensemble is None or isinstance(self.ensemble, str) else self.ensemble
        others = set(self.instruments or ()) - {program for group in groups for program in group}
        first = [group[0] for group in groups if not set(group) & set(played)]
        return sorted({*first, *others})

    @property
    def named_key(self) -> str | None:
        """The key that was named; None where there is none, or where it is estimated."""
        return None if self.key in (None, AUTO, NONE) else self.key

    @property
    def strength(self) -> float:
        """The strength of the key, 0 where there is none."""
        if self.key in (None, NONE):
            return 0.0
        if self.key_strength is not None:
            return self.key_strength
        return AUTO_STRENGTH if self.key == AUTO else STRICT

    @property
    def pitches(self) -> frozenset[int]:
        """The pitches that a new note may have; a key with a strength below 1 excludes none."""
        low, high = self.pitch_range or (0, 127)
        excluded = self.outside_key if self.strength == STRICT else frozenset()
        return frozenset(p for p in range(low, high + 1) if p not in excluded)

    @property
    def outside_key(self) -> frozenset[int]:
        """The pitches outside the key that was named, whatever its strength; none where none was."""
        classes = parse_key(self.named_key)[1] if self.named_key is not None else frozenset(range(12))
        return frozenset(p for p in range(128) if p % 12 not in classes)

    def resolved(self, own: Mapping[str, Any]) -> Controls:
        """Return what is asked for, and what a checkpoint recommends where nothing is; key and strength are then said.

        A recommended strength is one of "auto": it does not soften a key that is named.

        Args:
            own: options by their names; those that are no controls are left out.
        """
        names = [field.name for field in dataclasses.fields(self)]
        filled = {name: own.get(name) if getattr(self, name) is None else getattr(self, name) for name in names}
        if filled["ensemble"] is None:
            filled["ensemble"] = NO_ENSEMBLE
        if filled["repeat_strength"] is None:
            filled["repeat_strength"] = 0.0
        if filled["key"] is None:
            filled["key"] = NONE
        if filled["key"] != AUTO:
            filled["key_strength"] = self.key_strength
        if filled["key_strength"] is None:
            filled["key_strength"] = AUTO_STRENGTH if filled["key"] == AUTO else STRICT
        if filled["chords"] is not None and filled["chord_strength"] is None:
            filled["chord_strength"] = DEFAULT_STRENGTH
        return Controls(**filled)

    def apply(self, tokenizer: Tokenizer, permitted: np.ndarray) -> None:
        """Clear the ids that a control excludes by itself, (V,) booleans in place; see `Control.apply`."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None:
                field.metadata["control"].apply(value, tokenizer, permitted)

    def to_dict(self) -> dict[str, Any]:
        """Return what was asked for and nothing else, as JSON that makes the same controls again."""
        asked = {field: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {f.name: f.metadata["control"].to_json(value) for f, value in asked.items() if value != f.default}
