"""A synthesizer in numpy: the sound of each key of each instrument is made once, and each note is a scaled copy of it.

The sound of a key (pitch, loop, filter, attack and decay) does not depend on the note's duration or velocity; velocity,
pan and release are factors. So pitch bend, vibrato, changes of volume within a note and moving filters are not rendered.
There is no reverb. Files are written by `musiclm.rendering`.
"""

from __future__ import annotations

import dataclasses
import math
from collections import OrderedDict
from collections.abc import Iterator

import numpy as np
import soxr
from symusic import Score, Track

from .. import midi
from .soundfont import Region, Soundfont

RATE = 44_100  # Hz
BLOCK = 60 * RATE  # frames
LONGEST = 120.0  # seconds that a note may sound: longer ones are drones or stuck notes; this bounds memory
MAX_CACHED = 384 * 2**20  # bytes of cached sounds
SILENT = 80.0  # dB below a single note at full velocity
SHORTEST_RELEASE = 0.02  # seconds for 100 dB; shorter ones click
CHOKE = 0.06  # the same, for a note that is ended by another one
VOLUME, PAN, EXPRESSION = 7, 10, 11  # controllers
BLOCK_FILTERED, MARGIN = 4096, 256  # frames per FFT, and of these on either side for the filter's response
DEFAULTS = {VOLUME: 100, PAN: 64, EXPRESSION: 127}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Strike:
    """One note of one region.

    Attributes:
        start, held: onset and duration until the key goes up, in frames.
        left, right: amplitude factors.
        key: the key that is played.
        region: the recording and its parameters.
        release: seconds for 100 dB after the key goes up.
    """

    start: int
    held: int
    left: float
    right: float
    key: int
    region: Region
    release: float

    @property
    def sound(self) -> tuple[int, int]:
        """The cache key: region and key."""
        return self.region.number, self.key

    @property
    def tail(self) -> int:
        """The number of frames from the release until the note is inaudible: fewer for soft notes."""
        decibels = SILENT + 20 * math.log10(max(self.left, self.right, 1e-3))
        return int(self.release * decibels / 100 * RATE) + 1


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Sound:
    """The sound of a key while it is pressed: the waveform, and the envelope at each frame."""

    wave: np.ndarray
    envelope: np.ndarray
    is_whole: bool  # whether the sound has decayed within its frames


