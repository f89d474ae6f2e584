"""A piece as one HTML page: a piano roll to zoom and scroll, with the sound inside, playable without a network.

The page is `piece.html` with data filled in. Names from MIDI files reach it as JSON in a script element that is never run,
with every < escaped, and become text nodes. A content security policy allows the template's own script and style, by their
hashes, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import html
import itertools
import json
import re
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import midi
from ..errors import MidiError
from . import colour, piano_roll, pitch_name, program_name, track_name

if TYPE_CHECKING:
    from symusic import Score

MAX_SECONDS = 300.0  # of music in a page: about 2.5 MB


def piece_page(
    score: Score,
    *,
    title: str,
    prompt: float | None = None,
    kept: Score | None = None,
    first_bar: int = 1,
    soundfont: str | Path | None = None,
) -> str:
    """Return a self-contained HTML page of a score; of a longer one its first `MAX_SECONDS`, and the page says so.

    Args:
        score: a score with notes.
        title: of the page.
        prompt: the end of the prompt, in quarters; notes that begin before it are pale.
        kept: the original of an infilled score; the notes that both have are pale.
        first_bar: the number of the first bar.
        soundfont: see `rendering.find_soundfont`. Notes that it has no sound for are shown all the same.

    Raises:
        AudioError: the soundfont cannot be read.
        MidiError: the score has no note within the first `MAX_SECONDS`.
    """
    from ..rendering.ogg import to_ogg

    whole = midi.seconds(score)
    if is_cut := whole > MAX_SECONDS:
        score = midi.cut(score, 0.0, midi.quarters_at(score, MAX_SECONDS))
        if not score.note_num():
            raise MidiError(f"no note begins within the first {MAX_SECONDS / 60:g} minutes: choose bars with --bars")
    sound = to_ogg(score, soundfont)
    data = page_data(score, prompt=prompt, kept=kept, first_bar=first_bar)
    data |= {"title": title, "whole": round(whole, 1) if is_cut else None}
    return _filled(data, sound)


def page_data(score: Score, *, prompt: float | None, kept: Score | None, first_bar: int) -> dict[str, Any]:
    """Return what a page shows of a score: tracks, notes by their onset, bars; times in seconds. See `piece_page`."""
    tempo = midi.TempoMap(score)

    def seconds(quarters: float) -> float:
        return round(tempo.seconds_at(quarters), 4)

    notes = sorted(piano_roll.notes(score, prompt, kept), key=lambda n: (n.start, n.track, n.pitch))
    last = max(n.end for n in notes)
    bars, signature = [], ""
    for number, bar in enumerate(itertools.takewhile(lambda b: b.start < last - 1e-6, midi.bars(score)), first_bar):
        before, signature = signature, f"{bar.numerator}/{bar.denominator}"
        bars.append([seconds(bar.start), number, signature if signature != before else ""])
    return {
        "tracks": _tracks(score),
        "notes": [
            [seconds(n.start), seconds(n.end), n.pitch, n.track, round(n.opacity, 2), int(n.is_pale)] for n in notes
        ],
        "bars": bars,
        "end": seconds(last),
        "prompt": None if prompt is None else seconds(min(prompt, last)),
        "kept": kept is not None,
        "drums": [[p, piano_roll.drum_name(p)] for p in sorted({n.pitch for n in notes if n.is_drum}, reverse=True)],
    }


def _tracks(score: Score) -> list[dict[str, Any]]:
    """Return for each track with notes its name, instrument, number of notes, compass and colour."""
    found = []
    for i, track in enumerate(t for t in score.tracks if t.notes):
        pitches = [n.pitch for n in track.notes]
        compass = " to ".join(pitch_name(pitch) for pitch in sorted({min(pitches), max(pitches)}))
        found.append(
            {
                "name": track_name(track),
                "instrument": program_name(track),
                "notes": len(pitches),
                "compass": "" if track.is_drum else compass,
                "drum": track.is_drum,
                "colour": colour(i),
            }
        )
    return found


def _filled(data: dict[str, Any], sound: bytes | None) -> str:
    """Return the template with its markers replaced in one pass, so that no name can be taken for a marker."""
    template = resources.files(__package__).joinpath("piece.html").read_text("utf-8")
    (style,), (script,) = (re.findall(rf"<{tag}>(.*?)</{tag}>", template, re.S) for tag in ("style", "script"))
    source = "" if sound is None else f'src="data:audio/ogg;base64,{base64.b64encode(sound).decode()}"'
    values = {
        "POLICY": f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; media-src data:; "
        "img-src data:; base-uri 'none'; form-action 'none'",
        "TITLE": html.escape(data["title"].encode("utf-8", "replace").decode()),
        "SOUND": source,
        "DATA": json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),  # ASCII, whatever the names are
    }
    return re.sub(r"/\*(POLICY|TITLE|SOUND|DATA)\*/", lambda found: values[found[1]], template)


def _hash(text: str) -> str:
    """Return how a content security policy names an inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
