"""recipes/synthesis.py: pitch, decay, nodes and sidebands of synthesized notes; the set that it writes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from musiclm.audio import FAMILIES, dataset

sys.path.append(str(Path(__file__).parents[1] / "recipes"))

import synthesis
from synthesis import FILE_RATE, LONGEST, SYNTH_RATE, Note

STRINGS = ("electric-bass", "acoustic-bass", "acoustic-guitar", "electric-guitar")


def spectrum(audio: np.ndarray, rate: int = FILE_RATE) -> tuple[np.ndarray, np.ndarray]:
    """Return frequencies in Hz and levels in dB."""
    size = 1 << 17
    power = np.abs(np.fft.rfft(audio * np.hanning(len(audio)), size)) ** 2
    return np.fft.rfftfreq(size, 1 / rate), 10 * np.log10(power + 1e-12)


def partial(audio: np.ndarray, hz: float, rate: int = FILE_RATE) -> float:
    """Return the level of a partial in dB."""
    at, db = spectrum(audio, rate)
    return float(db[(at > hz - 12) & (at < hz + 12)].max())


def plucked_string(hz: float, *, seconds: float = 2.0, damping: float = 0.1, place: float = 0.3) -> np.ndarray:
    excitation = synthesis.pluck(
        np.random.default_rng(0), Note(hz, 1.0, 1.0), brightness=5000, position=place, noise=0.0
    )
    return synthesis.string(excitation, hz, seconds=seconds, damping=damping, num_samples=FILE_RATE)


@pytest.mark.parametrize("hz", [41.2, 110.0, 329.6, 987.8])
@pytest.mark.parametrize("damping", [0.02, 0.3])
def test_a_string_is_in_tune(hz: float, damping: float) -> None:
    at, db = spectrum(plucked_string(hz, damping=damping)[800:])
    near = (at > 0.94 * hz) & (at < 1.06 * hz)
    assert abs(1200 * np.log2(at[near][db[near].argmax()] / hz)) < 4


@pytest.mark.parametrize("seconds", [0.5, 3.0])
def test_a_string_falls_by_60_db_in_its_decay(seconds: float) -> None:
    sound = plucked_string(110.0, seconds=seconds, damping=0.02)
    early, late = partial(sound[1600:4800], 110), partial(sound[4800:8000], 110)
    assert (early - late) / 0.2 == pytest.approx(60 / seconds, rel=0.05)


def test_high_partials_of_a_damped_string_fade_first() -> None:
    sound = plucked_string(110.0, seconds=4.0, damping=0.3)
    falls = [partial(sound[:3200], hz) - partial(sound[8000:11_200], hz) for hz in (110, 1100, 2200)]
    assert falls[0] < falls[1] < falls[2] and falls[2] > falls[0] + 10


def test_a_partial_with_a_node_at_the_pluck_does_not_sound() -> None:
    sound = plucked_string(100.0, place=0.25)
    assert partial(sound, 400) < min(partial(sound, 300), partial(sound, 500)) - 15


def test_the_filter_of_a_synthesizer_falls_by_24_db_an_octave_from_where_it_is() -> None:
    noise = np.random.default_rng(0).standard_normal(SYNTH_RATE)
    falling = np.linspace(4000, 400, SYNTH_RATE)
    result = synthesis.swept(noise, falling, 0.7)

    def level(audio: np.ndarray, hz: float) -> float:
        power = np.abs(np.fft.rfft(audio * np.hanning(len(audio)))) ** 2
        at = np.fft.rfftfreq(len(audio), 1 / SYNTH_RATE)
        return float(10 * np.log10(power[(at > 0.9 * hz) & (at < 1.1 * hz)].mean()))

    first, last = slice(0, 3200), slice(-3200, None)
    assert level(result[first], 2000) - level(noise[first], 2000) == pytest.approx(0, abs=3)
    assert level(result[last], 2000) - level(noise[last], 2000) < -40
    constant = synthesis.swept(noise, np.full(len(noise), 1000.0), 0.7)
    gains = [level(constant, hz) - level(noise, hz) for hz in (250, 2000, 4000)]
    assert gains[0] == pytest.approx(0, abs=1) and gains[1] - gains[2] == pytest.approx(24, abs=2)


def test_a_sawtooth_has_all_partials_and_little_aliasing() -> None:
    hz = 1234.0
    step = np.full(SYNTH_RATE, hz / SYNTH_RATE)
    wave = synthesis.saw(np.cumsum(step), step)
    first = partial(wave, hz, SYNTH_RATE)
    for k in (2, 3, 4):
        assert partial(wave, k * hz, SYNTH_RATE) - first == pytest.approx(-20 * np.log10(k), abs=1)
    at, db = spectrum(wave, SYNTH_RATE)
    between = np.abs(at / hz - np.round(at / hz)) > 0.05
    assert db[between & (at < 8000)].max() < first - 35


@pytest.mark.parametrize("engine", list(synthesis.ENGINES))
def test_each_engine_plays_notes_that_repeat_with_their_seed(engine: str) -> None:
    family, lowest, highest, _ = synthesis.ENGINES[engine]
    assert family in FAMILIES
    for number, pitch in enumerate((lowest, highest)):
        note = synthesis.synthesize(engine, 1, number, seed=0, pitch=pitch)
        assert np.isfinite(note).all() and 0.1 * FILE_RATE < len(note) <= LONGEST * FILE_RATE
        assert abs(float(note.mean())) < 0.05 * np.abs(note).max()  # no offset
        assert np.array_equal(note, synthesis.synthesize(engine, 1, number, seed=0, pitch=pitch))
        assert not np.array_equal(note, synthesis.synthesize(engine, 1, number, seed=1, pitch=pitch)[: len(note)])


@pytest.mark.parametrize("engine", STRINGS)
def test_a_harder_pluck_is_brighter(engine: str) -> None:
    def centroid(velocity: float) -> float:
        rng, patch = np.random.default_rng(5), np.random.default_rng(3)
        at, db = spectrum(synthesis.ENGINES[engine][3](patch, rng, Note(110.0, velocity, 1.0))[:8000])
        power = 10 ** (db / 10)
        return float((at * power).sum() / power.sum())

    assert centroid(1.0) > centroid(0.2)


def test_the_set_is_read_as_notes_of_one_source(tmp_path: Path) -> None:
    count = synthesis.synthesize_all(tmp_path / "a", instruments=1, notes=2, seed=0)
    synthesis.synthesize_all(tmp_path / "b", instruments=1, notes=2, seed=0)
    notes = dataset.read_notes(tmp_path / "a")
    assert len(notes) == count == 2 * len(synthesis.ENGINES)
    assert {n.source for n in notes} == {synthesis.SOURCE}
    assert {n.family for n in notes} == {"bass", "guitar", "synth_lead"}
    assert len({n.instrument for n in notes}) == len(synthesis.ENGINES)
    for note in notes:
        assert note.midi_pitch is not None
        assert note.path.read_bytes() == (tmp_path / "b" / note.path.relative_to(tmp_path / "a")).read_bytes()
