"""Any multi-track score, arranged so that what is missing is written last: `score-infill`.

A stretch of a score with a hole in it is told in three parts:

    what was before      plain bars, as many as there is room for
    AHEAD, what is kept  the bars from where the hole begins to some behind it, without the notes that are missing
    WRITE, what is not   as many bars as WRITE says, with those notes alone

So the last part goes on from the first as any music does, by the same grammar and to any length, and the model has read what
it must lead into or go along with. Behind WRITE stands the program that was said last, where one was: notes that go on in it
need not say it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from symusic import Score

from .score import ScoreTokenizer
from .vocabulary import Kind, find, ids_of, is_kind, pitches_on

SIZES = (1, 2, 4, 8)  # bars of a hole
CHANCES = (0.2, 0.25, 0.35, 0.2)  # of each
BEHIND = 2  # bars that are read behind a hole, at most
LENGTH = 1024  # ids of an arranged stretch at most
LEAST = 128  # ids of what was before, where there are so many


class Parts(NamedTuple):
    """Where the parts of an arranged stretch begin: at AHEAD, at WRITE, and the ids that are written."""

    ahead: int
    write: int
    written: int


class ScoreInfill(ScoreTokenizer):
    """Scores with holes; see the module.

    Args:
        config: see `ScoreTokenizer`.
        vocabulary: see `MidiTokTokenizer`; without the marks of this one.
        features: see `ScoreTokenizer`.
    """

    name = "score-infill"
    own_special_tokens = ("Ahead_None", *(f"Write_{size}" for size in SIZES))
    num_rearrangements = 1 << 30
    p_rearrange = 0.6
    supports_infilling = True

    def __init__(
        self, config: dict[str, Any] | None = None, vocabulary: Sequence[str] | None = None, features: int = 2
    ) -> None:
        super().__init__(config, vocabulary, features)
        table = self.vocabulary
        self.ahead = find(table, Kind.INFILL_CONTEXT)
        self.write = {table[i].value: i for i in ids_of(table, Kind.INFILL_SPAN).tolist()}
        self._is_write, self._is_bar = is_kind(table, Kind.INFILL_SPAN), is_kind(table, Kind.BAR)
        self._is_position, self._is_tempo = is_kind(table, Kind.POSITION), is_kind(table, Kind.TEMPO)
        self._is_program, self._is_time_signature = is_kind(table, Kind.PROGRAM), is_kind(table, Kind.TIME_SIGNATURE)
        self._pitch = pitches_on(table)

    @property
    def plain_size(self) -> int:
        return len(self.miditok_vocabulary)

    def decode(self, ids: Sequence[int] | np.ndarray) -> Score:
        return super().decode(self._without_ahead(np.asarray(ids, np.int64)))

    def eval_mask(self, ids: np.ndarray) -> np.ndarray:
        """See the base; of an arranged stretch only what was missing counts."""
        ids = np.asarray(ids)
        counted, parts = super().eval_mask(ids), self.parts(ids)
        if parts is not None:
            counted[: parts.written] = False
        return counted

    def loss_mask(self, ids: np.ndarray) -> np.ndarray:
        learnt, parts = np.ones(len(ids), bool), self.parts(ids)
        if parts is not None:
            learnt[parts.ahead : parts.written] = False
        return learnt

    def num_notes(self, ids: np.ndarray) -> int:
        """Return how many notes begin in some ids."""
        return int(self._num_notes[ids].sum())

    def parts(self, ids: np.ndarray) -> Parts | None:
        """Return where the parts of an arranged stretch begin; None of a piece as it is."""
        ahead, write = np.flatnonzero(ids == self.ahead), np.flatnonzero(self._is_write[ids])
        if not len(ahead) or not len(write):
            return None
        begin = int(write[0]) + 1
        says_program = begin < len(ids) and bool(self._is_program[ids[begin]])
        return Parts(int(ahead[0]), begin - 1, begin + int(says_program))

    def _without_ahead(self, ids: np.ndarray) -> np.ndarray:
        parts = self.parts(ids)
        return ids if parts is None else np.concatenate([ids[: parts.ahead], ids[parts.written :]])

    def bar_starts(self, ids: np.ndarray) -> np.ndarray:
        """Return where in ids each bar begins, and behind them where the last one ends, (bars + 1,)."""
        end = len(ids) - int(len(ids) > 0 and ids[-1] == self.eos)
        return np.append(np.flatnonzero(self._is_bar[ids]), end)

    def rearranged(self, ids: np.ndarray, number: int) -> np.ndarray:
        """Return a stretch of a piece with a hole in it, (T',) int64, drawn by its number; 0 is the piece as it is."""
        if not number:
            return ids
        draw = np.random.default_rng(number)
        starts = self.bar_starts(ids)
        num_bars = len(starts) - 1
        fitting = [s for s in SIZES if s <= num_bars]
        if not fitting:
            return ids
        chances = np.array(CHANCES[: len(fitting)])
        size = int(draw.choice(fitting, p=chances / chances.sum()))
        first = int(draw.integers(num_bars - size + 1))
        while size > 1 and starts[first + size] - starts[first] > LENGTH // 2:
            size //= 2
        stop = first + size
        behind = min(num_bars, stop + int(draw.integers(BEHIND + 1)))
        programs = self._programs(ids)
        missing, goes_on = self._drawn_missing(draw, ids, programs, slice(int(starts[first]), int(starts[stop])))
        kept = self.section(ids, starts, first, stop, (programs >= 0) & ~missing)
        after = self.section(ids, starts, stop, behind, (programs >= 0) & ~(missing & goes_on))
        said = self._program_before(ids, int(starts[first]))
        written = self.section(ids, starts, first, stop, missing, said=said, tempi=True)
        asked = self.asked(np.concatenate([kept, after]), size, said)
        room = max(LEAST, LENGTH - len(asked) - len(written))
        return np.concatenate([self._end(ids, starts, first, room), asked, written])

    def asked(self, kept: np.ndarray, num_bars: int, said: int) -> np.ndarray:
        """Return what a model reads behind what was before, (T,) int64.

        Args:
            kept: the bars from where the hole begins.
            num_bars: of the hole, one of `SIZES`.
            said: the program that was said last, an id; -1 if none was.
        """
        program = [said] if said >= 0 else []
        return np.concatenate([[self.ahead], kept, [self.write[num_bars]], program]).astype(np.int64)

    def heard(self, ids: np.ndarray, first: int, num_bars: int) -> np.ndarray:
        """Return what a model reads before it writes bars of a piece, (T,) int64: the end of what was before, and what is kept.

        Args:
            ids: of the piece without what is missing, at least as long as the hole.
            first: bar of the hole.
            num_bars: of the hole, one of `SIZES`.
        """
        starts = self.bar_starts(ids)
        behind = min(len(starts) - 1, first + num_bars + BEHIND)
        kept = self.section(ids, starts, first, behind, self._of_note(ids) >= 0)
        asked = self.asked(kept, num_bars, self._program_before(ids, int(starts[first])))
        return np.concatenate([self._end(ids, starts, first, max(LEAST, LENGTH // 2 - len(asked))), asked])

    def _end(self, ids: np.ndarray, starts: np.ndarray, first: int, room: int) -> np.ndarray:
        """Return the bars before one, so many ids of them as there is room for; all of them with what stands before."""
        if starts[first] <= room:
            return ids[: starts[first]]
        begin = int(starts[: first + 1][starts[: first + 1] >= starts[first] - room][0])
        said = self._program_before(ids, begin)
        return np.concatenate([[said] if said >= 0 else [], ids[begin : starts[first]]]).astype(np.int64)

    def _program_before(self, ids: np.ndarray, place: int) -> int:
        said = np.flatnonzero(self._is_program[ids[:place]])
        return int(ids[said[-1]]) if len(said) else -1

    def _programs(self, ids: np.ndarray) -> np.ndarray:
        """Return the program, an id, of the note that each id belongs to, (T,); -1 for ids that are of no note."""
        is_program = self._is_program[ids]
        last = np.maximum.accumulate(np.where(is_program, np.arange(len(ids)), -1))
        return np.where((self._of_note(ids) >= 0) & (last >= 0), ids[np.maximum(last, 0)], -1)

    def _of_note(self, ids: np.ndarray) -> np.ndarray:
        """Return where the note begins that each id belongs to, (T,); -1 for ids that are of no note."""
        places = np.arange(len(ids))
        begins = np.maximum.accumulate(np.where(self._num_notes[ids] > 0, places, -3))
        return np.where(places - begins < 3, begins, -1)  # its pitch, velocity and duration

    def _tops(self, ids: np.ndarray) -> np.ndarray:
        """Return which ids are of the highest note of their position, drums excepted, (T,) booleans."""
        begins = self._of_note(ids)
        notes = np.flatnonzero(self._pitch[ids] >= 0)
        group = np.cumsum(self._is_bar[ids] | self._is_position[ids])
        highest = np.full(int(group[-1]) + 1, -1)
        np.maximum.at(highest, group[notes], self._pitch[ids[notes]])
        is_top = np.zeros(len(ids), bool)
        is_top[notes] = self._pitch[ids[notes]] == highest[group[notes]]
        return (begins >= 0) & is_top[np.maximum(begins, 0)]

    def _drawn_missing(
        self, draw: np.random.Generator, ids: np.ndarray, programs: np.ndarray, hole: slice
    ) -> tuple[np.ndarray, bool]:
        """Return the ids of notes that are missing wherever there is a hole, and whether they are missing behind it, too.

        Four in ten holes are of all notes. One in ten leaves the highest notes, a tune to be accompanied; the others leave
        some of the instruments, if there are several. Three in five of those that leave something go on behind what is to
        be written, as they do where the whole of a track is missing.
        """
        playing = np.unique(programs[hole][programs[hole] >= 0])
        kind = draw.random()
        if kind < 0.4 or (kind < 0.9 and len(playing) < 2):
            return programs >= 0, False
        goes_on = bool(draw.random() < 0.6)
        if kind >= 0.9:
            return (programs >= 0) & ~self._tops(ids), goes_on
        chosen = draw.choice(playing, int(draw.integers(1, len(playing))), replace=False)
        return np.isin(programs, chosen), goes_on

    def section(
        self,
        ids: np.ndarray,
        starts: np.ndarray,
        first: int,
        stop: int,
        chosen: np.ndarray,
        *,
        said: int = -1,
        tempi: bool = False,
    ) -> np.ndarray:
        """Return bars with some of their notes alone, (T',) int64, each bar with its time signature.

        Args:
            ids: of the piece, (T,).
            starts: of its bars, see `bar_starts`.
            first: bar.
            stop: the bar behind the last.
            chosen: which ids are of a note that stays, (T,) booleans.
            said: the program that holds before.
            tempi: whether changes of tempo stay.
        """
        begin, end = int(starts[first]), int(starts[stop])
        part, programs = ids[begin:end], self._programs(ids[:end])[begin:]
        keep = (programs >= 0) & chosen[begin:end]
        keep |= self._is_bar[part] | self._is_time_signature[part]
        if tempi:
            keep |= self._is_tempo[part]
        found: list[int] = []
        position = -1
        for i in np.flatnonzero(keep | self._is_position[part]).tolist():
            token = int(part[i])
            if self._is_position[token]:
                position = token
                continue
            if self._is_bar[token]:
                position = -1
            elif programs[i] >= 0 or self._is_tempo[token]:
                if position >= 0:
                    found.append(position)
                    position = -1
                if programs[i] >= 0 and programs[i] != said:
                    said = int(programs[i])
                    found.append(said)
            found.append(token)
        return np.array(found, np.int64)
