"""The state of a channel's controllers: what a track must send when it takes over a channel from another one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

VOLUME, PAN, EXPRESSION, SUSTAIN, MODULATION = 7, 10, 11, 64, 1
BANK = frozenset({0, 32})  # they select what the next program change means, so they go before it
DATA = frozenset({6, 38})  # the value of a parameter: upper and lower seven bits
RESET = 121  # MIDI RP-015: resets modulation, expression, pedals and bend, but neither volume nor pan nor bank
PEDALS = (64, 65, 66, 67)
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
        parameters: (upper, lower) seven bits of the RPN and NRPN sent so far.
    """

    def __init__(self) -> None:
        self.values: dict[int, int] = {}
        self.parameters: dict[Parameter, tuple[int, int]] = {}
        self._selected = {98: NO_PARAMETER, 99: NO_PARAMETER, 100: NO_PARAMETER, 101: NO_PARAMETER}
        self._kind = 100

    def control(self, number: int, value: int) -> None:
        """Follow a control change."""
        if number == RESET:
            for each in (MODULATION, EXPRESSION, *PEDALS):
                self.values.pop(each, None)
            self._selected = dict.fromkeys(self._selected, NO_PARAMETER)
        elif number in self._selected:
            self._kind = 98 if number < 100 else 100
            self._selected[number] = value
        elif number in DATA:
            self._set_parameter(number, value)
        elif number not in STATELESS:
            self.values[number] = value

    def _set_parameter(self, number: int, value: int) -> None:
        parameter = (self._kind, self._selected[self._kind + 1], self._selected[self._kind])
        if parameter[1:] != (NO_PARAMETER, NO_PARAMETER):
            upper, lower = self.parameters.get(parameter, PARAMETER_DEFAULTS.get(parameter, CENTRE))
            self.parameters[parameter] = (value, lower) if number == 6 else (upper, value)

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
            data = self.parameters.get(parameter, PARAMETER_DEFAULTS.get(parameter, CENTRE))
            yield from ((kind + 1, upper), (kind, lower), (6, data[0]), (38, data[1]))
        if touched:
            other = 98 if self._kind == 100 else 100
            for kind in (other, self._kind):  # what was selected last is what data entries change
                yield from ((kind + 1, self._selected[kind + 1]), (kind, self._selected[kind]))
