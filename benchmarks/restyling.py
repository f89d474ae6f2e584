"""The part `restyle` of `accompaniment.py`: a song in another style, its content beside the song, its style beside a corpus.

Content, of a result beside the song:

    chroma        the cosine of the chroma (by sounding time) of each half bar in which the song sounds, the mean; 0 where
                  the result is silent
    melody F1     of the notes of the song's melody and of the result's, by sixteenth and pitch; melodies by `midi.parts.melody`
    top line F1   the same with the result's skyline, whatever plays it: is the melody still on top?

Style, 1 - cosine of a profile with the style's profile, the mean over training pieces (as Cífka et al. 2020, whose profiles
are of an instrument each; here of a whole score). Each profile of a piece sums to 1:

    onsets        at which twelfth of a quarter in the bar notes begin, pitched ones and drums apart, (96,);
                  bars longer than four quarters begin anew
    intervals     of all pairs of notes of a track that begin less than four quarters apart: the time between them in sixths
                  of a quarter, and the interval from -20 to 20 semitones, (24 x 41,)
    style         the mean of both distances

All tracks of a program count as one, as they do in a corpus of `score` tokens.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import accompaniment_baselines as baselines
import accompany
import ensembles
import music
import numpy as np
from accompaniment_losses import ratio
from accompaniment_tasks import Merging, merged, note_f1
from symusic import Note, Score, Track

from musiclm import midi
from musiclm.data import Corpus
from musiclm.errors import MusicLMError
from musiclm.evaluation.harmony import sounding_time
from musiclm.evaluation.music_metrics import notes_of
from musiclm.generation import accompany as writing
from musiclm.generation import players
from musiclm.generation.composer import Composer
from musiclm.generation.config import RESTYLE, GenerationConfig
from musiclm.generation.sides import Sides
from musiclm.midi import parts
from musiclm.tokenizers.score_pairs import ScorePairs

TWELFTHS, POSITIONS = 12, 48  # of a quarter; of a bar, longer ones begin anew
SIXTHS, WITHIN, WIDEST = 6, 4, 20  # of a quarter; quarters; semitones
CONTENT = ("chroma", "melody_f1", "top_line_f1")
STYLE = ("onsets", "intervals", "style")
METHODS = ("model", "copy", "random", "mma")
SILENT = 1e-9


class Song(NamedTuple):
    """A song to restyle: its name, its own style, the one that is asked for, and the excerpt."""

    name: str
    own: str
    style: str
    score: Score


class Styles:
    """Profiles of styles, and real pieces of them.

    Args:
        training: (style, excerpt) of each training piece.
    """

    def __init__(self, training: Iterable[tuple[str, Score]]) -> None:
        rows: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        for style, score in training:
            rows.setdefault(style, []).append(profiles(score))
        self.sizes = {style: len(of_style) for style, of_style in rows.items()}
        self._profiles = {
            style: [np.mean(each, axis=0) for each in zip(*of, strict=True)] for style, of in rows.items()
        }

    def distances(self, score: Score, style: str) -> dict[str, float]:
        """Return the distances `STYLE` of a score from a style."""
        onsets, intervals = (
            1 - cosine(profile, of_style)
            for profile, of_style in zip(profiles(score), self._profiles[style], strict=True)
        )
        return {"onsets": onsets, "intervals": intervals, "style": (onsets + intervals) / 2}


def profiles(score: Score) -> tuple[np.ndarray, np.ndarray]:
    """Return both profiles of a score with one track a program, as pieces of a corpus have."""
    whole = merged(score)
    return onset_profile(whole), interval_profile(whole)


def onset_profile(score: Score) -> np.ndarray:
    """Return the profile of onsets, (2 * POSITIONS,); see the module."""
    notes = notes_of(score)
    where = np.round(notes.in_bar() * TWELFTHS).astype(int) % POSITIONS + POSITIONS * notes.is_drum
    return _shares(np.bincount(where, minlength=2 * POSITIONS).astype(float))


def interval_profile(score: Score) -> np.ndarray:
    """Return the profile of intervals, (WITHIN * SIXTHS * (2 * WIDEST + 1),); see the module.

    Of notes that begin together the higher one counts as the later.
    """
    wide = 2 * WIDEST + 1
    found = np.zeros(WITHIN * SIXTHS * wide)
    for track in score.tracks:
        if track.is_drum or not len(track.notes):
            continue
        columns = track.notes.numpy()
        start, pitch = columns["time"] / score.ticks_per_quarter, columns["pitch"].astype(int)
        order = np.lexsort((pitch, start))
        start, pitch = start[order], pitch[order]
        for back in range(1, len(start)):
            apart = np.round((start[back:] - start[:-back]) * SIXTHS).astype(int)
            interval = pitch[back:] - pitch[:-back]
            near = apart < WITHIN * SIXTHS
            if not near.any():
                break
            near &= np.abs(interval) <= WIDEST
            found += np.bincount(apart[near] * wide + interval[near] + WIDEST, minlength=len(found))
    return _shares(found)


def _shares(counts: np.ndarray) -> np.ndarray:
    return counts / max(1.0, float(counts.sum()))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Return the cosine of two vectors, 0 where one is 0."""
    sizes = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float((a * b).sum()) / sizes if sizes > SILENT else 0.0


