"""MIDI files of every shape, for prompts.py: bytes by name, written with mido as other programs would."""

from __future__ import annotations

import io
import random

import mido

TICKS = 480
Event = tuple[int, mido.Message]
Notes = list[tuple[int, int, int]]  # tick, ticks, pitch
TUNE: Notes = [(480 * i, 400, 60 + i % 7) for i in range(22)]  # ends within a bar of 3/4, 4/4 and 5/4


def tempo(qpm: float, at: int = 0) -> Event:
    return at, mido.MetaMessage("set_tempo", tempo=round(60e6 / qpm))


def metre(numerator: int, denominator: int, at: int = 0) -> Event:
    return at, mido.MetaMessage("time_signature", numerator=numerator, denominator=denominator)


def played(channel: int, notes: Notes, program: int | None = 0) -> list[Event]:
    events: list[Event] = []
    if program is not None:
        events.append((0, mido.Message("program_change", channel=channel, program=program)))
    for at, length, pitch in notes:
        events.append((at, mido.Message("note_on", channel=channel, note=pitch, velocity=80)))
        events.append((at + length, mido.Message("note_on", channel=channel, note=pitch, velocity=0)))
    return events


def file(kind: int, *tracks: list[Event], ticks: int = TICKS) -> bytes:
    """Return the bytes of a MIDI file; what ends at a tick comes before what begins there."""
    made = mido.MidiFile(type=kind, ticks_per_beat=ticks)
    for events in tracks:
        track, now = mido.MidiTrack(), 0
        for at, message in sorted(events, key=lambda e: (e[0], getattr(e[1], "velocity", -1))):
            track.append(message.copy(time=at - now))
            now = at
        made.tracks.append(track)
    data = io.BytesIO()
    made.save(file=data)
    return data.getvalue()


def moved(notes: Notes, ticks: int = 0, pitches: int = 0) -> Notes:
    return [(at + ticks, length, pitch + pitches) for at, length, pitch in notes]


