"""Alignment of ids and notes: which ids belong to which note, so that values per token can be plotted over notes.

A note's ids are those that begin, shape and end it, and those before them that lead to it: bar, position, program, time
shift. On the grid they are the cells in which it sounds. What leads to no note (the last bar line, special tokens, silent
cells) belongs to none. All of it is read from the vocabulary table.
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
    """A note as the ids have it.

    Attributes:
        start, end: in quarters of the score.
        pitch, velocity: of MIDI.
        track: its index among the score's tracks that have notes.
        is_drum: whether its pitch is the number of a drum.
        said: position of the id that has its pitch.
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
    """A piece as the ids have it.

    Attributes:
        ids: (T,), bos first and eos last.
        notes: by time.
        owner: (T, 1 or more) for each id the numbers of the notes that it belongs to, -1 for none.
        score: the notes as a score, with the tempi and time signatures of the piece.
        left_out: how many notes the tokenizer could not express.
    """

    ids: np.ndarray
    notes: list[Note]
    owner: np.ndarray
    score: Score
    left_out: int

    def by_note(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of values over each note's ids, (N,); an id of several notes gives each an equal share.

        Args:
            values: (T,), one per id.
        """
        shares = (values / self.owner.shape[1])[:, None].repeat(self.owner.shape[1], 1)
        is_note = self.owner >= 0
        return np.bincount(self.owner[is_note], shares[is_note], len(self.notes))


def align(tokenizer: Tokenizer, score: Score) -> AlignedNotes:
    """Return the ids of a score and the notes that they belong to.

    Raises:
        MidiError: no note can be expressed.
        TokenizerError: no id of the tokenizer begins exactly one note.
    """
    ids, left_out = tokenizer.encode(score)
    return align_ids(tokenizer, ids, score, left_out)


def align_ids(tokenizer: Tokenizer, ids: np.ndarray, score: Score, left_out: int = 0) -> AlignedNotes:
    """Return the notes that ids belong to.

    Args:
        tokenizer: of the ids.
        ids: (T,), of one side of a pair if the tokenizer has pairs.
        score: that they were encoded from.
        left_out: how many notes of it they do not have.

    Raises:
        TokenizerError: see `align`.
    """
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
        raise TokenizerError(f"the tokenizer '{tokenizer.name}' gives notes in another order: nothing can be plotted")
    notes = [dataclasses.replace(n, said=place) for n, (place, _) in zip(notes, said, strict=True)]
    owners = owner[:, None]
    if len(base) > len(ids):
        owners, places = _merged(tokenizer.vocabulary, ids, owner)
        notes = [dataclasses.replace(n, said=int(places[n.said])) for n in notes]
    order = sorted(range(len(notes)), key=lambda i: (notes[i].start, notes[i].said))
    rank = np.append(np.argsort(order), -1)  # -1 stays
    return AlignedNotes(ids=ids, notes=[notes[i] for i in order], owner=rank[owners], score=decoded, left_out=left_out)


Said = list[tuple[int, int]]
"""For each note the position of the id that begins it, and its pitch."""


def _notes(score: Score, by_track: bool) -> list[Note]:
    """Return the notes of a decoded score in the order of the ids that begin them."""
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
    """Return the cells that begin notes, voice by voice, and the number of the note that each id belongs to, (T,)."""
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
    """Return the ids that begin notes, and the number of the note that each id belongs to, (T,).

    Ids that lead to the beginning or the end of a note belong to that note.
    """
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
    """Return the notes of each merged id, (T, N), and for each base id the position of its merged one.

    A merged id has the notes of its base ids in turn, repeated to length N, so that each base id has about the same share.
    """
    expanded = expansions(vocabulary)
    sizes = np.array([len(expanded[i]) for i in ids])
    first = np.cumsum(sizes) - sizes
    widest = int(np.lcm.reduce(np.unique(sizes))) if len(np.unique(sizes)) < 4 else 4 * int(sizes.max())
    at = first[:, None] + np.arange(widest)[None] * sizes[:, None] // widest
    return owner[at], np.repeat(np.arange(len(ids)), sizes)
