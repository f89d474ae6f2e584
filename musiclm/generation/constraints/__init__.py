"""Constrained decoding: logit masks made from a tokenizer, so that every sample can be played and written.

What a user asks for is built into the same grammar: constraints that are ignorant of each other can leave no token when they
come together, and this one looks ahead (see `base.Grammar`). Importing the modules below registers their grammars.

B batch, V vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...errors import TokenizerError
from ...tokenizers.base import Tokenizer
from ...tokenizers.vocabulary import Kind, has
from ..controls import Controls
from ..controls.chord_strength import DEFAULT_STRENGTH
from ..sampler import Constraint
from .base import BannedTokens, Grammar, Limits, LogitBias
from .chord_plan import ChordPlan
from .chord_tones import STEPS_A_BAR, ChordTones
from .dispatch import grammar_class
from .ensemble import Ensemble, with_ensemble
from .events import MidiLikeGrammar, StructuredGrammar, TsdGrammar
from .form_plan import FormPlan
from .grid import GridGrammar
from .kept import KeptCells
from .key_leaning import KeyLeaning
from .kinds import TypeGraph
from .last_bar import LastBar
from .limited import LimitedGrammar
from .limits import limits, logit_bias
from .merged import MergedGrammar
from .miditok import is_followed
from .performance import PerformanceGrammar
from .repeats import Repeats
from .score import ScoreGrammar
from .voice_leading import VoiceLeading, voice_leading

__all__ = [
    "STEPS_A_BAR",
    "BannedTokens",
    "ChordPlan",
    "ChordTones",
    "Ensemble",
    "FormPlan",
    "Grammar",
    "GridGrammar",
    "KeptCells",
    "KeyLeaning",
    "LastBar",
    "LimitedGrammar",
    "Limits",
    "LogitBias",
    "MergedGrammar",
    "MidiLikeGrammar",
    "PerformanceGrammar",
    "Repeats",
    "ScoreGrammar",
    "StructuredGrammar",
    "TsdGrammar",
    "TypeGraph",
    "VoiceLeading",
    "chord_tones",
    "constraints",
    "grammar",
    "grammar_class",
    "is_followed",
    "planned",
    "voice_leading",
]


Wrapper = Callable[[Any, Grammar], Grammar]


def constraints(
    tokenizer: Tokenizer,
    *,
    not_before: float = 0.0,
    prompt_ids: np.ndarray | None = None,
    controls: Controls | None = None,
    bars: int | None = None,
    ensemble: bool = False,
    ends: bool = False,
) -> list[Constraint]:
    """Return the constraints that keep samples playable, make the music continue, and enforce the controls.

    Args:
        tokenizer: any.
        not_before: no new note may begin before this time, in the tokenizer's quarters; only grammars in which notes
            could begin before the prompt's end enforce it.
        prompt_ids: ids of the prompt, whose instruments, time signature and tempi are kept; None for unconditional
            music, or an infill.
        controls: limits on new music; they take precedence over the prompt.
        bars: of unconditional music, which its header says; None for unknown.
        ensemble: whether those that `Controls.ensemble` names have to play.
        ends: whether the piece ends with the last of these bars.

    Raises:
        TokenizerError: the tokenizer cannot express one of the controls.
    """
    controls = controls or Controls()
    base_ids = None if prompt_ids is None else tokenizer.base_ids(prompt_ids)
    wrappers: list[Wrapper] = []
    if ensemble:
        wrappers.append(lambda base, inner: with_ensemble(base, inner, controls, base_ids))
    if ends and bars is not None:
        wrappers.append(functools.partial(LastBar, bars=bars, tonic=controls.chords is None))
    limited = limits(tokenizer.unmerged, controls, base_ids, bars, is_unconditional=base_ids is None)
    made = grammar(tokenizer, not_before, limited, wrappers)
    bias = logit_bias(tokenizer, controls)
    return [made] if bias is None else [made, bias]


def planned(tokenizer: Tokenizer, controls: Controls, *, first: int, num_bars: int | None = None) -> list[Constraint]:
    """Return the constraints of chords, form and repeats by the attributes of bars, beside those of `constraints`.

    Args:
        tokenizer: any; one without a plan has no such attributes, and no form.
        controls: limits on new music.
        first: number of the first new bar.
        num_bars: how many new bars there are; None where that is not known, and nothing has a form.

    Raises:
        TokenizerError: a form is asked for, and the tokenizer has no plan, or the number of bars is not known.
    """
    made: list[Constraint] = []
    has_plan = has(tokenizer.vocabulary, Kind.SECTION)
    if controls.chords is not None and has_plan:
        made.append(ChordPlan(tokenizer, controls.chords, first))
    if controls.form is not None:
        if not has_plan or num_bars is None:
            raise TokenizerError(
                f"tokens of '{tokenizer.name}' in this model say no form of a piece: take a model of 'score' tokens of "
                "version 5"
            )
        repeats = controls.chords is None
        made.append(FormPlan(tokenizer, controls.form, num_bars=num_bars, first=first, repeats_chords=repeats))
    if controls.repeat_strength and has_plan:
        made.append(Repeats(tokenizer, controls.repeat_strength, has_chords=controls.chords is not None))
    return made


def chord_tones(tokenizer: Tokenizer, controls: Controls, *, first: int) -> list[ChordTones]:
    """Return the penalty for notes outside the chords that controls ask for; none without chords, or at a strength of 0.

    Raises:
        TokenizerError: the tokenizer's ids do not say bars.
    """
    strength = DEFAULT_STRENGTH if controls.chord_strength is None else controls.chord_strength
    if controls.chords is None:
        return []
    made = ChordTones(tokenizer, controls.chords, strength, first)
    return [made] if strength else []


def grammar(
    tokenizer: Tokenizer, not_before: float = 0.0, limits: Limits | None = None, wrappers: Sequence[Wrapper] = ()
) -> Grammar:
    """Return the grammar of a tokenizer.

    Args:
        tokenizer: any.
        not_before: see `constraints`.
        limits: of its base ids.
        wrappers: each returns a grammar around the one before it, given the tokenizer without merges.
    """
    base = tokenizer.unmerged
    kind: Callable[..., Grammar] = grammar_class(base)  # each of them takes these arguments
    made = kind(base, not_before, limits)
    for wrapped in wrappers:
        made = wrapped(base, made)
    return made if base is tokenizer else MergedGrammar(tokenizer, made)
