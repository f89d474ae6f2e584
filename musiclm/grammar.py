"""Rules made from a tokenizer: what may follow what, so that every sample is music that can be played and written.

B batch, V vocabulary.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .sampling import Rule
from .tokens import performance
from .tokens._miditok import MARKS, MidiTokTokenizer
from .tokens.base import Tokenizer
from .tokens.merges import MergedTokenizer
from .tokens.performance import Performance
from .tokens.score import ScoreTokenizer

MAX_PLACES = 4096  # for which `MergedGrammar` keeps what may follow


def rules(tokenizer: Tokenizer, *, not_before: float = 0.0, heard: np.ndarray | None = None) -> list[Rule]:
    """Return the rules that keep a tokenizer's ids playable and the music going on.

    Args:
        tokenizer: any.
        not_before: no new note may begin before this time, in the tokenizer's quarters; `score` and `performance` could
            lie before the prompt's end, the others cannot.
        heard: ids of the prompt, whose instruments, metre and tempi are kept; None for no such rule.
    """
    strange: list[int] = tokenizer.strange_to(heard).tolist() if heard is not None else []
    kept: list[Rule] = [Never(tokenizer.vocab_size, strange)] if strange else []
    return [_grammar(tokenizer, not_before), *kept]


def _grammar(tokenizer: Tokenizer, not_before: float) -> Grammar:
    if isinstance(tokenizer, MergedTokenizer):
        return MergedGrammar(tokenizer, _grammar(tokenizer.base, not_before))
    if isinstance(tokenizer, Performance):
        return PerformanceGrammar(not_before)
    if isinstance(tokenizer, ScoreTokenizer):
        return ScoreGrammar(tokenizer, not_before)
    if isinstance(tokenizer, MidiTokTokenizer):
        return TypeGraph(tokenizer)
    return Never(tokenizer.vocab_size, [tokenizer.bos, tokenizer.eos])


class Grammar(ABC):
    """A rule that knows for one row at a time what may follow, by the place where the row stands.

    Places are immutable and can be compared, so that what follows from one need not be found twice.
    """

    @abstractmethod
    def beginning(self) -> Any:
        """Return the place before the first token."""

    @abstractmethod
    def allowed(self, place: Any) -> np.ndarray:
        """Return which ids may come next, (V,) booleans; not to be written to."""

    @abstractmethod
    def after(self, place: Any, token: int) -> Any:
        """Return the place behind a token."""

    def start(self, batch: int) -> list[Any]:
        return [self.beginning()] * batch

    def allow(self, state: list[Any]) -> Tensor:
        allowed = torch.from_numpy(np.stack([self.allowed(place) for place in state]))
        return torch.zeros(allowed.shape).masked_fill_(~allowed, float("-inf"))

    def step(self, state: list[Any], token: Tensor) -> list[Any]:
        return [self.after(place, i) for place, i in zip(state, token.tolist(), strict=True)]


class Never(Grammar):
    """Some ids never come."""

    def __init__(self, vocab_size: int, ids: Sequence[int]) -> None:
        self._allowed = np.ones(vocab_size, bool)
        self._allowed[list(ids)] = False

    def beginning(self) -> None:
        return None

    def allowed(self, place: None) -> np.ndarray:
        return self._allowed

    def after(self, place: None, token: int) -> None:
        return None


class TypeGraph(Grammar):
    """A kind of token follows a kind of token as MidiTok says; marks never come. The place is the last id's kind."""

    def __init__(self, tokenizer: MidiTokTokenizer) -> None:
        self._kinds = tokenizer.kinds
        kinds = np.array(tokenizer.kinds)
        graph = tokenizer.midi_tokenizer.tokens_types_graph
        marks = np.isin(kinds, MARKS)
        self._following: dict[str, np.ndarray] = {}
        for kind in set(tokenizer.kinds):
            following = np.isin(kinds, list(graph.get(kind, ()))) & ~marks
            self._following[kind] = following if following.any() else ~marks

    def beginning(self) -> str:
        return "BOS"

    def allowed(self, place: str) -> np.ndarray:
        return self._following[place]

    def after(self, place: str, token: int) -> str:
        return self._kinds[token]


class Performing(NamedTuple):
    """Where one row of `performance` ids stands.

    Attributes:
        last: id.
        time: in steps of 10 ms.
        sounding: keys that are down, in the order in which they went.
        first: the place among these of the first that may still end now: ends come in that order.
    """

    last: int = performance.BOS
    time: int = 0
    sounding: tuple[int, ...] = ()
    first: int = 0