class Synthesizer:
    """Renders scores with a soundfont, in stereo at 44.1 kHz.

    Args:
        soundfont: any.
    """

    def __init__(self, soundfont: Soundfont) -> None:
        self.soundfont = soundfont
        self._sounds: OrderedDict[tuple[int, int], Sound] = OrderedDict()
        self._num_bytes = 0
        self._release_curves: dict[float, np.ndarray] = {}

    def blocks(self, score: Score) -> Iterator[np.ndarray]:
        """Yield the sound in blocks of at most a minute, (2, frames) float32 of any level, until the last note has decayed.

        Apart from the list of notes, memory does not grow with the score's length. A block is overwritten by the next.

        Raises:
            AudioError: the soundfont is damaged.
        """
        strikes = sorted(self._strikes(score), key=lambda s: s.start)
        room = max((s.held + s.tail for s in strikes), default=0)
        longest: dict[tuple[int, int], int] = {}
        for s in strikes:
            longest[s.sound] = max(longest.get(s.sound, 0), s.held + s.tail)
        sound = np.zeros((2, BLOCK + room), np.float32)
        scratch = np.empty(room, np.float32)
        begin = end = 0
        for strike in [*strikes, None]:
            while begin < end if strike is None else strike.start >= begin + BLOCK:
                yield sound[:, : BLOCK if strike else min(BLOCK, end - begin)]
                sound[:, :room] = sound[:, BLOCK:]
                sound[:, room:] = 0
                begin += BLOCK
            if strike is not None:
                made = self._sound(strike, longest[strike.sound])
                end = max(end, begin + self._add(strike, made, sound, strike.start - begin, scratch))

    def _sound(self, strike: Strike, length: int) -> Sound:
        """Return the sound of a note's key, of at least `length` frames or until it has decayed."""
        cached = self._sounds.pop(strike.sound, None)
        if cached is None or not (cached.is_whole or len(cached.wave) >= length):
            self._num_bytes -= 0 if cached is None else 2 * cached.wave.nbytes
            cached = self._synthesized(strike.region, strike.key, length)
            self._num_bytes += 2 * cached.wave.nbytes
        self._sounds[strike.sound] = cached
        while self._num_bytes > MAX_CACHED and len(self._sounds) > 1:
            self._num_bytes -= 2 * self._sounds.popitem(last=False)[1].wave.nbytes
        return cached

    def _synthesized(self, region: Region, key: int, length: int) -> Sound:
        envelope = _envelope(region, key, length)
        frames = self.soundfont.recording(region)
        semitones = (key - region.root) * region.semitones_a_key + region.tuning
        pace = float(np.clip(2 ** (semitones / 12) * region.rate / RATE, 1 / 64, 64))
        needed = int(len(envelope) * pace) + 64
        first, behind = region.loop_start - region.start, region.loop_end - region.start
        if region.loops and needed + MARGIN > behind:
            frames = np.append(frames[:behind], np.resize(frames[first:behind], MARGIN))
        if region.cutoff is not None:
            frames = _filtered(frames[: needed + MARGIN], region.cutoff / (RATE * pace), region.resonance)
        if region.loops and needed > behind:
            frames = np.append(frames[:behind], np.resize(frames[first:behind], needed - behind))
        frames = frames[:needed]
        wave = soxr.resample(frames, RATE * pace, RATE, "QQ") if len(frames) and abs(pace - 1) > 1e-6 else frames
        wave = wave[: len(envelope)]
        envelope = envelope[: len(wave)]
        return Sound(wave=wave * envelope, envelope=envelope, is_whole=len(wave) < length)

    def _add(self, strike: Strike, sound: Sound, mixed: np.ndarray, at: int, scratch: np.ndarray) -> int:
        """Add a note to the mix, and return the frame at which it has decayed."""
        pressed = min(strike.held, len(sound.wave))
        stop = min(pressed + strike.tail, len(sound.wave))
        if strike.release not in self._release_curves:
            longest = int(strike.release * SILENT / 100 * RATE) + 1
            self._release_curves[strike.release] = _exponential_decay(longest, 100 / strike.release)
        # after the release it decays from its current level, and the envelope stays constant
        tail = sound.wave[pressed:stop] * self._release_curves[strike.release][: stop - pressed]
        tail *= sound.envelope[pressed - 1] if pressed else 0
        tail /= np.maximum(sound.envelope[pressed:stop], 1e-5)
        for channel, gain in zip(mixed, (strike.left, strike.right), strict=True):
            if gain > 1e-5:
                channel[at : at + pressed] += np.multiply(sound.wave[:pressed], np.float32(gain), out=scratch[:pressed])
                channel[at + pressed : at + stop] += np.multiply(tail, np.float32(gain), out=scratch[: stop - pressed])
        return at + stop

    def _strikes(self, score: Score) -> Iterator[Strike]:
        for track in score.to("second").tracks:
            if not track.notes:
                continue
            notes = track.notes.numpy()
            order = np.argsort(notes["time"], kind="stable")
            start, key, velocity = (notes[k][order] for k in ("time", "pitch", "velocity"))
            pressed = np.clip(_ends(track, start, start + notes["duration"][order], key) - start, 0.0, LONGEST)
            level = _controller_at(track, start, VOLUME) * _controller_at(track, start, EXPRESSION)
            pan = _controller_at(track, start, PAN)
            choked: dict[int, float] = {}  # by choke number, the onset of the next note
            for i in reversed(range(len(start))):
                for region in self.soundfont.playing(track.program, track.is_drum, int(key[i]), int(velocity[i])):
                    until = choked.get(region.chokes, np.inf) - start[i] if region.chokes else np.inf
                    if region.chokes:
                        choked[region.chokes] = start[i]
                    if until <= 0:  # same onset as a note of the same exclusive class: only one is rendered
                        continue
                    hard = region.fixed_velocity if region.fixed_velocity > 0 else velocity[i]
                    # the specification's concave curve: 40 dB for a tenth of the velocity, of volume and of expression
                    amplitude = region.gain * (hard / 127) ** 2 * float(level[i] / 127 / 127) ** 2
                    angle = np.pi / 4 * (1 + np.clip(region.pan + (pan[i] - 64) / 63, -1, 1))
                    is_choked = until < pressed[i] + region.release
                    yield Strike(
                        start=round(float(start[i]) * RATE),
                        held=max(1, round(float(min(pressed[i], until)) * RATE)),
                        left=float(amplitude * np.cos(angle)),
                        right=float(amplitude * np.sin(angle)),
                        key=region.fixed_key if region.fixed_key >= 0 else int(key[i]),
                        region=region,
                        release=CHOKE if is_choked else max(SHORTEST_RELEASE, region.release),
                    )


