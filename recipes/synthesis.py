"""Synthesize single notes with known families: a folder of 16 kHz WAV files and its notes.csv, as soundfonts.py writes.

    python recipes/synthesis.py -o synthesis/ --instruments 20 --notes 20

Synth leads and basses are subtractive (band-limited oscillators, a resonant low-pass with an envelope) or by frequency
modulation (Chowning 1973). Guitars and basses are plucked strings (Karplus and Strong 1983) with the extensions of Jaffe
and Smith (1983) for tuning, decay, dynamics and the position of the pluck: nylon and steel guitars with the resonances of a
body; electric guitars with the comb filter of a pick-up, clean or overdriven; basses with fingers, a pick or slapped.

An instrument is a sample of its engine's parameters; its notes have other pitches, velocities and lengths. All is
determined by --seed. Letters: N samples, K partials.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soxr
from soundfonts import FILE_RATE, LONGEST, VELOCITIES, save_note, without_end, write_table

from musiclm.audio.distort import overdriven

SOURCE = "synthesis"
SYNTH_RATE = 32_000  # Hz, of the oscillators
FRAME, HOP = 1024, 256  # samples of the time-varying filter: 32 and 8 ms


class Note(NamedTuple):
    """What is played: the frequency in Hz, the velocity as a share of the largest, and how many seconds it is held."""

    hz: float
    velocity: float
    held: float


Random = np.random.Generator
Engine = Callable[[Random, Random, Note], np.ndarray]


def log_uniform(rng: Random, low: float, high: float) -> float:
    """Return a number whose logarithm is distributed uniformly."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def envelope(held: float, *, attack: float, decay: float, sustain: float, release: float) -> np.ndarray:
    """Return an envelope of LONGEST seconds: a linear attack, then exponential towards `sustain`, and from `held` on to 0.

    `decay` and `release` are the seconds in which it comes 60 dB nearer.
    """
    at = np.arange(int(LONGEST * SYNTH_RATE)) / SYNTH_RATE
    level = sustain + (1 - sustain) * 10 ** (-3 * np.maximum(0, at - attack) / decay)
    level = np.minimum(level, at / attack)
    return level * 10 ** (-3 * np.maximum(0, at - held) / release)


