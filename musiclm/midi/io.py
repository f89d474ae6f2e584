"""Reading MIDI that may be damaged.

A score is a `symusic.Score` in ticks.
"""

from __future__ import annotations

import struct
from pathlib import Path

from symusic import Score

from ..errors import Drop, MidiError, Reason


def read(path: str | Path) -> Score:
    """Return the score in a MIDI file.

    Raises:
        MidiError: the file does not exist, is not MIDI, is damaged, or holds no notes.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise MidiError(f"'{path}' cannot be read: {error.strerror or error}") from error
    return parse(data, str(path))


def parse(data: bytes, name: str) -> Score:
    """Return the score in the bytes of a MIDI file; errors call the file `name`.

    The chunks of the file are checked first, because a crash of the C++ parser cannot be caught.

    Raises:
        MidiError: the bytes are not MIDI, are damaged, or hold no notes; its `drop` says which.
    """
    _check_outline(data, name)
    try:
        score = Score.from_midi(data)
    except Exception as error:  # symusic raises RuntimeError, ValueError and others of its own
        details = str(error).splitlines()[0] or type(error).__name__
        raise MidiError(f"'{name}' is damaged MIDI: {details}", Drop(Reason.PARSER)) from error
    if score.note_num() == 0:
        raise _unusable(name, Reason.NO_NOTES)
    if score.start() < 0 or score.end() > 2**30:
        raise _unusable(name, Reason.MIDI_TIMES)
    for events in (score.tempos, score.time_signatures, score.key_signatures):
        for event in events:
            if (
                event.time < score.ticks_per_quarter / 16
            ):  # some software writes them a tick late, which would make a bar of one tick
                event.time = 0
    return score


def _unusable(name: str, reason: Reason) -> MidiError:
    return MidiError(f"'{name}' {reason.text}", Drop(reason))


def _check_outline(data: bytes, name: str) -> None:
    """Check the chunks of a MIDI file.

    Raises:
        MidiError: see `parse`.
    """
    if not data:
        raise _unusable(name, Reason.EMPTY)
    if data[:4] == b"RIFF" and data[8:12] == b"RMID":
        raise _unusable(name, Reason.RIFF)
    if data[:4] != b"MThd":
        raise _unusable(name, Reason.NOT_MIDI)
    if len(data) < 14:
        raise _unusable(name, Reason.HEADER_CUT)
    length, _, num_tracks, division = struct.unpack(">IHHH", data[4:14])
    if length < 6 or 8 + length > len(data):
        raise _unusable(name, Reason.HEADER_LENGTH)
    if division == 0 or division & 0x8000:
        text = Reason.SMPTE.text.replace("…", f"{division:#06x}")
        raise MidiError(f"'{name}' {text}", Drop(Reason.SMPTE))
    at, found = 8 + length, 0
    while at + 8 <= len(data) and found < num_tracks:
        size = struct.unpack(">I", data[at + 4 : at + 8])[0]
        if at + 8 + size > len(data):
            raise _unusable(name, Reason.TRACK_CUT)
        found += data[at : at + 4] == b"MTrk"
        at += 8 + size
    if not found:
        raise _unusable(name, Reason.NO_TRACK)
