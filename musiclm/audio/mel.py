"""The log-mel picture of a note, input of the classifier: 64 mel bands x 64 frames, in dB below the loudest point.

Sample rate, leading silence and level are normalized here, so that nothing downstream depends on them. The mel bands are
those of Slaney's Auditory Toolbox (1998): linear to 1 kHz, logarithmic above, triangles of area one.
Letters in names: F frequency bins, M mel bands, T frames, B batch.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import AudioError

SAMPLE_RATE = 16_000  # Hz, NSynth's
FFT_SIZE = 1024  # samples: 64 ms, bins of 15.6 Hz
HOP = 320  # samples: one frame per 20 ms
NUM_BANDS = 64
NUM_FRAMES = 64  # 1.26 seconds from the centre of the first frame to that of the last
LOWEST_HZ, HIGHEST_HZ = 30.0, 8000.0
FLOOR_DB = -80.0  # below the loudest point; quieter values are clamped to it
SHORTEST = 0.05  # seconds; shorter audio cannot be classified
SILENCE = 1e-4  # a recording with a lower peak, without its mean, is silent: -80 dB of full scale
MOST_FOR_MEDIAN = 2**20  # samples: the median of a longer recording is that of every second, third ... sample
LOUDEST = 1e9  # the largest absolute sample whose power can be summed in float32
NO_NUMBERS = "it has values that are not finite or out of bounds: export it again"
ONSET_DB = -30.0  # the onset is the first moment whose level is this near to the maximum
BLOCK = 80  # samples per measurement of the level: 5 ms
LEAD = 160  # samples kept before the onset: 10 ms
PICTURE_SAMPLES = (NUM_FRAMES - 1) * HOP


def log_mel(audio: Tensor, sample_rate: int = SAMPLE_RATE) -> Tensor:
    """Return the picture of the first note of a recording.

    Args:
        audio: mono, floating point, (samples,); any level.
        sample_rate: Hz; other rates than SAMPLE_RATE are resampled.

    Returns:
        (64 mel bands, 64 frames), float32 in dB below the loudest point: [-80, 0]. A short note is followed by silence.

    Raises:
        AudioError: the audio is shorter than SHORTEST, silent, or has values that are not finite.
    """
    audio = resample(audio, sample_rate)
    check(audio)
    return to_db(mel_power(from_onset(audio), PICTURE_SAMPLES))


def check(audio: Tensor) -> None:
    """Check that a recording at SAMPLE_RATE can be made a picture.

    Raises:
        AudioError: see `log_mel`.
    """
    if len(audio) < SHORTEST * SAMPLE_RATE:
        raise AudioError(f"too short: {len(audio) / SAMPLE_RATE:.3f} seconds, at least {SHORTEST} are needed")
    peak = max(float(audio.max()), -float(audio.min()))
    if not peak < LOUDEST:  # NaN is refused as well
        raise AudioError(NO_NUMBERS)
    mean = float(audio.mean())
    if max(float(audio.max()) - mean, mean - float(audio.min())) < SILENCE:
        raise AudioError("it is silent")


def offset(audio: Tensor) -> float:
    """Return the DC offset of audio; 0 where it has none.

    Mean and median of an offset agree. Those of short asymmetric pulses in silence do not: without this, subtracting
    their mean would make the silence sound.
    """
    if not len(audio):
        return 0.0
    mean, median = float(audio.mean(dtype=torch.float64)), float(audio[:: 1 + len(audio) // MOST_FOR_MEDIAN].median())
    return mean if abs(mean) > SILENCE and abs(mean - median) < 0.5 * abs(mean) else 0.0


def resample(audio: Tensor, sample_rate: int) -> Tensor:
    """Return mono audio resampled to SAMPLE_RATE, float32, with an anti-aliasing filter.

    Raises:
        ValueError: the audio is not mono, or the sample rate is not positive.
    """
    if audio.ndim != 1:
        raise ValueError(f"mono audio has one dimension, not {audio.ndim}")
    if sample_rate <= 0:
        raise ValueError(f"a sample rate is above 0 Hz, not {sample_rate}")
    audio = audio.float()
    if sample_rate == SAMPLE_RATE or not len(audio):
        return audio
    import soxr

    return torch.from_numpy(soxr.resample(audio.numpy(), sample_rate, SAMPLE_RATE))


def levels(audio: Tensor, block: int = BLOCK) -> Tensor:
    """Return the mean square of each `block` samples of audio; the last block is padded with zeros."""
    padded = F.pad(audio, (0, -len(audio) % block))
    return padded.view(-1, block).square().mean(dim=1)


def onset(audio: Tensor) -> int:
    """Return the sample LEAD before the first block within ONSET_DB of the loudest block; it may be below 0."""
    level = levels(audio)
    loud = level >= level.max() * 10 ** (ONSET_DB / 10)
    return int(loud.int().argmax()) * BLOCK - LEAD


def from_onset(audio: Tensor) -> Tensor:
    """Return audio from its onset, padded with silence if the recording begins with the note."""
    start = onset(audio)
    return audio[start:] if start >= 0 else F.pad(audio, (-start, 0))


def mel_power(audio: Tensor, num_samples: int) -> Tensor:
    """Return the mel power spectrogram of audio at SAMPLE_RATE, cut or zero-padded to `num_samples`.

    Args:
        audio: (..., samples).
        num_samples: gives num_samples // HOP + 1 frames, each centred on a multiple of HOP.

    Returns:
        (..., 64 mel bands, frames), float32.
    """
    audio = F.pad(audio[..., :num_samples], (FFT_SIZE // 2, FFT_SIZE // 2 + max(0, num_samples - audio.shape[-1])))
    frames_TN = audio.unfold(-1, FFT_SIZE, HOP) * _window()
    spectrum_TF = torch.fft.rfft(frames_TN)
    power_TF = spectrum_TF.real.square() + spectrum_TF.imag.square()
    return (power_TF @ _filters().T).transpose(-1, -2)


def to_db(power: Tensor) -> Tensor:
    """Return power (..., bands, frames) in dB below the loudest point of each picture, at least FLOOR_DB."""
    loudest = power.amax(dim=(-1, -2), keepdim=True).clamp(min=1e-30)
    return (10 * torch.log10((power / loudest).clamp(min=10 ** (FLOOR_DB / 10)))).clamp(FLOOR_DB, 0.0)


@functools.cache
def _window() -> Tensor:
    return torch.hann_window(FFT_SIZE, periodic=True)


@functools.cache
def _filters() -> Tensor:
    return torch.from_numpy(mel_filters())


def mel_filters() -> np.ndarray:
    """Return the weights of the frequency bins in each mel band, (64 mel bands, 513 bins), float32."""
    edges_hz = _mel_to_hz(np.linspace(_hz_to_mel(LOWEST_HZ), _hz_to_mel(HIGHEST_HZ), NUM_BANDS + 2))
    bins_hz = np.linspace(0.0, SAMPLE_RATE / 2, FFT_SIZE // 2 + 1)
    low, middle, high = edges_hz[:-2, None], edges_hz[1:-1, None], edges_hz[2:, None]
    triangles = np.minimum((bins_hz - low) / (middle - low), (high - bins_hz) / (high - middle))
    weights: np.ndarray = np.maximum(0.0, triangles) * 2.0 / (high - low)
    return weights.astype(np.float32)


# Slaney's scale: 200/3 Hz per mel up to 1 kHz (mel 15), then 27 mels per factor of 6.4.
_LINEAR_HZ, _BEND_HZ, _LOG_STEP = 200.0 / 3.0, 1000.0, math.log(6.4) / 27.0


def _hz_to_mel(hz: float) -> float:
    bend = _BEND_HZ / _LINEAR_HZ
    return hz / _LINEAR_HZ if hz < _BEND_HZ else bend + math.log(hz / _BEND_HZ) / _LOG_STEP


def _mel_to_hz(mel: np.ndarray) -> np.ndarray:
    bend = _BEND_HZ / _LINEAR_HZ
    return np.where(mel < bend, mel * _LINEAR_HZ, _BEND_HZ * np.exp(_LOG_STEP * (np.maximum(mel, bend) - bend)))
