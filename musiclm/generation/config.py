"""All that shapes new music beside the model, the prompt and the seed: what is asked for, and what a file tells of it.

An option of `generate` that changes the music is a field here: the command line, the file's record and `repro` take it
from here by its name. Knows neither torch nor a tokenizer.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from ..errors import MidiError
from .controls import Controls


@dataclasses.dataclass(frozen=True, kw_only=True)
class Length:
    """How much new music; at most one of these, 16 bars if none is given.

    Attributes:
        bars: of the time signature that holds where each begins; a bar that the prompt has begun is completed first.
        seconds: by the tempo of the score.
        tokens: of the tokenizer.
    """

    bars: int | None = None
    seconds: float | None = None
    tokens: int | None = None

    def __post_init__(self) -> None:
        given = [v for v in (self.bars, self.seconds, self.tokens) if v is not None]
        if len(given) > 1:
            raise ValueError("at most one of bars, seconds and tokens")
        if given and given[0] <= 0:
            raise ValueError(f"a length must be more than 0, not {given[0]}")
        if not given:
            object.__setattr__(self, "bars", 16)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """What is asked for.

    Attributes:
        prompt_bars: of the prompt only its first bars.
        prompt_seconds: of the prompt only its first seconds.
        bars: see `Length`.
        seconds: see `Length`.
        tokens: see `Length`.
        n: variations to draw, in one batch.
        keep: so many of them, those nearest to real pieces; all if left out.
        only_new: leave the prompt out.
        finish: go on to the end of the piece or of a phrase.
        loop_guard: draw anew what falls into a loop.
        live: heard while it is drawn: a loop is left by going on hotter, not by going back.
        temperature: see `Sampler`; left out, the model's own, as the next three.
        top_k: see `Sampler`.
        top_p: see `Sampler`.
        min_p: see `Sampler`.
        precision: see `Composer.compose`; a file tells what "auto" came to.
        infill: bars to write anew, "9-12" or "9"; `infill_bars` has them as numbers.
        keep_tracks: which tracks are kept where something is written anew; see `infilling.hole`.
        accompany: keep all tracks, and add.
        instruments, tempo, time_signature, key, key_strength, pitch_range, max_polyphony: see `Controls`; kept as it
            describes them.
    """

    prompt_bars: int | None = None
    prompt_seconds: float | None = None
    bars: int | None = None
    seconds: float | None = None
    tokens: int | None = None
    n: int = 1
    keep: int | None = None
    only_new: bool = False
    finish: bool = False
    loop_guard: bool = True
    live: bool = False
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    precision: str = "auto"
    infill: str | None = None
    keep_tracks: str | None = None
    accompany: bool = False
    instruments: Any = None
    tempo: float | None = None
    time_signature: Any = None
    key: str | None = None
    key_strength: float | None = None
    pitch_range: Any = None
    max_polyphony: int | None = None

    def __post_init__(self) -> None:
        if self.prompt_bars is not None and self.prompt_seconds is not None:
            raise ValueError("at most one of prompt_bars and prompt_seconds")
        if self.keep is not None and not 1 <= self.keep <= self.n:
            raise ValueError(f"keep must be from 1 to n, {self.n}, not {self.keep}")
        if self.live and self.n > 1:
            raise ValueError("one variation at a time can be heard: n must be 1")
        if self.accompany and self.keep_tracks is not None:
            raise ValueError("accompany keeps all tracks: at most one of keep_tracks and accompany")
        if self.is_filling:
            other = ("bars", "seconds", "tokens", "prompt_bars", "prompt_seconds", "keep", "only_new", "finish", "live")
            if wrong := [name for name in other if getattr(self, name)]:
                raise ValueError(
                    f"{wrong[0]} says how to go on behind a prompt: not with infill, keep_tracks, accompany"
                )
        _ = self.infill_bars
        if self.key_strength is not None and self.key is None:
            raise ValueError("key_strength needs a key")
        _ = self.length
        described = self.controls.to_dict()
        for field in dataclasses.fields(Controls):
            object.__setattr__(self, field.name, described.get(field.name))

    @classmethod
    def names(cls) -> list[str]:
        """Return the names of the fields, in their order."""
        return [field.name for field in dataclasses.fields(cls)]

    @property
    def length(self) -> Length:
        return Length(bars=self.bars, seconds=self.seconds, tokens=self.tokens)

    @property
    def controls(self) -> Controls:
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(Controls)}
        return Controls(**{name: value for name, value in given.items() if value is not None})

    @property
    def is_filling(self) -> bool:
        """Whether something within the prompt is written anew, or added to it."""
        return self.infill is not None or self.keep_tracks is not None or self.accompany

    @property
    def infill_bars(self) -> tuple[int, int] | None:
        """The first and the last bar to write anew, counted from 1; None for all."""
        if self.infill is None:
            return None
        found = re.fullmatch(r"\s*(\d{1,6})\s*(?:-\s*(\d{1,6})\s*)?", self.infill)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
        if not 1 <= first <= last:
            raise ValueError(f"infill takes bars, '9-12' or '9', not '{self.infill}'")
        return first, last

    @property
    def sampling(self) -> dict[str, Any]:
        """How to choose among what the model offers: fields of `Sampler`."""
        return {name: getattr(self, name) for name in ("temperature", "top_k", "top_p", "min_p")}

    def arguments(self) -> dict[str, Any]:
        """Return what `Composer.compose` takes, but for the prompt and the seed."""
        return {
            "length": self.length,
            "count": self.n,
            "only_new": self.only_new,
            "finish": self.finish,
            "loop_guard": self.loop_guard,
            "live": self.live,
            **self.sampling,
            "precision": self.precision,
            "controls": self.controls,
        }

    def to_record(self) -> dict[str, Any]:
        """Return what a file tells of it, as JSON: all that was asked for or has a value by itself."""
        return {k: v for k, v in dataclasses.asdict(self).items() if v is not None and v is not False}

    @classmethod
    def from_record(cls, told: Any) -> GenerationConfig:
        """Return the request of which a file tells.

        Raises:
            MidiError: an option that this version does not have, or a value that it cannot have.
        """
        if not isinstance(told, dict):
            raise MidiError("its record of options is damaged")
        if unknown := sorted(set(told) - set(cls.names())):
            raise MidiError(f"it was made with an option that this version does not have: {unknown[0]!r}")
        flags: dict[str, Any] = {f.name: False for f in dataclasses.fields(cls) if isinstance(f.default, bool)}
        try:
            return cls(**flags | told)
        except (TypeError, ValueError) as error:
            raise MidiError(f"its record of options is damaged: {error}") from error
