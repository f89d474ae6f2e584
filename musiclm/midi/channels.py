"""Which channel plays which note: 15 channels for any number of tracks, and one channel for all drums.

Positions in a file are pairs (tick, number of the track): a player reads the tracks side by side, and at one tick in their
order. Knows nothing of bytes and nothing of controllers.
"""

from __future__ import annotations

import dataclasses
import math
from bisect import bisect_right
from collections import Counter, defaultdict

PITCHED = (*range(9), *range(10, 16))  # channels, counted from 0
DRUMS = 9  # the channel of drums in General MIDI
Position = tuple[float, float]
FOREVER: Position = (math.inf, math.inf)


@dataclasses.dataclass(kw_only=True)
class Stay:
    """A span of time in which a track owns a channel.

    Attributes:
        channel: 0 to 15.
        start: its first position; (0, -1) for the first owner of a channel, which has it from the beginning.
        end: the position at which another track takes over.
        previous: the numbers of the tracks that owned the channel before.
    """

    channel: int
    start: Position
    end: Position = FOREVER
    previous: frozenset[int] = frozenset()


@dataclasses.dataclass(kw_only=True)
class Part:
    """A track as the channels see it.

    Attributes:
        number: of the track in the score.
        program: General MIDI program or kit, 0 to 127.
        time: of its notes, in ticks, rising. Notes of one pitch do not overlap.
        end: of its notes, in ticks; changed where the file could not be played otherwise, see `share` and `drums`.
        pitch: of its notes.
        rings: when the sustain pedal releases each note, in ticks.
        channels: of its notes, filled in here.
        stays: the channels that it owned, in order of time, filled in here.
        programs: (tick, channel, program) of each program change to write, filled in here.
    """

    number: int
    program: int
    time: list[int]
    end: list[int]
    pitch: list[int]
    rings: list[int]
    channels: list[int] = dataclasses.field(default_factory=list)
    stays: list[Stay] = dataclasses.field(default_factory=list)
    programs: list[tuple[int, int, int]] = dataclasses.field(default_factory=list)

    def is_over(self, note: int, position: Position) -> bool:
        """Return whether a note can have ended at a position, if need be by a tick less; see `end_before`."""
        tick, number = position
        end = self.end[note]
        return end < tick or (end == tick and (self.number <= number or end - self.time[note] > 1))

    def end_before(self, note: int, position: Position) -> None:
        """End a note at a position or before it; a tick before it if its note-off stands behind it in the file."""
        tick, number = position
        is_late = self.number > number and tick - self.time[note] > 1
        self.end[note] = min(self.end[note], int(tick) - is_late)


