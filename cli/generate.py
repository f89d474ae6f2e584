"""musiclm generate."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import MusicLMError, OutputError
from ..files import check_writable, write_whole
from . import options, ui

if TYPE_CHECKING:
    from ..composer import Composition

STEM = "musiclm"


@click.command(
    "generate",
    epilog="Examples: musiclm generate; musiclm generate --prompt seed.mid --bars 8 -n 4 -o ideas/ --seed 7",
)
@click.option("--model", metavar="MODEL", help="A name, a checkpoint file or a run folder.")
@click.option("--prompt", metavar="FILE", help="MIDI to continue; - for standard input.")
@click.option("--prompt-bars", type=click.IntRange(1), metavar="N", help="Only the prompt's first N bars.")
@click.option(
    "--prompt-seconds", type=click.FloatRange(0, min_open=True), metavar="S", help="Only its first S seconds."
)
@click.option("--bars", type=click.IntRange(1), metavar="N", help="New music: bars (16 if nothing is said).")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), metavar="S", help="New music: seconds.")
@click.option("--tokens", type=click.IntRange(1), metavar="N", help="New music: tokens.")
@click.option("-n", "count", type=click.IntRange(1, 1024), default=1, metavar="N", help="That many variations.")
@click.option("--only-new", is_flag=True, help="Leave the prompt out of the output.")
@click.option("-o", "--output", metavar="PATH", help="File or folder; - for standard output.")
@options.force
@options.seed
@click.option("--temperature", type=click.FloatRange(0), default=1.0, show_default=True, help="Lower is safer.")
@click.option("--top-k", type=click.IntRange(1), metavar="K", help="Only the K likeliest tokens.")
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), metavar="P", help="Only those that make up P.")
@click.option("--min-p", type=click.FloatRange(0, 1, min_open=True), metavar="P", help="Only those P times the best.")
@options.device
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16", "fp16", "int8"]),
    default="auto",
    help="Of the weights; auto: the fastest here.",
)
@options.json_output
@options.quiet
def command(
    model: str | None,
    prompt: str | None,
    prompt_bars: int | None,
    prompt_seconds: float | None,
    bars: int | None,
    seconds: float | None,
    tokens: int | None,
    count: int,
    only_new: bool,
    output: str | None,
    force: bool,
    seed: int | None,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
    device: str,
    precision: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write new music: from nothing, or going on from a MIDI file."""
    began = time.monotonic()
    if sum(v is not None for v in (bars, seconds, tokens)) > 1:
        raise click.UsageError("at most one of --bars, --seconds and --tokens")
    if prompt_bars is not None and prompt_seconds is not None:
        raise click.UsageError("at most one of --prompt-bars and --prompt-seconds")
    if prompt is None and (prompt_bars is not None or prompt_seconds is not None or only_new):
        raise click.UsageError("--prompt-bars, --prompt-seconds and --only-new need a --prompt")
    if output == "-" and (count > 1 or as_json):
        raise click.UsageError("-o - writes one MIDI file: not with -n above 1 or --json")
    paths = [] if output == "-" else _paths(output, count, force)
    prompt_bytes = None if prompt is None else _read(prompt)

    from .. import scores

    score = None if prompt_bytes is None else scores.parse(prompt_bytes, "-" if prompt == "-" else str(prompt))

    from .. import composer as composing

    where = options.resolve_device(device)
    composer = composing.Composer.load(model, where)
    heard = composer.prompt(score, bars=prompt_bars, seconds=prompt_seconds)
    if heard.left_out:
        tokenizer = composer.tokenizer.name
        ui.say(f"left out of the prompt: {heard.left_out} notes that '{tokenizer}' cannot express", quiet=quiet)
    try:
        held = composer.precision(precision, count)
    except ValueError as error:
        raise MusicLMError(str(error)) from error
    drawn_seed = options.draw_seed(seed)
    shaping: dict[str, Any] = {
        "prompt_bars": prompt_bars,
        "prompt_seconds": prompt_seconds,
        "bars": bars,
        "seconds": seconds,
        "tokens": tokens,
        "n": count,
        "only_new": only_new,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "precision": held,
    }
    sampling_began = time.monotonic()
    compositions = composer.compose(
        heard,
        length=composing.Length(bars=bars, seconds=seconds, tokens=tokens),
        count=count,
        seed=drawn_seed,
        only_new=only_new,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        precision=held,
    )
    took = time.monotonic() - sampling_began
    for i, composition in enumerate(compositions):
        told = composing.provenance(composer, seed=drawn_seed, options=shaping, prompt=prompt_bytes, index=i)
        scores.add_text(composition.score, told)
        data = scores.to_bytes(composition.score)
        if output == "-":
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        else:
            write_whole(paths[i], data, force=force)
    num_tokens = sum(c.num_new_tokens for c in compositions)
    if as_json:
        ui.print_json(
            {
                "model": composer.checkpoint.name,
                "seed": drawn_seed,
                "outputs": [_told(p, c) for p, c in zip(paths, compositions, strict=True)],
                "tokens_per_second": num_tokens / took,
                "seconds_elapsed": time.monotonic() - began,
            }
        )
        return
    if output != "-":
        for path in paths:
            click.echo(str(path))
    for composition in compositions:
        told = f"{composition.num_bars} bars, {composition.num_notes} notes, {ui.duration(composition.seconds)}"
        ui.say(told, quiet=quiet)
    ui.say(f"model {composer.checkpoint.name}, {num_tokens / took:.0f} tokens/s, seed {drawn_seed}")


def _told(path: Path, composition: Composition) -> dict[str, Any]:
    return {
        "path": str(path),
        "num_notes": composition.num_notes,
        "num_tokens": composition.num_new_tokens,
        "seconds": composition.seconds,
        "bars": composition.num_bars,
    }


def _read(prompt: str) -> bytes:
    from ..errors import MidiError

    if prompt == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(prompt).read_bytes()
    except OSError as error:
        raise MidiError(f"'{prompt}' cannot be read: {error.strerror or error}") from error


def _paths(output: str | None, count: int, force: bool) -> list[Path]:
    """Return where to write: a file, or new numbered names in a folder.

    Raises:
        OutputError: the place cannot be written, or something is there already.
    """
    folder = Path()
    if output is not None:
        path = Path(output)
        is_folder = path.is_dir() or output.endswith(("/", "\\")) or (count > 1 and path.suffix.lower() != ".mid")
        if not is_folder:
            if count == 1:
                check_writable(path, force=force)
                return [path]
            paths = [path.with_name(f"{path.stem}-{i + 1}{path.suffix}") for i in range(count)]
            for each in paths:
                check_writable(each, force=force)
            return paths
        folder = path
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"the folder '{folder}' cannot be made: {error.strerror}") from error
    taken = [p.stem.removeprefix(f"{STEM}-") for p in folder.glob(f"{STEM}-*.mid")]
    first = max((int(number) for number in taken if number.isdigit()), default=0) + 1
    paths = [folder / f"{STEM}-{first + i:03d}.mid" for i in range(count)]
    check_writable(paths[0])
    return paths
