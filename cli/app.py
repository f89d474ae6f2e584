"""The group of commands, loaded on first use; the one place where a MusicLMError becomes a line and exit code 1."""

from __future__ import annotations

import errno
import os
import sys
from importlib import import_module
from typing import Any

import click

from .. import __version__
from ..errors import MusicLMError

COMMANDS = {
    "generate": "Write new music, from nothing or going on from a MIDI file.",
    "repro": "Make a generated file again, or say what differs.",
    "train": "Train a model on MIDI files, or on the bundled chorales.",
    "evaluate": "Measure how well a model predicts music.",
    "compare": "Train and measure architectures side by side.",
    "statistics": "Describe MIDI files in numbers, beside others.",
    "render": "Make a sound file of MIDI.",
    "play": "Play MIDI through the loudspeakers.",
    "show": "Draw a piano roll, in the terminal or as a picture.",
    "surprise": "Draw which notes a model did not expect.",
    "attention": "Draw which notes a model looks back at.",
    "embedding": "Draw how a model arranges the pitches.",
    "corpus": "Prepare MIDI files for training, and see what is in them.",
    "classify": "Tell which family of instruments plays a recorded note.",
    "classifier": "Train, measure and look into the note classifier.",
    "models": "List models, install others, remove them.",
}


class Commands(click.Group):
    """Finds a command in the file of its name; help needs no command's file, so it answers at once."""

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
    """Symbolic (MIDI) music: train language models on it, and have them write more."""


def wait_briefly() -> None:
    """Have torch's threads spin some microseconds for each other before they sleep; what the environment says goes first.

    Those that spin for long make it tens of times slower on cores that others use too, those that sleep at once three times
    slower on cores that nobody else wants (benchmarks/RESULTS.md). It has to be said before torch is imported.
    """
    if "OMP_WAIT_POLICY" in os.environ:
        return
    if sys.platform == "linux":  # torch has GNU's OpenMP there
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    else:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; does not return."""
    wait_briefly()
    try:
        code = group.main(args=arguments, prog_name="musiclm", standalone_mode=False)
    except MusicLMError as error:
        click.echo(f"Error: {error}", err=True)
        code = 1
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped.", err=True)
        code = 130
    except BrokenPipeError:  # the reader of our output has gone: nothing to say to anybody
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG):
            raise
        click.echo(f"Error: {error.filename or 'the disk'} cannot be written: {error.strerror}", err=True)
        code = 1
    sys.exit(code if isinstance(code, int) else 0)
