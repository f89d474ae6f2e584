"""Constraint compilation: a user's controls as permitted ids of a tokenizer and a maximum polyphony.

All of it is read from the vocabulary table. What a tokenizer cannot express is refused here, before anything is sampled.
"""

from __future__ import annotations

import math

import numpy as np

from ...errors import TokenizerError
from ...midi.theory import DRUMS
from ...tokenizers.base import Tokenizer
from ...tokenizers.vocabulary import Kind, base_of, expansions, find, has, ids_of, is_kind, pitches_on
from ..controls import Controls
from ..sampler import Constraint
from .base import Grammar, Limits, LogitBias
from .dispatch import grammar_class
from .key_leaning import KeyLeaning

SHORTEST_BAR = 1.5  # quarters, of unconditional music: shorter ones in training pieces are mostly pickups


def limits(
    tokenizer: Tokenizer,
    controls: Controls,
    prompt_ids: np.ndarray | None = None,
    bars: int | None = None,
    *,
    is_unconditional: bool = False,
) -> Limits:
    """Return the limits that controls, and a prompt's ids where there are no controls, set for a tokenizer without merges.

    Args:
        tokenizer: without merges.
        controls: limits on new music.
        prompt_ids: of the prompt, whose instruments, time signature and tempi are kept; None for no such limit.
        bars: of unconditional music, as its header says; None for unknown.
        is_unconditional: whether the header is sampled, too; then no bar is as short as a pickup.

    Raises:
        TokenizerError: the tokenizer cannot express one of them.
    """
    kind = grammar_class(tokenizer)
    _check(tokenizer, controls, kind)
    permitted = np.ones(tokenizer.vocab_size, bool)
    if prompt_ids is not None:
        permitted[tokenizer.new_to_prompt(prompt_ids)] = False
    if is_unconditional:
        _permit_header(tokenizer, controls, bars, permitted)
    if controls.instruments is not None:
        _permit_programs(tokenizer, controls.instruments, permitted)
    has_pitches = controls.instruments is None or any(program >= 0 for program in controls.instruments)
    if has_pitches and len(controls.pitches) < 128:
        _permit_pitches(tokenizer, controls.pitches, permitted)
    if controls.tempo is not None:
        if tokenizer.in_seconds:
            raise TokenizerError(
                f"the tokenizer '{tokenizer.name}' writes real time and has no tempo: take a model of 'score' tokens"
            )
        if kind.follows_notes:
            _permit_tempo(tokenizer, controls.tempo, permitted)
    if controls.time_signature is not None:
        _permit_time_signature(tokenizer, controls.time_signature, permitted, prompt_ids)
    controls.apply(tokenizer, permitted)
    return Limits(permitted=permitted, max_polyphony=controls.max_polyphony)


def _check(tokenizer: Tokenizer, controls: Controls, kind: type[Grammar]) -> None:
    """Refuse what a grammar cannot enforce: one that tracks token types alone may give a piano a drum's pitch."""
    asked = controls.to_dict().keys() - {
        "tempo",
        "key_strength",
        "ensemble",
        *(["key"] if controls.named_key is None else []),
        *([] if controls.repeat_strength else ["repeat_strength"]),
    }
    if asked and not kind.follows_notes:
        raise TokenizerError(
            f"the tokenizer '{tokenizer.name}' can be limited to a tempo alone, not to {', '.join(sorted(asked))}: "
            "take a model of 'score' tokens"
        )
    if controls.max_polyphony is not None and not kind.counts_notes:
        raise TokenizerError(
            f"the tokenizer '{tokenizer.name}' has no grammar that counts the notes that sound: take a model of "
            "'score' tokens, or no maximal polyphony"
        )


def logit_bias(tokenizer: Tokenizer, controls: Controls) -> Constraint | None:
    """Return the constraint that makes notes outside the key less likely; None where they are excluded, or there is no key.

    Raises:
        TokenizerError: the key is to be estimated, and no id of the tokenizer is a pitch.
    """
    if controls.strength == 0 or (controls.named_key is not None and controls.strength == 1):
        return None
    if controls.named_key is None:
        return KeyLeaning(tokenizer, controls.strength)
    is_outside = np.isin(pitches_on(base_of(tokenizer.vocabulary)), list(controls.outside_key))
    weights = np.where(is_outside, math.log(1 - controls.strength), 0.0)
    return LogitBias(np.array([weights[list(base_ids)].sum() for base_ids in expansions(tokenizer.vocabulary)]))


