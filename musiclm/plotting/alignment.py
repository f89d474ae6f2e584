"""Attention of an encoder-decoder from the notes of a target to those of its source: the matrix of Bahdanau et al. 2015.

A share is the attention of a head of a layer, at the position that predicts a note's pitch, to the tokens of a source note.
The target is teacher forced. Tokens that begin a bar of the source (bar line, time signature, form, chords) belong to the bar,
those before the first bar to nothing, so that the shares of notes and bars add up to at most 1.

L layers, H heads, N notes of the target, M notes of the source, R bars.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import torch
from symusic import Score
from torch import Tensor

from .. import midi
from ..data.pair_crops import MAX_BARS
from ..errors import CheckpointError, MidiError
from ..generation.masked_span import named_tracks
from ..generation.sides import Sides as SongSides
from ..midi import parts
from ..models.layers.cross_attention import record_weights
from ..models.seq2seq import Seq2SeqModel
from ..tokenizers.score import style_of
from ..tokenizers.score_pairs import ScorePairs
from ..tokenizers.score_plan import ATTRIBUTES
from .notes import AlignedNotes, align_ids

MAX_NOTES = 400  # of a side; of a piece with more, fewer bars are read
MELODY = "melody"  # the name of the notes that `midi.parts.melody` finds
BAR_SIZE = 2 + ATTRIBUTES  # tokens that begin a bar
NEAR = 1.0  # quarters between notes that an alignment connects


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sides:
    """A piece split into what is given and what is to be written.

    Attributes:
        source: the given notes.
        target: all others.
        is_melody: whether the source is the melody of the piece.
    """

    source: Score
    target: Score
    is_melody: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alignment:
    """The attention of a model from a target to its source.

    Attributes:
        source: the given notes, aligned with their tokens.
        target: the predicted notes, aligned with theirs.
        shares: (L, H, N, M) float32: by layer, head, predicted note, attended note.
        of_bars: (L, H, N, R) float32: of the tokens that begin each bar of the source.
        bars: where each bar begins, in quarters, (R,).
        first_bar: the number of the first bar.
        num_left: how many later bars were not read.
        left_out: how many notes the tokenizer could not express.
    """

    source: AlignedNotes
    target: AlignedNotes
    shares: np.ndarray
    of_bars: np.ndarray
    bars: np.ndarray
    first_bar: int
    num_left: int
    left_out: int

    def clearest(self) -> int:
        """Return the layer that shows the alignment best: whose heads attend most to source notes that sound nearby."""
        start, end = (np.array([getattr(n, name) for n in self.source.notes]) for name in ("start", "end"))
        when = np.array([n.start for n in self.target.notes])[:, None]
        is_near = (start < when + NEAR) & (end > when - NEAR)
        return int((self.shares * is_near).sum(-1).mean((1, 2)).argmax())

    def bar_of(self, start: float) -> int:
        """Return the index of the bar in which a note begins."""
        return int(np.searchsorted(self.bars, start + 1e-3, "right")) - 1

    def at(self, bar: int | None = None, beat: float = 1.0) -> int:
        """Return the index of the highest target note that begins at a position, or else of the first after it.

        Args:
            bar: its number; if left out, half way through the piece.
            beat: in quarters, counted from 1.
        """
        notes = self.target.notes
        if bar is None:
            when = notes[len(notes) // 2].start
        else:
            when = float(self.bars[min(max(0, bar - self.first_bar), len(self.bars) - 1)]) + beat - 1
        start = min((n.start for n in notes if n.start >= when - 1e-3), default=notes[-1].start)
        there = [i for i, n in enumerate(notes) if abs(n.start - start) < 1e-3]
        return max(there, key=lambda i: (not notes[i].is_drum, notes[i].pitch))


def split(score: Score, names: str | None = None) -> Sides:
    """Return a score split into the tracks of some names, and all other notes.

    Args:
        score: any.
        names: see `named_tracks`; "melody" is also what `midi.parts.melody` finds if no track is called so. The melody if
            left out.

    Raises:
        MidiError: there is no such track, no melody, or nothing is left as the target.
    """
    tune = parts.melody(score)
    found = [np.zeros(len(track.notes), bool) for track in score.tracks]
    for name in [MELODY] if names is None else names.split(","):
        chosen = _melody(score, tune) if names is None else _named(score, tune, name.strip())
        found = [a | b for a, b in zip(found, chosen, strict=True)]
    rest = [~each for each in found]
    if not any(each.any() for each in rest):
        raise MidiError(f"all notes are the source ({names or MELODY}): nothing is left as the target")
    is_melody = tune is not None and all(map(np.array_equal, found, parts.masks(score, tune.notes)))
    return Sides(source=parts.part(score, found), target=parts.part(score, rest), is_melody=is_melody)


def _named(score: Score, tune: parts.Melody | None, name: str) -> parts.Part:
    """Return which notes of each track a name means."""
    try:
        tracks = named_tracks(score, name)
    except MidiError:
        if name.lower() != MELODY:
            raise
        return _melody(score, tune)
    return [np.full(len(track.notes), i in tracks) for i, track in enumerate(score.tracks)]


def _melody(score: Score, tune: parts.Melody | None) -> parts.Part:
    if tune is None:
        raise MidiError("no melody: there are no notes but drums")
    return parts.masks(score, tune.notes)


def alignment(
    model: Seq2SeqModel, tokenizer: ScorePairs, score: Score, sides: Sides, bars: tuple[int, int] | None = None
) -> Alignment:
    """Return the attention of a model from each note of a target to the notes of its source.

    The model reads at most `MAX_BARS` bars, as it was trained on, and at most about `MAX_NOTES` notes of each side.

    Args:
        model: in evaluation mode.
        tokenizer: the model's.
        score: the piece.
        sides: the two parts of it, see `split`.
        bars: the first and the last that are read, counted from 1; all if left out.

    Raises:
        CheckpointError: the model has no attention to its source.
        MidiError: there are no such bars, or a side has no notes in them.
    """
    first, last = _bars(score, bars)
    stop = _stop(sides, first, last)
    lines = np.array([bar.start for bar in itertools.islice(midi.bars(score), stop)])
    begin, end = float(lines[first - 1]), midi.bar_line(score, 0.0, stop)
    piece, source, target = (midi.cut(each, begin, end) for each in (score, sides.source, sides.target))
    for side, name in ((source, "source"), (target, "target")):
        if not side.note_num():
            raise MidiError(f"the {name} has no note in bars {first} to {stop}: choose others with --bars A-B")
    whole = SongSides(tokenizer, piece, style_of(piece))
    chords = whole.chord_ids(whole.harmony(None if sides.is_melody else source), 0, whole.num_bars)
    pair = [whole.side(side, chords) for side in (source, target)]
    given, written = (
        _with_names(align_ids(tokenizer, ids, side), side) for ids, side in zip(pair, (source, target), strict=True)
    )
    for aligned, name in ((given, "source"), (written, "target")):
        if not aligned.notes:
            raise MidiError(f"the tokenizer '{tokenizer.name}' has no note of the {name} in bars {first} to {stop}")
    shares = _weights(model, tokenizer, given, written)
    num_notes = len(given.notes)
    return Alignment(
        source=given,
        target=written,
        shares=shares[..., :num_notes],
        of_bars=shares[..., num_notes:-1],
        bars=(lines[first - 1 :] - begin)[: shares.shape[-1] - num_notes - 1],
        first_bar=first,
        num_left=last - stop,
        left_out=piece.note_num() - num_notes - len(written.notes),
    )


def _bars(score: Score, asked: tuple[int, int] | None) -> tuple[int, int]:
    """Return the first and the last bar, counted from 1, of those that a score has."""
    num_bars = midi.num_bars(score)
    first, last = asked or (1, num_bars)
    if first > num_bars:
        raise MidiError(f"there is no bar {first}: the piece has {num_bars}")
    return first, min(last, num_bars)


def _stop(sides: Sides, first: int, last: int) -> int:
    """Return the last bar, counted from 1, of those that fit, at least the first."""
    lines = [bar.start for bar in itertools.islice(midi.bars(sides.source), last + 1)]
    stop = min(last, first + MAX_BARS - 1)
    for side in (sides.source, sides.target):
        starts = np.sort([n.time / side.ticks_per_quarter for track in side.tracks for n in track.notes])
        before = np.searchsorted(starts, np.array(lines[first - 1 : stop + 1]) - 1e-6)
        fitting = int(np.searchsorted(before - before[0], MAX_NOTES, "right")) - 1
        stop = max(first, min(stop, first + fitting - 1))
    return stop


def _with_names(side: AlignedNotes, score: Score) -> AlignedNotes:
    """Return notes whose tracks have the names that the tracks of their programs have in a score."""
    for track in side.score.tracks:
        key = track.is_drum, 0 if track.is_drum else track.program
        names = [t.name.strip() for t in score.tracks if t.notes and (t.is_drum, 0 if t.is_drum else t.program) == key]
        track.name = ", ".join(dict.fromkeys(filter(None, names)))
    return side


@torch.no_grad()
def _weights(model: Seq2SeqModel, tokenizer: ScorePairs, given: AlignedNotes, written: AlignedNotes) -> np.ndarray:
    """Return the attention to source notes, bars and all else, (L, H, N, M + R + 1) float32."""
    device = next(model.parameters()).device
    source, target = (torch.from_numpy(side.ids)[None] for side in (given, written))
    of_source, of_target = (tokenizer.features(ids)[0].to(device) for ids in (source, target))
    state = model.start(source.to(device), of_source)
    layers = record_weights(model, lambda: model.encode(target.to(device), state, of_target))
    if not layers:
        raise CheckpointError("the model has no attention to its source (attention 0): there is no matrix to plot")
    owners = _owners(tokenizer, given).to(device)
    asked = torch.tensor([n.said - 1 for n in written.notes], device=device)
    return np.stack([(layer_BHTS[0, :, asked].float() @ owners).cpu().numpy() for layer_BHTS in layers])


def _owners(tokenizer: ScorePairs, given: AlignedNotes) -> Tensor:
    """Return what each id of the source belongs to, (S, M + R + 1) one-hot: a note, the beginning of a bar, or nothing."""
    num_notes, starts = len(given.notes), tokenizer.bar_starts(given.ids)
    num_bars = len(starts) - 1
    column = given.owner[:, 0].copy()
    column[column < 0] = num_notes + num_bars
    column[: starts[0]] = num_notes + num_bars
    for bar, start in enumerate(starts[:-1].tolist()):
        column[start : start + BAR_SIZE] = num_notes + bar
    return torch.nn.functional.one_hot(torch.from_numpy(column), num_notes + num_bars + 1).float()
