"""Surprisal of each note of a piece under a model, and its plot.

The surprisal of a note is the sum of -ln p over its tokens, in nats, each conditioned on all tokens before it within the
model's context; `notes` defines which tokens belong to a note. It cannot be compared between kinds of tokenizers: they
encode different properties of a note.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from symusic import Score

from .. import midi
from ..data import Piece
from ..evaluation import token_losses
from ..models.base import LanguageModel
from ..tokenizers.base import Tokenizer
from . import pitch_name, to_bytes, track_name
from .notes import AlignedNotes, Note, align
from .piano_roll import Drawn, drum_name, legend, systems

COLOUR_SCALE = ("#b7c3d4", "#8fb0a3", "#e3b23c", "#d9622b", "#b3202c", "#5e0f36")
LEAST_SCALE = 4.0  # nats; the colour scale ends there or higher
ROOM = 0.5  # inches below a system, for the mean surprisal per quarter


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoteSurprisals:
    """The surprisals of the notes of a piece.

    Attributes:
        heard: the model's input: ids, notes and their alignment.
        nats: (N,), the surprisal of each note.
        elsewhere: total loss of the tokens that belong to no note, in nats.
        first_bar: the number of the first bar.
    """

    heard: AlignedNotes
    nats: np.ndarray
    elsewhere: float
    first_bar: int = 1

    @property
    def scale(self) -> float:
        """The end of the colour scale in nats: the 98th percentile of the notes, at least `LEAST_SCALE`."""
        return max(LEAST_SCALE, float(np.quantile(self.nats, 0.98)))

    def places(self) -> list[tuple[int, float]]:
        """Return the bar number of each note, and its beat in quarters, counted from 1."""
        lines: list[float] = []
        bars = midi.bars(self.heard.score)
        found = []
        for note in self.heard.notes:
            while not lines or lines[-1] <= note.start + 1e-6:
                lines.append(next(bars).start)
            found.append((len(lines) - 2 + self.first_bar, round(note.start - lines[-2] + 1, 3)))
        return found


def surprise(model: LanguageModel, tokenizer: Tokenizer, score: Score, *, first_bar: int = 1) -> NoteSurprisals:
    """Return the surprisal of each note of a score under a model.

    Args:
        model: in evaluation mode.
        tokenizer: the model's.
        score: any score.
        first_bar: the number of the first bar, for the result.

    Raises:
        MidiError: the tokenizer cannot express a single note of it.
        TokenizerError: the ids of the tokenizer do not stand for one note each.
    """
    found = align(tokenizer, score)
    piece = Piece(name="", tokens=found.ids, num_notes=len(found.notes), seconds=0.0)
    ((_, nats),) = token_losses(model, tokenizer, [piece])
    nats = np.append(0.0, nats)
    of_notes = found.by_note(nats)
    return NoteSurprisals(heard=found, nats=of_notes, elsewhere=float(nats.sum() - of_notes.sum()), first_bar=first_bar)


def document(found: NoteSurprisals, name: str) -> dict[str, Any]:
    """Return the document of `musiclm surprise --json`, without the name of the file."""
    tracks = [track_name(t) for t in found.heard.score.tracks if t.notes]
    return {
        "model": name,
        "num_notes": len(found.heard.notes),
        "left_out": found.heard.left_out,
        "nats": float(found.nats.sum() + found.elsewhere),
        "nats_per_note": float(found.nats.mean()),
        "notes": [
            {
                "bar": bar,
                "beat": beat,
                "start": note.start,
                "end": note.end,
                "pitch": note.pitch,
                "velocity": note.velocity,
                "track": tracks[note.track],
                "nats": float(nats),
            }
            for note, (bar, beat), nats in zip(found.heard.notes, found.places(), found.nats, strict=True)
        ],
    }


def called(note: Note) -> str:
    """Return the name of the pitch or drum of a note."""
    return drum_name(note.pitch) if note.is_drum else pitch_name(note.pitch)


def notes(found: NoteSurprisals) -> list[Drawn]:
    """Return the notes to plot, coloured by surprisal."""
    return [
        Drawn(start=n.start, end=n.end, pitch=n.pitch, is_drum=n.is_drum, colour=colour_of(nats / found.scale))
        for n, nats in zip(found.heard.notes, found.nats, strict=True)
    ]


def colour_of(share: float) -> str:
    """Return the colour of a share of the scale, #rrggbb: from grey (low surprisal) over red to dark red (high)."""
    place = min(max(float(share), 0.0), 1.0) * (len(COLOUR_SCALE) - 1)
    low = min(int(place), len(COLOUR_SCALE) - 2)
    pair = [[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in COLOUR_SCALE[low : low + 2]]
    return "#" + "".join(f"{round(a + (b - a) * (place - low)):02x}" for a, b in zip(*pair, strict=True))


def picture(found: NoteSurprisals, kind: str = ".png", *, title: str = "") -> bytes:
    """Return the piano roll coloured by surprisal, with the mean surprisal of the notes of each quarter below it.

    Args:
        found: see `surprise`.
        kind: ".png" or ".svg".
        title: above the picture.
    """
    made, rooms = systems(found.heard.score, notes(found), title=title, extra=ROOM, first_bar=found.first_bar)
    quarter = np.array([int(n.start + 1e-6) for n in found.heard.notes])
    count = np.bincount(quarter)
    mean = np.bincount(quarter, found.nats) / np.maximum(count, 1)
    for lane, begin, end in rooms:
        assert lane is not None
        inside = np.arange(int(begin), min(int(np.ceil(end)), len(mean)))
        colours = [colour_of(v / found.scale) for v in mean[inside]]
        lane.bar(inside, mean[inside], width=0.92, align="edge", color=colours, linewidth=0)
        lane.set_ylim(0, max(float(mean.max()), 1e-9))
        lane.set_ylabel("nats", fontsize=6)
        lane.tick_params(labelsize=6)
    shares = [i / 5 for i in range(6)]
    names = [f"{share * found.scale:.1f}" for share in shares]
    names[0], names[-1] = "0 nats/note", f"{names[-1]} and more; below each system the mean per quarter"
    legend(made, names, [colour_of(share) for share in shares])
    return to_bytes(made, kind)
