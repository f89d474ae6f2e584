"""musiclm generate."""

from __future__ import annotations

import itertools
import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..files import write_whole
from ..generation.config import GenerationConfig
from ..generation.options import OptionError
from . import _console, _live, _options, _pages, _paths

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from ..generation.composer import Composition, Ranked
    from ..generation.files import Generated

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
RESAMPLED = {"loop": "a loop ({})", "harmony": "standing harmony ({})", "drums": "drums alone ({})"}  # how often
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
    paths = _checked_paths(config, output, wav=wav, html=html, play=play, soundfont=soundfont, force=force)
    prompt_bytes = None if prompt is None else _prompt(prompt)
    if port is not None:
        _live.check_port(port)
    seed = _options.draw_seed(seed)

    from ..generation.files import generate_files

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
    _write(made, output, paths, force=force)
    beside: dict[str, list[Path]] = {}
    if wav:
        beside["sounds"] = _write_sounds(made, paths, soundfont, force=force)
    if html:
        beside["pages"] = _pages.write_pages(made.files, paths, prompt_bytes, soundfont=soundfont, force=force)
    if as_json:
        _console.print_json(_document(made, seed, paths, beside, seconds=time.monotonic() - began))
    else:
        for path in () if stream else itertools.chain(paths, *beside.values()):
            click.echo(str(path))
        _say(made, seed, quiet=quiet)
    if play:
        _play(made, soundfont, quiet=quiet)


def _is_given(name: str) -> bool:
    """Return whether the command line has an option."""
    return click.get_current_context().get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def _prompt(name: str) -> bytes:
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


def _checked_paths(
    config: GenerationConfig,
    output: str | None,
    *,
    wav: bool,
    html: bool,
    play: bool,
    soundfont: str | None,
    force: bool,
) -> list[Path]:
    """Return where the MIDI files go, none for standard output, after a check that all can be written and played."""
    paths = [] if output == "-" or (config.live and output is None) else _paths.paths(output, config, force)
    if wav or play:
        from .play import check_sound

        check_sound(paths, wav=wav, play=play, soundfont=soundfont, force=force)
    if html:
        _pages.check_pages(paths, soundfont=soundfont, force=force)
    return paths


def _write(made: Generated, output: str | None, paths: list[Path], *, force: bool) -> None:
    """Write the MIDI files."""
    if output == "-":
        _console.standard_output().write(made.files[0].data)
        sys.stdout.buffer.flush()
    for path, file in zip(paths, made.files, strict=bool(paths)):
        write_whole(path, file.data, force=force)


def _write_sounds(made: Generated, paths: list[Path], soundfont: str | None, *, force: bool) -> list[Path]:
    from .play import write_sound

    return write_sound([file.composition.score for file in made.files], paths, soundfont=soundfont, force=force)


def _play(made: Generated, soundfont: str | None, *, quiet: bool) -> None:
    from .play import play_score

    for file in made.files:
        play_score(file.composition.score, soundfont, quiet=quiet)


def _document(
    made: Generated, seed: int, paths: list[Path], beside: dict[str, list[Path]], *, seconds: float
) -> dict[str, Any]:
    """Return what --json prints."""
    document: dict[str, Any] = {
        "model": made.composer.checkpoint.name,
        "seed": seed,
        "outputs": [_output(path, file.composition) for path, file in zip(paths, made.files, strict=True)],
    }
    if made.ranked:
        document["weighed"] = [_ranked(each, made) for each in made.ranked]
    document |= {"tokens_per_second": made.tokens_per_second, "seconds_elapsed": seconds}
    return document | {name: [str(path) for path in files] for name, files in beside.items()}


def _output(path: Path, composition: Composition) -> dict[str, Any]:
    return {
        "path": str(path),
        "index": composition.index,
        "num_notes": composition.num_notes,
        "num_tokens": composition.num_new_tokens,
        "seconds": composition.seconds,
        "bars": composition.num_bars,
        "ended": composition.ended,
        "redrawn": composition.num_resampled,
        "redrawn_for": dict(composition.resampled),
    }


def _is_kept(ranked: Ranked, made: Generated) -> bool:
    return any(file.composition is ranked.composition for file in made.files)


def _ranked(ranked: Ranked, made: Generated) -> dict[str, Any]:
    return {
        "index": ranked.composition.index,
        "nats_per_token": ranked.nats_per_token,
        "repetition": ranked.repetition,
        "log_odds": ranked.log_odds,
        "distance": ranked.distance,
        "kept": _is_kept(ranked, made),
    }


def _say(made: Generated, seed: int, *, quiet: bool) -> None:
    """Say what was generated, and why it was kept."""
    for file in made.files:
        _say_composition(file.composition, quiet=quiet)
    if made.ranked:
        _say_ranking(made, quiet=quiet)
    _console.say(f"model {made.composer.checkpoint.name}, {made.tokens_per_second:.0f} tokens/s, seed {seed}")


def _say_composition(composition: Composition, *, quiet: bool) -> None:
    bars, notes = _console.counted(composition.num_bars, "bar"), _console.counted(composition.num_notes, "note")
    _console.say(f"{bars}, {notes}, {_console.duration(composition.seconds)}", quiet=quiet)
    if composition.ended != "length":
        ends = "the model ends the piece" if composition.ended == "piece" else "a phrase ends"
        _console.say(f"ends where {ends}", quiet=quiet)
    if composition.num_resampled:
        found = ", ".join(RESAMPLED[cause].format(count) for cause, count in composition.resampled.items() if count)
        _console.say(f"resampled: {found} (--no-loop-guard switches that off)", quiet=quiet)


def _say_ranking(made: Generated, *, quiet: bool) -> None:
    """Say which variations are kept, by which criterion, and the figures of all, the best first."""
    kept = ", ".join(str(file.composition.index + 1) for file in made.files)
    by = "critic" if made.ranked[0].log_odds is not None else "distance from real pieces: the model has no critic"
    several = "s" * (len(made.files) > 1)
    _console.say(f"kept variation{several} {kept} of {len(made.ranked)}, by the {by}", quiet=quiet)
    is_asked = made.config.keep is not None
    for each in made.ranked:
        figures = f"loss {each.nats_per_token:.2f}, repetition {each.repetition:.2f}"
        by = f"log odds {each.log_odds:+.2f}" if each.log_odds is not None else f"distance {each.distance:.1f}"
        line = f"  {each.composition.index + 1}: {by}, {figures}{', kept' * _is_kept(each, made)}"
        if is_asked:
            _console.say(line, quiet=quiet)
        else:
            log.debug(line)
