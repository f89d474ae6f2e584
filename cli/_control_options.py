"""Options that say what new music keeps to: fields of `Request`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

OPTIONS = [
    click.option(
        "--instruments", metavar="NAMES", help="Only these: piano,bass / violin / 0,33 / drums; not all need to."
    ),
    click.option("--tempo", type=float, metavar="BPM", help="Quarters a minute, exactly this in the file."),
    click.option("--time-signature", metavar="N/D", help="3/4, 6/8, …; from the next bar line on."),
    click.option("--key", metavar="KEY", help="'C major', 'f# minor', 'd dorian', …: no notes outside it."),
    click.option("--key-strength", type=float, metavar="0…1", help="Below 1 the key is a leaning (1 if left out)."),
    click.option(
        "--pitch-range", metavar="LOW-HIGH", help="C3-C6 or 48-84; C4 is 60. Drums are free, of key and range."
    ),
    click.option("--max-polyphony", type=int, metavar="N", help="At most N notes sound at once, drums not counted."),
]


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options; they come as keyword arguments, by the names of `Controls`."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command
