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
    """Play the MIDI file FILE (- for standard input) by this machine's audio player. Ctrl-C stops it."""
    player.check_player()
    rendering.find_soundfont(soundfont)
    data = _console.read_bytes(file)
    from .. import midi

    play_score(midi.parse(data, file), soundfont, quiet=quiet)


def check_sound(paths: Sequence[Path], *, wav: bool, play: bool, soundfont: str | None, force: bool) -> None:
    """Check what `write_sound` and `play_score` need; `generate` calls this before it samples.

    Raises:
        AudioError: there is no soundfont or no player.
        OutputError: a WAV file beside one of the paths cannot be written.
    """
    if play:
        player.check_player()
    if wav or play:
        rendering.find_soundfont(soundfont)
    for path in paths if wav else ():
        rendering.check_output(path.with_suffix(".wav"), force=force)


def write_sound(music: Sequence[Score], paths: Sequence[Path], *, soundfont: str | None, force: bool) -> list[Path]:
    """Render each score beside its MIDI file, and return the paths."""
    sounds = [path.with_suffix(".wav") for path in paths]
    for score, sound in zip(music, sounds, strict=True):
        rendering.render(score, sound, soundfont=soundfont, force=force)
    return sounds


def play_score(score: Score, soundfont: str | None = None, *, quiet: bool = False) -> None:
    """Play a score, by way of a temporary file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "music.wav"
        rendered = rendering.render(score, path, soundfont=soundfont)
        _console.say(
            f"{_console.duration(rendered.seconds)}, played with {rendered.soundfont.name}; Ctrl-C stops", quiet=quiet
        )
        player.play(path)
