"""Any multi-track score, rearranged for infilling: `score-infill`.

A crop of a score with a masked span has three parts:

    past context           plain bars, as many as there is room for
    AHEAD, given context   the bars from the start of the span to some after it, without the masked notes
    WRITE, the span        as many bars as WRITE says, with the masked notes alone

So the last part continues the first as any music does, with the same grammar and to any length, and the model has read the
context on both sides. After WRITE the last program before the span is repeated, if there was one, so the span's notes need
not say it again.

Ids with a plan (version 5) keep it: each crop begins with BOS and the header of the piece, whose length is the number of bars
left. Bars of the past context and of the span have the attributes of the whole piece, those of the given context have none:
so the model predicts the harmony from what is given, and then the notes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from symusic import Score

from .score import INFILL_TOKENS, PLANNED, SIZES, ScoreTokenizer
from .score_notes import NoteReader
from .vocabulary import Kind, find, ids_of, is_kind

CHANCES = (0.2, 0.25, 0.35, 0.2)  # of each
MASKS, MASKS_WITH_PLAN = (0.4, 0.5, 0.1), (0.25, 0.6, 0.15)  # of all notes, some instruments, all but the top
BEHIND = 2  # bars of context after the span, at most
LENGTH = 1024  # ids of a rearranged crop, at most
LEAST = 128  # ids of past context that are always kept, where there are so many


class Parts(NamedTuple):
    """Positions in a rearranged crop: of AHEAD, of WRITE, and of the first id of the span."""

    ahead: int
    write: int
    written: int


class Mask(NamedTuple):
    """What a span masks.

    Attributes:
        missing: which ids belong to masked notes, wherever in the piece, (T,) booleans.
        continues: whether such notes are missing after the span too.
        absent: whether they are missing before it too, as where an accompaniment begins.
    """

    missing: np.ndarray
    continues: bool
    absent: bool = False


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
        self._is_program = is_kind(table, Kind.PROGRAM)
        self._reader = NoteReader(table)

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
        """See the base class; of a rearranged crop the given context does not count, nor header and first bar of the past.

        Such a crop begins anywhere in a piece, so that the model would learn to begin in the middle.
        """
        mask, parts = np.ones(len(ids), bool), self.parts(ids)
        if parts is not None:
            mask[parts.ahead : parts.written] = False
            if self.plan is not None:
                mask[: self.bar_starts(ids[: parts.ahead])[:2][-1]] = False
        return mask

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
        if self.plan is not None:
            return self._planned(rng, ids, starts, first, stop, behind)
        programs = self._reader.programs(ids)
        span = slice(int(starts[first]), int(starts[stop]))
        missing, continues, _ = self._sampled_mask(rng, ids, programs, span)
        kept = self.section(ids, starts, first, stop, (programs >= 0) & ~missing)
        after = self.section(ids, starts, stop, behind, (programs >= 0) & ~(missing & continues))
        said = self._reader.program_before(ids, int(starts[first]))
        written = self.section(ids, starts, first, stop, missing, said=said, tempi=True)
        asked = self.asked(np.concatenate([kept, after]), size, said)
        room = max(LEAST, LENGTH - len(asked) - len(written))
        return np.concatenate([self._end(ids, starts, first, room), asked, written])

    def _planned(
        self, rng: np.random.Generator, ids: np.ndarray, starts: np.ndarray, first: int, stop: int, behind: int
    ) -> np.ndarray:
        """Return a crop of ids with a plan, see the module, of at most `LENGTH` ids; the whole piece where none is so short.

        Args:
            rng: samples the mask.
            ids: of the piece.
            starts: of its bars, see `bar_starts`.
            first: bar of the span.
            stop: the bar after its last.
            behind: the bar after the last that is given.
        """
        while behind > stop and starts[behind] - starts[first] > 3 * LENGTH // 4:
            behind -= 1
        begin = int(np.searchsorted(starts, starts[first] - LENGTH))  # the first bar within reach
        near, places = ids[starts[begin] : starts[behind]], starts[begin : behind + 1] - starts[begin]
        at, end = int(places[first - begin]), int(places[stop - begin])
        programs = self._reader.programs(near, self._reader.program_before(ids, int(starts[begin]), int(starts[0])))
        mask = self._sampled_mask(rng, near, programs, slice(at, end))
        missing = mask.missing.copy()
        missing[:at] &= mask.absent
        missing[end:] &= mask.continues
        given, hidden = (programs >= 0) & ~missing, mask.missing[at:end]
        said = int(programs[:at][given[:at]][-1]) if given[:at].any() else -1
        kept = self._reader.some(near[at:], programs[at:], given[at:])
        written = self._reader.some(near[at:end], programs[at:end], hidden, said=said, tempi=True, attributes=True)
        room = LENGTH - len(kept) - len(written) - 3 - int(starts[0]) - 2
        if room < 0:
            return ids
        bar = self._first_of_past(starts, first, room)
        past = slice(int(places[bar - begin]), at)
        before = self._reader.some(near[past], programs[past], given[past], tempi=True, attributes=True)
        if said >= 0 and not given[past].any():  # the program was said before the crop
            said = -1
            written = self._reader.some(near[at:end], programs[at:end], hidden, tempi=True, attributes=True)
        header = self._header(ids, starts, bar, len(starts) - 1)
        size = stop - first
        return np.concatenate([header, before, self.asked(kept, size, said), written])

    def _first_of_past(self, starts: np.ndarray, first: int, room: int) -> int:
        """Return the first bar of a past context of at most so many ids.

        The place in groups of four and eight bars is counted from it: it is a multiple of eight where that leaves half of the
        bars that would fit, else of four where that leaves any.
        """
        earliest = int(np.searchsorted(starts[: first + 1], starts[first] - room))
        eighth, fourth = -(-earliest // 8) * 8, -(-earliest // 4) * 4
        if first - eighth >= (first - earliest + 1) // 2:
            return eighth
        return fourth if fourth < first else earliest

    def _header(
        self, ids: np.ndarray, starts: np.ndarray, bar: int, num_bars: int, programs: Sequence[int] | None = None
    ) -> np.ndarray:
        """Return BOS and the header of a piece as if it began at a bar; see `ScorePlan.header_from`."""
        assert self.plan is not None
        return self.plan.header_from(ids, starts, bar, num_bars, programs)

    def with_programs(self, ids: np.ndarray, programs: Sequence[int]) -> np.ndarray:
        """Return ids with a plan whose header says some programs beside those that play, and how many bars there are."""
        starts = self.bar_starts(ids)
        every = [*ids[self._is_program[ids]].tolist(), *programs]
        return np.concatenate([self._header(ids, starts, 0, len(starts) - 1, every), ids[starts[0] :]])

    def asked(self, kept: np.ndarray, num_bars: int, said: int) -> np.ndarray:
        """Return the prompt's ids after the past context, (T,) int64.

        Args:
            kept: the given context, from the start of the span on.
            num_bars: of the span, one of `SIZES`.
            said: id of the last program before the span; -1 if there is none.
        """
        program = [said] if said >= 0 else []
        return np.concatenate([[self.ahead], kept, [self.write[num_bars]], program]).astype(np.int64)

    def infill_prompt(self, ids: np.ndarray, first: int, num_bars: int, programs: Sequence[int] = ()) -> np.ndarray:
        """Return the prompt of an infilling model, (T,) int64: past context and given context.

        Args:
            ids: of the piece without the masked notes; it has to reach the end of the span. With a plan it has all bars of
                the piece, which its header counts.
            first: bar of the span.
            num_bars: of the span, one of `SIZES`.
            programs: ids of those that are asked for, which the header says beside those that play.
        """
        starts = self.bar_starts(ids)
        behind = min(len(starts) - 1, first + num_bars + BEHIND)
        if self.plan is not None:
            return self._heard_with_plan(ids, starts, first, behind, num_bars, programs)
        kept = self.section(ids, starts, first, behind, self._reader.of_note(ids) >= 0)
        asked = self.asked(kept, num_bars, self._reader.program_before(ids, int(starts[first])))
        return np.concatenate([self._end(ids, starts, first, max(LEAST, LENGTH // 2 - len(asked))), asked])

    def _heard_with_plan(
        self, ids: np.ndarray, starts: np.ndarray, first: int, behind: int, num_bars: int, programs: Sequence[int]
    ) -> np.ndarray:
        at, end = int(starts[first]), int(starts[behind])
        of_note = self._reader.programs(ids[:end])
        kept = self._reader.some(ids[at:end], of_note[at:end], of_note[at:end] >= 0)
        asked = self.asked(kept, num_bars, self._reader.program_before(ids, at, int(starts[0])))
        every = [*ids[self._is_program[ids]].tolist(), *programs]
        room = LENGTH // 2 - len(asked) - len(set(every)) - 6
        bar = self._first_of_past(starts, first, max(LEAST, room))
        past = slice(int(starts[bar]), at)
        before = self._reader.some(ids[past], of_note[past], of_note[past] >= 0, tempi=True, attributes=True)
        return np.concatenate([self._header(ids, starts, bar, len(starts) - 1, every), before, asked])

    def _end(self, ids: np.ndarray, starts: np.ndarray, first: int, room: int) -> np.ndarray:
        """Return the last bars before a bar, at most `room` ids; all ids from the beginning where they fit."""
        if starts[first] <= room:
            return ids[: starts[first]]
        begin = int(starts[: first + 1][starts[: first + 1] >= starts[first] - room][0])
        said = self._reader.program_before(ids, begin)
        return np.concatenate([[said] if said >= 0 else [], ids[begin : starts[first]]]).astype(np.int64)

    def _sampled_mask(self, rng: np.random.Generator, ids: np.ndarray, programs: np.ndarray, span: slice) -> Mask:
        """Return what a span masks.

        Some spans mask all notes; some give the highest notes, a melody to accompany; the others give some of the
        instruments, if there are several. See `MASKS` for how many. Three in five of those that give something continue the
        mask after the span, as where a whole track is masked. With a plan half of them mask before the span too, as where an
        accompaniment begins, and half of the others after it.
        """
        playing = np.unique(programs[span][programs[span] >= 0])
        kind = rng.random()
        all_notes, instruments, _ = MASKS if self.plan is None else MASKS_WITH_PLAN
        if kind < all_notes or (kind < all_notes + instruments and len(playing) < 2):
            return Mask(programs >= 0, False)
        absent = self.plan is not None and bool(rng.random() < 0.5)
        continues = absent or bool(rng.random() < (0.6 if self.plan is None else 0.5))
        if kind >= all_notes + instruments:
            return Mask((programs >= 0) & ~self._reader.tops(ids), continues, absent)
        chosen = rng.choice(playing, int(rng.integers(1, len(playing))), replace=False)
        return Mask(np.isin(programs, chosen), continues, absent)

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
        programs = self._reader.programs(ids[:end])[begin:]
        return self._reader.some(ids[begin:end], programs, chosen[begin:end], said=said, tempi=tempi)
