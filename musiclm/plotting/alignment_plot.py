"""The alignment of a target with its source as pictures and as a page; see `alignment`.

The matrix is that of Bahdanau et al. 2015 (figure 3): source notes from left to right, target notes from top to bottom, darker
is more. A column in front of each bar of the source is for the tokens that begin it.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np

from . import colour, figure, paler, pitch_name, to_bytes, track_name
from .alignment import Alignment
from .attention import called
from .notes import Note
from .piano_roll import BAR_LINE, legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CELL = 0.16  # inches of a note, where they are few
WIDTHS, HEIGHTS = (4.0, 11.0), (3.0, 15.0)  # inches of the matrix
LANE = 1.0  # inches of a piano roll beside it
LABEL = 0.11  # inches between names of notes
RULE = "#7c8aa5"  # colour of bar lines over the matrix


def picture(
    found: Alignment,
    kind: str = ".png",
    *,
    layer: int | None = None,
    heads: Sequence[int] | None = None,
    title: str = "",
) -> bytes:
    """Return the matrix of notes between the piano rolls of source (above) and target (at the left).

    Rolls and matrix have a column or row of the same size for each note.

    Args:
        found: see `alignment`.
        kind: ".png" or ".svg".
        layer: `Alignment.clearest` if left out.
        heads: their mean is shown; all if left out.
        title: above the picture.
    """
    layer = found.clearest() if layer is None else layer
    matrix, columns = _matrix(found, layer, heads)
    height, width = (
        float(np.clip(CELL * size, *limits)) for size, limits in zip(matrix.shape, (HEIGHTS, WIDTHS), strict=True)
    )
    made = figure(width + LANE + 1.6, height + LANE + 1.2)
    if title:
        made.suptitle(title, fontsize=10)
    grid = made.add_gridspec(2, 2, width_ratios=[LANE, width], height_ratios=[LANE, height])
    lane = made.add_subplot(grid[1, 1])
    above, beside = made.add_subplot(grid[0, 1], sharex=lane), made.add_subplot(grid[1, 0], sharey=lane)
    _show(made, lane, matrix)
    places = {note: at for at, (_, note) in enumerate(columns) if note is not None}
    _roll(above, found.source.notes, places, 0, across=True)
    _roll(beside, found.target.notes, range(len(found.target.notes)), _num_given(found), across=False)
    _rule(lane, above, [(at, bar + found.first_bar) for at, (bar, note) in enumerate(columns) if note is None], width)
    _rule(lane, beside, _first_rows(found), height)
    _name(lane, found, places, width, height)
    names = [f"{kind_of}: {name}" for kind_of, name, _ in _tracks(found)]
    legend(made, names, [own for *_, own in _tracks(found)])
    return to_bytes(made, kind)


def matrices(found: Alignment, kind: str = ".png", *, title: str = "") -> bytes:
    """Return the matrices of all layers and heads: rows are target notes, columns bars and notes of the source."""
    num_layers, num_heads = found.shares.shape[:2]
    made = figure(max(4.0, 2.1 * num_heads), 2.2 * num_layers + 0.5)
    made.suptitle(title, fontsize=10)
    lanes = made.subplots(num_layers, num_heads, squeeze=False, sharex=True, sharey=True)
    for (layer, head), lane in np.ndenumerate(lanes):
        matrix, _ = _matrix(found, layer, [head])
        lane.imshow(matrix**0.5, cmap="Greys", vmin=0, vmax=1, aspect="auto", interpolation="antialiased")
        lane.set_title(f"layer {layer + 1}, head {head + 1}", fontsize=8)
        lane.tick_params(labelsize=6, length=0)
    made.supxlabel("source note", fontsize=8)
    made.supylabel("target note", fontsize=8)
    return to_bytes(made, kind)


def _matrix(
    found: Alignment, layer: int, heads: Sequence[int] | None
) -> tuple[np.ndarray, list[tuple[int, int | None]]]:
    """Return a matrix of target notes and columns, and of each column its bar and note, None for the bar's beginning."""
    chosen = list(range(found.shares.shape[1])) if heads is None else list(heads)
    notes = [(found.bar_of(n.start), i) for i, n in enumerate(found.source.notes)]
    bars: list[tuple[int, int | None]] = [(bar, None) for bar in range(len(found.bars))]
    columns = sorted([*bars, *notes], key=lambda c: (c[0], -1 if c[1] is None else c[1]))
    shares = np.concatenate([found.shares[layer, chosen], found.of_bars[layer, chosen]], -1).mean(0)
    num_notes = found.shares.shape[-1]
    return shares[:, [num_notes + bar if note is None else note for bar, note in columns]], columns


