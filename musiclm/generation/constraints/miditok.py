"""Which grammar MidiTok's tokenizers have: one that follows each note where their options allow it, else MidiTok's graph."""

from __future__ import annotations

from ...tokenizers.miditok import MidiTokTokenizer
from ...tokenizers.vocabulary import BEGINS, ENDS, PLAN, SPECIAL, Kind
from .base import Grammar
from .dispatch import grammar_class
from .events import MidiLikeGrammar, StructuredGrammar, TsdGrammar
from .kinds import TypeGraph
from .score import ScoreGrammar

OF_TOKENIZATION: dict[str, type[Grammar]] = {
    "REMI": ScoreGrammar,
    "TSD": TsdGrammar,
    "MIDILike": MidiLikeGrammar,
    "Structured": StructuredGrammar,
}
FOLLOWED = {
    *SPECIAL, *BEGINS, *ENDS, Kind.BAR, Kind.TIME_SIGNATURE, Kind.POSITION, Kind.TEMPO, Kind.PROGRAM, Kind.VELOCITY,
    Kind.DURATION, Kind.TIME_SHIFT, *PLAN,
}  # fmt: skip


@grammar_class.register
def _(tokenizer: MidiTokTokenizer) -> type[Grammar]:
    return OF_TOKENIZATION[tokenizer.tokenization] if is_followed(tokenizer) else TypeGraph


def is_followed(tokenizer: MidiTokTokenizer) -> bool:
    """Return whether a grammar can follow each note of a tokenizer; else there is only MidiTok's graph of token types."""
    config, kinds = tokenizer.midi_tokenizer.config, {token.kind for token in tokenizer.vocabulary}
    bars = [value for kind, value in tokenizer.vocabulary if kind == Kind.BAR]
    return (
        tokenizer.tokenization in OF_TOKENIZATION
        and kinds <= FOLLOWED
        and bars in ([], [None])  # neither numbered nor ended
        and Kind.DRUM_ON in kinds
        and Kind.VELOCITY in kinds
        and (tokenizer.tokenization != "MIDILike" or config.program_changes)
        and set(config.programs) <= set(config.use_note_duration_programs)
    )
