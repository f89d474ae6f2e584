"""Parts beside given music, by sequence-to-sequence models: `accompany` adds some, `restyle` keeps the melody alone.

A song is written in steps of some bars. In each the source is the given music of these bars and of those before them, and
the target begins with the parts that are written so far. The given music comes out unchanged, event for event.

T tokens, M bars.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from symusic import Score, Track

from .. import midi
from ..checkpoint import Checkpoint
from ..data import Piece
from ..errors import CheckpointError, MidiError, MusicLMError, TokenizerError
from ..midi.theory import DRUMS
from ..models.base import LanguageModel
from ..models.seq2seq import Seq2SeqModel
from ..tokenizers.score import style_of
from ..tokenizers.score_pairs import ScorePairs
from . import best_fit, constraints, given, infill, players, rerank
from .composer import Composer, Composition
from .config import ACCOMPANY, RESTYLE, GenerationConfig, Length
from .constraints.ensemble import with_ensemble
from .constraints.given_bars import GivenBars
from .constraints.limits import limits, logit_bias
from .controls.repeat_strength import DEFAULT_STRENGTH as REPEAT_STRENGTH
from .masked_span import MaskedSpan, masked_span
from .prompt import Prompt
from .sampler import Constraint, Sampler
from .session import GenerationSession, SessionConfig
from .sides import Sides

log = logging.getLogger(__name__)

STEP = 8  # bars that are written at once
BEFORE = 8  # bars in front of them that the model reads
DRAWS = 8  # candidates of each step, where one variation is asked for
COMMANDS = "musiclm accompany and musiclm restyle"


def check_model(checkpoint: Checkpoint, config: GenerationConfig) -> None:
    """Check that a model does what is asked for: parts beside given music, or anything else.

    Raises:
        CheckpointError: it does not.
    """
    is_paired = checkpoint.tokenizer().is_paired
    if is_paired and config.task is None:
        raise CheckpointError(f"the model '{checkpoint.name}' writes parts beside given ones: that is for {COMMANDS}")
    if config.task is not None and not is_paired:
        raise CheckpointError(
            f"the model '{checkpoint.name}' was not trained on pairs of parts: train one on a 'score-pairs' corpus "
            "with --arch seq2seq_transformer, and name it with --model"
        )


def with_task(config: GenerationConfig, checkpoint: Checkpoint) -> GenerationConfig:
    """Return a config in which `accompany`, asked of a model of pairs, is the task of that name."""
    if not config.accompany or not checkpoint.tokenizer().is_paired:
        return config
    return dataclasses.replace(config, accompany=False, task=ACCOMPANY)


def prompt(composer: Composer, score: Score) -> Prompt:
    """Return a song as a prompt: it says how many of its notes the model does not read.

    Raises:
        MidiError: it has no notes, or none that the model reads.
    """
    tokenizer = _paired(composer)
    if not score.note_num():
        raise MidiError("the song has no notes: nothing can be written beside them")
    left_out = Sides(tokenizer, score, None).left_out
    ids = np.array([tokenizer.bos])
    return Prompt(ids=ids, quarters=midi.end(score), left_out=left_out, score=score, tokenizer=tokenizer)


def completed(composer: Composer, config: GenerationConfig, score: Score) -> GenerationConfig:
    """Return a config with all that it leaves to the song, the style and the model: a record stores it.

    Raises:
        MidiError: the song has no such bars, or all parts of the style, or the style has no melody.
        TokenizerError: the model lacks an instrument.
        ValueError: no such precision on this device.
    """
    controls = config.controls
    style = controls.style or style_of(score)
    if config.task == RESTYLE:
        players.lead(controls.style or "")
    elif style is None and controls.instruments is None:
        style = players.DEFAULT_STYLE
    programs = _programs(config, style, score)
    players.check(composer.tokenizer, programs, composer.checkpoint.name)
    first, last = _bars(config, score)
    chords = controls.chords
    if chords is None and (config.task == RESTYLE or not given.is_melody_alone(score)):
        chords = Sides(_paired(composer), score, style).harmony()[2 * first : 2 * last]
    draw = config.draw or (DRAWS if config.n == 1 and config.keep is None else 1)
    controls = dataclasses.replace(controls, style=style, instruments=programs, ensemble=programs, chords=chords)
    asked = dataclasses.replace(config, controls=controls, draw=draw)
    own = {"repeat_strength": REPEAT_STRENGTH} | dict(composer.checkpoint.sampling)
    return dataclasses.replace(asked.resolved(own), precision=composer.precision(config.precision))


def _programs(config: GenerationConfig, style: str | None, score: Score) -> tuple[int, ...]:
    """Return who is to play."""
    controls = config.controls
    if controls.instruments is not None:
        groups = controls.ensemble if not isinstance(controls.ensemble, str) else [[p] for p in controls.instruments]
        return players.programs_of(groups)
    assert style is not None
    is_alone = config.task == RESTYLE or given.is_melody_alone(score)
    return players.PARTS[style] if is_alone else players.lacking(style, score)


def _bars(config: GenerationConfig, score: Score) -> tuple[int, int]:
    """Return the first bar to write, counted from 0, and the one behind the last."""
    masked_span(score, bars=config.infill_bars, accompany=True)  # says which bars there are
    first, last = config.infill_bars or (1, midi.num_bars(score))
    return first - 1, last


def _paired(composer: Composer) -> ScorePairs:
    assert isinstance(composer.tokenizer, ScorePairs)
    return composer.tokenizer


def arrange(
    composer: Composer, score: Score, config: GenerationConfig, seed: int, indices: Iterable[int] | None = None
) -> list[Composition]:
    """Return variations of a song with new parts, each the whole song.

    Args:
        composer: with a model that was trained on pairs.
        score: the song.
        config: what is asked for, with a task; what `completed` has not filled in is filled in.
        seed: the same seed, and all else the same, gives the same scores.
        indices: which of the `config.n` variations; all of them if left out. None depends on another.

    Raises:
        CheckpointError: the model was not trained on pairs.
        MidiError: see `completed`; or the model cannot read the song.
        TokenizerError: the model lacks an instrument, or writes nothing.
    """
    check_model(composer.checkpoint, config)
    prompt(composer, score)
    writer = _Writer(composer, score, completed(composer, config, score))
    return [writer.composition(seed, index)[0] for index in (range(config.n) if indices is None else indices)]


def best(composer: Composer, score: Score, config: GenerationConfig, seed: int) -> list[Composition]:
    """Return the variations that a config keeps, the best first where `keep` chooses among them; see `best_fit.goodness`.

    Raises:
        as `arrange`.
    """
    if config.keep is None:
        return arrange(composer, score, config, seed)
    check_model(composer.checkpoint, config)
    writer = _Writer(composer, score, completed(composer, config, score))
    made = [writer.composition(seed, index, is_ranked=True) for index in range(config.n)]
    parts, nats = [part for _, part, _ in made], [each for _, _, each in made]
    span = writer.span
    figures = best_fit.goodness(writer.given.source, parts, [-each for each in nats], span.start, span.stop)
    order = np.argsort(-figures, kind="stable")[: config.keep].tolist()
    log.info("kept %s of %d, by harmony, probability and density", ", ".join(str(i + 1) for i in order), config.n)
    return [made[i][0] for i in order]


class _Writer:
    """Writes parts beside a song.

    Args:
        composer: with the model.
        score: the song.
        config: completed.

    Attributes:
        span: in which new notes begin.
        given: what stays, and the source.
    """

    def __init__(self, composer: Composer, score: Score, config: GenerationConfig) -> None:
        self.composer, self.config, self.tokenizer = composer, config, _paired(composer)
        self.controls = config.controls
        self.span: MaskedSpan = masked_span(score, bars=config.infill_bars, accompany=True)
        self.first, self.last = _bars(config, score)
        style = self.controls.style
        if config.task == RESTYLE:
            assert style is not None
            lead = players.lead(style)
            self.given = given.restyled(score, style, lead, self.span.start, self.span.stop)
        else:
            self.given = given.accompanied(score)
        self.sides = Sides(self.tokenizer, score, style)
        self.programs = players.programs_of([[program] for program in self.controls.instruments])
        self.chords = None  # ids of each half bar, where they are known
        if self.controls.chords is not None:
            self.chords = self.sides.chord_ids(self.controls.chords, self.first, self.last)
        source_chords = self.sides.unknown_chords if self.chords is None else self.chords
        self.source = self.sides.side(self.given.source, source_chords)
        self.source_starts = self.tokenizer.bar_starts(self.source)
        self.model = composer.generating(composer.precision(config.precision))
        log.info(
            "writes %s", ", ".join(map(players.name, self.programs)) + (f" in the style '{style}'" if style else "")
        )
        if (config.draw or 1) > 1:
            log.info("each %d bars are the best of %d, by harmony, probability and density", STEP, config.draw)

    def composition(self, seed: int, index: int, *, is_ranked: bool = False) -> tuple[Composition, Score, float]:
        """Return a variation, its new parts alone, and their loss, nats/token, which is 0 where nothing is ranked."""
        target = self.given.music.copy()
        target.tracks = type(target.tracks)([])
        num_tokens, losses, sizes = 0, [0.0], [0]
        for step, first in enumerate(range(self.first, self.last, STEP)):
            seeds = np.random.SeedSequence([seed, index, step]).generate_state(1, np.uint64)
            new, loss, num_sampled = self._step(target, first, int(seeds[0]), is_ranked=is_ranked)
            num_tokens += num_sampled
            losses.append(loss)
            sizes.append(num_sampled)
            self._put(target, new, first)
        if not target.note_num():
            raise TokenizerError(f"the model '{self.composer.checkpoint.name}' writes nothing but silence here")
        music = self.given.music.copy()
        for program in self.programs:
            music.tracks.extend([track for track in target.tracks if _program(track) == program])
        loss = float(np.average(losses, weights=sizes)) if sum(sizes) else 0.0
        return infill.composition(music, index, num_tokens), target, loss

    def _step(self, target: Score, first: int, seed: int, *, is_ranked: bool) -> tuple[Score, float, int]:
        """Return new notes from a bar on, at their times, their loss, and the number of ids that were sampled."""
        stop, begin = min(first + STEP, self.last), max(self.first, first - BEFORE)
        whole = self.sides.side(target, self._chords_so_far(target), self.programs)
        starts = self.tokenizer.bar_starts(whole)
        begun = whole[: starts[first]]
        source = self.tokenizer.crop(self.source, self.source_starts, begin, stop)
        model_ids = self.tokenizer.crop(whole, starts, begin, first)
        if not isinstance(self.model, Seq2SeqModel):  # a language model reads both behind each other
            model_ids = np.concatenate([source, model_ids])
        at, end = self.sides.starts[first], self.sides.starts[stop]
        prompt = Prompt(ids=begun, quarters=at, left_out=0, score=None, tokenizer=self.tokenizer, model_ids=model_ids)
        plan = SessionConfig(length=Length(bars=stop - first), loop_guard=False, seed=seed)
        model = self._given_source(self.model, source)
        session = GenerationSession(model, self.composer.checkpoint.name, prompt, self._sampler(begun, at), plan)
        sampled = [continuation.ids for continuation in session.sample(self.config.draw or 1)]
        new = [midi.without_before(prompt.decoded(ids), at) for ids in sampled]
        nats = [0.0] * len(new)
        if is_ranked or len(new) > 1:
            pieces = [
                Piece(name=str(i), tokens=np.concatenate([model_ids, ids]), num_notes=0, seconds=0.0)
                for i, ids in enumerate(sampled)
            ]
            exact = self._given_source(self.composer.model, source)
            nats = rerank.losses(exact, self.tokenizer, pieces, behind=len(model_ids))
        chosen = best_fit.best(self.given.source, new, [-each for each in nats], at, end) if len(new) > 1 else 0
        return new[chosen], nats[chosen], sum(map(len, sampled))

    def _chords_so_far(self, target: Score) -> np.ndarray:
        """Return the ids of the chords of all bars, (2 M,): where none are known, those of the music so far."""
        if self.chords is not None:
            return self.chords
        music = self.given.source.copy()
        music.tracks.extend(target.tracks)
        return self.sides.chord_ids(self.sides.harmony(music), 0, self.sides.num_bars)

    def _given_source(self, model: LanguageModel, source: np.ndarray) -> LanguageModel:
        """Return the model of targets of a source."""
        if not isinstance(model, Seq2SeqModel):
            return model
        device = self.composer.device
        features = torch.from_numpy(self.tokenizer.features_of([source]))[None].to(device)
        return model.conditioned(torch.from_numpy(source)[None].to(device), features)

    def _sampler(self, begun: np.ndarray, at: float) -> Sampler:
        controls = self.controls
        rules: list[Constraint] = [
            constraints.grammar(
                self.tokenizer,
                at,
                limits(self.tokenizer, controls),
                [lambda base, inner: with_ensemble(base, inner, controls, begun)],
            ),
            GivenBars(self.tokenizer, self.sides.lines[:, 1]),
            *constraints.planned(self.tokenizer, controls, first=self.first),
        ]
        if (bias := logit_bias(self.tokenizer, controls)) is not None:
            rules.append(bias)
        penalties = constraints.chord_tones(self.tokenizer, controls, first=self.first)
        return self.composer.sampler(rules, self.config.sampler, penalties)

    def _put(self, target: Score, new: Score, first: int) -> None:
        """Add the new notes of a step to the target; they may sound into the next step."""
        start, stop = self.sides.starts[first], self.sides.starts[min(first + STEP, self.last)]
        scale = target.ticks_per_quarter / new.ticks_per_quarter
        of_program = {_program(track): i for i, track in enumerate(target.tracks)}
        for track in new.tracks:
            begin, end = start * new.ticks_per_quarter, stop * new.ticks_per_quarter
            notes: Sequence[tuple[float, float, int, int]] = [
                (n.time * scale, n.end * scale, n.pitch, n.velocity) for n in track.notes if begin <= n.time < end
            ]
            program = _program(track)
            if notes and program not in of_program:
                target.tracks.append(Track(track.name, track.program, track.is_drum))
                of_program[program] = len(target.tracks) - 1
            if notes:
                infill.put(target, of_program[program], notes, start, self.span.stop)


def _program(track: Track) -> int:
    return DRUMS if track.is_drum else int(track.program)


def required(score: Score | None) -> Score:
    """Return a song that there must be.

    Raises:
        MusicLMError: there is none.
    """
    if score is None:
        raise MusicLMError("nothing can be written beside given music without any")
    return score
