"""The aligned scores and performances of ASAP, for training and measuring `perform`.

ASAP: Foscarin et al., "ASAP: a dataset of aligned scores and performances for piano transcription", ISMIR 2020. Alignments
of notes: Peter et al., "Automatic Note-Level Score-to-Performance Alignments in the ASAP Dataset", TISMIR 2023.

An alignment is a match file (Foscarin et al., "The match file format", MEC 2022), a text with one fact per line:

    info(midiClockUnits,480).                         ticks per 0.5 s, for midiClockRate 500000
    scoreprop(timeSignature,2/4,0:1,0,-1.0000).       at the beat -1; version 5.0: meta(timeSignature,2/4,0,-1.0).
    snote(n1-1,[G,n],5,0:1,0,1/8,-1.0,-0.5,[])-note(n0,79,480,510,71,0,0).     a score note and its performed note
    snote(n1-1,...)-deletion.     insertion-note(...).     notes that one of both lacks
    sustain(3038,65).                                 the sustain pedal, from 64 on down

A score note has an identity, a spelled pitch, an octave, bar:beat, offset, duration in whole notes, and the beats where it
begins and ends; a beat is the denominator of the time signature. A performed note has an identity, a MIDI pitch (version
5.0: a spelled pitch and an octave), the ticks of onset and key release (5.0: and of the pedal's), and a velocity.
`partitura` reads the same notes and times from these files, in 0.4 to 1.4 s for each of 518; this takes 0.16 s with the links.
"""

from __future__ import annotations

import csv
import dataclasses
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from .. import midi
from ..errors import CorpusError
from ..midi.pedal import DOWN
from ..midi.theory import LETTERS
from .notes import ScoreNotes, keyboard_notes, onset_numbers
from .parameters import Parameters, parameters_of

TABLE = "metadata.csv"
NEAR = 1 / 24  # quarters: between a note of the score MIDI and the same note of the match file
FAR = 1.0  # quarters, of an ornament: score MIDI has its notes one after the other, match files at one place
BLOCK = 150  # notes that share a shift between match file and score MIDI
DRIFT = 8.0  # quarters, of the shift from one block to the next
STEPS = 96  # per quarter, to which shifts are rounded
SURE = 1.5  # times as many pairs as at the shift before a new one needs
MOST = 0.5  # pairs per note of a block, below which its shift is looked for everywhere
APART = 0.5  # seconds from the median of its chord, or of its chord from those around, of a wrong alignment
AROUND = 4  # chords before and after
SIGNS = {"n": 0, "#": 1, "b": -1, "x": 2, "##": 2, "bb": -2}
_SNOTE = re.compile(r"snote\(([^,]+),\[(\w),([^]]*)\],(-?\d+),[^,]*,[^,]*,[^,]*,([-\d.e]+),([-\d.e]+),\[.*?\]\)-")
_NOTE = re.compile(r"note\(([^,]+),(\d+|\[\w,[^]]*\],-?\d+),(\d+),(\d+),([\d,]+)\)\.")
_SIGN = re.compile(r"(?:scoreprop|meta)\(timeSignature,(\d+)/(\d+),.*?,([-\d.e]+)\)\.")
_CLOCK = re.compile(r"info\((midiClockUnits|midiClockRate),(\d+)\)\.")
_SUSTAIN = re.compile(r"sustain\((\d+),(\d+)\)\.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AsapPerformance:
    """A performance of a piece, aligned to its score.

    Attributes:
        piece: composer and title, as the table has them.
        name: the performance's MIDI file, relative to the folder.
        notes: of the score MIDI, N.
        parameters: of the N notes; its mask says which are aligned.
        is_robust: whether the table calls the alignment of the notes robust.
    """

    piece: tuple[str, str]
    name: str
    notes: ScoreNotes
    parameters: Parameters
    is_robust: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Match:
    """A match file: A pairs of aligned notes, P events of the pedal.

    Attributes:
        onset: of the score notes, quarters from where the first time signature begins, (A,) float64.
        pitch: of the score notes, (A,) int64.
        onset_s, end_s: of the performed notes, key release, seconds, (A,) float64.
        velocity: of the performed notes, (A,) int64.
        pedal_s: when the pedal moves, seconds, (P,) float64, rising.
        pedal_down: whether it is down from then on, (P,) bool.
    """

    onset: np.ndarray
    pitch: np.ndarray
    onset_s: np.ndarray
    end_s: np.ndarray
    velocity: np.ndarray
    pedal_s: np.ndarray
    pedal_down: np.ndarray

    def is_down(self, seconds: np.ndarray) -> np.ndarray:
        """Return whether the pedal is down at some times, any shape, bool; before its first event it is up."""
        last = np.searchsorted(self.pedal_s, seconds, side="right")
        down: np.ndarray = np.append(False, self.pedal_down)[last]
        return down


def read_asap(
    folder: Path, pieces: Sequence[tuple[str, str]] | None = None, *, window: float = 1.0
) -> list[AsapPerformance]:
    """Return the performances of ASAP with alignments, in the order of its table.

    Args:
        folder: with metadata.csv, score MIDI files and match files.
        pieces: (composer, title) of those wanted; all by default.
        window: quarters in which the tempo does not change; see `parameters_of`.

    Raises:
        CorpusError: the folder is not ASAP, or one of its files is damaged.
    """
    table = folder / TABLE
    try:
        rows = list(csv.DictReader(table.read_text("utf-8").splitlines()))
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"'{table}' cannot be read: name the folder of ASAP with its alignments") from error
    needed = {"composer", "title", "midi_score", "midi_performance", "robust_note_alignment", "match_file"}
    if not rows or not needed <= set(rows[0]):
        raise CorpusError(
            f"'{table}' is not the table of ASAP with alignments: it has no rows with {', '.join(needed)}"
        )
    scores: dict[str, ScoreNotes | None] = {}
    found = []
    for row in rows:
        piece = row["composer"], row["title"]
        match = folder / row["match_file"]
        if (pieces is not None and piece not in pieces) or not row["match_file"] or not match.is_file():
            continue
        if row["midi_score"] not in scores:
            scores[row["midi_score"]] = keyboard_notes(midi.read(folder / row["midi_score"]))
        notes = scores[row["midi_score"]]
        if notes is None:
            raise CorpusError(f"'{row['midi_score']}' has no keyboard notes: it is not a score of ASAP")
        alignment = read_match(match)
        if not len(alignment.onset):  # one file of ASAP
            continue
        try:
            parameters = aligned(notes, alignment, window=window)
        except ValueError as error:
            raise CorpusError(f"'{match}' aligns none of the notes of '{row['midi_score']}'") from error
        is_robust = row["robust_note_alignment"] == "1.0"
        name = row["midi_performance"]
        found.append(AsapPerformance(piece=piece, name=name, notes=notes, parameters=parameters, is_robust=is_robust))
    return found


