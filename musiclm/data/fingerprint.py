"""Fingerprints that are invariant to transposition and tempo: they find copies and shared tunes.

Two pieces are copies if they have the same number of notes of each pitch relative to the lowest one (of drums: of each
sound; unisons count once), and each onset is at the same fraction of the piece, up to the rounding of ticks. Programs,
velocities, durations and tracks do not count.
"""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
from symusic import Score

SCALE = 65535  # the last onset of a piece
DRUMS = 128  # added to the pitch of a drum
TUNE_NOTES = 8  # in a segment of a tune
TUNE_PRINTS = 64  # segments kept of a piece: all of a chorale's
MIX = np.uint64(0x9E3779B97F4A7C15)  # the golden ratio in 64 bits: multiplying spreads neighbours (Knuth, TAOCP 6.4)


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """A piece up to transposition and constant scaling of time.

    Attributes:
        key: 16 bytes, a hash of the intervals: copies share it whatever their ticks. The split follows from it, so that
            copies are in one split.
        onsets: (N,) uint16, by pitch and then time: the fraction of the way from first to last onset, in 1/65535.
        tolerance: of onsets, in the same unit: two ticks.
    """

    key: bytes
    onsets: np.ndarray
    tolerance: float


def fingerprint(score: Score) -> Fingerprint:
    """Return the fingerprint of a score with at least one note."""
    times, pitches = [], []
    for track in score.tracks:
        notes = track.notes.numpy()
        times.append(notes["time"].astype(np.int64))
        pitches.append(notes["pitch"].astype(np.int64) + DRUMS * track.is_drum)
    time, pitch = np.concatenate(times), np.concatenate(pitches)
    time -= time.min()
    span = int(time.max())
    both = np.unique(pitch * (span + 1) + time)  # by pitch, then time; a unison of two tracks counts once
    pitch, time = both // (span + 1), both % (span + 1)
    pitched = pitch < DRUMS
    low = int(pitch[pitched].min()) if pitched.any() else 0
    counts = np.bincount(np.where(pitched, pitch - low, pitch), minlength=2 * DRUMS).astype("<u4")
    onsets = np.round(time * (SCALE / max(1, span))).astype("<u2")
    return Fingerprint(hashlib.blake2b(counts.tobytes(), digest_size=16).digest(), onsets, 2 * SCALE / max(1, span))


def are_copies(one: Fingerprint, other: Fingerprint) -> bool:
    """Return whether two pieces have the same notes up to transposition and constant scaling of time."""
    if one.key != other.key or len(one.onsets) != len(other.onsets):
        return False
    apart = np.abs(one.onsets.astype(np.int64) - other.onsets).max(initial=0)
    return bool(apart <= max(one.tolerance, other.tolerance) + 1)


def tune_prints(score: Score) -> np.ndarray:
    """Return hashes of a score's tune, up to `TUNE_PRINTS`, rising, (N,) int64: pieces that share a tune share many.

    The tune is the highest note at each onset of the track with the highest mean pitch; repeated notes count once.
    Segments of `TUNE_NOTES` notes are hashed as intervals, and the lowest hashes are kept (MinHash, Broder 1997).
    Harmony, rhythm and key do not count. A tune of too few notes gives no hash.
    """
    highest: dict[str, np.ndarray] = {}
    best = -1.0
    for track in score.tracks:
        if not track.is_drum and len(track.notes):
            notes = track.notes.numpy()
            if (mean := float(notes["pitch"].mean())) > best:
                highest, best = notes, mean
    if not highest:
        return np.zeros(0, np.int64)
    order = np.lexsort((-highest["pitch"].astype(np.int64), highest["time"]))
    time, pitch = highest["time"][order], highest["pitch"][order].astype(np.int64)
    pitch = pitch[np.diff(time, prepend=time[0] - 1) > 0]
    intervals = np.diff(pitch)
    intervals = (intervals[intervals != 0] + 128).astype(np.uint64)
    num_segments = len(intervals) - TUNE_NOTES + 2
    if num_segments <= 0:
        return np.zeros(0, np.int64)
    segments = np.zeros(num_segments, np.uint64)
    for i in range(TUNE_NOTES - 1):
        segments = segments * np.uint64(256) + intervals[i : i + num_segments]
    return np.unique(segments * MIX)[:TUNE_PRINTS].view(np.int64)
