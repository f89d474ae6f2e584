"""The parts of `accompany` and `restyle` by an infilling model: given music with masked instruments, see `infill`.

A model of `score-infill` was trained on whole tracks masked, so it can write parts too. It reads given and new notes as one
sequence. Instruments are limited to those that are asked for; none of them has to play.
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
    music, style = score, config.controls.style
    if config.task == RESTYLE:
        assert style is not None
        music = given.restyled(score, style, players.lead(style), where.start, where.stop).music
    log.info("writes %s", ", ".join(map(players.name, config.controls.instruments or ())))
    asked = dataclasses.replace(config.controls, style=None, ensemble=None, repeat_strength=None)
    request = dataclasses.replace(config, task=None, accompany=True, keep=None, controls=asked)
    made = infill.fill(composer, music, request, seed)
    if indices is not None:
        return [made[index] for index in indices]
    if config.keep is None:
        return made
    parts = [_without_given(each.score, len(music.tracks)) for each in made]
    figures = best_fit.goodness(music, parts, [np.nan] * len(parts), where.start, where.stop)
    order = np.argsort(-figures, kind="stable")[: config.keep].tolist()
    log.info("kept %s of %d, by harmony and density", ", ".join(str(i + 1) for i in order), config.n)
    return [made[i] for i in order]


def _without_given(score: Score, num_given: int) -> Score:
    parts = score.copy()
    parts.tracks = type(parts.tracks)(list(parts.tracks)[num_given:])
    return parts


def can_write(composer: Composer) -> bool:
    """Return whether a model writes parts by infilling: its tokens have masked spans and a plan."""
    return composer.tokenizer.supports_infilling and composer.tokenizer.has_plan
