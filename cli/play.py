"""musiclm play."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .. import rendering
from ..rendering import player
from . import _console, _options

if TYPE_CHECKING:
    from symusic import Score


@click.command("play", epilog="Example: musiclm play song.mid")
@click.argument("file", metavar="FILE")
@_options.soundfont
@_options.quiet
def command(file: str, soundfont: str | None, quiet: bool) -> None:
    """Play the MIDI file FILE (- for standard input) through this machine's player. Ctrl-C stops it."""
    player.check_player()
    rendering.find_soundfont(soundfont)
    data = _console.read_bytes(file)
    from .. import midi

    play_score(midi.parse(data, file), soundfont, quiet=quiet)


def check_sound(paths: Sequence[Path], *, wav: bool, play: bool, soundfont: str | None, force: bool) -> None:
    """Say now what `write_sound` and `play_score` could not do: `generate` asks before it draws.

    Raises:
        AudioError: no soundfont, or nothing here can play.
        OutputError: a WAV file beside one of the paths could not be written.
    """
    if play:
        player.check_player()
    if wav or play:
        rendering.find_soundfont(soundfont)
    for path in paths if wav else ():
        rendering.check_output(path.with_suffix(".wav"), force=force)


def write_sound(music: Sequence[Score], paths: Sequence[Path], *, soundfont: str | None, force: bool) -> list[Path]:
    """Render each score beside its MIDI file, and return where to."""
    sounds = [path.with_suffix(".wav") for path in paths]
    for score, sound in zip(music, sounds, strict=True):
        rendering.render(score, sound, soundfont=soundfont, force=force)
    return sounds


def play_score(score: Score, soundfont: str | None = None, *, quiet: bool = False) -> None:
    """Play a score, by way of a file that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "music.wav"
        rendered = rendering.render(score, path, soundfont=soundfont)
        _console.say(
            f"{_console.duration(rendered.seconds)}, played with {rendered.soundfont.name}; Ctrl-C stops", quiet=quiet
        )
        player.play(path)
