"""What a tokenizer's ids can do about what a user asks for: which may come in new music, and what has to be counted.

Where a tokenizer cannot express something, that is said here, before anything is drawn.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from ...errors import TokenizerError
from ...tokenizers import grid, performance
from ...tokenizers.base import Tokenizer
from ...tokenizers.bpe import MergedTokenizer
from ...tokenizers.miditok import MARKS, MidiTokTokenizer
from ..controls import Controls

FOLLOWED = ("REMI", "TSD", "MIDILike", "Structured")  # of MidiTok's, those for which there is a grammar note by note
KINDS = {
    *MARKS, "Bar", "TimeSig", "Position", "Tempo", "Program", "Pitch", "PitchDrum", "Velocity", "Duration", "TimeShift",
    "NoteOn", "NoteOff", "DrumOn", "DrumOff",
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What new music of a tokenizer keeps to.

    Attributes:
        permitted: which ids may come, (V,) booleans. Where the tempo, metre or program that holds is none of them, it
            has to change before a note.
        max_polyphony: how many notes may sound at once, drums excepted; None for any number.
    """

    permitted: np.ndarray
    max_polyphony: int | None = None


def limits(tokenizer: Tokenizer, controls: Controls, heard: np.ndarray | None = None) -> Limits:
    """Return what controls, and a prompt's ids where there are no controls, mean for a tokenizer without merges.

    Raises:
        TokenizerError: the tokenizer cannot express one of them.
    """
    _check_followed(tokenizer, controls)
    permitted = np.ones(tokenizer.vocab_size, bool)
    if heard is not None:
        permitted[tokenizer.new_to_prompt(heard)] = False
    pitches = begun_pitches(tokenizer)
    if controls.instruments is not None:
        _permit_programs(tokenizer, controls.instruments, permitted)
    has_pitches = controls.instruments is None or any(program >= 0 for program in controls.instruments)
    if has_pitches and len(controls.pitches) < 128:
        permitted &= np.isin(pitches, [-1, *controls.pitches])
        if not (permitted & (pitches >= 0)).any():
            raise TokenizerError(
                f"the tokenizer '{tokenizer.name}' has pitches {pitches[pitches >= 0].min()} to {pitches.max()} "
                "and none of those asked for"
            )
    if controls.tempo is not None:
        _permit_tempo(tokenizer, controls.tempo, permitted)
    if controls.time_signature is not None:
        _permit_metre(tokenizer, controls.time_signature, permitted, heard)
    controls.apply(tokenizer, permitted)
    return Limits(permitted=permitted, max_polyphony=controls.max_polyphony)


def _check_followed(tokenizer: Tokenizer, controls: Controls) -> None:
    """Refuse what is asked of notes where the kinds of tokens are all that is known (a drum's may lie on a piano)."""
    asked = controls.to_dict().keys() - {"tempo", "key_strength"}
    if asked and isinstance(tokenizer, MidiTokTokenizer) and not is_followed(tokenizer):
        raise TokenizerError(
            f"the tokenizer '{tokenizer.name}' can be held to a tempo alone, not to {', '.join(sorted(asked))}: "
            "take a model of 'score' tokens"
        )


def logit_bias(tokenizer: Tokenizer, controls: Controls) -> np.ndarray | None:
    """Return what a key that is not meant strictly adds to the logits, (V,); None where there is none."""
    if controls.key is None or controls.key_strength in (0.0, 1.0):
        return None
    base = tokenizer.base if isinstance(tokenizer, MergedTokenizer) else tokenizer
    weights = np.where(
        np.isin(begun_pitches(base), list(controls.outside_key)), math.log(1 - controls.key_strength), 0.0
    )
    if isinstance(tokenizer, MergedTokenizer):
        return np.array([weights[list(expansion)].sum() for expansion in tokenizer.expansions])
    return weights


def is_followed(tokenizer: MidiTokTokenizer) -> bool:
    """Return whether there is a grammar for a tokenizer that knows each note; else there is MidiTok's graph of kinds."""
    config, kinds = tokenizer.midi_tokenizer.config, set(tokenizer.kinds)
    bars = [value for kind, value in zip(tokenizer.kinds, tokenizer.values, strict=True) if kind == "Bar"]
    return (
        tokenizer.tokenization in FOLLOWED
        and kinds <= KINDS
        and bars in ([], ["None"])  # neither numbered nor ended
        and bool(kinds & {"PitchDrum", "DrumOn"})
        and "Velocity" in kinds
        and (tokenizer.tokenization != "MIDILike" or config.program_changes)
        and set(config.programs) <= set(config.use_note_duration_programs)
    )


