"""Music of drums alone: whether it is, and which instruments are to play where it must not be."""

from __future__ import annotations

import numpy as np

from ..midi.theory import DRUMS
from ..tokenizers.base import Tokenizer
from ..tokenizers.vocabulary import Kind, ids_of, is_kind
from .constraints import grammar_class
from .controls import Controls
from .prompt import Prompt

DRUM_STYLE = "drums"


def are_alone(tokenizer: Tokenizer, ids: np.ndarray) -> bool:
    """Return whether drums begin in ids and no pitched note does."""
    return _begins(tokenizer, ids, Kind.DRUM_ON) and not has_pitch(tokenizer, ids)


def has_pitch(tokenizer: Tokenizer, ids: np.ndarray) -> bool:
    """Return whether a pitched note begins in ids."""
    return _begins(tokenizer, ids, Kind.NOTE_ON)


def pitched_programs(prompt: Prompt, controls: Controls) -> tuple[int, ...] | None:
    """Return the General MIDI programs that may play beside drums; None where drums may stay alone, or cannot be.

    Drums may stay alone where controls ask for nothing else or for their style, and behind a prompt of drums alone.
    Instruments that are asked for take precedence over those of the prompt; without either all of the vocabulary may play.
    """
    tokenizer = prompt.tokenizer.unmerged
    if not grammar_class(tokenizer).follows_notes or not len(ids_of(tokenizer.vocabulary, Kind.DRUM_ON)):
        return None
    given = prompt.tokenizer.base_ids(prompt.ids)
    if controls.style == DRUM_STYLE or are_alone(tokenizer, given):
        return None
    programs = [token.value for token in tokenizer.vocabulary if token.kind == Kind.PROGRAM]
    if controls.instruments is not None:
        programs = [program for program in programs if program in controls.instruments]
    elif prompt.score is not None:
        played = {tokenizer.vocabulary[i].value for i in given if tokenizer.vocabulary[i].kind == Kind.PROGRAM}
        programs = [program for program in programs if program in played]
    pitched = tuple(program for program in programs if program != DRUMS)
    return pitched if pitched and DRUMS in programs else None


def _begins(tokenizer: Tokenizer, ids: np.ndarray, kind: Kind) -> bool:
    return bool(is_kind(tokenizer.unmerged.vocabulary, kind)[tokenizer.base_ids(ids)].any())
