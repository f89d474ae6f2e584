"""The base class of tokenizers made with MidiTok (Fradet et al. 2021): one stream of ids with programs for a whole score.

Its tokens are MidiTok's: Bar, TimeSig, Position, Tempo, Program, Pitch, Velocity, Duration and others.
"""

from __future__ import annotations

import gc
import inspect
import warnings
from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import cached_property
from importlib.metadata import version
from typing import Any

import miditok
import numpy as np
import torch
from symusic import Score
from torch import Tensor

from .. import midi
from ..errors import MidiError, TokenizerError
from .base import TICKS, Tokenizer
from .vocabulary import Kind, Token, Vocabulary, has, is_kind

KINDS = {  # of MidiTok's names; the last seven are of `score`
    "PAD": Kind.PAD, "BOS": Kind.BOS, "EOS": Kind.EOS, "MASK": Kind.MASK, "Bar": Kind.BAR, "Beat": Kind.BEAT,
    "Position": Kind.POSITION, "TimeShift": Kind.TIME_SHIFT, "Rest": Kind.REST, "TimeSig": Kind.TIME_SIGNATURE,
    "Tempo": Kind.TEMPO, "Program": Kind.PROGRAM, "Track": Kind.TRACK, "Pitch": Kind.NOTE_ON, "PitchDrum": Kind.DRUM_ON,
    "NoteOn": Kind.NOTE_ON, "DrumOn": Kind.DRUM_ON, "NoteOff": Kind.NOTE_OFF, "DrumOff": Kind.DRUM_OFF,
    "Velocity": Kind.VELOCITY, "Duration": Kind.DURATION, "MicroTiming": Kind.MICRO_TIMING, "Pattern": Kind.PATTERN,
    "PitchIntervalTime": Kind.PITCH_INTERVAL, "PitchIntervalChord": Kind.PITCH_INTERVAL,
    "Ahead": Kind.INFILL_CONTEXT, "Write": Kind.INFILL_SPAN,
    "Style": Kind.STYLE, "Length": Kind.LENGTH, "Section": Kind.SECTION, "Repeat": Kind.REPEAT, "Chord": Kind.CHORD,
}  # fmt: skip
OF_PATTERNS = {
    "Pitch": Kind.PITCH,
    "PitchDrum": Kind.DRUM_PITCH,
}  # BEAT's pitches: a note begins where a pattern says so
ADDITIONAL = (  # options of MidiTok besides the arguments of TokenizerConfig
    "base_tokenizer",
    "max_bar_embedding",
    "max_duration",
    "max_microtiming_shift",
    "num_microtiming_bins",
    "ticks_per_quarter",
    "use_microtiming",
    "use_position_toks",
)