def saw(phase: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Return a band-limited sawtooth of a phase in periods and its step per sample (PolyBLEP, Välimäki 2005)."""
    p = phase % 1
    rising, falling = p / step, (p - 1) / step
    jump = np.where(p < step, 2 * rising - rising**2 - 1, 0) + np.where(p > 1 - step, falling**2 + 2 * falling + 1, 0)
    return 2 * p - 1 - jump


def oscillators(patch: Random, hz: np.ndarray) -> np.ndarray:
    """Return one to three detuned oscillators, saws or pulses, with a sub-oscillator for some; `hz` is (N,)."""
    is_pulse, width, swing = patch.random() < 0.5, patch.uniform(0.1, 0.5), patch.uniform(0, 0.3)
    num_voices, cents, sub = int(patch.integers(1, 4)), log_uniform(patch, 2, 25), patch.uniform(0, 0.8)
    swing_hz, has_sub = log_uniform(patch, 0.2, 4), patch.random() < 0.3
    at, result = np.arange(len(hz)) / SYNTH_RATE, np.zeros(len(hz))
    for voice in range(num_voices):
        step = hz / SYNTH_RATE * 2 ** (cents * (voice - (num_voices - 1) / 2) / 1200)
        phase = np.cumsum(step) + patch.random()
        result += saw(phase, step)
        if is_pulse:
            result -= saw(phase + width * (1 + swing * np.sin(2 * np.pi * swing_hz * at)), step)
    if has_sub:
        result += sub * np.sin(np.pi * np.cumsum(hz / SYNTH_RATE))
    return result


def swept(audio: np.ndarray, cutoff: np.ndarray, resonance: float) -> np.ndarray:
    """Return audio after a resonant low-pass of 24 dB per octave.

    Args:
        audio: (N,).
        cutoff: Hz, (N,).
        resonance: gain at the cutoff of each of two sections.
    """
    window = np.sqrt(np.hanning(FRAME + 1)[:-1])
    padded = np.pad(audio, (FRAME, FRAME + HOP))
    frames = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::HOP] * window
    centres = np.clip(np.arange(len(frames)) * HOP - FRAME // 2, 0, len(audio) - 1)
    ratio = np.fft.rfftfreq(FRAME, 1 / SYNTH_RATE) / cutoff[centres][:, None]
    gain = 1 / ((1 - ratio**2) ** 2 + (ratio / resonance) ** 2)  # the squared gain of a section is that of two
    frames = np.fft.irfft(np.fft.rfft(frames) * gain, FRAME) * window
    result = np.zeros(len(padded) + FRAME)
    for first in range(FRAME // HOP):  # frames that do not overlap are added at once
        part = frames[first :: FRAME // HOP].reshape(-1)
        result[first * HOP : first * HOP + len(part)] += part
    return result[FRAME : FRAME + len(audio)] * (2 * HOP / FRAME)


def subtractive(patch: Random, rng: Random, note: Note, *, is_bass: bool) -> np.ndarray:
    """Return a note of a subtractive synthesizer."""
    num_samples = int(LONGEST * SYNTH_RATE)
    at = np.arange(num_samples) / SYNTH_RATE
    glide, vibrato, vibrato_hz = patch.random() < 0.2, patch.uniform(0, 0.008), patch.uniform(4, 7)
    has_vibrato = patch.random() < (0.0 if is_bass else 0.4)
    hz = np.full(num_samples, note.hz)
    if has_vibrato:
        hz *= 1 + vibrato * np.minimum(1, at / 0.4) * np.sin(2 * np.pi * vibrato_hz * at)
    if glide:
        hz = hz * 2 ** (patch.choice([-12, -7, 7, 12]) / 12 * np.exp(-at / log_uniform(patch, 0.01, 0.08)))
    audio = oscillators(patch, hz)
    is_plucked = patch.random() < (0.6 if is_bass else 0.25)
    attack = log_uniform(patch, 0.002, 0.008 if is_bass else 0.06)
    decay, release = log_uniform(patch, 0.3, 3.0), log_uniform(patch, 0.05, 0.6)
    loud = envelope(note.held, attack=attack, decay=decay, sustain=0.0 if is_plucked else 0.7, release=release)
    base, depth = log_uniform(patch, 1.0, 6 if is_bass else 20), patch.uniform(0, 4) * (0.4 + 0.6 * note.velocity)
    sweep = envelope(note.held, attack=attack, decay=log_uniform(patch, 0.1, 2), sustain=0.1, release=release)
    cutoff = np.minimum(note.hz * base * 2 ** (depth * sweep), 0.45 * SYNTH_RATE)
    return soxr.resample(swept(audio, cutoff, log_uniform(patch, 0.7, 5)) * loud, SYNTH_RATE, FILE_RATE)


def frequency_modulated(patch: Random, rng: Random, note: Note, *, is_bass: bool) -> np.ndarray:
    """Return a note of one carrier and two modulators in a row; the index of modulation falls with the note."""
    at = np.arange(int(LONGEST * SYNTH_RATE)) / SYNTH_RATE
    ratios = patch.choice([0.5, 1.0, 1.0, 2.0, 3.0, 1.005] if is_bass else [1.0, 1.0, 2.0, 3.0, 4.0, 0.998], size=2)
    depths = [log_uniform(patch, 0.5 if is_bass else 1.0, 5), log_uniform(patch, 0.05, 2)]
    attack, release = log_uniform(patch, 0.002, 0.01 if is_bass else 0.05), log_uniform(patch, 0.05, 0.5)
    sustain = 0.0 if patch.random() < (0.6 if is_bass else 0.2) else 0.6
    loud = envelope(note.held, attack=attack, decay=log_uniform(patch, 0.4, 4), sustain=sustain, release=release)
    bright = envelope(note.held, attack=0.002, decay=log_uniform(patch, 0.2, 3), sustain=0.3, release=release)
    bright *= (0.3 + 0.7 * note.velocity) * min(1.0, 500 / note.hz)  # less for high notes, against aliasing
    phase = 2 * np.pi * note.hz * at
    second = depths[1] * bright * np.sin(ratios[1] * phase + patch.random())
    first = depths[0] * bright * np.sin(ratios[0] * phase + second)
    return soxr.resample(np.sin(phase + first) * loud, SYNTH_RATE, FILE_RATE)


def string(excitation: np.ndarray, hz: float, *, seconds: float, damping: float, num_samples: int) -> np.ndarray:
    """Return a plucked string: a delay line whose content is fed back through a low-pass.

    A string is computed a period at a time. Tuning is by cubic interpolation between samples.

    Args:
        excitation: what the pluck adds, (any,).
        hz: the frequency.
        seconds: in which the fundamental falls by 60 dB.
        damping: of high frequencies, 0 … 0.5: the share of the sample before in the low-pass.
        num_samples: N.
    """
    delay = FILE_RATE / hz - damping
    whole = int(delay) - 1  # the interpolation lies between its second and its third tap
    d = delay - whole
    taps = np.array(
        [
            -(d - 1) * (d - 2) * (d - 3) / 6,
            d * (d - 2) * (d - 3) / 2,
            -d * (d - 1) * (d - 3) / 2,
            d * (d - 1) * (d - 2) / 6,
        ]
    )
    taps = np.convolve(taps, [1 - damping, damping])
    gain = abs(np.exp(-2j * np.pi * hz / FILE_RATE * np.arange(len(taps))) @ taps)
    taps *= min(10 ** (-3 / (hz * seconds)) / gain, 1.0)
    before = whole + len(taps) - 1  # samples that a new one depends on
    sound = np.zeros(before + num_samples)
    sound[before : before + len(excitation)] = excitation[:num_samples]
    for start in range(before, len(sound), whole):
        stop = min(start + whole, len(sound))
        for i, tap in enumerate(taps):
            sound[start:stop] += tap * sound[start - whole - i : stop - whole - i]
    return sound[before:]


def pluck(rng: Random, note: Note, *, brightness: float, position: float, noise: float) -> np.ndarray:
    """Return an excitation: the step of a released string, at a share of its length, softened, and noise of the pluck.

    Args:
        rng: the source of randomness.
        note: what is played.
        brightness: cutoff of its low-pass, Hz.
        position: of the pluck, as a share of the string's length; partials with a node there do not sound.
        noise: level.
    """
    period = FILE_RATE / note.hz
    size = int(2 * period) + 64
    pulse = np.zeros(size)
    pulse[0] = 1.0
    pulse += noise * rng.standard_normal(size) * (np.arange(size) < period) / np.sqrt(period)
    second = round(position * period)
    pulse = pulse - np.pad(pulse, (second, 0))[:size]
    pulse = lowpassed(pulse, brightness)
    return pulse - pulse.mean()  # a string has no loss at 0 Hz


def lowpassed(audio: np.ndarray, cutoff: float) -> np.ndarray:
    """Return audio after a low-pass of 12 dB per octave without phase."""
    size = 1 << (len(audio) + 256).bit_length()
    hz = np.fft.rfftfreq(size, 1 / FILE_RATE)
    return np.fft.irfft(np.fft.rfft(audio, size) / (1 + (hz / cutoff) ** 2), size)[: len(audio)]


def in_body(patch: Random, audio: np.ndarray) -> np.ndarray:
    """Return audio with the resonances of a body: the air at about 100 Hz, the plate at about 200 Hz, and some above."""
    centres = [patch.uniform(85, 125), patch.uniform(170, 260), *np.exp(patch.uniform(np.log(300), np.log(4000), 6))]
    gains = [patch.uniform(1, 3), patch.uniform(1, 3), *patch.uniform(-0.6, 1.5, 6)]
    size = 1 << (len(audio) + 2048).bit_length()
    hz = np.fft.rfftfreq(size, 1 / FILE_RATE)
    response = 1 + sum(g / (1 + ((hz - c) / (0.06 * c)) ** 2) for c, g in zip(centres, gains, strict=True))
    return np.fft.irfft(np.fft.rfft(audio, size) * response, size)[: len(audio)]


def at_pick_up(patch: Random, audio: np.ndarray, hz: float) -> np.ndarray:
    """Return the signal of a string at a pick-up: a comb filter by its position, and the resonance of its coil."""
    second = max(1, round(patch.uniform(0.08, 0.3) * FILE_RATE / hz))
    audio = audio - np.pad(audio, (second, 0))[: len(audio)]
    coil, peak = log_uniform(patch, 2000, 6000), log_uniform(patch, 0.7, 2.5)
    size = 1 << (len(audio) + 512).bit_length()
    ratio = np.fft.rfftfreq(size, 1 / FILE_RATE) / coil
    response = 1 / np.sqrt((1 - ratio**2) ** 2 + (ratio / peak) ** 2)
    return np.fft.irfft(np.fft.rfft(audio, size) * response, size)[: len(audio)]


def released(audio: np.ndarray, held: float, seconds: float) -> np.ndarray:
    """Return audio that is damped from `held` on: it falls by 60 dB in so many seconds."""
    at = np.arange(len(audio)) / FILE_RATE
    return audio * 10 ** (-3 * np.maximum(0, at - held) / seconds)


def plucked(
    patch: Random, rng: Random, note: Note, *, brightness: tuple[float, float], decay: tuple[float, float], noise: float
) -> np.ndarray:
    """Return a plucked string, as it moves.

    Args:
        patch: samples the instrument.
        rng: samples the note.
        note: what is played.
        brightness: of the softest and the hardest pluck, Hz.
        decay: of an instrument, from and to, at 110 Hz, seconds; higher notes fade sooner.
        noise: of the pluck.
    """
    low, high = (b * log_uniform(patch, 0.7, 1.4) for b in brightness)
    seconds = log_uniform(patch, *decay) * (110 / note.hz) ** patch.uniform(0.3, 0.7)
    damping, place = patch.uniform(0.02, 0.4), patch.uniform(0.08, 0.35)
    release = log_uniform(patch, 0.08, 0.8)
    position = np.clip(place * rng.uniform(0.8, 1.2), 0.05, 0.5)
    excitation = pluck(
        rng, note, brightness=low * (high / low) ** note.velocity, position=position, noise=noise * rng.uniform(0, 2)
    )
    sound = string(excitation, note.hz, seconds=seconds, damping=damping, num_samples=int(LONGEST * FILE_RATE))
    return released(sound, note.held, release)


def acoustic_guitar(patch: Random, rng: Random, note: Note) -> np.ndarray:
    """Return a note of a nylon or steel guitar, by fingers or a pick."""
    is_steel = patch.random() < 0.5
    brightness = (1200, 6000) if is_steel else (700, 2500)
    sound = plucked(patch, rng, note, brightness=brightness, decay=(2.0, 6.0), noise=0.5 if is_steel else 0.3)
    return in_body(patch, sound)


def electric_guitar(patch: Random, rng: Random, note: Note) -> np.ndarray:
    """Return a note of an electric guitar, clean, overdriven or muted by the palm."""
    is_muted = patch.random() < 0.2
    decay = (0.15, 0.5) if is_muted else (3.0, 9.0)
    sound = plucked(patch, rng, note, brightness=(1500, 6000), decay=decay, noise=0.2)
    sound = at_pick_up(patch, sound, note.hz)
    drive, cutoff = log_uniform(patch, 3, 100), log_uniform(patch, 2500, 5500)
    return overdriven(sound, drive, cutoff=cutoff) if patch.random() < 0.5 else lowpassed(sound, 1.5 * cutoff)


def electric_bass(patch: Random, rng: Random, note: Note) -> np.ndarray:
    """Return a note of an electric bass, by fingers, by a pick or slapped."""
    kind = ("finger", "pick", "slap")[int(patch.integers(3))]
    brightness = {"finger": (150, 900), "pick": (500, 3000), "slap": (2000, 6000)}[kind]
    noise = {"finger": 0.1, "pick": 0.3, "slap": 1.5}[kind]
    sound = plucked(patch, rng, note, brightness=brightness, decay=(2.0, 8.0), noise=noise)
    if kind == "slap":  # the string hits the frets while it swings far
        sound = np.tanh(sound / np.abs(sound).max() * patch.uniform(1.5, 4))
    sound = at_pick_up(patch, sound, note.hz)
    tone = log_uniform(patch, 500, 4000)
    return overdriven(sound, log_uniform(patch, 2, 30), cutoff=tone) if patch.random() < 0.2 else lowpassed(sound, tone)


def acoustic_bass(patch: Random, rng: Random, note: Note) -> np.ndarray:
    """Return a plucked double bass: dull and short, in a body."""
    sound = plucked(patch, rng, note, brightness=(200, 900), decay=(0.7, 2.5), noise=0.2)
    return in_body(patch, sound)


# name: (family, lowest and highest MIDI pitch, engine)
ENGINES: dict[str, tuple[str, int, int, Engine]] = {
    "subtractive-lead": ("synth_lead", 36, 96, lambda *a: subtractive(*a, is_bass=False)),
    "fm-lead": ("synth_lead", 36, 96, lambda *a: frequency_modulated(*a, is_bass=False)),
    "subtractive-bass": ("bass", 23, 60, lambda *a: subtractive(*a, is_bass=True)),
    "fm-bass": ("bass", 23, 60, lambda *a: frequency_modulated(*a, is_bass=True)),
    "electric-bass": ("bass", 23, 62, electric_bass),
    "acoustic-bass": ("bass", 28, 60, acoustic_bass),
    "acoustic-guitar": ("guitar", 38, 86, acoustic_guitar),
    "electric-guitar": ("guitar", 38, 88, electric_guitar),
}


def synthesize(engine: str, instrument: int, number: int, *, seed: int, pitch: int) -> np.ndarray:
    """Return note `number` of an instrument, mono at 16 kHz, cut where it has died away."""
    key = [seed, *engine.encode(), instrument]
    rng = np.random.default_rng([*key, number])
    held = float(np.exp(rng.uniform(np.log(0.15), np.log(2.0))))
    note = Note(440 * 2 ** ((pitch - 69) / 12), float(rng.choice(VELOCITIES)) / max(VELOCITIES), held)
    return without_end(ENGINES[engine][3](np.random.default_rng(key), rng, note))


def synthesize_all(output: Path, *, instruments: int, notes: int, seed: int) -> int:
    """Write `notes` notes of `instruments` instruments of each engine, and their table; return how many there are."""
    rows = []
    for engine, (family, lowest, highest, _) in ENGINES.items():
        (output / engine).mkdir(parents=True, exist_ok=True)
        for instrument in range(instruments):
            pitches = np.random.default_rng([seed, *engine.encode(), instrument, 2**31])
            edges = np.linspace(lowest, highest + 1, notes + 1)
            for i in range(notes):
                pitch = min(int(pitches.uniform(edges[i], edges[i + 1])), highest)
                file = f"{engine}/{instrument:03d}-{i:03d}.wav"
                if save_note(output / file, synthesize(engine, instrument, i, seed=seed, pitch=pitch)):
                    rows.append([file, family, SOURCE, f"{engine}-{instrument:03d}", pitch, 0, engine])
    write_table(output, rows)
    return len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--instruments", type=int, default=20, help="of each engine")
    parser.add_argument("--notes", type=int, default=20, help="of each instrument")
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    began = time.perf_counter()
    count = synthesize_all(a.output, instruments=a.instruments, notes=a.notes, seed=a.seed)
    print(f"{a.output}: {count} notes, {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
