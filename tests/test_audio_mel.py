"""The log-mel picture of a note: librosa's values, and invariants of rate, level, silence and length."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from musiclm.audio import mel
from musiclm.errors import AudioError

torch.set_num_threads(1)

CELLS = [(0, 0), (3, 5), (5, 20), (8, 1), (11, 40), (16, 10), (24, 30), (33, 2), (40, 12), (52, 50), (63, 0), (63, 63)]


def signals() -> dict[str, np.ndarray]:
    """Return sounds that need no file: a tone with overtones, a swept one, noise, a click train, a short note."""
    t = np.arange(32_000) / 16_000
    noise = (np.arange(32_000, dtype=np.int64) * 1103515245 + 12345) % 65_521 / 65_521 - 0.5  # the same on any machine
    tone = sum(np.sin(2 * np.pi * 220 * k * t) / k for k in range(1, 12)) * np.exp(-3 * t)
    sweep = np.sin(2 * np.pi * (100 * t + 1000 * t**2))
    return {
        name: (0.3 * y).astype(np.float32)
        for name, y in {
            "tone": tone,
            "sweep": sweep,
            "noise": noise,
            "clicks": (np.arange(32_000) % 400 == 0).astype(float),
            "short": tone[:5000],
        }.items()
    }


# librosa 0.11.0: melspectrogram(y, sr=16000, n_fft=1024, hop_length=320, n_mels=64, fmin=30, fmax=8000), then
# power_to_db(ref=np.max, top_db=80), of the sound from its onset; at CELLS.
LIBROSA = {
    "tone": [
        -19.7303,
        -1.5633,
        -64.5585,
        -6.6861,
        -72.4417,
        -52.8848,
        -77.1506,
        -31.2303,
        -78.3669,
        -80.0,
        -57.8706,
        -80.0,
    ],
    "sweep": [-11.696, -12.5412, -80.0, -42.872, -80.0, -80.0, -14.2126, -80.0, -80.0, -80.0, -80.0, -54.5071],
    "noise": [
        -38.0465,
        -37.8827,
        -37.0211,
        -27.8405,
        -27.715,
        -36.5869,
        -34.9905,
        -36.6968,
        -0.0058,
        -21.9954,
        -24.0123,
        -18.2763,
    ],
    "clicks": [
        -2.4482,
        -0.7436,
        -0.6969,
        -0.6555,
        -0.7686,
        -0.7498,
        -0.4376,
        -0.3017,
        -0.3354,
        -0.6923,
        -2.4473,
        -19.165,
    ],
    "short": [-19.7303, -1.5633, -80.0, -6.6861, -80.0, -52.8848, -80.0, -31.2303, -78.3669, -80.0, -57.8706, -80.0],
}


@pytest.mark.parametrize("name", list(signals()))
def test_the_picture_is_librosas_to_a_hundredth_of_a_decibel(name: str) -> None:
    picture = mel.log_mel(torch.from_numpy(signals()[name]))
    assert picture.shape == (64, 64)
    ours = [float(picture[band, frame]) for band, frame in CELLS]
    assert ours == pytest.approx(LIBROSA[name], abs=0.01)


@given(gain=st.floats(1e-2, 1e3))
@settings(max_examples=20, deadline=None)
def test_level_does_not_matter(gain: float) -> None:
    audio = torch.from_numpy(signals()["tone"])
    assert torch.allclose(mel.log_mel(audio * gain), mel.log_mel(audio), atol=0.01)


@pytest.mark.parametrize("samples", [80, 4000, 40_000])
def test_silence_before_the_note_does_not_matter(samples: int) -> None:
    audio = torch.from_numpy(signals()["tone"])
    late = torch.cat([torch.zeros(samples // mel.BLOCK * mel.BLOCK), audio])
    assert torch.equal(mel.log_mel(late), mel.log_mel(audio))


@pytest.mark.parametrize("rate", [8000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_the_sample_rate_does_not_matter_where_it_can_carry_the_sound(rate: int) -> None:
    def tone(rate: int) -> torch.Tensor:
        t = torch.arange(rate * 2) / rate
        return sum(torch.sin(2 * torch.pi * 220 * k * t) / k for k in range(1, 12)) * torch.exp(-3 * t)

    ours, other = mel.log_mel(tone(16_000)), mel.log_mel(tone(rate), rate)
    heard = ours > -50
    assert float((ours - other).abs()[heard].mean()) < 0.5


def test_what_is_above_the_highest_band_does_not_fold_back() -> None:
    t = torch.arange(48_000) / 48_000
    low = torch.sin(2 * torch.pi * 440 * t)
    with_high = low + torch.sin(2 * torch.pi * 15_000 * t)  # would fold to 1 kHz
    picture, clean = mel.log_mel(with_high, 48_000), mel.log_mel(low, 48_000)
    band = int(picture[20:30].amax(dim=1).argmax()) + 20
    assert float(picture[band, 5:40].max()) < float(clean[band, 5:40].max()) + 1


def test_a_picture_lies_between_its_floor_and_zero() -> None:
    for y in signals().values():
        picture = mel.log_mel(torch.from_numpy(y))
        assert float(picture.max()) == 0
        assert float(picture.min()) >= mel.FLOOR_DB
        assert picture.dtype == torch.float32


@pytest.mark.parametrize(
    ("audio", "words"),
    [
        (torch.zeros(0), "too short"),
        (torch.ones(3), "too short"),
        (torch.zeros(16_000), "silent"),
        (torch.full((16_000,), float("nan")), "not finite"),
        (torch.full((16_000,), float("inf")), "not finite"),
        (torch.full((16_000,), 1e30), "out of bounds"),
    ],
)
def test_unusable_audio_is_refused_with_a_reason(audio: torch.Tensor, words: str) -> None:
    with pytest.raises(AudioError, match=words):
        mel.log_mel(audio)


def test_stereo_and_impossible_rates_are_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="one dimension"):
        mel.log_mel(torch.zeros(2, 16_000))
    with pytest.raises(ValueError, match="above 0 Hz"):
        mel.log_mel(torch.zeros(16_000), 0)
