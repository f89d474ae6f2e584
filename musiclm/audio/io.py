"""Reads sound files of any rate, length and number of channels as mono at SAMPLE_RATE, block by block.

It reads the formats of libsndfile: wav, flac, ogg, opus, mp3, aiff, caf, w64, au and others. A DC offset is removed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from ..errors import AudioError
from . import formats, mel

LONGEST = 2 * 3600  # seconds of one file: 460 MB of samples
BLOCK = 2**16  # frames read at a time
FLAC_BLOCK = 4096  # of FLAC: a decoder that comes to where a file was cut loses all that it was asked for
MOST_CHANNELS = 32
LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000  # Hz
# If the mean of all channels has less than this share of the loudest channel's power, the loudest one is used: only one
# channel has sound, or the channels cancel each other out.
SHARE_OF_LOUDEST = 0.4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recording:
    """The content of a sound file.

    Attributes:
        audio: mono at SAMPLE_RATE, float32, (samples,).
        seconds: the duration of the file.
        sample_rate: of the file, Hz.
    """

    audio: Tensor
    seconds: float
    sample_rate: int


class _Content(io.BytesIO):
    """The content of a file whose header, if damaged, may point to before the beginning."""

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return -1  # as C's lseek returns it; libsndfile then reports its own error


def read(source: Path | bytes) -> Recording:
    """Return a sound file as mono: the mean of its channels, or the loudest one if the mean loses most of the power.

    Args:
        source: the path of a file, or its content.

    Raises:
        AudioError: there is no such file, it cannot be read, or its rate, channels or length are out of bounds.
    """
    import soundfile

    if isinstance(source, Path) and source.is_dir():
        raise AudioError("it is a folder")
    try:
        start = formats.start_of(source)
    except OSError as error:
        raise AudioError(error.strerror or str(error)) from error
    if not start:
        raise AudioError("it is empty")
    if name := formats.foreign_name(start):
        raise AudioError(f"{name} cannot be read: convert it with 'ffmpeg -i FILE note.wav'")
    try:
        with contextlib.ExitStack() as opened:
            content: IO[bytes] = opened.enter_context(
                source.open("rb") if isinstance(source, Path) else _Content(source)
            )
            sound = formats.repaired(content) or content

            def again() -> Any:
                sound.seek(0)
                by_name = isinstance(source, Path) and sound is content
                return soundfile.SoundFile(_named(source) if by_name else sound)  # type: ignore[arg-type]

            return _read(again)
    except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError, OSError) as error:
        raise AudioError(_why(error)) from error


def _named(path: Path) -> str | bytes:
    """Return the name of a file for libsndfile: bytes on systems whose names are bytes, since not all are UTF-8."""
    return str(path) if os.name == "nt" else os.fsencode(path)


def _why(error: Exception) -> str:
    """Return the reason why a file cannot be read."""
    reason = str(getattr(error, "error_string", error)).strip().rstrip(".")
    return f"not a readable sound file ({reason}): it must be wav, flac, ogg, opus, mp3, aiff, caf, w64 or au"


def _read(opened: Callable[[], Any]) -> Recording:
    """Return the recording of a file that `opened` opens, again for each pass: a decoder that failed cannot rewind."""
    with opened() as file:
        rate, channels = file.samplerate, file.channels
        if not LOWEST_RATE <= rate <= HIGHEST_RATE:
            raise AudioError(f"a sample rate of {rate} Hz is not plausible")
        if channels > MOST_CHANNELS:
            raise AudioError(f"{channels} channels are not plausible")
        audio, frames, powers = _decode(file, None)
    channel, loudest = None, int(powers[:-1].argmax())
    if powers[-1] < SHARE_OF_LOUDEST * powers[loudest] and channels > 1:
        channel = loudest
        with opened() as file:
            audio, frames, _ = _decode(file, channel)
    if offset := mel.offset(torch.from_numpy(audio)):  # before resampling, which rings at the ends of an offset
        with opened() as file:
            audio, frames, _ = _decode(file, channel, offset)
    return Recording(audio=torch.from_numpy(audio), seconds=frames / rate, sample_rate=rate)


def _read_block(file: Any, size: int, frames: int) -> np.ndarray:
    """Return the next frames, (frames, channels); none where the file ends, or was cut after `frames` of them."""
    import soundfile

    try:
        block: np.ndarray = file.read(size, dtype="float32", always_2d=True)
    except soundfile.SoundFileError:
        if frames < mel.SHORTEST * file.samplerate:
            raise
        return np.zeros((0, file.channels), np.float32)
    return block


def _decode(file: Any, channel: int | None, offset: float = 0.0) -> tuple[np.ndarray, int, np.ndarray]:
    """Return (mono audio at SAMPLE_RATE, frames read, total power of each channel and of their mean).

    Args:
        file: an open `soundfile.SoundFile`.
        channel: its number; None for the mean of all.
        offset: subtracted from each sample.
    """
    import soxr

    rate, size = file.samplerate, FLAC_BLOCK if file.format == "FLAC" else BLOCK
    resampler = None if rate == mel.SAMPLE_RATE else soxr.ResampleStream(rate, mel.SAMPLE_RATE, 1, dtype="float32")
    parts: list[np.ndarray] = []
    powers = np.zeros(file.channels + 1)
    frames = 0
    while True:
        block = _read_block(file, size, frames)
        if not (np.abs(block) < mel.LOUDEST).all():  # NaN is refused as well
            raise AudioError(mel.NO_NUMBERS)
        mean = block.mean(axis=1)
        powers += np.append(np.einsum("tc,tc->c", block, block), mean @ mean)
        mono = np.ascontiguousarray(mean if channel is None else block[:, channel])
        if offset:
            mono = mono - np.float32(offset)
        parts.append(mono if resampler is None else resampler.resample_chunk(mono, last=not len(block)))
        frames += len(block)
        if frames > LONGEST * rate:
            raise AudioError(f"longer than {LONGEST // 3600} hours: cut it")
        if not len(block):
            return np.concatenate(parts), frames, powers
