"""The one function that reads music: MIDI of any kind, or abc, as a score that is mended in one way everywhere.

A player of MIDI has one program and one set of controllers per channel. So a track without a program of its own plays its
channel's, from whichever track that came; a track with a program of its own keeps it. A score has the two apart: each of
its tracks has one program and the controllers that its notes are played with.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from symusic import ControlChange, KeySignature, Note, PitchBend, Score, Tempo, TextMeta, TimeSignature, Track

from ..errors import MidiError, Reason
from . import abc, smf
from .smf import BEND, CONTROL, NOTE_OFF, NOTE_ON, PROGRAM, Event, MidiFile, unusable
from .snapping import on_bar_lines
from .timing import bar_line

VERSION = 2  # of what is read; a change makes corpora in the cache be built anew
MAX_NOTES = 500_000  # per piece; the longest of MAESTRO has 25,000
MAX_QUARTERS = 1 << 16  # of a piece: nine hours at 120
DRUM_CHANNEL = 9
ENDS_NOTES = (120, 123)  # the controllers "all sound off" and "all notes off"

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Reading:
    """A score as it was read, and how often each repair was made."""

    score: Score
    mended: Counter[str]


def read(path: str | Path) -> Score:
    """Return the score in a file of MIDI or abc; see `parse`.

    Raises:
        MidiError: the file does not exist, or cannot be used.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise MidiError(f"'{path}' cannot be read: {error.strerror or error}") from error
    return parse(data, str(path))


def parse(data: bytes, name: str) -> Score:
    """Return the score in the bytes of a file of MIDI or abc; errors call the file `name`. Repairs are logged (DEBUG).

    Raises:
        MidiError: see `read_music`.
    """
    reading = read_music(data, name)
    for what, count in reading.mended.items():
        log.debug("'%s': %d × %s", name, count, what)
    return reading.score


def read_music(data: bytes, name: str) -> Reading:
    """Return the score in the bytes of a file of MIDI or abc, mended.

    Mended are: notes that never end (they last to the end of their track, or to an "all notes off"), drum hits without
    length (a thirty-second), tempi of 0, time signatures n/2^k with n = 0 or k > 7, key signatures beyond seven accidentals;
    other notes without length are dropped, as no player sounds them. Of several tempi, time signatures or keys at one tick
    the last one holds, and one that is a few ticks late is moved to the start or the bar line; see `snapping.on_bar_lines`.
    The patterns of format 2 follow each other, each from a bar line on. SMPTE time is read at 120 quarters per minute. See
    `smf.parse` for the rest.

    Args:
        data: of a file; not empty.
        name: what errors call it; "….abc" and "….abc#7" are abc, and so is what begins with a field X: and is not MIDI.

    Raises:
        MidiError: the bytes are no music, are damaged beyond repair, hold no notes, more than `MAX_NOTES`, or music longer
            than `MAX_QUARTERS`; its `drop` says which.
    """
    if abc.is_abc(name) or abc.looks_like_abc(data):
        score, mended = abc.parse(data, name), Counter[str]()
    else:
        file = smf.parse(data, name)
        _check_bounds(file, name)
        score, mended = _score(file), file.mended
    if score.note_num() == 0:
        raise unusable(name, Reason.NO_LENGTHS if mended["notes without length dropped"] else Reason.NO_NOTES)
    if score.note_num() > MAX_NOTES:
        raise unusable(name, Reason.TOO_MANY_NOTES, f"{MAX_NOTES:,}")
    if max(t.end() for t in score.tracks) > MAX_QUARTERS * score.ticks_per_quarter:
        raise unusable(name, Reason.TOO_LONG, f"{MAX_QUARTERS:,}")
    return Reading(score, +mended)


def _check_bounds(file: MidiFile, name: str) -> None:
    """Check the size of the music before anything is computed that grows with it.

    Raises:
        MidiError: there are too many notes, or format 2 makes it too long.
    """
    events = [each for track in file.tracks for each in track.events.values()]
    if (
        sum(map(len, events)) > MAX_NOTES
        and sum(e[1] == NOTE_ON and e[3] > 0 for each in events for e in each) > MAX_NOTES
    ):
        raise unusable(name, Reason.TOO_MANY_NOTES, f"{MAX_NOTES:,}")
    if file.format == 2 and sum(track.end for track in file.tracks) > MAX_QUARTERS * file.ticks:
        raise unusable(name, Reason.TOO_LONG, f"{MAX_QUARTERS:,}")