class PerformanceGrammar(Grammar):
    """What `performance` would itself write, and nothing else.

    Only sounding keys end and only silent ones begin; at one time ends come first, in the order in which their keys
    began, then beginnings from low to high, each with its velocity; a silence is whole seconds and what is left.

    Args:
        not_before: in quarters; before it there is only silence, and one shift ends behind it.
    """

    def __init__(self, not_before: float = 0.0) -> None:
        self._not_before = math.ceil(not_before * performance.STEPS_A_QUARTER - 1e-6)

    def beginning(self) -> Performing:
        return Performing()

    def allowed(self, place: Performing) -> np.ndarray:
        p, t = place, performance
        allowed = np.zeros(t.VOCAB_SIZE, bool)
        if t.NOTE_ON <= p.last < t.NOTE_OFF:
            allowed[t.VELOCITY : t.TIME_SHIFT] = True
            return allowed
        missing = self._not_before - p.time
        if missing > 0:
            allowed[t.TIME_SHIFT + min(missing, t.LONGEST_SHIFT) - 1 :] = True
            return allowed
        shifted = p.last >= t.TIME_SHIFT
        allowed[t.TIME_SHIFT :] = not shifted or p.last == t.VOCAB_SIZE - 1
        lowest = t.NOTE_ON
        if t.VELOCITY <= p.last < t.TIME_SHIFT:  # keys begin from low to high, and nothing ends any more
            lowest = t.NOTE_ON + p.sounding[-1] + 1
        else:
            allowed[[t.NOTE_OFF + key for key in p.sounding[p.first :]]] = True
        allowed[lowest : t.NOTE_OFF] = True
        allowed[[t.NOTE_ON + key for key in p.sounding]] = False
        return allowed

    def after(self, place: Performing, token: int) -> Performing:
        p, t = place, performance
        if token >= t.TIME_SHIFT:
            return Performing(token, p.time + token - t.TIME_SHIFT + 1, p.sounding, 0)
        if t.NOTE_ON <= token < t.NOTE_OFF:
            return Performing(token, p.time, (*p.sounding, token - t.NOTE_ON), p.first)
        if t.NOTE_OFF <= token < t.VELOCITY and token - t.NOTE_OFF in p.sounding:
            i = p.sounding.index(token - t.NOTE_OFF)
            return Performing(token, p.time, p.sounding[:i] + p.sounding[i + 1 :], i)
        return p._replace(last=token)


class MergedGrammar(Grammar):
    """A merged id may come where all its base ids may, one after the other; the places are the base grammar's.

    The merges are walked as a tree of their base ids, so that what many of them begin with is asked once.
    """

    def __init__(self, tokenizer: MergedTokenizer, grammar: Grammar) -> None:
        self._grammar, self._expansions = grammar, tokenizer.expansions
        self._num_base = tokenizer.base.vocab_size
        self._tree = _Branch()
        for i in range(self._num_base, tokenizer.vocab_size):
            branch = self._tree
            for base_id in self._expansions[i]:
                branch = branch.branches.setdefault(base_id, _Branch())
            branch.ends.append(i)
        self._known: OrderedDict[Any, np.ndarray] = OrderedDict()

    def beginning(self) -> Any:
        return self._grammar.beginning()

    def allowed(self, place: Any) -> np.ndarray:
        if place not in self._known:
            allowed = np.zeros(len(self._expansions), bool)
            self._walk(self._tree, place, allowed)
            self._known[place] = allowed
            if len(self._known) > MAX_PLACES:
                self._known.popitem(last=False)
        return self._known[place]

    def _walk(self, branch: _Branch, place: Any, allowed: np.ndarray) -> None:
        following = self._grammar.allowed(place)
        if branch is self._tree:
            allowed[: self._num_base] = following
        for base_id, next_branch in branch.branches.items():
            if following[base_id]:
                allowed[next_branch.ends] = True
                if next_branch.branches:
                    self._walk(next_branch, self._grammar.after(place, base_id), allowed)

    def after(self, place: Any, token: int) -> Any:
        for base_id in self._expansions[token]:
            place = self._grammar.after(place, base_id)
        return place


class _Branch:
    """The merges that begin with the same base ids: those that end here, and by the next base id the longer ones."""

    def __init__(self) -> None:
        self.ends: list[int] = []
        self.branches: dict[int, _Branch] = {}


class Place(NamedTuple):
    """Where one row of `score` tokens stands.

    Attributes:
        kind: of the last token.
        bar_start: in quarters; of the first bar 0.
        beat: length, in quarters.
        num_positions: in the bar.
        position: in the bar, -1 before the first.
        tempo: id, -1 if none was said yet.
        program: id, -1 if none was said yet.
        order: of the last note at this position: its program's place among programs, drums last; -1 if there is none.
        pitch: id of that note, -1 if there is none.
    """

    kind: str = "BOS"
    bar_start: float = 0.0
    beat: float = 1.0
    num_positions: int = 0
    position: int = -1
    tempo: int = -1
    program: int = -1
    order: int = -1
    pitch: int = -1


