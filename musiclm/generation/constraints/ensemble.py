"""The ensemble: each instrument that is due enters in time and goes on.

V vocabulary.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ...tokenizers.miditok import MidiTokTokenizer
from ...tokenizers.vocabulary import Kind, Vocabulary, find, has, ids_of, is_kind
from ..controls import Controls
from ..controls.ensemble import AUTO, NONE
from .band import PROGRAM
from .base import Grammar
from .score import ScoreGrammar, ScoreState

ENTRY = 4  # the bar of new music in which an instrument enters at the latest
GAP_ASKED, GAP = 1, 4  # whole bars that one may be silent: of those that were asked for, and of others
RECENT = 8  # bars of a prompt: what plays in them goes on

Group = frozenset[int]
"""Ids of programs, one of which has to play."""


class EnsembleState(NamedTuple):
    """The state of one batch element.

    Attributes:
        inner: of the grammar.
        bar: its number, from 1 in new music; the last bar that the prompt has begun is 0.
        played: (id of a program, bar in which it last began a note), from bar 0 on.
        due: the groups that have to begin a note in this bar; in a header, those that it has to list.
    """

    inner: ScoreState
    bar: int
    played: tuple[tuple[int, int], ...] = ()
    due: tuple[Group, ...] = ()


class Ensemble(Grammar):
    """A grammar in which groups of programs enter by a bar of new music, and are never silent for long.

    A group is overdue in that bar if it has not played, and later if it has been silent for `gap` whole bars. A bar with
    overdue groups begins with them: at a position only their programs begin notes, as long as one can still come there by the
    order of programs, and the bar does not end before all have begun. A header lists a program of each group that was asked
    for.

    What the inner grammar allows is never left empty. Where no overdue program can come in this bar any more, since few notes
    may sound at once and they do, nothing is banned, and the next bar tries again.

    Args:
        tokenizer: of the ids.
        inner: its grammar.
        groups: who is needed; None for each program of the header.
        gap: in whole bars.
        num_given: bars that the prompt has begun, without an open one that is empty.
        entry: the bar of new music in which an instrument enters at the latest.
    """

    def __init__(
        self,
        tokenizer: MidiTokTokenizer,
        inner: ScoreGrammar,
        groups: Sequence[Group] | None,
        *,
        gap: int = GAP_ASKED,
        num_given: int = 0,
        entry: int = ENTRY,
    ) -> None:
        super().__init__(inner.vocab_size)
        table = tokenizer.vocabulary
        self._inner, self._wanted, self._gap, self._num_given = inner, groups, gap, num_given
        self._entry = entry
        self._bar, self._drums = find(table, Kind.BAR), find(table, Kind.PROGRAM, -1)
        self._positions = np.array(sorted(ids_of(table, Kind.POSITION), key=lambda i: table[i].value))
        self._is_program, self._is_note = is_kind(table, Kind.PROGRAM), is_kind(table, Kind.NOTE_ON, Kind.DRUM_ON)
        self._begins_note = self._is_note.tolist()  # reading an array for each token would take longer

    def beginning(self) -> EnsembleState:
        inner = self._inner.beginning()
        return EnsembleState(inner, -self._num_given, due=self._groups(inner) if self._wanted is not None else ())

    def alike(self, token: int) -> int:
        return self._inner.alike(token)

    def cache_key(self, state: EnsembleState) -> Hashable:
        key = self._inner.cache_key(state.inner)
        return (key, state.due) if state.due and not isinstance(key, int) else key

    def mask(self, state: EnsembleState) -> np.ndarray:
        if not state.due or isinstance(self._inner.cache_key(state.inner), int):
            return self._inner.mask(state.inner)
        return super().mask(state)

    def following(self, state: EnsembleState) -> list[np.ndarray]:
        p, due = state.inner, state.due
        allowed = self._inner.mask(p) == 0
        first = p.num_positions
        if p.bars:
            first = self._inner.free_position(p, drums=any(self._drums in group for group in due))
        may_wait = first < p.num_positions  # for a later position of this bar
        goes_on = p.kind != PROGRAM and bool((allowed & self._is_note).any())  # without a program token
        begin = [*np.flatnonzero(allowed & self._is_program).tolist(), *([p.program] if goes_on else [])]
        chosen = [i for i in begin if any(i in group for group in due) and (may_wait or self._leaves_all(i, due))]
        if not chosen and not may_wait:
            return [np.flatnonzero(allowed)]
        wanted = allowed.copy()
        wanted[self._bar] = False
        wanted[self._positions[:first]] = False
        if chosen:
            wanted &= ~self._is_program | np.isin(np.arange(self.vocab_size), chosen)
            if goes_on and p.program not in chosen:
                wanted &= ~self._is_note
        return [np.flatnonzero(wanted if wanted.any() else allowed)]

    def _leaves_all(self, program: int, due: Iterable[Group]) -> bool:
        """Return whether after a program one of each other group can still come at the same place."""
        order = self._inner.order_of(program)
        return all(program in group or max(map(self._inner.order_of, group)) > order for group in due)

    def after(self, state: EnsembleState, token: int) -> EnsembleState:
        inner = self._inner.after(state.inner, token)
        _, bar, played, due = state
        if token == self._bar:
            bar += 1
            due = self._overdue(inner, bar, played) if bar > 0 else ()
        elif self._begins_note[token]:
            program = inner.program
            if bar >= 0 and (program, bar) not in played:
                played = (*((i, last) for i, last in played if i != program), (program, bar))
            due = tuple(group for group in due if program not in group) if due else ()
        elif due and inner.bars == 0:
            due = tuple(group for group in due if token not in group)
        return EnsembleState(inner, bar, played, due)

    def _overdue(self, inner: ScoreState, bar: int, played: Iterable[tuple[int, int]]) -> tuple[Group, ...]:
        """Return the groups that are overdue at the beginning of a bar."""
        last_bars = dict(played)
        found = []
        for group in self._groups(inner):
            last = max((last_bars[i] for i in group if i in last_bars), default=None)
            is_missing = not last and bar >= self._entry  # so far, in new music
            if is_missing or (last is not None and bar - 1 - last >= self._gap):
                found.append(group)
        return tuple(found)

    def _groups(self, inner: ScoreState) -> tuple[Group, ...]:
        """Return who is needed, as far as they may play."""
        players = frozenset(self._inner.players(inner).tolist())
        wanted = [frozenset([i]) for i in inner.header.programs] if self._wanted is None else self._wanted
        return tuple(found for group in wanted if (found := group & players))


def with_ensemble(
    tokenizer: MidiTokTokenizer,
    inner: Grammar,
    controls: Controls,
    prompt_ids: np.ndarray | None = None,
    entry: int = ENTRY,
) -> Grammar:
    """Return a grammar in which the ensemble that controls ask for plays; the grammar itself where there is none.

    Without controls these are the programs of the last `RECENT` bars of the prompt, or those of the header.

    Args:
        tokenizer: of the ids, without merges.
        inner: its grammar.
        controls: see `controls.ensemble`.
        prompt_ids: base ids of the prompt; None for unconditional music.
        entry: see `Ensemble`.
    """
    asked, table = controls.ensemble, tokenizer.vocabulary
    if asked in (None, NONE) or not isinstance(inner, ScoreGrammar) or not has(table, Kind.PROGRAM):
        return inner
    ids = np.zeros(0, np.int64) if prompt_ids is None else prompt_ids
    num_given = _num_bars(table, ids)
    if asked != AUTO:
        of_program = {table[i].value: i for i in ids_of(table, Kind.PROGRAM).tolist()}
        groups = [frozenset(of_program[p] for p in group if p in of_program) for group in asked]
        return Ensemble(tokenizer, inner, groups, num_given=num_given, entry=entry)
    recent = None if prompt_ids is None else [frozenset([i]) for i in _recent(table, ids, num_given)]
    return Ensemble(tokenizer, inner, recent, gap=GAP, num_given=num_given, entry=entry)


def _num_bars(table: Vocabulary, ids: np.ndarray) -> int:
    """Return how many bars a prompt has begun, without one that is empty and open."""
    bars = np.flatnonzero(is_kind(table, Kind.BAR)[ids])
    is_open = len(bars) > 0 and not is_kind(table, Kind.POSITION)[ids[bars[-1] :]].any()
    return len(bars) - int(is_open)


def _recent(table: Vocabulary, ids: np.ndarray, num_bars: int) -> list[int]:
    """Return the ids of the programs that begin notes in the last bars of a prompt."""
    index = np.arange(len(ids))
    bars = np.cumsum(is_kind(table, Kind.BAR)[ids])
    programs = np.maximum.accumulate(np.where(is_kind(table, Kind.PROGRAM)[ids], index, -1))
    is_recent = is_kind(table, Kind.NOTE_ON, Kind.DRUM_ON)[ids] & (bars > num_bars - RECENT) & (programs >= 0)
    return sorted(set(ids[programs[is_recent]].tolist()))