def folds(performances: Sequence[AsapPerformance], count: int = 5) -> list[list[tuple[str, str]]]:
    """Return the pieces in disjoint folds, each with about as many performed notes; the same for the same performances.

    The piece with the most notes comes first, each to the fold with the fewest so far.
    """
    size: dict[tuple[str, str], int] = defaultdict(int)
    for each in performances:
        size[each.piece] += int(each.parameters.mask.sum())
    found: list[list[tuple[str, str]]] = [[] for _ in range(count)]
    total = [0] * count
    for piece in sorted(size, key=lambda piece: (-size[piece], piece)):
        smallest = total.index(min(total))
        found[smallest].append(piece)
        total[smallest] += size[piece]
    return [sorted(fold) for fold in found]


def read_match(path: Path) -> Match:
    """Return the aligned notes and the pedal of a match file.

    Raises:
        CorpusError: it cannot be read, or is not a match file, or has no time signature.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"'{path}' is not a match file that can be read: {error}") from error
    clock = {found[1]: int(found[2]) for line in lines if (found := _CLOCK.match(line))}
    if not clock:
        raise CorpusError(f"'{path}' is not a match file: it has no line info(midiClockUnits,...)")
    tick = clock.get("midiClockRate", 500_000) / 1e6 / clock.get("midiClockUnits", 480)
    signs = [(float(found[3]), int(found[2])) for line in lines if (found := _SIGN.match(line))]
    pairs = np.array(list(_pairs(lines)), np.float64).reshape(-1, 5)
    if len(pairs) and not signs:
        raise CorpusError(f"'{path}' has no time signature, so its beats have no length")
    beat, pitch, onset, end, velocity = pairs.T
    pedal = sorted((int(found[1]), int(found[2])) for line in lines if (found := _SUSTAIN.match(line)))
    ticks, value = np.array(pedal, np.int64).reshape(-1, 2).T
    return Match(
        onset=_quarters(beat, signs) if signs else beat,
        pitch=pitch.astype(np.int64),
        onset_s=onset * tick,
        end_s=end * tick,
        velocity=velocity.astype(np.int64),
        pedal_s=ticks * tick,
        pedal_down=value >= DOWN,
    )


def aligned(notes: ScoreNotes, match: Match, *, window: float = 1.0) -> Parameters:
    """Return the parameters of the score's notes, from the score notes of a match file that are the same notes.

    Notes are the same if they have one pitch and begin together; ornaments, which the score MIDI plays one note after the
    other, if they are nearest. A performed note half a second from its chord, or with a chord out of order by so much, counts
    as a wrong alignment.

    Raises:
        ValueError: no note is aligned.
    """
    partner = _partners(notes, match)
    has = partner >= 0
    onset_s, end_s = (np.where(has, times[partner], np.nan) for times in (match.onset_s, match.end_s))
    onset_s[_wrong(onset_numbers(notes), onset_s)] = np.nan
    down = match.is_down(np.nan_to_num(onset_s))
    return parameters_of(notes, onset_s, end_s, np.where(has, match.velocity[partner], 0), down, window=window)


def _pairs(lines: list[str]) -> Iterator[tuple[float, int, int, int, int]]:
    """Yield beat and pitch of each aligned score note, and onset, end (ticks) and velocity of its performed note."""
    for line in lines:
        score = _SNOTE.match(line)
        note = _NOTE.match(line, score.end()) if score else None
        if score and note:
            pitch = 12 * (int(score[4]) + 1) + LETTERS[score[2].lower()] + SIGNS.get(score[3], 0)
            rest = note[5].split(",")  # 5.0: end by the pedal, velocity; 1.0.0: velocity, channel, track
            velocity = int(rest[1] if len(rest) == 2 else rest[0])
            yield float(score[5]), pitch, int(note[3]), int(note[4]), velocity


def _quarters(beat: np.ndarray, signs: list[tuple[float, int]]) -> np.ndarray:
    """Return when beats (A,) are, in quarters from the first of the denominators, given the beat where each begins."""
    signs = sorted(signs)
    starts = np.array([start for start, _ in signs])
    length = np.array([4 / denominator for _, denominator in signs])
    passed = np.append(0.0, np.cumsum(np.diff(starts) * length[:-1]))
    which = np.maximum(np.searchsorted(starts, beat + 1e-3, side="right") - 1, 0)
    quarters: np.ndarray = passed[which] + (beat - starts[which]) * length[which]
    return quarters


def _partners(notes: ScoreNotes, match: Match) -> np.ndarray:
    """Return which aligned note of the match file is each note of the score, -1 for none, (N,) int64."""
    shifted = match.onset + _shifts(notes, match)
    partner = np.full(len(notes), -1, np.int64)
    for pitch in np.unique(match.pitch):
        mine, theirs = np.flatnonzero(notes.pitch == pitch), np.flatnonzero(match.pitch == pitch)
        theirs = theirs[np.lexsort((match.onset_s[theirs], shifted[theirs]))]
        for within in (NEAR, FAR):
            _link(partner, mine, notes.onset, theirs, shifted, within)
            mine = mine[partner[mine] < 0]
            theirs = np.setdiff1d(theirs, partner, assume_unique=False)
            theirs = theirs[np.lexsort((match.onset_s[theirs], shifted[theirs]))]
    return partner


def _link(
    partner: np.ndarray, mine: np.ndarray, onset: np.ndarray, theirs: np.ndarray, other: np.ndarray, within: float
) -> None:
    """Give notes of one pitch partners not farther than `within`, in order; changes `partner`."""
    at = 0
    for i in mine.tolist():
        while at < len(theirs) and other[theirs[at]] < onset[i] - within:
            at += 1
        if at < len(theirs) and other[theirs[at]] <= onset[i] + within:
            partner[i] = theirs[at]
            at += 1


def _shifts(notes: ScoreNotes, match: Match) -> np.ndarray:
    """Return how many quarters later each note of the match file is in the score MIDI, (A,) float64.

    That is what most pairs of notes of one pitch agree on, for blocks of notes: here and there one of both has another bar.
    """
    order = np.argsort(match.onset, kind="stable")
    found = np.zeros(len(order))
    shift = 0.0
    for block in np.split(order, range(BLOCK, len(order), BLOCK)):
        for within in (DRIFT, np.inf):
            shift, share = _commonest(notes, match, block, shift, within)
            if share >= MOST:
                break
        found[block] = shift
    return found


def _wrong(number: np.ndarray, onset_s: np.ndarray) -> np.ndarray:
    """Return which notes are too far from the median of their chord, or their chord from that of the nine around it.

    Args:
        number: of each note's onset, (N,) int64.
        onset_s: seconds, (N,) float64, NaN for notes without a partner.
    """
    has = np.flatnonzero(np.isfinite(onset_s))
    if not len(has):
        return has
    chords = np.split(has, np.flatnonzero(np.diff(number[has])) + 1)
    middle = np.array([np.median(onset_s[chord]) for chord in chords])
    around = np.lib.stride_tricks.sliding_window_view(np.pad(middle, AROUND, mode="edge"), 2 * AROUND + 1)
    is_off = np.abs(middle - np.median(around, axis=1)) > APART  # rising times are their own medians
    each = np.repeat(np.arange(len(chords)), [len(chord) for chord in chords])
    return has[is_off[each] | (np.abs(onset_s[has] - middle[each]) > APART)]


def _commonest(notes: ScoreNotes, match: Match, block: np.ndarray, before: float, within: float) -> tuple[float, float]:
    """Return the shift of most pairs of a block's notes, near the one before; and pairs per note of the block."""
    onset = match.onset[block]
    near = slice(*np.searchsorted(notes.onset, [onset.min() + before - within, onset.max() + before + within]))
    same = match.pitch[block][:, None] == notes.pitch[near]
    shifts = (notes.onset[near] - onset[:, None])[same]
    steps = np.round(shifts[np.abs(shifts - before) <= within] * STEPS)
    if not len(steps):
        return before, 0.0
    values, count = np.unique(steps, return_counts=True)
    stays = int((steps == round(before * STEPS)).sum())
    if count.max() < SURE * stays:  # music that repeats itself fits at several places
        return before, stays / len(block)
    return float(values[count.argmax()] / STEPS), float(count.max() / len(block))
