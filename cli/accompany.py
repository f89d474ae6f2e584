"""musiclm accompany."""

from __future__ import annotations

from typing import Any

import click

from ..generation.config import ACCOMPANY
from . import _options, _songs


@click.command(
    "accompany",
    cls=_options.GroupedCommand,
    groups=_songs.groups("parts"),
    epilog="Example: musiclm accompany examples/lied.mid --parts bass,drums --style band --seed 1 -o out.mid",
)
@click.argument("song", metavar="SONG")
@click.option("--parts", metavar="NAMES", help="What to write: piano,bass,drums / 0,33 / strings.")
@_songs.options
def command(song: str, **given: Any) -> None:
    """Write parts beside the MIDI file SONG (- for standard input).

    All notes of SONG stay as they are, and each part is a new track. Without --parts these are the instruments of the
    style that SONG lacks; without --style, too, those of a band.

    --chords begin with the first bar that is written. Without them the parts follow the harmony of SONG; beside a melody
    alone the model finds one.

    Each 8 bars are the best of 8 that are sampled (--draw), by harmony, probability and density. -n 8 --keep 2 writes the
    best two of eight whole songs.
    """
    _songs.run(ACCOMPANY, song, given)
