"""The ids of the two sides of a song, source and target, bar by bar alike; see `tokenizers.score_pairs`.

T tokens, M bars.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np
from symusic import Score

from .. import midi
from ..errors import MidiError
from ..midi.chords import NO_CHORD
from ..tokenizers.score import ScoreTokenizer
from ..tokenizers.score_pairs import ScorePairs
from ..tokenizers.vocabulary import Kind, find, ids_of, is_kind

Chords = tuple[tuple[int, str], ...]
"""(root, quality) of each half bar."""


class Sides:
    """Makes ids of parts of a song, each with all its bars.

    Args:
        tokenizer: for pairs.
        song: whose bars both sides have.
        style: of both sides; None for unknown.

    Attributes:
        lines: ids of each bar and its time signature, (M, 2).
        starts: of each bar, and the end of the last, in quarters, (M + 1,).
        left_out: how many notes of the song the ids do not have.

    Raises:
        MidiError: the ids cannot have the song's bars, or none of its notes.
    """

    def __init__(self, tokenizer: ScorePairs, song: Score, style: str | None) -> None:
        self.tokenizer, self.style = tokenizer, style
        ids, self.left_out = ScoreTokenizer.encode(tokenizer, song)
        ids = tokenizer.pad_with_silence(ids[:-1], midi.end(song))
        whole, num_bars = tokenizer.plan.without(ids), midi.num_bars(song)
        bars, starts = tokenizer.bars(whole)
        self._whole = self._until(whole, num_bars)
        self.lines = whole[np.column_stack([bars, bars + 1])][:num_bars]
        self.starts = np.append(starts[:num_bars], midi.bar_line(song, 0.0, num_bars))
        table = tokenizer.vocabulary
        self._is_tempo, self._is_chord = is_kind(table, Kind.TEMPO), is_kind(table, Kind.CHORD)
        self._bar_line = find(table, Kind.POSITION, 0)
        self._of_chord = {table[i].value: i for i in ids_of(table, Kind.CHORD).tolist()}
        self._check_bars(song)

    @property
    def num_bars(self) -> int:
        return len(self.lines)

    def _until(self, plain: np.ndarray, num_bars: int) -> np.ndarray:
        """Return ids without bars behind the last: an open one, or one that a note was rounded to."""
        bars = self.tokenizer.bars(plain)[0]
        return plain[: bars[num_bars]] if len(bars) > num_bars else plain

    def decoded(self) -> Score:
        """Return the song as its ids say it."""
        return self.tokenizer.decode(self._whole)

    def _check_bars(self, song: Score) -> None:
        """Refuse a song whose bars the ids do not have."""
        for i, (bar, start) in enumerate(zip(midi.bars(song), self.starts[:-1], strict=False)):
            signature = bar.numerator, bar.denominator
            is_known = find(self.tokenizer.vocabulary, Kind.TIME_SIGNATURE, signature) >= 0
            if not is_known or abs(bar.start - start) > 1e-3:
                what = "is at another place for it" if is_known else "has a time signature that it lacks"
                raise MidiError(
                    f"the model cannot read the song: bar {i + 1}, in {signature[0]}/{signature[1]}, {what}"
                )

    def harmony(self, part: Score | None = None) -> Chords:
        """Return the chords of a part of the song, (2 M,); of all of it if left out."""
        labels = self._harmony(self._whole if part is None else self._plain(part))
        table = self.tokenizer.vocabulary
        return tuple(table[i].value for i in labels.tolist())

    def _harmony(self, plain: np.ndarray) -> np.ndarray:
        return self.tokenizer.plan.attributes(plain)[:, 2:].ravel()

    def chord_ids(self, chords: Sequence[tuple[int, str]], first: int, last: int) -> np.ndarray:
        """Return the ids of a progression that begins with a bar, again and again up to another, (2 M,).

        Bars before and after have no chord.
        """
        ids = np.full(2 * self.num_bars, self._of_chord[NO_CHORD])
        ids[2 * first : 2 * last] = [self._of_chord[chords[i % len(chords)]] for i in range(2 * (last - first))]
        return ids

    @property
    def unknown_chords(self) -> np.ndarray:
        """Ids of chords that are not known, (2 M,)."""
        return np.full(2 * self.num_bars, self._of_chord[None])

    def side(self, part: Score, chords: np.ndarray, programs: Sequence[int] = ()) -> np.ndarray:
        """Return the ids of a part of the song, from BOS to EOS, with all its bars, (T,).

        Args:
            part: in the time of the song; it may have no notes.
            chords: ids of the chords of each half bar, (2 M,).
            programs: General MIDI programs that the header says beside those that play, -1 for drums.
        """
        ids = self.tokenizer.plan.planned(self._plain(part), self.style)
        ids[self._is_chord[ids]] = chords
        if programs:
            joining = [find(self.tokenizer.vocabulary, Kind.PROGRAM, program) for program in programs]
            ids = self.tokenizer.plan.with_header(ids, style=self.style, bars=self.num_bars, programs=joining)
        return ids

    def _plain(self, part: Score) -> np.ndarray:
        """Return the ids of a part without a plan, padded to all bars."""
        begun = self._whole[:1]
        if part.note_num():
            with contextlib.suppress(MidiError):  # none of its notes can be expressed
                begun = self.tokenizer.plan.without(ScoreTokenizer.encode(self.tokenizer, part)[0][:-1])
                begun = self._until(begun, self.num_bars)
        num_begun = len(self.tokenizer.bars(begun)[0])
        if not num_begun:  # a piece begins with its tempo
            tempo = self._whole[self._is_tempo[self._whole]][0]
            begun, num_begun = np.concatenate([begun, self.lines[0], [self._bar_line, tempo]]), 1
        return np.concatenate([begun, self.lines[num_begun:].ravel(), [self.tokenizer.eos]]).astype(np.int64)
