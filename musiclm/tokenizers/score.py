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
from symusic import Score, TextMeta
from torch import Tensor

from ..errors import TokenizerError
from ..midi.chords import NO_CHORD
from . import score_plan
from .base import Tokenizer, from_begins
from .features import plan as plan_features
from .features import score as score_features
from .features import score_arrays
from .miditok import MidiTokTokenizer
from .vocabulary import Kind, ids_of

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


SIZES = (1, 2, 4, 8)  # bars of a masked span of `score-infill`
INFILL_TOKENS = ("Ahead_None", *(f"Write_{size}" for size in SIZES))
LEAD = 512  # ids in front of a crop that version 2's features are computed from
LONG_LEAD = 2048  # of version 5, for what is not of the plan: bars that are repeated lie further back
WHOLE = 1 << 40  # all ids in front of it
PLAIN = 2  # the last version of features without a plan
PLANNED = 5  # the version whose ids have one


class ScoreTokenizer(MidiTokTokenizer):
    """REMI for scores with any instruments; see the module.

    Versions of its features:
    - 1: none.
    - 2: the position in the bar, the program and its last note, the scale degree, and the ids that would follow if a bar were
      repeated; see `features/score.py`.
    - 5: these and those of the plan. Its ids have the plan of the piece, see `score_plan`; its vocabulary has the special
      tokens of `score-infill` too, so that both have the same ids.

    Args:
        config: options of MidiTok's that differ from `CONFIG`; all of them where a vocabulary comes with them.
        vocabulary: see `MidiTokTokenizer`.
        features: their version.

    Attributes:
        plan: reads and writes plans; None before version 5.
    """

    name = "score"

    def __init__(
        self, config: dict[str, Any] | None = None, vocabulary: Sequence[str] | None = None, features: int = PLANNED
    ) -> None:
        if features not in (1, PLAIN, PLANNED):
            raise TokenizerError(f"the tokenizer '{self.name}' has no features of version {features}")
        self.version = features
        if features == PLANNED:
            self.own_special_tokens = (*INFILL_TOKENS, *score_plan.TOKENS)
        super().__init__("REMI", config if config and vocabulary else CONFIG | (config or {}), vocabulary)
        positions = self.midi_tokenizer.config.max_num_pos_per_beat
        self.plan = score_plan.ScorePlan(self.vocabulary, positions) if features == PLANNED else None
        self.has_plan = self.plan is not None
        if features > 1:
            self._known = score_features.Vocabulary(self.vocabulary, positions)
            self.feature_sizes, self.relative_pitch = self._known.sizes, self._known.relative_pitch
            self.feature_lead = LEAD
        if features == PLANNED:
            self._plan_table = plan_features.PlanTable(self.vocabulary, positions)
            self.feature_sizes += self._plan_table.sizes
            self.feature_lead = WHOLE

    def describe(self) -> dict[str, Any]:
        described = super().describe()
        return described if self.version == 1 else {**described, "features": self.version}

    def encode(self, score: Score) -> tuple[np.ndarray, int]:
        ids, left_out = super().encode(score)
        return (ids if self.plan is None else self.plan.planned(ids, style_of(score))), left_out

    def decode(self, ids: Sequence[int] | np.ndarray) -> Score:
        """See the base class. A style that is known is a marker of the score."""
        if self.plan is None:
            return super().decode(ids)
        ids = np.asarray(ids, np.int64)
        score = super().decode(self.plan.without(ids))
        style = next((self.vocabulary[i].value for i in ids[:8] if self.vocabulary[i].kind == Kind.STYLE), None)
        if style is not None:
            score.markers.append(TextMeta(0, score_plan.STYLE_MARKER + style))
        return score

    def pad_with_silence(self, ids: np.ndarray, quarters: float) -> np.ndarray:
        if self.plan is None:
            return super().pad_with_silence(ids, quarters)
        plain = self.plan.without(ids)
        padded = super().pad_with_silence(plain, quarters)
        bars = padded[len(plain) :].reshape(-1, 2)
        silent = [self.plan.sections["A"], self.plan.repeats[0], *[self.plan.chords[NO_CHORD]] * 2]
        return np.concatenate([ids, *([*bar, *silent] for bar in bars)]).astype(np.int64)

    def without_open_bar(self, ids: np.ndarray, quarters: float) -> np.ndarray:
        if self.plan is None:
            return super().without_open_bar(ids, quarters)
        size = 2 + score_plan.ATTRIBUTES
        is_open = len(ids) >= size and self.kinds[ids[-size]] == "Bar"
        return ids[:-size] if is_open and self.quarters(ids) >= quarters - 1e-6 else ids

    def transposed(self, semitones: int) -> np.ndarray:
        table = super().transposed(semitones)
        if self.plan is not None:
            for chord, i in self.plan.chords.items():
                if chord is not None and chord != NO_CHORD:
                    table[i] = self.plan.chords[(chord[0] + semitones) % 12, chord[1]]
        return table

    def kind_of(self, ids: np.ndarray) -> int:
        return 0 if self.plan is None else self.plan.style_number(ids)

    def with_unknown(self, ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return ids if self.plan is None else self.plan.with_unknown(np.asarray(ids, np.int64), rng)

    def with_header(
        self, ids: np.ndarray, *, style: str | None = None, new_bars: int | None = None, programs: Sequence[int] = ()
    ) -> np.ndarray:
        if self.plan is None:
            return ids
        num_bars = None if new_bars is None else new_bars + sum(self.kinds[i] == "Bar" for i in ids)
        joining = [i for i in ids_of(self.vocabulary, Kind.PROGRAM).tolist() if self.vocabulary[i].value in programs]
        return self.plan.with_header(ids, style=style, bars=num_bars, programs=joining)

    def header_size(self, ids: np.ndarray) -> int:
        is_header = self.plan is not None and len(ids) > 0 and self.vocabulary[ids[0]].kind == Kind.STYLE
        return self.plan.header_size(ids) if self.plan is not None and is_header else 0

    def features(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """See the class. The streaming state is, per batch element, a `ScoreState` and of version 5 a `PlanState`."""
        if self.version == 1:
            return super().features(tokens, state)
        states = [[s.copy() for s in each] for each in state] if state is not None else [self._start() for _ in tokens]
        rows = []
        for each, ids in zip(states, tokens.tolist(), strict=True):
            found = [s.features(ids) for s in each]
            rows.append(found[0] if len(found) == 1 else [(*a, *b) for a, b in zip(*found, strict=True)])
        features = torch.tensor(rows, dtype=torch.int64, device=tokens.device)
        return features.view(*tokens.shape, len(self.feature_sizes)), states

    def _start(self) -> list[Any]:
        start: list[Any] = [score_features.ScoreState(self._known)]
        return [*start, plan_features.PlanState(self._plan_table)] if self.plan is not None else start

    def features_of(self, sequences: Sequence[np.ndarray], begins: Sequence[int] | None = None) -> np.ndarray:
        if self.plan is None or begins is None:
            return super().features_of(sequences, begins)
        starts = [max(0, begin - LONG_LEAD) for begin in begins]
        near = [ids[start:] for ids, start in zip(sequences, starts, strict=True)]
        wanted = from_begins([len(ids) for ids in near], [b - start for b, start in zip(begins, starts, strict=True)])
        of_plan = [
            plan_features.features_of(self._plan_table, ids)[begin:]
            for ids, begin in zip(sequences, begins, strict=True)
        ]
        return np.concatenate([score_arrays.features_of(self._known, near)[wanted], np.concatenate(of_plan)], 1)

    def all_features_of(self, sequences: Sequence[np.ndarray]) -> np.ndarray:
        if self.version == 1:
            return super().all_features_of(sequences)
        found = score_arrays.features_of(self._known, sequences)
        if self.plan is None:
            return found
        of_plan = [plan_features.features_of(self._plan_table, ids) for ids in sequences]
        return np.concatenate([found, np.concatenate(of_plan)], 1)

    @property
    def mergeable(self) -> Tokenizer:
        return self if self.version == 1 else type(self)(self.config, self.miditok_vocabulary, features=1)

    def trained_bpe(self, sequences: Iterable[np.ndarray], num_merges: int) -> Tokenizer:
        """See the base class. Merged ids have neither a plan nor input features."""
        if self.version == 1:
            return super().trained_bpe(sequences, num_merges)
        if self.plan is not None:
            sequences = map(self.plan.without, sequences)
        return self.mergeable.trained_bpe(sequences, num_merges)


def style_of(score: Score) -> str | None:
    """Return the style that a marker of a score names; None for none that is known."""
    names = (
        m.text.removeprefix(score_plan.STYLE_MARKER)
        for m in score.markers
        if m.text.startswith(score_plan.STYLE_MARKER)
    )
    return next((name for name in names if name in score_plan.STYLES), None)
