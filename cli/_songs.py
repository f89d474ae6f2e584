"""What `accompany` and `restyle` share: their options, and the way from a song to files."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import click

from ..generation.config import GenerationConfig
from . import _console, _generated, _options, _paths
from .generate import read_prompt

FIELDS = (
    "n", "keep", "draw", "style", "key", "key_strength", "pitch_range", "max_polyphony", "chords", "chord_strength",
    "repeat_strength", "temperature", "rhythm_temperature", "top_k", "top_p", "min_p", "precision",
)  # fmt: skip
HELPS = {
    "n": "Number of variations (1 if left out).",
    "keep": "Write only the K best of them.",
    "draw": "Each 8 bars are the best of D; 1 is off (8 if left out, for a single variation).",
    "key": "'C major', 'f# minor', 'd dorian', …: no new notes outside it; auto: fewer outside the key of SONG; none.",
    "chord_strength": "Other notes than those of the chords, given or of SONG, are 1 - this times as likely "
    "(0.5 if left out).",
}
SPELLED = {"infill": "bars", "instruments": "parts"}  # fields that have other names here


@dataclasses.dataclass(frozen=True, kw_only=True)
class Output:
    """Where a command writes, and what besides MIDI files.

    Attributes:
        output: a file or a folder; - for standard output.
        wav: write sounds, too.
        html: write pages, too.
        play: play the music.
        soundfont: of the sound.
        force: overwrite existing files.
        as_json: print one document.
        quiet: say less.
    """

    output: str | None
    wav: bool
    html: bool
    play: bool
    soundfont: str | None
    force: bool
    as_json: bool
    quiet: bool


def groups(*first: str) -> dict[str, list[str]]:
    """Return the headings of a command's help; `first` are options of its own."""
    output = ["output", "wav", "html", "play", "soundfont", "force", "as_json", "quiet", "verbose"]
    others = {"What to write": [*first, "bars", "model"], "Controls": [], "Sampling": ["seed"], "Output": output}
    found = _options.groups(GenerationConfig, others, FIELDS)
    found["Sampling"].append("device")
    return found


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of both."""
    for decorate in (
        _options.quiet,
        _options.json_output,
        _options.device,
        _options.seed,
        _options.force,
        _options.soundfont,
        _options.play,
        _options.html,
        _options.wav,
        click.option("-o", "--output", metavar="PATH", help="File or folder; - for standard output."),
        _options.from_fields(GenerationConfig, FIELDS, HELPS),
        click.option("--bars", metavar="A-B", help="Write in these bars alone; all of them if left out."),
        _options.model,
    ):
        command = decorate(command)
    return command


def run(task: str, song: str, given: dict[str, Any]) -> None:
    """Do a task with a song.

    Args:
        task: of a `GenerationConfig`.
        song: a MIDI file; - for standard input.
        given: the options of the command, by their names.

    Raises:
        MusicLMError: see `generate_files`; or nothing can be written there.
        click.UsageError: a value that an option cannot have, or options that exclude each other.
    """
    fields = {name: given.pop(name) for name in FIELDS} | {
        field: given.pop(name) for field, name in SPELLED.items() if name in given
    }
    named = fields.get("instruments")
    if named is not None and not named.replace(",", "").strip():
        raise click.UsageError("--parts names no instrument")
    try:
        config = GenerationConfig.from_options(task=task, **fields)
    except ValueError as error:
        raise _options.usage_error(error, _spelled) from error
    beside = {name: given.pop(name) for name in ("model", "seed", "device")}
    to = Output(**given)
    if to.output == "-" and (config.n > 1 or to.as_json or to.wav or to.html or to.play):
        raise click.UsageError("-o - writes one MIDI file: not with -n above 1, --json, --wav, --html or --play")
    write(song, config, to, **beside)


def _spelled(field: str) -> str:
    return _options.option_name(SPELLED.get(field, field))


def write(song: str, config: GenerationConfig, to: Output, *, model: str | None, seed: int | None, device: str) -> None:
    """Write what a config asks for beside a song.

    Args:
        song: a MIDI file; - for standard input.
        config: with a task.
        to: where, and what else.
        model: see `generate_files`, as `device`.
        seed: a random one if left out.
        device: where to compute.

    Raises:
        MusicLMError: see `generate_files`; or nothing can be written there.
    """
    began = time.monotonic()
    if to.output == "-":
        _console.standard_output()  # before anything is sampled
    data = read_prompt(song)
    paths = _paths.checked(
        to.output, config, wav=to.wav, html=to.html, play=to.play, soundfont=to.soundfont, force=to.force
    )
    seed = _options.draw_seed(seed)
    from ..generation.files import generate_files

    made = generate_files(config, seed=seed, model=model, device=device, prompt=data, prompt_name=song)
    _generated.deliver(
        made,
        paths,
        seed=seed,
        prompt=data,
        output=to.output,
        wav=to.wav,
        html=to.html,
        soundfont=to.soundfont,
        force=to.force,
        as_json=to.as_json,
        shows_paths=True,
        seconds=lambda: time.monotonic() - began,
        quiet=to.quiet,
    )
    if to.play:
        _generated.play(made, to.soundfont, quiet=to.quiet)