def begun_pitches(tokenizer: Tokenizer) -> np.ndarray:
    """Return the pitch of the note that each id begins, (V,); -1 where it begins none, or one of the drums."""
    pitches = np.full(tokenizer.vocab_size, -1)
    if isinstance(tokenizer, performance.Performance):
        keys = np.arange(performance.NUM_KEYS)
        pitches[performance.NOTE_ON + keys] = performance.LOWEST + keys
    elif isinstance(tokenizer, grid.Grid):
        pitches[grid.FIRST_PITCH : grid.FIRST_ARRANGED] = np.arange(grid.NUM_PITCHES)
    elif isinstance(tokenizer, MidiTokTokenizer):
        for i, kind in enumerate(tokenizer.kinds):
            if kind in ("Pitch", "NoteOn"):
                pitches[i] = int(tokenizer.values[i])
    return pitches


def _permit_programs(tokenizer: Tokenizer, programs: tuple[int, ...], permitted: np.ndarray) -> None:
    if isinstance(tokenizer, performance.Performance):
        if 0 not in programs:
            raise TokenizerError(
                "the tokenizer 'performance' knows one instrument, the piano: take a model of 'score' tokens"
            )
    elif isinstance(tokenizer, MidiTokTokenizer) and is_followed(tokenizer):
        found = [tokenizer.midi_tokenizer.vocab.get(f"Program_{p}", -1) for p in programs]
        permitted[np.array(tokenizer.kinds) == "Program"] = False
        permitted[[i for i in found if i >= 0]] = True
        if max(found) < 0:
            raise TokenizerError(f"the tokenizer '{tokenizer.name}' was made without the instruments asked for")
    else:
        raise TokenizerError(
            f"the tokenizer '{tokenizer.name}' cannot be held to instruments: take a model of 'score' tokens"
        )


def _permit_tempo(tokenizer: Tokenizer, tempo: float, permitted: np.ndarray) -> None:
    if tokenizer.in_seconds:
        raise TokenizerError(
            f"the tokenizer '{tokenizer.name}' writes real time and has no tempo: take a model of 'score' tokens"
        )
    if isinstance(tokenizer, MidiTokTokenizer) and "Tempo" in tokenizer.kinds and is_followed(tokenizer):
        ids = np.flatnonzero(np.array(tokenizer.kinds) == "Tempo")
        permitted[ids] = False
        permitted[min(ids, key=lambda i: abs(math.log(float(tokenizer.values[i]) / tempo)))] = True


def _permit_metre(
    tokenizer: Tokenizer, metre: tuple[int, int], permitted: np.ndarray, heard: np.ndarray | None
) -> None:
    if not (isinstance(tokenizer, MidiTokTokenizer) and "TimeSig" in tokenizer.kinds and is_followed(tokenizer)):
        raise TokenizerError(f"the tokenizer '{tokenizer.name}' has no time signatures: take a model of 'score' tokens")
    wanted = tokenizer.midi_tokenizer.vocab.get("TimeSig_{}/{}".format(*metre))
    is_metre = np.array(tokenizer.kinds) == "TimeSig"
    if wanted is None:
        known = [v for v, is_one in zip(tokenizer.values, is_metre, strict=True) if is_one]
        alike = [v for v in known if v.endswith(f"/{metre[1]}")] or known
        raise TokenizerError(
            "the tokenizer '{}' has no time signature {}/{}: it has {}".format(tokenizer.name, *metre, ", ".join(alike))
        )
    signs = heard[is_metre[heard]] if heard is not None else np.array([wanted])
    if "Bar" not in tokenizer.kinds and signs[-1:].tolist() != [wanted]:
        raise TokenizerError(
            f"the tokenizer '{tokenizer.name}' has no bars: music that goes on from a prompt keeps its time signature, "
            "or take a model of 'score' tokens"
        )
    permitted[is_metre] = False
    permitted[wanted] = True
