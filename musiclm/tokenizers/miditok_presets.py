"""MidiTok's other tokenizers by their own names, each configured to write a whole score as one stream.

Of 38 real files of eight kinds (piano, pop, games, hymns, songs, drums, folk; 55,315 notes), the number for which
encode(decode(ids)) = ids, and the number with the same notes, with the configurations below and MidiTok 3.1.0:

    REMI, TSD, Structured, MMM   38 and 38
    PerTok                       37 and 38
    MIDILike                     30 and 38   ends at one time come in the order of lengths before and of times after
    BEAT                         23 and 24   one velocity a beat and pitch, the mean, which moves at each turn

All except MMM and BEAT merge the tracks of one program. All except Structured and PerTok keep tempo and time signature:
Structured has no bars, those of PerTok are all 4/4. MMM writes one instrument after the other: it can be trained and
evaluated, but not continued. CPWord, Octuple and MuMIDI write several vocabularies at once: no model here reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .miditok import MidiTokTokenizer
from .score import CONFIG

CONFIGS: dict[str, dict[str, Any]] = {
    "REMI": CONFIG,
    "TSD": CONFIG,
    "MIDILike": CONFIG,
    "Structured": CONFIG | {"use_tempos": False, "use_time_signatures": False, "program_changes": False},
    "BEAT": CONFIG,
    "MMM": CONFIG | {"base_tokenizer": "REMI"},
    "PerTok": CONFIG
    | {
        "use_tempos": False,
        "use_time_signatures": False,
        "ticks_per_quarter": 48,
        "use_microtiming": True,
        "max_microtiming_shift": 0.125,
        "num_microtiming_bins": 12,
    },
}


class PresetTokenizer(MidiTokTokenizer):
    """A tokenizer of MidiTok's by its own name.

    Args:
        tokenization: one of `CONFIGS`.
        config: options that differ from those there; all of them where a vocabulary comes with them.
        vocabulary: see `MidiTokTokenizer`.
    """

    def __init__(
        self, tokenization: str, config: dict[str, Any] | None = None, vocabulary: Sequence[str] | None = None
    ) -> None:
        config = config if config and vocabulary else CONFIGS[tokenization] | (config or {})
        super().__init__(tokenization, config, vocabulary)
