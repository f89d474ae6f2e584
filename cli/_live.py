"""Music while it is drawn: JSON lines on standard output, and messages to a MIDI port in real time."""

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
    from ..generation.composer import Composer, Composition
    from ..generation.config import GenerationConfig
    from ..generation.prompt import Prompt
    from ..generation.stream import Event

DRUMS = 9  # the channel of General MIDI's drums
AHEAD = 2.0  # seconds of music that are drawn before the first of it is played


def check_port(name: str) -> None:
    """See that a MIDI output can be played to, before anything is drawn.

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
            f"mido reaches no MIDI outputs here ({error}): pip install 'musiclm[port]', or take --stream"
        ) from error
    if name not in names:
        known = ", ".join(map(repr, names)) or "none at all"
        raise MusicLMError(f"no MIDI output '{name}': there is {known}")


def perform(
    composer: Composer, prompt: Prompt, request: GenerationConfig, seed: int, *, stream: bool, port: str | None
) -> Composition:
    """Write events to standard output and play them as they are drawn; return the whole when it has ended."""
    arguments = {k: v for k, v in request.arguments().items() if k not in ("count", "live")}
    drawn = composer.stream(prompt, seed=seed, **arguments)
    events: Iterable[Event] = drawn.events()
    if stream:
        events = _written(events)
    if port is not None:
        import mido

        with mido.open_output(port) as out:
            play(events, out)
    else:
        for _ in events:
            pass
    composition = composer.streamed(drawn)
    if stream:
        _write(
            {
                "event": "end",
                "start": composition.seconds,
                "model": composer.checkpoint.name,
                "seed": seed,
                "num_notes": composition.num_notes,
                "num_tokens": composition.num_new_tokens,
                "bars": composition.num_bars,
                "ended": composition.ended,
                "redrawn": composition.redrawn,
            }
        )
    return composition


def _written(events: Iterable[Event]) -> Iterator[Event]:
    from ..generation.stream import to_json

    for event in events:
        _write(to_json(event))
        yield event


def _write(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()  # who reads along wants it now


def play(events: Iterable[Event], out: Any) -> None:
    """Play events to a mido output at their times, counted from now; what sounds is ended, whatever happens.

    They are drawn in a thread of their own, so that the model's work does not make the music late.
    """
    drawn: queue.Queue[Event | BaseException | None] = queue.Queue()
    stop = threading.Event()

    def draw() -> None:
        try:
            for event in events:
                drawn.put(event)
                if stop.is_set():
                    return
            drawn.put(None)
        except BaseException as error:
            drawn.put(error)

    thread = threading.Thread(target=draw, daemon=True)
    thread.start()
    try:
        _play(drawn, out)
    finally:
        stop.set()
        for channel in range(16):  # All Notes Off
            _send(out, "control_change", channel=channel, control=123, value=0)
        thread.join(timeout=1.0)


def _play(drawn: queue.Queue[Event | BaseException | None], out: Any) -> None:
    from ..generation.stream import Note

    waiting: list[tuple[float, int, int, str, dict[str, int]]] = []  # time, ends first, number, message
    channels: dict[int, int] = {}
    began: float | None = None
    number, newest, has_ended = 0, 0.0, False
    while waiting or not has_ended:
        while not has_ended:
            try:
                event = drawn.get(timeout=0.0 if began is not None else 0.1)
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
