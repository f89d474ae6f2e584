"""Pairs of given and missing parts of a score, for sequence-to-sequence models: `score-pairs`.

    BOS source EOS BOS target EOS  BOS source EOS BOS target EOS  …     all pairs of a piece, see `midi.parts`

Each side is a piece of `score` by itself, with the same ids, and with header and attributes of bars. Both sides of a pair
have the same bars, so that the number of the bar, one more input feature, says which bars of the source a bar of the target
goes with. Their chords are alike: those of the whole piece where the source is its melody, else those of the source, which
are known before the target is written.

T tokens, M bars, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from symusic import Score

from .. import midi
from ..errors import MidiError, TokenizerError
from ..midi import parts
from . import score_plan
from .base import TICKS, Tokenizer, from_begins
from .score import PLANNED, ScoreTokenizer, style_of
from .score_notes import NoteReader
from .vocabulary import BEGINS, Kind, is_kind

POSITION = 1  # the feature of `score` that is the position in the bar, 12 a beat
PERIOD = 64  # bars after which the number of the bar, as a feature, begins again


class Pair(NamedTuple):
    """The two sides of a pair, each from its BOS on, (T,) int64. A target that has not begun has no ids."""

    source: np.ndarray
    target: np.ndarray


class ScorePairs(ScoreTokenizer):
    """Pairs of parts of a score; see the module.

    What describes a piece by its ids (`quarters`, `pad_with_silence`, `features`) treats each side by itself: a BOS begins
    anew. Ids of one side alone, as models generate them, are those of a target.

    Args:
        config: see `ScoreTokenizer`.
        vocabulary: see `MidiTokTokenizer`; without special tokens of `score`.
        features: only version 5.
        pairs: one of `midi.parts.PAIRS_VERSIONS`.

    Raises:
        TokenizerError: another version of features or pairs.
    """

    name = "score-pairs"
    is_paired = True
    plan: score_plan.ScorePlan

    def __init__(
        self,
        config: dict[str, Any] | None = None,
        vocabulary: Sequence[str] | None = None,
        features: int = PLANNED,
        pairs: int = parts.PAIRS_VERSION,
    ) -> None:
        if features != PLANNED:
            raise TokenizerError(f"the tokenizer '{self.name}' has no features of version {features}")
        if pairs not in parts.PAIRS_VERSIONS:
            raise TokenizerError(
                f"pairs of version {pairs} of the tokenizer '{self.name}', but this musiclm makes those of version "
                f"{parts.PAIRS_VERSION}: build the corpus and train the model again"
            )
        self._version = pairs
        super().__init__(config, vocabulary, features)
        self.feature_sizes = (*self.feature_sizes, PERIOD + 1)
        self.aligned_features = {POSITION: 1 / 12, len(self.feature_sizes) - 1: 1.0}  # a beat, and a bar
        table = self.vocabulary
        self._is_bar, self._is_chord, self._is_program = (
            is_kind(table, kind) for kind in (Kind.BAR, Kind.CHORD, Kind.PROGRAM)
        )
        self._begins_note = is_kind(table, *BEGINS)
        self._reader = NoteReader(table)

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "pairs": self._version}

    def encode(self, score: Score) -> tuple[np.ndarray, int]:
        """See the base class and the module.

        Raises:
            MidiError: there is no pair of parts in the score, or no note can be expressed.
        """
        plain, left_out = self._encode_plain(score)
        found = (
            self._pair(kind, source, target, plain, style_of(score))
            for kind, source, target in parts.extract_pairs(score, self._version)
        )
        pairs = [pair for pair in found if pair is not None]
        if not pairs:
            raise MidiError(
                "no two parts that can be a pair: a melody, drums, bass, … and other notes in the same bars"
            )
        return np.concatenate([side for pair in pairs for side in pair]), left_out

    def _pair(self, kind: str, source: Score, target: Score, plain: np.ndarray, style: str | None) -> Pair | None:
        """Return the ids of a pair; None where a bar has another length there than in the piece.

        Args:
            kind: of the pair. Where the melody is the source the chords are those of the whole piece, else the source's.
            source: the given notes of the piece.
            target: its other notes.
            plain: ids of the whole piece without a plan.
            style: of the piece; where the pair is of two styles, of the target.
        """
        sides = self._same_bars(Pair(self._encode_plain(source)[0], self._encode_plain(target)[0]), plain)
        styles = (None if kind == "style" else style, style)
        return None if sides is None else self._with_plan(sides, plain if kind == "melody" else sides.source, styles)

    def _encode_plain(self, score: Score) -> tuple[np.ndarray, int]:
        """Return the ids of a score without a plan, and the number of notes left out."""
        return super(ScoreTokenizer, self).encode(score)

    def _same_bars(self, sides: Pair, whole: np.ndarray) -> Pair | None:
        """Return ids of parts of a piece, padded with silence to all its bars; None where a bar has another length there."""
        bars = np.flatnonzero(self._is_bar[whole])
        lines = np.column_stack([whole[bars], whole[bars + 1]])  # each with its time signature
        padded = []
        for ids in sides:
            own = np.flatnonzero(self._is_bar[ids])
            if len(own) > len(lines) or (ids[own + 1] != lines[: len(own), 1]).any():
                return None
            padded.append(np.concatenate([ids[:-1], lines[len(own) :].ravel(), ids[-1:]]))
        return Pair(*padded)

    def _with_plan(self, pair: Pair, harmony: np.ndarray, styles: tuple[str | None, str | None]) -> Pair:
        """Return both sides with their plans and styles; the chords of both are those of some ids of the same bars."""
        chords = self.plan.attributes(harmony)[:, 2:].ravel()
        sides = []
        for plain, style in zip(pair, styles, strict=True):
            ids = self.plan.planned(plain, style)
            ids[self._is_chord[ids]] = chords
            sides.append(ids)
        return Pair(*sides)

    def split(self, ids: np.ndarray) -> list[Pair]:
        """Return the pairs in ids; the last may have an unfinished target, or none of its ids."""
        sides = self._sides(np.asarray(ids, np.int64))
        sides += [np.zeros(0, np.int64)] * (len(sides) % 2)
        return [Pair(*pair) for pair in zip(sides[::2], sides[1::2], strict=True)]

    def _sides(self, ids: np.ndarray) -> list[np.ndarray]:
        """Return the sides in ids, each from its BOS on; ids in front of the first BOS belong to the first."""
        begins = np.flatnonzero(ids == self.bos)
        return np.split(ids, begins[begins > 0]) if len(ids) else []

    def last_side(self, ids: np.ndarray) -> np.ndarray:
        """Return the ids from the last BOS on."""
        ids = np.asarray(ids, np.int64)
        begins = np.flatnonzero(ids == self.bos)
        return ids[begins[-1] :] if len(begins) else ids

    def decode(self, ids: Sequence[int] | np.ndarray) -> Score:
        """Return the score of the first pair: the tracks of its source, then those of its target."""
        scores = [super(ScorePairs, self).decode(side) for side in self._sides(np.asarray(ids, np.int64))[:2]]
        if len(scores) < 2:
            return scores[0] if scores else Score(TICKS)
        source, target = sorted(scores, key=midi.end, reverse=True)  # the longer one has all tempi
        for name in ("tempos", "time_signatures"):
            of_both = {event.time: event for event in [*getattr(target, name), *getattr(source, name)]}
            events = getattr(scores[0], name)
            setattr(scores[0], name, type(events)([of_both[time] for time in sorted(of_both)]))
        scores[0].tracks.extend(scores[1].tracks)
        return scores[0]

    def eval_mask(self, ids: np.ndarray) -> np.ndarray:
        """See the base class; only ids of targets count."""
        ids = np.asarray(ids, np.int64)
        counted, begun = super().eval_mask(ids), np.cumsum(ids == self.bos)
        return counted if len(begun) == 0 or begun[-1] < 2 else counted & (begun % 2 == 0)

    def quarters(self, ids: Sequence[int] | np.ndarray) -> float:
        return super().quarters(self.last_side(np.asarray(ids, np.int64)))

    def pad_with_silence(self, ids: np.ndarray, quarters: float) -> np.ndarray:
        side = self.last_side(ids)
        return np.concatenate([ids[: len(ids) - len(side)], super().pad_with_silence(side, quarters)])

    def with_header(
        self, ids: np.ndarray, *, style: str | None = None, new_bars: int | None = None, programs: Sequence[int] = ()
    ) -> np.ndarray:
        side = self.last_side(ids)
        longer = super().with_header(side, style=style, new_bars=new_bars, programs=programs)
        return np.concatenate([ids[: len(ids) - len(side)], longer])

    def with_unknown(self, ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """See the base class; what is unknown differs between the sides."""
        sides = self._sides(np.asarray(ids, np.int64))
        return np.concatenate([super(ScorePairs, self).with_unknown(side, rng) for side in sides]) if sides else ids

    def bar_starts(self, side: np.ndarray) -> np.ndarray:
        """Return the position of each bar in the ids of a side, and the end of the last, (M + 1,)."""
        end = len(side) - int(len(side) > 0 and side[-1] == self.eos)
        return np.append(np.flatnonzero(self._is_bar[side]), end)

    def crop(self, side: np.ndarray, starts: np.ndarray, first: int, stop: int) -> np.ndarray:
        """Return some bars of a side as a piece by themselves, (T',): with BOS and a header, and EOS if they are the last.

        The header is that of the piece, but its length is the number of bars from `first` to the end of the piece. There are
        at most `starts[0]` + 4 ids besides those of the bars.

        Args:
            side: whole, (T,).
            starts: see `bar_starts`.
            first: bar of the side.
            stop: the bar after the last.
        """
        num_bars = len(starts) - 1
        bars = side[starts[first] : starts[stop]]
        notes, said = np.flatnonzero(self._begins_note[bars]), np.flatnonzero(self._is_program[bars])
        if len(notes) and (not len(said) or said[0] > notes[0]):  # its program was said before
            program = self._reader.program_before(side, int(starts[first]), int(starts[0]))
            bars = np.insert(bars, notes[0], program) if program >= 0 else bars
        header = self.plan.header_from(side, starts, first, num_bars)
        return np.concatenate([header, bars, side[starts[-1] :] if stop == num_bars else []]).astype(np.int64)

    def bars_between(self, ids: np.ndarray, first: int, stop: int) -> np.ndarray:
        """Return some bars of all pairs of a piece as a piece by themselves, (T',); without pairs that have no notes there.

        Args:
            ids: of the piece.
            first: bar.
            stop: the bar after the last; bars behind the end of the piece are left out.

        Raises:
            MidiError: no pair has notes there on both sides.
        """
        found = []
        for pair in self.split(ids):
            sides = []
            for side in pair:
                starts = self.bar_starts(side)
                last = min(stop, len(starts) - 1)
                if first < last:
                    bars = self.plan.with_header(self.crop(side, starts, first, last), bars=last - first)
                    sides.append(bars if bars[-1] == self.eos else np.append(bars, self.eos))
            if len(sides) == 2 and all(self._begins_note[side].any() for side in sides):
                found += sides
        if not found:
            raise MidiError(f"no pair with notes on both sides in bars {first + 1} to {stop}")
        return np.concatenate(found)

    def _start(self) -> list[Any]:
        return [_SideState(super()._start, self.bos, self._is_bar.tolist())]

    def features_of(self, sequences: Sequence[np.ndarray], begins: Sequence[int] | None = None) -> np.ndarray:
        if begins is None:
            return self.all_features_of(sequences)
        near, wanted = [], []
        for ids, begin in zip(sequences, begins, strict=True):  # what lies before the side at `begin` has no part in it
            start = int(np.flatnonzero(np.append(True, ids[1 : begin + 1] == self.bos))[-1]) if len(ids) else 0
            near.append(ids[start:])
            wanted.append(begin - start)
        return self.all_features_of(near)[from_begins([len(ids) for ids in near], wanted)]

    def all_features_of(self, sequences: Sequence[np.ndarray]) -> np.ndarray:
        sides = [side for ids in sequences for side in self._sides(np.asarray(ids, np.int64))]
        if not sides:
            return np.zeros((0, len(self.feature_sizes)), np.int64)
        bars = np.concatenate([np.cumsum(self._is_bar[side]) for side in sides])
        return np.column_stack([super().all_features_of(sides), _number_of(bars)])

    @property
    def mergeable(self) -> Tokenizer:
        return self

    def trained_bpe(self, sequences: Any, num_merges: int) -> Tokenizer:
        raise TokenizerError(f"the tokenizer '{self.name}' cannot be given a BPE vocabulary: take 'score'")


def _number_of(bars: Any) -> Any:
    """Return the number of the bar as a feature: 0 before the first, then 1 … `PERIOD` again and again."""
    return np.where(bars > 0, 1 + (bars - 1) % PERIOD, 0)


class _SideState:
    """Streaming state of the features of the side that is being read: the states of `score`, and the number of bars.

    Args:
        start: returns new states of `score`.
        bos: the id that begins a side.
        is_bar: of each id whether it begins a bar.
    """

    def __init__(self, start: Callable[[], list[Any]], bos: int, is_bar: list[bool]) -> None:
        self._start, self._bos, self._is_bar = start, bos, is_bar
        self._states, self._bars = start(), 0

    def copy(self) -> _SideState:
        """Return a state of its own memory."""
        copy = _SideState.__new__(_SideState)
        copy._start, copy._bos, copy._is_bar = self._start, self._bos, self._is_bar
        copy._states, copy._bars = [state.copy() for state in self._states], self._bars
        return copy

    def features(self, ids: Sequence[int]) -> list[tuple[int, ...]]:
        """Return the features after each id, and advance the state past the last."""
        found = []
        for i in ids:
            if i == self._bos:
                self._states, self._bars = self._start(), 0
            self._bars += self._is_bar[i]
            of_score = [value for state in self._states for value in state.features([i])[0]]
            found.append((*of_score, 1 + (self._bars - 1) % PERIOD if self._bars else 0))
        return found
