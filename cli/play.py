"""musiclm play."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .. import rendering
from ..rendering import playing
from . import options, ui

if TYPE_CHECKING:
    from symusic import Score


@click.command("play", epilog="Example: musiclm play song.mid")
@click.argument("file", metavar="FILE")
@options.soundfont
@options.quiet
def command(file: str, soundfont: str | None, quiet: bool) -> None:
    """Play the MIDI file FILE (- for standard input) through this machine's player. Ctrl-C stops it."""
    playing.check_player()
    rendering.find_soundfont(soundfont)
    data = ui.read_bytes(file)
    from .. import scores

    play(scores.parse(data, file), soundfont, quiet=quiet)


def play(score: Score, soundfont: str | None = None, *, quiet: bool = False) -> None:
    """Play a score, by way of a file that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "music.wav"
        rendered = rendering.render(score, path, soundfont=soundfont)
        ui.say(f"{ui.duration(rendered.seconds)}, played with {rendered.soundfont.name}; Ctrl-C stops", quiet=quiet)
        playing.play(path)
