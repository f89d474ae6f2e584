"""A model and its tokenizer at work: a score in, longer scores out.

Where sampling knows ids only and the tokenizer knows no model, this knows both, and what a bar is.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import secrets
from typing import Any

import numpy as np
import torch
from symusic import Score

from . import grammar, scores
from .checkpoint import Checkpoint, bundled, default, load
from .errors import TokenizerError
from .models.base import LanguageModel, resolve_precision
from .sampling import Sampler, generate
from .tokens.base import Tokenizer

CHECK_EVERY = 16  # tokens between two looks at how long the music is
MAX_SILENT = 8  # draws of a row without a single new note, before it is said
MAX_TOKENS_A_QUARTER = 400  # of new music; a model that needs more stands still


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
class Composition:
    """What was composed.

    Attributes:
        score: at 480 ticks a quarter; begins with the prompt unless only what is new was asked for.
        num_new_tokens: drawn from the model.
        num_bars: of the score.
        seconds: of the score, by its tempo.
    """

    score: Score
    num_new_tokens: int
    num_bars: int
    seconds: float

    @property
    def num_notes(self) -> int:
        return int(self.score.note_num())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompt:
    """A prompt as the model hears it.

    Attributes:
        ids: bos and the music.
        quarters: where it ends and new music may begin.
        left_out: how many of its notes the tokenizer cannot express.
        score: what it was made from.
    """

    ids: np.ndarray
    quarters: float
    left_out: int
    score: Score | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Drawn:
    """What one row drew, (T,) ids, and where to cut it, in quarters; None for where its last note ends."""

    ids: np.ndarray
    stop: float | None


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
            ValueError: bars and seconds, or none of either.
        """
        if bars is not None and seconds is not None:
            raise ValueError("at most one of bars and seconds of the prompt")
        if score is None:
            return Prompt(ids=np.array([self.tokenizer.bos]), quarters=0.0, left_out=0, score=None)
        stop = scores.end(score)
        if bars is not None:
            stop = min(scores.bar_line(score, 0.0, bars), scores.bar_line(score, stop))
        elif seconds is not None:
            stop = min(stop, scores.quarters_at(score, seconds))
        if bars is not None or seconds is not None:
            score = scores.cut(score, 0.0, stop)
        ids, left_out = self.tokenizer.encode(score)
        ids = self.tokenizer.advance(ids[:-1], self._clock(score, stop))
        # in seconds a note's end may be rounded to 10 ms behind the bar line: that begins no new bar
        reached = stop if self.tokenizer.in_seconds else max(stop, self.tokenizer.quarters(ids))
        return Prompt(ids=ids, quarters=reached, left_out=left_out, score=score)

    def _clock(self, score: Score | None, quarters: float) -> float:
        """Return the tokenizer's quarters at a musical time of a score: the same, or those of 120 a minute."""
        if score is None or not self.tokenizer.in_seconds:
            return quarters
        return scores.seconds_at(score, quarters) * 2

    def _quarters(self, score: Score | None, ids: np.ndarray) -> float:
        """Return the musical time of a score, in quarters, at which ids end."""
        quarters = self.tokenizer.quarters(ids)
        if score is None or not self.tokenizer.in_seconds:
            return quarters
        return scores.quarters_at(score, quarters / 2)

    def compose(
        self,
        prompt: Prompt | Score | None = None,
        *,
        length: Length | None = None,
        count: int = 1,
        seed: int | None = None,
        only_new: bool = False,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        precision: str = "auto",
    ) -> list[Composition]:
        """Return `count` variations, drawn in one batch.

        Args:
            prompt: music to go on from; None for music from nothing.
            length: how much new music; 16 bars if left out.
            count: how many.
            seed: the same seed, and all else the same, gives the same scores; drawn if left out.
            only_new: leave the prompt out of the scores. They begin with the bar in which the prompt ends.
            temperature: see `Sampler`.
            top_k: see `Sampler`.
            top_p: see `Sampler`.
            min_p: see `Sampler`.
            precision: of the weights: fp32, bf16, fp16 or int8; "auto" is the fastest here that harms no music.

        Raises:
            TokenizerError: the model writes nothing but silence, or does not get on.
            ValueError: no such precision on this device.
        """
        if not isinstance(prompt, Prompt):
            prompt = self.prompt(prompt)
        length = length or Length()
        seed = secrets.randbelow(2**31) if seed is None else seed
        sampler = Sampler(
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            rules=grammar.rules(
                self.tokenizer,
                not_before=self._clock(prompt.score, prompt.quarters),
                heard=None if prompt.score is None else prompt.ids,
            ),
        )
        draw = functools.partial(
            self._draw, prompt, length, sampler, self._generating(self.precision(precision, count))
        )
        drawn = draw(count, seed)
        for row in range(count):
            for attempt in range(1, MAX_SILENT + 1):
                if self._has_new_notes(prompt, drawn[row]):
                    break
                (drawn[row],) = draw(1, seed + (attempt << 32) + (row << 48))
            else:
                if only_new or prompt.score is None:
                    raise TokenizerError(f"the model '{self.checkpoint.name}' writes nothing but silence here")
        return [self._finish(prompt, each, only_new) for each in drawn]

    def precision(self, name: str = "auto", count: int = 1) -> str:
        """Return what a precision of `compose` means here, for so many variations."""
        return resolve_precision(name, self.device, count)

    def _generating(self, precision: str) -> LanguageModel:
        """Return the model with its weights held in a precision, made once."""
        if precision not in self._forms:
            self._forms[precision] = self.model.for_generation(precision)
        return self._forms[precision]

    def _draw(
        self, prompt: Prompt, length: Length, sampler: Sampler, model: LanguageModel, count: int, seed: int
    ) -> list[_Drawn]:
        """Return what a batch of rows draws, each until it is long enough."""
        ids = torch.from_numpy(prompt.ids).to(self.device).expand(count, -1)
        features = self.tokenizer.features if self.tokenizer.feature_sizes else None
        drawn: list[np.ndarray] = []
        stops: list[float | None] = [None] * count
        used = [0] * count
        for tokens in generate(model, ids, sampler, seed=seed, features=features):
            drawn.append(tokens.cpu().numpy())
            if length.tokens is not None:
                if len(drawn) == length.tokens:
                    break
            elif len(drawn) % CHECK_EVERY == 0:
                self._look(prompt, length, np.stack(drawn, 1), stops, used)
                if all(stop is not None for stop in stops):
                    break
        new = np.stack(drawn, 1)
        return [_Drawn(ids=new[row, : used[row] or None], stop=stops[row]) for row in range(count)]

    def _has_new_notes(self, prompt: Prompt, drawn: _Drawn) -> bool:
        score = self._finish(prompt, drawn, only_new=False).score
        return bool(scores.without_before(score, prompt.quarters).note_num())

    def _look(
        self, prompt: Prompt, length: Length, new: np.ndarray, stops: list[float | None], used: list[int]
    ) -> None:
        """Note where each row has to stop, for those that have got so far."""
        for row in range(len(new)):
            if stops[row] is not None:
                continue
            ids = np.concatenate([prompt.ids, new[row]])
            reached = self._quarters(prompt.score, ids)
            score = self._score(prompt, ids)
            if length.bars is not None:
                stop = scores.bar_line(score, prompt.quarters, length.bars)
            else:
                assert length.seconds is not None
                before = scores.seconds_at(score, prompt.quarters)
                stop = scores.quarters_at(score, before + length.seconds)
            if reached >= stop:
                stops[row], used[row] = stop, new.shape[1]
            elif new.shape[1] > MAX_TOKENS_A_QUARTER * max(16.0, stop - prompt.quarters):
                raise TokenizerError(
                    f"the model '{self.checkpoint.name}' does not get on: no end after {new.shape[1]} tokens"
                )

    def _score(self, prompt: Prompt, ids: np.ndarray) -> Score:
        """Return the score of ids, with the prompt's tempo and metre where the tokenizer has none of its own."""
        score = self.tokenizer.decode(ids)
        if prompt.score is not None:
            if self.tokenizer.in_seconds:
                score = scores.retimed(score, prompt.score)
            scores.carry_over(prompt.score, score, tempi=self.tokenizer.tempi)
        return score

    def _finish(self, prompt: Prompt, drawn: _Drawn, only_new: bool) -> Composition:
        score = self._score(prompt, np.concatenate([prompt.ids, drawn.ids]))
        start = 0.0
        if only_new:
            start = scores.last_bar_line(score, prompt.quarters)
            score = scores.without_before(score, prompt.quarters)
        stop = drawn.stop if drawn.stop is not None else max(scores.end(score), start + 1 / 480)
        score = scores.cut(score, start, stop)
        return Composition(
            score=score, num_new_tokens=len(drawn.ids), num_bars=scores.num_bars(score), seconds=scores.seconds(score)
        )


def provenance(composer: Composer, *, seed: int, options: dict[str, Any], prompt: bytes | None, index: int) -> str:
    """Return what a MIDI file should tell of its origin, as JSON: enough to make it again; no path, no date."""
    from . import __version__

    told = {
        "musiclm": __version__,
        "model": composer.checkpoint.name if composer.checkpoint.name in bundled() else composer.checkpoint.arch,
        "weights": composer.checkpoint.sha256[:16],
        "seed": seed,
        "prompt": hashlib.sha256(prompt).hexdigest()[:16] if prompt is not None else None,
        "index": index,
        "options": {k: v for k, v in options.items() if v is not None and v is not False},
    }
    return json.dumps(told, sort_keys=True)
