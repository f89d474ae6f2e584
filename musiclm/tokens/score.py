"""Any multi-track score as one stream: REMI (Huang and Yang 2020) with programs.

Twelve positions a beat, so that sixteenths and triplets both stay; 48 tempi in equal ratios (5.8 % apart); a program is
said when it changes. Notes of one program become one track. What it cannot say: durations over 32 beats, finer timing,
pedal and other controllers, lyrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ._miditok import MidiTokTokenizer

CONFIG: dict[str, Any] = {
    "pitch_range": [0, 127],
    "beat_res": {"0_4": 12, "4_12": 4, "12_32": 1},
    "num_velocities": 16,
    "special_tokens": ["PAD", "BOS", "EOS"],
    "use_programs": True,
    "one_token_stream_for_programs": True,
    "program_changes": True,
    "use_time_signatures": True,
    "time_signature_range": {
        "1": [2, 3, 4],
        "2": [1, 2, 3, 4, 5, 6],
        "4": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
        "8": list(range(1, 16)),
        "16": [2, 3, 4, 5, 6, 7, 8, 9, 12, 15],
    },
    "use_tempos": True,
    "log_tempos": True,
    "num_tempos": 48,
    "tempo_range": [20, 300],
    "use_pitchdrum_tokens": True,
    "delete_equal_successive_tempo_changes": True,
    "delete_equal_successive_time_sig_changes": True,
    "remove_duplicated_notes": True,
    "use_rests": False,
    "use_chords": False,
    "use_sustain_pedals": False,
    "use_pitch_bends": False,
}


class ScoreTokenizer(MidiTokTokenizer):
    """REMI for scores with any instruments; see the module.

    Args:
        config: options of MidiTok's that differ from `CONFIG`; all of them where a vocabulary comes with them.
        vocabulary: see `MidiTokTokenizer`.
    """

    name = "score"

    def __init__(self, config: dict[str, Any] | None = None, vocabulary: Sequence[str] | None = None) -> None:
        super().__init__("REMI", config if config and vocabulary else CONFIG | (config or {}), vocabulary)