def _score(file: MidiFile) -> Score:
    """Return the score of a file, with the repairs counted in the file."""
    score = Score(file.ticks)
    if file.format == 2:
        offset = 0
        for number, track in enumerate(file.tracks):
            part = MidiFile(1, file.ticks, file.qpm, [track], file.mended)
            _add(part, score, offset, is_pattern=number > 0)
            offset = round(bar_line(score, (offset + track.end) / file.ticks) * file.ticks)
        file.mended["patterns of format 2 put one after the other"] += len(file.tracks) - 1
    else:
        _add(file, score, 0, is_pattern=False)
    if file.qpm is not None:
        score.tempos = type(score.tempos)([Tempo(0, file.qpm)])
    file.mended.update(on_bar_lines(score))
    return score


def _add(file: MidiFile, score: Score, offset: int, *, is_pattern: bool) -> None:
    """Add the music of a file to a score, `offset` ticks later; a later pattern of format 2 begins with the defaults."""
    if is_pattern:
        score.tempos.append(Tempo(offset, 120.0))
        score.time_signatures.append(TimeSignature(offset, 4, 4))
    silent = []
    for track, events in zip(file.tracks, _by_channel(file), strict=True):
        tracks = []
        for channel in sorted(events):
            tracks += _tracks(events[channel], channel % 16 == DRUM_CHANNEL, track.end, file, offset)
        names = [content for _, kind, content in track.metas if kind == smf.NAME]
        lyrics = [TextMeta(tick + offset, _text(content)) for tick, content in _lyrics(track.metas)]
        if lyrics and not tracks:
            silent.append(Track("", 0, False))
            tracks = silent[-1:]
        for each in tracks:
            each.name = _text(names[-1]) if names else ""
        for lyric in lyrics:
            tracks[0].lyrics.append(lyric)
        for each in tracks:
            if each.notes:
                score.tracks.append(each)
        for meta in track.metas:
            _add_meta(meta, score, offset, file.mended)
    for each in silent:  # words alone, behind the tracks with notes
        score.tracks.append(each)


def _by_channel(file: MidiFile) -> list[dict[int, list[Event]]]:
    """Return for each track of a file its events by channel, those of other tracks that concern its notes among them."""
    users: dict[int, list[int]] = defaultdict(list)  # of each channel: which tracks have events on it
    for number, track in enumerate(file.tracks):
        for channel in track.events:
            users[channel].append(number)
    found = [dict(track.events) for track in file.tracks]
    for channel, tracks in users.items():
        if len(tracks) == 1:
            continue
        events = {t: file.tracks[t].events[channel] for t in tracks}
        state = {t: [e for e in events[t] if e[1] in (PROGRAM, CONTROL, BEND)] for t in tracks}
        players = [t for t in tracks if any(e[1] == NOTE_ON for e in events[t])]
        for number in players:
            others = [state[t] for t in tracks if t != number]
            foreign = _foreign(state[number], others, is_alone=len(players) == 1)
            if any(e[1] == PROGRAM for e in foreign):
                file.mended["tracks given their channel's program"] += 1
            if foreign:  # at one tick first the channel's, then the track's own events, in the order of the file
                found[number][channel] = sorted([*foreign, *events[number]], key=lambda e: e[0])
    return found


def _foreign(mine: list[Event], others: list[list[Event]], *, is_alone: bool) -> list[Event]:
    """Return the programs, controllers and bends of a channel that come from other tracks and hold for this one.

    For the only track with notes on the channel, all hold. Where tracks share a channel, a track's own program stays from
    where it is given. If then all programs are one, a player has one instrument with one state, so all controllers hold, as
    the pedal does that a piano's left hand brings along; else a track keeps its own, controller by controller.

    Args:
        mine: this track's own programs, controllers and bends.
        others: those of each other track.
        is_alone: whether this track alone has notes on the channel.
    """
    state = sorted((e for each in others for e in each), key=lambda e: e[0])
    if is_alone:
        return state
    first_own = min((e[0] for e in mine if e[1] == PROGRAM), default=None)
    programs = [e for e in state if e[1] == PROGRAM and (first_own is None or e[0] < first_own)]
    kept = [e for e in state if e[1] != PROGRAM]
    if len({e[2] for each in (mine, *others) for e in each if e[1] == PROGRAM}) > 1:
        own = {_slot(e) for e in mine}
        kept = [e for e in kept if _slot(e) not in own and not _ends_notes(e)]
    return sorted([*programs, *kept], key=lambda e: e[0])


def _ends_notes(event: Event) -> bool:
    return event[1] == CONTROL and event[2] in ENDS_NOTES


def _slot(event: Event) -> tuple[int, int]:
    """Return what of a channel's state an event sets: a controller by its number, or the bend."""
    return event[1], event[2] if event[1] == CONTROL else 0