def _first_rows(found: Alignment) -> list[tuple[int, int]]:
    """Return of each bar in which a target note begins the first row, and its number."""
    rows: dict[int, int] = {}
    for row, note in enumerate(found.target.notes):
        rows.setdefault(found.bar_of(note.start), row)
    return [(row, bar + found.first_bar) for bar, row in rows.items()]


def _show(made: Figure, lane: Axes, matrix: np.ndarray) -> None:
    """Plot a matrix; what is darkest is its 99.8th percentile, so that a few cells do not hide the rest, and 0.1 at least."""
    darkest = max(0.1, float(np.quantile(matrix, 0.998)))
    shown = lane.imshow(
        matrix, cmap="Greys", norm=_norm(darkest), aspect="auto", interpolation="nearest", interpolation_stage="data"
    )
    bar = made.colorbar(shown, ax=lane, fraction=0.02, pad=0.01, aspect=40, extend="max")
    bar.ax.tick_params(labelsize=6)
    bar.set_label("attention weight", fontsize=7)
    lane.tick_params(length=0)


def _norm(darkest: float) -> Any:
    from matplotlib.colors import PowerNorm

    return PowerNorm(0.6, 0.0, darkest)


def _roll(
    lane: Axes, notes: Sequence[Note], places: Mapping[int, int] | Sequence[int], first_track: int, *, across: bool
) -> None:
    """Plot pitches of notes at their places; drums are at the lower end."""
    pitched = [n.pitch for n in notes if not n.is_drum]
    low, high = (min(pitched), max(pitched)) if pitched else (60, 60)
    drums = sorted({n.pitch for n in notes if n.is_drum})
    size = max(1.0, (high - low) / 14)
    bottom = low - 2 - size * 1.2 * len(drums)
    for i, note in enumerate(notes):
        pitch = low - 2 - size * 1.2 * (drums.index(note.pitch) + 0.5) if note.is_drum else note.pitch
        at, own = places[i] - 0.45, colour(first_track + note.track)
        if across:
            lane.broken_barh([(at, 0.9)], (pitch - size / 2, size), color=own, lw=0)
        else:
            lane.broken_barh([(pitch - size / 2, size)], (at, 0.9), color=own, lw=0)
    limits = bottom - size, high + size
    named = sorted({low, high}) if pitched else []
    if across:
        lane.set(ylim=limits)
        lane.set_yticks(named, [pitch_name(p) for p in named], fontsize=6)
    else:
        lane.set(xlim=limits)
        lane.set_xticks(named, [pitch_name(p) for p in named], fontsize=6, rotation=90)
    lane.tick_params(length=0, labelbottom=not across, labelleft=across)
    for side in lane.spines.values():
        side.set_color(BAR_LINE)


def _rule(lane: Axes, roll: Axes, firsts: Sequence[tuple[int, int]], size: float) -> None:
    """Plot bar lines through the matrix and a roll, and write bar numbers at the outer edge of the roll, as many as fit."""
    across = roll.get_subplotspec().rowspan.start == 0  # type: ignore[union-attr]
    total = np.ptp(lane.get_xlim() if across else lane.get_ylim())
    last = -math.inf
    for at, number in firsts:
        for axes in (lane, roll):
            (axes.axvline if across else axes.axhline)(at - 0.5, color=RULE, lw=0.5, alpha=0.7)
        if (at - last) * size / total < 0.16:
            continue
        last = at
        place = {"xy": (at - 0.5, 1), "xytext": (2, 2)} if across else {"xy": (0, at - 0.5), "xytext": (-3, -1)}
        roll.annotate(
            str(number),
            xycoords=roll.get_xaxis_transform() if across else roll.get_yaxis_transform(),
            textcoords="offset points",
            fontsize=6.5,
            color="#555555",
            ha="left" if across else "right",
            va="bottom" if across else "top",
            annotation_clip=False,
            **place,
        )