class MidiTokTokenizer(Tokenizer):
    """A MidiTok tokenizer with one vocabulary and one stream.

    Args:
        tokenization: MidiTok's name of the class, "REMI" for one.
        config: what MidiTok's `TokenizerConfig` takes, as JSON.
        vocabulary: MidiTok's tokens by id that a checkpoint was trained with; MidiTok has to make the same ones.

    Attributes:
        miditok_vocabulary: MidiTok's tokens by id, without `own_special_tokens`.
        kinds: of each id what stands before the underscore of its token, MidiTok's name of the kind.
        values: of each id what stands after it.

    Raises:
        TokenizerError: MidiTok does not take this configuration, or it makes more than one stream.
    """

    own_special_tokens: tuple[str, ...] = ()  # after MidiTok's vocabulary

    def __init__(self, tokenization: str, config: dict[str, Any], vocabulary: Sequence[str] | None = None) -> None:
        self.tokenization, self.config = tokenization, config
        if not hasattr(self, "name"):
            self.name = tokenization
        self.midi_tokenizer = _made(self.name, tokenization, config)
        by_id = sorted(self.midi_tokenizer.vocab.items(), key=lambda item: item[1])
        self.miditok_vocabulary = [token for token, _ in by_id]
        if vocabulary is not None and list(vocabulary) != self.miditok_vocabulary:
            raise TokenizerError(
                f"tokenizer '{self.name}': MidiTok {version('miditok')} makes another vocabulary than the one it was "
                "trained with: install the version in constraints.txt"
            )
        tokens = [*self.miditok_vocabulary, *self.own_special_tokens]
        self.vocab_size = len(tokens)
        self.bos, self.eos = self.midi_tokenizer["BOS_None"], self.midi_tokenizer["EOS_None"]
        self.kinds = [token.split("_")[0] for token in tokens]
        self.values = [token.split("_", 1)[1] for token in tokens]
        self.says_durations = has(self.vocabulary, Kind.DURATION)
        self._num_notes = np.array([_num_notes(token) for token in self.vocabulary])
        self._signs = {token.value for token in self.vocabulary if token.kind == Kind.TIME_SIGNATURE}
        self._clock = _Clock(self)

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "config": self.config, "vocabulary": self.miditok_vocabulary}

    @cached_property
    def vocabulary(self) -> Vocabulary:
        kinds = KINDS | OF_PATTERNS if "Pattern" in self.kinds else KINDS
        return [_token(kinds.get(k, Kind.OTHER), k, v) for k, v in zip(self.kinds, self.values, strict=True)]

    def exempt_from_temperature(self, features: Tensor | None) -> Tensor:
        """See the base: all ids but pitches, drums not counted.

        Lower temperatures of all ids leave few instruments, few note lengths, and drums alone.
        """
        return self._exempt if features is None else self._exempt.to(features.device)

    @cached_property
    def _exempt(self) -> Tensor:
        return torch.from_numpy(~is_kind(self.vocabulary, Kind.NOTE_ON, Kind.PITCH, Kind.PITCH_INTERVAL))

    def encode(self, score: Score) -> tuple[np.ndarray, int]:
        score = score.copy()
        # MidiTok orders notes of one position by track: the same music has to come in the same order again
        score.tracks = type(score.tracks)(sorted(score.tracks, key=lambda t: (t.is_drum, t.program)))
        midi.fill_bars(score, self._signs)  # MidiTok would delay the change to the next bar line
        with _NoCollection():
            sequence = self.midi_tokenizer.encode(score)
        ids = np.asarray(sequence[0].ids if isinstance(sequence, list) else sequence.ids, dtype=np.int64)
        num_kept = int(self._num_notes[ids].sum())
        if num_kept == 0:
            raise MidiError(f"no note that the tokenizer '{self.name}' can express")
        return np.concatenate([[self.bos], ids, [self.eos]]), max(0, score.note_num() - num_kept)

    def num_notes(self, ids: np.ndarray) -> int:
        """Return how many notes begin in some ids."""
        return int(self._num_notes[ids].sum())

    def decode(self, ids: Sequence[int] | np.ndarray) -> Score:
        ids = np.asarray(ids, dtype=np.int64)
        music = ids[~self._is_special[ids]].tolist()
        if "NoteOff" in self.kinds:
            if music and "Velocity" in self.kinds and self.kinds[music[-1]] in ("NoteOn", "DrumOn"):
                music.pop()  # a note without its velocity is incomplete
            ends = self._ends(music)
            latest = max((n for n, i in enumerate(music) if self.kinds[i] == "TimeShift"), default=-1)
            if ends and any(self.kinds[i] in ("NoteOn", "DrumOn") for i in music[latest + 1 :]):
                music.append(self.kinds.index("TimeShift"))  # the shortest one, so that no note has length 0
            music += ends
        return self.midi_tokenizer.decode(music).resample(TICKS) if music else Score(TICKS)

    def _ends(self, ids: list[int]) -> list[int]:
        """Return the ids that end the notes that still sound, each with its program: MidiTok drops a note without an end."""
        program, sounding = -1, dict[tuple[int, int], int]()
        for i in ids:
            kind, value = self.kinds[i], self.values[i]
            if kind == "Program":
                program = i
            elif kind in ("NoteOn", "DrumOn"):
                off = self.midi_tokenizer[f"{kind[:-2]}Off_{value}"]
                sounding[program, off] = sounding.get((program, off), 0) + 1
            elif kind in ("NoteOff", "DrumOff"):
                sounding[program, i] = max(0, sounding.get((program, i), 0) - 1)
        ends: list[int] = []
        for (program, off), number in sounding.items():
            for _ in range(number):
                ends += [program, off] if program >= 0 else [off]
        return ends

    def quarters(self, ids: Sequence[int] | np.ndarray) -> float:
        """See the base class.

        Raises:
            TokenizerError: this tokenizer writes one instrument after the other, so ids are not in order of time.
        """
        self._in_time()
        return self._clock.quarters(np.asarray(ids, dtype=np.int64))

    def pad_with_silence(self, ids: np.ndarray, quarters: float) -> np.ndarray:
        self._in_time()
        if "Bar_None" not in self.midi_tokenizer.vocab:
            return ids
        signature = [i for i in ids if self.kinds[i] == "TimeSig"][-1:]
        silence = [self.midi_tokenizer[t] for t in ("Beat_None", "Rest_None") if t in self.midi_tokenizer.vocab]
        bar = np.array([self.midi_tokenizer["Bar_None"], *signature, *silence])
        while self.quarters(longer := np.concatenate([ids, bar])) <= quarters + 1e-6:
            ids = longer
        return ids

    def without_open_bar(self, ids: np.ndarray, quarters: float) -> np.ndarray:
        if [self.kinds[i] for i in ids[-2:]] == ["Bar", "TimeSig"] and self.quarters(ids) >= quarters - 1e-6:
            return ids[:-2]
        return ids

    def suffix_from_bar(self, ids: np.ndarray, quarters: float) -> tuple[np.ndarray, float]:
        if self.tokenization != "REMI":  # elsewhere notes or silence may reach over a bar line
            return ids, 0.0
        bars, starts = self._clock.bars(ids)
        place = int(np.searchsorted(starts, quarters + 1e-6, side="right")) - 1
        if place < 1:
            return ids, 0.0
        said = [i for i in ids[: bars[place]] if self.kinds[i] == "Program"][-1:]
        return np.concatenate([np.array(said, np.int64), ids[bars[place] :]]), float(starts[place])

    @property
    def is_in_time(self) -> bool:
        return not has(self.vocabulary, Kind.TRACK)

    def bars(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the positions of bars in ids, and their times in quarters, (bars,) each."""
        return self._clock.bars(ids)

    def _in_time(self) -> None:
        if not self.is_in_time:
            raise TokenizerError(
                f"the tokenizer '{self.name}' writes one instrument after the other: its music cannot be continued or "
                "measured on the way; generate without a prompt and with --tokens"
            )

    def unexpressed(self, score: Score) -> list[str]:
        signs = {(t.numerator, t.denominator) for t in score.time_signatures}
        lost = {f"{numerator}/{denominator}" for numerator, denominator in signs - (self._signs or {(4, 4)})}
        read_as = "the time signature before it, or 4/4" if self._signs else "4/4"
        return [f"'{self.name}' has no {sign}: bars of it are read as {read_as}" for sign in sorted(lost)]

    def transposed(self, semitones: int) -> np.ndarray:
        table = np.arange(self.vocab_size)
        for i, (kind, value) in enumerate(zip(self.kinds, self.values, strict=True)):
            if kind in ("Pitch", "NoteOn", "NoteOff"):
                table[i] = self.midi_tokenizer.vocab.get(f"{kind}_{int(value) + semitones}", -1)
        return table

    def faster(self, steps: int) -> np.ndarray:
        return self._shifted("Tempo", steps)

    def louder(self, steps: int) -> np.ndarray:
        return self._shifted("Velocity", steps)

    def _shifted(self, kind: str, steps: int) -> np.ndarray:
        """Return the table that moves ids of a kind by steps in the order of their values; -1 beyond the last."""
        table = np.arange(self.vocab_size)
        ids = sorted((i for i, k in enumerate(self.kinds) if k == kind), key=lambda i: float(self.values[i]))
        for place, i in enumerate(ids):
            table[i] = ids[place + steps] if 0 <= place + steps < len(ids) else -1
        return table

    def trained_bpe(self, sequences: Iterable[np.ndarray], num_merges: int) -> Tokenizer:
        from .bpe import learn_merges

        return learn_merges(self, sequences, num_merges)


class _Clock:
    """Musical time of ids, from a table of the time that each id takes."""

    def __init__(self, tokenizer: MidiTokTokenizer) -> None:
        table, config = tokenizer.vocabulary, tokenizer.midi_tokenizer.config
        is_pertok = tokenizer.tokenization == "PerTok"
        positions_a_beat = config.additional_params["ticks_per_quarter"] if is_pertok else config.max_num_pos_per_beat
        self._begun = is_pertok  # its Bar ends a bar, all others' begins one
        self._is_bar, self._is_beat, self._is_position, self._is_signature = (
            is_kind(table, kind) for kind in (Kind.BAR, Kind.BEAT, Kind.POSITION, Kind.TIME_SIGNATURE)
        )
        self._is_shift = is_kind(table, Kind.TIME_SHIFT, Kind.REST)
        self._beats = np.zeros(len(table))  # from the bar line to a position, or the length of a shift
        self._lengths = np.tile([1.0, 4.0], (len(table), 1))  # quarters per beat and per bar
        for i, (kind, value) in enumerate(table):
            if kind == Kind.TIME_SIGNATURE:
                numerator, denominator = value
                self._lengths[i] = 4 / denominator, 4 * numerator / denominator
            elif kind == Kind.POSITION:
                self._beats[i] = value / positions_a_beat
            elif self._is_shift[i] and value is not None:  # BEAT's rest fills a beat that is counted already
                self._beats[i] = value // 1 + float(value % 1)

    def bars(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the positions of bars in ids, and their times in quarters; a bar has the length of its time signature."""
        bars = np.flatnonzero(self._is_bar[ids])
        signatures = np.flatnonzero(self._is_signature[ids])
        lengths = np.concatenate([[4.0], self._lengths[ids[signatures], 1]])[np.searchsorted(signatures, bars[1:])]
        return bars, np.concatenate([[0.0], np.cumsum(lengths)])[: len(bars)]

    def quarters(self, ids: np.ndarray) -> float:
        """Return the time, in quarters, at which the next note may begin."""
        signatures = np.flatnonzero(self._is_signature[ids])
        lengths = np.concatenate([[[1.0, 4.0]], self._lengths[ids[signatures]]])
        bars = np.flatnonzero(self._is_bar[ids])
        ended = bars if self._begun else bars[1:]
        bar_start = float(lengths[np.searchsorted(signatures, ended), 1].sum())
        first = int(bars[-1]) if len(bars) else 0
        within = ids[first:]
        beat = lengths[np.searchsorted(signatures, np.arange(first, len(ids))), 0]
        beats = np.where(self._is_shift[within], self._beats[within], 0.0)
        positions = np.flatnonzero(self._is_position[within])
        if len(positions):
            beats[: positions[-1]] = 0.0
            beats[positions[-1]] = self._beats[within[positions[-1]]]
        started = np.flatnonzero(self._is_beat[within])
        beats[started[1:]] = 1.0
        return bar_start + float((beats * beat).sum())


class _NoCollection:
    """Disables the garbage collector: MidiTok makes several objects per token, and no reference cycles."""

    def __enter__(self) -> None:
        self._was_enabled = gc.isenabled()
        gc.disable()

    def __exit__(self, *_: object) -> None:
        if self._was_enabled:
            gc.enable()


def _token(kind: Kind, name: str, text: str) -> Token:
    """Return a token of MidiTok's, given its kind and the text before and after its underscore."""
    if text in ("None", "unknown"):
        return Token(kind)
    if kind in (Kind.STYLE, Kind.SECTION):
        return Token(kind, text)
    if kind == Kind.CHORD:
        root, quality = text.split(":")
        return Token(kind, (int(root), quality))
    if kind in (Kind.OTHER, Kind.BAR, Kind.TRACK):
        return Token(kind, f"{name}_{text}" if kind == Kind.OTHER else text)
    if kind == Kind.TIME_SIGNATURE:
        numerator, denominator = map(int, text.split("/"))
        return Token(kind, (numerator, denominator))
    if kind == Kind.TEMPO:
        return Token(kind, float(text))
    if kind in (Kind.TIME_SHIFT, Kind.REST, Kind.DURATION):
        beats, part, parts_per_beat = map(int, text.split("."))
        return Token(kind, beats + Fraction(part, parts_per_beat))
    if kind == Kind.PATTERN:  # of BEAT: four steps in base 3, 1 for an onset
        return Token(kind, np.base_repr(int(text), 3).count("1"))
    return Token(kind, int(text))


def _num_notes(token: Token) -> int:
    """Return how many notes a token begins."""
    if token.kind == Kind.PATTERN:
        return int(token.value)
    return int(token.kind in (Kind.NOTE_ON, Kind.DRUM_ON, Kind.PITCH_INTERVAL))


def _made(name: str, tokenization: str, config: dict[str, Any]) -> Any:
    """Return MidiTok's own tokenizer."""
    known = {*inspect.signature(miditok.TokenizerConfig).parameters, *ADDITIONAL}
    unknown = sorted(set(config) - known)
    if unknown:
        raise TokenizerError(f"tokenizer '{name}': MidiTok has no option {', '.join(map(repr, unknown))}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns at each start of options that a tokenizer switches off
            made = getattr(miditok, tokenization)(miditok.TokenizerConfig(**_from_json(config)))
    except (AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError, IndexError) as error:
        raise TokenizerError(f"tokenizer '{name}': MidiTok does not take these options: {error}") from error
    if made.is_multi_voc or not made.one_token_stream:
        raise TokenizerError(
            f"tokenizer '{name}': these options make several streams of ids per score; only one can be used"
        )
    if not {"BOS_None", "EOS_None"} <= set(made.vocab):
        raise TokenizerError(f"tokenizer '{name}': special_tokens must hold BOS and EOS")
    return made


def _from_json(config: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `TokenizerConfig`: JSON has no numbers as keys, no tuples, and no order of keys.

    MidiTok's vocabulary comes in the order of these dictionaries, and a checkpoint's JSON is sorted by text.
    """
    arguments = dict(config)
    for key in ("beat_res", "beat_res_rest"):
        if key in arguments:
            arguments[key] = dict(sorted((tuple(map(int, k.split("_"))), v) for k, v in arguments[key].items()))
    if "time_signature_range" in arguments:
        arguments["time_signature_range"] = dict(
            sorted((int(k), v) for k, v in arguments["time_signature_range"].items())
        )
    for key in ("pitch_range", "drums_pitch_range", "tempo_range"):
        if key in arguments:
            arguments[key] = tuple(arguments[key])
    return arguments
