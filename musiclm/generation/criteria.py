"""Stopping criteria: when a continuation has ended, for which reason, and where it is cut.

One object of each for each continuation. Times are quarters of the score.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod

import numpy as np
from symusic import Score

from .. import midi
from . import stopping
from .config import Length
from .prompt import Prompt

MAX_TOKENS_PER_QUARTER = 400  # of new music; a model that needs more makes no progress


@dataclasses.dataclass(frozen=True, kw_only=True)
class End:
    """How a continuation ends.

    Attributes:
        reason: "length", "phrase" or "piece".
        ids: the new ids that are kept.
        stop: where the score is cut, in quarters; None for where its last note ends.
    """

    reason: str
    ids: np.ndarray
    stop: float | None


class StoppingCriterion(ABC):
    """Something that ends a continuation."""

    @abstractmethod
    def check(self, ids: np.ndarray, reached: float) -> End | None:
        """Return how new ids end, None if they continue; `reached` is the musical time at which they end, in quarters."""


class LengthCriterion(StoppingCriterion):
    """The music is as long as was asked for.

    Attributes:
        stop: where it is to be cut, as far as is known yet; None if it is not.
    """

    stop: float | None = None

    @abstractmethod
    def is_met(self, ids: np.ndarray, reached: float) -> bool:
        """Return whether new ids are long enough."""

    @abstractmethod
    def update(self, ids: np.ndarray, reached: float) -> None:
        """Take new ids into account; comes before `is_met`."""

    def rewind(self) -> None:
        """Forget what was found from ids that are taken back."""
        self.stop = None

    @abstractmethod
    def is_stuck(self, ids: np.ndarray) -> bool:
        """Return whether there are so many new ids that this length will not be reached."""

    @abstractmethod
    def extension(self, ids: np.ndarray, reached: float) -> tuple[float, float, bool]:
        """Return from when to when a phrase may end the music, and whether it is half as long again as asked for."""

    @abstractmethod
    def latest(self, ids: np.ndarray) -> float:
        """Return where the music ends at the latest, in quarters: half as long again as asked for."""

    def check(self, ids: np.ndarray, reached: float) -> End | None:
        return End(reason="length", ids=self.kept(ids), stop=self.stop) if self.is_met(ids, reached) else None

    def kept(self, ids: np.ndarray) -> np.ndarray:
        """Return the ids of music that ends at this length."""
        return ids


class MaxTokens(LengthCriterion):
    """So many tokens, whatever music they are."""

    def __init__(self, prompt: Prompt, length: Length) -> None:
        assert length.tokens is not None
        self.prompt, self.tokens = prompt, length.tokens

    def update(self, ids: np.ndarray, reached: float) -> None:
        pass

    def is_met(self, ids: np.ndarray, reached: float) -> bool:
        return len(ids) >= self.tokens

    def is_stuck(self, ids: np.ndarray) -> bool:
        return False

    def extension(self, ids: np.ndarray, reached: float) -> tuple[float, float, bool]:
        return self.prompt.reached(ids[: self.tokens]), reached, len(ids) >= self.tokens * 3 // 2

    def latest(self, ids: np.ndarray) -> float:
        return float("inf")

    def kept(self, ids: np.ndarray) -> np.ndarray:
        return ids[: self.tokens]


class TimeCriterion(LengthCriterion):
    """So much musical time.

    Time signatures and tempi to come may move the stop. It is found again when it seems to be reached, and now and then.

    Args:
        prompt: what is continued.
        length: how much.
        live: the stop is needed while music is sampled, so that it is found again more often.
    """

    def __init__(self, prompt: Prompt, length: Length, *, live: bool) -> None:
        self.prompt, self.length, self.live = prompt, length, live
        self._next_update = 0  # ids

    @abstractmethod
    def position(self, score: Score, *, extended: bool) -> float:
        """Return where a score with the prompt and new music is long enough, or half as long again, in quarters."""

    def update(self, ids: np.ndarray, reached: float) -> None:
        if self.stop is None or reached >= self.stop or len(ids) >= self._next_update:
            self.stop = self.position(self.prompt.decoded(ids), extended=False)
            self._next_update = len(ids) + (len(ids) // 64 if self.live else len(ids))

    def is_met(self, ids: np.ndarray, reached: float) -> bool:
        return self.stop is not None and reached >= self.stop

    def is_stuck(self, ids: np.ndarray) -> bool:
        quarters = 16.0 if self.stop is None else max(16.0, self.stop - self.prompt.quarters)
        return len(ids) > MAX_TOKENS_PER_QUARTER * quarters

    def extension(self, ids: np.ndarray, reached: float) -> tuple[float, float, bool]:
        assert self.stop is not None
        latest = self.latest(ids)
        return self.stop, latest, reached >= latest

    def latest(self, ids: np.ndarray) -> float:
        return self.position(self.prompt.decoded(ids), extended=True)


class Bars(TimeCriterion):
    """So many bars."""

    def position(self, score: Score, *, extended: bool) -> float:
        assert self.length.bars is not None
        bars = self.length.bars + extended * (self.length.bars // 2)
        return midi.bar_line(score, self.prompt.quarters, bars)


class Seconds(TimeCriterion):
    """So many seconds."""

    def position(self, score: Score, *, extended: bool) -> float:
        assert self.length.seconds is not None
        before = midi.seconds_at(score, self.prompt.quarters)
        return midi.quarters_at(score, before + self.length.seconds * (1 + extended / 2))


def length_criterion(prompt: Prompt, length: Length, *, live: bool) -> LengthCriterion:
    """Return the criterion of a length."""
    if length.tokens is not None:
        return MaxTokens(prompt, length)
    return (Bars if length.bars is not None else Seconds)(prompt, length, live=live)


class EndOfPiece(StoppingCriterion):
    """The model has ended the piece.

    Args:
        prompt: what is continued.
        length: at the latest at half as long again as this, the music is cut.
        is_exact: cut it at this length, in bars: what sounds past it does not make it longer.
    """

    def __init__(self, prompt: Prompt, length: LengthCriterion, *, is_exact: bool = False) -> None:
        self.prompt, self.length, self.is_exact = prompt, length, is_exact

    def before(self, ids: np.ndarray) -> np.ndarray | None:
        """Return the ids before the first eos; None if there is none."""
        ends = np.flatnonzero(ids == self.prompt.tokenizer.eos)
        return ids[: ends[0]] if len(ends) else None

    def check(self, ids: np.ndarray, reached: float) -> End | None:
        kept = self.before(ids)
        if kept is None:
            return None
        score = self.prompt.decoded(kept)
        if self.is_exact and isinstance(self.length, Bars):
            return End(reason="piece", ids=kept, stop=self.length.position(score, extended=False))
        stop = midi.bar_line(score, max(self.prompt.quarters, midi.end(score)))
        return End(reason="piece", ids=kept, stop=min(stop, self.length.latest(kept)))


class PhraseEnd(StoppingCriterion):
    """Music that is long enough ends at the end of a phrase; where it was to end, if there comes none.

    Args:
        prompt: what is continued.
        length: how much music is long enough.
    """

    def __init__(self, prompt: Prompt, length: LengthCriterion) -> None:
        self.prompt, self.length = prompt, length

    def check(self, ids: np.ndarray, reached: float) -> End | None:
        if not self.length.is_met(ids, reached):
            return None
        start, limit, is_over = self.length.extension(ids, reached)
        found = stopping.first_phrase_end(self.prompt.decoded(ids), start, min(reached, limit))
        if found is not None and found > self.prompt.quarters:
            return End(reason="phrase", ids=ids, stop=found)
        return End(reason="length", ids=self.length.kept(ids), stop=self.length.stop) if is_over else None
