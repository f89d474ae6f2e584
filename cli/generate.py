"""musiclm generate."""

from __future__ import annotations

import time
from typing import Any

import click

from ..generation.config import GenerationConfig
from ..generation.options import OptionError
from . import _console, _generated, _live, _options, _paths

GROUPS = _options.groups(
    GenerationConfig,
    {
        "Prompt": ["prompt"],
        "Length": [],
        "What to write": ["model"],
        "Controls": [],
        "Sampling": ["seed"],
        "Output": [
            "output",
            "stream",
            "port",
            "wav",
            "html",
            "play",
            "soundfont",
            "force",
            "as_json",
            "quiet",
            "verbose",
        ],
    },
)
GROUPS["Sampling"].append("device")
NEED_PROMPT = ("prompt_bars", "prompt_seconds", "only_new", "infill", "keep_tracks", "accompany")


@click.command(
    "generate",
    cls=_options.GroupedCommand,
    groups=GROUPS,
    epilog="Examples: musiclm generate; musiclm generate --prompt seed.mid --bars 8 -n 4 -o ideas/ --seed 7",
)
@click.option("--model", metavar="MODEL", help="A name, a checkpoint file or a run folder.")
@click.option("--prompt", metavar="FILE", help="MIDI to continue; - for standard input.")
@_options.from_fields(GenerationConfig)
@click.option("-o", "--output", metavar="PATH", help="File or folder; - for standard output.")
@click.option("--stream", is_flag=True, help="Write notes as they are sampled: JSON lines on standard output.")
@click.option("--port", metavar="NAME", help="Play them to a MIDI output as they are sampled.")
@_options.wav
@_options.html
@_options.play
@_options.soundfont
@_options.force
@_options.seed
@_options.device
@_options.json_output
@_options.quiet
def command(
    model: str | None,
    prompt: str | None,
    output: str | None,
    stream: bool,
    port: str | None,
    wav: bool,
    html: bool,
    play: bool,
    soundfont: str | None,
    force: bool,
    seed: int | None,
    device: str,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Generate music, unconditionally or as the continuation of a MIDI file.

    Controls (instruments, tempo, ...) hold for the new music, whatever the prompt has.

    --infill 9-12, --keep-tracks melody,1,drums and --accompany write within the prompt and keep its length; all else is
    kept note for note. A track is named by its name, its number from 1, a General MIDI instrument, or drums.

    -n 8 --keep 2 writes the best two of eight, --draw 4 the best of four for each file (best-of-n reranking). The model's
    critic chooses: how probably real rather than sampled the new music is. Without a critic: what is nearest to real
    pieces in loss and repetition. A model may recommend a --draw; -n and --keep, given here, switch that off.

    --stream and --port write a file only with -o.
    """
    began = time.monotonic()
    if options["draw"] is None and _is_given("n"):
        options["draw"] = 1
    config = _config(prompt, options | {"live": stream or port is not None})
    _check_output(config, output, stream=stream, as_json=as_json, wav=wav, html=html, play=play)
    if output == "-":
        _console.standard_output()  # before anything is sampled
    paths = _paths.checked(output, config, wav=wav, html=html, play=play, soundfont=soundfont, force=force)
    prompt_bytes = None if prompt is None else read_prompt(prompt)
    if port is not None:
        _live.check_port(port)
    seed = _options.draw_seed(seed)

    from ..generation.files import generate_files

    with _options.usage_errors():  # the model may make another task of --accompany
        made = generate_files(
            config,
            seed=seed,
            model=model,
            device=device,
            prompt=prompt_bytes,
            prompt_name=prompt or "",
            listen=lambda events: _live.listen(events, write=stream, port=port),
        )
    if stream:
        _live.write_end(made.files[0].composition, model=made.composer.checkpoint.name, seed=seed)
    _generated.deliver(
        made,
        paths,
        seed=seed,
        prompt=prompt_bytes,
        output=output,
        wav=wav,
        html=html,
        soundfont=soundfont,
        force=force,
        as_json=as_json,
        shows_paths=not stream,
        seconds=lambda: time.monotonic() - began,
        quiet=quiet,
    )
    if play:
        _generated.play(made, soundfont, quiet=quiet)


def _is_given(name: str) -> bool:
    """Return whether the command line has an option."""
    return click.get_current_context().get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def read_prompt(name: str) -> bytes:
    """Return the content of a prompt's file, which is read once before torch is loaded: what cannot be used is said at once.

    Raises:
        MidiError: it cannot be read, or cannot be used.
    """
    from .. import midi

    data = _console.read_bytes(name)
    midi.read_music(data, name)
    return data


def _config(prompt: str | None, options: dict[str, Any]) -> GenerationConfig:
    """Return the config of the options.

    Raises:
        click.UsageError: a value that an option cannot have, or options that exclude each other.
    """
    try:
        if prompt is None and (given := [name for name in NEED_PROMPT if options[name]]):
            raise OptionError("{} needs a {}", given[0], "prompt")
        return GenerationConfig.from_options(**options)
    except ValueError as error:
        raise _options.usage_error(error) from error


def _check_output(
    config: GenerationConfig, output: str | None, *, stream: bool, as_json: bool, wav: bool, html: bool, play: bool
) -> None:
    """Refuse what cannot go to the same place."""
    if output == "-" and (config.n > 1 or as_json or stream or wav or html or play):
        others = "-n above 1, --json, --stream, --wav, --html or --play"
        raise click.UsageError(f"-o - writes one MIDI file: not with {others}")
    if config.live and (as_json or play):
        raise click.UsageError("--stream and --port have no --json and no --play: --stream writes JSON lines")
    if config.live and (wav or html) and output is None:
        what = "a sound file" if wav else "a page"
        raise click.UsageError(f"--stream and --port write {what} only beside a MIDI file: name it with -o")
