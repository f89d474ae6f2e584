"""Variations drawn in one batch, each until it is long enough: when to stop, when to go back, where to end.

What falls into a loop goes back to where it began to repeat itself and is drawn anew, hotter. That is done for a row by
itself, from its ids: no state of the model is kept for it, so it costs nothing where nothing loops, and other rows do not
notice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch

from .. import midi
from ..errors import TokenizerError
from ..models.base import LanguageModel
from . import stopping
from .config import Length
from .decode import sample_ids
from .loops import WINDOW, loop_start
from .prompt import Prompt
from .sampler import Sampler

CHECK_EVERY = 16  # tokens between two looks at how long the music is
MAX_TOKENS_A_QUARTER = 400  # of new music; a model that needs more stands still
LOOK_EVERY = 4.0  # quarters between two looks for a loop
FEWEST_NEW = 8.0  # quarters of new music before the first
TRIES = 4  # at a stretch of `WINDOW`
HOTTER = 1.2  # times the temperature, at each try
COLDEST = 0.8  # temperature of a new try, whatever it was


@dataclasses.dataclass(kw_only=True)
class Continuation:
    """One variation on its way.

    Attributes:
        number: which of them.
        ids: new ones.
        stop: where it is to be cut, in quarters; None for where its last note ends, or while that is not known.
        ended: by what: its length; a phrase; or the piece, for the model said so. None while it is drawn.
        redrawn: how many stretches were drawn anew.

    The others are the drawing's own: new beginnings so far; when to look for a loop again, in quarters, and for `stop`, in
    ids; until when to draw hotter, and at which try; and whether it loops now.
    """

    number: int
    ids: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    stop: float | None = None
    ended: str | None = None
    redrawn: int = 0
    restarts: int = 0
    next_look: float | None = None
    next_stop: int = 0
    hot_until: float | None = None
    heat: int = 0
    looped: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class SessionConfig:
    """What rows are to become.

    Attributes:
        length: how much new music.
        seed: of all chance.
        finish: whether to go on to the end of the piece or of a phrase, at most half as long again.
        loop_guard: whether to draw anew what falls into a loop.
        live: whether what was drawn is being heard: a loop is left by going on hotter, not by going back.
    """

    length: Length
    seed: int
    finish: bool = False
    loop_guard: bool = True
    live: bool = False


class GenerationSession:
    """How rows are drawn.

    Args:
        model: in evaluation mode.
        name: what errors call it.
        prompt: what all go on from.
        sampler: with the rules.
        plan: what they are to become.
    """

    def __init__(self, model: LanguageModel, name: str, prompt: Prompt, sampler: Sampler, plan: SessionConfig) -> None:
        self.model, self.name, self.prompt, self.sampler = model, name, prompt, sampler
        self.plan = plan
        self.device = next(model.parameters()).device
        loops_already = prompt.score is not None and loop_start(prompt.score, 0.0, prompt.quarters) is not None
        # who begins with an ostinato wants one
        self.loop_guard = plan.loop_guard and prompt.tokenizer.is_in_time and not loops_already
        if plan.finish and not prompt.tokenizer.is_in_time:
            raise TokenizerError(f"the tokenizer '{prompt.tokenizer.name}' does not say when a bar ends: no --finish")

    def draw(self, count: int) -> list[Continuation]:
        """Return so many finished rows."""
        rows = [Continuation(number=i) for i in range(count)]
        for _ in self._run(rows, self.sampler, self.plan.seed):
            pass
        for row in rows:
            row.restarts = 1
            for _ in self.go_on(row):
                pass
        return rows

    def draw_anew(self, row: Continuation) -> Continuation:
        """Return another row in the place of a finished one."""
        again = Continuation(number=row.number, restarts=row.restarts + 1)
        for _ in self.go_on(again):
            pass
        return again

    def go_on(self, row: Continuation) -> Iterator[None]:
        """Draw a row by itself until it has ended; yield at each look."""
        while row.ended is None:
            row.looped = False
            is_hot = row.hot_until is not None and row.hot_until > self._reached(row)
            sampler = self.sampler
            if is_hot:
                temperature = max(sampler.temperature, COLDEST) * HOTTER**row.heat
                sampler = dataclasses.replace(sampler, temperature=temperature)
            # the batch drew from (seed, row); whatever comes after that draws from a seed of its own
            seed = _fresh(self.plan.seed, row.number, row.restarts) if row.restarts else self.plan.seed
            row.restarts += 1
            yield from self._run([row], sampler, seed, until=row.hot_until if is_hot else None)

    def _run(self, rows: list[Continuation], sampler: Sampler, seed: int, until: float | None = None) -> Iterator[None]:
        """Draw rows that have the same ids so far, until each has ended, has looped or has come `until` a time."""
        may_end = stopping.AllowEos(self.prompt.tokenizer, sampler.constraints)
        if self.plan.finish:
            sampler = dataclasses.replace(sampler, constraints=[may_end])
        tokenizer = self.prompt.tokenizer
        features = tokenizer.features if tokenizer.feature_sizes else None
        new = rows[0].ids
        ids, heard = (
            torch.from_numpy(of(new)).to(self.device) for of in (self.prompt.with_new, self.prompt.heard_with)
        )
        ids, heard = ids.expand(len(rows), -1), heard.expand(len(rows), -1)
        going = dict(enumerate(rows))
        tokens = sample_ids(self.model, ids, sampler, seed=seed, features=features, heard=heard)
        while going:
            longest = max(len(row.ids) for row in going.values())
            to_come = (self.plan.length.tokens or 0) - longest
            steps = to_come if 0 < to_come < CHECK_EVERY else CHECK_EVERY
            drawn = torch.stack(list(islice(tokens, steps)), 1).cpu().numpy()
            for i, row in list(going.items()):
                row.ids = np.concatenate([row.ids, drawn[i]])
                self._look(row)
                if self.plan.finish and self._is_long(row):
                    may_end.open.add(i)
                if row.ended is not None or row.looped or (until is not None and self._reached(row) >= until):
                    del going[i]
            yield

    def _look(self, row: Continuation) -> None:
        """Note what has become of a row: it loops, it has ended, or nothing yet."""
        ends = np.flatnonzero(row.ids == self.prompt.tokenizer.eos)
        if len(ends):
            row.ids, row.ended = row.ids[: ends[0]], "piece"
        reached = self._reached(row)
        if self.loop_guard and (reached >= (row.next_look or self.prompt.quarters + FEWEST_NEW)):
            row.next_look = reached + LOOK_EVERY
            self._look_for_loop(row, reached)
            if row.looped:
                return
        if row.ended == "piece":
            score = self.prompt.continued(row.ids)
            row.stop = midi.bar_line(score, max(self.prompt.quarters, midi.end(score)))
            if self.plan.length.tokens is None:
                row.stop = min(row.stop, self._stop(row, 1))
            return
        # the metre and the tempi to come may move the stop: it is found again when it seems to be reached, and now and then
        is_due = row.stop is None or reached >= row.stop or len(row.ids) >= row.next_stop
        if self.plan.length.tokens is None and is_due:
            row.stop = self._stop(row, 0)
            row.next_stop = len(row.ids) + (len(row.ids) // 64 if self.plan.live else len(row.ids))
        if not self._is_long(row):
            quarters = 16.0 if row.stop is None else max(16.0, row.stop - self.prompt.quarters)
            if self.plan.length.tokens is None and len(row.ids) > MAX_TOKENS_A_QUARTER * quarters:
                raise TokenizerError(f"the model '{self.name}' does not get on: no end after {len(row.ids)} tokens")
            return
        if self.plan.finish:
            self._look_for_end(row, reached)
        else:
            row.ended = "length"

    def _reached(self, row: Continuation) -> float:
        """Return how far a row has come, in quarters; 0 where the tokenizer cannot say."""
        return self.prompt.reached(row.ids) if self.prompt.tokenizer.is_in_time else 0.0

    def _is_long(self, row: Continuation) -> bool:
        if self.plan.length.tokens is not None:
            return len(row.ids) >= self.plan.length.tokens
        return row.stop is not None and self._reached(row) >= row.stop

    def _stop(self, row: Continuation, more: int) -> float:
        """Return where a row is long enough, in quarters; with `more` 1, where it is half as long again."""
        score = self.prompt.continued(row.ids)
        if self.plan.length.bars is not None:
            bars = self.plan.length.bars + more * (self.plan.length.bars // 2)
            return midi.bar_line(score, self.prompt.quarters, bars)
        assert self.plan.length.seconds is not None
        before = midi.seconds_at(score, self.prompt.quarters)
        return midi.quarters_at(score, before + self.plan.length.seconds * (1 + more / 2))

    def _look_for_end(self, row: Continuation, reached: float) -> None:
        """End a row that is long enough at the end of a phrase; where it was to end, if there comes none."""
        score = self.prompt.continued(row.ids)
        if self.plan.length.tokens is not None:
            start = self.prompt.reached(row.ids[: self.plan.length.tokens])
            limit, is_over = reached, len(row.ids) >= self.plan.length.tokens * 3 // 2
        else:
            assert row.stop is not None
            start, limit = row.stop, self._stop(row, 1)
            is_over = reached >= limit
        found = stopping.first_phrase_end(score, start, min(reached, limit))
        if found is not None and found > self.prompt.quarters:
            row.stop, row.ended = found, "phrase"
        elif is_over:
            row.ids = row.ids[: self.plan.length.tokens] if self.plan.length.tokens is not None else row.ids
            row.ended = "length"

    def _look_for_loop(self, row: Continuation, reached: float) -> None:
        """Send a row that loops back to before its loop; on from here, if it is heard already."""
        tries = TRIES * (1 + int((reached - self.prompt.quarters) // WINDOW))
        if row.redrawn >= tries:
            return
        score, offset = self.prompt.recent(row.ids, reached - WINDOW)
        again = loop_start(score, max(0.0, reached - WINDOW - offset), reached - offset)
        if again is None:
            return
        back = max(self.prompt.quarters, midi.last_bar_line(score, again) + offset)
        is_again = row.hot_until is not None and reached <= row.hot_until + WINDOW / 4
        row.heat = row.heat + 1 if is_again else 1
        row.redrawn += 1
        row.looped, row.ended = True, None
        if self.plan.live:
            row.hot_until, row.next_look = reached + WINDOW / 2, reached + WINDOW
            return
        row.ids = row.ids[: self.prompt.num_before(row.ids, back)]
        row.hot_until, row.next_look, row.stop = reached, back + FEWEST_NEW, None


def _fresh(seed: int, row: int, number: int) -> int:
    """Return a seed of its own for one new beginning of a row."""
    return int(np.random.SeedSequence([seed, row, number]).generate_state(1, np.uint64)[0])
