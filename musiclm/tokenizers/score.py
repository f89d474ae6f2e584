"""Any multi-track score as one stream: REMI (Huang and Yang 2020) with programs.

Twelve positions per beat, which keep both sixteenths and triplets; 48 tempi in equal ratios (5.8 % apart); a program token
where the program changes. Notes of one program become one track. It cannot express durations over 32 beats, finer timing,
pedal and other controllers, and lyrics.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import TokenizerError
from .base import Tokenizer
from .features import score as score_features
from .miditok import MidiTokTokenizer

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

    Input features of the next id, from version 2 on: the position in the bar, the program and its last note, the scale
    degree, and the ids that would follow if a bar were repeated; see `features/score.py`.

    Args:
        config: options of MidiTok's that differ from `CONFIG`; all of them where a vocabulary comes with them.
        vocabulary: see `MidiTokTokenizer`.
        features: their version; 1 has none.
    """

    name = "score"

    def __init__(
        self, config: dict[str, Any] | None = None, vocabulary: Sequence[str] | None = None, features: int = 2
    ) -> None:
        if features not in (1, 2):
            raise TokenizerError(f"the tokenizer '{self.name}' has no features of version {features}")
        super().__init__("REMI", config if config and vocabulary else CONFIG | (config or {}), vocabulary)
        self.version = features
        if features == 2:
            positions = self.midi_tokenizer.config.max_num_pos_per_beat
            self._known = score_features.Vocabulary(self.vocabulary, positions)
            self.feature_sizes, self.relative_pitch, self.feature_lead = (
                self._known.sizes,
                self._known.relative_pitch,
                512,
            )

    def describe(self) -> dict[str, Any]:
        described = super().describe()
        return described if self.version == 1 else {**described, "features": self.version}

    def features(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """See the class. The streaming state is one `Scored` per batch element."""
        if self.version == 1:
            return super().features(tokens, state)
        places = (
            [s.copy() for s in state]
            if state is not None
            else [score_features.ScoreState(self._known) for _ in range(len(tokens))]
        )
        rows = [place.features(ids) for place, ids in zip(places, tokens.tolist(), strict=True)]
        features = torch.tensor(rows, dtype=torch.int64, device=tokens.device)
        return features.view(*tokens.shape, len(self.feature_sizes)), places

    def features_of(self, sequences: Sequence[np.ndarray]) -> np.ndarray:
        return (
            score_features.features_of(self._known, sequences) if self.version > 1 else super().features_of(sequences)
        )

    def trained_bpe(self, sequences: Iterable[np.ndarray], num_merges: int) -> Tokenizer:
        """See the base class. Merged ids have no input features."""
        if self.version == 1:
            return super().trained_bpe(sequences, num_merges)
        return type(self)(self.config, self.miditok_vocabulary, features=1).trained_bpe(sequences, num_merges)
