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
from ..tokenizers.bpe import MergedTokenizer
from ..tokenizers.grid import FIRST_PITCH, SILENCE, VOICES, Grid, is_cell
from ..tokenizers.miditok import MARKS, MidiTokTokenizer
from ..tokenizers.performance import NOTE_OFF, NOTE_ON, NUM_KEYS, VELOCITY, Performance
from ..tokenizers.performance import TIME_SHIFT as FIRST_SHIFT

BEGINS = ("Pitch", "PitchDrum", "NoteOn", "DrumOn")
SHAPES = ("Velocity", "Duration", "MicroTiming")
ENDS = ("NoteOff", "DrumOff")


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
    base = tokenizer.base_ids(ids)
    teller = tokenizer.base if isinstance(tokenizer, MergedTokenizer) else tokenizer
    if isinstance(teller, Grid):
        said, owner = _on_grid(base)
    elif isinstance(teller, Performance):
        said, owner = _of_events(*_performed(base))
    elif isinstance(teller, MidiTokTokenizer) and "Pattern" not in teller.kinds:
        said, owner = _of_events(*_of_kinds(teller, base))
    else:
        raise TokenizerError(
            f"the ids of the tokenizer '{tokenizer.name}' do not say one note each: nothing can be drawn"
        )
    by_track = isinstance(teller, Grid) or "Track" in getattr(teller, "kinds", ())
    notes = _notes(decoded, by_track)
    if len(notes) != len(said) or [n.pitch for n in notes] != [pitch for _, pitch in said]:
        raise TokenizerError(f"the tokenizer '{tokenizer.name}' gives notes in another order: nothing can be drawn")
    notes = [dataclasses.replace(n, said=place) for n, (place, _) in zip(notes, said, strict=True)]
    owners = owner[:, None]
    if isinstance(tokenizer, MergedTokenizer):
        owners, places = _merged(tokenizer, ids, owner)
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


def _on_grid(ids: np.ndarray) -> tuple[Said, np.ndarray]:
    """Return what is said where, voice by voice, and whose each cell is."""
    places = np.flatnonzero(is_cell(ids))
    said, owner = Said(), np.full(len(ids), -1)
    for voice in range(len(VOICES)):
        mine = places[voice :: len(VOICES)]
        last = SILENCE
        for place in mine.tolist():
            cell = int(ids[place])
            if cell >= FIRST_PITCH:
                if cell != last:
                    said.append((place, cell - FIRST_PITCH))
                owner[place] = len(said) - 1
            last = cell
    return said, owner


def _performed(ids: np.ndarray) -> tuple[list[str], list[int], list[int]]:
    """Return what each id of `performance` does, its pitch and its program."""
    does, pitches = [], []
    for i in ids.tolist():
        if NOTE_ON <= i < VELOCITY:
            does.append("begins" if i < NOTE_OFF else "ends")
            pitches.append((i - NOTE_ON) % NUM_KEYS + 21)
        else:
            does.append("shapes" if VELOCITY <= i < FIRST_SHIFT else "leads" if i >= FIRST_SHIFT else "marks")
            pitches.append(-1)
    return does, pitches, [0] * len(does)


def _of_kinds(tokenizer: MidiTokTokenizer, ids: np.ndarray) -> tuple[list[str], list[int], list[int]]:
    """Return what each id of MidiTok's does, its pitch and its program."""
    does, pitches, programs = [], [], []
    program = 0
    for i in ids.tolist():
        kind, value = tokenizer.kinds[i], tokenizer.values[i]
        program = int(value) if kind == "Program" else program
        known = {**dict.fromkeys(BEGINS, "begins"), **dict.fromkeys(SHAPES, "shapes"), **dict.fromkeys(ENDS, "ends")}
        does.append("marks" if kind in MARKS else known.get(kind, "leads"))
        pitches.append(int(value) if kind in BEGINS + ENDS else -1)
        programs.append(program)
    return does, pitches, programs


def _of_events(does: list[str], pitches: list[int], programs: list[int]) -> tuple[Said, np.ndarray]:
    """Return what is said where, and whose each id is: what leads up to a beginning or an end is of that note."""
    said, owner = Said(), np.full(len(does), -1)
    leading: list[int] = []
    sounding: dict[tuple[int, int], int] = {}
    latest = -1
    for place, (what, pitch, program) in enumerate(zip(does, pitches, programs, strict=True)):
        if what == "leads":
            leading.append(place)
            continue
        if what == "marks":
            leading.clear()
            continue
        if what == "begins":
            said.append((place, pitch))
            latest = sounding[program, pitch] = len(said) - 1
        note = latest if what != "ends" else sounding.pop((program, pitch), -1)
        owner[[*leading, place]] = note
        leading.clear()
    return said, owner


def _merged(tokenizer: MergedTokenizer, ids: np.ndarray, owner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return whose each merged id is, (T, most base ids of one), and for each base id the place of its merged one.

    A merged id has its base ids' owners in turn, repeated, so that each base id has about the same share.
    """
    sizes = np.array([len(tokenizer.expansions[i]) for i in ids])
    first = np.cumsum(sizes) - sizes
    widest = int(np.lcm.reduce(np.unique(sizes))) if len(np.unique(sizes)) < 4 else 4 * int(sizes.max())
    at = first[:, None] + np.arange(widest)[None] * sizes[:, None] // widest
    return owner[at], np.repeat(np.arange(len(ids)), sizes)
