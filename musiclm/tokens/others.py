"""MidiTok's other tokenizers by their own names, each with a configuration that lets a whole score be one stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ._miditok import MidiTokTokenizer
from .score import CONFIG

PLAIN = {  # for those whose bars are always 4/4, or that have none
    "use_time_signatures": False,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "REMI": CONFIG,
    "TSD": CONFIG,
    "MIDILike": CONFIG,
    "Structured": CONFIG | {"use_tempos": False, "use_time_signatures": False, "program_changes": False},
    "BEAT": CONFIG,
    "MMM": CONFIG | {"base_tokenizer": "REMI"},
    "PerTok": CONFIG
    | {
        "use_time_signatures": False,
        "ticks_per_quarter": 480,
        "use_microtiming": True,
        "max_microtiming_shift": 0.125,
        "num_microtiming_bins": 30,
    },
}


class OtherTokenizer(MidiTokTokenizer):
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
