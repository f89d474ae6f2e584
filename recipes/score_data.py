"""Mend the quirks of freely licensed MIDI sets, so that the `score` model does not learn them: archives in, folders out.

    python recipes/score_data.py DATA/train -o prepared/

What is mended, set by set (the rest is copied as it is):
- openscore-lieder: the voice stands on program 68 (oboe) and moves to 52 (voice), where singers are.
- pop909: performed off the grid with annotated beats: notes move to the beats (a beat becomes a quarter, bars begin at the
  annotated downbeats, the tempo is that of each bar); MELODY, all on the piano's program, moves to 52 (voice).
- groove: drum tracks as they are, at their own tempo.

The split of each piece is that of `score_split.csv` beside this script, written from the corpus that `score-transformer` of
version 0.1 learned from: a split that follows from the notes as they are read would change with each repair of the reader.
Copies in the table are left out. The rest of the table is written to the folder, where `musiclm corpus build` finds it; what
is new there gets its split by hash.

Flat velocities (Polish scores, Chopin) cannot be mended; `musiclm corpus inspect` reports them.
"""

from __future__ import annotations

import argparse
import csv
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from symusic import Note, Score, Tempo, TimeSignature, Track

from musiclm import midi
from musiclm.data.sources import printable
from musiclm.errors import MidiError

SPLIT = Path(__file__).with_name("score_split.csv")
VOICE, OBOE = 52, 68
TICKS = 480
SETS = [
    "openscore-lieder-midi",
    "openscore-orchestra-midi",
    "polish-scores-sample-midi",
    "chopin-first-editions-midi",
    "pop909",
    "free-game-midi",
    "groove-v1.0.0-midi",
    "openhymnal-midi",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder with the sets' .tar.xz")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--sets", default=",".join(SETS), help="which, by comma")
    arguments = parser.parse_args()
    table = split_table()
    arguments.output.mkdir(parents=True, exist_ok=True)
    with (arguments.output / SPLIT.name).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["midi_filename", "split"])
        writer.writerows((name, split) for name, (split, copy_of) in table.items() if not copy_of)
    for name in arguments.sets.split(","):
        count = refused = copies = 0
        for path, score in prepared(arguments.data / f"{name}.tar.xz", name):
            target = arguments.output / name / path
            if table.get(printable(f"{name}/{path}"), ("", ""))[1]:
                copies += 1
                continue
            if score is None:
                refused += 1
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            midi.write(score, target, force=True)
            count += 1
        print(f"{name}: {count} files, {refused} that cannot be read, {copies} copies left out")


def split_table() -> dict[str, tuple[str, str]]:
    """Return the split of each file, and the file that it is a copy of or ""."""
    with SPLIT.open(newline="", encoding="utf-8") as file:
        return {row["midi_filename"]: (row["split"], row["copy_of"]) for row in csv.DictReader(file)}


def prepared(archive: Path, name: str) -> Iterator[tuple[str, Score | None]]:
    """Yield the path within the set and the mended score of each MIDI file; None for what cannot be read."""
    with tarfile.open(archive) as tar:
        texts: dict[str, bytes] = {}
        midis: list[tuple[str, bytes]] = []
        for member in tar:
            if not member.isfile():
                continue
            file = tar.extractfile(member)
            assert file is not None
            if member.name.lower().endswith((".mid", ".midi")):
                midis.append((member.name, file.read()))
            elif "beat_midi" in member.name:
                texts[Path(member.name).stem] = file.read()
    for path, data in sorted(midis):
        try:
            score = midi.parse(data, path)
        except MidiError:
            yield path, None
            continue
        if name == "openscore-lieder-midi":
            for track in score.tracks:
                if track.program == OBOE and not track.is_drum:
                    track.program = VOICE
        elif name == "pop909":
            score = on_beats(score, texts[Path(path).stem])
        yield str(Path(path).with_suffix(".mid")), score


def on_beats(score: Score, annotation: bytes) -> Score:
    """Return a performed score moved to its annotated beats.

    Args:
        score: performed; its tempo map gives seconds.
        annotation: a line a beat: seconds, a flag, and 1 where a bar begins.
    """
    table = np.loadtxt(io.BytesIO(annotation), ndmin=2)
    times, is_downbeat = table[:, 0], table[:, 2] > 0.5
    downbeats = np.flatnonzero(is_downbeat)
    gaps = np.diff(downbeats)
    numerator = int(np.bincount(gaps).argmax()) if len(gaps) else 4
    first = int(downbeats[0]) if len(downbeats) else 0
    period = float(np.median(np.diff(times)))
    timed = score.to("second")
    earliest = min(n.time for t in timed.tracks for n in t.notes)
    before = max(0, int(np.ceil((times[0] - earliest) / period)))  # beats before the first annotated one
    upbeat = -(first + before) % numerator
    beats = np.arange(-before, len(times) + 64)
    known = np.concatenate([times[0] - period * np.arange(before, 0, -1), times, times[-1] + period * np.arange(1, 65)])
    place = beats + before + upbeat

    def ticks(seconds: float) -> int:
        return max(0, round(float(np.interp(seconds, known, place)) * TICKS))

    moved = Score(TICKS)
    moved.time_signatures.append(TimeSignature(0, numerator, 4))
    last = 0.0
    for bar in range(0, int(place[-1]) - numerator, numerator):
        start, stop = (float(np.interp(b, place, known)) for b in (bar, bar + numerator))
        qpm = 60 * numerator / (stop - start) if stop > start else last
        if abs(qpm - last) > 0.04 * last:
            moved.tempos.append(Tempo(bar * TICKS, qpm))
            last = qpm
    for track in timed.tracks:
        new = Track(track.name, VOICE if track.name == "MELODY" else track.program, track.is_drum)
        for n in track.notes:
            start = ticks(n.time)
            new.notes.append(Note(start, max(1, ticks(n.end) - start), n.pitch, n.velocity))
        moved.tracks.append(new)
    end = max(n.end for t in moved.tracks for n in t.notes)
    moved.tempos = type(moved.tempos)([t for t in moved.tempos if t.time < end])
    return moved


if __name__ == "__main__":
    main()
