"""What the tokenizers made with MidiTok (Fradet et al. 2021) share: one stream of ids with programs for a whole score.

MidiTok stands in the vocabulary for what happens when: Bar, TimeSig, Position, Tempo, Program, Pitch, Velocity, Duration.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import miditok
import numpy as np
from symusic import Score

from ..errors import MidiError, TokenizerError
from .base import TICKS, Tokenizer


class MidiTokTokenizer(Tokenizer):
    """A MidiTok tokenizer with one vocabulary and one stream.

    Args:
        tokenization: MidiTok's name of the class, "REMI" for one.
        config: what MidiTok's `TokenizerConfig` takes, as JSON.
        vocabulary: the tokens by id that a checkpoint was trained with; MidiTok must give the same ones again.
    """

    def __init__(self, tokenization: str, config: dict[str, Any], vocabulary: Sequence[str] | None = None) -> None:
        self.tokenization, self.config = tokenization, config
        self.midi_tokenizer = getattr(miditok, tokenization)(miditok.TokenizerConfig(**_from_json(config)))
        by_id = sorted(self.midi_tokenizer.vocab.items(), key=lambda item: item[1])
        self.vocabulary = [token for token, _ in by_id]
        if vocabulary is not None and list(vocabulary) != self.vocabulary:
            raise TokenizerError(
                f"tokenizer '{self.name}': MidiTok {version('miditok')} makes another vocabulary than the one it was "
                "trained with: install the version in constraints.txt"
            )
        self.vocab_size = len(self.vocabulary)
        self.bos, self.eos = self.midi_tokenizer["BOS_None"], self.midi_tokenizer["EOS_None"]
        self.kinds = [token.split("_")[0] for token in self.vocabulary]
        self.values = [token.split("_", 1)[1] for token in self.vocabulary]
        self._is_mark = np.array([kind in ("PAD", "BOS", "EOS", "MASK") for kind in self.kinds])

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "config": self.config, "vocabulary": self.vocabulary}

    def encode(self, score: Score) -> tuple[np.ndarray, int]:
        score = score.copy()
        # MidiTok orders notes of one position by track: the same music has to come in the same order again
        score.tracks = type(score.tracks)(sorted(score.tracks, key=lambda t: (t.is_drum, t.program)))
        sequence = self.midi_tokenizer.encode(score)
        ids = np.asarray(sequence[0].ids if isinstance(sequence, list) else sequence.ids, dtype=np.int64)
        num_kept = sum(self.kinds[i] in ("Pitch", "PitchDrum") for i in ids)
        if num_kept == 0:
            raise MidiError(f"no note that the tokenizer '{self.name}' can express")
        return np.concatenate([[self.bos], ids, [self.eos]]), score.note_num() - num_kept

    def decode(self, ids: Sequence[int] | np.ndarray) -> Score:
        music = [int(i) for i in ids if not self._is_mark[i]]
        return self.midi_tokenizer.decode(music).resample(TICKS)

    def quarters(self, ids: Sequence[int] | np.ndarray) -> float:
        config = self.midi_tokenizer.config
        bar_start, beat, bar_length, within = 0.0, 1.0, 4.0, 0.0
        begun = False
        for i in ids:
            kind, value = self.kinds[i], self.values[i]
            if kind == "Bar":
                bar_start, within, begun = bar_start + bar_length * begun, 0.0, True
            elif kind == "TimeSig":
                numerator, denominator = map(int, value.split("/"))
                beat = 4 / denominator
                bar_length = numerator * beat
            elif kind == "Position":
                within = int(value) * beat / config.max_num_pos_per_beat
            elif kind in ("TimeShift", "Rest"):
                beats, fraction, resolution = map(int, value.split("."))
                within += (beats + fraction / resolution) * beat
        return bar_start + within

    def advance(self, ids: np.ndarray, quarters: float) -> np.ndarray:
        if "Bar_None" not in self.midi_tokenizer.vocab:
            return ids
        metre = [i for i in ids if self.kinds[i] == "TimeSig"][-1:]
        bar = np.array([self.midi_tokenizer["Bar_None"], *metre])
        while self.quarters(longer := np.concatenate([ids, bar])) <= quarters + 1e-6:
            ids = longer
        return ids

    def counts(self, ids: np.ndarray) -> np.ndarray:
        return ~self._is_mark[np.asarray(ids)]

    def transposed(self, semitones: int) -> np.ndarray:
        table = np.arange(self.vocab_size)
        for i, (kind, value) in enumerate(zip(self.kinds, self.values, strict=True)):
            if kind == "Pitch":
                table[i] = self.midi_tokenizer.vocab.get(f"Pitch_{int(value) + semitones}", -1)
        return table

    @property
    def tempi(self) -> list[float]:
        return [float(v) for k, v in zip(self.kinds, self.values, strict=True) if k == "Tempo"]


def _from_json(config: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `TokenizerConfig`: JSON has no numbers as keys and no tuples."""
    arguments = dict(config)
    for key in ("beat_res", "beat_res_rest"):
        if key in arguments:
            arguments[key] = {tuple(map(int, k.split("_"))): v for k, v in arguments[key].items()}
    if "time_signature_range" in arguments:
        arguments["time_signature_range"] = {int(k): v for k, v in arguments["time_signature_range"].items()}
    for key in ("pitch_range", "tempo_range"):
        if key in arguments:
            arguments[key] = tuple(arguments[key])
    return arguments
