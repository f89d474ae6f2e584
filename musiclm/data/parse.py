"""One file to one record: read, cleaned, tokenised and measured; or the reason why it was dropped.

This is all that a worker does.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from symusic import Score

from .. import midi
from ..errors import Drop, MidiError, MusicLMError, Reason
from ..midi.theory import key_profiles
from ..tokenizers.base import Tokenizer
from .clean import clean
from .fingerprint import fingerprint, tune_prints

TOLERANCE = 0.025  # quarters: a tenth of a sixteenth
MIN_NOTES_FOR_KEY = 8

KEYS = [
    f"{note} {mode}"
    for mode in ("major", "minor")
    for note in ["C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B"]
]


@dataclasses.dataclass(frozen=True)
class Record:
    """The result of reading one file.

    Attributes:
        reason: why it was dropped, then the rest is empty; None if it was read.
        tokens: ids as bytes, of the type that `id_type` names.
        digest: hash of the tokens, 16 bytes.
        key, onsets, tolerance: see `fingerprint.Fingerprint`; onsets as bytes.
        tune: see `fingerprint.tune_prints`; as bytes.
        facts: what the data report counts, as JSON; see `_facts`.
    """

    reason: Drop | None
    tokens: bytes = b""
    digest: bytes = b""
    key: bytes = b""
    onsets: bytes = b""
    tolerance: float = 0.0
    tune: bytes = b""
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)


def id_type(vocab_size: int) -> str:
    """Return the NumPy type in which ids are stored."""
    return "<u2" if vocab_size <= 1 << 16 else "<u4"


def read_piece(data: bytes, name: str, tokenizer: Tokenizer, programs: Mapping[int, int] | None = None) -> Record:
    """Return the record of the bytes of one file. Any error becomes the reason of the record."""
    try:
        reading = midi.read_music(data, name)
        score = reading.score
        num_read = int(score.note_num()) + reading.mended["notes without length dropped"]
        cleaned = reading.mended + clean(score, programs)
        ids, left_out = tokenizer.encode(score)
    except MusicLMError as error:
        drop = error.drop if isinstance(error, MidiError) else None
        return Record(drop or Drop(Reason.OTHER, str(error)))
    except Exception as error:  # MidiTok raises any exception on what its authors did not expect
        return Record(Drop(Reason.TOKENIZER_FAILED, type(error).__name__))
    form, tune = fingerprint(score), tune_prints(score).tobytes()
    tokens = ids.astype(id_type(tokenizer.vocab_size)).tobytes()
    facts = _facts(score) | {"num_notes_read": num_read, "num_notes": int(score.note_num()) - max(0, left_out)}
    facts |= {"left_out": max(0, left_out), "cleaned": dict(cleaned)}
    digest = hashlib.blake2b(tokens, digest_size=16).digest()
    return Record(None, tokens, digest, form.key, form.onsets.tobytes(), form.tolerance, tune, facts)


def parse_clean(data: bytes, name: str) -> Score:
    """Return the score in the bytes of a file, cleaned as for a corpus.

    Raises:
        MidiError: the file cannot be used.
    """
    score = midi.parse(data, name)
    clean(score)
    return score


def _facts(score: Score) -> dict[str, Any]:
    """Return the figures of one piece.

    Keys:
        seconds, quarters: to the end of the last note.
        low, high: pitches without drums, or null.
        programs: notes by program, "drums" for drums.
        tracks: number of tracks with notes; shared: whether two of them have one program.
        tempo: the one that lasts longest, in quarters per minute; tempi: number of changes.
        metre: the first time signature, "none" without one.
        key: by the profiles of Krumhansl; null with fewer than `MIN_NOTES_FOR_KEY` pitched notes.
        pitches, lengths: notes by pitch, and by rounded log2 of the length in thirty-seconds.
        onsets: number of notes; off_grid: of those that are off sixteenths and triplets by more than `TOLERANCE`.
        flat: whether all notes have one velocity.
    """
    tpq = score.ticks_per_quarter
    programs: dict[str, int] = {}
    used = []
    columns: dict[str, list[np.ndarray]] = {"time": [], "duration": [], "pitch": [], "velocity": []}
    drums = []
    for track in score.tracks:
        if len(track.notes):
            notes = track.notes.numpy()
            name = "drums" if track.is_drum else str(track.program)
            programs[name] = programs.get(name, 0) + len(track.notes)
            used.append(name)
            drums.append(np.full(len(track.notes), track.is_drum))
            for key, arrays in columns.items():
                arrays.append(notes[key])
    time, duration, pitch, velocity = (np.concatenate(arrays) for arrays in columns.values())
    is_drum = np.concatenate(drums)
    pitched = pitch[~is_drum].astype(np.int64)
    onsets = time / tpq
    off = np.minimum(*(np.abs(onsets * n - np.round(onsets * n)) / n for n in (4, 6))) > TOLERANCE
    lengths = np.round(np.log2(np.maximum(duration, 1) / tpq * 8)).astype(np.int64)
    quarters = float((time + duration).max() / tpq)
    tempo = midi.TempoMap(score)
    signs = sorted((t.time, t.numerator, t.denominator) for t in score.time_signatures)
    return {
        "seconds": round(tempo.seconds_at(quarters), 3),
        "quarters": round(quarters, 3),
        "low": int(pitched.min()) if len(pitched) else None,
        "high": int(pitched.max()) if len(pitched) else None,
        "programs": programs,
        "tracks": len(used),
        "shared": len(set(used)) < len(used),
        "tempo": round(tempo.main_tempo(quarters), 1),
        "tempi": tempo.num_changes(),
        "metre": f"{signs[0][1]}/{signs[0][2]}" if signs else "none",
        "key": _key(pitched, duration[~is_drum]),
        "pitches": _sparse(pitched),
        "lengths": _sparse(lengths),
        "onsets": len(onsets),
        "off_grid": int(off.sum()),
        "flat": bool(velocity.min() == velocity.max()) and len(velocity) > 1,
    }


def _key(pitches: np.ndarray, durations: np.ndarray) -> str | None:
    if len(pitches) < MIN_NOTES_FOR_KEY:
        return None
    weights = np.bincount(pitches % 12, weights=durations, minlength=12)
    if weights.std() == 0:
        return None
    return KEYS[int(np.argmax(key_profiles() @ (weights - weights.mean())))]


def _sparse(values: np.ndarray) -> dict[str, int]:
    kinds, counts = np.unique(values, return_counts=True)
    return {str(kind): int(count) for kind, count in zip(kinds, counts, strict=True)}
