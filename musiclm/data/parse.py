"""One file to one record: parsed, cleaned, tokenised, measured; or the one reason why not.

This is what a worker does, and all that it does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from symusic import Score

from .. import midi
from ..errors import Drop, MidiError, MusicLMError, Reason
from ..midi.theory import key_profiles
from ..tokenizers.base import Tokenizer
from .clean import MAX_QUARTERS, clean
from .fingerprint import fingerprint, tune_prints

MAX_NOTES = 500_000  # of a piece; the longest of MAESTRO has 25,000
TOLERANCE = 0.025  # quarters: a tenth of a sixteenth
MIN_NOTES_FOR_KEY = 8

KEYS = [
    f"{note} {mode}"
    for mode in ("major", "minor")
    for note in ["C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B"]
]


@dataclasses.dataclass(frozen=True)
class Record:
    """What became of one file.

    Attributes:
        reason: why it was dropped; then the rest is empty.
        tokens: ids as bytes, of the type `id_type` names.
        digest: of the tokens, 16 bytes.
        key, onsets, tolerance: see `canonical.Canonical`; onsets as bytes.
        tune: see `canonical.tune_prints`; as bytes.
        facts: what the data doctor counts, as JSON; see `_facts`.
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
    """Return the NumPy type that ids are stored in."""
    return "<u2" if vocab_size <= 1 << 16 else "<u4"


def read_piece(data: bytes, name: str, tokenizer: Tokenizer, programs: Mapping[int, int] | None = None) -> Record:
    """Return what becomes of the bytes of one file. Whatever is wrong with them is in the record's reason."""
    try:
        score = _parse_abc(data) if is_abc(name) else midi.parse(data, name)
        num_read = int(score.note_num())
        if num_read > MAX_NOTES:
            return Record(Drop(Reason.TOO_MANY_NOTES, f"{MAX_NOTES:,}"))
        if score.end() > MAX_QUARTERS * score.ticks_per_quarter:
            return Record(Drop(Reason.TOO_LONG, f"{MAX_QUARTERS:,}"))
        cleaned = clean(score, programs)
        if score.note_num() == 0:
            return Record(Drop(Reason.NO_LENGTHS))
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
        MidiError: there is none, or it is too long.
    """
    score = _parse_abc(data) if is_abc(name) else midi.parse(data, name)
    if score.note_num() > MAX_NOTES or score.end() > MAX_QUARTERS * score.ticks_per_quarter:
        raise MidiError(f"'{name}' is longer than {MAX_NOTES:,} notes or {MAX_QUARTERS:,} quarters")
    clean(score)
    if score.note_num() == 0:
        raise MidiError(f"'{name}' {Reason.NO_LENGTHS.text}", Drop(Reason.NO_LENGTHS))
    return score


def is_abc(name: str) -> bool:
    """Return whether a file is abc by its name; "tunes.abc#7" is the seventh tune of tunes.abc."""
    return bool(re.search(r"\.abc(#\d+)?$", name.lower()))


def _parse_abc(data: bytes) -> Score:
    """Return the score of one abc tune.

    symusic hands abc to a program of its own by way of a file, and that program writes to standard error.
    """
    if b"\nX:" not in b"\n" + data or b"\0" in data:
        raise _unusable(Reason.NOT_ABC)
    with tempfile.TemporaryDirectory() as folder, _silent():
        path = Path(folder, "tune.abc")
        path.write_bytes(data)
        try:
            score = Score(str(path))
        except Exception as error:
            raise _unusable(Reason.DAMAGED_ABC) from error
    if score.note_num() == 0:
        raise _unusable(Reason.NO_NOTES)
    if score.start() < 0:
        raise _unusable(Reason.ABC_TIMES)
    return score


def _unusable(reason: Reason) -> MidiError:
    return MidiError(reason.text, Drop(reason))


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Have what C code writes to standard output and standard error go nowhere."""
    kept = [(fd, os.dup(fd)) for fd in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for fd, _ in kept:
            os.dup2(nowhere, fd)
        yield
    finally:
        for fd, copy in kept:
            os.dup2(copy, fd)
            os.close(copy)
        os.close(nowhere)


def _facts(score: Score) -> dict[str, Any]:
    """Return what is counted in one piece.

    Keys: seconds and quarters to the end of the last note; low and high, of pitched notes (or null); programs, notes by
    program, "drums" for drums; tracks, with notes; shared, whether two of them have one program; tempo, the one that
    lasts longest, and tempi, how many changes; metre, the first; key, by Krumhansl's profiles (null under
    `MIN_NOTES_FOR_KEY` pitched notes); pitches and lengths, notes by pitch and by length in thirty-seconds, halved and
    doubled (log2, rounded); onsets and off_grid, of those the ones off sixteenths and triplets by over `TOLERANCE`;
    flat, whether all notes are equally loud.
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
    sung = pitch[~is_drum].astype(np.int64)
    onsets = time / tpq
    off = np.minimum(*(np.abs(onsets * n - np.round(onsets * n)) / n for n in (4, 6))) > TOLERANCE
    lengths = np.round(np.log2(np.maximum(duration, 1) / tpq * 8)).astype(np.int64)
    quarters = float((time + duration).max() / tpq)
    tempo = midi.TempoMap(score)
    metres = sorted((t.time, t.numerator, t.denominator) for t in score.time_signatures)
    return {
        "seconds": round(tempo.seconds_at(quarters), 3),
        "quarters": round(quarters, 3),
        "low": int(sung.min()) if len(sung) else None,
        "high": int(sung.max()) if len(sung) else None,
        "programs": programs,
        "tracks": len(used),
        "shared": len(set(used)) < len(used),
        "tempo": round(tempo.main_tempo(quarters), 1),
        "tempi": tempo.num_changes(),
        "metre": f"{metres[0][1]}/{metres[0][2]}" if metres else "none",
        "key": _key(sung, duration[~is_drum]),
        "pitches": _sparse(sung),
        "lengths": _sparse(lengths),
        "onsets": len(onsets),
        "off_grid": int(off.sum()),
        "flat": bool(velocity.min() == velocity.max()) and len(velocity) > 1,
    }


def _key(pitches: np.ndarray, durations: np.ndarray) -> str | None:
    if len(pitches) < MIN_NOTES_FOR_KEY:
        return None
    heard = np.bincount(pitches % 12, weights=durations, minlength=12)
    if heard.std() == 0:
        return None
    return KEYS[int(np.argmax(key_profiles() @ (heard - heard.mean())))]


def _sparse(values: np.ndarray) -> dict[str, int]:
    kinds, counts = np.unique(values, return_counts=True)
    return {str(kind): int(count) for kind, count in zip(kinds, counts, strict=True)}
