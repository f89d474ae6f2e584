"""Who plays in a style: the instrument of its melody, and the parts that are written beside it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from symusic import Score

from ..errors import MidiError, TokenizerError
from ..midi.theory import DRUMS
from ..tokenizers.base import Tokenizer
from ..tokenizers.vocabulary import Kind, ids_of

LEADS = {"chorale": 52, "hymn": 52, "lied": 52, "piano": 0, "orchestra": 73, "pop-piano": 52, "band": 65}
"""General MIDI program of the melody: as most training pieces of the style have it; of bands one of several."""

PARTS: dict[str, tuple[int, ...]] = {
    "chorale": (52,), "hymn": (52,), "lied": (0,), "piano": (0,), "orchestra": (40, 42, 60, 71), "pop-piano": (0,),
    "band": (0, 33, DRUMS), "drums": (DRUMS,),
}  # fmt: skip
"""Programs of the other parts: choir; piano; violin, cello, horn and clarinet; piano, bass guitar and drums."""

RANGES = {
    **dict.fromkeys(range(24, 32), (40, 88)),  # guitars
    **dict.fromkeys(range(32, 40), (28, 60)),  # basses
    40: (55, 100), 41: (48, 88), 42: (36, 76), 43: (28, 60),  # violin, viola, cello, double bass
    **dict.fromkeys(range(52, 55), (40, 81)),  # choir and voice
    56: (52, 84), 57: (40, 72), 58: (28, 58), 60: (34, 77),  # trumpet, trombone, tuba, horn
    64: (56, 88), 65: (49, 81), 66: (44, 76), 67: (36, 69),  # saxophones
    68: (58, 91), 69: (52, 81), 70: (34, 75), 71: (50, 91),  # oboe, English horn, bassoon, clarinet
    72: (74, 108), 73: (60, 96), 74: (60, 86),  # piccolo, flute, recorder
}  # fmt: skip
"""Lowest and highest sounding MIDI pitch of instruments in usual writing (Adler 2002, "The study of orchestration")."""

DEFAULT_STYLE = "band"
USUAL = (25, 33)  # steel guitar and finger bass, which play for a word that stands for a whole family
FAMILY = 8  # programs
KINDS = ((*range(8), *range(16, 24)), (), range(40, 52), range(56, 80), range(32, 40), (DRUMS,))
"""Keyboards, others, strings, winds, basses and drums, in the order in which they are written."""


def programs_of(groups: Sequence[Collection[int]]) -> tuple[int, ...]:
    """Return the program that plays for each word of a list, drums last; a word is the programs that it stands for."""
    return in_order({next((p for p in USUAL if p in group), min(group)) for group in groups})


def in_order(programs: Collection[int]) -> tuple[int, ...]:
    """Return programs in the order of tracks: drums last."""
    return tuple(sorted(programs, key=lambda p: (p == DRUMS, p)))


def by_kind(programs: Collection[int]) -> list[tuple[int, ...]]:
    """Return groups of programs that are written at once, in the order in which they are written.

    They are the kinds of pairs that models are trained on, see `midi.parts.extract_pairs`: what carries the harmony comes
    first, then the bass, then the drums.
    """
    groups = [tuple(p for p in in_order(programs) if _kind(p) == kind) for kind in range(len(KINDS))]
    return [group for group in groups if group]


def pitch_range(programs: Collection[int]) -> tuple[int, int] | None:
    """Return the lowest and the highest pitch that some instruments play; None where one of them has no range in `RANGES`."""
    pitched = [program for program in programs if program != DRUMS]
    if not pitched or any(program not in RANGES for program in pitched):
        return None
    return min(RANGES[p][0] for p in pitched), max(RANGES[p][1] for p in pitched)


def _kind(program: int) -> int:
    """Return the place of a program's kind in the order in which parts are written."""
    return next((i for i, kind in enumerate(KINDS) if program in kind), 1)


def lacking(style: str, score: Score, *, melody_alone: bool = False) -> tuple[int, ...]:
    """Return the programs of a style whose family nobody plays in a score.

    Args:
        style: one of `PARTS`.
        score: the song.
        melody_alone: whether all pitched notes are its melody, which no part of the style stands for; drums may play.

    Raises:
        MidiError: there are none.
    """
    played = {_family(DRUMS if t.is_drum else t.program) for t in score.tracks if len(t.notes)}
    played &= {DRUMS} if melody_alone else played
    found = tuple(program for program in PARTS[style] if _family(program) not in played)
    if not found:
        raise MidiError(f"the song has all that the style '{style}' has: name the parts to write")
    return found


def lead(style: str) -> int:
    """Return the program of a style's melody.

    Raises:
        MidiError: it has none.
    """
    if style not in LEADS:
        raise MidiError(f"the style '{style}' has no melody: a song can be restyled to one of {', '.join(LEADS)}")
    return LEADS[style]


def check(tokenizer: Tokenizer, programs: Sequence[int], model: str) -> None:
    """Check that a model can write programs.

    Raises:
        TokenizerError: its vocabulary lacks one of them.
    """
    known = {tokenizer.vocabulary[i].value for i in ids_of(tokenizer.vocabulary, Kind.PROGRAM).tolist()}
    if lost := [program for program in programs if program not in known]:
        names = ", ".join(map(name, lost))
        raise TokenizerError(f"the model '{model}' was made without {names}: name other parts")


def name(program: int) -> str:
    """Return the name of an instrument: drums, or that of General MIDI."""
    if program == DRUMS:
        return "drums"
    from pretty_midi import program_to_instrument_name

    return str(program_to_instrument_name(program)).lower()


def _family(program: int) -> int:
    return program if program == DRUMS else program // FAMILY
