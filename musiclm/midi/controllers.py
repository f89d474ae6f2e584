"""The state of a channel's controllers: what is in force at a time, for other music to begin with or to reset.

Numbers are those of the MIDI 1.0 specification (1996). Channel mode messages (120 and later) are no state and are not
carried. After "reset all controllers" (121) volume, pan, bank, sound and effects stay, as RP-015 (1999) recommends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from symusic import ControlChange, PitchBend

VOLUME, PAN, EXPRESSION, SUSTAIN, MODULATION = 7, 10, 11, 64, 1
BANK = frozenset({0, 32})  # they select what the next program change means, so they go before it
DATA = frozenset({6, 38})  # the value of a parameter: upper and lower seven bits
RESET = 121  # MIDI RP-015: resets modulation, expression, pedals and bend, but neither volume nor pan nor bank
PEDALS = (64, 65, 66, 67)
RELEASED = (MODULATION, SUSTAIN, 66, 67)  # 0 where other music begins: modulation, sustain, sostenuto, soft
STATELESS = frozenset({84, 88, 96, 97, *range(120, 128)})  # portamento start, velocity prefix, steps, channel modes
DEFAULTS = {7: 100, 8: 64, 10: 64, 11: 127, **dict.fromkeys(range(71, 79), 64)}  # General MIDI 2; all others 0
NO_PARAMETER = 127
Parameter = tuple[int, int, int]  # the controller that selects it (98 NRPN, 100 RPN), its upper and its lower number
PARAMETER_DEFAULTS: dict[Parameter, tuple[int, int]] = {(100, 0, 0): (2, 0)}  # bend range: 2 semitones; others: centre
CENTRE = (64, 0)


class State:
    """The controllers and the parameters (RPN, NRPN) of a track at one time.

    Attributes:
        values: of the controllers sent so far, by number.
        parameters: (upper, lower) seven bits of the RPN and NRPN sent so far; None for what was not sent. The upper ones reset
            the lower ones.
    """

    def __init__(self) -> None:
        self.values: dict[int, int] = {}
        self.parameters: dict[Parameter, tuple[int | None, int | None]] = {}
        self._selected = {98: NO_PARAMETER, 99: NO_PARAMETER, 100: NO_PARAMETER, 101: NO_PARAMETER}
        self._kind = 100

    def control(self, number: int, value: int) -> None:
        """Follow a control change."""
        if number == RESET:
            for each in (MODULATION, EXPRESSION, *PEDALS):
                self.values.pop(each, None)
            self._selected, self._kind = dict.fromkeys(self._selected, NO_PARAMETER), 100
        elif number in self._selected:
            kind = 98 if number < 100 else 100
            if kind != self._kind:
                self._kind = kind
                self._selected = dict.fromkeys(self._selected, NO_PARAMETER)
            self._selected[number] = value
        elif number in DATA:
            self._set_parameter(number, value)
        elif number not in STATELESS:
            self.values[number] = value

    def _set_parameter(self, number: int, value: int) -> None:
        parameter = (self._kind, self._selected[self._kind + 1], self._selected[self._kind])
        if parameter[1:] != (NO_PARAMETER, NO_PARAMETER):
            upper, _ = self.parameters.get(parameter, (None, None))
            self.parameters[parameter] = (value, None) if number == 6 else (upper, value)

    def sent(self) -> Iterator[tuple[int, int]]:
        """Yield the control changes, (number, value), that bring a channel that was just reset to this state."""
        yield from self.values.items()
        for (kind, upper, lower), data in self.parameters.items():
            yield from ((kind + 1, upper), (kind, lower))
            yield from ((number, value) for number, value in zip((6, 38), data, strict=True) if value is not None)
        selected = (self._kind + 1, self._selected[self._kind + 1]), (self._kind, self._selected[self._kind])
        if self.parameters or self._kind != 100 or {value for _, value in selected} != {NO_PARAMETER}:
            yield from selected

    def to_send(self, numbers: Iterable[int], parameters: Iterable[Parameter]) -> Iterator[tuple[int, int]]:
        """Yield the control changes, (number, value), that bring a channel of any state to this one.

        Args:
            numbers: controllers that the channel may hold at another value than the default of MIDI.
            parameters: RPN and NRPN, likewise.
        """
        always = {VOLUME, PAN, EXPRESSION, SUSTAIN, MODULATION}
        for number in sorted(always.union(numbers, self.values)):
            yield number, self.values.get(number, DEFAULTS.get(number, 0))
        touched = sorted({*parameters, *self.parameters})
        for parameter in touched:
            kind, upper, lower = parameter
            default = PARAMETER_DEFAULTS.get(parameter, CENTRE)
            sent = self.parameters.get(parameter, (None, None))
            data = [each if each is not None else other for each, other in zip(sent, default, strict=True)]
            yield from ((kind + 1, upper), (kind, lower), (6, data[0]), (38, data[1]))
        if touched:
            other = 98 if self._kind == 100 else 100
            for kind in (other, self._kind):  # what was selected last is what data entries change
                yield from ((kind + 1, self._selected[kind + 1]), (kind, self._selected[kind]))


def in_force(track: Any, tick: int, at: int) -> tuple[list[ControlChange], list[PitchBend]]:
    """Return controllers and pitch bend of a track in force at a tick, as events at time `at`.

    Events at the tick itself count; of several at one tick the last. A pitch bend of 0 is left out.
    """
    controls = [c for c in sorted(track.controls, key=lambda c: c.time) if c.time <= tick]
    bends = [b for b in sorted(track.pitch_bends, key=lambda b: b.time) if b.time <= tick][-1:]
    resets = [c.time for c in controls if c.number == RESET][-1:]
    if bends and resets and bends[0].time <= resets[0]:
        bends = []
    state = State()
    for each in controls:
        state.control(each.number, each.value)
    return (
        [ControlChange(at, number, value) for number, value in state.sent()],
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
