"""The parts of `accompany` and `restyle` by an infilling model: given music with masked instruments, see `infill`.

A model of `score-infill` was trained on whole tracks masked, so it can write parts too: one kind after the other, each given
those before it, as `written_parts` does beside more than a melody. It reads given and new notes as one sequence.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable

import numpy as np
from symusic import Score

from . import best_fit, given, infill, players
from .composer import Composer, Composition
from .config import RESTYLE, GenerationConfig
from .masked_span import masked_span

log = logging.getLogger(__name__)


def write(
    composer: Composer, score: Score, config: GenerationConfig, seed: int, indices: Iterable[int] | None = None
) -> list[Composition]:
    """Return variations of a song with new parts, each the whole song; of those that `keep` keeps the best first.

    Args:
        composer: with an infilling model of tokens with a plan.
        score: the song.
        config: with a task, completed.
        seed: see `accompany.arrange`, as `indices`.

    Raises:
        MidiError: see `infill.fill`.
        TokenizerError: the model writes nothing.
    """
    where = masked_span(score, bars=config.infill_bars, accompany=True)
    music, style, programs = score, config.controls.style, config.controls.instruments or ()
    if config.task == RESTYLE:
        assert style is not None
        music = given.restyled(score, style, players.lead(style), where.start, where.stop).music
    log.info("writes %s", ", ".join(map(players.name, players.in_order(programs))))
    if (config.draw or 1) > 1:
        log.info(
            "each part is written some bars at a time, the best of %d by harmony, probability and density", config.draw
        )
    if indices is not None or config.keep is None:
        return [_written(composer, music, config, seed, i) for i in (indices or range(config.n))]
    made = [_written(composer, music, config, seed, index) for index in range(config.n)]
    parts = [_without_given(each.score, len(music.tracks)) for each in made]
    figures = best_fit.goodness(music, parts, [np.nan] * len(parts), where.start, where.stop)
    order = np.argsort(-figures, kind="stable")[: config.keep].tolist()
    log.info("kept %s of %d, by harmony and density", ", ".join(str(i + 1) for i in order), config.n)
    return [made[i] for i in order]


def _written(composer: Composer, music: Score, config: GenerationConfig, seed: int, index: int) -> Composition:
    """Return one variation: all parts, one kind after the other."""
    asked = dataclasses.replace(config.controls, style=None, ensemble=None, repeat_strength=None)
    num_tokens, made = 0, None
    for number, programs in enumerate(players.by_kind(asked.instruments or ())):
        pitches = asked.pitch_range or players.pitch_range(programs)
        controls = dataclasses.replace(asked, instruments=programs, pitch_range=pitches)
        request = dataclasses.replace(config, task=None, accompany=True, keep=None, n=1, controls=controls)
        where = masked_span(music, bars=config.infill_bars, accompany=True)
        seeds = np.random.SeedSequence([seed, index, number]).generate_state(1, np.uint64)
        made = infill.infiller(composer.tokenizer, composer, music, where, request).filled(int(seeds[0]), index)
        music, num_tokens = made.score, num_tokens + made.num_new_tokens
    assert made is not None  # somebody is to play
    return dataclasses.replace(made, num_new_tokens=num_tokens)


def _without_given(score: Score, num_given: int) -> Score:
    parts = score.copy()
    parts.tracks = type(parts.tracks)(list(parts.tracks)[num_given:])
    return parts


def can_write(composer: Composer) -> bool:
    """Return whether a model writes parts by infilling: its tokens have masked spans and a plan."""
    return composer.tokenizer.supports_infilling and composer.tokenizer.has_plan
