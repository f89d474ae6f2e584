"""Which bars speak for a label: the piano roll coloured by how much each bar is worth, with the values below it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from symusic import Score

from ..tagging.occlusion import Evidence
from . import to_bytes
from .piano_roll import Drawn, legend, systems

SCALE = ("#2b5fa8", "#8fb0d6", "#b9bcc4", "#e0958a", "#b3202c")  # from against the label to for it
LEAST_SCALE = 0.1  # nats; the colour scale ends there or higher
ROOM = 0.6  # inches below a system


def colour_of(share: float) -> str:
    """Return the colour of a value over the largest one, -1 … 1, as #rrggbb: blue against the label, red for it."""
    place = (min(max(share, -1.0), 1.0) + 1) / 2 * (len(SCALE) - 1)
    low = min(int(place), len(SCALE) - 2)
    pair = [[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in SCALE[low : low + 2]]
    return "#" + "".join(f"{round(a + (b - a) * (place - low)):02x}" for a, b in zip(*pair, strict=True))


def scale_of(found: Sequence[Evidence]) -> float:
    """Return the end of the colour scale in nats: the largest value, at least `LEAST_SCALE`."""
    return max(LEAST_SCALE, *(abs(each.nats) for each in found))


def notes(score: Score, found: Sequence[Evidence]) -> list[Drawn]:
    """Return the notes of a score, coloured by the value of the bars in which they begin."""
    scale, tpq = scale_of(found), score.ticks_per_quarter
    starts = [each.start for each in found]
    drawn = []
    for i, track in enumerate(t for t in score.tracks if t.notes):
        for n in track.notes:
            start = n.time / tpq
            at = max(0, bisect_right(starts, start + 1e-6) - 1)
            colour = colour_of(found[at].nats / scale)
            drawn.append(
                Drawn(start=start, end=n.end / tpq, pitch=n.pitch, is_drum=track.is_drum, colour=colour, track=i)
            )
    return drawn


def picture(score: Score, found: Sequence[Evidence], kind: str = ".png", *, title: str = "") -> bytes:
    """Return the picture of a score and its evidence.

    Args:
        score: with notes.
        found: see `tagging.occlusion.evidence`.
        kind: ".png" or ".svg".
        title: above the picture.
    """
    scale = scale_of(found)
    made, lanes = systems(score, notes(score, found), title=title, extra=ROOM)
    for lane, begin, end in lanes:
        axes: Any = lane
        inside = [each for each in found if each.start < end and each.stop > begin]
        for each in inside:
            left, right = max(each.start, begin), min(each.stop, end)
            axes.bar(left, each.nats, width=0.96 * (right - left), align="edge", color=colour_of(each.nats / scale))
        axes.axhline(0, color="#888888", lw=0.5)
        axes.set_ylim(-scale, scale)
        axes.set_ylabel("nats", fontsize=6)
        axes.tick_params(labelsize=6)
    names = [f"{share * scale:+.2f}" for share in (-1.0, -0.5, 0.0, 0.5, 1.0)]
    names[0], names[-1] = f"{names[0]} nats: against the label", f"{names[-1]} nats: for it"
    legend(made, names, [colour_of(share) for share in (-1.0, -0.5, 0.0, 0.5, 1.0)])
    return to_bytes(made, kind)
