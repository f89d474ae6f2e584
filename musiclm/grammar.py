"""Rules made from a tokenizer: what may follow what, so that every sample is music that can be played and written.

B batch, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .sampling import Rule
from .tokens._miditok import MidiTokTokenizer
from .tokens.base import Tokenizer
from .tokens.score import ScoreTokenizer


def rules(tokenizer: Tokenizer, *, not_before: float = 0.0) -> list[Rule]:
    """Return the rules that keep a tokenizer's ids playable and the music going on.

    Args:
        tokenizer: any.
        not_before: no new note may begin before this time, in quarters; only `score` can lie before the prompt's end.
    """
    if isinstance(tokenizer, ScoreTokenizer):
        return [ScoreGrammar(tokenizer, not_before)]
    if isinstance(tokenizer, MidiTokTokenizer):
        return [TypeGraph(tokenizer)]
    return [Never(tokenizer.vocab_size, [tokenizer.bos, tokenizer.eos])]


class Never:
    """Some ids never come."""

    def __init__(self, vocab_size: int, ids: Sequence[int]) -> None:
        self._opinion = torch.zeros(1, vocab_size)
        self._opinion[0, list(ids)] = float("-inf")

    def start(self, batch: int) -> None:
        return None

    def allow(self, state: None) -> Tensor:
        return self._opinion

    def step(self, state: None, token: Tensor) -> None:
        return None


class TypeGraph:
    """A kind of token follows a kind of token as MidiTok says; marks never come. The state is each row's last id."""

    def __init__(self, tokenizer: MidiTokTokenizer) -> None:
        kinds = np.array(tokenizer.kinds)
        graph = tokenizer.midi_tokenizer.tokens_types_graph
        marks = np.isin(kinds, ["PAD", "BOS", "EOS", "MASK"])
        self._opinions = torch.full((len(kinds), len(kinds)), float("-inf"))
        for kind in set(kinds.tolist()):
            following = np.isin(kinds, list(graph.get(kind, ()))) & ~marks
            if not following.any():
                following = ~marks
            opinion = torch.from_numpy(np.where(following, 0.0, -np.inf)).float()
            self._opinions[torch.from_numpy(np.flatnonzero(kinds == kind))] = opinion

    def start(self, batch: int) -> Tensor:
        return torch.zeros(batch, dtype=torch.int64)

    def allow(self, state: Tensor) -> Tensor:
        return self._opinions[state]

    def step(self, state: Tensor, token: Tensor) -> Tensor:
        return token.cpu()


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


class ScoreGrammar:
    """What MidiTok's REMI would itself write, and nothing else.

    Bars have a time signature; positions rise and lie within their bar; a tempo or program is said when it changes; at
    one position notes come by program, drums last, then by pitch, none twice; drums have drum pitches and nothing else has.
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

    def start(self, batch: int) -> list[Place]:
        return [Place()] * batch

    def allow(self, state: list[Place]) -> Tensor:
        opinion = np.full((len(state), len(self._kinds)), -np.inf, np.float32)
        for row, place in zip(opinion, state, strict=True):
            for ids in self._following(place):
                row[ids] = 0
        return torch.from_numpy(opinion)

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

    def step(self, state: list[Place], token: Tensor) -> list[Place]:
        return [self._after(place, int(i)) for place, i in zip(state, token, strict=True)]

    def _after(self, p: Place, i: int) -> Place:
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
