"""Small audio for pages: a score as mono Ogg Vorbis in memory, about 40 kbit/s, for a few minutes of music."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import soundfile
import soxr
from symusic import Score

from . import PEAK, find_soundfont
from .soundfont import Soundfont
from .synthesizer import RATE, Synthesizer

SMALL_RATE = 32_000  # Hz
COMPRESSION = 0.9  # 0 … 1 for libsndfile


def to_ogg(score: Score, soundfont: str | Path | None = None) -> bytes | None:
    """Return a score as the bytes of an Ogg Vorbis file, normalized; None if the soundfont has a sound for none of its notes.

    The sound begins at the score's time 0 and ends when the last note has decayed.

    Args:
        score: any; all of its sound is kept in memory, 15 MB a minute.
        soundfont: an SF2 or SF3 file; None for `find_soundfont`.

    Raises:
        AudioError: the soundfont cannot be read.
    """
    blocks = [block.mean(0) for block in Synthesizer(Soundfont(find_soundfont(soundfont))).blocks(score)]
    mono = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    if not mono.any():
        return None
    mono = soxr.resample(mono, RATE, SMALL_RATE)
    mono *= np.float32(PEAK / np.abs(mono).max())
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", SMALL_RATE, 1, "VORBIS", format="OGG", compression_level=COMPRESSION) as sound:
        for at in range(0, len(mono), SMALL_RATE):  # libsndfile's Vorbis encoder crashes on larger pieces
            sound.write(mono[at : at + SMALL_RATE])
    return file.getvalue()