class _Channel:
    """One channel while the notes are dealt out."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.owner: Part | None = None
        self.stay: Stay | None = None
        self.held: dict[int, list[tuple[Part, int]]] = {}  # the notes begun last at each pitch
        self.rings = 0  # until when they sound, the pedal counted
        self.silent = -1  # when the last key goes up, or later; -1 before the first note

    def is_free(self, position: Position) -> bool:
        """Return whether all keys are up at a position."""
        if self.silent < position[0]:
            return True
        held = [each for notes in self.held.values() for each in notes]
        self.silent = max(part.end[note] for part, note in held)
        return all(part.is_over(note, position) for part, note in held)

    def sounds(self, pitch: int, position: Position) -> bool:
        """Return whether a pitch sounds at a position."""
        return not all(part.is_over(note, position) for part, note in self.held.get(pitch, ()))

    def is_done(self, position: Position) -> bool:
        """Return whether the owner plays no more notes at or after a position."""
        return self.owner is not None and (self.owner.time[-1], self.owner.number) < position

    def add(self, part: Part, note: int) -> None:
        """Begin a note. What sounds at its pitch ends here, and the note lasts as long as that would have lasted."""
        position = (part.time[note], part.number)
        together = []
        for other, i in self.held.get(part.pitch[note], ()):
            if not other.is_over(i, position):
                part.end[note] = max(part.end[note], other.end[i])
            if other.time[i] == position[0]:
                together.append((other, i))
            else:
                other.end_before(i, position)
        for other, i in together:
            other.end[i] = part.end[note]
        self.held[part.pitch[note]] = [*together, (part, note)]
        self.rings = max(self.rings, part.rings[note], part.end[note])
        self.silent = max(self.silent, part.end[note])
        part.channels[note] = self.number


def fixed(parts: list[Part], channels: list[int]) -> None:
    """Give each part a channel of its own for the whole time."""
    for part, channel in zip(parts, channels, strict=True):
        part.stays.append(Stay(channel=channel, start=(0, -1)))
        part.programs.append((0, channel, part.program))
        part.channels[:] = [channel] * len(part.time)


def share(parts: list[Part]) -> list[tuple[int, Part, Part]]:
    """Share the 15 pitched channels over time, note by note in the order of the file.

    A part without a channel takes the first of these: the one that it had last, one never used, one whose owner plays no
    more, the one whose owner has been silent longest. Notes that the sustain pedal holds count as sounding; they are cut
    off only where every channel sounds and some by the pedal alone. While more than 15 parts sound, those of one program
    join on one channel. So a note is heard in another program only where more than 15 programs sound at once: then the
    nearest sounding one of its family of General MIDI (eight programs each) plays it, else the nearest of all.

    A note-off ends all notes of its pitch on its channel. So where parts on one channel play one pitch, a note ends where
    the next begins, which then lasts as long as any of them, and notes that begin together end together. A note also ends
    a tick early where its channel goes to another part whose chunk stands before its own, which would miss the note-off.

    Returns:
        Where a note is heard in another program: (tick, the part, the part that plays its note), in order of time.
    """
    channels = [_Channel(number) for number in PITCHED]
    last: dict[int, _Channel] = {}  # of each part
    written: dict[tuple[int, int], int] = {}  # the last program that a part wrote on a channel
    replaced: list[tuple[int, Part, Part]] = []
    crowds = _Crowds(parts)
    for tick, number, note, part in sorted(
        ((t, p.number, i, p) for p in parts for i, t in enumerate(p.time)), key=lambda each: each[:3]
    ):
        position = (tick, number)
        channel = None
        if crowds.meet(tick, part.end[note]):
            channel = _joined(channels, part, position)
        if channel is None and number in last and last[number].owner is part:
            channel = last[number]
        if channel is None:
            free = [c for c in channels if c.is_free(position)]
            if free:
                channel = last[number] = _best(free, last.get(number), position)
                _take(channel, part, position)
                written[number, channel.number] = part.program
            else:
                channel = min(channels, key=lambda c: _distance(c, part, note))
        assert channel.owner is not None
        if channel.owner is not part and written.get((number, channel.number)) != channel.owner.program:
            part.programs.append((tick, channel.number, channel.owner.program))
            written[number, channel.number] = channel.owner.program
        if channel.owner.program != part.program:
            replaced.append((tick, part, channel.owner))
        channel.add(part, note)
    _silent_parts(parts, [c.number for c in channels if c.owner is None])
    return replaced


class _Crowds:
    """The spans of time in which more parts sound than there are channels."""

    def __init__(self, parts: list[Part]) -> None:
        steps: Counter[int] = Counter()
        for part in parts:
            begin = end = -1  # of what sounds without a gap
            for start, stop in zip(part.time, part.end, strict=True):
                if start > end:
                    steps[begin] += 1
                    steps[end] -= 1
                    begin, end = start, stop
                end = max(end, stop)
            steps[begin] += 1
            steps[end] -= 1
        self._starts: list[int] = []
        self._ends: list[int] = []
        count = 0
        for tick in sorted(steps):
            before, count = count, count + steps[tick]
            if before <= len(PITCHED) < count:
                self._starts.append(tick)
            elif count <= len(PITCHED) < before:
                self._ends.append(tick)

    def meet(self, start: int, end: int) -> bool:
        """Return whether a note sounds in one of the spans."""
        at = bisect_right(self._ends, start)
        return at < len(self._starts) and self._starts[at] < end


def _joined(channels: list[_Channel], part: Part, position: Position) -> _Channel | None:
    """Return the channel on which the program of a part sounds already; of several the one that sounds longest."""
    same = [c for c in channels if c.owner is not None and c.owner.program == part.program and not c.is_free(position)]
    return max(same, key=lambda c: (c.silent, c.owner is part), default=None)


def _best(free: list[_Channel], last: _Channel | None, position: Position) -> _Channel:
    """Return the channel to take of those without a key down."""

    def order(channel: _Channel) -> tuple[float, ...]:
        rings = channel.rings > position[0]
        since = channel.silent if rings else channel.rings
        return rings, channel is not last, channel.owner is not None, not channel.is_done(position), since

    return min(free, key=order)


def _take(channel: _Channel, part: Part, position: Position) -> None:
    """Make a part the owner of a channel."""
    for other, note in (each for notes in channel.held.values() for each in notes):
        other.end_before(note, position)
    stay = Stay(channel=channel.number, start=(0, -1))
    if channel.stay is not None and channel.owner is not None:
        channel.stay.end = position
        previous = channel.stay.previous | {channel.owner.number}
        stay = Stay(channel=channel.number, start=position, previous=previous)
    part.programs.append((int(stay.start[0]), channel.number, part.program))
    part.stays.append(stay)
    channel.stay, channel.owner, channel.rings, channel.silent, channel.held = stay, part, 0, -1, {}


def _distance(channel: _Channel, part: Part, note: int) -> tuple[int, ...]:
    """Return how badly a sounding channel plays a note of another part."""
    assert channel.owner is not None
    wanted, heard = part.program, channel.owner.program
    is_unison = channel.sounds(part.pitch[note], (part.time[note], part.number))
    return wanted != heard, wanted // 8 != heard // 8, is_unison, abs(wanted - heard), channel.number


def _silent_parts(parts: list[Part], unused: list[int]) -> None:
    """Give parts without notes the channels never used; the rest write their program where all music has ended."""
    end = max((max(p.end) for p in parts if p.end), default=0)
    for part in parts:
        if not part.time and unused:
            fixed([part], [unused.pop(0)])
        elif not part.time:
            part.programs.append((end, PITCHED[0], part.program))


def drums(parts: list[Part]) -> None:
    """Put all drum parts onto their channel, changing the kit wherever the next hit needs another one.

    A note-off on a channel ends what sounds there at its pitch, whatever track it stands in. So over all drum parts a note
    ends where the next of its pitch begins, and notes of one pitch that begin together end together, at the latest end.
    """
    fixed(parts, [DRUMS] * len(parts))
    _separate(parts)
    if len({part.program for part in parts}) < 2:
        return
    first = [(0, p.number, -1, at) for at, p in enumerate(parts)]  # each part writes its kit at the beginning
    kit = None
    for tick, _, note, at in sorted(
        first + [(t, p.number, i, at) for at, p in enumerate(parts) for i, t in enumerate(p.time)]
    ):
        part = parts[at]
        if note >= 0 and kit != part.program:
            part.programs.append((tick, DRUMS, part.program))
        kit = part.program


def _separate(parts: list[Part]) -> None:
    """Keep notes of one pitch apart, over all parts; see `drums`."""
    if sum(bool(part.time) for part in parts) < 2:
        return
    by_pitch: dict[int, dict[int, list[tuple[Part, int]]]] = defaultdict(lambda: defaultdict(list))
    for part in parts:
        for note, (time, pitch) in enumerate(zip(part.time, part.pitch, strict=True)):
            by_pitch[pitch][time].append((part, note))
    for groups in by_pitch.values():
        times = sorted(groups)
        for time, following in zip(times, [*times[1:], None], strict=True):
            end = max(part.end[note] for part, note in groups[time])
            if following is not None and end >= following:
                before = min(part.number for part, _ in groups[following])
                is_late = any(part.number > before for part, _ in groups[time])
                end = max(time + 1, following - is_late)
            for part, note in groups[time]:
                part.end[note] = end
