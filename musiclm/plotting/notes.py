"""Which ids say which note: what lets a model's view of tokens be drawn over notes.

A note's tokens are those that begin, shape and end it, and those before them that lead up to it: bar, position, program,
silence. On the grid they are the cells in which it sounds. What leads to no note (the last bar line, the marks around a
piece, silent cells) belongs to none.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from symusic import Score

from .. import midi
from ..errors import TokenizerError
from ..tokenizers.base import Tokenizer
from ..tokenizers.vocabulary import BEGINS, ENDS, SHAPES, SPECIAL, Kind, Vocabulary, base_of, expansions, has


@dataclasses.dataclass(frozen=True, kw_only=True)
class Note:
    """A note as a model heard it.

    Attributes:
        start, end: in quarters of the score.
        pitch, velocity: of MIDI.
        track: its place among the score's tracks that have notes.
        is_drum: whether its pitch is a drum's number.
        said: place of the id that says its pitch.
    """

    start: float
    end: float
    pitch: int
    velocity: int
    track: int
    is_drum: bool
    said: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlignedNotes:
    """A piece as a model heard it.

    Attributes:
        ids: (T,), bos first and eos last.
        notes: by time.
        owner: (T, 1 or more) for each id the numbers of the notes that it belongs to, -1 for none.
        score: the notes as a score, with the tempo and metre of the piece.
        left_out: how many notes the tokenizer could not express.
    """

    ids: np.ndarray
    notes: list[Note]
    owner: np.ndarray
    score: Score
    left_out: int

    def by_note(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of what each note's ids have, (N,); an id of several notes gives each its share.

        Args:
            values: (T,), one an id.
        """
        shares = (values / self.owner.shape[1])[:, None].repeat(self.owner.shape[1], 1)
        is_note = self.owner >= 0
        return np.bincount(self.owner[is_note], shares[is_note], len(self.notes))


def align(tokenizer: Tokenizer, score: Score) -> AlignedNotes:
    """Return a score as a tokenizer says it, note by note.

    Raises:
        MidiError: not one note can be expressed.
        TokenizerError: the tokenizer's ids do not say one note each.
    """
    ids, left_out = tokenizer.encode(score)
    decoded = tokenizer.decode(ids)
    if tokenizer.in_seconds:
        decoded = midi.retimed(decoded, score)
    midi.carry_over(score, decoded, tempi=tokenizer.tempi)
    base, table = tokenizer.base_ids(ids), base_of(tokenizer.vocabulary)
    if has(table, Kind.CELL):
        said, owner = _on_grid(table, base, tokenizer.num_voices)
    elif has(table, *BEGINS):
        said, owner = _of_events(table, base)
    else:
        raise TokenizerError(
            f"the ids of the tokenizer '{tokenizer.name}' do not say one note each: nothing can be plotted"
        )
    notes = _notes(decoded, by_track=has(table, Kind.CELL, Kind.TRACK))
    if len(notes) != len(said) or [n.pitch for n in notes] != [pitch for _, pitch in said]:
        raise TokenizerError(f"the tokenizer '{tokenizer.name}' gives notes in another order: nothing can be drawn")
    notes = [dataclasses.replace(n, said=place) for n, (place, _) in zip(notes, said, strict=True)]
    owners = owner[:, None]
    if len(base) > len(ids):
        owners, places = _merged(tokenizer.vocabulary, ids, owner)
        notes = [dataclasses.replace(n, said=int(places[n.said])) for n in notes]
    order = sorted(range(len(notes)), key=lambda i: (notes[i].start, notes[i].said))
    rank = np.append(np.argsort(order), -1)  # -1 stays
    return AlignedNotes(ids=ids, notes=[notes[i] for i in order], owner=rank[owners], score=decoded, left_out=left_out)


Said = list[tuple[int, int]]
"""For each note the place of the id that says it, and its pitch."""


def _notes(score: Score, by_track: bool) -> list[Note]:
    """Return the notes of a decoded score in the order in which ids say them."""
    tpq = score.ticks_per_quarter
    found: list[tuple[Any, Note]] = []
    for i, track in enumerate(t for t in score.tracks if t.notes):
        for n in track.notes:
            key = (i, n.time, n.pitch) if by_track else (n.time, track.is_drum, track.program, n.pitch)
            note = Note(
                start=n.time / tpq,
                end=n.end / tpq,
                pitch=n.pitch,
                velocity=n.velocity,
                track=i,
                is_drum=track.is_drum,
                said=-1,
            )
            found.append((key, note))
    return [note for _, note in sorted(found, key=lambda pair: pair[0])]


def _on_grid(table: Vocabulary, ids: np.ndarray, num_voices: int) -> tuple[Said, np.ndarray]:
    """Return which cells begin notes, voice by voice, and which note each id belongs to."""
    tokens = [table[i] for i in ids]
    places = [place for place, token in enumerate(tokens) if token.kind in (Kind.CELL, Kind.SILENCE)]
    said, owner = Said(), np.full(len(ids), -1)
    for voice in range(num_voices):
        last = None
        for place in places[voice::num_voices]:
            pitch = tokens[place].value  # None for silence
            if pitch is not None:
                if pitch != last:
                    said.append((place, pitch))
                owner[place] = len(said) - 1
            last = pitch
    return said, owner


def _of_events(table: Vocabulary, ids: np.ndarray) -> tuple[Said, np.ndarray]:
    """Return which ids begin notes, and which note each id belongs to: what leads to a beginning or an end is of that note."""
    said, owner = Said(), np.full(len(ids), -1)
    leading: list[int] = []
    sounding: dict[tuple[int, int], int] = {}
    latest, program = -1, 0
    for place, i in enumerate(ids.tolist()):
        kind, value = table[i]
        if kind in SPECIAL:
            leading.clear()
            continue
        if kind == Kind.PROGRAM:
            program = value
        if kind in BEGINS:
            said.append((place, value))
            latest = sounding[program, value] = len(said) - 1
        elif kind not in SHAPES and kind not in ENDS:
            leading.append(place)
            continue
        note = sounding.pop((program, value), -1) if kind in ENDS else latest
        owner[[*leading, place]] = note
        leading.clear()
    return said, owner


def _merged(vocabulary: Vocabulary, ids: np.ndarray, owner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return whose each merged id is, (T, most base ids of one), and for each base id the place of its merged one.

    A merged id has its base ids' owners in turn, repeated, so that each base id has about the same share.
    """
    expanded = expansions(vocabulary)
    sizes = np.array([len(expanded[i]) for i in ids])
    first = np.cumsum(sizes) - sizes
    widest = int(np.lcm.reduce(np.unique(sizes))) if len(np.unique(sizes)) < 4 else 4 * int(sizes.max())
    at = first[:, None] + np.arange(widest)[None] * sizes[:, None] // widest
    return owner[at], np.repeat(np.arange(len(ids)), sizes)
