"""The measures of a piece by name, and a verdict by rule. Each measure's formula is in the docstring of its function.

`MEASURES` says for each what it is called in tables, its unit, and the kinds of music that it is for: "score" (any
instruments), "chorale" (four voices) or "piano" (in real time, a bar being two seconds). `docs/concepts/metrics.md` has all
of them with their sources, their limits and figures of real music.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from symusic import Score

from .. import midi
from . import cadences, chorale, harmony, music_metrics, rhythm, texture
from .chorale import Voices, voices_of
from .music_metrics import Notes, notes_of

KINDS = ("score", "chorale", "piano")
BARS = 16
ALL, SCORE, CHORALE, PIANO = frozenset(KINDS), frozenset({"score"}), frozenset({"chorale"}), frozenset({"piano"})
SCORE_PIANO = SCORE | PIANO

KIND_OF = {"grid": "chorale", "grid-infill": "chorale", "performance": "piano"}  # of a tokenizer; others are "score"

THIN_POLYPHONY = 1.25
THIN_NOTES = 5.0  # a bar
MESSY_SCALE = 0.13  # of notes outside the local scale
MESSY_CLASH = 0.3  # of eighths with a semitone

Values = dict[str, float | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measure:
    """A measure of a piece.

    Attributes:
        function: takes the `Notes` of the first bars, or their `Voices`, or both of the whole piece, as `of` says.
        of: "notes", "voices" or "whole voices" (a chorale's last chord is not in its first bars).
        label: for tables.
        unit: of its values; "share" is 0 to 1.
        kinds: of `KINDS`.
    """

    function: Callable[[Notes], float | None] | Callable[[Voices], float | None]
    of: str
    label: str
    unit: str
    kinds: frozenset[str]

    @property
    def name(self) -> str:
        """Return the key in `MEASURES`: the name of the function."""
        return self.function.__name__


def _notes(function: Callable[[Notes], float | None], label: str, unit: str, kinds: frozenset[str]) -> Measure:
    return Measure(function=function, of="notes", label=label, unit=unit, kinds=kinds)


def _voices(function: Callable[[Voices], float | None], label: str, unit: str, of: str = "voices") -> Measure:
    return Measure(function=function, of=of, label=label, unit=unit, kinds=CHORALE)


MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        _notes(texture.drums_only, "drums only", "share of pieces", SCORE),
        _notes(texture.one_instrument, "one instrument only", "share of pieces", SCORE),
        _notes(texture.drums_with_pitched, "drums and pitched together", "share of pieces", SCORE),
        _notes(texture.instruments, "instruments", "number", SCORE),
        _notes(texture.short_tracks, "tracks under 4 notes", "share", SCORE),
        _notes(texture.drum_bars_again, "drum bars that come back", "share", SCORE),
        _notes(texture.drums_off_grid, "drum hits off the grid", "share", SCORE),
        _notes(music_metrics.polyphony, "polyphony", "notes", ALL),
        _notes(texture.notes_per_bar, "notes a bar", "notes", ALL),
        _notes(texture.empty_bars, "empty bars", "share", ALL),
        _notes(texture.empty_beats, "empty beats", "share", ALL),
        _notes(harmony.harmony_stuck, "harmony stuck 4+ bars", "share of pieces", SCORE_PIANO),
        _notes(harmony.stuck_bars, "longest standing harmony", "bars", SCORE_PIANO),
        _notes(harmony.chord_changes, "chord changes a bar", "changes", ALL),
        _notes(harmony.same_top_pitch, "same top pitch again", "share", ALL),
        _notes(harmony.bar_again_at_once, "bar equal to the bar before", "share", SCORE_PIANO),
        _notes(music_metrics.pitch_class_entropy, "pitch-class entropy", "bits", ALL),
        _notes(harmony.out_of_scale, "out of the piece's scale", "share", ALL),
        _notes(harmony.out_of_local_scale, "out of the local scale", "share", ALL),
        _notes(harmony.local_key_changes, "local key changes", "share", ALL),
        _notes(harmony.semitone_clash, "semitone clash on eighths", "share", ALL),
        _notes(harmony.four_bar_form, "four-bar form", "difference", SCORE_PIANO),
        _notes(harmony.best_earlier_bar, "likeness to a bar 3+ earlier", "cosine", ALL),
        _notes(rhythm.length_entropy, "entropy of note lengths", "bits", ALL),
        _notes(rhythm.distance_entropy, "entropy of onset distances", "bits", ALL),
        _notes(music_metrics.groove_consistency, "groove consistency", "share", SCORE),
        _notes(rhythm.fine_groove, "groove consistency, twelfths", "share", SCORE),
        _notes(rhythm.on_sixteenths, "onsets on sixteenths", "share", SCORE),
        _notes(rhythm.on_beat, "... of these on the beat", "share", SCORE),
        _notes(rhythm.on_eighth, "... on the eighth between", "share", SCORE),
        _notes(rhythm.on_sixteenth, "... on other sixteenths", "share", SCORE),
        _notes(rhythm.velocity_spread, "velocity spread", "velocity", SCORE_PIANO),
        _notes(rhythm.compressed_size, "compressed size", "bytes/byte", ALL),
        _voices(chorale.parallel_fifths, "parallel fifths", "per 100 motions"),
        _voices(chorale.parallel_octaves, "parallel octaves, unisons", "per 100 motions"),
        _voices(chorale.crossed, "voices crossed", "share of time"),
        _voices(chorale.out_of_range, "out of range", "share of time"),
        _voices(chorale.soprano_range, "soprano range", "semitones"),
        _voices(chorale.triads, "triad on the beat", "share"),
        _voices(chorale.sevenths, "seventh chord on the beat", "share"),
        _voices(chorale.no_chord, "no known chord on the beat", "share"),
        _voices(chorale.clash_on_beat, "semitone clash on the beat", "share"),
        _voices(chorale.soprano_bars_again, "soprano bars that come back", "share"),
        _voices(chorale.changes_per_quarter, "changes a quarter", "changes"),
        _voices(chorale.tenor_sixteenths, "tenor notes of a sixteenth", "share"),
        _voices(cadences.holds_per_16_bars, "holds per 16 bars", "holds"),
        _voices(cadences.regular_gaps, "gaps of half bars between holds", "share"),
        _voices(cadences.holds_on_triads, "holds on a triad", "share"),
        _voices(cadences.holds_by_fifth, "holds with a V-I bass", "share"),
        _voices(cadences.returns_to_key, "last 2 bars in the first key", "share of pieces"),
        _voices(cadences.leading_tone_soprano, "leading tone resolves, soprano", "share"),
        _voices(cadences.leading_tone_all, "leading tone resolves, all", "share"),
        _voices(cadences.ends_on_tonic, "last chord: tonic triad", "share of pieces", "whole voices"),
        _voices(cadences.ends_held, "last chord held 2+ quarters", "share of pieces", "whole voices"),
    )
}


def names(kind: str) -> list[str]:
    """Return the names of the measures of a kind of music.

    Raises:
        ValueError: there is no such kind.
    """
    if kind not in KINDS:
        raise ValueError(f"no kind of music '{kind}': it is one of {', '.join(KINDS)}")
    return [name for name, measure in MEASURES.items() if kind in measure.kinds]


def values(score: Score, kind: str, bars: int | None = BARS) -> Values:
    """Return each measure of `names(kind)` of a score; None where there is nothing to count.

    Args:
        score: its pedal already turned into length, if it has one. For "piano" its notes keep their seconds, and a bar is
            two of them.
        kind: of `KINDS`.
        bars: only the first ones, counted from the bar of the first note; None for all.

    Raises:
        ValueError: there is no such kind.
    """
    wanted = names(kind)
    if kind == "piano":
        score = in_real_time(score)
    notes = notes_of(score, bars)
    whole = notes if bars is None else notes_of(score)
    given: dict[str, Notes | Voices | None] = {"notes": notes}
    if kind == "chorale":
        given |= {"voices": voices_of(notes), "whole voices": voices_of(whole)}
    return {name: _value(MEASURES[name], given[MEASURES[name].of]) for name in wanted}


def _value(measure: Measure, given: Notes | Voices | None) -> float | None:
    found = None if given is None else measure.function(given)  # type: ignore[arg-type]
    return None if found is None else float(found)


def in_real_time(score: Score) -> Score:
    """Return a score of 4/4 at 120 quarters per minute in which every note keeps its seconds, so that a bar is two seconds."""
    tempi = midi.TempoMap(score)
    moved = Score(score.ticks_per_quarter)
    for track in score.tracks:
        copied = track.copy()
        copied.notes = type(track.notes)()
        for note in track.notes:
            begin, end = (
                2 * tempi.seconds_at(time / score.ticks_per_quarter) * score.ticks_per_quarter
                for time in (note.time, note.time + note.duration)
            )
            timed = note.copy()
            timed.time, timed.duration = round(begin), max(1, round(end) - round(begin))
            copied.notes.append(timed)
        moved.tracks.append(copied)
    return moved


def verdict(score: Score, kind: str = "score", bars: int | None = BARS) -> list[str]:
    """Return what is wrong with a piece by rule; an empty list is a decent one.

    The rules: "drums only"; "thin", polyphony below 1.25 or fewer than 5 notes a bar; "stuck", the harmony for 4 bars or
    more (`harmony.stuck_bars`); "messy", more than .13 of the notes out of the local scale, or a semitone on more than .3 of
    the eighths. "empty" is a piece without a note. They were found on the piano rolls of 60 pieces of one model: a first
    impression, no aesthetics; a third of real music breaks one (orchestral and chromatic music mostly "messy").
    """
    notes = notes_of(in_real_time(score) if kind == "piano" else score, bars)
    if not len(notes.start):
        return ["empty"]
    if texture.drums_only(notes):
        return ["drums only"]
    reasons = []
    if _or_zero(music_metrics.polyphony(notes)) < THIN_POLYPHONY or _or_zero(texture.notes_per_bar(notes)) < THIN_NOTES:
        reasons.append("thin")
    if harmony.harmony_stuck(notes):
        reasons.append("stuck")
    scale, clash = _or_zero(harmony.out_of_local_scale(notes)), _or_zero(harmony.semitone_clash(notes))
    if scale > MESSY_SCALE or clash > MESSY_CLASH:
        reasons.append("messy")
    return reasons


def _or_zero(value: float | None) -> float:
    return 0.0 if value is None else value


def table_of(pieces: Sequence[Score], kind: str, bars: int | None = BARS) -> tuple[list[str], np.ndarray]:
    """Return the names of the measures of a kind, and their values of each piece, (pieces, names) float64, NaN for None."""
    rows = [values(piece, kind, bars) for piece in pieces]
    return names(kind), matrix(rows, names(kind))


def matrix(rows: Iterable[Values], columns: Sequence[str]) -> np.ndarray:
    """Return values by piece as (pieces, columns) float64, NaN for None."""
    found = [[np.nan if row[name] is None else row[name] for name in columns] for row in rows]
    return np.array(found, np.float64).reshape(-1, len(columns))


def mean_and_error(rows: Iterable[Values], name: str) -> tuple[float | None, float | None, int]:
    """Return the mean of a measure over pieces, its standard error (deviation with n - 1 / sqrt(n)), and the number n.

    Pieces with None are left out. The mean is None without one, the error with fewer than two.
    """
    present = np.array([row[name] for row in rows if row[name] is not None], np.float64)
    count = len(present)
    mean = float(present.mean()) if count else None
    return mean, float(present.std(ddof=1) / count**0.5) if count > 1 else None, count


Described = dict[str, Any]
"""A piece's `values`, and its verdict `by_rule`."""


def described(score: Score, kind: str, bars: int | None = BARS) -> Described:
    """Return `values` and the verdict `by_rule` of a score."""
    return {"values": values(score, kind, bars), "by_rule": verdict(score, kind, bars)}


def compared(sets: Mapping[str, Sequence[Described]], kind: str) -> dict[str, Any]:
    """Return sets of pieces beside each other, as JSON.

    Returns:
        "measures": for each measure its "unit", and for each set "mean", "standard_error" (both None where there are too few
        pieces) and "num_pieces" that have it. "by_rule": for each set "num_pieces", "decent", how many break no rule, and
        "reasons", how many break each one; a piece can break several.
    """
    measures: dict[str, Any] = {}
    for name in names(kind):
        row: dict[str, Any] = {"unit": MEASURES[name].unit}
        for which, pieces in sets.items():
            mean, error, count = mean_and_error([piece["values"] for piece in pieces], name)
            row[which] = {"mean": mean, "standard_error": error, "num_pieces": count}
        measures[name] = row
    return {"measures": measures, "by_rule": {which: _counted(pieces) for which, pieces in sets.items()}}


def _counted(pieces: Sequence[Described]) -> dict[str, Any]:
    reasons = collections.Counter(reason for piece in pieces for reason in piece["by_rule"])
    decent = sum(not piece["by_rule"] for piece in pieces)
    return {"num_pieces": len(pieces), "decent": decent, "reasons": dict(reasons.most_common())}


def apart(row: Mapping[str, Any], one: str, other: str) -> float | None:
    """Return the difference of two sets' means of a measure in `compared`, in its standard errors; None without any."""
    errors = [row[which]["standard_error"] for which in (one, other)]
    if None in errors or not (error := float(np.hypot(*errors))) > 0:
        return None
    return float((row[one]["mean"] - row[other]["mean"]) / error)
