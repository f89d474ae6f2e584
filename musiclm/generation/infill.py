"""Infilling: new notes for a masked span of a score, some bars or some tracks, given the rest.

The given context comes out unchanged, event for event: new notes are added to it and remove nothing. Long spans are filled
in parts, each conditioned on those before it.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from typing import Protocol

import numpy as np
import torch
from symusic import Note, Score, Track

from .. import midi
from ..checkpoint import infilling
from ..data import Piece
from ..errors import CheckpointError, MidiError, TokenizerError
from ..tokenizers import grid, grid_infill, score_infill
from ..tokenizers.base import Tokenizer
from ..tokenizers.vocabulary import Kind, find
from . import best_fit, constraints, rerank, same_program
from .composer import Composer, Composition
from .config import GenerationConfig, Length
from .decode import sample_ids
from .masked_span import MaskedSpan, masked_span, without
from .prompt import Prompt
from .sampler import Constraint
from .session import GenerationSession, SessionConfig

log = logging.getLogger(__name__)

TRIES = 8  # samples of a span that stays without a note, before it is an error


def fill(composer: Composer, score: Score, request: GenerationConfig, seed: int) -> list[Composition]:
    """Return variations of a score with a masked span, each the whole score.

    Args:
        composer: with a model that was trained on infilling.
        score: any.
        request: what is asked for; `infill`, `keep_tracks` and `accompany` select the masked span. With `draw` D each part
            of it is the best of D, see `best_fit`.
        seed: the same seed, and all else the same, gives the same scores.

    Raises:
        CheckpointError: the model was not trained on infilling.
        MidiError: the score has no such span, or the tokenizer cannot express it.
        TokenizerError: the model writes nothing, or has no voices to lead.
    """
    composer.penalties(request)
    if not composer.tokenizer.supports_infilling:
        ways = ", ".join(infilling()) or "train one with --tokenizer score-infill"
        raise CheckpointError(f"the model '{composer.checkpoint.name}' was not trained on infilling: {ways}")
    where = masked_span(score, bars=request.infill_bars, keep=request.keep_tracks, accompany=request.accompany)
    if (request.draw or 1) > 1 and not isinstance(composer.tokenizer, score_infill.ScoreInfill):
        raise TokenizerError(
            f"the best of several ways to fill a span is for 'score' tokens, not for '{composer.tokenizer.name}': leave "
            "--draw out"
        )
    fillers = [infiller(composer.tokenizer, composer, score, where, request) for _ in range(request.n)]
    if fillers[0].num_parts > 1:
        log.info("the span is filled in %d parts, each conditioned on those before it", fillers[0].num_parts)
    if (request.draw or 1) > 1:
        log.info("each part is the best of %d, by its harmony with what is kept and its probability", request.draw)
    return [each.filled(seed, index) for index, each in enumerate(fillers)]


class Infiller(Protocol):
    """An infilling method: fills the masked span of a score with a tokenizer's ids."""

    num_parts: int

    def filled(self, seed: int, index: int) -> Composition:
        """Return one variation."""


@functools.singledispatch
def infiller(
    tokenizer: Tokenizer, composer: Composer, score: Score, where: MaskedSpan, request: GenerationConfig
) -> Infiller:
    """Return the infilling method for a masked span and a tokenizer; an infilling tokenizer registers its own by its class.

    Raises:
        TokenizerError: there is none for this tokenizer.
    """
    raise TokenizerError(f"nothing fills masked spans with ids of the tokenizer '{tokenizer.name}'")


