"""The picture of a note: librosa's values, and laws of rate, level, silence and length."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from musiclm.errors import AudioError
from musiclm.instruments import mel

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
        -17.6797,
        -1.9623,
        -65.5256,
        -5.9889,
        -73.0992,
        -53.4026,
        -78.6716,
        -31.6321,
        -78.7223,
        -80.0,
        -55.8263,
        -80.0,
    ],
    "sweep": [-7.4393, -21.3388, -80.0, -50.747, -80.0, -80.0, -22.9945, -80.0, -80.0, -80.0, -80.0, -66.4964],
    "noise": [
        -34.6151,
        -36.4794,
        -36.0621,
        -27.3066,
        -26.2957,
        -37.2734,
        -35.8992,
        -36.8452,
        -0.0004,
        -22.0178,
        -18.3706,
        -18.241,
    ],
    "clicks": [-0.1869, -0.1582, -0.1609, -0.3245, -0.176, -0.1964, 0.0, -0.6289, -0.6731, -0.1527, -0.2099, -2.4473],
    "short": [-17.6797, -1.9623, -80.0, -5.9889, -80.0, -53.4026, -80.0, -31.6321, -78.7223, -80.0, -55.8263, -80.0],
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
    early = torch.cat([torch.zeros(800), audio])
    late = torch.cat([torch.zeros(800 + samples // mel.BLOCK * mel.BLOCK), audio])
    assert torch.equal(mel.log_mel(late), mel.log_mel(early))


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


def test_a_picture_lies_between_its_floor_and_nought() -> None:
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
        (torch.full((16_000,), float("nan")), "no numbers"),
        (torch.full((16_000,), float("inf")), "no numbers"),
        (torch.full((16_000,), 1e30), "beyond all bounds"),
    ],
)
def test_what_is_no_sound_is_refused_in_a_word(audio: torch.Tensor, words: str) -> None:
    with pytest.raises(AudioError, match=words):
        mel.log_mel(audio)


def test_stereo_and_impossible_rates_are_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="one dimension"):
        mel.log_mel(torch.zeros(2, 16_000))
    with pytest.raises(ValueError, match="above 0 Hz"):
        mel.log_mel(torch.zeros(16_000), 0)
