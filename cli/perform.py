"""musiclm perform."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from ..errors import CheckpointError, MidiError
from ..files import write_whole
from ..generation.config import GenerationConfig
from . import _console, _options, _paths

if TYPE_CHECKING:
    from pathlib import Path

    from symusic import Score

    from ..checkpoint.model_file import ModelFile
    from ..performing.render import Expression

INSTALL = "musiclm models install checkpoints/noncommercial/performer-piano.safetensors"


@click.command(
    "perform",
    cls=_options.GroupedCommand,
    groups={
        "How to perform": ["strength", "tempo", "velocity_only", "mean", "seed", "models"],
        "Output": ["output", "wav", "play", "soundfont", "force", "as_json", "quiet", "verbose"],
    },
    epilog="Example: musiclm perform score.mid --seed 1 -o performance.mid",
)
@click.argument("score", metavar="SCORE")
@click.option(
    "--strength",
    type=_options.FloatRange(0, 2),
    default=1.0,
    show_default=True,
    help="0 is the score as it is written, 2 twice the deviations from it.",
)
@click.option(
    "--tempo",
    type=_options.FloatRange(4, 1000),
    metavar="QPM",
    help="The mean tempo, quarters per minute; the score's if left out.",
)
@click.option("--velocity-only", is_flag=True, help="Change velocities alone: times and pedal stay.")
@click.option(
    "--mean", is_flag=True, help="The mean performance instead of a sample: the same each time, and smoother."
)
@_options.seed
@click.option(
    "--model", "models", metavar="MODEL", multiple=True, help="A performer's name or file; twice for piano and drums."
)
@click.option("-o", "--output", metavar="PATH", help="A MIDI file; - for standard output.")
@_options.wav
@_options.play
@_options.soundfont
@click.option("--force", is_flag=True, help="Overwrite what is there; perform what is a performance already.")
@_options.json_output
@_options.quiet
def command(score: str, **given: Any) -> None:
    """Perform the MIDI file SCORE (- for standard input): dynamics, timing, articulation and pedal.

    Pianos and organs are performed by performer-piano, drums by performer-drums; other instruments follow the tempo of the
    keyboard. Exactly the notes of SCORE come out.

    The written velocities of a piano are taken as its dynamics, where they differ.
    """
    if given["mean"] and given["seed"] is not None:
        raise click.UsageError("at most one of --mean and --seed: a mean has no chance in it")
    if given["output"] == "-" and (given["as_json"] or given["wav"] or given["play"]):
        raise click.UsageError("-o - writes one MIDI file: not with --json, --wav or --play")
    _run(score, **given)


def _run(
    score: str,
    *,
    strength: float,
    tempo: float | None,
    velocity_only: bool,
    mean: bool,
    seed: int | None,
    models: tuple[str, ...],
    output: str | None,
    wav: bool,
    play: bool,
    soundfont: str | None,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    began = time.monotonic()
    if output == "-":
        _console.standard_output()  # before anything is computed
    paths = _paths.checked(output, GenerationConfig(), wav=wav, html=False, play=play, soundfont=soundfont, force=force)
    data = _console.read_bytes(score)
    from .. import midi
    from ..performing.notes import drum_notes, keyboard_notes

    written = midi.parse(data, score)
    there = {"piano": keyboard_notes(written), "drums": drum_notes(written)}
    files = _performers(models, [kind for kind, notes in there.items() if notes is not None])
    from ..performing.render import Expression

    expression = Expression(
        strength=strength,
        seed=None if mean else _options.draw_seed(seed),
        quarters_per_minute=tempo,
        velocity_only=velocity_only,
    )
    performance = _performed(written, files, expression, force=force)
    _write(midi.to_bytes(performance), paths, force=force)
    sounds: list[Path] = []
    if wav:
        from .play import write_sound

        sounds = write_sound([performance], paths, soundfont=soundfont, force=force)
    if as_json:
        figures = {"num_notes": performance.note_num(), "seconds": midi.seconds(performance)}
        document: dict[str, Any] = {"models": [file.name for file in files], "seed": expression.seed}
        document |= {"outputs": [{"path": str(path), **figures} for path in paths]}
        document |= {"sounds": [str(path) for path in sounds], "seconds_elapsed": time.monotonic() - began}
        _console.print_json(document)
    else:
        _tell(performance, [*paths, *sounds], files, expression, quiet=quiet)
    if play:
        from .play import play_score

        play_score(performance, soundfont, quiet=quiet)


def _performed(written: Score, files: list[ModelFile], expression: Expression, *, force: bool) -> Score:
    """Return a performance of a score, with the record of how it was made."""
    from .. import midi
    from ..performing.model import Performer
    from ..performing.render import perform, record

    performers = {file.kind: Performer.load(file.path) for file in files}
    performance = perform(written, performers, expression, force=force)
    midi.add_text(performance, record(expression, {file.name: file.sha256 for file in files}))
    return performance


def _write(made: bytes, paths: list[Path], *, force: bool) -> None:
    """Write the bytes of a performance to its paths, or to standard output if it has none."""
    for path in paths:
        write_whole(path, made, force=force)
    if not paths:
        _console.standard_output().write(made)
        sys.stdout.buffer.flush()


def _tell(
    performance: Score, written: list[Path], files: list[ModelFile], expression: Expression, *, quiet: bool
) -> None:
    """Print what was written, and by which performers."""
    from .. import midi

    for path in written:
        click.echo(str(path))
    notes, length = _console.counted(performance.note_num(), "note"), _console.duration(midi.seconds(performance))
    _console.say(f"{notes}, {length}, by {' and '.join(file.name for file in files)}", quiet=quiet)
    _console.say("the mean performance" if expression.seed is None else f"seed {expression.seed}")


def _performers(models: tuple[str, ...], there: list[str]) -> list[ModelFile]:
    """Return the performers of what is there: those that were named, else the default ones.

    Raises:
        CheckpointError: there is none for anything, or no such performer.
        MidiError: there is neither a keyboard nor drums.
        click.UsageError: two of those that were named perform the same.
    """
    from ..checkpoint.model_file import PERFORMER, bundled_models, find_model, installed_models

    if not there:
        raise MidiError("there is nothing to perform: the score has neither a keyboard nor drums")
    named = [find_model(PERFORMER, name) for name in models]
    found = {file.kind: file for file in named}
    if len(found) < len(named):
        raise click.UsageError(f"two models for {named[-1].kind}: name one for piano and one for drums")
    names = (*bundled_models(PERFORMER), *installed_models(PERFORMER))
    for kind in there:
        if kind not in found and PERFORMER.full_name(kind) in names:
            found[kind] = find_model(PERFORMER, PERFORMER.full_name(kind))
    chosen = [found[kind] for kind in there if kind in found]
    if not chosen:
        raise CheckpointError(_lacking(there[0]))
    for kind in there:
        if kind not in found:
            _console.say(f"The {'keyboard' if kind == 'piano' else kind} stays as it is: {_lacking(kind)}")
    return chosen


def _lacking(kind: str) -> str:
    """Return that a performer is not there, and how to get it."""
    if kind == "piano":
        return f"performer-piano is not installed, whose data forbids commercial use: {INSTALL}"
    return f"no performer of {kind} is installed: name one with --model"
