"""Onset detection: the loudest note of a recording, or all its notes.

Onsets are peaks of the spectral flux (Dixon 2006), the rise over 30 ms of the levels in dB of bands that are a semitone
apart (as in Böck et al. 2012): a soft note of a flute changes few bands of equal width, but many of equal interval. The
onset is then moved to the quietest 20 ms near it, where the note before has faded and a slow attack begins. The input is
mono audio at SAMPLE_RATE; it is processed in pieces, so that the memory does not grow with its length.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from . import mel

HOP = 160  # samples: 10 ms
WINDOW = 1024  # samples: 64 ms, bins of 15.6 Hz
LOWEST_HZ = 60.0
BANDS_PER_OCTAVE = 12
RISE = 3  # frames between the levels that are compared: 30 ms
LATE = 5  # frames from an onset to the end of the frame in which the flux peaks
ONE_NOTE = 4.0  # seconds; a recording up to this length is one note, as those of NSynth are
SMOOTH = 800  # samples per level from which the loudest moment is taken: 50 ms
SILENT_BLOCKS = 10  # of these that end a sound
SEARCH = 4.0  # seconds before the loudest moment within which its onset is searched
BLOCK = 80  # samples per level: 5 ms
QUIET_BLOCKS = 4  # of the quietest stretch near an onset
BEFORE, AFTER = 2, 6  # blocks before and after a peak's onset where that is searched
SHORTEST_GAP = 8  # frames from one onset to the next: 80 ms
NEIGHBOURHOOD = 20  # frames on either side of an onset for the mean flux
PROMINENCE_DB = 1.75  # how far the flux of an onset is above that, in the mean of the bands
QUIET_DB = -50.0  # relative to the loudest block; the level floor
PIECE = 60 * mel.SAMPLE_RATE  # samples per piece


@dataclasses.dataclass(frozen=True, kw_only=True)
class Span:
    """A stretch of a recording, in samples: from `start` up to `end`."""

    start: int
    end: int


def loudest_note(audio: Tensor) -> Span:
    """Return the loudest note: all of a recording up to 4 seconds, else of what sounds around its loudest moment.

    That lasts until half a second in which nothing is within `mel.ONSET_DB` of the loudest moment. Up to 4 seconds of sound
    are one note; of more, the note begins at the onset before the loudest moment.

    Args:
        audio: mono at SAMPLE_RATE, (samples,), not silent.
    """
    if len(audio) <= ONE_NOTE * mel.SAMPLE_RATE:
        return Span(start=0, end=len(audio))
    smooth = mel.levels(audio, SMOOTH)
    first, last = _around(smooth)
    if (last - first) * SMOOTH <= ONE_NOTE * mel.SAMPLE_RATE:
        return Span(start=max(0, first - 1) * SMOOTH, end=min(len(audio), (last + 1 + SILENT_BLOCKS) * SMOOTH))
    loudest = int(smooth.argmax()) * SMOOTH
    window_start = max(0, loudest - int(SEARCH * mel.SAMPLE_RATE))
    window_end = min(len(audio), loudest + int(SEARCH * mel.SAMPLE_RATE))
    starts = [window_start + s for s in _onsets(audio[window_start:window_end])]
    reach = loudest + 1600  # the loudest block may begin just before its onset
    start = max((s for s in starts if s <= reach), default=max(0, loudest - mel.SAMPLE_RATE // 2))
    end = min((s for s in starts if s > max(start, reach)), default=window_end)
    return Span(start=start, end=end)


def _around(levels: Tensor) -> tuple[int, int]:
    """Return the first and the last level of what sounds around the loudest one."""
    sounding = torch.nonzero(levels >= levels.max() * 10 ** (mel.ONSET_DB / 10))[:, 0]
    number = torch.cumsum(torch.diff(sounding, prepend=sounding[:1]) > SILENT_BLOCKS, dim=0)  # of each one's stretch
    stretch = sounding[number == number[sounding == levels.argmax()]]
    return int(stretch[0]), int(stretch[-1])


def notes(audio: Tensor) -> list[Span]:
    """Return the notes of a recording in order, each up to the next onset; a single span if there are no onsets.

    Args:
        audio: mono at SAMPLE_RATE, (samples,), not silent.
    """
    loud = float(mel.levels(audio, HOP).max())
    overlap = 2 * NEIGHBOURHOOD * HOP  # also covers a frame and the rise of the level at the beginning of a piece
    starts: list[int] = []
    for begin in range(0, len(audio), PIECE):
        first = max(0, begin - overlap)
        found = [first + s for s in _onsets(audio[first : begin + PIECE + overlap], loud)]
        starts += [s for s in found if begin <= s < begin + PIECE and (not starts or s - starts[-1] > HOP)]
    if not starts:
        return [Span(start=0, end=len(audio))]
    spans = [Span(start=a, end=b) for a, b in zip(starts, [*starts[1:], len(audio)], strict=True)]
    return [s for s in spans if s.end - s.start >= mel.SHORTEST * mel.SAMPLE_RATE]


def _onsets(audio: Tensor, loud: float | None = None) -> list[int]:
    """Return the samples of the onsets, ascending; `loud` is the power of the loudest block of the recording."""
    if len(audio) < WINDOW:
        return []
    loud = float(mel.levels(audio, HOP).max()) if loud is None else loud
    padded = F.pad(audio, (WINDOW, WINDOW))
    spectrum = torch.fft.rfft(padded.unfold(0, WINDOW, HOP) * torch.hann_window(WINDOW))
    power = spectrum.real.square() + spectrum.imag.square()
    floor = loud * 10 ** (QUIET_DB / 10) * WINDOW / 4
    db = 10 * torch.log10((power @ _bands()).clamp(min=floor))
    flux = F.pad((db[RISE:] - db[:-RISE]).clamp(min=0).mean(dim=1), (RISE, 0))
    around = F.max_pool1d(flux[None], 2 * SHORTEST_GAP + 1, 1, SHORTEST_GAP)[0]
    mean = F.avg_pool1d(flux[None], 2 * NEIGHBOURHOOD + 1, 1, NEIGHBOURHOOD, count_include_pad=False)[0]
    peaks = torch.nonzero((flux == around) & (flux > mean + PROMINENCE_DB))[:, 0].tolist()
    starts: list[int] = []
    for frame in peaks:  # frame f covers the WINDOW samples up to f * HOP
        start = max(0, (frame - LATE) * HOP)
        if not starts or start - starts[-1] >= SHORTEST_GAP * HOP:
            starts.append(start)
    quiet = F.avg_pool1d(mel.levels(audio, BLOCK)[None], QUIET_BLOCKS, 1)[0]
    return [_quietest(quiet, start) for start in starts]


def _quietest(quiet: Tensor, start: int) -> int:
    """Return the middle of the quietest stretch near the sample `start`; `quiet` has the level from each block on."""
    if start == 0:
        return 0
    first = max(0, start // BLOCK - BEFORE)
    near = quiet[first : start // BLOCK + AFTER + 1]
    return (first + int(near.argmin()) + QUIET_BLOCKS // 2) * BLOCK if len(near) else start


@functools.cache
def _bands() -> Tensor:
    """Return triangular filters of sum 1, (bins, bands); bands so low and narrow that no bin is in them are left out."""
    octaves = math.log2(mel.SAMPLE_RATE / 2 / LOWEST_HZ)
    edges = LOWEST_HZ * 2 ** (torch.arange(int(octaves * BANDS_PER_OCTAVE) + 1) / BANDS_PER_OCTAVE)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    hz = torch.arange(WINDOW // 2 + 1)[:, None] * mel.SAMPLE_RATE / WINDOW
    weights = torch.minimum((hz - low) / (centre - low), (high - hz) / (high - centre)).clamp(min=0)
    weights = weights[:, weights.sum(dim=0) > 0]
    return weights / weights.sum(dim=0)
