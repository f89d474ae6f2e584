"""Parts beside given music: `accompany` adds some, `restyle` keeps the melody alone.

This module decides what is written for whom. `written_parts` writes it with a model of pairs, `infilled_parts` with one that
was trained on infilling.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable

import numpy as np
from symusic import Score

from .. import midi, tokenizers
from ..errors import CheckpointError, MidiError, MusicLMError
from ..midi import theory
from ..tokenizers.score import style_of
from ..tokenizers.score_pairs import ScorePairs
from . import best_fit, given, infilled_parts, players, seam
from .composer import DRAWN_BARS, Composer, Composition
from .config import ACCOMPANY, RESTYLE, GenerationConfig
from .controls import Controls
from .controls.key import AUTO
from .controls.repeat_strength import DEFAULT_STRENGTH as REPEAT_STRENGTH
from .masked_span import masked_span
from .prompt import Prompt
from .sides import Sides
from .written_parts import Writer

log = logging.getLogger(__name__)

CANDIDATES = 8  # sampled for each step, where one variation is asked for
COMMANDS = "musiclm accompany and musiclm restyle"


def check_model(composer: Composer, config: GenerationConfig) -> None:
    """Check that a model does what is asked for: parts beside given music, or anything else.

    Raises:
        CheckpointError: it does not.
    """
    is_paired, name = composer.tokenizer.is_paired, composer.checkpoint.name
    if is_paired and config.task is None:
        raise CheckpointError(f"the model '{name}' writes parts beside given ones: that is for {COMMANDS}")
    if config.task is not None and not is_paired and not infilled_parts.can_write(composer):
        raise CheckpointError(
            f"the model '{name}' was trained neither on pairs of parts nor on infilling 'score' tokens: train one on a "
            "'score-pairs' corpus with --arch seq2seq_transformer, and name it with --model"
        )


def with_task(composer: Composer, config: GenerationConfig) -> GenerationConfig:
    """Return a config in which `accompany`, asked of a model of pairs, is the task of that name.

    Raises:
        OptionError: an option that has no meaning in a task.
    """
    if not config.accompany or not composer.tokenizer.is_paired:
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
    sides = Sides(tokenizer, score, None)
    return Prompt(
        ids=np.array([tokenizer.bos]),
        quarters=midi.end(score),
        left_out=sides.left_out,
        score=score,
        tokenizer=tokenizer,
        doubled=min(seam.num_doubled(score, sides.decoded(), tokenizer), sides.left_out),
    )


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
    is_ranked = config.n == 1 and config.keep is None and (composer.tokenizer.is_paired or last - first <= DRAWN_BARS)
    draw = config.draw or (CANDIDATES if is_ranked else 1)
    controls = dataclasses.replace(controls, style=style, instruments=programs, ensemble=programs, chords=chords)
    asked = dataclasses.replace(config, controls=controls, draw=draw)
    own = {"repeat_strength": REPEAT_STRENGTH} | dict(composer.checkpoint.sampling)
    resolved = asked.resolved(own)
    return dataclasses.replace(
        resolved,
        controls=_with_key(resolved.controls, score),
        precision=composer.precision(config.precision),
    )


def _with_key(controls: Controls, score: Score) -> Controls:
    """Return controls in which an automatic key is that of the song, where it has pitched notes; its strength stays."""
    notes = best_fit.pitched(score, 0.0, np.inf)
    if controls.key != AUTO or not len(notes):
        return controls
    key = theory.key_name(best_fit.key_of(notes))
    log.info("the song is in %s", key)
    return dataclasses.replace(controls, key=key)


def _programs(config: GenerationConfig, style: str | None, score: Score) -> tuple[int, ...]:
    """Return who is to play."""
    controls = config.controls
    if controls.instruments is not None:
        groups = controls.ensemble if not isinstance(controls.ensemble, str) else [[p] for p in controls.instruments]
        return players.programs_of(groups)
    assert style is not None
    if config.task == RESTYLE:
        return players.PARTS[style]
    return players.lacking(style, score, melody_alone=given.is_melody_alone(score))


def _bars(config: GenerationConfig, score: Score) -> tuple[int, int]:
    """Return the first bar to write, counted from 0, and the one behind the last."""
    masked_span(score, bars=config.infill_bars, accompany=True)  # says which bars there are
    first, last = config.infill_bars or (1, midi.num_bars(score))
    return first - 1, last


def _paired(composer: Composer) -> ScorePairs:
    """Return a tokenizer of pairs: the model's own, or one with the same ids."""
    tokenizer = composer.tokenizer
    return tokenizer if isinstance(tokenizer, ScorePairs) else tokenizers.create(ScorePairs.name)  # type: ignore[return-value]


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
    check_model(composer, config)
    prompt(composer, score)
    if not composer.tokenizer.is_paired:
        return infilled_parts.write(composer, score, completed(composer, config, score), seed, indices)
    writer = _writer(composer, score, config)
    return [writer.write(seed, index).composition for index in (range(config.n) if indices is None else indices)]


def best(composer: Composer, score: Score, config: GenerationConfig, seed: int) -> list[Composition]:
    """Return the variations that a config keeps, the best first where `keep` chooses among them; see `best_fit.goodness`.

    Raises:
        as `arrange`.
    """
    if config.keep is None or not composer.tokenizer.is_paired:
        return arrange(composer, score, config, seed)
    check_model(composer, config)
    writer = _writer(composer, score, config)
    made = [writer.write(seed, index, is_ranked=True) for index in range(config.n)]
    log_probabilities = [-each.nats_per_token for each in made]
    figures = best_fit.goodness(writer.given.source, [each.parts for each in made], log_probabilities, *writer.span)
    order = np.argsort(-figures, kind="stable")[: config.keep].tolist()
    log.info("kept %s of %d, by harmony, probability and density", ", ".join(str(i + 1) for i in order), config.n)
    return [made[i].composition for i in order]


def _writer(composer: Composer, score: Score, config: GenerationConfig) -> Writer:
    return Writer(composer, score, completed(composer, config, score), _bars(config, score))


def required(score: Score | None) -> Score:
    """Return a song that there must be.

    Raises:
        MusicLMError: there is none.
    """
    if score is None:
        raise MusicLMError("nothing can be written beside given music without any")
    return score
