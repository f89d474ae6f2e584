"""musiclm repro."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..devices import resolve_device
from ..errors import MusicLMError
from ..files import check_writable, write_whole
from . import _console, _options

if TYPE_CHECKING:
    from ..generation.provenance import Record


@click.command("repro", epilog="Example: musiclm repro out.mid --prompt seed.mid")
@click.argument("file", metavar="FILE")
@click.option("--prompt", metavar="PROMPT", help="The MIDI file that FILE continues; - for standard input.")
@click.option("--model", metavar="MODEL", help="The model that made FILE, where it is not bundled.")
@click.option("-o", "--output", metavar="PATH", help="Write the result; - for standard output.")
@_options.force
@_options.device
@_options.json_output
@_options.quiet
def command(
    file: str,
    prompt: str | None,
    model: str | None,
    output: str | None,
    force: bool,
    device: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Generate FILE again from the record in it, and say whether the bytes are the same.

    The same bytes are expected where musiclm, torch, the device and the engine are those that made FILE. The engine is the
    number format of the weights and how the CPU multiplies them. What differs from the record is printed first.

    Exit code 0 if the bytes are the same, 1 if not.
    """
    if output == "-" and as_json:
        raise click.UsageError("-o - writes one MIDI file: not with --json")
    if output == "-":
        _console.standard_output()
    elif output is not None:
        check_writable(Path(output), force=force)
    data = _console.read_bytes(file)
    prompt_bytes = None if prompt is None else _console.read_bytes(prompt)

    from .. import checkpoint, midi
    from ..generation import provenance

    record = provenance.read(midi.parse(data, file), file)
    if model is None and record.model not in checkpoint.bundled():
        raise MusicLMError(f"'{file}' was made by a {record.model} that is not bundled: name it with --model")
    loaded = checkpoint.load(model or record.model)
    differences = provenance.check(record, loaded, prompt_bytes)
    score = None if prompt_bytes is None else midi.parse(prompt_bytes, prompt or "")

    from ..generation.composer import Composer

    where = resolve_device(device)
    differences += _of_machine(record, where)
    _say_expectation(differences, provenance.check_engine(record, where)[0], quiet=quiet)
    made = provenance.reproduce(record, Composer(loaded, where), score)
    _write(made, output, force=force)
    at = provenance.first_difference(data, made)
    if as_json:
        report = {"path": file, "same": at is None, "first_difference": at, "bytes": len(data), "bytes_made": len(made)}
        report |= {"model": loaded.name, "seed": record.seed, "index": record.index, "may_differ": differences}
        _console.print_json(report)
    elif at is None:
        _console.say(f"the same {len(data)} bytes: model {loaded.name}, seed {record.seed}", quiet=quiet)
    if at is not None:
        why = "" if differences else " (the file was changed, or made with another CPU or number of threads)"
        raise MusicLMError(
            f"'{file}' has {len(data)} bytes, the new one has {len(made)}; they differ from byte {at} on{why}"
        )


def _of_machine(record: Record, device: str) -> list[str]:
    """Return what of the device and the engine differs from when the file was made, a sentence each."""
    from ..generation import provenance

    elsewhere = [] if device == record.device else [f"it was computed on {record.device}, this is {device}"]
    return elsewhere + provenance.check_engine(record, device)[1]


def _say_expectation(differences: list[str], engine: str, *, quiet: bool) -> None:
    """Say what may change the bytes, or that the same ones are expected."""
    for difference in differences:
        _console.say(f"may differ: {difference}", quiet=quiet)
    if not differences:
        _console.say(f"the same bytes are expected on a CPU like that of the file: engine {engine}", quiet=quiet)


def _write(made: bytes, output: str | None, *, force: bool) -> None:
    """Write a file's bytes to a path or to standard output, if one is asked for."""
    if output == "-":
        _console.standard_output().write(made)
        sys.stdout.buffer.flush()
    elif output is not None:
        write_whole(Path(output), made, force=force)
