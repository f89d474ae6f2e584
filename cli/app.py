"""The group of commands, each loaded on first use. Here a MusicLMError becomes one line and exit code 1."""

from __future__ import annotations

import errno
import os
import sys
from importlib import import_module
from typing import Any

import click

from .. import __version__
from ..errors import MusicLMError
from . import _console, _streams

COMMANDS = {
    "generate": "Write new music, unconditionally or continuing a MIDI file.",
    "accompany": "Write parts beside a song.",
    "restyle": "Write a song in another style: its melody stays.",
    "perform": "Perform a score: dynamics, timing, articulation, pedal.",
    "repro": "Reproduce a generated file, or say what differs.",
    "train": "Train a model on MIDI files, or on the bundled chorales.",
    "evaluate": "Measure how well a model predicts music.",
    "compare": "Train and measure architectures side by side.",
    "statistics": "Compute musical statistics of MIDI files, beside others.",
    "render": "Render MIDI to a sound file.",
    "play": "Play MIDI through the loudspeakers.",
    "show": "Plot a piano roll, in the terminal or as a picture.",
    "surprise": "Plot the surprisal of each note under a model.",
    "attention": "Plot which notes a model attends to.",
    "embedding": "Plot the embedding of the pitches.",
    "corpus": "Prepare MIDI files for training, and inspect them.",
    "tag": "Label pieces by style, composer or labels of your own.",
    "classify": "Classify the instrument family of a recorded note.",
    "classifier": "Train, evaluate and inspect the note classifier.",
    "models": "List models, install others, remove them.",
}


class Commands(click.Group):
    """Imports the file of a command by its name. The list of commands needs none of these files, so it is shown at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = import_module(f".{name}", __package__).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Try: musiclm generate",
)
@click.version_option(__version__, prog_name="musiclm")
def group() -> None:
    """Symbolic (MIDI) music: train language models on it, and generate new music with them."""


def wait_briefly() -> None:
    """Let torch's threads spin for some microseconds before they sleep, unless the environment says how they wait.

    Threads that spin for long are tens of times slower on cores that are shared. Threads that sleep at once are three times
    slower on idle cores (docs/results/speed.md). This has to be set before torch is imported.
    """
    if "OMP_WAIT_POLICY" in os.environ:
        return
    if sys.platform == "linux":  # torch uses GNU OpenMP there
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    else:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line and exit the process."""
    wait_briefly()
    _streams.prepare()
    try:
        code = group.main(args=arguments, prog_name="musiclm", standalone_mode=False)
        sys.stdout.flush()  # here a full disk or a closed pipe is still an error of ours
    except MusicLMError as error:
        _console.say(f"Error: {error}")
        code = 1
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        _console.say("Stopped.")
        code = 130
    except BrokenPipeError:  # the reader of our output has closed it: no output is possible
        _streams.drop_output()
        code = 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG):
            raise
        _console.say(f"Error: {error.filename or 'the disk'} cannot be written: {error.strerror}")
        if error.filename is None:
            _streams.drop_output()
        code = 1
    sys.exit(code if isinstance(code, int) else 0)
