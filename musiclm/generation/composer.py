"""A model and its tokenizer together: a score in, longer scores out.

The sampler handles ids only and the tokenizer is independent of the model; the composer connects both.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import secrets
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from symusic import Score

from .. import midi
from ..checkpoint import Checkpoint, default, load
from ..data import Piece
from ..devices import engine_label, resolve_precision
from ..errors import TokenizerError
from ..models.base import LanguageModel
from ..tokenizers.base import TICKS, Tokenizer
from ..tokenizers.vocabulary import Kind, has
from . import constraints, drums_alone, endings, rerank
from .config import GenerationConfig, Length, SamplerConfig
from .constraints import VoiceLeading
from .controls.ensemble import AUTO
from .controls.repeat_strength import DEFAULT_STRENGTH as REPEAT_STRENGTH
from .controls.style import ENSEMBLES, PROGRAMS
from .critic import Critic
from .loops import repetition
from .masked_span import masked_span
from .prompt import Prompt
from .sampler import Constraint, Sampler
from .session import Continuation, GenerationSession, SessionConfig
from .stream import Stream

log = logging.getLogger(__name__)

MAX_SILENT = 8  # tries to get a new note into a continuation
DRAWS, DRAWN_BARS = 8, 16  # how often a part of a masked span is sampled, of a span of at most so many bars


@dataclasses.dataclass(frozen=True, kw_only=True)
class Composition:
    """One variation of new music.

    Attributes:
        score: begins with the prompt, just as it was read, unless only the new music was asked for.
        index: which of the sampled variations, from 0.
        num_new_tokens: number of sampled ids, without those that were taken back.
        num_bars: of the score.
        seconds: of the score, by its tempo.
        ended: the reason why it ended: "length", or with `finish` "phrase" or "piece".
        resampled: how many stretches were resampled, by the cause; see `loop_guard.CAUSES`.
        ids: the new ids, those before its end.
        num_new_notes: of parts beside given music; None where they are not counted.
    """

    score: Score
    index: int
    num_new_tokens: int
    num_bars: int
    seconds: float
    ended: str
    ids: np.ndarray
    resampled: Mapping[str, int] = dataclasses.field(default_factory=dict)
    num_new_notes: int | None = None

    @property
    def num_notes(self) -> int:
        return int(self.score.note_num())

    @property
    def num_resampled(self) -> int:
        """How many stretches were resampled, whatever the cause."""
        return sum(self.resampled.values())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ranked:
    """A composition and how good it is; see `rerank`.

    Attributes:
        composition: the composition.
        nats_per_token: the loss of its new part.
        repetition: of its new part.
        log_odds: of its new part being real rather than sampled, by the critic of the checkpoint; None without a critic.
        distance: of loss and repetition from those of real pieces, in standard deviations; None with a critic.
    """

    composition: Composition
    nats_per_token: float
    repetition: float
    log_odds: float | None = None
    distance: float | None = None

    @property
    def goodness(self) -> float:
        """What they are ranked by: higher is better."""
        return self.log_odds if self.log_odds is not None else -(self.distance or 0.0)


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

    def generate(
        self, prompt: Prompt | Score | None = None, config: GenerationConfig | None = None, seed: int | None = None
    ) -> list[Composition]:
        """Return `config.n` variations, sampled in one batch; `rank` says which of them are the best.

        Args:
            prompt: the music to continue; None for unconditional music. `prompt_bars` and `prompt_seconds` of the config
                apply to a score; a `Prompt` is taken as it is.
            config: what is asked for; 16 bars by default. Music within a piece is written by `infill.fill`.
            seed: the same seed, and all else the same, gives the same scores; a random one if left out.

        Raises:
            TokenizerError: the tokenizer cannot express one of the controls, or the model writes no notes, or makes no
                progress.
            ValueError: no such precision on this device, or the config asks for infilling.
        """
        config = config or GenerationConfig()
        prompt, session = self._session(prompt, config, seed, live=config.live)
        found = session.sample(config.n)
        for i in range(0 if config.live else config.n):
            for _ in range(MAX_SILENT):
                if _new_score(prompt, found[i]).note_num():
                    break
                found[i] = session.resample(i)
            else:
                if config.only_new or prompt.score is None:
                    raise TokenizerError(f"the model '{self.checkpoint.name}' writes nothing but silence here")
        return [_composition(prompt, continuation, config.only_new) for continuation in found]

    def stream(
        self, prompt: Prompt | Score | None = None, config: GenerationConfig | None = None, seed: int | None = None
    ) -> Stream:
        """Return an iterator over the notes of one variation, each as soon as it is certain; see `generate` and `Stream`.

        `for note in composer.stream(prompt): …` samples as it goes. The prompt's own notes come first, and at once.
        """
        config = config or GenerationConfig()
        if not self.tokenizer.is_in_time:
            raise TokenizerError(
                f"the tokenizer '{self.tokenizer.name}' does not write in the order of time: no stream"
            )
        if config.n != 1:
            raise ValueError("a stream has one variation: n must be 1")
        prompt, session = self._session(prompt, config, seed, live=True)
        return Stream(session, prompt, only_new=config.only_new)

    def streamed(self, stream: Stream) -> Composition:
        """Return the whole of what a stream has yielded, once it has ended."""
        return _composition(stream.prompt, stream.continuation, stream.only_new)

    def _session(
        self, prompt: Prompt | Score | None, config: GenerationConfig, seed: int | None, *, live: bool
    ) -> tuple[Prompt, GenerationSession]:
        """Return the prompt as controls have it continued, and the session that continues it."""
        if config.is_filling:
            raise ValueError(
                "music within a piece is written by infill.fill and accompany.arrange: neither generate nor stream has it"
            )
        if self.tokenizer.is_paired:
            raise TokenizerError(
                f"the model '{self.checkpoint.name}' writes parts beside given ones: that is for accompany.arrange"
            )
        if not isinstance(prompt, Prompt):
            prompt = self.prompt(prompt, bars=config.prompt_bars, seconds=config.prompt_seconds)
        config = self._resolved(config, prompt)
        prompt = self._prepared(prompt, config, live=live)
        length = config.length or Length()
        is_new, is_live = prompt.score is None, live or config.live
        ending = config.ending and endings.is_possible(self.tokenizer, prompt, length, is_live=is_live)
        made = functools.partial(
            constraints.constraints,
            self.tokenizer,
            not_before=prompt.clock,
            prompt_ids=None if is_new else prompt.ids,
            bars=length.bars if is_new and not is_live else None,
            ensemble=True,
            ends=ending and self.tokenizer.has_plan,
        )
        first, num_bars = prompt.num_bars, (config.length or Length()).bars
        plan = constraints.planned(self.tokenizer, config.controls, first=first, num_bars=num_bars)
        penalties: list[Constraint] = [
            *self.penalties(config),
            *constraints.chord_tones(self.tokenizer, config.controls, first=first),
        ]
        sampler = self.sampler([*made(controls=config.controls), *plan], config.sampler, penalties)
        pitched = drums_alone.pitched_programs(prompt, config.controls)

        def without_drums() -> Sampler:
            controls = dataclasses.replace(config.controls, instruments=pitched)
            return self.sampler([*made(controls=controls), *plan], config.sampler, penalties)

        session_config = SessionConfig(
            length=length,
            finish=bool(config.finish),
            ending=ending,
            loop_guard=config.loop_guard,
            seed=secrets.randbelow(2**31) if seed is None else seed,
            live=live,
        )
        model = self.generating(self.precision(config.precision))
        return prompt, GenerationSession(
            model, self.checkpoint.name, prompt, sampler, session_config, None if pitched is None else without_drums
        )

    def _prepared(self, prompt: Prompt, config: GenerationConfig, *, live: bool = False) -> Prompt:
        """Return a prompt as a config, which is resolved, has it continued."""
        bars = None if live or config.live else (config.length or Length()).bars
        return prompt.with_controls(config.controls, bars)

    def precision(self, name: str = "auto") -> str:
        """Return the precision that one of `GenerationConfig` resolves to here."""
        return resolve_precision(name, self.device)

    def generating(self, precision: str) -> LanguageModel:
        """Return the model with its weights in a precision, made once."""
        if precision not in self._forms:
            engine = engine_label(precision, self.device)
            log.debug("model %s: %d parameters in %s", self.checkpoint.name, self.model.num_parameters, engine)
            self._forms[precision] = self.model.for_generation(precision)
        return self._forms[precision]

    def generate_best(
        self, prompt: Prompt, config: GenerationConfig, seed: int
    ) -> tuple[list[Composition], list[Ranked]]:
        """Return the variations that a config keeps, and all that were sampled for them, the best first.

        With `keep` these are the best of all; with `draw` D the best of the first D, of the next D, and so on. Without
        either all are kept, and nothing is ranked.

        Raises:
            as `generate` and `rank`.
        """
        sampled = config.sampled()
        made = self.generate(prompt, sampled, seed)
        if sampled.keep is None:
            return made, []
        ranked = self.rank(self._prepared(prompt, self._resolved(sampled, prompt)), made)
        if config.keep is not None:
            return [each.composition for each in ranked[: config.keep]], ranked
        best: dict[int, Composition] = {}
        for each in ranked:
            best.setdefault(each.composition.index // (config.draw or 1), each.composition)
        return [best[i] for i in range(config.n)], ranked

    def rank(self, prompt: Prompt, compositions: Sequence[Composition], *, bf16: bool = False) -> list[Ranked]:
        """Return compositions with their figures, the best first (best-of-n reranking); see `rerank`.

        Raises:
            CheckpointError: the checkpoint has neither a critic nor reference statistics of real pieces, or a damaged critic.
        """
        critic = Critic.of(self.checkpoint)
        real = rerank.of_checkpoint(self.checkpoint) if critic is None else None
        pieces = [
            Piece(name=str(c.index), tokens=prompt.with_new(c.ids), num_notes=0, seconds=0.0) for c in compositions
        ]
        losses = rerank.losses(self.model, self.tokenizer, pieces, behind=len(prompt.ids), bf16=bf16)
        ranked = []
        for composition, loss in zip(compositions, losses, strict=True):
            score = prompt.decoded(composition.ids)
            repeated = repetition(score, prompt.quarters)
            ranked.append(
                Ranked(
                    composition=composition,
                    nats_per_token=loss,
                    repetition=repeated,
                    log_odds=None if critic is None else critic.log_odds(score, prompt.quarters),
                    distance=None if real is None else real.distance(loss, repeated),
                )
            )
        return sorted(ranked, key=lambda each: -each.goodness)

    def penalties(self, config: GenerationConfig, given: Mapping[int, int] | None = None) -> list[VoiceLeading]:
        """Return the penalties that a config asks for; `given` are cells that are known beforehand, see `VoiceLeading`.

        Raises:
            TokenizerError: the tokenizer has no voices.
        """
        strength = config.resolved(self.checkpoint.sampling).voice_leading or 0.0
        return constraints.voice_leading(self.tokenizer, strength, strict=config.strict, given=given)

    def sampler(
        self, constraints: Sequence[Constraint], config: SamplerConfig, penalties: Sequence[Constraint] = ()
    ) -> Sampler:
        """Return the sampler with constraints and penalties of a config; see `Tokenizer.exempt_from_temperature`."""
        resolved = config.resolved(self.checkpoint.sampling)
        log.debug("sampling with %s", resolved)
        return Sampler(
            temperature=1.0 if resolved.temperature is None else resolved.temperature,
            rhythm_temperature=1.0 if resolved.rhythm_temperature is None else resolved.rhythm_temperature,
            top_k=resolved.top_k,
            top_p=resolved.top_p,
            min_p=resolved.min_p,
            processors=[functools.partial(p.process, value=value) for p, value in resolved.processors()],
            constraints=constraints,
            penalties=penalties,
            exempt=self.tokenizer.exempt_from_temperature,
            tempers_rhythm=self.tokenizer.tempers_rhythm,
        )

    def completed(self, config: GenerationConfig, prompt: Prompt | None = None) -> GenerationConfig:
        """Return a config with what the checkpoint recommends and the precision of this machine filled in.

        Args:
            config: what is asked for.
            prompt: what it continues; None for unconditional music.

        Raises:
            ValueError: no such precision on this device.
        """
        resolved = self._resolved(config, prompt)
        if config.is_filling and config.draw is None and config.n == 1 and prompt is not None:
            resolved = dataclasses.replace(resolved, draw=self._draw_of_infill(config, prompt))
        return dataclasses.replace(resolved, precision=self.precision(config.precision))

    def _draw_of_infill(self, config: GenerationConfig, prompt: Prompt) -> int:
        """Return how often each part of a masked span is sampled where nothing is asked for."""
        if not self.tokenizer.supports_infilling or not has(self.tokenizer.vocabulary, Kind.SECTION):
            return 1
        if prompt.score is None:
            return 1
        span = masked_span(prompt.score, bars=config.infill_bars, keep=config.keep_tracks, accompany=config.accompany)
        bars = span.num_bars(prompt.score)
        if bars <= DRAWN_BARS:
            return DRAWS
        log.info("%d bars are sampled once: the best of %d is for up to %d (--draw %d)", bars, DRAWS, DRAWN_BARS, DRAWS)
        return 1

    def _resolved(self, config: GenerationConfig, prompt: Prompt | None) -> GenerationConfig:
        """Return a config with what the checkpoint recommends, and whether the music ends by itself."""
        plays_plan = self.tokenizer.has_plan and not config.is_filling
        own: dict[str, object] = {"ensemble": AUTO, "repeat_strength": REPEAT_STRENGTH} if plays_plan else {}
        controls = config.controls
        if plays_plan and (prompt is None or prompt.score is None) and controls.ensemble is None:
            style = controls.style or ""
            own |= {"instruments": PROGRAMS.get(style), "ensemble": ENSEMBLES.get(style, AUTO)}
        resolved = config.resolved(own | dict(self.checkpoint.sampling))
        if config.finish is not None or config.is_filling:
            return resolved
        ending = endings.is_possible(self.tokenizer, prompt, config.length, is_live=config.live)
        return dataclasses.replace(resolved, ending=ending)


def _new_score(prompt: Prompt, continuation: Continuation) -> Score:
    """Return the score of a continuation with its new notes only, at their times."""
    score = prompt.decoded(continuation.ids)
    if continuation.stop is not None:
        score = midi.cut(score, 0.0, continuation.stop)
    return midi.without_before(score, prompt.quarters)


def _composition(prompt: Prompt, continuation: Continuation, only_new: bool) -> Composition:
    ids = continuation.ids
    score = prompt.continued(ids, only_new=only_new)
    start = midi.last_bar_line(score, prompt.quarters) if only_new else 0.0
    # the reset at the seam stays, even if no note follows
    end = max(midi.end(score), max(start, prompt.quarters) + 1 / TICKS)
    stop = end if continuation.stop is None else continuation.stop
    score = midi.cut(score, start, stop)
    if only_new and prompt.tempo is not None:  # the bar that the prompt began is at the new tempo, too
        midi.set_tempo(score, 0.0, prompt.tempo)
    if continuation.reason is None:
        raise ValueError("the music has not ended yet")
    return Composition(
        score=score,
        index=continuation.number,
        num_new_tokens=len(ids),
        num_bars=midi.num_bars(score),
        seconds=midi.seconds(score),
        ended=continuation.reason,
        resampled=dict(continuation.resampled),
        ids=ids if continuation.stop is None else ids[: prompt.num_before(ids, continuation.stop)],
    )