class _Bars:
    """Infilling with `score-infill`: some bars at a time, their masked notes alone."""

    def __init__(
        self,
        tokenizer: score_infill.ScoreInfill,
        composer: Composer,
        score: Score,
        where: MaskedSpan,
        request: GenerationConfig,
    ) -> None:
        self.composer, self.tokenizer, self.span, self.request = composer, tokenizer, where, request
        self.music = without(score, where)
        self.original = score
        self.tracks_of: dict[tuple[int, bool], list[int]] = {}  # of a program
        for i in where.tracks:
            self.tracks_of.setdefault(_voice_of(score.tracks[i]), []).append(i)
        asked = request.controls
        if asked.instruments is None:
            programs = tuple(sorted({-1 if d else p for p, d in self.tracks_of})) or (0,)  # piano by default
            asked = dataclasses.replace(asked, instruments=programs)
        self.controls = asked
        self.num_parts = sum(1 for _ in self._parts())

    def filled(self, seed: int, index: int) -> Composition:
        num_tokens = num_new = 0
        for number in range(TRIES):
            for part, (start, stop, num_bars, signature) in enumerate(self._parts()):
                seeds = np.random.SeedSequence([seed, index, part, number]).generate_state(1, np.uint64)
                new, num_sampled = self._sample_part(start, stop, num_bars, signature, int(seeds[0]))
                num_tokens += num_sampled
                num_new += self._put(new, start, stop)
            if num_new:
                return composition(self.music, index, num_tokens)
        raise TokenizerError(f"the model '{self.composer.checkpoint.name}' writes nothing but silence here")

    def _parts(self) -> Iterator[tuple[float, float, int, tuple[int, int]]]:
        """Yield start and stop of the parts of the span, in quarters, their number of bars, and their time signature."""
        inside = []
        for bar in midi.bars(self.original):
            if bar.start >= self.span.stop - 1e-6:
                break
            if bar.start >= self.span.start - 1e-6:
                inside.append(bar)
        most = 8 if len(self.span.tracks) == sum(len(t.notes) > 0 for t in self.original.tracks) else 4
        while inside:
            alike = 1
            signature = inside[0].numerator, inside[0].denominator
            while alike < min(most, len(inside)) and signature == (inside[alike].numerator, inside[alike].denominator):
                alike += 1
            size = max(s for s in score_infill.SIZES if s <= alike)
            part, inside = inside[:size], inside[size:]
            yield part[0].start, part[-1].end, size, signature

    def _sample_part(
        self, start: float, stop: float, num_bars: int, signature: tuple[int, int], seed: int
    ) -> tuple[Score, int]:
        """Return new notes from `start` on, at their times, and the number of ids that were sampled."""
        tokenizer = self.tokenizer
        controls = dataclasses.replace(self.controls, time_signature=self.controls.time_signature or signature)
        ids = self._ids_until(stop)
        starts, begins = tokenizer.bars(ids)
        first, of_span = (int(np.searchsorted(begins, at - 1e-6)) for at in (start, self.span.start))
        begun, model_ids = ids[: starts[first]], tokenizer.infill_prompt(ids, first, num_bars)
        if tokenizer.plan is not None and controls.time_signature == signature:  # how its first bar begins is known
            line = ids[starts[first] : starts[first] + 2]
            begun, model_ids = np.concatenate([begun, line]), np.concatenate([model_ids, line])
        before = midi.cut(self.music, 0.0, start) if start > 0 else None
        prompt = Prompt(ids=begun, quarters=start, left_out=0, score=before, tokenizer=tokenizer, model_ids=model_ids)
        rules = [
            *constraints.constraints(tokenizer, not_before=start, prompt_ids=ids, controls=controls),
            *constraints.planned(tokenizer, controls, first=of_span),
        ]
        penalties = constraints.chord_tones(tokenizer, controls, first=of_span)
        sampler = self.composer.sampler(rules, self.request.sampler, penalties)
        plan = SessionConfig(length=Length(bars=num_bars), loop_guard=False, seed=seed)
        model = self.composer.generating(self.composer.precision(self.request.precision))
        session = GenerationSession(model, self.composer.checkpoint.name, prompt, sampler, plan)
        sampled = [continuation.ids for continuation in session.sample(self.request.draw or 1)]
        new = [midi.without_before(prompt.decoded(each), start) for each in sampled]
        return new[self._best(model_ids, sampled, new, start, stop)], sum(map(len, sampled))

    def _ids_until(self, stop: float) -> np.ndarray:
        """Return the ids of the music so far, padded up to a time; with a plan, of all bars and all that will play."""
        tokenizer = self.tokenizer
        ids = tokenizer.encode(self.music)[0][:-1]
        if tokenizer.plan is None:
            return tokenizer.pad_with_silence(ids, stop)
        ids = tokenizer.pad_with_silence(ids, max(stop, midi.end(self.original)))
        played = {-1 if t.is_drum else t.program for t in self.music.tracks if len(t.notes)}
        asked = [find(tokenizer.vocabulary, Kind.PROGRAM, p) for p in self.controls.joining(played)]
        return tokenizer.with_programs(ids, [i for i in asked if i >= 0])

    def _best(
        self, model_ids: np.ndarray, sampled: Sequence[np.ndarray], new: Sequence[Score], start: float, stop: float
    ) -> int:
        """Return which of several is kept, see `best_fit`."""
        if len(new) == 1:
            return 0
        pieces = [
            Piece(name=str(i), tokens=np.concatenate([model_ids, ids]), num_notes=0, seconds=0.0)
            for i, ids in enumerate(sampled)
        ]
        nats = rerank.losses(self.composer.model, self.tokenizer, pieces, behind=len(model_ids))
        return best_fit.best(self.music, new, [-each for each in nats], start, stop)

    def _put(self, new: Score, start: float, stop: float) -> int:
        """Add new notes that begin in [start, stop) to the music; return how many."""
        count = 0
        for track in new.tracks:
            if self.tokenizer.plan is not None and not len(track.notes):  # files of earlier versions have such tracks
                continue
            voice = _voice_of(track)
            if voice not in self.tracks_of:
                self.music.tracks.append(Track(track.name, track.program, track.is_drum))
                self.tracks_of[voice] = [len(self.music.tracks) - 1]
            scale = self.music.ticks_per_quarter / new.ticks_per_quarter
            notes = [(n.time * scale, n.end * scale, n.pitch, n.velocity) for n in track.notes]
            for index, part in self._by_track(self.tracks_of[voice], notes):
                count += put(self.music, index, part, start, stop)
        return count

    def _by_track(
        self, tracks: list[int], notes: list[same_program.NoteTuple]
    ) -> list[tuple[int, list[same_program.NoteTuple]]]:
        """Return which notes of a program belong to which of its tracks; all drums to the first."""
        if len(tracks) == 1 or self.music.tracks[tracks[0]].is_drum:
            return [(tracks[0], notes)]
        voices = [same_program.voice(self.original.tracks[i]) for i in tracks]  # masked tracks have notes there
        return list(zip(tracks, same_program.distributed(notes, voices), strict=True))


