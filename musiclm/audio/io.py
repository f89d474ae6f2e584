"""Reads sound files of any rate, length and number of channels as mono at SAMPLE_RATE, block by block.

What libsndfile reads can be read: wav, flac, ogg, opus, mp3, aiff and others. Knows nothing of notes.
"""

from __future__ import annotations

import dataclasses
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import AudioError
from . import mel

LONGEST = 2 * 3600  # seconds of one file: 460 MB of samples
BLOCK = 2**16  # frames read at a time
MOST_CHANNELS = 32
LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000  # Hz
# Below this share of the loudest channel's power the mean of all channels does not do them justice: one channel only,
# or channels that cancel each other out.
SHARE_OF_LOUDEST = 0.4
# First bytes of what is often offered and cannot be read: (at, bytes, name)
FOREIGN = (
    (4, b"ftyp", "MPEG-4 (m4a, mp4)"),
    (0, b"\x1a\x45\xdf\xa3", "Matroska or WebM"),
    (0, b"\x30\x26\xb2\x75", "Windows Media"),
    (0, b"\xff\xf1", "AAC"),
    (0, b"\xff\xf9", "AAC"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recording:
    """What a file holds.

    Attributes:
        audio: mono at SAMPLE_RATE, float32, (samples,).
        seconds: how long the file is.
        sample_rate: of the file, Hz.
    """

    audio: Tensor
    seconds: float
    sample_rate: int


class _Content(io.BytesIO):
    """The content of a file, in which a damaged header may well point before the beginning."""

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return -1  # as C's lseek says it; libsndfile then gives up in its own way


def read(source: Path | bytes) -> Recording:
    """Return a sound file as mono: the mean of its channels, or the loudest one where the mean loses most of the sound.

    Args:
        source: a file, or the content of one.

    Raises:
        AudioError: there is none, it cannot be read, or it is beyond all bounds.
    """
    import soundfile

    if isinstance(source, Path):
        if source.is_dir():
            raise AudioError("it is a folder")
        try:
            with source.open("rb") as file:
                start = file.read(16)
        except OSError as error:
            raise AudioError(error.strerror or str(error)) from error
    else:
        start = source[:16]
    if not start:
        raise AudioError("it is empty")
    try:
        with soundfile.SoundFile(_named(source) if isinstance(source, Path) else _Content(source)) as file:
            return _read(file)
    except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError, OSError) as error:
        raise AudioError(_why(start, error)) from error


def _named(path: Path) -> str | bytes:
    """Return a file's name as libsndfile takes it: bytes where names are bytes, for not all of them are UTF-8."""
    return str(path) if os.name == "nt" else os.fsencode(path)


def _why(start: bytes, error: Exception) -> str:
    for at, magic, name in FOREIGN:
        if start[at : at + len(magic)] == magic:
            return f"{name} cannot be read: convert it with 'ffmpeg -i FILE note.wav'"
    reason = str(getattr(error, "error_string", error)).strip().rstrip(".")
    return f"no sound that can be read ({reason}): wav, flac, ogg, opus, mp3 and aiff can"


def _read(file: Any) -> Recording:
    if not LOWEST_RATE <= file.samplerate <= HIGHEST_RATE:
        raise AudioError(f"a sample rate of {file.samplerate} Hz is none that can be believed")
    if file.channels > MOST_CHANNELS:
        raise AudioError(f"{file.channels} channels are none that can be believed")
    audio, frames, powers = _decode(file, None)
    loudest = int(powers[:-1].argmax())
    if powers[-1] < SHARE_OF_LOUDEST * powers[loudest] and file.channels > 1:
        file.seek(0)
        audio, frames, _ = _decode(file, loudest)
    return Recording(audio=torch.from_numpy(audio), seconds=frames / file.samplerate, sample_rate=file.samplerate)


def _decode(file: Any, channel: int | None) -> tuple[np.ndarray, int, np.ndarray]:
    """Return (mono audio at SAMPLE_RATE, frames read, power summed of each channel and of their mean)."""
    import soxr

    rate = file.samplerate
    resampler = None if rate == mel.SAMPLE_RATE else soxr.ResampleStream(rate, mel.SAMPLE_RATE, 1, dtype="float32")
    parts: list[np.ndarray] = []
    powers = np.zeros(file.channels + 1)
    frames = 0
    while True:
        block = file.read(BLOCK, dtype="float32", always_2d=True)
        if not (np.abs(block) < mel.LOUDEST).all():  # not a number neither
            raise AudioError(mel.NO_NUMBERS)
        mean = block.mean(axis=1)
        powers += np.append(np.einsum("tc,tc->c", block, block), mean @ mean)
        mono = np.ascontiguousarray(mean if channel is None else block[:, channel])
        parts.append(mono if resampler is None else resampler.resample_chunk(mono, last=not len(block)))
        frames += len(block)
        if frames > LONGEST * rate:
            raise AudioError(f"longer than {LONGEST // 3600} hours: cut it")
        if not len(block):
            return np.concatenate(parts), frames, powers
