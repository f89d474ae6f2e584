"""Tempo and bar maps give the floats of the walks that they replaced, bit for bit; the walks stand here."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from symusic import ControlChange, Note, Score, Tempo, TimeSignature, Track

from musiclm import midi
from musiclm.rendering import synthesizer
from musiclm.tokenizers import performance

TPQ = 480
ticks = st.integers(0, 40 * TPQ) | st.integers(0, 80).map(lambda n: n * TPQ // 2)
tempi = st.lists(
    st.tuples(ticks, st.sampled_from((500_000, 461_538, 1_000_000, 333_333, 6_000_000, 120_001))), max_size=8
)
signs = st.lists(
    st.tuples(ticks, st.sampled_from(((4, 4), (3, 4), (6, 8), (5, 8), (7, 16), (1, 1), (2, 2)))), max_size=8
)
times = st.floats(0, 80) | st.integers(0, 160).map(lambda n: n / 2) | ticks.map(lambda t: t / TPQ)


@st.composite
def scores(draw: st.DrawFn) -> Score:
    score = Score(TPQ)
    for time, mspq in draw(tempi):
        tempo = Tempo(time, 120)
        tempo.mspq = mspq
        score.tempos.append(tempo)
    for time, (numerator, denominator) in draw(signs):
        score.time_signatures.append(TimeSignature(time, numerator, denominator))
    track = Track("", 0)
    for time, duration in draw(st.lists(st.tuples(ticks, st.integers(1, 4 * TPQ)), min_size=1, max_size=5)):
        track.notes.append(Note(time, duration, 60, 80))
    score.tracks.append(track)
    return score


# the walks of before, as they were


def walked_bars(score: Score) -> Iterator[midi.Bar]:
    changes = sorted((t.time / score.ticks_per_quarter, t.numerator, t.denominator) for t in score.time_signatures)
    start, numerator, denominator = 0.0, 4, 4
    while True:
        while changes and changes[0][0] <= start + 1e-6:
            _, numerator, denominator = changes.pop(0)
        end = start + 4 * numerator / denominator
        if changes and changes[0][0] < end - 1e-6:
            end = changes[0][0]
        yield midi.Bar(start, end, numerator, denominator)
        start = end


def walked_bar_line(score: Score, quarters: float, num_bars: int = 0) -> float:
    left = num_bars
    for bar in walked_bars(score):
        if bar.start >= quarters - 1e-6:
            if left == 0:
                return bar.start
            left -= 1
    raise AssertionError


def walked_last_bar_line(score: Score, quarters: float) -> float:
    return next(bar.start for bar in walked_bars(score) if bar.end > quarters + 1e-6)


def walked_num_bars(score: Score) -> int:
    last = midi.end(score)
    return next(i + 1 for i, bar in enumerate(walked_bars(score)) if bar.end >= last - 1e-6)


def walked_quarters_at(score: Score, time: float) -> float:
    changes = sorted((t.time / score.ticks_per_quarter, t.qpm) for t in score.tempos)
    at, passed, qpm = 0.0, 0.0, 120.0
    for change, new_qpm in changes:
        here = passed + (change - at) * 60 / qpm
        if here > time:
            break
        at, passed, qpm = change, here, new_qpm
    return at + (time - passed) * qpm / 60


def walked_seconds_at(score: Score, quarters: float) -> float:
    changes = sorted((t.time / score.ticks_per_quarter, t.qpm) for t in score.tempos)
    at, passed, qpm = 0.0, 0.0, 120.0
    for change, new_qpm in changes:
        if change >= quarters:
            break
        passed += (change - at) * 60 / qpm
        at, qpm = change, new_qpm
    return passed + (quarters - at) * 60 / qpm


def walked_main_tempo(score: Score, quarters: float) -> tuple[float, int]:
    changes = sorted((t.time / score.ticks_per_quarter, t.qpm) for t in score.tempos)
    changes = [(0.0, 120.0), *changes]
    lasts: dict[float, float] = {}
    ends = [start for start, _ in changes[1:]] + [max(quarters, changes[-1][0])]
    for (start, qpm), end in zip(changes, ends, strict=True):
        lasts[qpm] = lasts.get(qpm, 0.0) + (min(end, quarters) - start) * 60 / qpm
    different = sum(a[1] != b[1] for a, b in itertools.pairwise(changes[1:]))
    return max(lasts, key=lambda qpm: (lasts[qpm], qpm)), different


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(scores(), st.lists(times, min_size=1, max_size=8), st.integers(0, 5))
def test_bars_are_those_of_the_walk(score: Score, asked: list[float], num_bars: int):
    bars = midi.BarMap(score)
    wanted = list(itertools.islice(walked_bars(score), 30))
    assert list(itertools.islice(midi.bars(score), 30)) == wanted
    for quarters in asked:  # in any order, of one map and of a new one
        assert bars.bar_line(quarters, num_bars) == walked_bar_line(score, quarters, num_bars)
        assert midi.bar_line(score, quarters, num_bars) == walked_bar_line(score, quarters, num_bars)
        assert bars.last_bar_line(quarters) == walked_last_bar_line(score, quarters)
        assert midi.last_bar_line(score, quarters) == walked_last_bar_line(score, quarters)
    assert midi.num_bars(score) == bars.num_bars(midi.end(score)) == walked_num_bars(score)
    assert list(itertools.islice(bars, 30)) == wanted
    for bar in wanted:  # times on bar lines and a rounding error beside them
        for quarters in (bar.start, bar.start + 1e-9, max(0.0, bar.start - 1e-9), bar.start + 2e-6):
            assert bars.bar_line(quarters) == walked_bar_line(score, quarters)
            assert bars.last_bar_line(quarters) == walked_last_bar_line(score, quarters)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(scores(), st.lists(times, min_size=1, max_size=8))
def test_tempo_conversions_are_those_of_the_walk(score: Score, asked: list[float]):
    tempo = midi.TempoMap(score)
    for time in [*asked, 0.0, *tempo.seconds, *tempo.starts]:
        assert midi.quarters_at(score, time) == tempo.quarters_at(time) == walked_quarters_at(score, time)
        assert midi.seconds_at(score, time) == tempo.seconds_at(time) == walked_seconds_at(score, time)
        assert (tempo.main_tempo(time), tempo.num_changes()) == walked_main_tempo(score, time)


def test_a_time_signature_of_no_length_does_not_hang():
    score = Score(TPQ)
    score.time_signatures.append(TimeSignature(0, 0, 4))
    assert midi.bar_line(score, 5.0) == 8


# how two places folded the pedal before there was one


def old_rung(track: Track) -> np.ndarray:
    notes = track.notes.numpy()
    start = notes["time"].astype(np.float64)
    end = start + notes["duration"]
    controls = track.controls.numpy() if len(track.controls) else None
    pedal = controls["number"] == 64 if controls is not None else np.zeros(0, bool)
    if controls is not None and pedal.any():
        time, value = controls["time"][pedal].astype(np.float64), controls["value"][pedal]
        order = np.argsort(time, kind="stable")
        time, down = time[order], value[order] >= 64
        rises = time[~down]
        latest = max(float(end.max()), float(time[-1]))
        until = end * (1 + performance.SAME_TIME)
        last = np.searchsorted(time, until, side="right") - 1
        held = (last >= 0) & down[np.maximum(last, 0)]
        rise = np.append(rises, latest)[np.searchsorted(rises, until, side="right")]
        end = np.where(held, np.maximum(end, rise), end)
    return end


def old_ends(track: Track, start: np.ndarray, end: np.ndarray, key: np.ndarray) -> np.ndarray:
    if not track.controls:
        return end
    controls = track.controls.numpy()
    pedal = controls["number"] == 64
    if not pedal.any():
        return end
    order = np.argsort(controls["time"][pedal], kind="stable")
    time, is_down = controls["time"][pedal][order], controls["value"][pedal][order] >= 64
    last = np.searchsorted(time, end, side="right") - 1
    is_held = (last >= 0) & is_down[np.maximum(last, 0)]
    rises = np.append(time[~is_down], max(time[-1], end.max()))
    rise = rises[np.minimum(np.searchsorted(rises, end, side="right"), len(rises) - 1)]
    by_key = np.lexsort((start, key))
    again = np.full(len(start), np.inf)
    same = key[by_key][1:] == key[by_key][:-1]
    again[by_key[:-1][same]] = start[by_key[1:][same]]
    return np.where(is_held, np.maximum(end, np.minimum(rise, again)), end)


few_ticks = st.integers(0, 20).map(lambda n: n * TPQ // 4)
pedals = st.lists(
    st.tuples(few_ticks | ticks, st.sampled_from((0, 63, 64, 127)), st.sampled_from((64, 64, 7))), max_size=10
)
played = st.lists(
    st.tuples(few_ticks, st.sampled_from((1, 120, 240, 700)), st.integers(60, 62)), min_size=1, max_size=10
)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(pedals, played, st.sampled_from((120.0, 97.3)))
def test_the_pedal_holds_notes_as_it_did_in_tokens_and_in_sound(pedal: Any, notes: Any, qpm: float):
    score, track = Score(TPQ), Track("", 0)
    score.tempos.append(Tempo(0, qpm))
    for time, value, number in pedal:
        track.controls.append(ControlChange(time, number, value))
    for time, duration, pitch in notes:
        track.notes.append(Note(time, duration, pitch, 80))
    score.tracks.append(track)
    timed = score.to("second").tracks[0]
    _, end, _, _ = performance._rung(timed)
    assert np.array_equal(end, old_rung(timed)) and end.dtype == np.float64
    arrays = timed.notes.numpy()
    start, key = arrays["time"], arrays["pitch"]
    stop = start + arrays["duration"]
    found, wanted = synthesizer._ends(timed, start, stop, key), old_ends(timed, start, stop, key)
    assert np.array_equal(found, wanted) and found.dtype == wanted.dtype


def test_a_held_note_sounds_until_the_pedal_goes_up():
    score, track = Score(TPQ), Track("", 0)
    track.notes.append(Note(0, 240, 60, 80))
    track.notes.append(Note(960, 240, 60, 80))
    for time, value in ((100, 127), (1000, 0)):
        track.controls.append(ControlChange(time, 64, value))
    score.tracks.append(track)
    arrays = track.notes.numpy()
    assert midi.pedal_release(track, arrays["time"] + arrays["duration"]).tolist() == [1000, 1200]


@pytest.mark.parametrize("quarters", [0.0, 3.0, 7.5])
def test_a_map_of_a_score_without_changes_is_four_quarters_at_120(quarters: float):
    score = Score(TPQ)
    assert midi.seconds_at(score, quarters) == quarters / 2
    assert midi.quarters_at(score, quarters / 2) == quarters
    assert midi.last_bar_line(score, quarters) == quarters // 4 * 4
