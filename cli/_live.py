"""Music while it is sampled: JSON lines on standard output, and messages to a MIDI port in real time."""

from __future__ import annotations

import heapq
import json
import queue
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ..errors import MusicLMError

if TYPE_CHECKING:
    from ..generation.composer import Composition
    from ..generation.stream import Event, Stream

DRUMS = 9  # the channel of General MIDI's drums
AHEAD = 2.0  # seconds of music that are sampled before playback starts


def check_port(name: str) -> None:
    """See that a MIDI output can be played to, before anything is sampled.

    Raises:
        MusicLMError: mido or its backend is not installed, or there is no such output.
    """
    try:
        import mido
    except ImportError as error:
        raise MusicLMError("--port needs mido and python-rtmidi: pip install 'musiclm[port]'") from error
    try:
        names = mido.get_output_names()
    except Exception as error:  # the backend is loaded only now, and each of them raises errors of its own
        raise MusicLMError(
            f"mido reaches no MIDI outputs here ({error}): pip install 'musiclm[port]', or use --stream"
        ) from error
    if name not in names:
        available = ", ".join(map(repr, names)) or "none at all"
        raise MusicLMError(f"no MIDI output '{name}': there is {available}")


def listen(stream: Stream, *, write: bool, port: str | None) -> None:
    """Write a stream's events to standard output and play them as they are sampled, until it has ended."""
    events: Iterable[Event] = stream.events()
    if write:
        events = _written(events)
    if port is not None:
        import mido

        with mido.open_output(port) as out:
            play(events, out)
    else:
        for _ in events:
            pass


def write_end(composition: Composition, *, model: str, seed: int) -> None:
    """Write the last line of a stream: the whole of it."""
    _write(
        {
            "event": "end",
            "start": composition.seconds,
            "model": model,
            "seed": seed,
            "num_notes": composition.num_notes,
            "num_tokens": composition.num_new_tokens,
            "bars": composition.num_bars,
            "ended": composition.ended,
            "redrawn": composition.num_resampled,
            "redrawn_for": dict(composition.resampled),
        }
    )


def _written(events: Iterable[Event]) -> Iterator[Event]:
    from ..generation.stream import to_json

    for event in events:
        _write(to_json(event))
        yield event


def _write(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()  # a reader wants each line at once


def play(events: Iterable[Event], out: Any) -> None:
    """Play events to a mido output at their times, counted from now. Every note is ended, whatever happens.

    The events are sampled in another thread, so that the model does not delay the music.
    """
    sampled: queue.Queue[Event | BaseException | None] = queue.Queue()
    stop = threading.Event()

    def sample() -> None:
        try:
            for event in events:
                sampled.put(event)
                if stop.is_set():
                    return
            sampled.put(None)
        except BaseException as error:
            sampled.put(error)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        _play(sampled, out)
    finally:
        stop.set()
        for channel in range(16):  # All Notes Off
            _send(out, "control_change", channel=channel, control=123, value=0)
        thread.join(timeout=1.0)


def _play(sampled: queue.Queue[Event | BaseException | None], out: Any) -> None:
    from ..generation.stream import Note

    waiting: list[tuple[float, int, int, str, dict[str, int]]] = []  # time, ends first, number, message
    channels: dict[int, int] = {}
    began: float | None = None
    number, newest, has_ended = 0, 0.0, False
    while waiting or not has_ended:
        while not has_ended:
            try:
                event = sampled.get(timeout=0.0 if began is not None else 0.1)
            except queue.Empty:
                break
            if isinstance(event, BaseException):
                raise event
            if event is None:
                has_ended = True
                break
            newest = event.start
            if not isinstance(event, Note):
                continue
            for message, values in _messages(event, channels):
                at = event.end if message == "note_off" else event.start
                heapq.heappush(waiting, (at, message != "note_off", number, message, values))
                number += 1
        if began is None and (has_ended or newest > AHEAD):
            began = time.monotonic()
        now = -1.0 if began is None else time.monotonic() - began
        while waiting and waiting[0][0] <= now:
            _, _, _, message, values = heapq.heappop(waiting)
            _send(out, message, **values)
        time.sleep(0.002)


def _messages(note: Any, channels: dict[int, int]) -> Iterator[tuple[str, dict[str, int]]]:
    """Yield what plays a note, given the channels by program so far; the sixteenth program shares one with another."""
    channel = DRUMS
    if not note.drum:
        if note.program not in channels:
            free = [c for c in range(16) if c != DRUMS]
            channels[note.program] = free[len(channels) % len(free)]
            yield "program_change", {"channel": channels[note.program], "program": note.program}
        channel = channels[note.program]
    key = {"channel": channel, "note": note.pitch}
    yield "note_on", key | {"velocity": note.velocity}
    yield "note_off", key


def _send(out: Any, message: str, **values: int) -> None:
    import mido

    out.send(mido.Message(message, **values))