infiller.register(score_infill.ScoreInfill, _Bars)


def _voice_of(track: Track) -> tuple[int, bool]:
    return (0 if track.is_drum else track.program), track.is_drum


def put(score: Score, track: int, notes: Sequence[tuple[float, float, int, int]], start: float, stop: float) -> int:
    """Add notes that begin within [start, stop) quarters to a track; return how many.

    They end at `stop` at the latest, and where a note of their pitch begins on the track. One that would begin while such a
    note sounds is left out, since a MIDI file cannot have both.

    Args:
        score: changed in place.
        track: index.
        notes: (start, end, pitch, velocity), in ticks of the score.
        start: in quarters.
        stop: in quarters.
    """
    first, last = round(start * score.ticks_per_quarter), round(stop * score.ticks_per_quarter)
    on_track: dict[int, list[tuple[int, int]]] = {}
    for n in score.tracks[track].notes:
        on_track.setdefault(n.pitch, []).append((n.time, n.end))
    new = []
    for begin, end, pitch, velocity in sorted(notes):
        at, until = round(begin), min(round(end), last)
        others = on_track.setdefault(int(pitch), [])
        if not first <= at < last or any(a <= at < b for a, b in others):
            continue
        until = max(at + 1, min([until, *(a for a, _ in others if a > at)]))
        others.append((at, until))
        new.append(Note(at, until - at, int(pitch), int(velocity)))
    target = score.tracks[track]
    target.notes = type(target.notes)(sorted([*target.notes, *new], key=lambda n: (n.time, n.pitch)))
    return len(new)