def _tracks(events: list[Event], is_drum: bool, end: int, file: MidiFile, offset: int) -> list[Track]:
    """Return the tracks of the notes on one channel of one track, one per program; each has all its controllers."""
    notes = _notes(events, is_drum, end, file)
    if not len(notes):
        return []
    notes[:, 0] += offset
    controls = np.array([(e[0] + offset, e[2], e[3]) for e in events if e[1] == CONTROL], np.int64).reshape(-1, 3)
    bends = np.array([(e[0] + offset, e[2] + 128 * e[3] - 8192) for e in events if e[1] == BEND], np.int64)
    bends = bends.reshape(-1, 2)
    found = []
    for program in np.unique(notes[:, 4]).tolist():
        track = Track("", program, is_drum)
        time, duration, pitch, velocity, _ = notes[notes[:, 4] == program].T
        track.notes = Note.from_numpy(
            *_columns((time, np.int32), (duration, np.int32), (pitch, np.int8), (velocity, np.int8))
        )
        if len(controls):
            time, number, value = controls.T
            track.controls = ControlChange.from_numpy(
                *_columns((time, np.int32), (number, np.uint8), (value, np.uint8))
            )
        if len(bends):
            time, value = bends.T
            track.pitch_bends = PitchBend.from_numpy(*_columns((time, np.int32), (value, np.int32)))
        found.append(track)
    return found


def _columns(*pairs: tuple[np.ndarray, Any]) -> list[np.ndarray]:
    return [np.ascontiguousarray(column, kind) for column, kind in pairs]


def _notes(events: Iterable[Event], is_drum: bool, end: int, file: MidiFile) -> np.ndarray:
    """Return the notes of one channel, (N, 5) int64: tick, duration, pitch, velocity, program; in order of their onsets.

    A note-off ends the note of its pitch that began first.
    """
    rows: list[list[int]] = []  # tick, end or -1, pitch, velocity, program
    sounding: dict[int, list[int]] = {}
    program = 0
    for tick, kind, first, second in events:
        if kind == NOTE_ON and second:
            sounding.setdefault(first, []).append(len(rows))
            rows.append([tick, -1, first, second, program])
        elif kind in (NOTE_ON, NOTE_OFF):
            if waiting := sounding.get(first):
                rows[waiting.pop(0)][1] = tick
        elif kind == PROGRAM:
            program = first
        elif kind == CONTROL and first in ENDS_NOTES:
            for waiting in sounding.values():
                for i in [i for i in waiting if rows[i][0] < tick]:
                    rows[i][1] = tick
                    waiting.remove(i)
    if not rows:
        return np.zeros((0, 5), np.int64)
    notes = np.array(rows, np.int64)
    endless = notes[:, 1] < 0
    notes[endless, 1] = np.maximum(end, notes[endless, 0])
    notes[:, 1] -= notes[:, 0]
    if endless.any():
        file.mended["notes that never end given the end of their track"] += int(endless.sum())
        notes[endless & (notes[:, 1] == 0), 1] = file.ticks  # the track ends where they begin
    empty = notes[:, 1] <= 0
    if empty.any():
        if is_drum:
            notes[empty, 1] = max(1, file.ticks // 8)
            file.mended["drum hits without length given one"] += int(empty.sum())
        else:
            notes = notes[~empty]
            file.mended["notes without length dropped"] += int(empty.sum())
    return notes


def _lyrics(metas: list[tuple[int, int, bytes]]) -> list[tuple[int, bytes]]:
    """Return the lyrics of a track; karaoke files (.kar) have them as texts, beside texts that begin with @."""
    is_karaoke = any(kind == smf.TEXT and content[:1] == b"@" for _, kind, content in metas)
    kinds = (smf.LYRIC, smf.TEXT) if is_karaoke else (smf.LYRIC,)
    return [(tick, content) for tick, kind, content in metas if kind in kinds and content[:1] != b"@"]


def _add_meta(meta: tuple[int, int, bytes], score: Score, offset: int, mended: Counter[str]) -> None:
    """Add a tempo, a time signature, a key or a marker to a score, unless it has no meaning."""
    tick, kind, content = meta
    tick += offset
    if kind == smf.TEMPO:
        if len(content) < 3 or not any(content[:3]):
            mended["tempi of 0 dropped"] += 1
            return
        tempo = Tempo(tick, 120.0)
        tempo.mspq = int.from_bytes(content[:3], "big")
        score.tempos.append(tempo)
    elif kind == smf.TIME:
        if len(content) < 2 or content[0] == 0 or content[1] > 7:
            mended["time signatures without meaning dropped"] += 1
            return
        score.time_signatures.append(TimeSignature(tick, content[0], 1 << content[1]))
    elif kind == smf.KEY:
        sharps = (content[0] + 128) % 256 - 128 if content else 99
        if len(content) < 2 or abs(sharps) > 7 or content[1] > 1:
            mended["key signatures without meaning dropped"] += 1
            return
        score.key_signatures.append(KeySignature(tick, sharps, content[1]))
    elif kind in (smf.MARKER, smf.CUE):
        score.markers.append(TextMeta(tick, _text(content)))


def _text(content: bytes) -> str:
    """Return a text of a file: UTF-8, or else the Western encoding that older software used."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")