def shapes() -> dict[str, bytes]:
    """Return the files."""
    rng = random.Random(0)
    drums = played(9, [(at, 100, 36) for at, _, _ in TUNE])
    bass = played(1, moved(TUNE, pitches=-24), 33)
    tune = played(0, TUNE)
    humanised = [(max(0, at + rng.randint(-30, 30)), 400 + rng.randint(-80, 80), pitch) for at, _, pitch in TUNE]
    slowing = [tempo(120 - 4 * i, 480 * i) for i in range(22)]
    waltz = [(t[0], t[1], t[2]) for t in TUNE[:12]]
    return {
        "type 0": file(0, [tempo(100), metre(3, 4), *tune, *bass, *drums]),
        "type 1": file(1, [tempo(120), metre(4, 4)], tune, bass, drums),
        "no tempo": file(1, tune),
        "no tempo, 3/4": file(1, [metre(3, 4)], tune),
        "tempo but no metre": file(1, [tempo(77)], tune),
        "tempo between two of the tokens'": file(1, [tempo(91.3), metre(4, 4)], tune),
        "20 quarters a minute": file(1, [tempo(20), metre(4, 4)], tune),
        "300 quarters a minute": file(1, [tempo(300), metre(4, 4)], tune),
        "12 quarters a minute": file(1, [tempo(12), metre(4, 4)], tune),
        "500 quarters a minute": file(1, [tempo(500), metre(4, 4)], tune),
        **{
            f"{n}/{d}": file(1, [metre(n, d), tempo(135)], tune)
            for n, d in ((2, 4), (5, 4), (6, 4), (2, 2), (3, 2), (3, 8), (6, 8), (7, 8), (9, 8), (12, 8), (15, 16), (17, 16))
        },
        "30 tracks": file(
            1, [tempo(100)], *[played(i % 9, [(480 * (i % 5), 200, 36 + i)], 4 * i) for i in range(30)]
        ),
        "30 tracks of one instrument": file(
            1, [tempo(100), metre(4, 4)], *[played(i % 9, [(480 * i, 480, 40 + i)], 48) for i in range(30)]
        ),
        "drums only": file(1, [tempo(120)], drums),
        "drums only, type 0": file(0, [tempo(96), metre(6, 8), *drums]),
        "one note": file(1, played(0, [(0, 480, 60)])),
        "one note of a tick": file(1, played(0, [(0, 1, 60)])),
        "one late note": file(1, played(0, [(480 * 50, 480, 60)])),
        "one long note": file(1, [tempo(120), metre(4, 4)], played(0, [(0, 480 * 40, 60)])),
        "lowest and highest": file(1, played(0, [(0, 480, 0), (480, 480, 127)])),
        "40 minutes": file(1, [tempo(120)], played(0, [(480 * i, 400, 48 + i % 24) for i in range(4800)])),
        "an upbeat as a bar of 1/4": file(1, [metre(1, 4), metre(3, 4, 480), tempo(100)], tune),
        "an upbeat before a rest": file(1, [metre(4, 4), tempo(100)], played(0, moved(TUNE, 480 * 3))),
        "an upbeat cut by a metre": file(1, [metre(4, 4), metre(4, 4, 480), tempo(100)], tune),
        "tempo changes": file(1, [metre(4, 4), *slowing], tune),
        "small tempo changes": file(1, [metre(4, 4), *[tempo(100 + (i % 3), 480 * i) for i in range(22)]], tune),
        "tempo changes off the grid": file(1, [metre(4, 4), *[tempo(90 + 7 * i, 433 * i) for i in range(20)]], tune),
        "a tempo behind the music": file(1, [tempo(100), tempo(40, 480 * 30), metre(4, 4)], tune),
        "the first tempo late": file(1, [tempo(90, 480 * 6), metre(4, 4)], tune),
        "metre changes": file(1, [metre(4, 4), metre(3, 4, 480 * 8), metre(6, 8, 480 * 14), tempo(110)], tune),
        "a metre within a bar": file(1, [metre(4, 4), metre(3, 4, 480 * 6), tempo(110)], tune),
        "a metre within a beat": file(1, [metre(4, 4), metre(3, 4, 480 * 6 + 240), tempo(110)], tune),
        "a metre behind the music": file(1, [metre(4, 4), metre(3, 4, 480 * 32), tempo(110)], tune),
        "a metre at the last bar": file(1, [metre(4, 4), metre(7, 8, 480 * 20), tempo(110)], tune),
        "a metre a tick late": file(1, [metre(3, 4, 1), tempo(110, 1)], tune),
        "empty first bars": file(1, [metre(3, 4), tempo(110)], played(0, moved(TUNE, 480 * 12))),
        "empty first bars in another metre": file(
            1, [metre(4, 4), metre(3, 4, 480 * 8), tempo(110)], played(0, moved(TUNE, 480 * 11))
        ),
        "notes that end at a bar line": file(1, [metre(4, 4), tempo(110)], played(0, [(480 * i, 480, 60) for i in range(16)])),
        "a note over the last bar line": file(1, [metre(4, 4), tempo(110)], played(0, [(480 * 3, 480 * 2, 60), (0, 480, 50)])),
        "a note just before a bar line": file(1, [metre(4, 4), tempo(110)], played(0, [*waltz, (480 * 16 - 1, 1, 72)])),
        "a note that begins just before a bar line": file(
            1, [metre(4, 4), tempo(110)], played(0, [*waltz, (480 * 16 - 5, 485, 72)])
        ),
        "humanised": file(1, [metre(4, 4), tempo(110)], played(0, humanised)),
        "triplets and quintuplets": file(
            1, [metre(4, 4), tempo(110)], played(0, [(160 * i, 160, 60) for i in range(24)]),
            played(1, [(96 * i, 96, 48) for i in range(40)], 24),
        ),
        "24 ticks": file(1, [metre(6, 8)], played(0, [(at // 20, 20, pitch) for at, _, pitch in TUNE]), ticks=24),
        "96 ticks": file(1, [metre(6, 8)], played(0, [(at // 5, 80, pitch) for at, _, pitch in TUNE]), ticks=96),
        "1,023 ticks": file(1, [metre(3, 4)], played(0, [(at * 1023 // 480, 800, p) for at, _, p in TUNE]), ticks=1023),
        "15,360 ticks": file(1, [metre(3, 4)], played(0, [(at * 32, 12800, p) for at, _, p in TUNE]), ticks=15360),
        "the same note on two tracks": file(1, [metre(4, 4)], tune, played(1, TUNE, 0)),
        "a note over itself": file(1, [metre(4, 4)], played(0, [(0, 1920, 60)]), played(1, [(480, 480, 60)], 0)),
        "a cluster of 60": file(1, [metre(4, 4)], played(0, [(0, 960, 30 + i) for i in range(60)])),
        "programs change on a channel": file(
            1, [metre(4, 4)], [*tune, (480 * 8, mido.Message("program_change", channel=0, program=40))]
        ),
        "no program": file(1, [metre(4, 4)], played(0, TUNE, None), played(3, moved(TUNE, pitches=12), None)),
        "empty tracks": file(1, [metre(4, 4)], [], tune, []),
        "notes that never end": file(
            1, [metre(4, 4)],
            [*tune, (0, mido.Message("note_on", note=40, velocity=80)), (480 * 24, mido.MetaMessage("text", text="x"))],
        ),
        "pedal, bends and texts": file(
            1,
            [metre(4, 4), (0, mido.MetaMessage("key_signature", key="F#m")), (9, mido.MetaMessage("lyrics", text="l\xe0"))],
            [*tune, *[(480 * i, mido.Message("control_change", control=64, value=127 * (i % 2))) for i in range(20)],
             *[(240 * i, mido.Message("pitchwheel", pitch=100 * i)) for i in range(20)]],
        ),
    }  # fmt: skip
