"""Parts of a score: its melody, and pairs of given and missing parts for sequence-to-sequence models.

A *pair* is a source, the notes that are given, and a target, the notes to write, of the same bars of one piece. Which notes
belong to which side follows from the score alone, so the same score always has the same pairs.

N notes. A note is (number of its track, number within the track); a part is a boolean mask for each track.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from symusic import Note, Score, Track

from .timing import BarMap, end

PAIRS_VERSIONS = (1, 2)  # which pairs a score has; of the first, marked sources are unknown
PAIRS_VERSION = PAIRS_VERSIONS[-1]
SOURCE = "source: "  # the names of tracks that are marked as the source of an aligned pair begin with it
MELODY_NAMES = (  # whole words of a track's name; an earlier one is preferred
    "melody", "melodie", "vocal", "vocals", "vox", "voice", "singer", "sing", "gesang", "singstimme", "canto", "chant",
    "soprano", "sopran", "lead", "solo",
)  # fmt: skip
VOICES = (52, 53, 54, 85)  # General MIDI programs: choir aahs, voice oohs, synth voice, and the lead "voice"
ALONE = 0.9  # of a part's notes that begin while no other of it sounds: it is monophonic enough for a melody
LEAST_NOTES = 8  # of a melody, a source, a target
LEAST_BARS = 0.25  # of all bars, in which a target has to play
NEAR = 24  # per quarter: notes that begin nearer to each other begin together

Part = list[np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Melody:
    """The melody of a score.

    Attributes:
        notes: of each its track and its number in the track, (N, 2) int64, in this order.
        found_by: "name" of a track, "program" of a voice, or "skyline".
    """

    notes: np.ndarray
    found_by: str


def melody(score: Score) -> Melody | None:
    """Return the melody of a score; None where it has no pitched notes.

    It is the track with a name such as MELODY, VOICE or LEAD, else the highest voice on a voice's program that is nearly
    monophonic. Else it is the skyline: the highest sounding note at each onset (Uitdenbogerd and Zobel, 1998).
    """
    pitched = [i for i, track in enumerate(score.tracks) if len(track.notes) and not track.is_drum]
    if not pitched:
        return None
    long_enough = [i for i in pitched if len(score.tracks[i].notes) >= LEAST_NOTES]
    named = [(rank, i) for i in long_enough if (rank := _name_rank(score.tracks[i])) is not None]
    singing = [i for i in long_enough if score.tracks[i].program in VOICES and _is_monophonic(score, i)]
    for found_by, chosen in (
        ("name", [i for rank, i in named if rank == min(named)[0]]),
        ("program", singing),
    ):
        if not chosen:
            continue
        track = max(chosen, key=lambda i: float(score.tracks[i].notes.numpy()["pitch"].mean()))
        if pitched != [track] or _is_monophonic(score, track):  # else it is both melody and accompaniment
            numbers = np.arange(len(score.tracks[track].notes))
            return Melody(notes=np.column_stack([np.full(len(numbers), track), numbers]), found_by=found_by)
    return Melody(notes=skyline(score), found_by="skyline")


def skyline(score: Score) -> np.ndarray:
    """Return the notes above which no other sounds when they begin, drums excepted, (N, 2) as `Melody.notes`."""
    track, number, start, stop, pitch = _pitched_notes(score)
    at = start + score.ticks_per_quarter // NEAR
    top = _highest(at, start, stop, pitch)
    chosen = np.flatnonzero(pitch >= top)
    # of notes on one pitch that begin together only the longest
    order = chosen[np.lexsort((number[chosen], track[chosen], -stop[chosen], pitch[chosen], start[chosen]))]
    is_again = (np.diff(start[order], prepend=-1) == 0) & (np.diff(pitch[order], prepend=-1) == 0)
    found = order[~is_again]
    found = found[np.lexsort((number[found], track[found]))]
    return np.column_stack([track[found], number[found]])


def extract_pairs(score: Score, version: int = PAIRS_VERSION) -> list[tuple[str, Score, Score]]:
    """Return the pairs of a score, at most one of each kind: (kind, source, target), in a fixed order.

    The kinds are "melody", where the melody is the source and all other notes are the target, and "drums", "bass", "keys",
    "strings" and "winds", where these instruments are the target and all others are the source. A source has pitched notes;
    a target plays in at least a quarter of the bars. Both keep tempo, time signatures and markers. Pairs that split the
    notes as an earlier one does are left out.

    A score with tracks whose names begin with "source: " is an aligned pair, one piece by different instruments: its one pair,
    "style", has these tracks as the source and all others as the target.

    Args:
        score: in ticks; it is not changed.
        version: one of `PAIRS_VERSIONS`.
    """
    found: list[tuple[str, Score, Score]] = []
    seen: set[bytes] = set()
    marked = _marked_split(score) if version > 1 else None
    for kind, given, missing in _splits(score) if marked is None else [marked]:
        split = np.concatenate([np.zeros(0, bool), *given]).tobytes()
        if split in seen or not _is_pair(score, given, missing):
            continue
        seen.add(split)
        found.append((kind, part(score, given), part(score, missing)))
    return found


def part(score: Score, chosen: Sequence[np.ndarray]) -> Score:
    """Return the score with some of its notes only, without the tracks that have none.

    Args:
        score: it is not changed.
        chosen: of each track which notes, booleans.
    """
    copied = score.copy()
    tracks = []
    for track, which in zip(copied.tracks, chosen, strict=True):
        if which.all() and len(which):
            tracks.append(track)
        elif which.any():
            track.notes = Note.from_numpy(**{name: column[which] for name, column in track.notes.numpy().items()})
            tracks.append(track)
    copied.tracks = type(copied.tracks)(tracks)
    return copied


def masks(score: Score, notes: np.ndarray) -> Part:
    """Return the boolean masks, one for each track, of notes (N, 2) as `Melody.notes`."""
    found = [np.zeros(len(track.notes), bool) for track in score.tracks]
    for track in np.unique(notes[:, 0]).tolist():
        found[track][notes[notes[:, 0] == track, 1]] = True
    return found


def _splits(score: Score) -> Iterator[tuple[str, Part, Part]]:
    """Yield all splits of the notes, those of `_FAMILIES` and of the melody, whether or not they make a pair."""
    tune = melody(score)
    if tune is not None:
        given = masks(score, tune.notes)
        yield "melody", given, [~which for which in given]
    for kind, belongs in _FAMILIES.items():
        missing = [np.full(len(track.notes), belongs(track)) for track in score.tracks]
        yield kind, [~which for which in missing], missing


def _marked_split(score: Score) -> tuple[str, Part, Part] | None:
    """Return the split of an aligned pair; None where no track is marked as its source."""
    marked = [track.name.lower().startswith(SOURCE) for track in score.tracks]
    given = [np.full(len(track.notes), mark) for track, mark in zip(score.tracks, marked, strict=True)]
    return ("style", given, [~which for which in given]) if any(marked) else None


def _has_program(*programs: range) -> Callable[[Track], bool]:
    return lambda track: not track.is_drum and any(track.program in each for each in programs)


_FAMILIES: dict[str, Callable[[Track], bool]] = {  # of each kind the tracks of its target
    "drums": lambda track: track.is_drum,
    "bass": _has_program(range(32, 40)),
    "keys": _has_program(range(8), range(16, 24)),
    "strings": _has_program(range(40, 52)),
    "winds": _has_program(range(56, 80)),
}


def _is_pair(score: Score, given: Part, missing: Part) -> bool:
    """Return whether both sides have notes enough, and the target plays in bars enough."""
    if sum(int(which.sum()) for which in missing) < LEAST_NOTES:
        return False
    pitched = zip(score.tracks, given, strict=True)
    if sum(int(which.sum()) for track, which in pitched if not track.is_drum) < LEAST_NOTES:
        return False
    bars = BarMap(score)
    num_bars = bars.num_bars(end(score))
    starts = np.array([bars[i].start for i in range(num_bars)]) * score.ticks_per_quarter
    onsets = [
        track.notes.numpy()["time"][which] for track, which in zip(score.tracks, missing, strict=True) if which.any()
    ]
    playing = np.unique(np.searchsorted(starts, np.concatenate(onsets) + 0.5, "right"))
    return len(playing) >= LEAST_BARS * num_bars


def _name_rank(track: Track) -> int | None:
    """Return the place in `MELODY_NAMES` of the first of them in a track's name; None for none."""
    words = set(re.findall(r"[a-z]+", track.name.lower()))
    return next((rank for rank, name in enumerate(MELODY_NAMES) if name in words), None)