class ScoreGrammar(Grammar):
    """What MidiTok's REMI would itself write, and nothing else.

    Bars have a time signature; positions rise and lie within their bar; a tempo or program is said when it changes; at
    one position notes come by program, drums last, then by pitch, none twice; drums have drum pitches, and only they.
    """

    def __init__(self, tokenizer: ScoreTokenizer, not_before: float = 0.0) -> None:
        self._kinds, self._values = tokenizer.kinds, tokenizer.values
        self._positions_a_beat = tokenizer.midi_tokenizer.config.max_num_pos_per_beat
        self._not_before = not_before - 1e-6
        kinds = np.array(self._kinds)
        self._ids = {kind: np.flatnonzero(kinds == kind) for kind in set(self._kinds)}
        programs = sorted(self._ids["Program"].tolist(), key=lambda i: (self._values[i] == "-1", int(self._values[i])))
        self._order = {program: place for place, program in enumerate(programs)}
        self._programs = np.array(programs)
        by_position = sorted(self._ids["Position"].tolist(), key=lambda i: int(self._values[i]))
        self._positions = np.array(by_position)

    def beginning(self) -> Place:
        return Place()

    def allowed(self, place: Place) -> np.ndarray:
        allowed = np.zeros(len(self._kinds), bool)
        for ids in self._following(place):
            allowed[ids] = True
        return allowed

    def _following(self, p: Place) -> list[np.ndarray]:
        """Return the ids that may come next, in pieces."""
        if p.kind == "BOS":
            return [self._ids["Bar"]]
        if p.kind == "Bar":
            return [self._ids["TimeSig"]]
        if p.kind in ("Pitch", "PitchDrum"):
            return [self._ids["Velocity"]]
        if p.kind == "Velocity":
            return [self._ids["Duration"]]
        if p.kind == "Program":
            return [self._pitches(p)]
        if p.kind == "TimeSig" and p.tempo < 0:  # every piece begins with its tempo
            return [self._positions[:1]]
        later = [self._ids["Bar"], self._positions[self._first_position(p) : p.num_positions]]
        if p.kind == "TimeSig":
            return later
        sounding = [] if self._time(p, p.position) < self._not_before else self._notes(p)
        if p.kind == "Position":
            tempi = self._ids["Tempo"]
            return [*sounding, tempi[tempi != p.tempo]] if p.tempo >= 0 else [tempi]
        return later + sounding  # behind a tempo or a note

    def _time(self, p: Place, position: int) -> float:
        return p.bar_start + position * p.beat / self._positions_a_beat

    def _first_position(self, p: Place) -> int:
        """Return the first position of the bar that lies behind the last and not before the new music's beginning."""
        first = p.position + 1
        while first < p.num_positions and self._time(p, first) < self._not_before:
            first += 1
        return first

    def _notes(self, p: Place) -> list[np.ndarray]:
        """Return how another note at this position may begin: with a pitch, or with a program that comes later."""
        change = self._programs[p.order + 1 :] if p.order >= 0 else self._programs
        return [change[change != p.program], self._pitches(p)]

    def _pitches(self, p: Place) -> np.ndarray:
        if p.program < 0:
            return np.array([], np.int64)
        pitches = self._ids["PitchDrum" if self._values[p.program] == "-1" else "Pitch"]
        order = self._order[p.program]
        if order < p.order:
            return np.array([], np.int64)
        return pitches[pitches > p.pitch] if order == p.order else pitches

    def after(self, place: Place, token: int) -> Place:
        p, i = place, token
        kind, value = self._kinds[i], self._values[i]
        if kind == "Bar":
            length = p.num_positions * p.beat / self._positions_a_beat
            return p._replace(kind=kind, bar_start=p.bar_start + length, position=-1, order=-1, pitch=-1)
        if kind == "TimeSig":
            numerator, denominator = map(int, value.split("/"))
            return p._replace(kind=kind, beat=4 / denominator, num_positions=numerator * self._positions_a_beat)
        if kind == "Position":
            return p._replace(kind=kind, position=int(value), order=-1, pitch=-1)
        if kind == "Tempo":
            return p._replace(kind=kind, tempo=i)
        if kind == "Program":
            return p._replace(kind=kind, program=i)
        if kind in ("Pitch", "PitchDrum"):
            return p._replace(kind=kind, order=self._order.get(p.program, -1), pitch=i)
        return p._replace(kind=kind)
