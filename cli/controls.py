"""Options that say what new music keeps to, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..controls import Controls

NAMES = ("instruments", "tempo", "time_signature", "key", "key_strength", "pitch_range", "max_polyphony")
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
    """Give a command the options; they come as keyword arguments of `NAMES`."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def read(given: dict[str, Any]) -> Controls:
    """Return the controls of a command's keyword arguments.

    Raises:
        click.UsageError: one cannot be read.
    """
    from ..controls import Controls

    said = {name: given[name] for name in NAMES if given[name] is not None}
    if "key_strength" in said and "key" not in said:
        raise click.UsageError("--key-strength needs a --key")
    try:
        return Controls(**said)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
