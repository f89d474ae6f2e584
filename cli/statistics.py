"""musiclm statistics."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import click

from ..errors import CorpusError
from . import _console, _options


@click.command("statistics", epilog="Example: musiclm statistics ideas/ my_midis/ --bars 16")
@click.argument("data")
@click.argument("reference", required=False)
@click.option("--bars", type=click.IntRange(1), metavar="N", help="Only the first N bars of each piece; default: all.")
@click.option("--each", is_flag=True, help="With --json: also the figures of each piece.")
@_options.json_output
@_options.quiet
def command(data: str, reference: str | None, bars: int | None, each: bool, as_json: bool, quiet: bool) -> None:
    """Compute musical metrics of DATA, and compare them with those of REFERENCE.

    Both are folders, archives, corpora or files. No model is needed: samples of any program can be compared with the
    music that they should resemble. Use --bars if the pieces of the two differ in length.
    """
    if each and not as_json:
        raise click.UsageError("--each needs --json")
    for source in (data, reference):
        if source is not None and not Path(source).exists():
            raise CorpusError(f"no folder or file '{source}'")
    from ..evaluation import music_metrics

    names, found, left_out = _measured(data, bars, quiet=quiet)
    document: dict[str, Any] = {"data": data, "bars": bars, "num_pieces": len(found), "left_out": left_out}
    summary: dict[str, Any] | None = None
    if reference is None:
        document["statistics"] = music_metrics.of_set(found)
    else:
        _, others, others_left_out = _measured(reference, bars, quiet=quiet)
        document["statistics"] = music_metrics.against(found, others)
        document["mean_overlapped_area"] = music_metrics.mean_overlap(document["statistics"])
        summary = music_metrics.of_set(others)
        document["reference"] = {
            "data": reference,
            "num_pieces": len(others),
            "left_out": others_left_out,
            "statistics": summary,
        }
    if each:
        document["pieces"] = [{"name": name, **values} for name, values in zip(names, found, strict=True)]
    if as_json:
        _console.print_json(document)
        return
    from . import _tables

    _tables.show_statistics(_console.counted(len(found), "piece"), document["statistics"], summary)


def _measured(source: str, bars: int | None, *, quiet: bool) -> tuple[list[str], list[Any], dict[str, int]]:
    """Return names and metrics of the pieces in a source, and the number of pieces left out, by reason."""
    from ..data import each_score
    from ..errors import MidiError
    from ..evaluation import music_metrics

    names, found = [], []
    left_out: Counter[str] = Counter()
    for name, score in each_score(source):
        if isinstance(score, MidiError):
            left_out[str(score).replace(f"'{name}' ", "")] += 1
        else:
            names.append(name)
            found.append(music_metrics.of_score(score, bars))
    for reason, count in left_out.items():
        _console.say(f"left out of {source}: {count} × {reason}", quiet=quiet)
    if not found:
        raise CorpusError(f"no music in '{source}'" + (f": {next(iter(left_out))}" if left_out else ""))
    return names, found, dict(left_out)
