"""What `show --expression` shows: the curves of performances of a score, in the terminal or as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from ..errors import MidiError
from ..files import write_whole
from . import _console
from ._sparkline import sparkline, thinned

if TYPE_CHECKING:
    from ..plotting.expression import Curve

WIDTH = 60  # characters of a line
WINDOW = 1.0  # quarters in which the tempo of the curves does not change


def show(files: Sequence[str], score: str, path: Path | None, *, drums: bool, force: bool, quiet: bool) -> None:
    """Print or write the curves.

    Args:
        files: performances; - for standard input.
        score: the score of all of them.
        path: of the picture; None for the terminal.
        drums: of the drums, whatever else there is.
        force: overwrite what is there.
        quiet: say less.

    Raises:
        MidiError: one of the files cannot be read, or is no performance of the score.
    """
    from .. import midi
    from ..performing.alignment import performed
    from ..plotting import expression

    written = midi.parse(_console.read_bytes(score), score)
    curves = []
    for file in files:
        read = midi.parse(_console.read_bytes(file), file)
        try:
            notes, parameters = performed(written, read, drums=drums, window=WINDOW)
        except MidiError as error:
            raise MidiError(f"'{file}' is not shown beside '{score}': {error}") from error
        curves.append(expression.curve(Path(file).name, notes, parameters))
    if path is None:
        for each in curves:
            click.echo(summary(each))
        _console.say("from left to right: the score from its beginning to its end", quiet=quiet)
        return
    write_whole(path, expression.picture(curves, path.suffix.lower(), title=Path(score).name), force=force)
    click.echo(str(path))


def summary(curve: Curve) -> str:
    """Return the curves of a performance as lines of text: mean, standard deviation, range and course."""
    known = np.isfinite(curve.velocity)
    lines = [curve.name]
    for name, values, unit in (("tempo", curve.qpm, "quarters/min"), ("velocity", curve.velocity[known], "of 127")):
        figures = f"{values.mean():5.1f} ± {values.std():4.1f}, {values.min():.0f} to {values.max():.0f} {unit}"
        lines.append(f"  {name:9}{figures}")
        lines.append(f"  {'':9}{sparkline(thinned(values.tolist(), WIDTH), WIDTH)}")
    return "\n".join(lines)
