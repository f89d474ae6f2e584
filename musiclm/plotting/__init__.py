"""Plots of music and models: piano rolls, surprisal, attention, embeddings. matplotlib renders PNG and SVG.

Each plot is a module that returns bytes, text or a page; the caller decides where to write it. This module has what they
share: colours, names of tracks and pitches, the end of a prompt, figures as bytes.
"""

from __future__ import annotations

import colorsys
import io
import json
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import midi
from ..errors import OutputError
from ..files import check_writable

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from symusic import Score, Track

KINDS = (".png", ".svg")
COLOURS = ("#3b6fb6", "#d9822b", "#3f9b62", "#b5485d", "#7a5ba6", "#8c6d4f", "#c957a3", "#4a9aa8", "#a89a2b", "#6b7a85")
PITCHES = ("C", "C♯", "D", "E♭", "E", "F", "F♯", "G", "A♭", "A", "B♭", "B")
DPI = 110
WITHIN = ("infill", "keep_tracks", "accompany", "task")  # options of music that was written within a prompt


def check_output(path: Path, *, force: bool = False, kinds: Sequence[str] = KINDS) -> None:
    """Check, before anything is computed, that a picture can be written to `path`.

    Raises:
        OutputError: its suffix is not one of `kinds`; matplotlib is not installed; or see `check_writable`.
    """
    kind = path.suffix.lower()
    if kind not in kinds:
        raise OutputError(f"'{path}' has another suffix than those that can be written: {', '.join(kinds)}")
    if kind in KINDS and find_spec("matplotlib") is None:
        raise OutputError("pictures need matplotlib, which this installation lacks: pip install matplotlib")
    check_writable(path, force=force)


def track_name(track: Track) -> str:
    """Return the name of a track, or else of its General MIDI program."""
    return track.name.strip() or program_name(track)


def program_name(track: Track) -> str:
    """Return the name of the General MIDI program of a track."""
    if track.is_drum:
        return "Drums"
    import pretty_midi

    return str(pretty_midi.program_to_instrument_name(track.program))


def pitch_name(pitch: int) -> str:
    """Return C4 for 60."""
    return f"{PITCHES[pitch % 12]}{pitch // 12 - 1}"


def colour(number: int) -> str:
    """Return the colour of a track as #rrggbb, by its index among those with notes; lighter shades from the eleventh on."""
    own = COLOURS[number % len(COLOURS)]
    turn = number // len(COLOURS)
    if not turn:
        return own
    h, lightness, s = colorsys.rgb_to_hls(*(int(own[i : i + 2], 16) / 255 for i in (1, 3, 5)))
    r, g, b = colorsys.hls_to_rgb(h, min(0.8, lightness + 0.12 * turn), s)
    return f"#{round(r * 255):02x}{round(g * 255):02x}{round(b * 255):02x}"


def paler(of: str, share: float) -> str:
    """Return a colour, #rrggbb, blended with that share of a light grey."""
    parts = (int(of[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(p * (1 - share) + 205 * share):02x}" for p in parts)


def prompt_end(score: Score) -> float | None:
    """Return where the prompt of a score ends, in quarters, from the provenance in a file of musiclm; None if unknown."""
    for record in _records(score):
        try:
            if not record.get("prompt") or record["options"].get("only_new") or _is_infilled(record):
                continue
            if isinstance(record.get("prompt_quarters"), (int, float)):
                return float(record["prompt_quarters"])
            if isinstance(bars := record["options"].get("prompt_bars"), int):
                return midi.bar_line(score, 0.0, bars)
        except (ValueError, TypeError, KeyError, AttributeError):  # a marker of another program
            continue
    return None


def was_written_within(score: Score) -> bool:
    """Return whether the provenance of a score says that it was infilled: its new music is within the prompt."""
    return any(_is_infilled(record) for record in _records(score))


def _records(score: Score) -> Iterator[dict[str, Any]]:
    for marker in score.markers:
        try:
            record = json.loads(marker.text)
        except ValueError:
            continue
        if isinstance(record, dict) and "musiclm" in record:
            yield record


def _is_infilled(record: dict[str, Any]) -> bool:
    options = record.get("options")
    return isinstance(options, dict) and any(name in options for name in WITHIN)


def figure(width: float, height: float) -> Figure:
    """Return an empty figure with a constrained layout; width and height in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def to_bytes(plot: Figure, kind: str) -> bytes:
    """Return a figure as the bytes of a ".png" or ".svg" file, the same each time."""
    import matplotlib as mpl

    file = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "musiclm", "svg.fonttype": "none"}):
        plot.savefig(file, format=kind.removeprefix("."), metadata={"Date": None} if kind == ".svg" else {})
    return file.getvalue()
