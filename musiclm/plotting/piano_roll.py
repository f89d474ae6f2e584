"""Piano rolls as pictures: with bar lines, one colour per track, and systems below each other as in sheet music.

Velocity is opacity. Drums have a lane of their own with their names. The prompt is pale on a tinted background.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import midi
from . import PITCHES, colour, figure, paler, pitch_name, to_bytes, track_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from symusic import Score, Track

QUARTERS_A_SYSTEM = 48.0
MAX_SYSTEMS = 24  # per picture; with longer music the systems are longer
WIDTH = 12.0  # inches
PROMPT_GROUND, BLACK_KEY, BAR_LINE = "#f6eedd", "#f5f5f7", "#c8c8cc"
DRUMS = """
    kick kick rim snare clap snare tom6 hat tom5 pedal tom4 open tom3 tom2 crash tom1 ride china cup tamb splsh bell crash
    slap ride bongo bongo conga conga conga timb timb agogo agogo cabas marac whist whist guiro guiro clave wood wood
    cuica cuica trian trian
""".split()  # noqa: SIM905 of General MIDI from pitch 35, at most five letters


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawn:
    """A note to plot: times in quarters, `colour` as #rrggbb, `opacity` in 0 … 1.

    `track` is its index among the tracks with notes. A pale note belongs to the prompt or to the given music.
    """

    start: float
    end: float
    pitch: int
    is_drum: bool
    colour: str
    opacity: float = 1.0
    track: int = 0
    is_pale: bool = False


def notes(score: Score, prompt: float | None = None, kept: Score | None = None) -> list[Drawn]:
    """Return the notes of a score with the colours of their tracks; the opacity is the velocity.

    Notes before `prompt` are pale, and notes that `kept` also has at the same time in a track of the same program.
    """
    tpq = score.ticks_per_quarter
    there = set() if kept is None else {_place(kept, t, n.time, n.pitch) for t in kept.tracks for n in t.notes}
    plotted = []
    for i, track in enumerate(t for t in score.tracks if t.notes):
        for n in track.notes:
            is_pale = prompt is not None and n.time / tpq < prompt - 1e-6
            is_pale |= _place(score, track, n.time, n.pitch) in there
            plotted.append(
                Drawn(
                    start=n.time / tpq,
                    end=n.end / tpq,
                    pitch=n.pitch,
                    is_drum=track.is_drum,
                    colour=paler(colour(i), 0.55) if is_pale else colour(i),
                    opacity=0.3 + 0.7 * n.velocity / 127,
                    track=i,
                    is_pale=is_pale,
                )
            )
    return plotted


def _place(score: Score, track: Track, time: int, pitch: int) -> tuple[bool, int, float, int]:
    return track.is_drum, 0 if track.is_drum else track.program, time / score.ticks_per_quarter, pitch


def piano_roll(
    score: Score,
    kind: str = ".png",
    *,
    prompt: float | None = None,
    kept: Score | None = None,
    title: str = "",
    first_bar: int = 1,
) -> bytes:
    """Return the piano roll of a score as the bytes of a picture.

    Args:
        score: a score with notes.
        kind: ".png" or ".svg".
        prompt: the end of the prompt, in quarters; notes that begin before it are pale.
        kept: the original of an infilled score; the notes that both have are pale.
        title: above the picture.
        first_bar: the number of the first bar.
    """
    made, _ = systems(score, notes(score, prompt, kept), prompt=prompt, title=title, first_bar=first_bar)
    legend(made, [track_name(t) for t in score.tracks if t.notes])
    return to_bytes(made, kind)


def systems(
    score: Score,
    plotted: Sequence[Drawn],
    *,
    prompt: float | None = None,
    title: str = "",
    extra: float = 0.0,
    span: tuple[float, float] | None = None,
    first_bar: int = 1,
) -> tuple[Figure, list[tuple[Axes | None, float, float]]]:
    """Return a figure with the notes, and for each system (axes for more below it, first quarter, last quarter).

    Args:
        score: for bars and time signatures.
        plotted: the notes.
        prompt: see `piano_roll`.
        title: above the picture.
        extra: height of the axes below each system, in inches; with 0 they are None.
        span: first and last quarter of a single system; by default all music in as many systems as it needs.
        first_bar: the number of the first bar.
    """
    last = max(n.end for n in plotted)
    lines = [(bar.start, f"{bar.numerator}/{bar.denominator}") for bar in _bars(score, last)]
    cuts = [span] if span else _cuts([start for start, _ in lines], midi.bar_line(score, last))
    pitched = [n.pitch for n in plotted if not n.is_drum]
    drums = sorted({n.pitch for n in plotted if n.is_drum})
    low, high = (min(pitched) - 2, max(pitched) + 2) if pitched else (0, 0)
    heights = [max(0.9, (high - low) * 0.055)] if pitched else []
    heights += [max(0.3, len(drums) * 0.17)] if drums else []
    heights += [extra] if extra else []
    room = 0.45 * bool(title) + 0.45
    made = figure(WIDTH, len(cuts) * (sum(heights) + 0.34) + room)
    close: Any = made.get_layout_engine()
    close.set(h_pad=0.02, hspace=0.0)
    if title:
        made.suptitle(title, fontsize=11, x=0.01, ha="left")
    parts = made.subfigures(len(cuts), 1, squeeze=False)[:, 0]
    rooms: list[tuple[Axes | None, float, float]] = []
    for part, (begin, end) in zip(parts, cuts, strict=True):
        lanes = list(part.subplots(len(heights), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0])
        inside = [n for n in plotted if n.start < end and n.end > begin]
        width = max(c[1] - c[0] for c in cuts)
        for lane in lanes:
            _frame(lane, begin, begin + width, [(t, m) for t, m in lines if begin <= t < end], prompt)
        lanes[0].tick_params(labeltop=True)
        _number_bars(lanes[0], lines, begin, end, first_bar)
        if pitched:
            _keys(lanes[0], low, high, begin, begin + width)
            _bars_of_notes(lanes[0], [(n, n.pitch) for n in inside if not n.is_drum])
        if drums:
            lane = lanes[1 if pitched else 0]
            lane.set_ylim(-0.6, len(drums) - 0.4)
            lane.set_yticks(range(len(drums)), [drum_name(d) for d in drums], fontsize=6)
            _bars_of_notes(lane, [(n, drums.index(n.pitch)) for n in inside if n.is_drum])
        rooms.append((lanes[-1] if extra else None, begin, end))
    return made, rooms


def legend(made: Figure, names: Sequence[str], colours: Sequence[str] | None = None) -> None:
    """Add a legend below a figure; by default the colours are those of the tracks."""
    from matplotlib.patches import Patch

    colours = colours or [colour(i) for i in range(len(names))]
    shown = [Patch(color=c, label=n if len(n) < 60 else n[:59] + "…") for n, c in zip(names, colours, strict=True)]
    made.legend(handles=shown, loc="outside lower left", ncols=min(8, len(shown)), frameon=False, fontsize=8)


def drum_name(pitch: int) -> str:
    """Return a short name of a General MIDI drum, or its number."""
    return DRUMS[pitch - 35] if 35 <= pitch < 35 + len(DRUMS) else str(pitch)


def _bars(score: Score, last: float) -> list[midi.Bar]:
    return list(itertools.takewhile(lambda bar: bar.start < last - 1e-6, midi.bars(score)))


def _cuts(lines: list[float], end: float) -> list[tuple[float, float]]:
    """Return where each system begins and ends, in quarters: as many bars as fit, at least one."""
    longest = max(QUARTERS_A_SYSTEM, end / MAX_SYSTEMS) + 1e-6
    cuts = [0.0]
    for line, following in itertools.pairwise([*lines, end]):
        if following - cuts[-1] > longest and line > cuts[-1]:
            cuts.append(line)
    return list(itertools.pairwise([*cuts, end]))


def _frame(lane: Axes, begin: float, end: float, lines: Sequence[tuple[float, str]], prompt: float | None) -> None:
    """Plot the bar lines of a lane and remove its ticks and spines."""
    lane.set_xlim(begin, end)
    lane.vlines([t for t, _ in lines], 0, 1, transform=lane.get_xaxis_transform(), color=BAR_LINE, lw=0.7, zorder=1)
    lane.tick_params(length=0, labelbottom=False, labelsize=7)
    for side in ("top", "right", "bottom"):
        lane.spines[side].set_visible(False)
    lane.spines["left"].set_color(BAR_LINE)
    if prompt is not None and prompt > begin:
        lane.axvspan(begin, min(prompt, end), color=PROMPT_GROUND, lw=0, zorder=0)
        if prompt < end:
            lane.axvline(prompt, color="#a5803a", lw=1.2, zorder=3)


def _number_bars(lane: Axes, lines: Sequence[tuple[float, str]], begin: float, end: float, first: int) -> None:
    """Write bar numbers above a lane, as many as fit, and the time signature where it changes."""
    shown = [(i, t, m) for i, (t, m) in enumerate(lines) if begin <= t < end]
    every = max(1, math.ceil(len(shown) / 24))
    labels = []
    for i, _, signature in shown:
        changes = i == 0 or lines[i - 1][1] != signature
        number = str(i + first) if i % every == 0 or i == shown[0][0] else ""
        labels.append(f"{number}  {signature}".strip() if changes else number)
    lane.set_xticks([t for _, t, _ in shown], labels, fontsize=7, ha="left", color="#555555")


def _keys(lane: Axes, low: int, high: int, begin: float, end: float) -> None:
    """Plot the black keys as stripes and label each C."""
    lane.set_ylim(low - 0.5, high + 0.5)
    for pitch in range(low, high + 1):
        if len(PITCHES[pitch % 12]) > 1:
            lane.axhspan(pitch - 0.5, pitch + 0.5, color=BLACK_KEY, lw=0, zorder=0)
    named = [p for p in range(low, high + 1) if p % 12 == 0]
    named = named or [low + 2]
    lane.hlines([p - 0.5 for p in named], begin, end, color="#dddde2", lw=0.5, zorder=0.5)
    lane.set_yticks(named, [pitch_name(p) for p in named])


def _bars_of_notes(lane: Axes, placed: Sequence[tuple[Drawn, int]]) -> None:
    """Plot notes as bars, with a small gap before the next one."""
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import to_rgba

    corners: Any = np.array(
        [
            [
                (n.start, y - 0.42),
                (n.start, y + 0.42),
                (stop := max(n.end - 0.05, n.start + 0.04), y + 0.42),
                (stop, y - 0.42),
            ]
            for n, y in placed
        ]
    ).reshape(-1, 4, 2)
    lane.add_collection(
        PolyCollection(
            corners, facecolors=[to_rgba(n.colour, n.opacity) for n, _ in placed], edgecolors="none", zorder=2
        )
    )
