"""A model and its tokenizer at work: a score in, longer scores out.

Where sampling knows ids only and the tokenizer knows no model, this knows both, and what a bar is.
"""

from __future__ import annotations

import dataclasses
import logging
import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from symusic import Score

from .. import midi
from ..checkpoint import Checkpoint, default, load
from ..data import Piece
from ..devices import engine_label, resolve_precision
from ..errors import TokenizerError
from ..models.base import LanguageModel
from ..tokenizers.base import Tokenizer
from . import constraints, rerank
from .config import GenerationConfig, Length
from .controls import Controls
from .loops import repetition
from .prompt import Prompt
from .sampler import Constraint, Sampler
from .session import Continuation, GenerationSession, SessionConfig
from .stream import Stream

log = logging.getLogger(__name__)

MAX_SILENT = 8  # draws of a row without a single new note, before it is said


@dataclasses.dataclass(frozen=True, kw_only=True)
class Composition:
    """What was composed.

    Attributes:
        score: at 480 ticks a quarter; begins with the prompt unless only what is new was asked for.
        index: which of the variations that were drawn.
        num_new_tokens: drawn from the model, without what was drawn anew.
        num_bars: of the score.
        seconds: of the score, by its tempo.
        ended: by what: "length", or with `finish` "phrase" or "piece".
        redrawn: how many stretches were drawn anew since they had fallen into a loop.
        ids: new ones, those before its end.
    """

    score: Score
    index: int
    num_new_tokens: int
    num_bars: int
    seconds: float
    ended: str
    redrawn: int
    ids: np.ndarray

    @property
    def num_notes(self) -> int:
        return int(self.score.note_num())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ranked:
    """A composition against real pieces; see `choosing`.

    Attributes:
        composition: it.
        surprise: nats a token of its new part.
        repetition: of its new part.
        distance: of both from those of real pieces, in standard deviations.
    """

    composition: Composition
    surprise: float
    repetition: float
    distance: float


