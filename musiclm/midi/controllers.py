"""Controllers and pitch bend of a track: those in force at a time, and their reset where other music begins.

Numbers are those of the MIDI 1.0 specification (1996). Channel mode messages (120 and later) are no state and are not
carried. After "reset all controllers" (121) volume, pan, bank, sound and effects stay, as RP-015 (1999) recommends.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from symusic import ControlChange, PitchBend

from .pedal import PEDAL

MODULATION, SOSTENUTO, SOFT = 1, 66, 67
RELEASED = (MODULATION, PEDAL, SOSTENUTO, SOFT)  # 0 where other music begins
_DATA = (6, 38, 96, 97)  # of the parameter that was selected last
_SELECTS = (98, 99, 100, 101)  # the number of a parameter, registered (100, 101) or not
_NONE = ((101, 127), (100, 127))  # no parameter is selected
_RESET_BY_121 = (MODULATION, 11, PEDAL, 65, SOSTENUTO, SOFT)
_MODES, _RESET_ALL = 120, 121


def in_force(track: Any, tick: int, at: int) -> tuple[list[ControlChange], list[PitchBend]]:
    """Return controllers and pitch bend of a track in force at a tick, as events at time `at`.

    Events at the tick itself count; of several at one tick the last. A pitch bend of 0 is left out.
    """
    controls = [c for c in sorted(track.controls, key=lambda c: c.time) if c.time <= tick]
    bends = [b for b in sorted(track.pitch_bends, key=lambda b: b.time) if b.time <= tick][-1:]
    resets = [c.time for c in controls if c.number == _RESET_ALL][-1:]
    if bends and resets and bends[0].time <= resets[0]:
        bends = []
    return (
        [ControlChange(at, number, value) for number, value in _state(controls)],
        [PitchBend(at, bend.value) for bend in bends if bend.value],
    )


def release(track: Any, tick: int) -> None:
    """Release the pedals of a track at a tick, and reset modulation and pitch bend, where they are not 0; in place."""
    controls, bends = in_force(track, tick, tick)
    for control in controls:
        if control.number in RELEASED and control.value:
            track.controls.append(ControlChange(tick, control.number, 0))
    if bends:
        track.pitch_bends.append(PitchBend(tick, 0))


def _state(controls: Iterable[Any]) -> list[tuple[int, int]]:
    """Return (number, value) pairs that bring a channel to the state after controllers, in an order that does."""
    values: dict[int, int] = {}
    selected = _NONE
    data: dict[tuple[tuple[int, int], ...], list[tuple[int, int]]] = {}
    for c in controls:
        if c.number in _SELECTS:  # the high byte comes first: 101 or 99
            high, low = (pair[1] if pair[0] // 2 == c.number // 2 else 127 for pair in selected)
            first = c.number | 1
            selected = ((first, c.value), (first - 1, low)) if c.number % 2 else ((first, high), (first - 1, c.value))
        elif c.number in _DATA:
            sent = data.setdefault(selected, [])
            if c.number == 6:
                sent.clear()
            sent.append((c.number, c.value))
        elif c.number == _RESET_ALL:
            values = {n: v for n, v in values.items() if n not in _RESET_BY_121}
            selected = _NONE
        elif c.number < _MODES:
            values[c.number] = c.value
    data.pop(_NONE, None)  # without a parameter they do nothing
    pairs = list(values.items())
    for parameter, sent in data.items():
        pairs += [*parameter, *sent]
    return [*pairs, *selected] if data or selected != _NONE else pairs
