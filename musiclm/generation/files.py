"""From a config and a prompt's bytes to the bytes of MIDI files: all of `musiclm generate` but its words and its paths."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable

from symusic import Score

from .. import checkpoint, midi
from ..devices import resolve_device
from ..errors import MusicLMError
from . import accompany, infill, provenance
from .composer import Composer, Composition, Ranked
from .config import GenerationConfig
from .prompt import Prompt
from .stream import Stream

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratedFile:
    """A composition and the bytes of its MIDI file, with the provenance record in it."""

    composition: Composition
    data: bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generated:
    """What was generated.

    Attributes:
        composer: the model that was used.
        config: as asked for, with what it left to the model and the machine.
        files: the variations that are kept; with `keep` the best first.
        ranked: all variations that were sampled, the best first; empty if all are kept.
        tokens_per_second: sampled; the time to rank them counts.
    """

    composer: Composer
    config: GenerationConfig
    files: list[GeneratedFile]
    ranked: list[Ranked]
    tokens_per_second: float


def generate_files(
    config: GenerationConfig,
    *,
    seed: int,
    model: str | None = None,
    device: str = "auto",
    prompt: bytes | None = None,
    prompt_name: str = "",
    listen: Callable[[Stream], None] | None = None,
) -> Generated:
    """Generate what a config asks for, as MIDI files. What the tokenizer cannot express of the prompt is logged.

    Args:
        config: what is asked for; if it is live, the music is streamed.
        seed: of everything that is sampled.
        model: a bundled name, a checkpoint file or a run folder; the default model for the task if left out.
        device: see `resolve_device`.
        prompt: a MIDI file; needed by infilling.
        prompt_name: what errors call it.
        listen: takes the events of a live stream as they are sampled, until it has ended.

    Raises:
        MusicLMError: the prompt or the model cannot be read; there is no such device or precision on this machine; or see
            `Composer.generate` and `infill.fill`.
        OptionError: an option without a meaning for this model.
    """
    score = None if prompt is None else midi.parse(prompt, prompt_name)
    named = model or checkpoint.default(filling_holes=config.is_filling, paired=config.task is not None)
    composer = Composer.load(named, resolve_device(device))
    config = accompany.with_task(composer, config)
    accompany.check_model(composer, config)
    if config.task is not None:
        music = accompany.prompt(composer, accompany.required(score))
    else:
        music = composer.prompt(score, bars=config.prompt_bars, seconds=config.prompt_seconds)
    _log_losses(composer, music, score, config)
    config = _completed(composer, music, score, config)
    began = time.monotonic()
    kept, ranked = _kept(composer, music, score, config, seed, listen)
    sampled = [each.composition for each in ranked] or kept
    tokens_per_second = sum(c.num_new_tokens for c in sampled) / (time.monotonic() - began)
    files = []
    for composition in kept:
        record = provenance.record(
            composer,
            seed=seed,
            request=config.sampled(),
            prompt=prompt,
            prompt_quarters=music.quarters,
            index=composition.index,
        )
        files.append(GeneratedFile(composition=composition, data=provenance.to_midi(composition, record)))
    return Generated(composer=composer, config=config, files=files, ranked=ranked, tokens_per_second=tokens_per_second)


def _completed(composer: Composer, music: Prompt, score: Score | None, config: GenerationConfig) -> GenerationConfig:
    """Return a config with all that it leaves to the song, the model and the machine."""
    try:
        if config.task is not None:
            return accompany.completed(composer, config, accompany.required(score))
        return composer.completed(config, music)
    except ValueError as error:
        raise MusicLMError(str(error)) from error


def _kept(
    composer: Composer,
    music: Prompt,
    score: Score | None,
    config: GenerationConfig,
    seed: int,
    listen: Callable[[Stream], None] | None,
) -> tuple[list[Composition], list[Ranked]]:
    """Return the variations that are kept, and all that were sampled for them, if they were ranked."""
    if config.task is not None:
        return accompany.best(composer, accompany.required(score), config, seed), []
    if config.is_filling:
        if score is None:
            raise MusicLMError("nothing can be written within a piece without a prompt")
        return infill.fill(composer, score, config, seed), []
    if not config.live:
        return composer.generate_best(music, config, seed)
    stream = composer.stream(music, config, seed)
    if listen is not None:
        listen(stream)
    for _ in stream.events() if stream.continuation.reason is None else ():
        pass
    return [composer.streamed(stream)], []


def _log_losses(composer: Composer, music: Prompt, score: Score | None, config: GenerationConfig) -> None:
    """Log what the model does not read of the prompt."""
    if music.doubled:
        note, one = ("note", "one") if music.doubled == 1 else ("notes", "one each")
        log.info("%s doubled %s became %s for the model", f"{music.doubled:,}", note, one)
    unheard = music.left_out - music.doubled
    if unheard:
        log.info(_unheard(unheard, composer.tokenizer.name, config))
    if score is not None and not config.is_filling:
        for sentence in composer.tokenizer.unexpressed(score):
            log.info(sentence)


def _unheard(count: int, tokenizer: str, config: GenerationConfig) -> str:
    notes, them = (f"{count:,} notes", "them") if count > 1 else ("1 note", "it")
    if config.only_new:
        return f"the model does not see {notes} of the prompt: '{tokenizer}' cannot express {them}"
    if config.is_filling:
        return f"kept, but invisible to the model: {notes} that '{tokenizer}' cannot express"
    return (
        f"{notes} stay{'s' * (count == 1)} in the prompt's part of the output, but the model does not see {them}: "
        f"'{tokenizer}' cannot express {them}"
    )
