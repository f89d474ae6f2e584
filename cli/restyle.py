"""musiclm restyle."""

from __future__ import annotations

from typing import Any

import click

from ..generation.config import RESTYLE
from . import _options, _songs


@click.command(
    "restyle",
    cls=_options.GroupedCommand,
    groups=_songs.groups(),
    epilog="Example: musiclm restyle examples/lied.mid --style band --seed 1 -o out.mid",
)
@click.argument("song", metavar="SONG")
@_songs.options
def command(song: str, **given: Any) -> None:
    """Write the MIDI file SONG (- for standard input) in another style, that of --style.

    The melody and the harmony stay: the notes of the melody go to the instrument that leads in the style, and the parts
    of the style are written to them. The melody is the track of that name, or of a voice, else the highest notes.

    --chords replace the harmony; they begin with the first bar that is written. With --bars all else stays as it is.

    Each 8 bars are the best of 8 that are sampled (--draw), by harmony, probability and density. -n 8 --keep 2 writes the
    best two of eight whole songs.
    """
    _songs.run(RESTYLE, song, given)
