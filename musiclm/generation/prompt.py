"""A prompt as ids, the musical time of what is sampled after it, and the score of both.

Tokenizers count quarters of their own (real ones, or those of 120 quarters/minute); here all is in quarters of the score.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
from functools import cached_property

import numpy as np
from symusic import Score

from .. import midi
from ..errors import MidiError
from ..tokenizers.base import Tokenizer
from ..tokenizers.grid import Grid
from ..tokenizers.miditok import MidiTokTokenizer
from ..tokenizers.vocabulary import Kind
from . import seam
from .controls import Controls

BAR = 4.0  # quarters, on a grid


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompt:
    """A prompt as ids.

    Attributes:
        ids: bos and the music.
        quarters: where it ends and new music may begin.
        left_out: how many of its notes the ids do not have.
        doubled: how many of those are doubles of another note, which the ids have.
        score: what it was made from.
        tokenizer: what made the ids.
        tempo: of the music behind it, in quarters/minute; None to continue with the prompt's or the model's.
        model_ids: what the model reads instead of the ids; None for the ids.
    """

    ids: np.ndarray
    quarters: float
    left_out: int
    score: Score | None
    tokenizer: Tokenizer
    tempo: float | None = None
    model_ids: np.ndarray | None = None
    doubled: int = 0

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
        score = midi.cut(score, 0.0, stop)  # a tempo or a time signature after the last note is left out
        if not score.note_num() and stop < end:
            asked = f"{bars} bars" if bars is not None else f"{seconds:g} seconds"
            raise MidiError(f"the prompt is silent in its first {asked}: take more of it")
        ids, left_out = tokenizer.encode(score)
        ids = tokenizer.pad_with_silence(ids[:-1], _clock(tokenizer, score, stop))
        # in seconds a note's end may be rounded to 10 ms behind the bar line: that begins no new bar
        reached = stop if tokenizer.in_seconds else max(stop, tokenizer.quarters(ids))
        prompt = cls(ids=ids, quarters=reached, left_out=left_out, score=score, tokenizer=tokenizer)
        if not left_out:
            return prompt
        doubled = seam.num_doubled(score, prompt._in_time(prompt._decoded), tokenizer)
        return dataclasses.replace(prompt, doubled=min(doubled, left_out))

    def with_controls(self, controls: Controls, new_bars: int | None = None) -> Prompt:
        """Return the prompt as music that keeps to controls continues it: at a new tempo, from a new bar on, or in a style.

        Args:
            controls: limits on the new music.
            new_bars: how many bars are to follow; None for an unknown number. A header says them.
        """
        prompt = self
        if controls.time_signature is not None or (self.tokenizer.has_plan and self.score is not None):
            prompt = dataclasses.replace(prompt, ids=self.tokenizer.without_open_bar(self.ids, self.quarters))
        if self.tokenizer.has_plan and self.score is not None:
            table = self.tokenizer.vocabulary
            played = {table[i].value for i in np.unique(prompt.ids) if table[i].kind == Kind.PROGRAM}
            joining = controls.joining(played)
            ids = self.tokenizer.with_header(prompt.ids, style=controls.style, new_bars=new_bars, programs=joining)
            prompt = dataclasses.replace(prompt, ids=ids)
        if controls.tempo is not None:
            prompt = dataclasses.replace(prompt, tempo=controls.tempo)
        return prompt

    @property
    def clock(self) -> float:
        """Where it ends, in the tokenizer's quarters."""
        return _clock(self.tokenizer, self.score, self.quarters)

    @property
    def num_bars(self) -> int:
        """How many bars have begun before it ends, by the tokenizer's own count; 0 where it counts none."""
        if isinstance(self.tokenizer, Grid):
            return math.ceil(self.quarters / BAR - 1e-6)
        if self.score is None or not isinstance(self.tokenizer, MidiTokTokenizer):
            return 0
        return int((self.tokenizer.bars(self.ids)[1] < self.clock - 1e-6).sum())

    def with_new(self, new: np.ndarray) -> np.ndarray:
        """Return its ids and new ones behind them."""
        return np.concatenate([self.ids, new])

    def model_ids_with(self, new: np.ndarray) -> np.ndarray:
        """Return what the model reads, and new ids behind it."""
        return np.concatenate([self.ids if self.model_ids is None else self.model_ids, new])

    def reached(self, new: np.ndarray) -> float:
        """Return the musical time at which new ids end, in quarters: no later note can begin before it."""
        quarters = self.tokenizer.quarters(self.with_new(new))
        if self.score is None or not self.tokenizer.in_seconds:
            return quarters
        return midi.quarters_at(self.score, quarters / 2)

    def num_before(self, new: np.ndarray, quarters: float) -> int:
        """Return how many of the new ids lie before a time: the next one would reach it."""
        return bisect.bisect_left(range(1, len(new) + 1), quarters - 1e-6, key=lambda k: self.reached(new[:k]))

    def decoded(self, new: np.ndarray) -> Score:
        """Return the score of it and new ids as the model reads them: decoded, at the prompt's own tempi.

        All that decides what is sampled, and where it ends, looks at this score.
        """
        return self._carried(self.tokenizer.decode(self.with_new(new)))

    def continued(self, new: np.ndarray, *, only_new: bool = False) -> Score:
        """Return its own score, just as it was read, and behind it the notes of new ids; see `seam`.

        Args:
            new: the ids.
            only_new: without the prompt's notes, lyrics and markers; the new notes keep their times.
        """
        if self.score is None:
            return self.decoded(new)
        decoded = self.tokenizer.decode(self.with_new(new))
        fresh, held = (self._in_time(each) for each in seam.split(decoded, self._decoded))
        part = (self._silent if only_new else self._own).copy()
        seam.add_notes(part, self._tracks, fresh, held)
        seam.add_changes(part, self._carried(decoded), self.quarters, tempi=self.tokenizer.tempi)
        if self.tempo is not None:
            midi.set_tempo(part, self.quarters, self.tempo)
        if only_new:
            part.tracks = type(part.tracks)([t for t in part.tracks if len(t.notes)])
        return part

    def _in_time(self, decoded: Score) -> Score:
        """Return a decoded score with its notes in the prompt's quarters."""
        if self.score is None or not self.tokenizer.in_seconds:
            return decoded
        return midi.retimed(decoded, self.score)

    def _carried(self, decoded: Score) -> Score:
        """Return a decoded score, changed in place or not, with the prompt's tempi and what else the tokenizer lacks."""
        score = self._in_time(decoded)
        if self.score is not None:
            midi.carry_over(self.score, score, tempi=self.tokenizer.tempi, behind=self.quarters)
        if self.tempo is not None:
            midi.set_tempo(score, self.quarters, self.tempo)
        return score

    @cached_property
    def _decoded(self) -> Score:
        return self.tokenizer.decode(self.ids)

    @cached_property
    def _own(self) -> Score:
        assert self.score is not None
        return seam.own_part(self.score, self.quarters)

    @cached_property
    def _silent(self) -> Score:
        assert self.score is not None
        return seam.own_part(self.score, self.quarters, has_notes=False)

    @cached_property
    def _tracks(self) -> seam.Tracks:
        assert self.score is not None
        return seam.Tracks(self.score, self._in_time(self._decoded), self.tokenizer)

    def recent(self, new: np.ndarray, quarters: float) -> tuple[Score, float]:
        """Return the end of `decoded`, from a bar line at or before a time, and when that is, in quarters.

        Its tempi are the tokenizer's. Only that end is decoded, where the tokenizer can begin at a bar.
        """
        ids, start = self.tokenizer.suffix_from_bar(self.with_new(new), quarters)
        if start == 0.0:
            return self.decoded(new), 0.0
        return self.tokenizer.decode(ids), start


def _clock(tokenizer: Tokenizer, score: Score | None, quarters: float) -> float:
    """Return the tokenizer's quarters at a musical time of a score: the same, or those of 120 quarters/minute."""
    if score is None or not tokenizer.in_seconds:
        return quarters
    return midi.seconds_at(score, quarters) * 2
