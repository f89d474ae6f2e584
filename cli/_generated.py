"""What `generate`, `accompany` and `restyle` do with generated music: write it, play it, and say what it is."""

from __future__ import annotations

import itertools
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..files import write_whole
from . import _console, _pages

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from ..generation.composer import Composition, Ranked
    from ..generation.files import Generated

RESAMPLED = {"loop": "a loop ({})", "harmony": "standing harmony ({})", "drums": "drums alone ({})"}  # how often


def deliver(
    made: Generated,
    paths: list[Path],
    *,
    seed: int,
    prompt: bytes | None,
    output: str | None,
    wav: bool,
    html: bool,
    soundfont: str | None,
    force: bool,
    as_json: bool,
    shows_paths: bool,
    seconds: Callable[[], float],
    quiet: bool,
) -> None:
    """Write the MIDI files, and sounds and pages beside them, and say what was generated.

    Args:
        made: what was generated.
        paths: where the MIDI files go; none for standard output.
        seed: of everything that was sampled.
        prompt: the MIDI file that was continued, or written within.
        output: as the user gave it.
        wav: whether to write sounds.
        html: whether to write pages.
        soundfont: of both.
        force: overwrite existing files.
        as_json: print one document.
        shows_paths: print the paths.
        seconds: returns how long it took.
        quiet: say less.
    """
    write(made, output, paths, force=force)
    beside: dict[str, list[Path]] = {}
    if wav:
        beside["sounds"] = write_sounds(made, paths, soundfont, force=force)
    if html:
        beside["pages"] = _pages.write_pages(made.files, paths, prompt, soundfont=soundfont, force=force)
    if as_json:
        _console.print_json(document(made, seed, paths, beside, seconds=seconds()))
        return
    for path in itertools.chain(paths, *beside.values()) if shows_paths else ():
        click.echo(str(path))
    say(made, seed, quiet=quiet)


def write(made: Generated, output: str | None, paths: list[Path], *, force: bool) -> None:
    """Write the MIDI files."""
    if output == "-":
        _console.standard_output().write(made.files[0].data)
        sys.stdout.buffer.flush()
    for path, file in zip(paths, made.files, strict=bool(paths)):
        write_whole(path, file.data, force=force)


def write_sounds(made: Generated, paths: list[Path], soundfont: str | None, *, force: bool) -> list[Path]:
    from .play import write_sound

    return write_sound([file.composition.score for file in made.files], paths, soundfont=soundfont, force=force)


def play(made: Generated, soundfont: str | None, *, quiet: bool) -> None:
    from .play import play_score

    for file in made.files:
        play_score(file.composition.score, soundfont, quiet=quiet)


def document(
    made: Generated, seed: int, paths: list[Path], beside: dict[str, list[Path]], *, seconds: float
) -> dict[str, Any]:
    """Return what --json prints."""
    document: dict[str, Any] = {
        "model": made.composer.checkpoint.name,
        "seed": seed,
        "outputs": [_output(path, file.composition) for path, file in zip(paths, made.files, strict=True)],
    }
    if made.config.task is not None:
        document["parts"] = _parts(made)
    if made.ranked:
        document["weighed"] = [_ranked(each, made) for each in made.ranked]
    document |= {"tokens_per_second": made.tokens_per_second, "seconds_elapsed": seconds}
    return document | {name: [str(path) for path in files] for name, files in beside.items()}


def _parts(made: Generated) -> list[str]:
    """Return the names of the parts that were written."""
    from ..generation import players

    return [players.name(program) for program in players.in_order(made.config.controls.instruments)]


def _output(path: Path, composition: Composition) -> dict[str, Any]:
    return {
        "path": str(path),
        "index": composition.index,
        "num_notes": composition.num_notes,
        **({} if composition.num_new_notes is None else {"num_new_notes": composition.num_new_notes}),
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


def say(made: Generated, seed: int, *, quiet: bool) -> None:
    """Say what was generated, and why it was kept."""
    for file in made.files:
        _say_composition(file.composition, quiet=quiet)
    if made.ranked:
        _say_ranking(made, quiet=quiet)
    _console.say(f"model {made.composer.checkpoint.name}, {made.tokens_per_second:.0f} tokens/s, seed {seed}")


def _say_composition(composition: Composition, *, quiet: bool) -> None:
    bars, notes = _console.counted(composition.num_bars, "bar"), _console.counted(composition.num_notes, "note")
    if composition.num_new_notes is not None:
        notes += f" ({composition.num_new_notes:,} new)"
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