def _exponential_decay(length: int, decibels_a_second: float) -> np.ndarray:
    """Return an exponential decay from 1, (frames,) float32; an outer product is faster than as many powers."""
    pace = -np.log(10) / 20 * decibels_a_second / RATE
    within = np.exp(np.arange(1024) * pace).astype(np.float32)
    across = np.exp(np.arange(-(-length // 1024)) * (1024 * pace)).astype(np.float32)
    return np.outer(across, within).ravel()[:length]


def _ends(track: Track, start: np.ndarray, end: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Return when each note is released, seconds: the pedal holds it until it goes up or the key is struck again."""
    release = midi.pedal_release(track, end)
    if release is end:
        return end
    by_key = np.lexsort((start, key))
    next_onset = np.full(len(start), np.inf)
    same = key[by_key][1:] == key[by_key][:-1]
    next_onset[by_key[:-1][same]] = start[by_key[1:][same]]
    return np.maximum(end, np.minimum(release, next_onset))


def _controller_at(track: Track, start: np.ndarray, number: int) -> np.ndarray:
    """Return the value of a controller at the onset of each note, (N,)."""
    default = DEFAULTS[number]
    if not track.controls:
        return np.full(len(start), default)
    controls = track.controls.numpy()
    mine = controls["number"] == number
    order = np.argsort(controls["time"][mine], kind="stable")
    time, value = controls["time"][mine][order], controls["value"][mine][order].astype(np.int64)
    return np.append(default, value)[np.searchsorted(time, start, side="right")]


def _envelope(region: Region, key: int, length: int) -> np.ndarray:
    """Return the amplitude envelope of a pressed key, (frames,) in [0, 1], at most until it has decayed."""
    hold = region.hold * 2 ** (region.hold_a_key * (60 - key))
    decay = region.decay * 2 ** (region.decay_a_key * (60 - key))
    falling = region.delay + region.attack + hold
    if region.sustain >= SILENT:
        length = min(length, int((falling + decay * SILENT / 100) * RATE) + 1)
    envelope = np.ones(length, np.float32)
    risen, full = round((region.delay + region.attack) * RATE), round(falling * RATE)
    rise = (
        np.arange(min(risen, length), dtype=np.float32) / np.float32(RATE) - np.float32(region.delay)
    ) / region.attack
    envelope[: len(rise)] = np.maximum(rise, 0)
    rests = min(length, full + int(decay * region.sustain / 100 * RATE))
    if rests > full:
        envelope[full:rests] = _exponential_decay(rests - full, 100 / decay)
    envelope[max(rests, full) :] = 10 ** (-region.sustain / 20)
    return envelope


def _filtered(frames: np.ndarray, cutoff: float, resonance: float) -> np.ndarray:
    """Return frames filtered by a resonant second-order low-pass without delay; the cutoff is in cycles per frame."""
    w = np.fft.rfftfreq(BLOCK_FILTERED) / cutoff
    quality = 10 ** (resonance / 20) / np.sqrt(2)
    gain = (1 / np.sqrt((1 - w**2) ** 2 + (w / quality) ** 2)).astype(np.float32)
    step = BLOCK_FILTERED - 2 * MARGIN
    num = -(-len(frames) // step)
    parts = np.zeros((num, BLOCK_FILTERED), np.float32)
    parts[:, MARGIN:-MARGIN].flat[: len(frames)] = frames
    whole = np.zeros(num * step + 2 * MARGIN, np.float32)
    for i, part in enumerate(np.fft.irfft(np.fft.rfft(parts) * gain, BLOCK_FILTERED)):
        whole[i * step : i * step + BLOCK_FILTERED] += part
    return whole[MARGIN : MARGIN + len(frames)]
