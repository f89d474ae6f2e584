"""musiclm render."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

import click

from .. import rendering
from . import _console, _options

LONG = 600.0  # seconds of music above which a message says that it takes a while


@click.command("render", epilog="Examples: musiclm render song.mid -o song.wav; musiclm render song.mid -o song.mp3")
@click.argument("file", metavar="FILE")
@click.option(
    "-o", "--output", metavar="PATH", help=".wav (16 bit), .flac, .ogg or .mp3; - for WAV to standard output."
)
@_options.soundfont
@_options.force
@_options.json_output
@_options.quiet
def command(file: str, output: str | None, soundfont: str | None, force: bool, as_json: bool, quiet: bool) -> None:
    """Render the MIDI file FILE (- for standard input) to a sound file: stereo, 44.1 kHz, normalized.

    The default of PATH is FILE's name with .wav, in the current folder. A soundfont holds the sounds of the instruments.
    """
    began = time.monotonic()
    if output == "-" and as_json:
        raise click.UsageError("-o - writes the sound to standard output: not with --json")
    path = Path(output or f"{'musiclm' if file == '-' else Path(file).stem}.wav")
    if output == "-":
        _console.standard_output()
    else:
        rendering.check_output(path, force=force)
    rendering.find_soundfont(soundfont)
    data = _console.read_bytes(file)
    from .. import midi

    score = midi.parse(data, file)
    if (seconds := midi.seconds(score)) > LONG:
        _console.say(f"{_console.duration(seconds)} of music: this takes a while", quiet=quiet)
    if output == "-":
        with tempfile.TemporaryFile() as whole:
            rendered = rendering.render_to(score, whole, ".wav", soundfont=soundfont)
            whole.seek(0)
            shutil.copyfileobj(whole, _console.standard_output())
        sys.stdout.buffer.flush()
    else:
        rendered = rendering.render(score, path, soundfont=soundfont, force=force)
    took = time.monotonic() - began
    if as_json:
        _console.print_json(
            {
                "path": str(path),
                "num_notes": score.note_num(),
                "seconds": rendered.seconds,
                "gain_db": rendered.gain,
                "soundfont": str(rendered.soundfont),
                "seconds_elapsed": took,
            }
        )
        return
    if output != "-":
        click.echo(str(path))
    text = f"{_console.duration(rendered.seconds)} of sound in {took:.1f} s, rendered with {rendered.soundfont.name}"
    _console.say(text, quiet=quiet)
