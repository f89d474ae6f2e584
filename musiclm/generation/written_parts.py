"""The parts of `accompany` and `restyle`, written bar by bar.

A song is written in steps of some bars. In each the source is the given music of these bars and of those before them, and
the target begins with the parts that are written so far. The given music comes out unchanged, event for event; a MIDI file
then ends a note where the next of its pitch and track begins.

A melody alone gets all parts at once. To other music, drums among it, one part is written after the other, each given those
before it: so models learn it, see `midi.parts`.

T tokens, M bars.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from symusic import Score, Track

from .. import midi
from ..data import Piece
from ..errors import TokenizerError
from ..midi.theory import DRUMS
from ..models.base import LanguageModel
from ..models.seq2seq import Seq2SeqModel
from ..tokenizers.score_pairs import ScorePairs
from . import best_fit, constraints, given, infill, players, rerank
from .composer import Composer, Composition
from .config import RESTYLE, GenerationConfig, Length
from .constraints.ensemble import ENTRY, with_ensemble
from .constraints.given_bars import GivenBars
from .constraints.limits import limits, logit_bias
from .masked_span import masked_span
from .prompt import Prompt
from .sampler import Constraint, Sampler
from .session import GenerationSession, SessionConfig
from .sides import Sides

log = logging.getLogger(__name__)

STEP = 8  # bars that are written at once
BEFORE = 8  # bars in front of them that the model reads
MOST_IDS = 1024  # of each side, where the model has no context; training crops have as many


@dataclasses.dataclass(frozen=True, kw_only=True)
class Written:
    """A variation.

    Attributes:
        composition: the whole song.
        parts: the new parts alone.
        nats_per_token: their loss; 0 where nothing was ranked.
    """

    composition: Composition
    parts: Score
    nats_per_token: float


class Writer:
    """Writes parts beside a song.

    Args:
        composer: with the model.
        score: the song.
        config: with a task, completed.
        bars: the first one to write, counted from 0, and the one behind the last.

    Attributes:
        given: what stays, and the source.
        span: from when to when new notes begin, in quarters.
        most_ids: that a side of a step has, if it has more bars than the new ones.
    """

    def __init__(self, composer: Composer, score: Score, config: GenerationConfig, bars: tuple[int, int]) -> None:
        assert isinstance(composer.tokenizer, ScorePairs)
        self.composer, self.config, self.tokenizer = composer, config, composer.tokenizer
        self.first, self.last = bars
        where = masked_span(score, bars=config.infill_bars, accompany=True)
        self.span = where.start, where.stop
        style = config.controls.style
        if config.task == RESTYLE:
            assert style is not None
            self.given = given.restyled(score, style, players.lead(style), *self.span)
        else:
            self.given = given.accompanied(score)
        self.sides = Sides(self.tokenizer, score, style)
        self.programs = players.in_order(config.controls.instruments)
        is_alone = not given.has_drums(score) and given.is_melody_alone(score)
        self.passes = [self.programs] if config.task == RESTYLE or is_alone else players.by_kind(self.programs)
        self.chords = None  # ids of each half bar, where they are known
        if config.controls.chords is not None:
            self.chords = self.sides.chord_ids(config.controls.chords, self.first, self.last)
        self.model = composer.generating(composer.precision(config.precision))
        self.most_ids = _most_ids(composer.model)
        log.info("writes %s%s", ", ".join(map(players.name, self.programs)), f" in the style '{style}'" * bool(style))
        if self.chords is None and config.controls.chord_strength:
            log.info("the chord strength has no effect: beside a melody alone no harmony is known (--chords gives one)")
        if (config.draw or 1) > 1:
            log.info("each %d bars are the best of %d, by harmony, probability and density", STEP, config.draw)

    def write(self, seed: int, index: int, *, is_ranked: bool = False) -> Written:
        """Return a variation; the same seed and index give the same one.

        Raises:
            TokenizerError: the model writes nothing.
        """
        parts, num_tokens = self._silent(), 0
        losses, sizes = [0.0], [0]
        for number, programs in enumerate(self.passes):
            one = _Pass(self, programs, parts, is_ranked=is_ranked)
            for step, first in enumerate(range(self.first, self.last, STEP)):
                seeds = np.random.SeedSequence([seed, index, number, step]).generate_state(1, np.uint64)
                loss, num_sampled = one.step(first, int(seeds[0]))
                num_tokens += num_sampled
                losses.append(loss)
                sizes.append(num_sampled)
            parts.tracks.extend(one.target.tracks)
        if not parts.note_num():
            raise TokenizerError(f"the model '{self.composer.checkpoint.name}' writes nothing but silence here")
        music = self.given.music.copy()
        for program in self.programs:
            music.tracks.extend([track for track in parts.tracks if _program(track) == program])
        return Written(
            composition=dataclasses.replace(
                infill.composition(music, index, num_tokens), num_new_notes=parts.note_num()
            ),
            parts=parts,
            nats_per_token=float(np.average(losses, weights=sizes)),
        )

    def _silent(self) -> Score:
        """Return the song without notes."""
        score = self.given.music.copy()
        score.tracks = type(score.tracks)([])
        return score


class _Pass:
    """Some parts, written at once from the first bar to the last.

    Args:
        writer: of the song.
        programs: of the parts, -1 for drums.
        parts: those that are written already.
        is_ranked: whether losses are needed.

    Attributes:
        target: the new parts so far.
    """

    def __init__(self, writer: Writer, programs: tuple[int, ...], parts: Score, *, is_ranked: bool) -> None:
        self.writer, self.programs, self.is_ranked = writer, programs, is_ranked
        self.tokenizer, self.sides = writer.tokenizer, writer.sides
        asked = writer.config.controls
        self.controls = dataclasses.replace(
            asked,
            instruments=programs,
            ensemble=_needed(asked.ensemble, programs),
            pitch_range=asked.pitch_range or players.pitch_range(programs),
        )
        self.score = writer.given.source.copy()
        self.score.tracks.extend(parts.tracks)
        self.target = parts.copy()
        self.target.tracks = type(self.target.tracks)([])
        self.source = self.sides.side(self.score, self.sides.unknown_chords if writer.chords is None else writer.chords)
        self.source_starts = self.tokenizer.bar_starts(self.source)

    def step(self, first: int, seed: int) -> tuple[float, int]:
        """Write from a bar on; return the loss of the new notes, nats/token, and the number of ids that were sampled."""
        composer, config = self.writer.composer, self.writer.config
        stop = min(first + STEP, self.writer.last)
        whole = self.sides.side(self.target, self._chords(), self.programs)
        starts = self.tokenizer.bar_starts(whole)
        source, model_ids = self._read(whole, starts, first, stop)
        if not isinstance(composer.model, Seq2SeqModel):  # a language model reads both behind each other
            model_ids = np.concatenate([source, model_ids])
        at, end = self.sides.starts[first], self.sides.starts[stop]
        prompt = Prompt(
            ids=whole[: starts[first]],
            quarters=at,
            left_out=0,
            score=None,
            tokenizer=self.tokenizer,
            model_ids=model_ids,
        )
        plan = SessionConfig(length=Length(bars=stop - first), loop_guard=False, seed=seed)
        model, sampler = self._given_source(self.writer.model, source), self._sampler(prompt)
        session = GenerationSession(model, composer.checkpoint.name, prompt, sampler, plan)
        sampled = [continuation.ids for continuation in session.sample(config.draw or 1)]
        new = [midi.without_before(prompt.decoded(ids), at) for ids in sampled]
        chosen, losses = 0, [0.0] * len(new)
        if self.is_ranked or len(new) > 1:
            losses = self._losses(source, model_ids, sampled)
            chosen = best_fit.best(self.score, new, [-each for each in losses], at, end)
        self._put(new[chosen], at, end)
        return losses[chosen], sum(map(len, sampled))

    def _read(self, whole: np.ndarray, starts: np.ndarray, first: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Return what the model reads of source and target before it writes some bars.

        Both begin `BEFORE` bars before them, or later, so that no side is longer than the model takes: the target with as
        many ids in each new bar as it has in those before. Bars that nothing is written in have no part in it.

        Args:
            whole: the target so far, (T,).
            starts: of its bars.
            first: the first new bar.
            stop: the bar after the last.
        """
        most = self.writer.most_ids
        for begin in range(max(self.writer.first, first - BEFORE), first + 1):
            source = self.tokenizer.crop(self.source, self.source_starts, begin, stop)
            target = self.tokenizer.crop(whole, starts, begin, first)
            an_old_bar = (starts[first] - starts[begin]) / max(1, first - begin)
            if len(source) <= most and len(target) + (stop - first) * an_old_bar <= most:
                break
        return source, target

    def _losses(self, source: np.ndarray, model_ids: np.ndarray, sampled: Sequence[np.ndarray]) -> list[float]:
        pieces = [
            Piece(name=str(i), tokens=np.concatenate([model_ids, ids]), num_notes=0, seconds=0.0)
            for i, ids in enumerate(sampled)
        ]
        model = self._given_source(self.writer.composer.model, source)
        return rerank.losses(model, self.tokenizer, pieces, behind=len(model_ids))

    def _chords(self) -> np.ndarray:
        """Return the ids of the chords of all bars, (2 M,): where none are known, those of the music so far."""
        if self.writer.chords is not None:
            return self.writer.chords
        music = self.score.copy()
        music.tracks.extend(self.target.tracks)
        return self.sides.chord_ids(self.sides.harmony(music), 0, self.sides.num_bars)

    def _given_source(self, model: LanguageModel, source: np.ndarray) -> LanguageModel:
        """Return the model of targets of a source."""
        if not isinstance(model, Seq2SeqModel):
            return model
        device = self.writer.composer.device
        features = torch.from_numpy(self.tokenizer.features_of([source]))[None].to(device)
        return model.conditioned(torch.from_numpy(source)[None].to(device), features)

    def _sampler(self, prompt: Prompt) -> Sampler:
        controls, first = self.controls, self.writer.first
        entry = min(ENTRY, self.writer.last - first)  # in a few bars, too, everybody plays
        rules: list[Constraint] = [
            constraints.grammar(
                self.tokenizer,
                prompt.quarters,
                limits(self.tokenizer, controls),
                [lambda base, inner: with_ensemble(base, inner, controls, prompt.ids, entry)],
            ),
            GivenBars(self.tokenizer, self.sides.lines[:, 1]),
            *constraints.planned(self.tokenizer, controls, first=first),
        ]
        if (bias := logit_bias(self.tokenizer, controls)) is not None:
            rules.append(bias)
        penalties = constraints.chord_tones(self.tokenizer, controls, first=first)
        return self.writer.composer.sampler(rules, self.writer.config.sampler, penalties)

    def _put(self, new: Score, start: float, stop: float) -> None:
        """Add new notes that begin in [start, stop) quarters to the target; they may sound into the next step."""
        scale = self.target.ticks_per_quarter / new.ticks_per_quarter
        first, last = start * new.ticks_per_quarter, stop * new.ticks_per_quarter
        of_program = {_program(track): i for i, track in enumerate(self.target.tracks)}
        for track in new.tracks:
            program = _program(track)
            notes = [
                (n.time * scale, n.end * scale, n.pitch, n.velocity) for n in track.notes if first <= n.time < last
            ]
            if not notes:
                continue
            if program not in of_program:
                self.target.tracks.append(Track(track.name, track.program, track.is_drum))
                of_program[program] = len(self.target.tracks) - 1
            infill.put(self.target, of_program[program], notes, start, self.writer.span[1])


def _most_ids(model: LanguageModel) -> int:
    """Return how many ids of a side a model takes, as in training; a language model reads both in its context."""
    context = getattr(model.config, "context", None)
    if context is None:
        return MOST_IDS
    return int(context if isinstance(model, Seq2SeqModel) else context // 2)


def _needed(ensemble: Any, programs: tuple[int, ...]) -> Any:
    """Return who has to play among some programs."""
    if isinstance(ensemble, str):
        return ensemble
    return tuple(group for group in ensemble if set(group) & set(programs))


def _program(track: Track) -> int:
    return DRUMS if track.is_drum else int(track.program)
