"""Continuations of a prompt, sampled in one batch, each until it has ended.

What the loop guard rejects rewinds and is resampled by itself, from its ids: no state of the model is stored for it.
"""

from __future__ import annotations

import dataclasses
import enum
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice

import numpy as np
import torch

from ..errors import TokenizerError
from ..models.base import LanguageModel
from . import endings, stopping
from .config import Length
from .criteria import End, EndOfPiece, PhraseEnd, length_criterion
from .decode import sample_ids
from .loop_guard import LoopGuard, causes
from .prompt import Prompt
from .sampler import Sampler

BLOCK = 16  # tokens that are sampled between two checks


@dataclasses.dataclass(kw_only=True)
class Continuation:
    """The ids of one variation so far.

    Attributes:
        number: which of them, from 0.
        ids: the new ids.
        stop: where the score is to be cut, in quarters; None for where its last note ends, or while that is not known.
        reason: why it has ended: "length", "phrase", or "piece" where the model ended it. None while it continues.
        resampled: how many stretches were resampled, by the cause; see `loop_guard.CAUSES`.
    """

    number: int
    ids: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    stop: float | None = None
    reason: str | None = None
    resampled: Mapping[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SessionConfig:
    """The options of a session; see `GenerationConfig` for all but the seed.

    Attributes:
        length: how much new music.
        seed: the seed of everything that is sampled.
        finish: whether to continue to the end of the piece or of a phrase.
        ending: whether music of so many bars has an ending within them; see `endings`. Where tokens have a plan the sampler's
            constraints lead to it.
        loop_guard: whether to resample what the loop guard rejects.
        live: whether the music is played while it is sampled.
    """

    length: Length
    seed: int
    finish: bool = False
    ending: bool = False
    loop_guard: bool = True
    live: bool = False


class GenerationSession:
    """The sampling loop over several continuations of one prompt.

    Args:
        model: in evaluation mode.
        name: what errors call it.
        prompt: what is continued.
        sampler: with the constraints.
        config: the options of the session.
        without_drums: returns the sampler for music in which only pitched instruments play; None where drums may be alone.

    Raises:
        TokenizerError: the music is to be finished, and the tokenizer has no bars.
    """

    def __init__(
        self,
        model: LanguageModel,
        name: str,
        prompt: Prompt,
        sampler: Sampler,
        config: SessionConfig,
        without_drums: Callable[[], Sampler] | None = None,
    ) -> None:
        self.model, self.name, self.prompt, self.sampler = model, name, prompt, sampler
        self._bars = config.length.bars if config.ending and endings.has_cadence(prompt.tokenizer) else None
        if self._bars is not None:
            config = dataclasses.replace(config, length=Length(tokens=endings.num_ids(self._bars)[0]))
        self.config, self.without_drums = config, without_drums
        self.device = next(model.parameters()).device
        is_guarded = config.loop_guard and prompt.tokenizer.is_in_time
        self._causes = causes(prompt, drums_may_be_alone=without_drums is None) if is_guarded else frozenset()
        self._num_starts = Counter[int]()  # of each continuation, by its number: each has a seed of its own
        if config.finish and not prompt.tokenizer.is_in_time:
            raise TokenizerError(f"the tokenizer '{prompt.tokenizer.name}' does not say when a bar ends: no --finish")

    def sample(self, count: int) -> list[Continuation]:
        """Return so many finished continuations."""
        batch = [self._watch(Continuation(number=i)) for i in range(count)]
        for _ in self._run(batch, self.sampler, self.config.seed):
            pass
        for each in batch:
            self._num_starts[each.continuation.number] = 1
            for _ in self._finish(each):
                pass
        return [each.continuation for each in batch]

    def resample(self, number: int) -> Continuation:
        """Return another finished continuation with the number of one."""
        again = Continuation(number=number)
        self._num_starts[number] += 1
        for _ in self.extend(again):
            pass
        return again

    def extend(self, continuation: Continuation) -> Iterator[None]:
        """Sample a continuation by itself until it has ended; yield after each block of tokens."""
        return self._finish(self._watch(continuation))

    def _watch(self, continuation: Continuation) -> _Watched:
        guard = LoopGuard(self.prompt, self._causes, live=self.config.live) if self._causes else None
        return _Watched(self.name, self.prompt, self.config, continuation, guard)

    def _finish(self, watched: _Watched) -> Iterator[None]:
        number = watched.continuation.number
        while watched.continuation.reason is None:
            sampler, is_done = self._stretch(watched)
            # the batch samples from (seed, number); whatever comes after it samples from a seed of its own
            starts = self._num_starts[number]
            seed = _start_seed(self.config.seed, number, starts) if starts else self.config.seed
            self._num_starts[number] += 1
            yield from self._run([watched], sampler, seed, is_done)
        if self._bars is not None:
            self._end(watched.continuation, self._bars)
            yield

    def _end(self, continuation: Continuation, bars: int) -> None:
        """Add the ending of so many bars."""
        before, vocab_size = self.prompt.with_new(continuation.ids), self.prompt.tokenizer.vocab_size
        num_before, num_new = endings.num_ids(bars)
        final = [endings.FINAL[i % len(endings.FINAL)] for i in range(endings.CANDIDATES)]
        cadence = endings.Cadence(vocab_size, endings.key_of(before), num_before + num_new, final)
        sampler = dataclasses.replace(self.sampler, constraints=[*self.sampler.constraints, cadence])
        self._num_starts[continuation.number] += 1
        seed = _start_seed(self.config.seed, continuation.number, self._num_starts[continuation.number])
        tokens = self._tokens(continuation.ids, len(final), sampler, seed)
        found = torch.stack(list(islice(tokens, num_new)), 1)
        best = endings.most_probable(self.model, self.prompt.tokenizer, before, found)
        continuation.ids = np.concatenate([continuation.ids, found[best].cpu().numpy()])
        continuation.stop = float(endings.BAR * bars)

    def _stretch(self, watched: _Watched) -> tuple[Sampler, Callable[[], bool] | None]:
        """Return how to continue, and what tells that it has been long enough; None for until the end."""
        guard, music, sampler = watched.guard, watched.continuation, self.sampler
        if guard is None:
            return sampler, None
        if self.without_drums is not None and guard.awaits_pitch(music.ids):
            return self.without_drums(), lambda: not guard.awaits_pitch(music.ids)
        if guard.is_hot(watched.reached()):
            sampler = dataclasses.replace(sampler, temperature=guard.temperature(sampler.temperature))
            return sampler, lambda: not guard.is_hot(watched.reached())
        return sampler, None

    def _run(
        self, batch: Sequence[_Watched], sampler: Sampler, seed: int, is_done: Callable[[], bool] | None = None
    ) -> Iterator[None]:
        """Sample continuations that have the same ids so far, until each has ended or rewound, or it is done."""
        allow_eos = stopping.AllowEos(self.prompt.tokenizer, sampler.constraints)
        if self.config.finish:
            sampler = dataclasses.replace(sampler, constraints=[allow_eos])
        tokens = self._tokens(batch[0].continuation.ids, len(batch), sampler, seed)
        active = dict(enumerate(batch))
        while active:
            longest = max(len(each.continuation.ids) for each in active.values())
            remaining = (self.config.length.tokens or 0) - longest
            num_tokens = remaining if 0 < remaining < BLOCK else BLOCK
            block = torch.stack(list(islice(tokens, num_tokens)), 1).cpu().numpy()
            for i, each in list(active.items()):
                outcome = each.add(block[i])
                if outcome is not Outcome.CONTINUES or (is_done is not None and is_done()):
                    del active[i]
                elif self.config.finish and each.is_long():
                    allow_eos.open.add(i)
            yield

    def _tokens(self, new: np.ndarray, count: int, sampler: Sampler, seed: int) -> Iterator[torch.Tensor]:
        """Return an iterator of (count,) tokens behind the prompt and new ids."""
        tokenizer = self.prompt.tokenizer
        ids, model_ids = (
            torch.from_numpy(each).to(self.device).expand(count, -1)
            for each in (self.prompt.with_new(new), self.prompt.model_ids_with(new))
        )
        features = tokenizer.features if tokenizer.feature_sizes else None
        return sample_ids(self.model, ids, sampler, seed=seed, features=features, model_ids=model_ids)


class Outcome(enum.Enum):
    """The outcome of a block of tokens for a continuation."""

    CONTINUES = enum.auto()
    REWOUND = enum.auto()
    ENDED = enum.auto()


class _Watched:
    """A continuation, its loop guard and its stopping criteria."""

    def __init__(
        self, name: str, prompt: Prompt, config: SessionConfig, continuation: Continuation, guard: LoopGuard | None
    ) -> None:
        self.name, self.prompt, self.continuation, self.guard = name, prompt, continuation, guard
        self.live = config.live
        self.length = length_criterion(prompt, config.length, live=config.live)
        self.end_of_piece = EndOfPiece(prompt, self.length, is_exact=config.ending)
        self.end = PhraseEnd(prompt, self.length) if config.finish else self.length

    def reached(self) -> float:
        """Return how far the music has come, in quarters; 0 where the tokenizer cannot say."""
        return self.prompt.reached(self.continuation.ids) if self.prompt.tokenizer.is_in_time else 0.0

    def is_long(self) -> bool:
        """Return whether the music has the length that was asked for."""
        return self.length.is_met(self.continuation.ids, self.reached())

    def add(self, block: np.ndarray) -> Outcome:
        """Add new tokens. A loop comes first, since an end within one is resampled; then the model's end; then the length.

        Raises:
            TokenizerError: the model makes no progress.
        """
        music = self.continuation
        ids = np.concatenate([music.ids, block])
        before_eos = self.end_of_piece.before(ids)
        music.ids = ids if before_eos is None else before_eos
        reached = self.reached()
        if self.guard is not None and self._rewinds(self.guard, reached):
            return Outcome.REWOUND
        end = self.end_of_piece.check(ids, reached)
        if end is None:
            self.length.update(music.ids, reached)
            music.stop = self.length.stop
            end = self.end.check(music.ids, reached)
            if not self.length.is_met(music.ids, reached) and self.length.is_stuck(music.ids):
                raise TokenizerError(f"the model '{self.name}' makes no progress: no end after {len(ids)} tokens")
        if end is None:
            return Outcome.CONTINUES
        if self.guard is not None and self._rewinds(self.guard, reached, end):
            return Outcome.REWOUND
        music.ids, music.stop, music.reason = end.ids, end.stop, end.reason
        return Outcome.ENDED

    def _rewinds(self, guard: LoopGuard, reached: float, end: End | None = None) -> bool:
        """Return whether the guard rejects the music, at its end if one is given, and take it back to what is kept."""
        ids = self.continuation.ids if end is None else end.ids
        if end is not None and end.stop is not None:
            ids = ids[: self.prompt.num_before(ids, end.stop)]
        kept = guard.check(ids, reached, is_over=end is not None)
        if kept is None:
            return False
        self.continuation.ids, self.continuation.resampled = kept, dict(guard.counts)
        if not self.live:
            self.length.rewind()
            self.continuation.stop = None
        return True


def _start_seed(seed: int, number: int, start: int) -> int:
    """Return the seed of one start of a continuation."""
    return int(np.random.SeedSequence([seed, number, start]).generate_state(1, np.uint64)[0])
