"""Audio rendering: scores to stereo files at 44.1 kHz, by soundfonts, with packages of pip alone.

Every file is normalized to a peak of 1 dB below full scale. The peak must be measured first: music longer than `MAX_KEPT`
blocks is synthesized twice. Independent of models.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ..errors import AudioError, OutputError
from ..files import check_writable, written_whole

if TYPE_CHECKING:
    import numpy as np
    from symusic import Score

FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}
PEAK = 10 ** (-1 / 20)  # of full scale
MAX_KEPT = 10  # blocks of a minute that are kept in memory: 210 MB
MAX_WAV = 2**32 - 2**16  # bytes, the limit of WAV; longer files are RF64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rendering:
    """The result of rendering a score.

    Attributes:
        seconds: duration of the sound, until the last note has decayed.
        gain: dB that brought the peak to 1 dB below full scale.
        soundfont: the file that was used.
    """

    seconds: float
    gain: float
    soundfont: Path


def check_output(path: Path, *, force: bool = False) -> None:
    """Check, before the work is done, that `path` can be rendered to.

    Raises:
        OutputError: its suffix is none of `FORMATS`, or see `check_writable`.
    """
    if path.suffix.lower() not in FORMATS:
        raise OutputError(f"'{path}' is not a sound format that can be written: one of {', '.join(FORMATS)}")
    check_writable(path, force=force)


def find_soundfont(given: str | Path | None = None) -> Path:
    """Return the soundfont to use: the given one, else the best installed one, else the small one of pretty_midi.

    Raises:
        AudioError: there is none.
    """
    from . import soundfont

    path = Path(given) if given is not None else soundfont.on_this_system() or soundfont.bundled()
    if not path.is_file():
        raise AudioError(f"no soundfont '{path}': name an .sf2 or .sf3 file with --soundfont")
    return path


def render(score: Score, path: str | Path, *, soundfont: str | Path | None = None, force: bool = False) -> Rendering:
    """Render a score to a file, atomically; the suffix is the format: .wav (16 bit), .flac, .ogg or .mp3.

    Memory does not grow with the length of the music. Pedal, volume, expression and pan are applied as they are when a
    note begins; for the events that are not rendered see `musiclm.rendering.synthesizer`.

    Args:
        score: in ticks, with any tempi.
        path: the file to write.
        soundfont: an SF2 or SF3 file; None for `find_soundfont`.
        force: overwrite an existing file.

    Raises:
        OutputError: another suffix, or a place that cannot be written.
        AudioError: the soundfont cannot be read, or has a sound for none of the notes.
    """
    path = Path(path)
    check_output(path, force=force)
    with written_whole(path, force=force) as file:
        return render_to(score, file, path.suffix.lower(), soundfont=soundfont)


def render_to(score: Score, file: IO[bytes], kind: str, *, soundfont: str | Path | None = None) -> Rendering:
    """Render a score in a format (".wav") to an open file on disk; see `render`."""
    import numpy as np
    import soundfile

    from .soundfont import Soundfont
    from .synthesizer import RATE, Synthesizer

    chosen = find_soundfont(soundfont)
    synthesizer = Synthesizer(Soundfont(chosen))
    kept: list[np.ndarray] = []
    num_blocks = num_frames = 0
    peak = 0.0
    for block in synthesizer.blocks(score):
        num_blocks += 1
        num_frames += block.shape[1]
        peak = max(peak, float(block.max()), -float(block.min()))
        if num_blocks <= MAX_KEPT:
            kept.append(block.copy())
    if not peak:
        raise AudioError(f"the soundfont '{chosen}' plays none of these notes: name another with --soundfont")
    if num_blocks > MAX_KEPT:
        kept.clear()
    gain = np.float32(PEAK / peak)
    form, subtype = FORMATS[kind]
    form = "RF64" if form == "WAV" and num_frames * 4 > MAX_WAV else form
    try:
        with soundfile.SoundFile(file.fileno(), "w", RATE, 2, subtype, format=form, closefd=False) as sound:
            for block in kept or synthesizer.blocks(score):
                for at in range(0, block.shape[1], RATE):  # libsndfile's Vorbis encoder crashes on larger pieces
                    sound.write(np.ascontiguousarray(block[:, at : at + RATE].T) * gain)
    except (soundfile.LibsndfileError, AssertionError) as error:  # AssertionError: fewer frames were written than given
        raise OutputError(f"the sound cannot be written: {error or 'no space left'}") from error
    return Rendering(seconds=num_frames / RATE, gain=20 * math.log10(gain), soundfont=chosen)