class _Voices:
    """Infilling with `grid-infill`: all cells of the span one after the other, the given ones forced."""

    def __init__(
        self,
        tokenizer: grid_infill.GridInfill,
        composer: Composer,
        score: Score,
        where: MaskedSpan,
        request: GenerationConfig,
    ) -> None:
        self.composer, self.span, self.request, self.music = composer, where, request, without(score, where)
        self.tokenizer = tokenizer
        self.voice_of = _voice_of_tracks(score)
        self.start, self.stop = (math.ceil(at * grid.STEPS_A_QUARTER - 1e-6) for at in (where.start, where.stop))
        end = math.ceil(midi.end(score) * grid.STEPS_A_QUARTER - 1e-6)
        self.stop = min(self.stop, end)
        notes = [n for n in grid.notes_on_grid(self.music) if n[0] in self.voice_of]
        self.cells = grid.place(notes, self.voice_of, end)
        self.cells = np.where(self.cells < 0, grid.SILENCE, self.cells + grid.FIRST_PITCH)
        written = [self.voice_of[i] for i in where.tracks]
        if not where.tracks:
            written = [v for v in range(grid_infill.NUM_VOICES) if v not in self.voice_of.values()]
        if not written:
            raise MidiError("four voices sing already: the grid has no room for another")
        self.written = written
        self.missing = np.zeros(self.cells.shape, bool)
        self.missing[self.start : self.stop, written] = True
        self.starts = range(self.start, self.stop, grid_infill.STEPS)
        self.num_parts = len(self.starts)
        for track, first, stop, _ in notes:  # a note that began before keeps its end
            if self.voice_of[track] in written:
                self.missing[first:stop, self.voice_of[track]] = False

    def filled(self, seed: int, index: int) -> Composition:
        num_tokens = 0
        rules = constraints.constraints(self.tokenizer, controls=self.request.controls)
        model = self.composer.generating(self.composer.precision(self.request.precision))
        first = self.starts.start // constraints.STEPS_A_BAR
        chords = constraints.chord_tones(self.tokenizer, self.request.controls, first=first)
        cells, open_cells = self.cells.copy(), self.missing.copy()
        for part, start in enumerate(self.starts):
            stop = min(start + grid_infill.STEPS, self.stop)
            behind = min(stop + grid_infill.BEHIND, len(cells))
            before = np.concatenate([[grid.BOS], cells[:start].ravel()])
            model_ids = grid_infill.asked(before, cells[start:behind], open_cells[start:behind])
            given = np.where(open_cells[start:stop], -1, cells[start:stop]).ravel()
            assert isinstance(rules[0], constraints.Grammar)
            kept = constraints.KeptCells(rules[0], len(before), given)
            known = {len(before) - 1 + int(i): int(given[i]) for i in np.flatnonzero(given >= 0)}
            penalties: list[Constraint] = [*self.composer.penalties(self.request, known), *chords]
            sampler = self.composer.sampler([kept, *rules[1:]], self.request.sampler, penalties)
            seeds = np.random.SeedSequence([seed, index, part]).generate_state(1, np.uint64)
            prompt, whole = (torch.from_numpy(of)[None].to(self.composer.device) for of in (before, model_ids))
            tokens = sample_ids(
                model, prompt, sampler, seed=int(seeds[0]), features=self.tokenizer.features, model_ids=whole
            )
            sampled = torch.stack(list(islice(tokens, len(given))), 1)[0].cpu().numpy()
            num_tokens += int((given < 0).sum())
            cells[start:stop] = sampled.reshape(-1, grid_infill.NUM_VOICES)
            open_cells[start:stop] = False
        return composition(self._score_of(cells), index, num_tokens)

    def _score_of(self, cells: np.ndarray) -> Score:
        """Return the music with the sampled cells in it."""
        music = self.music.copy()
        ticks = music.ticks_per_quarter / grid.STEPS_A_QUARTER
        track_of = {voice: track for track, voice in self.voice_of.items()}
        for voice in self.written:
            if voice not in track_of:
                music.tracks.append(Track(grid.VOICES[voice], grid.PROGRAM, False))
                track_of[voice] = len(music.tracks) - 1
            column = np.where(self.missing[:, voice], cells[:, voice], -1)
            edges = [0, *(np.flatnonzero(np.diff(column)) + 1).tolist(), len(column)]
            velocity = round(np.mean([n.velocity for t in music.tracks for n in t.notes] or [grid.VELOCITY]))
            notes = [
                (a * ticks, b * ticks, int(column[a]) - grid.FIRST_PITCH, velocity)
                for a, b in pairwise(edges)
                if column[a] >= grid.FIRST_PITCH
            ]
            put(music, track_of[voice], notes, self.span.start, self.span.stop)
        return music


infiller.register(grid_infill.GridInfill, _Voices)


def _voice_of_tracks(score: Score) -> dict[int, int]:
    """Return the voice of each track with notes.

    Raises:
        MidiError: there are more than four, or one of them has chords.
    """
    playing = [i for i, t in enumerate(score.tracks) if len(t.notes) and not t.is_drum]
    names = [score.tracks[i].name for i in playing]
    onsets = [(n[0], n[1]) for n in grid.notes_on_grid(score)]
    chords = sorted({track for track, _ in onsets if onsets.count((track, _)) > 1})
    if len(playing) > grid_infill.NUM_VOICES or chords:
        raise MidiError(
            "the grid has four voices that sing one note at a time, each a track of its own: "
            + (f"track {chords[0] + 1} has chords" if chords else f"here are {len(playing)}")
        )
    if len(set(names)) == len(names) and set(names) <= set(grid.VOICES):
        return {i: grid.VOICES.index(name) for i, name in zip(playing, names, strict=True)}
    mean = {i: float(np.mean([n.pitch for n in score.tracks[i].notes])) for i in playing}
    falling = sorted(playing, key=lambda i: (-mean[i], i))
    voices = {1: (0,), 2: (0, 3), 3: (0, 1, 3), 4: (0, 1, 2, 3)}[len(playing)]
    return dict(zip(falling, voices, strict=True))


def composition(score: Score, index: int, num_tokens: int) -> Composition:
    """Return a variation that is a whole score with new notes in it."""
    return Composition(
        score=score,
        index=index,
        num_new_tokens=num_tokens,
        num_bars=midi.num_bars(score),
        seconds=midi.seconds(score),
        ended="length",
        ids=np.zeros(0, np.int64),
    )