def _permit_pitches(tokenizer: Tokenizer, wanted: frozenset[int], permitted: np.ndarray) -> None:
    pitches = pitches_on(tokenizer.vocabulary)
    if not (pitches >= 0).any():
        raise TokenizerError(f"no id of the tokenizer '{tokenizer.name}' is one pitch: it cannot be limited to some")
    permitted &= np.isin(pitches, [-1, *wanted])
    if not (permitted & (pitches >= 0)).any():
        raise TokenizerError(
            f"the tokenizer '{tokenizer.name}' has pitches {pitches[pitches >= 0].min()} to {pitches.max()} "
            "and none of those asked for"
        )


def _permit_programs(tokenizer: Tokenizer, programs: tuple[int, ...], permitted: np.ndarray) -> None:
    table = tokenizer.vocabulary
    if has(table, Kind.PROGRAM):
        found = [i for i in (find(table, Kind.PROGRAM, program) for program in programs) if i >= 0]
        if not found:
            raise TokenizerError(f"the tokenizer '{tokenizer.name}' was made without the instruments asked for")
        permitted[is_kind(table, Kind.PROGRAM)] = False
        permitted[found] = True
    elif tokenizer.program is None:
        raise TokenizerError(
            f"the tokenizer '{tokenizer.name}' cannot be limited to instruments: take a model of 'score' tokens"
        )
    elif tokenizer.program not in programs:
        raise TokenizerError(
            f"the tokenizer '{tokenizer.name}' has one instrument, General MIDI program {tokenizer.program}: "
            "take a model of 'score' tokens"
        )


def _permit_header(tokenizer: Tokenizer, controls: Controls, bars: int | None, permitted: np.ndarray) -> None:
    """Permit one length in the header of unconditional music, no pickup bars, and drums as its style where only they play.

    The header says its style before its instruments: where only these are asked for, the style is unknown, so that they fit.
    """
    table = tokenizer.vocabulary
    lengths = {table[i].value: i for i in ids_of(table, Kind.LENGTH).tolist()}
    if lengths:
        known = sorted(n for n in lengths if n is not None)
        permitted[[*lengths.values()]] = False
        permitted[lengths[None if bars is None else next((n for n in known if n >= bars), known[-1])]] = True
        for i in ids_of(table, Kind.TIME_SIGNATURE).tolist():
            numerator, denominator = table[i].value
            permitted[i] = permitted[i] and 4 * numerator / denominator >= SHORTEST_BAR
    drums = find(table, Kind.STYLE, "drums")
    if drums < 0 or controls.style is not None:
        return
    if controls.instruments is None:
        permitted[drums] = False
    else:
        permitted[is_kind(table, Kind.STYLE)] = False
        permitted[drums if controls.instruments == (DRUMS,) else find(table, Kind.STYLE)] = True


def _permit_tempo(tokenizer: Tokenizer, tempo: float, permitted: np.ndarray) -> None:
    """Permit the nearest tempo alone; a vocabulary without tempi leaves it to the score."""
    ids = ids_of(tokenizer.vocabulary, Kind.TEMPO).tolist()
    if ids:
        permitted[ids] = False
        permitted[min(ids, key=lambda i: abs(math.log(tokenizer.vocabulary[i].value / tempo)))] = True


def _permit_time_signature(
    tokenizer: Tokenizer, signature: tuple[int, int], permitted: np.ndarray, prompt_ids: np.ndarray | None
) -> None:
    table = tokenizer.vocabulary
    is_signature = is_kind(table, Kind.TIME_SIGNATURE)
    if not is_signature.any():
        raise TokenizerError(f"the tokenizer '{tokenizer.name}' has no time signatures: take a model of 'score' tokens")
    wanted = find(table, Kind.TIME_SIGNATURE, signature)
    if wanted < 0:
        known = ["{}/{}".format(*table[i].value) for i in np.flatnonzero(is_signature).tolist()]
        alike = [text for text in known if text.endswith(f"/{signature[1]}")] or known
        raise TokenizerError(
            "the tokenizer '{}' has no time signature {}/{}: it has {}".format(
                tokenizer.name, *signature, ", ".join(alike)
            )
        )
    signatures = prompt_ids[is_signature[prompt_ids]] if prompt_ids is not None else np.array([wanted])
    if not has(table, Kind.BAR) and signatures[-1:].tolist() != [wanted]:
        raise TokenizerError(
            f"the tokenizer '{tokenizer.name}' has no bars: music that continues a prompt keeps its time signature, "
            "or take a model of 'score' tokens"
        )
    permitted[is_signature] = False
    permitted[wanted] = True
