"""recipes/zynaddsubfx.py and recipes/freepats.py: families by name, patches of a configuration, and rendered notes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1] / "recipes"))

import freepats
import shared_samples
import zynaddsubfx
from soundfonts import LONGEST, RATE

PITCH, HZ = 57, 220.0
needs_zynaddsubfx = pytest.mark.skipif(not zynaddsubfx.PLUGIN.is_file(), reason="needs the package zynaddsubfx-dssi")
needs_freepats = pytest.mark.skipif(not freepats.CONFIG.is_file(), reason="needs the packages freepats and timidity")


def fundamental(audio: np.ndarray) -> float:
    """Return the frequency in Hz at which the spectrum of the first half second, multiplied with its octave, is largest."""
    power = np.abs(np.fft.rfft(audio[: RATE // 2] * np.hanning(RATE // 2), 1 << 18))
    at = np.fft.rfftfreq(1 << 18, 1 / RATE)
    count = len(power) // 4
    product = power[:count] * power[: 2 * count : 2]
    return float(at[:count][product.argmax()])


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("Dist Guitar 2", "guitar"),
        ("Cathedral Organ1", "organ"),
        ("synth_bass_fat", "bass"),
        ("Computer Lead1", "synth_lead"),
        ("AHH Choir 1", "vocal"),
        ("DX Rhodes 4", "keyboard"),
        ("Tubular Bells", "mallet"),
        ("Bassoon", None),  # no bass, and an imitated reed
        ("Saw Bass", None),  # two families
        ("Brass Pad1", None),
        ("Bell Padkeys", None),
        ("Rain", None),
    ],
)
def test_a_name_tells_the_family(name: str, family: str | None) -> None:
    assert zynaddsubfx.family_of(name) == family
    assert family is None or family in zynaddsubfx.RANGES


def test_a_process_that_crashes_gives_nothing() -> None:
    assert zynaddsubfx.in_process(abs, -3) == 3
    assert zynaddsubfx.in_process(sys.exit, 1) is None


@needs_zynaddsubfx
def test_zynaddsubfx_plays_the_pitch_and_releases_it() -> None:
    def play() -> tuple[list[zynaddsubfx.Preset], np.ndarray]:
        synth = zynaddsubfx.Synth(zynaddsubfx.PLUGIN)
        presets = synth.presets()
        synth.select(next(p for p in presets if p.name == "Organ 1"))
        return presets, synth.note(PITCH, 100, 1.0)

    presets, audio = zynaddsubfx.in_process(play)
    assert len(presets) > 200
    assert len(audio) == int(RATE * LONGEST)
    assert min(abs(fundamental(audio) / HZ - n) for n in (0.5, 1, 2, 4)) < 0.02  # in any octave
    assert np.abs(audio[-RATE // 4 :]).max() < 0.1 * np.abs(audio[: RATE // 2]).max()


def test_patches_of_a_configuration(tmp_path: Path) -> None:
    config = tmp_path / "a.cfg"
    config.write_text(
        "drumset 0\n\n 35\tDrum_000/035_Kick.pat\n\nbank 0\n\n 0\tTone_000/a.pat amp=90\n 13\tTone_000/b.pat\n"
    )
    assert freepats.patches(config) == [0, 13]


@needs_freepats
def test_freepats_plays_each_note_at_its_pitch() -> None:
    notes = freepats.played(73, [(69, 100, 0.6), (76, 60, 0.6)])
    assert [len(n) for n in notes] == [int(RATE * LONGEST)] * 2
    for audio, hz in zip(notes, (440.0, 659.3), strict=True):
        assert fundamental(audio) == pytest.approx(hz, rel=0.02)
        assert np.abs(audio[int(1.5 * RATE) :]).max() < 0.05 * np.abs(audio).max()


def test_the_same_sample_correlates_at_any_shift_and_level() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=16_000), rng.normal(size=16_000)
    assert shared_samples.correlation(a, -0.3 * np.roll(a, 500)) > 0.95
    assert shared_samples.correlation(a, b) < 0.1
