"""Data augmentation: makes a network trained on clean notes robust to all kinds of recordings.

There are two stages. `distort.distort` works on samples (detuning, a room, a tape, a codec) and is slow: it is done once
or twice per note, and the result is stored as a strip, a picture with margins. `vary` works on a batch of strips
(shift of the spectrum, equalizer, reverberation, late starts, cuts, noise, masks) and is fast: it is done for each batch.
Letters in names: B batch, M mel bands, T frames.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from . import mel

MARGIN = 8  # frames of a strip before the onset, and after the end of the picture
STRIP_FRAMES = mel.NUM_FRAMES + 2 * MARGIN
STRIP_SAMPLES = (STRIP_FRAMES - 1) * mel.HOP
STEP_DB = 0.5  # of a strip's values: 0 … 255 stand for -127.5 … 0 dB below its loudest point


def strip(audio: Tensor) -> Tensor:
    """Return the picture of a note with MARGIN more frames on either side, uint8, (64 mel bands, 80 frames).

    Args:
        audio: mono at SAMPLE_RATE, (samples,); neither silent nor shorter than SHORTEST.
    """
    start = mel.onset(audio) - MARGIN * mel.HOP
    audio = audio[start:] if start >= 0 else F.pad(audio, (-start, 0))
    power = mel.mel_power(audio, STRIP_SAMPLES)
    db = 10 * torch.log10((power / power.max()).clamp(min=1e-12))
    return (255 + db / STEP_DB).round().clamp(0, 255).to(torch.uint8)


def pictures(strips: Tensor) -> Tensor:
    """Return the pictures of unaugmented strips: (B, 64 mel bands, 64 frames) in dB below the loudest point."""
    return mel.to_db(_power(strips)[..., MARGIN : MARGIN + mel.NUM_FRAMES])


def _power(strips: Tensor) -> Tensor:
    power = torch.pow(10.0, (strips.float() - 255) * (STEP_DB / 10))
    return torch.where(strips > 0, power, 0.0)


def vary(strips: Tensor, generator: torch.Generator) -> Tensor:
    """Return augmented pictures of notes, each with its own random parameters: (B, 64 mel bands, 64 frames), [-80, 0] dB.

    Args:
        strips: (B, 64 mel bands, 80 frames), uint8.
        generator: the source of randomness.
    """
    g = generator
    power = _shift(_power(strips), g)
    power = power * torch.pow(10.0, _equaliser(len(strips), g) / 10)[:, :, None]
    power = _reverberate(power, g)
    power = _start(power, g)
    frames_T = torch.arange(mel.NUM_FRAMES)
    ends_B = torch.where(_chance(len(power), 0.35, g), _log_uniform(len(power), 15, 64, g), 64.0)
    lasts_BT = (frames_T < ends_B[:, None]).float()
    noise = _noise(power, g)
    noise_stops_B = _chance(len(power), 0.5, g).float()  # either the file ends with the note, or the noise continues
    noise = noise * torch.lerp(torch.ones_like(lasts_BT), lasts_BT, noise_stops_B[:, None])[:, None]
    db = mel.to_db(power * lasts_BT[:, None] + noise)
    floor_B = torch.where(_chance(len(db), 0.25, g), _uniform(len(db), -80, -40, g), mel.FLOOR_DB)
    db = torch.where(db < floor_B[:, None, None], mel.FLOOR_DB, db)  # a gate, or few bits
    return _mask(db, g)


def _shift(power: Tensor, g: torch.Generator) -> Tensor:
    """Return the spectra of half the batch one or two bands higher or lower: another pitch, of a larger or smaller body."""
    n = len(power)
    by = torch.randint(1, 3, (n,), generator=g) * torch.where(_chance(n, 0.5, g), 1, -1)
    by = torch.where(_chance(n, 0.5, g), by, 0)
    source = torch.arange(mel.NUM_BANDS) - by[:, None]
    is_inside = (source >= 0) & (source < mel.NUM_BANDS)
    shifted = power.gather(1, source.clamp(0, mel.NUM_BANDS - 1)[:, :, None].expand_as(power))
    return shifted * is_inside[:, :, None]


def _equaliser(n: int, g: torch.Generator) -> Tensor:
    """Return gains in dB, (n, 64): a slope, three peaks or dips, sometimes a high or low cut."""
    bands = torch.linspace(-1, 1, mel.NUM_BANDS)
    gains = torch.randn(n, 1, generator=g) * 4 * bands
    for _ in range(3):
        centre, width = _uniform(n, -1, 1, g)[:, None], _uniform(n, 0.08, 0.5, g)[:, None]
        gains += torch.randn(n, 1, generator=g) * 5 * torch.exp(-(((bands - centre) / width) ** 2))
    high_cut, low_cut = _uniform(n, 0.0, 1.0, g)[:, None], _uniform(n, -1.0, -0.75, g)[:, None]
    slope = _uniform(n, 30, 200, g)[:, None]
    gains -= torch.where(_chance(n, 0.25, g)[:, None], slope * (bands - high_cut).clamp(min=0), 0.0)
    return gains - torch.where(_chance(n, 0.2, g)[:, None], slope * (low_cut - bands).clamp(min=0), 0.0)


def _reverberate(power: Tensor, g: torch.Generator) -> Tensor:
    """Return power smeared in time for a third of the batch, like reverberation and long releases."""
    n, lags = len(power), torch.arange(1, 33)
    decay = _log_uniform(n, 1.5, 25, g)  # frames until it has fallen by 10 dB
    wet = torch.where(_chance(n, 0.3, g), torch.pow(10.0, _uniform(n, -3.5, -0.5, g)), 0.0)
    kernel = torch.cat([torch.ones(n, 1), wet[:, None] * torch.pow(10.0, -lags / decay[:, None])], dim=1)
    smeared = F.conv1d(F.pad(power.transpose(0, 1), (32, 0)), kernel.flip(1)[:, None], groups=n)
    return smeared.transpose(0, 1)


def _start(power: Tensor, g: torch.Generator) -> Tensor:
    """Return 64 frames of each strip: from about the onset or, for a sixth of them, from after the attack."""
    n = len(power)
    near = (torch.randn(n, generator=g) * 1.5).round() + MARGIN
    late = _uniform(n, MARGIN, 2 * MARGIN, g).round()
    start_B = torch.where(_chance(n, 1 / 6, g), late, near).clamp(0, 2 * MARGIN).long()
    index = (start_B[:, None] + torch.arange(mel.NUM_FRAMES))[:, None].expand(-1, mel.NUM_BANDS, -1)
    return power.gather(2, index)


def _noise(power: Tensor, g: torch.Generator) -> Tensor:
    """Return noise for half the batch, 10 to 60 dB below the mean of the note, with a random spectral slope."""
    n = len(power)
    colour = torch.linspace(-1, 1, mel.NUM_BANDS) * (torch.randn(n, 1, generator=g) * 8)
    level = torch.where(_chance(n, 0.5, g), torch.pow(10.0, _uniform(n, -6, -1, g)), 0.0)
    grain = torch.rand(power.shape, generator=g).clamp(min=1e-6).log().neg()
    grain = 0.5 * (grain + torch.rand(power.shape, generator=g).clamp(min=1e-6).log().neg())
    return (level * power.mean(dim=(1, 2)))[:, None, None] * torch.pow(10.0, colour / 10)[:, :, None] * grain


def _mask(db: Tensor, g: torch.Generator) -> Tensor:
    """Return pictures with some bands and some frames masked (SpecAugment, Park et al. 2019)."""
    n = len(db)
    for axis, widest, size in ((1, 10, mel.NUM_BANDS), (2, 12, mel.NUM_FRAMES)):
        start = _uniform(n, 0, size, g)
        end = start + torch.where(_chance(n, 0.4, g), _uniform(n, 0, widest, g), 0.0)
        at = torch.arange(size)
        hidden = (at >= start[:, None]) & (at < end[:, None])
        db = db.masked_fill(hidden[:, :, None] if axis == 1 else hidden[:, None, :], mel.FLOOR_DB)
    return db


def _uniform(n: int, low: float, high: float, g: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(n, generator=g)


def _log_uniform(n: int, low: float, high: float, g: torch.Generator) -> Tensor:
    return low * (high / low) ** torch.rand(n, generator=g)


def _chance(n: int, probability: float, g: torch.Generator) -> Tensor:
    return torch.rand(n, generator=g) < probability
