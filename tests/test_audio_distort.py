"""Distortions of notes: each is measured by what it does to a sound's spectrum, level or length."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from musiclm.audio import distort as distortions
from musiclm.audio import mel

RATE = mel.SAMPLE_RATE


def tone(hz: float = 440.0, seconds: float = 1.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(int(seconds * RATE)) / RATE)


def noise(seconds: float = 2.0) -> np.ndarray:
    return 0.1 * np.random.default_rng(0).standard_normal(int(seconds * RATE))


def level(audio: np.ndarray, low: float, high: float) -> float:
    """Return the level of a band in dB."""
    power = np.abs(np.fft.rfft(audio * np.hanning(len(audio)))) ** 2
    hz = np.fft.rfftfreq(len(audio), 1 / RATE)
    return float(10 * np.log10(power[(hz >= low) & (hz < high)].sum() + 1e-12))


def at(audio: np.ndarray, hz: float) -> float:
    """Return the level of a partial in dB."""
    return level(audio, hz - 15, hz + 15)


def pitches(audio: np.ndarray) -> np.ndarray:
    """Return the frequency of a tone in each 50 ms, by the mean distance of its rising zero crossings."""
    parts = audio[: len(audio) // 800 * 800].reshape(-1, 800)
    found = []
    for part in parts[1:-1]:
        (up,) = np.nonzero((part[:-1] < 0) & (part[1:] >= 0))
        exact = up - part[up] / (part[up + 1] - part[up])
        found.append(RATE * (len(exact) - 1) / (exact[-1] - exact[0]))
    return np.array(found)


@pytest.mark.parametrize("family", [None, "guitar", "flute"])
def test_distortion_keeps_a_sound_and_repeats_with_its_seed(family: str | None) -> None:
    for seed in range(20):
        spoilt = distortions.distort(tone(), np.random.default_rng(seed), family, extended=seed % 2 == 0)
        mel.check(torch.from_numpy(spoilt))
        assert spoilt.dtype == np.float32
        again = distortions.distort(tone(), np.random.default_rng(seed), family, extended=seed % 2 == 0)
        assert np.array_equal(spoilt, again)


def test_only_what_is_played_through_an_amplifier_is_overdriven(monkeypatch: pytest.MonkeyPatch) -> None:
    driven = []
    monkeypatch.setattr(distortions, "overdriven", lambda audio, *_, **__: driven.append(1) or audio)
    for slow in ("through_codec", "in_a_room", "on_tape"):
        monkeypatch.setattr(distortions, slow, lambda audio, *_, **__: audio)
    for family, extended, least, most in (("bass", True, 8, 40), ("guitar", False, 0, 0), ("organ", True, 0, 0)):
        driven.clear()
        for seed in range(80):
            distortions.distort(tone(seconds=0.1), np.random.default_rng(seed), family, extended=extended)
        assert least <= len(driven) <= most  # a quarter of 80


@pytest.mark.parametrize("cents", [-100, 50])
def test_retuning_changes_pitch_and_length_alike(cents: float) -> None:
    changed, factor = distortions.retuned(tone(), cents), 2 ** (cents / 1200)
    assert np.median(pitches(changed)) == pytest.approx(440 * factor, rel=1e-4)
    assert len(changed) == pytest.approx(RATE / factor, abs=2)


def test_overdrive_makes_odd_and_even_partials_below_the_cutoff() -> None:
    driven = distortions.overdriven(tone(), 20, cutoff=2500)
    assert at(driven, 880) - at(driven, 440) > -45
    assert at(driven, 1320) - at(driven, 440) == pytest.approx(-20 * np.log10(3), abs=2)  # a square wave's
    assert at(driven, 6 * 440 + 440) - at(driven, 1320) < -15
    assert at(driven, 550) - at(driven, 440) < -50  # nothing between the partials
    gentle = distortions.overdriven(tone(), 0.1, cutoff=5000)
    assert at(gentle, 1320) - at(gentle, 440) < -40


def test_a_second_note_is_as_far_away_and_as_loud_as_it_should() -> None:
    chord = distortions.with_second_note(tone(), 7, gain=0.5)
    assert len(chord) == RATE
    assert at(chord, 440 * 2 ** (7 / 12)) - at(chord, 440) == pytest.approx(20 * np.log10(0.5), abs=4)  # it is shorter


def test_an_ensemble_beats() -> None:
    """Voices of nearly the same pitch: the level of a steady tone moves."""
    blocks = distortions.in_ensemble(tone(), 20, np.random.default_rng(1))[800:-1600].reshape(-1, 800)
    assert np.ptp(20 * np.log10(blocks.std(axis=1))) > 3
    assert np.median(pitches(distortions.in_ensemble(tone(), 20, np.random.default_rng(1)))) == pytest.approx(
        440, rel=0.02
    )


def test_a_reflection_is_a_comb_filter() -> None:
    result, dry = distortions.reflected(noise(), 0.001, gain=0.8), noise()
    for hz, gain in ((1000, 1.8), (1500, 0.2), (2000, 1.8)):
        difference = level(result, hz - 40, hz + 40) - level(dry, hz - 40, hz + 40)
        assert difference == pytest.approx(20 * np.log10(gain), abs=2)


def test_a_room_sounds_on_and_falls_by_60_db_in_its_decay() -> None:
    click = np.zeros(RATE)
    click[0] = 1.0
    echo = distortions.in_a_room(click, 0.5, wet=0.5, rng=np.random.default_rng(0))
    assert float((echo[1:] ** 2).sum()) == pytest.approx(0.25, rel=0.05)
    early, late = (float((echo[n : n + 800] ** 2).mean()) for n in (800, 800 + RATE // 4))
    assert 10 * np.log10(early / late) == pytest.approx(30, abs=3)  # a quarter of a second is half of the decay


def test_wow_swings_the_pitch_by_its_depth() -> None:
    steady, swinging = tone(seconds=2), distortions.wowed(tone(seconds=2), depth=0.01, hz=1.0)
    assert np.ptp(pitches(steady)) < 0.1
    found = pitches(swinging)
    assert found.max() == pytest.approx(440 * 1.01, rel=1e-3) and found.min() == pytest.approx(440 * 0.99, rel=1e-3)


def test_a_narrow_band_is_3_db_lower_at_its_ends_and_24_db_an_octave_beyond() -> None:
    dry, result = noise(), distortions.narrowed(noise(), lowest=200, highest=3000)
    for hz, fall in ((800, 0), (3000, -3), (6000, -24), (200, -3), (100, -24)):
        difference = level(result, hz * 0.97, hz * 1.03) - level(dry, hz * 0.97, hz * 1.03)
        assert difference == pytest.approx(fall, abs=1.5)


def test_a_tape_has_hiss_between_the_partials_and_no_high_frequencies() -> None:
    assert level(tone(), 1000, 1300) - at(tone(), 440) < -90
    for seed in range(5):
        taped = distortions.on_tape(tone(), np.random.default_rng(seed))
        assert -85 < level(taped, 1000, 1300) - at(taped, 440) < -10
        dull = distortions.on_tape(noise(), np.random.default_rng(seed))
        assert level(dull, 7500, 8000) - level(dull, 1000, 1500) < -3


def test_a_codec_keeps_level_and_length() -> None:
    kinds = set()
    for seed in range(12):
        coded = distortions.through_codec(tone(), np.random.default_rng(seed))
        kinds.add(int(np.random.default_rng(seed).integers(len(distortions.CODECS) + 1)))
        assert coded.std() == pytest.approx(tone().std(), rel=0.1)
        assert abs(len(coded) - RATE) < 0.15 * RATE
    assert len(kinds) == 4
