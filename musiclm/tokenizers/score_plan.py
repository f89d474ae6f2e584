"""The plan of a piece in `score`: a header before the first bar, and attributes of each bar.

    BOS  Style Length [TimeSig] [Tempo] Program …  then of each bar  Bar TimeSig Section Repeat Chord Chord  and its notes

The header says the style, the number of bars, the first time signature and tempo, and the programs of the piece in the order
of the stream; what it leaves out is unknown. Section is the letter of a group of four bars, alike for groups with alike
music; Repeat is how many bars back is the bar whose notes are nearly the same; the two chords are those of the bar's halves.
All of it is computed from the notes of the ids, so that the same notes always have the same plan. Only the style cannot be: it
is a marker of the score, "style: NAME".

T tokens, N notes, M bars.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ..midi import chords
from .vocabulary import PLAN, Kind, Vocabulary, find, ids_of, is_kind

STYLES = ("chorale", "hymn", "lied", "piano", "orchestra", "pop-piano", "band", "drums")
STYLE_MARKER = "style: "
LENGTHS = (*range(1, 65), *range(72, 129, 8), 160, 192, 224, 256, 512)  # bars; a piece has the next larger one
SECTIONS = "ABCDEFGH"
REPEATS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64)  # bars back
TOKENS = (
    "Style_unknown", *(f"Style_{style}" for style in STYLES),
    "Length_unknown", *(f"Length_{bars}" for bars in LENGTHS),
    "Section_unknown", *(f"Section_{letter}" for letter in SECTIONS),
    "Repeat_unknown", "Repeat_0", *(f"Repeat_{bars}" for bars in REPEATS),
    "Chord_unknown", "Chord_-1:none", *(f"Chord_{root}:{quality}" for root, quality in chords.CHORDS),
)  # fmt: skip
GROUP = 4  # bars of a section's group
ALIKE_BARS = 0.7  # Jaccard index of the notes of two bars, of which one repeats the other
ALIKE_GROUPS = 0.45  # mean of the same index, coarser, of the bars of two groups with one letter
LEAST_NOTES = 3  # of a bar that can repeat one
ATTRIBUTES = 4  # tokens of a bar's plan
PARTS = ("style", "length", "timing", "programs", "sections", "repeats", "chords")  # timing: time signature and tempo
P_UNKNOWN = 0.15  # of each of these, in training


class Notes(NamedTuple):
    """The notes of ids; times in positions of the vocabulary, 12 a beat.

    Attributes:
        bar: number of its bar, from 0, (N,).
        start: from the bar line, (N,).
        program: id of its program, (N,).
        pitch: id of its pitch, (N,).
        duration: (N,).
        bar_lengths: of each bar, (M,).
    """

    bar: np.ndarray
    start: np.ndarray
    program: np.ndarray
    pitch: np.ndarray
    duration: np.ndarray
    bar_lengths: np.ndarray


class ScorePlan:
    """Reads and writes headers and attributes of ids.

    Args:
        table: the vocabulary.
        positions_a_beat: of its positions and durations.
    """

    def __init__(self, table: Vocabulary, positions_a_beat: int) -> None:
        self.styles, self.lengths, self.sections, self.repeats, self.chords = (
            {table[i].value: i for i in ids_of(table, kind).tolist()} for kind in PLAN
        )
        self._is_plan, self._is_style = is_kind(table, *PLAN), is_kind(table, Kind.STYLE)
        self._is_bar, self._is_position, self._is_program, self._is_signature, self._is_tempo = (
            is_kind(table, kind) for kind in (Kind.BAR, Kind.POSITION, Kind.PROGRAM, Kind.TIME_SIGNATURE, Kind.TEMPO)
        )
        self._is_pitch, self._is_drum = is_kind(table, Kind.NOTE_ON), is_kind(table, Kind.DRUM_ON)
        self._bos = find(table, Kind.BOS)
        self._bar_line = find(table, Kind.POSITION, 0)
        self._drums = find(table, Kind.PROGRAM, -1)
        # of each id its pitch, position or length, in positions
        self._value = np.zeros(len(table), np.int64)
        for i, (kind, value) in enumerate(table):
            if kind in (Kind.NOTE_ON, Kind.DRUM_ON, Kind.POSITION):
                self._value[i] = value
            elif kind == Kind.DURATION:
                self._value[i] = max(1, round(value * positions_a_beat))
            elif kind == Kind.TIME_SIGNATURE:
                self._value[i] = value[0] * positions_a_beat

    def without(self, ids: np.ndarray) -> np.ndarray:
        """Return ids without headers and attributes: what MidiTok reads, BOS and EOS included."""
        ids = np.asarray(ids, np.int64)
        keep = ~self._is_plan[ids]
        for begin in np.flatnonzero(self._is_style[ids]):
            keep[begin : begin + self.header_size(ids[begin:])] = False
        return ids[keep]

    def header_size(self, ids: np.ndarray) -> int:
        """Return how many ids at the beginning belong to a header, without BOS: all before the first bar."""
        bars = np.flatnonzero(self._is_bar[ids])
        return int(bars[0]) if len(bars) else len(ids)

    def header(
        self,
        plain: np.ndarray,
        style: str | None = None,
        bars: int | None = None,
        programs: Sequence[int] | None = None,
    ) -> np.ndarray:
        """Return the header of ids without a plan, without BOS.

        Args:
            plain: ids of the piece.
            style: one of `STYLES`; None for unknown.
            bars: of the whole piece; those of the ids if left out.
            programs: ids of all its programs; those of the ids if left out.
        """
        signatures, tempi = plain[self._is_signature[plain]][:1], plain[self._is_tempo[plain]][:1]
        bars = int(self._is_bar[plain].sum()) if bars is None else bars
        found = plain[self._is_program[plain]] if programs is None else np.asarray(programs, np.int64)
        return np.concatenate(
            [[self.styles[style], self.length(bars)], signatures, tempi, self.in_order(found)]
        ).astype(np.int64)

    def style_number(self, ids: np.ndarray) -> int:
        """Return the number of the style of a piece, from 1 and 0 for unknown."""
        return int(ids[1]) - self.styles[None] if len(ids) > 1 and self._is_style[ids[1]] else 0

    def with_unknown(self, ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return ids in which each of `PARTS` is unknown with probability `P_UNKNOWN`, (T',)."""
        is_unknown = rng.random(len(PARTS)) < P_UNKNOWN
        return self.without_parts(ids, [part for part, unknown in zip(PARTS, is_unknown, strict=True) if unknown])

    def without_parts(self, ids: np.ndarray, parts: Collection[str]) -> np.ndarray:
        """Return ids in which some of `PARTS` are unknown, (T',): ids are replaced, or left out of the header."""
        for part, kind in (("sections", self.sections), ("repeats", self.repeats), ("chords", self.chords)):
            if part in parts:
                first, last = min(kind.values()), max(kind.values())
                ids = np.where((ids >= first) & (ids <= last), kind[None], ids)
        begin = int(len(ids) > 0 and ids[0] == self._bos)
        if begin >= len(ids) or not self._is_style[ids[begin]]:
            return ids
        end = begin + self.header_size(ids[begin:])
        header = ids[begin:end].copy()
        left_out = np.zeros(len(header), bool)
        if "style" in parts:
            header[0] = self.styles[None]
        if "length" in parts:
            header[1] = self.lengths[None]
        if "timing" in parts:
            left_out |= self._is_signature[header] | self._is_tempo[header]
        if "programs" in parts:
            left_out |= self._is_program[header]
        return np.concatenate([ids[:begin], header[~left_out], ids[end:]])

    def with_header(
        self, ids: np.ndarray, *, style: str | None = None, bars: int | None = None, programs: Sequence[int] = ()
    ) -> np.ndarray:
        """Return ids with BOS and a header that says more of the piece than they do.

        Args:
            ids: the beginning of a piece, with BOS, a header and the attributes of its bars.
            style: one of `STYLES`; that of the ids if left out.
            bars: of the whole piece; None for unknown.
            programs: ids of those that play beside the ones of the ids.
        """
        size = 1 + self.header_size(ids[1:])
        rest = ids[size:]
        played = rest[self._is_program[rest]]
        said = ids[1:size]
        first = self.styles[style] if style is not None else next((i for i in said if i in self.styles.values()), -1)
        first = self.styles[None] if first < 0 else first
        others = said[self._is_signature[said] | self._is_tempo[said]]
        players = self.in_order(np.concatenate([played, np.asarray(programs, np.int64)]))
        return np.concatenate([ids[:1], [first, self.length(bars)], others, players, rest]).astype(np.int64)

    def header_from(
        self, ids: np.ndarray, starts: np.ndarray, bar: int, num_bars: int, programs: Sequence[int] | None = None
    ) -> np.ndarray:
        """Return BOS and the header of a piece as if it began at a bar, (T',) int64.

        Args:
            ids: of the piece.
            starts: the position of each of its bars, (M,) or longer.
            bar: where the piece is to begin.
            num_bars: of the whole piece.
            programs: ids of all that play; those of the piece's header if left out.
        """
        own, at = ids[: starts[0]], int(starts[bar])
        style = next((i for i in own.tolist() if self._is_style[i]), self.styles[None])
        is_known = self.lengths[None] not in own
        signature, tempo = (own[of[own]] for of in (self._is_signature, self._is_tempo))
        if bar and len(signature):
            signature = ids[at + 1 : at + 2]
        if bar and len(tempo):
            changes = np.flatnonzero(self._is_tempo[ids[:at]])
            tempo = ids[changes[-1:]] if len(changes) else tempo
            line = ids[at : at + 9]  # bar, time signature, four attributes, position, tempo
            now = [i for p, i in pairwise(line.tolist()) if p == self._bar_line and self._is_tempo[i]]
            tempo = np.array(now or tempo, np.int64)
        playing = own[self._is_program[own]] if programs is None else self.in_order(np.asarray(programs, np.int64))
        length = self.length(num_bars - bar if is_known else None)
        return np.concatenate([[self._bos, style, length], signature, tempo, playing]).astype(np.int64)

    def in_order(self, programs: np.ndarray) -> np.ndarray:
        """Return each of some program ids once, in the order of the stream: drums last."""
        each = np.unique(programs)
        return np.concatenate([each[each != self._drums], each[each == self._drums]])

    def length(self, bars: int | None) -> int:
        """Return the id of a number of bars."""
        return self.lengths[None if bars is None else next((n for n in LENGTHS if n >= bars), LENGTHS[-1])]

    def planned(self, plain: np.ndarray, style: str | None = None) -> np.ndarray:
        """Return the ids of a piece with its header and the attributes of its bars."""
        begin = int(len(plain) > 0 and plain[0] == self._bos)
        attributes = self.attributes(plain)
        behind = np.flatnonzero(self._is_bar[plain]) + 2  # bar and time signature
        with_attributes = np.insert(plain, np.repeat(behind, ATTRIBUTES), attributes.ravel())
        return np.concatenate([plain[:begin], self.header(plain, style), with_attributes[begin:]]).astype(np.int64)

    def attributes(self, plain: np.ndarray) -> np.ndarray:
        """Return the ids of section, repeat and two chords of each bar, (M, 4)."""
        notes = self.notes(plain)
        repeats = self.repeated(notes)
        labels = self.chords_of(notes)
        names = [chords.NO_CHORD, *chords.CHORDS]
        of_chord = np.array([self.chords[name] for name in names])
        of_section = np.array([self.sections[letter] for letter in SECTIONS])
        of_repeat = np.array([self.repeats.get(k, -1) for k in range(REPEATS[-1] + 1)])
        return np.column_stack(
            [of_section[self.section_numbers(notes)], of_repeat[repeats], of_chord[labels + 1].reshape(-1, 2)]
        ).astype(np.int64)

    def notes(self, plain: np.ndarray) -> Notes:
        """Return the notes of ids without a plan."""
        bar = np.cumsum(self._is_bar[plain]) - 1
        index = np.arange(len(plain))

        def latest(is_event: np.ndarray) -> np.ndarray:
            return np.maximum.accumulate(np.where(is_event[plain], index, -1))

        at = np.flatnonzero(self._is_pitch[plain] | self._is_drum[plain])
        at = at[(at + 2 < len(plain)) & (bar[at] >= 0)]
        position, program = latest(self._is_position)[at], latest(self._is_program)[at]
        bars = np.flatnonzero(self._is_bar[plain])
        signature = latest(self._is_signature)[np.minimum(bars + 1, len(plain) - 1)]
        lengths = np.where(signature >= 0, self._value[plain[signature]], 48)
        return Notes(
            bar[at],
            self._value[plain[position]],
            plain[program],
            plain[at],
            np.maximum(1, self._value[plain[at + 2]]),
            lengths,
        )

    def repeated(self, notes: Notes) -> np.ndarray:
        """Return how many bars back is the bar that each bar repeats, (M,); 0 for none."""
        code = (notes.program * 1024 + notes.pitch) * 1024 + notes.start
        best, found = np.full(len(notes.bar_lengths), ALIKE_BARS), np.zeros(len(notes.bar_lengths), np.int64)
        sets = _Sets(notes.bar, code, len(notes.bar_lengths))
        for back in REPEATS:
            if back >= len(found):
                break
            likeness = np.zeros(len(found))
            likeness[back:] = sets.likeness(back)
            is_better = (likeness > best + 1e-9) | ((likeness >= best) & (found == 0))
            is_better &= sets.size >= LEAST_NOTES
            best, found = np.where(is_better, likeness, best), np.where(is_better, back, found)
        return found

    def section_numbers(self, notes: Notes) -> np.ndarray:
        """Return the number of the section of each bar, (M,)."""
        num_bars = len(notes.bar_lengths)
        is_drum = self._is_drum[notes.pitch]
        pitch = np.where(is_drum, 12 + self._value[notes.pitch], self._value[notes.pitch] % 12)
        sets = _Sets(notes.bar, pitch * 1024 + notes.start // 6, num_bars)
        num_groups = -(-num_bars // GROUP)
        letters = np.zeros(num_groups, np.int64)
        alike = np.zeros((num_groups, num_groups))
        for back in range(1, num_groups):
            likeness = sets.likeness(back * GROUP)
            rows = np.arange(len(likeness)) // GROUP + back
            sums, counts = np.bincount(rows, likeness, num_groups), np.bincount(rows, minlength=num_groups)
            later = np.arange(back, num_groups)
            alike[later, later - back] = sums[later] / np.maximum(counts[later], 1)
        last = 0
        for group in range(1, num_groups):
            nearest = int(alike[group, :group].argmax())
            if alike[group, nearest] >= ALIKE_GROUPS:
                letters[group] = letters[nearest]
            else:
                last = min(last + 1, len(SECTIONS) - 1)
                letters[group] = last
        return np.repeat(letters, GROUP)[:num_bars]

    def chords_of(self, notes: Notes) -> np.ndarray:
        """Return the chord of each half bar, (2 M,) indices of `chords.CHORDS`; -1 for none."""
        num_bars = len(notes.bar_lengths)
        begins = np.concatenate([[0], np.cumsum(notes.bar_lengths)])
        edges = np.append(np.column_stack([begins[:-1], begins[:-1] + notes.bar_lengths // 2]).ravel(), begins[-1])
        pitched = np.flatnonzero(self._is_pitch[notes.pitch])
        start = begins[notes.bar[pitched]] + notes.start[pitched]
        end = np.minimum(start + notes.duration[pitched], begins[-1])
        first, last = np.searchsorted(edges, start, "right") - 1, np.searchsorted(edges, end, "left") - 1
        first, last = np.minimum(first, 2 * num_bars - 1), np.minimum(last, 2 * num_bars - 1)
        count = np.maximum(1, last - first + 1)
        note = np.repeat(np.arange(len(pitched)), count)
        half = first[note] + np.arange(len(note)) - np.repeat(np.cumsum(count) - count, count)
        overlap = np.minimum(end[note], edges[half + 1]) - np.maximum(start[note], edges[half])
        pitch = self._value[notes.pitch[pitched]][note]
        weights = np.zeros((2 * num_bars, 12))
        np.add.at(weights, (half, pitch % 12), np.maximum(overlap, 0))
        lowest = np.full(2 * num_bars, 999)
        is_long = overlap * 8 >= edges[half + 1] - edges[half]  # a passing note is no bass
        np.minimum.at(lowest, half[is_long], pitch[is_long])
        return chords.label(weights, np.where(lowest < 999, lowest % 12, -1))


class _Sets:
    """Sets of codes, one a bar, and the Jaccard index of each with the one so many bars back."""

    def __init__(self, bar: np.ndarray, code: np.ndarray, num_bars: int) -> None:
        self._scale = int(code.max(initial=0)) + 1
        self._keys = np.unique(bar * self._scale + code)
        self._bars = self._keys // self._scale
        self.size = np.bincount(self._bars, minlength=num_bars)

    def likeness(self, back: int) -> np.ndarray:
        """Return the index of bars `back`, …, (M - back,); 0 where both are empty."""
        later = self._keys[self._bars >= back]
        before = np.searchsorted(self._keys, later - back * self._scale)
        is_in = self._keys[np.minimum(before, len(self._keys) - 1)] == later - back * self._scale
        both = np.bincount(later[is_in] // self._scale, minlength=len(self.size))[back:]
        return both / np.maximum(1, self.size[back:] + self.size[: len(self.size) - back] - both)