def _name(lane: Axes, found: Alignment, places: dict[int, int], width: float, height: float) -> None:
    """Write the names of source notes below and of target notes at the right of the matrix, as many as fit."""
    columns, rows = len(places) + len(found.bars), len(found.target.notes)
    every = max(1, math.ceil(LABEL * columns / width))
    chosen: list[int] = []
    for i in range(len(places)):
        if not chosen or places[i] - places[chosen[-1]] >= every:
            chosen.append(i)
    lane.set_xticks(
        [places[i] for i in chosen], [called(found.source.notes[i]) for i in chosen], fontsize=5.5, rotation=90
    )
    step = max(1, math.ceil(LABEL * rows / height))
    shown = range(0, rows, step)
    lane.yaxis.tick_right()
    lane.set_yticks(list(shown), [called(found.target.notes[i]) for i in shown], fontsize=5.5)
    lane.set_xlabel("source note", fontsize=7)
    lane.yaxis.set_label_position("right")
    lane.set_ylabel("target note", fontsize=7)


def _tracks(found: Alignment) -> list[tuple[str, str, str]]:
    """Return of each track with notes its side, name and colour: those of the source first."""
    tracks = [
        (name, track_name(track))
        for name, side in (("source", found.source), ("target", found.target))
        for track in side.score.tracks
        if track.notes
    ]
    return [(*track, colour(i)) for i, track in enumerate(tracks)]


def _num_given(found: Alignment) -> int:
    """Return the number of tracks of the source that have notes."""
    return sum(bool(track.notes) for track in found.source.score.tracks)


def page(
    found: Alignment, *, name: str, title: str, note: int, layer: int | None = None, heads: Sequence[int] | None = None
) -> str:
    """Return a self-contained HTML page: source and target above each other, and what the selected target note attends to.

    Args:
        found: see `alignment`.
        name: of the model.
        title: of the page.
        note: the index of the target note that is selected first.
        layer: the layer that is shown first; `Alignment.clearest` if left out.
        heads: the heads that are shown first; all if left out.
    """
    num_layers, num_heads = found.shares.shape[:2]
    data: dict[str, Any] = {
        "title": title,
        "model": name,
        "left": found.num_left,
        "first": found.first_bar,
        "note": note,
        "layer": found.clearest() if layer is None else layer,
        "heads": list(range(num_heads) if heads is None else heads),
        "bars": [round(float(start), 4) for start in found.bars],
        "tracks": [[side, track, paler(own, 0.2)] for side, track, own in _tracks(found)],
        "source": _notes(found.source.notes, 0),
        "target": _notes(found.target.notes, _num_given(found)),
        "shares": [[_packed(found.shares[la, h]) for h in range(num_heads)] for la in range(num_layers)],
        "of_bars": np.round(found.of_bars.sum(-1) * 1000).astype(int).tolist(),
    }
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
    template = resources.files(__package__).joinpath("alignment.html").read_text("utf-8")
    return template.replace("/*DATA*/null", text)


def _notes(notes: Sequence[Note], first_track: int) -> list[list[Any]]:
    return [
        [round(n.start, 4), round(n.end, 4), n.pitch, first_track + n.track, int(n.is_drum), called(n)] for n in notes
    ]


def _packed(shares: np.ndarray) -> str:
    """Return shares as bytes in base64, row by row: 255 times the square root of each, so that small ones are not lost."""
    return base64.b64encode(np.round(255 * np.sqrt(shares.clip(0, 1))).astype(np.uint8).tobytes()).decode()