class Composer:
    """A model ready to compose.

    Args:
        checkpoint: what to load; see `Composer.load` for names.
        device: where to compute.
    """

    def __init__(self, checkpoint: Checkpoint, device: str = "cpu") -> None:
        self.checkpoint = checkpoint
        self.tokenizer: Tokenizer = checkpoint.tokenizer()
        self.model = checkpoint.model(device)
        self.device = torch.device(device)
        self._forms: dict[str, LanguageModel] = {}

    @classmethod
    def load(cls, name: str | None = None, device: str = "cpu") -> Composer:
        """Return the composer of a bundled name, a checkpoint file or a run folder; the default model if left out.

        Raises:
            CheckpointError: there is none, or it is damaged.
        """
        return cls(load(name or default()), device)

    def prompt(self, score: Score | None, *, bars: int | None = None, seconds: float | None = None) -> Prompt:
        """Return the prompt made of a score, or of its first bars or seconds; the empty prompt of None.

        Raises:
            MidiError: nothing of it can be expressed.
            ValueError: bars and seconds.
        """
        return Prompt.of(self.tokenizer, score, bars=bars, seconds=seconds)

    def compose(
        self,
        prompt: Prompt | Score | None = None,
        *,
        length: Length | None = None,
        count: int = 1,
        seed: int | None = None,
        only_new: bool = False,
        finish: bool = False,
        loop_guard: bool = True,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        precision: str = "auto",
        live: bool = False,
        controls: Controls | None = None,
    ) -> list[Composition]:
        """Return `count` variations, drawn in one batch.

        Args:
            prompt: music to go on from; None for music from nothing.
            length: how much new music; 16 bars if left out.
            count: how many.
            seed: the same seed, and all else the same, gives the same scores; drawn if left out.
            only_new: leave the prompt out of the scores. They begin at the last bar line that is not behind its end.
            finish: go on to where the model ends the piece or a phrase ends at a bar line, at most half as long again.
            loop_guard: draw anew, hotter, what repeats itself as real music hardly ever does; see `repetition`.
            temperature: see `Sampler`; it and the next three, left out, are the model's own.
            top_k: see `Sampler`.
            top_p: see `Sampler`.
            min_p: see `Sampler`.
            precision: of the weights: fp32, bf16, fp16 or int8; "auto" is the fastest here that harms no music.
            live: draw what `stream` would.
            controls: what the new music keeps to; it wins over what the prompt carries.

        Raises:
            TokenizerError: the tokenizer cannot express one of the controls, or the model writes no notes, or does not
                get on.
            ValueError: no such precision on this device.
        """
        prompt = self._held(prompt, controls)
        sampler = self._sampler(prompt, controls, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
        plan = SessionConfig(
            length=length or Length(), finish=finish, loop_guard=loop_guard, seed=_seed(seed), live=live
        )
        model = self.generating(self.precision(precision))
        drawing = GenerationSession(model, self.checkpoint.name, prompt, sampler, plan)
        rows = drawing.draw(count)
        for i in range(0 if live else count):
            for _ in range(MAX_SILENT):
                if _new_score(prompt, rows[i]).note_num():
                    break
                rows[i] = drawing.draw_anew(rows[i])
            else:
                if only_new or prompt.score is None:
                    raise TokenizerError(f"the model '{self.checkpoint.name}' writes nothing but silence here")
        return [_composition(prompt, row, only_new) for row in rows]

    def precision(self, name: str = "auto") -> str:
        """Return what a precision of `compose` means here."""
        return resolve_precision(name, self.device)

    def generating(self, precision: str) -> LanguageModel:
        """Return the model with its weights held in a precision, made once."""
        if precision not in self._forms:
            engine = engine_label(precision, self.device)
            log.debug("model %s: %d parameters in %s", self.checkpoint.name, self.model.num_parameters, engine)
            self._forms[precision] = self.model.for_generation(precision)
        return self._forms[precision]

    def stream(
        self,
        prompt: Prompt | Score | None = None,
        *,
        length: Length | None = None,
        seed: int | None = None,
        only_new: bool = False,
        finish: bool = False,
        loop_guard: bool = True,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        precision: str = "auto",
        controls: Controls | None = None,
    ) -> Stream:
        """Return an iterator over the notes of one variation, each as soon as it is certain; see `compose` and `Stream`.

        `for note in composer.stream(prompt): …` draws as it goes; the prompt's own notes come first, and at once.
        """
        prompt = self._held(prompt, controls)
        if not self.tokenizer.is_in_time:
            raise TokenizerError(
                f"the tokenizer '{self.tokenizer.name}' does not write in the order of time: no stream"
            )
        sampler = self._sampler(prompt, controls, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
        plan = SessionConfig(
            length=length or Length(), finish=finish, loop_guard=loop_guard, seed=_seed(seed), live=True
        )
        model = self.generating(self.precision(precision))
        return Stream(GenerationSession(model, self.checkpoint.name, prompt, sampler, plan), prompt, only_new=only_new)

    def streamed(self, stream: Stream) -> Composition:
        """Return the whole of what a stream has told, once it has ended."""
        return _composition(stream.prompt, stream.row, stream.only_new)

    def weigh(self, prompt: Prompt, compositions: Sequence[Composition], *, bf16: bool = False) -> list[Ranked]:
        """Return compositions with their surprise and repetition, the nearest to real pieces' first.

        Raises:
            CheckpointError: the checkpoint does not say how real pieces surprise it.
        """
        real = rerank.of_checkpoint(self.checkpoint)
        pieces = [
            Piece(name=str(c.index), tokens=prompt.with_new(c.ids), num_notes=0, seconds=0.0) for c in compositions
        ]
        nats = rerank.losses(self.model, self.tokenizer, pieces, behind=len(prompt.ids), bf16=bf16)
        weighed = []
        for composition, surprise in zip(compositions, nats, strict=True):
            repeated = repetition(prompt.continued(composition.ids), prompt.quarters)
            weighed.append(
                Ranked(
                    composition=composition,
                    surprise=surprise,
                    repetition=repeated,
                    distance=real.distance(surprise, repeated),
                )
            )
        return sorted(weighed, key=lambda w: w.distance)

    def _held(self, prompt: Prompt | Score | None, controls: Controls | None) -> Prompt:
        """Return the prompt as music that keeps to controls goes on from it."""
        if not isinstance(prompt, Prompt):
            prompt = self.prompt(prompt)
        if controls is not None and controls.time_signature is not None:
            prompt = dataclasses.replace(prompt, ids=self.tokenizer.without_open_bar(prompt.ids, prompt.quarters))
        if controls is not None and controls.tempo is not None:
            prompt = dataclasses.replace(prompt, tempo=controls.tempo)
        return prompt

    def _sampler(self, prompt: Prompt, controls: Controls | None, **how: Any) -> Sampler:
        heard = None if prompt.score is None else prompt.ids
        rules = constraints.constraints(self.tokenizer, not_before=prompt.clock, heard=heard, controls=controls)
        return self.sampler(rules, **how)

    def sampler(self, rules: Sequence[Constraint], **how: Any) -> Sampler:
        """Return the sampler of these rules that chooses as `sampling` says; how long notes last stays the model's choice."""
        chosen = self.sampling(**how)
        log.debug("sampling with %s", chosen)
        return Sampler(constraints=rules, exempt=self.tokenizer.exempt_from_temperature, **chosen)

    def sampling(
        self,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
    ) -> dict[str, Any]:
        """Return how to choose among what the model offers: as asked, else as its checkpoint says, else plainly.

        What the checkpoint says of the likeliest tokens holds only if nothing is asked about them.
        """
        own = self.checkpoint.sampling
        asked = {"top_k": top_k, "top_p": top_p, "min_p": min_p}
        if all(value is None for value in asked.values()):
            asked |= {name: own.get(name) for name in asked}
        return {"temperature": own.get("temperature", 1.0) if temperature is None else temperature, **asked}

    def completed(self, request: GenerationConfig) -> GenerationConfig:
        """Return a request with what it leaves to the model and the machine: how to sample, and in which precision.

        Raises:
            ValueError: no such precision on this device.
        """
        precision = self.precision(request.precision)
        return dataclasses.replace(request, precision=precision, **self.sampling(**request.sampling))


def _seed(given: int | None) -> int:
    return secrets.randbelow(2**31) if given is None else given


def _new_score(prompt: Prompt, row: Continuation) -> Score:
    """Return the score of a row with its new notes only, at their places."""
    score = prompt.continued(row.ids)
    if row.stop is not None:
        score = midi.cut(score, 0.0, row.stop)
    return midi.without_before(score, prompt.quarters)


def _composition(prompt: Prompt, row: Continuation, only_new: bool) -> Composition:
    score = prompt.continued(row.ids)
    start = 0.0
    if only_new:
        start = midi.last_bar_line(score, prompt.quarters)
        score = midi.without_before(score, prompt.quarters)
    stop = row.stop if row.stop is not None else max(midi.end(score), start + 1 / 480)
    score = midi.cut(score, start, stop)
    if only_new and prompt.tempo is not None:  # the bar that the prompt began is at the new tempo, too
        midi.set_tempo(score, 0.0, prompt.tempo)
    if row.ended is None:
        raise ValueError("the music has not ended yet")
    return Composition(
        score=score,
        index=row.number,
        num_new_tokens=len(row.ids),
        num_bars=midi.num_bars(score),
        seconds=midi.seconds(score),
        ended=row.ended,
        redrawn=row.redrawn,
        ids=row.ids if row.stop is None else row.ids[: prompt.num_before(row.ids, row.stop)],
    )
