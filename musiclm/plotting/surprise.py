"""How surprised a model is by each note of a piece, and the picture of it.

A note's surprise is the sum of the nats (-ln p) of its tokens, each given all before it, as far as the model's memory
goes; see `notes` for which tokens those are. It cannot be compared between tokenizers of different kinds: one says more
of a note than another.
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

EXPECTED_TO_NOT = ("#b7c3d4", "#8fb0a3", "#e3b23c", "#d9622b", "#b3202c", "#5e0f36")
LEAST_SCALE = 4.0  # nats at which the colours end, if no note is above it
ROOM = 0.5  # inches below a system, for the surprise of its beats


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoteSurprisals:
    """What a model makes of a piece.

    Attributes:
        heard: the piece as the model heard it.
        nats: (N,) of each note.
        elsewhere: nats of the tokens that belong to no note.
        first_bar: the number of its first bar.
    """

    heard: AlignedNotes
    nats: np.ndarray
    elsewhere: float
    first_bar: int = 1

    @property
    def scale(self) -> float:
        """Nats at which the colours end: more than 98 of 100 notes have."""
        return max(LEAST_SCALE, float(np.quantile(self.nats, 0.98)))

    def places(self) -> list[tuple[int, float]]:
        """Return the number of each note's bar, and its beat in quarters, counted from 1."""
        lines: list[float] = []
        bars = midi.bars(self.heard.score)
        found = []
        for note in self.heard.notes:
            while not lines or lines[-1] <= note.start + 1e-6:
                lines.append(next(bars).start)
            found.append((len(lines) - 2 + self.first_bar, round(note.start - lines[-2] + 1, 3)))
        return found


def surprise(model: LanguageModel, tokenizer: Tokenizer, score: Score, *, first_bar: int = 1) -> NoteSurprisals:
    """Return how surprised a model is by each note of a score.

    Args:
        model: in evaluation mode.
        tokenizer: the model's.
        score: any.
        first_bar: its number, to be told.

    Raises:
        MidiError: the tokenizer can express not one note of it.
        TokenizerError: the tokenizer's ids do not say one note each.
    """
    found = align(tokenizer, score)
    piece = Piece(name="", tokens=found.ids, num_notes=len(found.notes), seconds=0.0)
    ((_, nats),) = token_losses(model, tokenizer, [piece])
    nats = np.append(0.0, nats)
    of_notes = found.by_note(nats)
    return NoteSurprisals(heard=found, nats=of_notes, elsewhere=float(nats.sum() - of_notes.sum()), first_bar=first_bar)


def document(found: NoteSurprisals, name: str) -> dict[str, Any]:
    """Return what `musiclm surprise --json` prints, but for the file's name."""
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
    """Return what a musician calls a note's pitch."""
    return drum_name(note.pitch) if note.is_drum else pitch_name(note.pitch)


def notes(found: NoteSurprisals) -> list[Drawn]:
    """Return the notes in the colours of their surprise."""
    return [
        Drawn(start=n.start, end=n.end, pitch=n.pitch, is_drum=n.is_drum, colour=colour_of(nats / found.scale))
        for n, nats in zip(found.heard.notes, found.nats, strict=True)
    ]


def colour_of(share: float) -> str:
    """Return the colour of a share of the scale, #rrggbb: grey for what was expected, red and darker for what was not."""
    place = min(max(float(share), 0.0), 1.0) * (len(EXPECTED_TO_NOT) - 1)
    low = min(int(place), len(EXPECTED_TO_NOT) - 2)
    pair = [[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in EXPECTED_TO_NOT[low : low + 2]]
    return "#" + "".join(f"{round(a + (b - a) * (place - low)):02x}" for a, b in zip(*pair, strict=True))


def picture(found: NoteSurprisals, kind: str = ".png", *, title: str = "") -> bytes:
    """Return the piano roll in the colours of surprise, with the mean surprise of each quarter's notes below it.

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
    names[0], names[-1] = "0 nats a note", f"{names[-1]} and more; below each system the mean by quarters"
    legend(made, names, [colour_of(share) for share in shares])
    return to_bytes(made, kind)
