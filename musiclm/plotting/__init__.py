"""Music and models to look at: piano rolls, surprise, attention, embeddings. PNG and SVG need matplotlib.

Each picture is a module, which returns bytes, text or a page; who calls decides where that goes. This one has what they
share: colours, names of tracks and pitches, where a prompt ended, figures to bytes.
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


def check_output(path: Path, *, force: bool = False, kinds: Sequence[str] = KINDS) -> None:
    """Say now what would go wrong when a picture is written to `path`.

    Raises:
        OutputError: its name ends in none of `kinds`; matplotlib is not there; or see `check_writable`.
    """
    kind = path.suffix.lower()
    if kind not in kinds:
        raise OutputError(f"'{path}' is no kind of picture that can be drawn here: one of {', '.join(kinds)}")
    if kind in KINDS and find_spec("matplotlib") is None:
        raise OutputError("pictures need matplotlib: pip install 'musiclm[pictures]'")
    check_writable(path, force=force)


def track_name(track: Track) -> str:
    """Return what to call a track: by its own name, else by its instrument of General MIDI."""
    if track.name.strip():
        return track.name.strip()
    if track.is_drum:
        return "Drums"
    import pretty_midi

    return str(pretty_midi.program_to_instrument_name(track.program))


def pitch_name(pitch: int) -> str:
    """Return C4 for 60."""
    return f"{PITCHES[pitch % 12]}{pitch // 12 - 1}"


def colour(number: int) -> str:
    """Return the colour of a track by its place among those with notes, as #rrggbb; from the eleventh on of other shades."""
    own = COLOURS[number % len(COLOURS)]
    turn = number // len(COLOURS)
    if not turn:
        return own
    h, lightness, s = colorsys.rgb_to_hls(*(int(own[i : i + 2], 16) / 255 for i in (1, 3, 5)))
    r, g, b = colorsys.hls_to_rgb(h, min(0.8, lightness + 0.12 * turn), s)
    return f"#{round(r * 255):02x}{round(g * 255):02x}{round(b * 255):02x}"


def paler(of: str, share: float) -> str:
    """Return a colour, #rrggbb, with that share of it turned to a light grey."""
    parts = (int(of[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(p * (1 - share) + 205 * share):02x}" for p in parts)


def prompt_end(score: Score) -> float | None:
    """Return where a score's prompt ends, in quarters, as the text in a file that musiclm wrote tells; None if it does not."""
    for told in _records(score):
        try:
            if not told.get("prompt") or told["options"].get("only_new") or _fills(told):
                continue
            if isinstance(told.get("prompt_quarters"), (int, float)):
                return float(told["prompt_quarters"])
            if isinstance(bars := told["options"].get("prompt_bars"), int):
                return midi.bar_line(score, 0.0, bars)
        except (ValueError, TypeError, KeyError, AttributeError):  # a marker of anybody else
            continue
    return None


def was_written_within(score: Score) -> bool:
    """Return whether a file that musiclm wrote tells that its new music stands within its prompt, not behind it."""
    return any(_fills(told) for told in _records(score))


def _records(score: Score) -> Iterator[dict[str, Any]]:
    for marker in score.markers:
        try:
            told = json.loads(marker.text)
        except ValueError:
            continue
        if isinstance(told, dict) and "musiclm" in told:
            yield told


def _fills(told: dict[str, Any]) -> bool:
    options = told.get("options")
    return isinstance(options, dict) and any(name in options for name in ("infill", "keep_tracks", "accompany"))


def figure(width: float, height: float) -> Figure:
    """Return an empty figure, in inches, that lays itself out."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def to_bytes(drawn: Figure, kind: str) -> bytes:
    """Return a figure as a file of a kind, ".png" or ".svg": the same bytes each time."""
    import matplotlib as mpl

    file = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "musiclm", "svg.fonttype": "none"}):
        drawn.savefig(file, format=kind.removeprefix("."), metadata={"Date": None} if kind == ".svg" else {})
    return file.getvalue()