def _is_monophonic(score: Score, track: int) -> bool:
    """Return whether nearly all notes of a track begin where no other of it sounds."""
    notes = score.tracks[track].notes.numpy()
    order = np.argsort(notes["time"], kind="stable")
    start, stop = notes["time"][order].astype(np.int64), (notes["time"] + notes["duration"])[order]
    before = np.concatenate([[-1], np.maximum.accumulate(stop)[:-1]])
    return float((start + score.ticks_per_quarter // NEAR >= before).mean()) >= ALONE


def _pitched_notes(score: Score) -> tuple[np.ndarray, ...]:
    """Return of all notes but drums the track, the number in it, start and end in ticks, and pitch, (N,) int64 each."""
    columns: list[list[np.ndarray]] = [[np.zeros(0, np.int64)] for _ in range(5)]
    for i, track in enumerate(score.tracks):
        if track.is_drum or not len(track.notes):
            continue
        notes = track.notes.numpy()
        size = len(track.notes)
        start = notes["time"].astype(np.int64)
        each = np.full(size, i), np.arange(size), start, start + notes["duration"], notes["pitch"].astype(np.int64)
        for column, values in zip(columns, each, strict=True):
            column.append(values)
    return tuple(np.concatenate(column) for column in columns)


def _highest(at: np.ndarray, start: np.ndarray, stop: np.ndarray, pitch: np.ndarray) -> np.ndarray:
    """Return the highest pitch that sounds at some times, of notes [start, stop), (times,); -1 where none sounds."""
    times = np.unique(at)
    first, last = np.searchsorted(times, start, "left"), np.searchsorted(times, stop, "left")
    top = np.full(len(times), -1, np.int64)
    for i in np.argsort(pitch, kind="stable").tolist():  # higher ones overwrite lower ones
        top[first[i] : last[i]] = pitch[i]
    return top[np.searchsorted(times, at)]