def content(song: Score, result: Score) -> dict[str, float | None]:
    """Return the measures `CONTENT` of a result beside a song, None where the song has nothing to measure."""
    edges = baselines.edges_of(song)
    of_song, of_result = (chroma(score, edges) for score in (song, result))
    sounding = np.linalg.norm(of_song, axis=1) > SILENT
    cosines = [cosine(a, b) for a, b in zip(of_song[sounding], of_result[sounding], strict=True)]
    melody, others = melody_notes(song), melody_notes(result)
    return {
        "chroma": float(np.mean(cosines)) if cosines else None,
        "melody_f1": note_f1(others, melody) if len(melody) else None,
        "top_line_f1": note_f1(_chosen(result, parts.skyline(result)), melody) if len(melody) else None,
    }


def chroma(score: Score, edges: np.ndarray) -> np.ndarray:
    """Return for how long each pitch class sounds between edges, drums left out, (edges - 1, 12)."""
    pitched = [i for i, track in enumerate(score.tracks) if not track.is_drum]
    start, stop, pitch = accompany.notes_of(score, pitched).T
    return sounding_time(start, stop, pitch.astype(int), edges)


def melody_notes(score: Score) -> np.ndarray:
    """Return the notes of the melody as (N, 3): start, end and pitch, in quarters."""
    tune = parts.melody(score)
    return np.zeros((0, 3)) if tune is None else _chosen(score, tune.notes)


def _chosen(score: Score, notes: np.ndarray) -> np.ndarray:
    tpq = score.ticks_per_quarter
    found = [score.tracks[track].notes[number] for track, number in notes.tolist()]
    return np.array([(n.time / tpq, n.end / tpq, n.pitch) for n in found], float).reshape(-1, 3)


def excerpts(corpus: Corpus, split: str) -> list[tuple[str, str, Score]]:
    """Return name, style and excerpt of pieces that have a style, by the hashes of their names; see `accompany.excerpt_of`."""
    tokenizer, found = Merging(corpus.tokenizer), []
    for piece in sorted(corpus.pieces(split), key=lambda piece: music.by_hash(piece.name)):
        score = tokenizer.decode(piece.tokens)
        excerpt = accompany.excerpt_of(score)
        style = ensembles.style_of(score)
        if style and excerpt is not None and excerpt.note_num():
            found.append((piece.name, style, excerpt))
    return found


def first_of_each(
    pieces: Sequence[tuple[str, str, Score]], styles: Sequence[str], number: int
) -> list[tuple[str, Score]]:
    """Return style and excerpt of the first pieces of each style, so many at most."""
    return [
        (style, score)
        for style in styles
        for _, _, score in itertools.islice((row for row in pieces if row[1] == style), number)
    ]


def songs_of(held_out: Sequence[tuple[str, str, Score]], styles: Sequence[str], number: int) -> list[Song]:
    """Return so many songs, in turn to each style, each song once, with a melody and another style of its own."""
    waiting = [row for row in held_out if row[1] in players.LEADS and len(melody_notes(row[2])) >= parts.LEAST_NOTES]
    found: list[Song] = []
    for style in itertools.cycle(styles):
        row = next((row for row in waiting if row[1] != style), None)
        if row is None or len(found) == number:
            return found
        waiting.remove(row)
        found.append(Song(row[0], row[1], style, row[2]))
    return found


