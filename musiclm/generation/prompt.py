"""A prompt as the model hears it, and the musical time of what is drawn after it.

Tokenizers count quarters of their own (real ones, or those of 120 a minute); here all is in quarters of the score.
"""

from __future__ import annotations

import bisect
import dataclasses

import numpy as np
from symusic import Score

from .. import midi
from ..errors import MidiError
from ..tokenizers.base import Tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompt:
    """A prompt as the model hears it.

    Attributes:
        ids: bos and the music.
        quarters: where it ends and new music may begin.
        left_out: how many of its notes the tokenizer cannot express.
        score: what it was made from.
        tokenizer: what made the ids.
        tempo: of the music behind it, in quarters a minute; None to let it go on as it comes.
        heard: what the model reads instead of its ids; None for those.
    """

    ids: np.ndarray
    quarters: float
    left_out: int
    score: Score | None
    tokenizer: Tokenizer
    tempo: float | None = None
    heard: np.ndarray | None = None

    @classmethod
    def of(
        cls, tokenizer: Tokenizer, score: Score | None, *, bars: int | None = None, seconds: float | None = None
    ) -> Prompt:
        """Return the prompt made of a score, or of its first bars or seconds; the empty prompt of None.

        Raises:
            MidiError: nothing of it can be expressed, or its beginning is silent.
            ValueError: bars and seconds.
        """
        if bars is not None and seconds is not None:
            raise ValueError("at most one of bars and seconds of the prompt")
        if score is None:
            return cls(ids=np.array([tokenizer.bos]), quarters=0.0, left_out=0, score=None, tokenizer=tokenizer)
        end = stop = midi.end(score)
        if bars is not None:
            stop = min(midi.bar_line(score, 0.0, bars), midi.bar_line(score, stop))
        elif seconds is not None:
            stop = min(stop, midi.quarters_at(score, seconds))
        score = midi.cut(score, 0.0, stop)  # a tempo or a metre behind the last note is not waited for
        if not score.note_num() and stop < end:
            told = f"{bars} bars" if bars is not None else f"{seconds:g} seconds"
            raise MidiError(f"the prompt is silent in its first {told}: take more of it")
        ids, left_out = tokenizer.encode(score)
        ids = tokenizer.pad_with_silence(ids[:-1], _clock(tokenizer, score, stop))
        # in seconds a note's end may be rounded to 10 ms behind the bar line: that begins no new bar
        reached = stop if tokenizer.in_seconds else max(stop, tokenizer.quarters(ids))
        return cls(ids=ids, quarters=reached, left_out=left_out, score=score, tokenizer=tokenizer)

    @property
    def clock(self) -> float:
        """Where it ends, in the tokenizer's quarters."""
        return _clock(self.tokenizer, self.score, self.quarters)

    def with_new(self, new: np.ndarray) -> np.ndarray:
        """Return its ids and new ones behind them."""
        return np.concatenate([self.ids, new])

    def heard_with(self, new: np.ndarray) -> np.ndarray:
        """Return what the model reads, and new ids behind it."""
        return np.concatenate([self.ids if self.heard is None else self.heard, new])

    def reached(self, new: np.ndarray) -> float:
        """Return the musical time at which new ids end, in quarters: no note to come can lie before it."""
        quarters = self.tokenizer.quarters(self.with_new(new))
        if self.score is None or not self.tokenizer.in_seconds:
            return quarters
        return midi.quarters_at(self.score, quarters / 2)

    def num_before(self, new: np.ndarray, quarters: float) -> int:
        """Return how many of the new ids lie before a time: the next one would reach it."""
        return bisect.bisect_left(range(1, len(new) + 1), quarters - 1e-6, key=lambda k: self.reached(new[:k]))

    def continued(self, new: np.ndarray) -> Score:
        """Return the score of it and new ids, with its own tempo and metre where the tokenizer has none."""
        score = self.tokenizer.decode(self.with_new(new))
        if self.score is not None:
            if self.tokenizer.in_seconds:
                score = midi.retimed(score, self.score)
            midi.carry_over(self.score, score, tempi=self.tokenizer.tempi, behind=self.quarters)
        if self.tempo is not None:
            midi.set_tempo(score, self.quarters, self.tempo)
        return score

    def recent(self, new: np.ndarray, quarters: float) -> tuple[Score, float]:
        """Return the end of `continued`, from a bar line at or before a time, and when that is, in quarters.

        Its tempi are the tokenizer's. It costs what that end costs, where the tokenizer can begin at a bar.
        """
        ids, start = self.tokenizer.suffix_from_bar(self.with_new(new), quarters)
        if start == 0.0:
            return self.continued(new), 0.0
        return self.tokenizer.decode(ids), start


def _clock(tokenizer: Tokenizer, score: Score | None, quarters: float) -> float:
    """Return the tokenizer's quarters at a musical time of a score: the same, or those of 120 a minute."""
    if score is None or not tokenizer.in_seconds:
        return quarters
    return midi.seconds_at(score, quarters) * 2
