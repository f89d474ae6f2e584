"""Distortions of the samples of a note, as players, rooms and recorders make them: augmentation that is done once per note.

Each function is one of these, with its parameters; `distort` applies each with some probability. Audio is mono at
SAMPLE_RATE, float, (samples,), throughout; levels are not kept, since the picture of a note does not depend on them.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np

from . import mel

LONGEST = 2.4  # seconds of a distorted note: 1.5 times a strip
CODECS = (("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"))
OVERDRIVEN = ("guitar", "bass")  # families that are played through an amplifier
OVERSAMPLING = 4  # in overdrive, against aliasing of its new partials


def distort(
    audio: np.ndarray, rng: np.random.Generator, family: str | None = None, *, extended: bool = False
) -> np.ndarray:
    """Return a distorted note of the same family, float32: out of tune, in a room, clipped or through a codec.

    Args:
        audio: see above.
        rng: the source of randomness.
        family: of the note; those of OVERDRIVEN may go through an overdriven amplifier.
        extended: whether an amplifier, a second note, an ensemble, a reflection or a tape may be there, too.
    """
    more = 1.0 if extended else 0.0
    if rng.random() < 0.6:
        audio = retuned(audio, rng.uniform(-100, 100))
    audio = _at_full_scale(audio[: int(LONGEST * mel.SAMPLE_RATE)])
    if family in OVERDRIVEN and rng.random() < 0.25 * more:
        audio = overdriven(audio, _log_uniform(rng, 2, 60), cutoff=_log_uniform(rng, 2500, 6000))
    if rng.random() < 0.1 * more:
        audio = with_second_note(audio, int(rng.integers(-12, 13)), gain=rng.uniform(0.2, 0.9))
    if rng.random() < 0.1 * more:
        audio = in_ensemble(audio, rng.uniform(5, 25), rng)
    if rng.random() < 0.25 * more:
        audio = reflected(audio, _log_uniform(rng, 0.0002, 0.004), gain=rng.uniform(-0.8, 0.8))
    if rng.random() < 0.4:
        audio = in_a_room(audio, _log_uniform(rng, 0.1, 1.0), wet=rng.uniform(0.05, 0.7), rng=rng)
    if rng.random() < 0.15:
        limit = rng.uniform(0.2, 0.8) * np.abs(audio).max()
        audio = np.clip(audio, -limit, limit) if rng.random() < 0.5 else np.tanh(audio / limit) * limit
    if rng.random() < 0.15 * more:
        audio = on_tape(audio, rng)
    if rng.random() < 0.7:
        audio = through_codec(_at_full_scale(audio) * 10 ** rng.uniform(-1.5, -0.05), rng)
    return audio.astype(np.float32)


def retuned(audio: np.ndarray, cents: float) -> np.ndarray:
    """Return audio whose pitch is so many cents higher: by speed, as a tape does."""
    import soxr

    changed: np.ndarray = soxr.resample(audio, mel.SAMPLE_RATE * 2 ** (cents / 1200), mel.SAMPLE_RATE, quality="MQ")
    return changed


def overdriven(audio: np.ndarray, drive: float, *, cutoff: float) -> np.ndarray:
    """Return audio after an overdriven amplifier and the low-pass of its loudspeaker.

    Args:
        audio: see above.
        drive: how far its peak is above the level at which the amplifier saturates.
        cutoff: of the loudspeaker, Hz: 3 dB below.
    """
    import soxr

    rate = mel.SAMPLE_RATE * OVERSAMPLING
    fine = soxr.resample(_at_full_scale(audio), mel.SAMPLE_RATE, rate, quality="MQ")
    # the bias makes even partials, too, as a valve does
    driven = soxr.resample(np.tanh(drive * fine + 0.2), rate, mel.SAMPLE_RATE, quality="MQ")
    driven = driven - driven.mean()
    return _filtered(driven, lambda hz: 1 / np.sqrt(1 + (hz / cutoff) ** 8) / (1 + (30 / np.maximum(hz, 0.01)) ** 4))


def with_second_note(audio: np.ndarray, semitones: int, *, gain: float) -> np.ndarray:
    """Return audio with a second note of the same instrument so many semitones above, by `gain` as loud."""
    other = retuned(audio, 100 * semitones)[: len(audio)]
    return audio + gain * np.pad(other, (0, len(audio) - len(other)))


def in_ensemble(audio: np.ndarray, cents: float, rng: np.random.Generator) -> np.ndarray:
    """Return two more players beside a note, out of tune by about so many cents, who begin up to 30 ms later."""
    result = audio.copy()
    for _ in range(2):
        late = int(rng.uniform(0, 0.03) * mel.SAMPLE_RATE)
        other = np.pad(retuned(audio, rng.normal(0, cents)), (late, 0))[: len(audio)]
        result[: len(other)] += rng.uniform(0.4, 1) * other
    return result


def reflected(audio: np.ndarray, delay: float, *, gain: float) -> np.ndarray:
    """Return audio with one early reflection, a comb filter: a microphone near a wall, or the position of a pick-up.

    Args:
        audio: see above.
        delay: of the reflection, seconds.
        gain: of the reflection; below 0 it is inverted.
    """
    num_samples = max(1, round(delay * mel.SAMPLE_RATE))
    result = audio.copy()
    result[num_samples:] += gain * audio[:-num_samples]
    return result


def in_a_room(audio: np.ndarray, decay: float, *, wet: float, rng: np.random.Generator) -> np.ndarray:
    """Return audio with a first echo after 1 to 20 ms and a tail of noise.

    Args:
        audio: see above.
        decay: seconds in which the tail falls by 60 dB.
        wet: the root of the tail's energy; that of the direct sound is 1.
        rng: the source of randomness.
    """
    n = int(min(decay, 0.7) * mel.SAMPLE_RATE)
    response = rng.standard_normal(n) * 10 ** (-3 * np.arange(n) / (decay * mel.SAMPLE_RATE))
    response[: int(rng.uniform(0.001, 0.02) * mel.SAMPLE_RATE)] = 0  # until the first echo
    response *= wet / max(float(np.sqrt((response**2).sum())), 1e-9)
    response[0] = 1.0
    size = 1 << (len(audio) + n - 1).bit_length()
    echoing: np.ndarray = np.fft.irfft(np.fft.rfft(audio, size) * np.fft.rfft(response, size), size)
    return echoing[: len(audio) + n // 2]


def on_tape(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return audio after an old tape: wow and flutter, saturation, a narrow band, hiss."""
    audio = wowed(audio, depth=rng.uniform(0.0005, 0.006), hz=rng.uniform(0.4, 4))
    audio = wowed(audio, depth=rng.uniform(0.0002, 0.0015), hz=rng.uniform(6, 15))
    audio = np.tanh(_at_full_scale(audio) * rng.uniform(0.2, 1.5))
    audio = narrowed(audio, lowest=_log_uniform(rng, 40, 300), highest=_log_uniform(rng, 2000, 7000))
    return audio + rng.standard_normal(len(audio)) * 10 ** rng.uniform(-3.5, -1.8) * np.abs(audio).max()


