"""musiclm generate."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..devices import resolve_device
from ..errors import MusicLMError
from ..files import write_whole
from ..generation.config import GenerationConfig
from . import _console, _live, _options, _paths
from . import _control_options as controlling

if TYPE_CHECKING:
    from symusic import Score

    from ..generation.composer import Composer, Composition, Prompt, Ranked


@click.command(
    "generate",
    epilog="Examples: musiclm generate; musiclm generate --prompt seed.mid --bars 8 -n 4 -o ideas/ --seed 7",
)
@click.option("--model", metavar="MODEL", help="A name, a checkpoint file or a run folder.")
@click.option("--prompt", metavar="FILE", help="MIDI to continue; - for standard input.")
@click.option("--prompt-bars", type=click.IntRange(1), metavar="N", help="Only the prompt's first N bars.")
@click.option(
    "--prompt-seconds", type=_options.FloatRange(0, min_open=True), metavar="S", help="Only its first S seconds."
)
@click.option("--bars", type=click.IntRange(1), metavar="N", help="New music: bars (16 if nothing is said).")
@click.option("--seconds", type=_options.FloatRange(0, min_open=True), metavar="S", help="New music: seconds.")
@click.option("--tokens", type=click.IntRange(1), metavar="N", help="New music: tokens.")
@click.option("-n", type=click.IntRange(1, 1024), default=1, metavar="N", help="That many variations.")
@click.option("--keep", type=click.IntRange(1), metavar="N", help="Of these those nearest to real pieces; see below.")
@click.option("--infill", metavar="A-B", help="Write these bars of the prompt anew, so that they lead into the next.")
@click.option("--keep-tracks", metavar="NAMES", help="Keep these tracks of the prompt and write the others anew.")
@click.option("--accompany", is_flag=True, help="Keep all tracks of the prompt and add to them.")
@controlling.options
@click.option(
    "--only-new",
    is_flag=True,
    help="Leave the prompt out. Where it ends within a bar, the rest of that bar comes first, then --bars.",
)
@click.option("--finish", is_flag=True, help="Go on to an end of the piece or a phrase, at most half as long again.")
@click.option("--loop-guard/--no-loop-guard", default=True, help="Draw anew what falls into a loop (on by itself).")
@click.option("-o", "--output", metavar="PATH", help="File or folder; - for standard output.")
@click.option("--stream", is_flag=True, help="Write the notes as they are drawn: JSON lines on standard output.")
@click.option("--port", metavar="NAME", help="Play them to a MIDI output as they are drawn.")
@_options.wav
@_options.play
@_options.soundfont
@_options.force
@_options.seed
@click.option("--temperature", type=_options.FloatRange(0), help="Lower is safer; the model's own if left out.")
@click.option("--top-k", type=click.IntRange(1), metavar="K", help="Only the K likeliest tokens.")
@click.option("--top-p", type=_options.FloatRange(0, 1, min_open=True), metavar="P", help="Only those that make up P.")
@click.option(
    "--min-p", type=_options.FloatRange(0, 1, min_open=True), metavar="P", help="Only those P times the best."
)
@_options.device
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16", "fp16", "int8"]),
    default="auto",
    help="Of the weights; auto: the fastest here.",
)
@_options.json_output
@_options.quiet
def command(
    model: str | None,
    prompt: str | None,
    output: str | None,
    stream: bool,
    port: str | None,
    wav: bool,
    play: bool,
    soundfont: str | None,
    force: bool,
    seed: int | None,
    device: str,
    as_json: bool,
    quiet: bool,
    **shaping: Any,
) -> None:
    """Write new music: from nothing, or going on from a MIDI file.

    What is said about instruments, tempo and the like is kept to in the new music, whatever the prompt has.

    --infill 9-12, --keep-tracks melody,1,drums and --accompany write within the prompt, as long as it is; all else comes out
    note for note. A track is called by its name, its number from 1, an instrument of its own, or drums.

    --keep weighs the variations by how much they surprise the model and how much they repeat themselves, and keeps those
    whose figures lie nearest to those of real pieces. --stream and --port write a file only with -o.
    """
    began = time.monotonic()
    is_live = stream or port is not None
    request = _request(prompt, shaping | {"live": is_live})
    _check_output(request, output, is_live=is_live, stream=stream, as_json=as_json, wav=wav, play=play)
    paths = [] if output == "-" or (is_live and output is None) else _paths.paths(output, request, force)
    if wav or play:
        from .play import check_sound, play_score, write_sound

        check_sound(paths, wav=wav, play=play, soundfont=soundfont, force=force)
    _console.show_log(quiet=quiet)
    prompt_bytes = None if prompt is None else _console.read_bytes(prompt)
    if port is not None:
        _live.check_port(port)

    from .. import midi

    score = None if prompt_bytes is None else midi.parse(prompt_bytes, prompt or "")

    from .. import checkpoint
    from ..generation import infill, provenance
    from ..generation.composer import Composer

    composer = Composer.load(model or checkpoint.default(filling_holes=request.is_filling), resolve_device(device))
    heard = _heard(composer, score, request, quiet=quiet)
    try:
        request = composer.completed(request)
    except ValueError as error:
        raise MusicLMError(str(error)) from error
    drawn_seed = _options.draw_seed(seed)
    sampling_began = time.monotonic()
    if request.is_filling:
        assert score is not None
        compositions = infill.fill(composer, score, request, drawn_seed)
    elif is_live:
        compositions = [_live.perform(composer, heard, request, drawn_seed, stream=stream, port=port)]
    else:
        compositions = composer.compose(heard, seed=drawn_seed, **request.arguments())
    tokens_per_second = sum(c.num_new_tokens for c in compositions) / (time.monotonic() - sampling_began)
    weighed: list[Ranked] = []
    if request.keep is not None:
        weighed = composer.weigh(heard, compositions)
        compositions = [w.composition for w in weighed[: request.keep]]
    for i, composition in enumerate(compositions[: len(paths) or 1]):
        record = provenance.record(
            composer,
            seed=drawn_seed,
            request=request,
            prompt=prompt_bytes,
            prompt_quarters=heard.quarters,
            index=composition.index,
        )
        data = provenance.to_midi(composition, record)
        if output == "-":
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        elif paths:
            write_whole(paths[i], data, force=force)
    music = [c.score for c in compositions]
    sounds = write_sound(music, paths, soundfont=soundfont, force=force) if wav else []
    if as_json:
        _console.print_json(
            {
                "model": composer.checkpoint.name,
                "seed": drawn_seed,
                "outputs": [_told(p, c) for p, c in zip(paths, compositions, strict=True)],
                **({"weighed": [_weighed(w, i < len(paths)) for i, w in enumerate(weighed)]} if weighed else {}),
                "tokens_per_second": tokens_per_second,
                "seconds_elapsed": time.monotonic() - began,
                **({"sounds": [str(path) for path in sounds]} if wav else {}),
            }
        )
    else:
        for path in () if stream else (*paths, *sounds):
            click.echo(str(path))
        for composition in compositions:
            _say(composition, quiet=quiet)
        if weighed:
            _say_why(composer, weighed, len(compositions), quiet=quiet)
        _console.say(f"model {composer.checkpoint.name}, {tokens_per_second:.0f} tokens/s, seed {drawn_seed}")
    for score in music if play else ():
        play_score(score, soundfont, quiet=quiet)


def _check_output(
    request: GenerationConfig, output: str | None, *, is_live: bool, stream: bool, as_json: bool, wav: bool, play: bool
) -> None:
    """Refuse what cannot go to the same place."""
    if output == "-" and (request.n > 1 or as_json or stream or wav or play):
        raise click.UsageError("-o - writes one MIDI file: not with -n above 1, --json, --stream, --wav or --play")
    if is_live and (as_json or play):
        raise click.UsageError("--stream and --port have no --json and no --play: --stream writes JSON lines")
    if is_live and wav and output is None:
        raise click.UsageError("--stream and --port write a sound file only beside a MIDI file: name it with -o")


def _heard(composer: Composer, score: Score | None, request: GenerationConfig, *, quiet: bool) -> Prompt:
    """Return what the model hears of the prompt, and say what it does not."""
    heard = composer.prompt(score, bars=request.prompt_bars, seconds=request.prompt_seconds)
    if heard.left_out:
        notes, tokenizer = _console.counted(heard.left_out, "note"), composer.tokenizer.name
        how = "kept, but not heard by the model" if request.is_filling else "left out of the prompt"
        _console.say(f"{how}: {notes} that '{tokenizer}' cannot express", quiet=quiet)
    for sentence in composer.tokenizer.unexpressed(score) if score is not None and not request.is_filling else ():
        _console.say(sentence, quiet=quiet)
    return heard


def _say(composition: Composition, *, quiet: bool) -> None:
    c = composition
    _console.say(
        f"{_console.counted(c.num_bars, 'bar')}, {_console.counted(c.num_notes, 'note')}, {_console.duration(c.seconds)}",
        quiet=quiet,
    )
    if c.ended != "length":
        ends = "the model ends the piece" if c.ended == "piece" else "a phrase ends"
        _console.say(f"ends where {ends}", quiet=quiet)
    if c.redrawn:
        _console.say(
            f"fell into a loop: drawn anew, hotter, {_console.counted(c.redrawn, 'time')} (--no-loop-guard lets it)",
            quiet=quiet,
        )


def _say_why(composer: Composer, weighed: list[Ranked], num_kept: int, *, quiet: bool) -> None:
    from ..generation.rerank import of_checkpoint

    real = of_checkpoint(composer.checkpoint)
    kept = ", ".join(str(w.composition.index + 1) for w in weighed[:num_kept])
    _console.say(
        f"kept {kept} of {len(weighed)}: nearest to real pieces, which have {real.nats_per_token[0]:.2f} nats a token "
        f"and repetition {real.repetition[0]:.2f}",
        quiet=quiet,
    )
    for i, w in enumerate(weighed):
        told = f"{w.surprise:.2f} nats, repetition {w.repetition:.2f}: {w.distance:.1f} deviations away"
        _console.say(f"  {w.composition.index + 1}: {told}{', kept' if i < num_kept else ''}", quiet=quiet)


def _weighed(weighed: Ranked, is_kept: bool) -> dict[str, Any]:
    told = {"index": weighed.composition.index, "nats_per_token": weighed.surprise}
    return told | {"repetition": weighed.repetition, "distance": weighed.distance, "kept": is_kept}


def _request(prompt: str | None, shaping: dict[str, Any]) -> GenerationConfig:
    """Return what is asked for: each option that shapes the music is a field of `Request`, by its name."""
    needs = ("prompt_bars", "prompt_seconds", "only_new", "infill", "keep_tracks", "accompany")
    needing = [name for name in needs if shaping[name]]
    if prompt is None and needing:
        raise click.UsageError(f"--{needing[0].replace('_', '-')} needs a --prompt")
    try:
        return GenerationConfig(**shaping)
    except ValueError as error:
        raise click.UsageError(re.sub(r"[a-z]+_[a-z_]+", lambda m: m[0].replace("_", "-"), str(error))) from error


def _told(path: Path, composition: Composition) -> dict[str, Any]:
    return {
        "path": str(path),
        "index": composition.index,
        "num_notes": composition.num_notes,
        "num_tokens": composition.num_new_tokens,
        "seconds": composition.seconds,
        "bars": composition.num_bars,
        "ended": composition.ended,
        "redrawn": composition.redrawn,
    }
