"""The masked span of a score: which bars and tracks are rewritten, by the names that users give them."""

from __future__ import annotations

import dataclasses
from itertools import takewhile

from symusic import Score, Track

from .. import midi
from ..errors import MidiError
from ..midi import theory


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedSpan:
    """The part of a score that is generated again.

    Attributes:
        start: in quarters; a bar line.
        stop: in quarters.
        tracks: indices of the tracks whose notes that begin there are masked; they play the new ones.
    """

    start: float
    stop: float
    tracks: tuple[int, ...]

    def num_bars(self, score: Score) -> int:
        """Return how many bars of a score begin within it."""
        upto = takewhile(lambda bar: bar.start < self.stop - 1e-6, midi.bars(score))
        return sum(bar.start >= self.start - 1e-6 for bar in upto)


def masked_span(
    score: Score, *, bars: tuple[int, int] | None = None, keep: str | None = None, accompany: bool = False
) -> MaskedSpan:
    """Return the masked span that a user asks for.

    Args:
        score: any.
        bars: the first and the last, counted from 1; None for all.
        keep: tracks to keep, with commas between: names, numbers from 1, "drums", instruments of General MIDI.
        accompany: keep all tracks, and add.

    Raises:
        MidiError: there are no such bars or tracks, or nothing is left to write.
    """
    playing = [i for i, track in enumerate(score.tracks) if len(track.notes)]
    num_bars = midi.num_bars(score)
    first, last = bars or (1, num_bars)
    if not 1 <= first <= last <= num_bars:
        asked = f"{first}" if first == last else f"{first} to {last}"
        raise MidiError(f"there are no bars {asked}: the piece has {num_bars}")
    kept = set(playing) if accompany else named_tracks(score, keep) if keep is not None else set()
    written = tuple(i for i in playing if i not in kept)
    if not written and not accompany:
        raise MidiError("all tracks are kept: nothing is left to write (--accompany adds to them)")
    start = midi.bar_line(score, 0.0, first - 1)
    found = MaskedSpan(start=start, stop=midi.bar_line(score, 0.0, last), tracks=written)
    if not without(score, found).note_num():
        raise MidiError("nothing of the piece would be kept: unconditional generation needs no --infill")
    return found


def named_tracks(score: Score, names: str) -> set[int]:
    """Return the indices of tracks by their names, numbers from 1, "drums" or instruments, with commas between.

    Raises:
        MidiError: there is no such track, or it has no notes.
    """
    playing = [i for i, track in enumerate(score.tracks) if len(track.notes)]
    found: set[int] = set()
    for name in (part.strip() for part in names.split(",")):
        if name.isdigit():
            chosen = [int(name) - 1] if 1 <= int(name) <= len(score.tracks) else []
        elif name.lower() == "drums":
            chosen = [i for i in playing if score.tracks[i].is_drum]
        else:
            called = [t.name.strip().lower() for t in score.tracks]
            chosen = [i for i in range(len(called)) if called[i] == name.lower()]
            chosen = chosen or [i for i in playing if name and name.lower() in called[i]]
            chosen = chosen or _of_instrument(score, playing, name)
        if not chosen:
            there = ", ".join(f"{i + 1} {_called(score.tracks[i])}" for i in playing)
            raise MidiError(f"no track '{name}': there are {there}")
        if not set(chosen) & set(playing):
            raise MidiError(f"the track '{name}' has no notes: nothing of it can be kept")
        found |= set(chosen)
    return found


def _of_instrument(score: Score, playing: list[int], name: str) -> list[int]:
    try:
        wanted = theory.programs(name)
    except ValueError:
        return []
    return [i for i in playing if not score.tracks[i].is_drum and score.tracks[i].program in wanted]


def _called(track: Track) -> str:
    return track.name.strip() or ("drums" if track.is_drum else f"program {track.program}")


def without(score: Score, where: MaskedSpan) -> Score:
    """Return a score without the masked notes: those of the span's tracks that begin within it."""
    kept = score.copy()
    tpq = score.ticks_per_quarter
    first, stop = round(where.start * tpq), round(where.stop * tpq)
    for i in where.tracks:
        track = kept.tracks[i]
        track.notes = type(track.notes)([n for n in track.notes if not first <= n.time < stop])
    return kept