def restyled(composer: Composer, song: Song, options: dict[str, Any], seed: int) -> Score:
    """Return a song in its new style, as `musiclm restyle` writes it."""
    config = GenerationConfig.from_options(**options, task=RESTYLE, style=song.style)
    return writing.best(composer, song.score, config, seed)[0].score


def with_overlay(song: Song) -> Score | None:
    """Return the melody of a song with the band of MMA to its chords; None without a groove."""
    try:
        band = baselines.overlay(song.score, Sides(ScorePairs(), song.score, None).harmony())
    except MusicLMError:
        return None
    if band is None:
        return None
    track, tpq = Track("Melody", players.lead(song.style), False), band.ticks_per_quarter
    for start, stop, pitch in melody_notes(song.score).tolist():
        track.notes.append(Note(round(start * tpq), max(1, round((stop - start) * tpq)), int(pitch), 80))
    band.tracks.append(track)
    band.time_signatures = song.score.copy().resample(tpq, 1).time_signatures
    return band


def compared(
    composer: Composer | None,
    songs: Sequence[Song],
    styles: Styles,
    real: Mapping[str, Sequence[tuple[str, Score]]],
    options: dict[str, Any],
    seed: int,
    folder: Path | None = None,
) -> list[dict[str, Any]]:
    """Return the measures of all methods, song by song; None for a method that has no result.

    Args:
        composer: of the model; None to leave it out.
        songs: to restyle.
        styles: their profiles.
        real: name and excerpt of held-out pieces of each style: song i has the i-th that is not itself.
        options: of generation.
        seed: of each song.
        folder: gets all results as MIDI files; None for no files.
    """
    rows = []
    for number, song in enumerate(songs):
        others = [score for name, score in real[song.style] if name != song.name]
        results: dict[str, Score | None] = {
            "copy": song.score,
            "random": others[number % len(others)] if others else None,
            "mma": with_overlay(song),
        }
        problem = None
        if composer is not None:
            try:
                results["model"] = restyled(composer, song, options, seed)
            except MusicLMError as error:
                problem = str(error)
        row: dict[str, Any] = {"name": song.name, "own": song.own, "style": song.style, "problem": problem}
        for method in METHODS:
            made = results.get(method)
            row[method] = None if made is None else content(song.score, made) | styles.distances(made, song.style)
            if made is not None and folder is not None:
                midi.write(made, folder / f"{number:03}-{song.own}-to-{song.style}-{method}.mid", force=True)
        rows.append(row)
        music.progress(number + 1, len(songs))
    return rows


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return means by method, of all songs and by style, and the model's style distance by that of a random piece."""
    groups = {"all": list(rows)} | {
        style: [row for row in rows if row["style"] == style] for style in sorted({row["style"] for row in rows})
    }
    found: dict[str, Any] = {"num_songs": len(rows), "problems": [row["problem"] for row in rows if row["problem"]]}
    found["methods"] = {
        group: {
            method: ensembles.averaged([row[method] for row in of_group if row[method] is not None])
            for method in METHODS
        }
        for group, of_group in groups.items()
    }
    pairs = [(row["model"]["style"], row["random"]["style"]) for row in rows if row["model"] and row["random"]]
    if pairs:
        value, error = ratio(*np.array(pairs).T)
        found["style_by_random"] = {"mean": value, "standard_error": error, "num_pieces": len(pairs)}
    return found


def as_text(report: dict[str, Any]) -> str:
    """Return the report for people."""
    lines = [f"{report['model']}, {report['num_songs']} songs, seed {report['seed']}"]
    for group, methods in report["methods"].items():
        lines += ["", f"{group:12}{'n':>5}" + "".join(f"{name.replace('_', ' '):>18}" for name in (*CONTENT, *STYLE))]
        for method, found in methods.items():
            if found:
                cells = "".join(f"{music.with_error(found[name]):>18}" for name in (*CONTENT, *STYLE))
                lines.append(f"{method:12}{found['style']['num_pieces']:>5}{cells}")
    if ratio_found := report.get("style_by_random"):
        lines += ["", f"style distance of the model / of a random piece: {music.with_error(ratio_found)}"]
    lines += [f"no result: {problem}" for problem in report["problems"]]
    return "\n".join(lines)