def wowed(audio: np.ndarray, *, depth: float, hz: float) -> np.ndarray:
    """Return audio whose speed swings by a share of `depth` around 1, `hz` times per second."""
    at = np.arange(len(audio)) / mel.SAMPLE_RATE
    shift = depth * np.sin(2 * np.pi * hz * at) / (2 * np.pi * hz)
    warped: np.ndarray = np.interp(at + shift, at, audio)
    return warped


def narrowed(audio: np.ndarray, *, lowest: float, highest: float) -> np.ndarray:
    """Return audio of a narrow band; both ends, in Hz, are 3 dB below, with 24 dB per octave beyond."""
    return _filtered(audio, lambda hz: 1 / np.sqrt((1 + (hz / highest) ** 8) * (1 + (lowest / np.maximum(hz, 1)) ** 8)))


def through_codec(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return audio after Vorbis, Opus or MP3 at a random quality, or in 8 bits. Its peak is at most 1."""
    import soundfile

    choice = int(rng.integers(len(CODECS) + 1))
    if choice == len(CODECS):
        return np.round(audio * 127) / 127
    container, subtype = CODECS[choice]
    quality = float(rng.uniform(0.1, 0.9))
    file = io.BytesIO()
    soundfile.write(file, audio, mel.SAMPLE_RATE, format=container, subtype=subtype, compression_level=quality)
    file.seek(0)
    decoded: np.ndarray = soundfile.read(file, dtype="float32")[0]
    return decoded


def _filtered(audio: np.ndarray, gain: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return audio after a filter without phase, given its gain at each frequency in Hz."""
    size = 1 << (len(audio) + 1024).bit_length()
    hz = np.fft.rfftfreq(size, 1 / mel.SAMPLE_RATE)
    result: np.ndarray = np.fft.irfft(np.fft.rfft(audio, size) * gain(hz), size)
    return result[: len(audio)]


def _at_full_scale(audio: np.ndarray) -> np.ndarray:
    return audio / max(float(np.abs(audio).max(initial=0)), 1e-9)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
