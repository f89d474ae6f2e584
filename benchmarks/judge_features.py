"""The frozen feature set of the judge apart: names by kind, and their values for a piece. See docs/concepts/judge.md.

No feature may be a statistic that sampling, guards, reranking or tuning use or may use; `NOT_SHARED` lists these.
A change of a name, a value or the list is a new judge: all figures before it lose their meaning.
tests/test_judge.py pins names and values.
"""

from __future__ import annotations

import judge_harmony as harmony
import judge_lines as lines
import judge_rhythm as rhythm
import numpy as np
from judge_music import NAN, Music, Values, music_of
from symusic import Score

BARS = {"score": 16, "chorale": 10, "piano": 16}
"""How much of a piece is judged; `performance` has no bars, one is two seconds there."""
FEWEST = 16  # pitched notes: pieces with fewer are not judged, on either side, and counted

NOT_SHARED = (
    "loss, nats/token, and repetition of runs of four onsets (reranking, the loop guard)",
    "loops, standstill, silence, empty bars, bars that come back, bar equal to the bar before, drum bars that come back",
    "harmony stuck: cosine of pitch classes of neighbouring bars; chord changes per bar; likeness four bars back",
    "pitch-class entropy, scale consistency, notes outside the (local) scale, key correlation, first and last key",
    "entropy of note lengths and of onset distances, mean note length, share of sixteenths, holds and the gaps between them",
    "polyphony, notes per bar or quarter, growth, thinness, compressed size",
    "groove consistency, shares of onsets on grid, beat, eighth and sixteenth",
    "parallel fifths, octaves and unisons, crossed voices, ranges, registers, leading tones",
    "triads, seventh chords, unknown chords, semitone clashes, tonic endings, last chord's length, cadences",
    "instruments, programs, drums only, one instrument only, tracks under four notes, tracks that fall silent",
    "repeated top notes, leaps of top line and bass, velocity spread, onsets together with kept onsets",
)

FAMILIES = (
    lines.outer_intervals,
    lines.outer_motion,
    lines.contour,
    lines.interval_trigrams,
    lines.bass_motion,
    lines.expectation,
    lines.span,
    lines.figures,
    lines.voices,
    rhythm.onset_autocorrelation,
    rhythm.metre,
    rhythm.ratios,
    rhythm.legato,
    rhythm.density_curve,
    rhythm.entries,
    rhythm.velocities,
    rhythm.form,
    rhythm.rhythm_complexity,
    harmony.pitch_class_spectrum,
    harmony.beats,
    harmony.tonnetz,
    harmony.spiral,
    harmony.roughness,
    harmony.voice_leading,
)

LINES = (
    "outer_octave",
    "outer_third",
    "outer_fifth",
    "outer_sixth",
    "outer_dissonant",
    "outer_contrary",
    "outer_oblique",
    "contour_arch",
    "contour_down",
    "top_hash_1",
    "top_hash_2",
    "top_hash_3",
    "bass_hash_1",
    "bass_hash_2",
    "bass_hash_3",
    "bass_fifth_down",
    "bass_fifth_up",
    "bass_step",
    "leap_recovery",
    "step_inertia",
    "reversion",
    "span_autocorr_1",
    "span_autocorr_2",
    "figure_share",
    "bass_figure_share",
    "lz_contour",
)
RHYTHM = (
    "onset_autocorr_2",
    "onset_autocorr_4",
    "onset_autocorr_6",
    "onset_autocorr_8",
    "onset_autocorr_16",
    "pulse_clarity",
    "ratio_1_1",
    "ratio_1_2",
    "ratio_2_1",
    "ratio_3_1",
    "burstiness",
    "density_slope",
    "form_entropy",
    "form_lag",
    "form_best",
    "form_novelty",
    "lz_rhythm",
)
HARMONY = (
    "dft_2",
    "dft_3",
    "dft_4",
    "dft_6",
    "dft_beat_3",
    "dft_beat_4",
    "common_tones",
    "pitch_classes_sd",
    "tonnetz_mean",
    "tonnetz_sd",
    "tonnetz_autocorr_4",
    "spiral_diameter_mean",
    "spiral_diameter_sd",
    "spiral_momentum_mean",
    "rough_mean",
    "rough_sd",
    "rough_autocorr",
    "voice_leading_mean",
)
METRE = ("metre_strength", "rough_offbeat")
VOICES = (
    *("sync_all", "sync_one", "spacing_upper", "spacing_lower"),
    *("inner_step", "inner_recovery", "suspension"),
)
LEGATO = ("legato_median", "legato_overlap", "legato_detached")
VELOCITY = ("velocity_autocorr_1", "velocity_autocorr_2", "velocity_autocorr_4", "velocity_pitch")

FEATURES: dict[str, tuple[str, ...]] = {
    "score": (*LINES, *RHYTHM, *HARMONY, *METRE, *LEGATO, "entry_spread", "exit_spread"),
    "chorale": (*LINES, *RHYTHM, *HARMONY, *METRE, *VOICES),
    "piano": (*LINES, *RHYTHM, *HARMONY, *LEGATO, *VELOCITY),
}
"""The features of each kind, in order."""


def is_judged(music: Music) -> bool:
    """Return whether a piece has enough pitched notes, at two onsets or more."""
    return len(music.pitch) >= FEWEST and len(music.onsets) > 2


def values_of(music: Music, kind: str) -> np.ndarray:
    """Return the features of a piece, in the order of `FEATURES`, (F,) float64; NaN where one is undefined."""
    found: Values = {}
    for family in FAMILIES:
        found |= family(music)
    values = np.array([found[name] for name in FEATURES[kind]])
    return np.where(np.isfinite(values), values, NAN)


def features(score: Score, kind: str) -> np.ndarray | None:
    """Return the features of a score's first bars; None if it has too few notes to be judged."""
    music = music_of(score, BARS[kind])
    return values_of(music, kind) if is_judged(music) else None
