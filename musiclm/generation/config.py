"""All that shapes new music beside the model, the prompt's music and the seed.

An option is declared once, as a field: here, or in a dataclass that is nested here. The command line, the record in a MIDI
file and `repro` find it by the field. Imports neither click nor torch, and depends on no tokenizer.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from ..errors import MidiError
from .controls import Controls
from .logits_processors import logits_processor  # noqa: F401 (for the line of an option; see `SamplerConfig`)
from .options import OptionError, leaves, nested, option

TEMPERATURES = ("temperature", "rhythm_temperature")
FILTERS = ("top_k", "top_p", "min_p")
FILLING = ("infill", "keep_tracks", "accompany")
ACCOMPANY, RESTYLE = "accompany", "restyle"
TASKS = (ACCOMPANY, RESTYLE)
OF_THE_SONG = ("tempo", "time_signature")
BEHIND_PROMPT = ("prompt_bars", "prompt_seconds", "keep", "only_new", "finish", "live", "repeat_strength")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Length:
    """How much new music; exactly one of these, 16 bars if none is given.

    Attributes:
        bars: of the time signature in force where each begins; a bar that the prompt has begun is completed first.
        seconds: by the tempo of the score.
        tokens: of the tokenizer.
    """

    bars: int | None = option(None, min=1, metavar="N", group="Length", help="New music: bars (16 by default).")
    seconds: float | None = option(None, min=0, min_open=True, metavar="S", group="Length", help="New music: seconds.")
    tokens: int | None = option(None, min=1, metavar="N", group="Length", help="New music: tokens.")

    def __post_init__(self) -> None:
        given = [v for v in (self.bars, self.seconds, self.tokens) if v is not None]
        if len(given) > 1:
            raise OptionError("at most one of {}, {} and {}", "bars", "seconds", "tokens")
        if given and given[0] <= 0:
            raise ValueError(f"a length must be more than 0, not {given[0]}")
        if not given:
            object.__setattr__(self, "bars", 16)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """How to choose among the tokens that the model offers; what is None is left to the checkpoint.

    A further option is one file in `logits_processors` and one field here: `name: float | None = logits_processor("file")`.

    Attributes:
        temperature: see `Sampler`.
        rhythm_temperature: the temperature of what says when and not what: which tokens is up to the tokenizer.
        top_k: only the k most probable tokens.
        top_p: only the most probable tokens that together have this probability.
        min_p: only tokens at least this times as probable as the most probable one.
    """

    temperature: float | None = option(
        None, min=0, group="Sampling", help="Below 1 safer, above 1 bolder; the model's own by default."
    )
    rhythm_temperature: float | None = option(
        None, min=0, min_open=True, group="Sampling", off=1.0,
        help="The same for rhythm, instruments and loudness, or whether a voice moves between beats."
    )  # fmt: skip
    top_k: int | None = option(None, min=1, metavar="K", group="Sampling", help="Only the K most probable tokens.")
    top_p: float | None = option(
        None, min=0, max=1, min_open=True, metavar="P", group="Sampling", help="Only the most probable that make up P."
    )
    min_p: float | None = option(
        None, min=0, max=1, min_open=True, metavar="P", group="Sampling",
        help="Drop tokens below P x the highest probability.",
    )  # fmt: skip

    def resolved(self, own: Mapping[str, Any]) -> SamplerConfig:
        """Return what is asked for; where nothing is, what a checkpoint recommends, else temperatures of 1 and no filter.

        The checkpoint's filters apply only if no filter is asked for.
        """
        filled: dict[str, Any] = {n: own.get(n, 1.0) for n in TEMPERATURES if getattr(self, n) is None}
        if all(getattr(self, name) is None for name in FILTERS):
            filled |= {name: own.get(name) for name in FILTERS}
        return dataclasses.replace(self, **filled)

    def processors(self) -> list[tuple[Any, Any]]:
        """Return (logits processor, value) of each further option that is on, in the order of the fields."""
        found = [(f.metadata.get("processor"), getattr(self, f.name)) for f in dataclasses.fields(self)]
        return [(processor, value) for processor, value in found if processor is not None and value is not None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """What is asked for.

    Attributes:
        prompt_bars: use only the first bars of the prompt.
        prompt_seconds: use only the first seconds of the prompt.
        only_new: leave the prompt out. The score begins at the last bar line at or before the prompt's end.
        length: how much new music; None for 16 bars. Not with infilling.
        finish: continue to where the model ends the piece or a phrase ends at a bar line, at most half as long again; False
            to cut the music at its length. None: as `ending` where that is possible, else False.
        ending: the last of `bars` are an ending. `Composer.completed` decides it where `finish` is None.
        n: variations, sampled in one batch.
        keep: how many of them to keep, the best ones; None for all. See `rerank`.
        draw: how many variations to sample for each of the n, of which the best is kept; 1 is off. None leaves it to the
            checkpoint, whose choice holds for one variation without `keep`, behind a prompt or without one. Of an infill each
            part is drawn so often, see `best_fit`; None is then 8 where `Composer.completed` says so.
        voice_leading: nats by which a fault makes a pitch less probable in models of four voices; 0 for no such penalty,
            None for what the checkpoint recommends. See `constraints.VoiceLeading`.
        strict: ban what makes a fault.
        loop_guard: resample loops, standing harmony, and drums alone that were not asked for; see `loop_guard`.
        live: the music is played while it is sampled: what the guard finds is left without a rewind.
        infill: bars to rewrite, "9-12" or "9"; `infill_bars` has them as numbers.
        keep_tracks: tracks to keep while the others are rewritten; see `masked_span.masked_span`.
        accompany: keep all tracks, and add notes.
        task: parts beside given music, by a model that was trained on pairs: "accompany" adds the instruments of the
            controls to the prompt, "restyle" keeps its melody alone. `infill` then says the bars. See `accompany`.
        controls: hard constraints on the new music.
        sampler: how to choose among tokens.
        precision: of the weights: fp32, bf16, fp16 or int8; "auto" is the fastest here that is exact enough. A record
            has what "auto" resolved to.

    Raises:
        ValueError: a value that an option cannot have, or options that exclude each other (`OptionError`).
    """

    prompt_bars: int | None = option(
        None, min=1, metavar="N", group="Prompt", help="Use only the prompt's first N bars."
    )
    prompt_seconds: float | None = option(
        None, min=0, min_open=True, metavar="S", group="Prompt", help="Use only its first S seconds."
    )
    only_new: bool = option(
        False, group="Prompt",
        help="Leave the prompt out. Where it ends within a bar, the rest of that bar comes first, then --bars.",
    )  # fmt: skip
    length: Length | None = nested(Length, optional=True)
    finish: bool | None = option(
        None, group="Length", off=False,
        help="Continue to an end of the piece or a phrase, at most half as long again. By default music without a "
        "prompt ends within --bars, where the model can; --no-finish cuts.",
    )  # fmt: skip
    ending: bool = False
    n: int = option(1, min=1, max=1024, metavar="N", group="What to write", help="Number of variations.")
    keep: int | None = option(
        None, min=1, metavar="K", group="What to write", help="Keep the K best of them; see above."
    )
    draw: int | None = option(
        None, min=1, max=1024, metavar="D", group="What to write", off=1,
        help="Sample D for each one that is written, the best; 1 is off.",
    )  # fmt: skip
    infill: str | None = option(
        None, metavar="A-B", group="What to write",
        help="Rewrite these bars of the prompt, so that they lead into the next.",
    )  # fmt: skip
    keep_tracks: str | None = option(
        None, metavar="NAMES", group="What to write", help="Keep these tracks of the prompt and rewrite the others."
    )
    accompany: bool = option(False, group="What to write", help="Keep all tracks of the prompt and add to them.")
    task: str | None = None
    voice_leading: float | None = option(
        None, min=0, metavar="NATS", group="Sampling", off=0.0,
        help="Avoid parallels, crossed voices and clashes in four voices: nats for each; 0 not at all.",
    )  # fmt: skip
    strict: bool = option(False, group="Sampling", help="Ban them, wherever another pitch is possible.")
    loop_guard: bool = option(
        True, group="What to write",
        help="Resample loops, standing harmony and drums alone (on by default).",
    )  # fmt: skip
    live: bool = False
    controls: Controls = nested(Controls)
    sampler: SamplerConfig = nested(SamplerConfig)
    precision: str = option(
        "auto", choices=("auto", "fp32", "bf16", "fp16", "int8"), group="Sampling",
        help="Of the weights; auto: the fastest here.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        if self.prompt_bars is not None and self.prompt_seconds is not None:
            raise OptionError("at most one of {} and {}", "prompt_bars", "prompt_seconds")
        if self.keep is not None and not 1 <= self.keep <= self.n:
            raise OptionError(
                "{} must be from 1 to {}, which is {n}, not {keep}", "keep", "n", n=self.n, keep=self.keep
            )
        if self.draw is not None and self.draw > 1 and (wrong := self._not_drawn()):
            if wrong == "live":
                raise OptionError("what is played while it is sampled is not the best of several: {} must be 1", "draw")
            raise OptionError("{} keeps the best of several: not with {}", "draw", wrong)
        if self.live and self.n > 1:
            raise OptionError("music that is played while it is sampled has one variation: {} must be 1", "n")
        if self.accompany and self.keep_tracks is not None:
            raise OptionError("{0} keeps all tracks: at most one of {1} and {0}", "accompany", "keep_tracks")
        if self.controls.chords is None and self.controls.chord_strength and self.task is None:
            raise OptionError("{} needs {}", "chord_strength", "chords")
        if self.controls.form is not None:
            self._check_form(self.controls.form)
        if self.is_filling:
            self._check_filling()

    def _check_form(self, form: str) -> None:
        """Refuse a form that does not divide the new bars."""
        if self.is_filling:
            raise OptionError("{} is for music from a bar on: not with {}, {}, {}", "form", *FILLING)
        bars = (self.length or Length()).bars
        if bars is None:
            raise OptionError("{} needs a length in {}", "form", "bars")
        if bars % len(form):
            below, above = bars // len(form) * len(form), (bars // len(form) + 1) * len(form)
            fitting = f"{below} or {above}" if below else f"{above}"
            raise OptionError(
                "the {n} parts of {} {form} need equally many bars: {} {fitting}, not {bars}", "form", "bars",
                n=len(form), form=form, fitting=fitting, bars=bars,
            )  # fmt: skip

    def _check_filling(self) -> None:
        """Refuse what has no meaning within a piece."""
        if self.task is not None:
            self._check_task(self.task)
        flat = self.to_dict()
        allowed = () if self.task is None else ("keep", "repeat_strength")  # they choose among whole songs
        others = (*leaves(Length), *(name for name in BEHIND_PROMPT if name not in allowed))
        if wrong := [name for name in others if flat.get(name)]:
            raise OptionError(
                "{} is for music behind a prompt: not with {}, {}, {}", wrong[0], "infill", "keep_tracks", "accompany"
            )
        _ = self.infill_bars

    def _check_task(self, task: str) -> None:
        """Refuse a task that there is not, or what has no meaning in it."""
        if task not in TASKS:
            raise ValueError(f"no task '{task}': one of {', '.join(TASKS)}")
        if self.keep_tracks is not None or self.accompany:
            raise OptionError("{} is for music within a prompt: not with a task", "keep_tracks")
        if task == RESTYLE and self.controls.style is None:
            raise OptionError("a song is restyled to a {}", "style")
        self._check_band()

    def _check_band(self) -> None:
        """Refuse what the song says, and that some of the new parts may be silent."""
        if wrong := [name for name in OF_THE_SONG if getattr(self.controls, name) is not None]:
            raise OptionError("{} is the song's own where parts are written beside it", wrong[0])
        groups = self.controls.ensemble
        programs = () if isinstance(groups, str) else {program for group in groups or () for program in group}
        if groups is not None and set(programs) != set(self.controls.instruments or ()):
            raise OptionError(
                "all {} play where parts are written beside a song: not with {}", "instruments", "ensemble"
            )

    def _not_drawn(self) -> str | None:
        """Return the option with which one variation is not chosen among several; None if there is none."""
        return next((name for name in ("keep", "live") if getattr(self, name) not in (None, False)), None)

    def sampled(self) -> GenerationConfig:
        """Return the config of all that is sampled: `draw` as `n` and `keep`, which a record stores. Parts of a span have
        their own draws, so that the record of an infill keeps `draw`.
        """
        if self.draw is None or self.draw == 1 or self.is_filling:
            return self
        return dataclasses.replace(self, n=self.n * self.draw, keep=self.n, draw=1)

    @property
    def is_filling(self) -> bool:
        """Whether something within the prompt is rewritten, or added to it."""
        return self.infill is not None or self.keep_tracks is not None or self.accompany or self.task is not None

    @property
    def infill_bars(self) -> tuple[int, int] | None:
        """The first and the last bar to rewrite, counted from 1; None for all."""
        if self.infill is None:
            return None
        found = re.fullmatch(r"\s*(\d{1,6})\s*(?:-\s*(\d{1,6})\s*)?", self.infill)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
        if not 1 <= first <= last:
            raise OptionError("{} takes bars, '9-12' or '9', not '{given}'", "infill", given=self.infill)
        return first, last

    def resolved(self, own: Mapping[str, Any]) -> GenerationConfig:
        """Return what is asked for, and where nothing is, what a checkpoint recommends, else what turns an option off.

        Args:
            own: options by their names; see `SamplerConfig.resolved` for those of the sampler.
        """
        filled = dataclasses.replace(self, sampler=self.sampler.resolved(own), controls=self.controls.resolved(own))
        given, nested = filled.to_dict(), leaves(SamplerConfig).keys() | leaves(Controls).keys()
        known = {name: value for name, value in (_off() | dict(own)).items() if name in self.names()}
        if self.n > 1 or self.is_filling or self._not_drawn():
            known["draw"] = 1
        others = {name: value for name, value in known.items() if name not in nested and given.get(name) is None}
        return GenerationConfig.from_options(**given | others)

    @classmethod
    def names(cls) -> list[str]:
        """Return the names of all options, those of nested dataclasses among them."""
        return list(leaves(cls))

    @classmethod
    def from_options(cls, **flat: Any) -> GenerationConfig:
        """Return the config of options by their names, whichever dataclass has them; None stands for the default.

        Raises:
            TypeError: there is no such option.
            ValueError: see the class.
        """
        given = {name: value for name, value in flat.items() if value is not None}
        made: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            if "nested" in field.metadata:
                kind = field.metadata["nested"]
                inner = {name: given.pop(name) for name in leaves(kind) if name in given}
                if inner or not field.metadata["optional"]:
                    made[field.name] = kind(**inner)
        return cls(**made, **given)

    def to_dict(self) -> dict[str, Any]:
        """Return all options by their names; values as JSON."""
        flat: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Controls):
                flat |= value.to_dict()
            elif "nested" in field.metadata:
                flat |= {} if value is None else dataclasses.asdict(value)
            else:
                flat[field.name] = value
        return flat

    def to_record(self) -> dict[str, Any]:
        """Return what a file stores of it, as JSON: each option that has a value and is not off, by its name."""
        off = _off()
        return {k: v for k, v in self.to_dict().items() if v is not None and v is not False and v != off.get(k)}

    @classmethod
    def from_record(cls, stored: Any) -> GenerationConfig:
        """Return the config that a file stores. An option that is absent is off, whatever its default is today.

        Raises:
            MidiError: an option that this version does not have, or a value that it cannot have.
        """
        if not isinstance(stored, dict):
            raise MidiError("its record of options is damaged")
        known = leaves(cls)
        if unknown := sorted(set(stored) - set(known)):
            raise MidiError(f"it was made with an option that this version does not have: {unknown[0]!r}")
        try:
            return cls.from_options(**_off() | stored)
        except (TypeError, ValueError) as error:
            raise MidiError(f"its record of options is damaged: {error}") from error


def _off() -> dict[str, Any]:
    """Return the value that turns an option off, of each option that has one, by its name."""
    fields = leaves(GenerationConfig)
    found = {name: field.metadata["option"].off for name, field in fields.items() if "option" in field.metadata}
    return {name: False for name, field in fields.items() if isinstance(field.default, bool)} | {
        name: value for name, value in found.items() if value is not None
    }
