"""Any multi-track score, rearranged for infilling: `score-infill`.

A crop of a score with a masked span has three parts:

    past context           plain bars, as many as there is room for
    AHEAD, given context   the bars from the start of the span to some after it, without the masked notes
    WRITE, the span        as many bars as WRITE says, with the masked notes alone

So the last part continues the first as any music does, with the same grammar and to any length, and the model has read the
context on both sides. After WRITE the last program before the span is repeated, if there was one, so the span's notes need
not say it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from symusic import Score

from .score import INFILL_TOKENS, PLANNED, SIZES, ScoreTokenizer
from .vocabulary import Kind, find, ids_of, is_kind, pitches_on

CHANCES = (0.2, 0.25, 0.35, 0.2)  # of each
BEHIND = 2  # bars of context after the span, at most
LENGTH = 1024  # ids of a rearranged crop, at most
LEAST = 128  # ids of past context that are always kept, where there are so many


class Parts(NamedTuple):
    """Positions in a rearranged crop: of AHEAD, of WRITE, and of the first id of the span."""

    ahead: int
    write: int
    written: int


class ScoreInfill(ScoreTokenizer):
    """Scores with masked spans; see the module.

    Args:
        config: see `ScoreTokenizer`.
        vocabulary: see `MidiTokTokenizer`; without this one's special tokens.
        features: see `ScoreTokenizer`.
    """

    name = "score-infill"
    own_special_tokens: tuple[str, ...] = INFILL_TOKENS
    num_rearrangements = 1 << 30
    p_rearrange = 0.6
    supports_infilling = True

    def __init__(
        self, config: dict[str, Any] | None = None, vocabulary: Sequence[str] | None = None, features: int = PLANNED
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
        return len(self.miditok_vocabulary) if self.plan is None else self.vocab_size

    def decode(self, ids: Sequence[int] | np.ndarray) -> Score:
        return super().decode(self._without_ahead(np.asarray(ids, np.int64)))

    def eval_mask(self, ids: np.ndarray) -> np.ndarray:
        """See the base class; of a rearranged crop only the span counts."""
        ids = np.asarray(ids)
        counted, parts = super().eval_mask(ids), self.parts(ids)
        if parts is not None:
            counted[: parts.written] = False
        return counted

    def loss_mask(self, ids: np.ndarray) -> np.ndarray:
        mask, parts = np.ones(len(ids), bool), self.parts(ids)
        if parts is not None:
            mask[parts.ahead : parts.written] = False
        return mask

    def num_notes(self, ids: np.ndarray) -> int:
        """Return how many notes begin in some ids."""
        return int(self._num_notes[ids].sum())

    def parts(self, ids: np.ndarray) -> Parts | None:
        """Return the positions of the parts of a rearranged crop; None for a piece as it is."""
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
        """Return the position of each bar in ids, and the end of the last, (bars + 1,)."""
        end = len(ids) - int(len(ids) > 0 and ids[-1] == self.eos)
        return np.append(np.flatnonzero(self._is_bar[ids]), end)

    def rearranged(self, ids: np.ndarray, number: int) -> np.ndarray:
        """Return a crop of a piece with a masked span, (T',) int64, sampled with its number as seed; 0 is the whole piece."""
        if not number:
            return ids
        rng = np.random.default_rng(number)
        starts = self.bar_starts(ids)
        num_bars = len(starts) - 1
        fitting = [s for s in SIZES if s <= num_bars]
        if not fitting:
            return ids
        chances = np.array(CHANCES[: len(fitting)])
        size = int(rng.choice(fitting, p=chances / chances.sum()))
        first = int(rng.integers(num_bars - size + 1))
        while size > 1 and starts[first + size] - starts[first] > LENGTH // 2:
            size //= 2
        stop = first + size
        behind = min(num_bars, stop + int(rng.integers(BEHIND + 1)))
        programs = self._programs(ids)
        missing, continues = self._sampled_mask(rng, ids, programs, slice(int(starts[first]), int(starts[stop])))
        kept = self.section(ids, starts, first, stop, (programs >= 0) & ~missing)
        after = self.section(ids, starts, stop, behind, (programs >= 0) & ~(missing & continues))
        said = self._program_before(ids, int(starts[first]))
        written = self.section(ids, starts, first, stop, missing, said=said, tempi=True)
        asked = self.asked(np.concatenate([kept, after]), size, said)
        room = max(LEAST, LENGTH - len(asked) - len(written))
        return np.concatenate([self._end(ids, starts, first, room), asked, written])

    def asked(self, kept: np.ndarray, num_bars: int, said: int) -> np.ndarray:
        """Return the prompt's ids after the past context, (T,) int64.

        Args:
            kept: the given context, from the start of the span on.
            num_bars: of the span, one of `SIZES`.
            said: id of the last program before the span; -1 if there is none.
        """
        program = [said] if said >= 0 else []
        return np.concatenate([[self.ahead], kept, [self.write[num_bars]], program]).astype(np.int64)

    def heard(self, ids: np.ndarray, first: int, num_bars: int) -> np.ndarray:
        """Return the prompt of an infilling model, (T,) int64: past context and given context.

        Args:
            ids: of the piece without the masked notes; it has to reach the end of the span.
            first: bar of the span.
            num_bars: of the span, one of `SIZES`.
        """
        starts = self.bar_starts(ids)
        behind = min(len(starts) - 1, first + num_bars + BEHIND)
        kept = self.section(ids, starts, first, behind, self._of_note(ids) >= 0)
        asked = self.asked(kept, num_bars, self._program_before(ids, int(starts[first])))
        return np.concatenate([self._end(ids, starts, first, max(LEAST, LENGTH // 2 - len(asked))), asked])

    def _end(self, ids: np.ndarray, starts: np.ndarray, first: int, room: int) -> np.ndarray:
        """Return the last bars before a bar, at most `room` ids; all ids from the beginning where they fit."""
        if starts[first] <= room:
            return ids[: starts[first]]
        begin = int(starts[: first + 1][starts[: first + 1] >= starts[first] - room][0])
        said = self._program_before(ids, begin)
        return np.concatenate([[said] if said >= 0 else [], ids[begin : starts[first]]]).astype(np.int64)

    def _program_before(self, ids: np.ndarray, place: int) -> int:
        said = np.flatnonzero(self._is_program[ids[:place]])
        return int(ids[said[-1]]) if len(said) else -1

    def _programs(self, ids: np.ndarray) -> np.ndarray:
        """Return the program id of the note that each id belongs to, (T,); -1 for ids of no note."""
        is_program = self._is_program[ids]
        last = np.maximum.accumulate(np.where(is_program, np.arange(len(ids)), -1))
        return np.where((self._of_note(ids) >= 0) & (last >= 0), ids[np.maximum(last, 0)], -1)

    def _of_note(self, ids: np.ndarray) -> np.ndarray:
        """Return the position of the first id of the note that each id belongs to, (T,); -1 for ids of no note."""
        places = np.arange(len(ids))
        begins = np.maximum.accumulate(np.where(self._num_notes[ids] > 0, places, -3))
        return np.where(places - begins < 3, begins, -1)  # its pitch, velocity and duration

    def _tops(self, ids: np.ndarray) -> np.ndarray:
        """Return which ids belong to the highest note of their position, drums excepted, (T,) booleans."""
        begins = self._of_note(ids)
        notes = np.flatnonzero(self._pitch[ids] >= 0)
        group = np.cumsum(self._is_bar[ids] | self._is_position[ids])
        highest = np.full(int(group[-1]) + 1, -1)
        np.maximum.at(highest, group[notes], self._pitch[ids[notes]])
        is_top = np.zeros(len(ids), bool)
        is_top[notes] = self._pitch[ids[notes]] == highest[group[notes]]
        return (begins >= 0) & is_top[np.maximum(begins, 0)]

    def _sampled_mask(
        self, rng: np.random.Generator, ids: np.ndarray, programs: np.ndarray, span: slice
    ) -> tuple[np.ndarray, bool]:
        """Return which ids belong to notes that a span masks, (T,) booleans, and whether the mask continues after it.

        Four in ten spans mask all notes. One in ten gives the highest notes, a melody to accompany; the others give some of
        the instruments, if there are several. Three in five of those that give something continue the mask after the span,
        as where a whole track is masked.
        """
        playing = np.unique(programs[span][programs[span] >= 0])
        kind = rng.random()
        if kind < 0.4 or (kind < 0.9 and len(playing) < 2):
            return programs >= 0, False
        continues = bool(rng.random() < 0.6)
        if kind >= 0.9:
            return (programs >= 0) & ~self._tops(ids), continues
        chosen = rng.choice(playing, int(rng.integers(1, len(playing))), replace=False)
        return np.isin(programs, chosen), continues

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
        """Return bars with only some of their notes, (T',) int64, each bar with its time signature.

        Args:
            ids: of the piece, (T,).
            starts: of its bars, see `bar_starts`.
            first: bar.
            stop: the bar after the last.
            chosen: which ids belong to a note that is kept, (T,) booleans.
            said: id of the program before; -1 if there is none.
            tempi: whether tempo changes are kept.
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
