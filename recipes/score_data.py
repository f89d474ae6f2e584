"""Mend the quirks of freely licensed MIDI sets, so that the `score` model does not learn them: archives in, folders out.

    python recipes/score_data.py DATA/train -o prepared/
    python recipes/band_data.py DATA/train -o prepared/

What is mended, set by set (the rest is copied as it is):
- openscore-lieder: the voice stands on program 68 (oboe) and moves to 52 (voice), where singers are.
- pop909: performed off the grid with annotated beats: notes move to the beats (a beat becomes a quarter, bars begin at the
  annotated downbeats, the tempo is that of each bar); MELODY, all on the piano's program, moves to 52 (voice).
- groove: drum tracks as they are, at their own tempo.
- chorales: the 382 that come with musiclm, four voices on program 52, in their official split; one for training, which has
  the tune of a hymn for testing or validation, is left out.

Each file gets a marker "style: NAME" at its beginning, from which the tokenizer `score` knows the style: openhymnal hymn,
openscore-lieder lied, openscore-orchestra orchestra, pop909 pop-piano, groove drums, chorales chorale, pop909-bands (made by
band_data.py) band. Games are band, but with one keyboard program alone piano and with drums alone drums. Polish scores and
Chopin's first editions go by their instruments: keyboards (programs 0 to 7) alone piano, a voice (52 to 54) with keyboards
and nothing else lied, voices alone in two or more parts hymn, four or more programs that are no keyboards or organs
orchestra; what is left has no marker, its style is unknown.

The split of each piece is that of `score_split.csv.gz` beside this script. Its first rows were written from the corpus that
`score-transformer` of version 0.1 learned from: a split that follows from the notes as they are read would change with each
repair of the reader. Those of free-game-midi-2 were added by the same rule, the hash of the intervals, but a piece that has
most of its tune in a training piece is for training, as in `data.split`. Copies in the table are left out. The rest of the
table is written to the folder, where `musiclm corpus build` finds it; what is new there gets its split by hash. Bands from
songs of the training split are for training.

Flat velocities (Polish scores, Chopin) cannot be mended; `musiclm corpus inspect` reports them.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import tarfile
import zipfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
from symusic import Note, Score, Tempo, TimeSignature, Track

from musiclm import midi
from musiclm.data.sources import printable
from musiclm.errors import MidiError
from musiclm.tokenizers.score_plan import STYLE_MARKER

SPLIT = Path(__file__).with_name("score_split.csv.gz")
BANDS = "pop909-bands"
VOICE, OBOE = 52, 68
KEYBOARDS, ORGANS, VOICES = set(range(8)), set(range(16, 24)), {52, 53, 54}
TICKS = 480
SETS = [
    "openscore-lieder-midi",
    "openscore-orchestra-midi",
    "polish-scores-sample-midi",
    "chopin-first-editions-midi",
    "pop909",
    "free-game-midi",
    "free-game-midi-2",
    "groove-v1.0.0-midi",
    "openhymnal-midi",
    "chorales",
]
STYLES = {  # of the sets where all pieces have one
    "openscore-lieder-midi": "lied",
    "openscore-orchestra-midi": "orchestra",
    "pop909": "pop-piano",
    "groove-v1.0.0-midi": "drums",
    "openhymnal-midi": "hymn",
    "chorales": "chorale",
    BANDS: "band",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder with the sets' .tar.xz")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--sets", default=",".join(SETS), help="which, by comma")
    arguments = parser.parse_args()
    table = split_table()
    arguments.output.mkdir(parents=True, exist_ok=True)
    with (arguments.output / SPLIT.stem).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["midi_filename", "split"])
        writer.writerows((name, split) for name, (split, copy_of) in table.items() if not copy_of)
        writer.writerows((f"{BANDS}/{song}.mid", "train") for song in training_songs(table))
    for name in arguments.sets.split(","):
        count = refused = copies = 0
        for path, score in chorales() if name == "chorales" else prepared(arguments.data / f"{name}.tar.xz", name):
            target = arguments.output / name / path
            if table.get(printable(f"{name}/{path}"), ("", ""))[1]:
                copies += 1
                continue
            if score is None:
                refused += 1
                continue
            mark_style(score, style_of(name, score))
            target.parent.mkdir(parents=True, exist_ok=True)
            midi.write(score, target, force=True)
            count += 1
        print(f"{name}: {count} files, {refused} that cannot be read, {copies} copies left out")


def split_table() -> dict[str, tuple[str, str]]:
    """Return the split of each file, and the file that it is a copy of or ""."""
    with gzip.open(SPLIT, "rt", newline="", encoding="utf-8") as file:
        return {row["midi_filename"]: (row["split"], row["copy_of"]) for row in csv.DictReader(file)}


def training_songs(table: dict[str, tuple[str, str]]) -> list[str]:
    """Return the numbers of POP909's songs of the training split, such as "001"."""
    songs = (Path(name).stem for name, (split, _) in table.items() if name.startswith("pop909/") and split == "train")
    return sorted(songs)


def style_of(name: str, score: Score) -> str | None:
    """Return the style of a piece of a set; None for unknown. See the module."""
    tracks = [track for track in score.tracks if len(track.notes)]
    programs = {track.program for track in tracks if not track.is_drum}
    if name.startswith("free-game-midi"):
        is_alone = len(programs) == 1 and programs <= KEYBOARDS and not any(track.is_drum for track in tracks)
        return "drums" if not programs else "piano" if is_alone else "band"
    return STYLES[name] if name in STYLES else style_of_instruments(tracks, programs)


def style_of_instruments(tracks: list[Track], programs: set[int]) -> str | None:
    """Return the style that the instruments of a classical score tell."""
    if programs <= KEYBOARDS:
        return "piano"
    if programs & VOICES and programs & KEYBOARDS and programs <= VOICES | KEYBOARDS:
        return "lied"
    if programs <= VOICES and len(tracks) > 1:
        return "hymn"
    return "orchestra" if len(programs - KEYBOARDS - ORGANS) >= 4 else None


def mark_style(score: Score, style: str | None) -> None:
    """Add the marker of a style."""
    if style is not None:
        midi.add_text(score, STYLE_MARKER + style)


def chorales() -> Iterator[tuple[str, Score]]:
    """Yield the path and the score of each bundled chorale; the folder says the split."""
    with zipfile.ZipFile(str(resources.files("musiclm") / "chorales.zip")) as archive:
        for path in sorted(archive.namelist()):
            yield path, midi.parse(archive.read(path), path)


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


class Beats(NamedTuple):
    """Where the annotated beats of a song are, with some more before and after; a beat is a quarter.

    Attributes:
        seconds: of each beat, (B,).
        place: the same in quarters of the moved score, (B,).
        numerator: beats a bar.
    """

    seconds: np.ndarray
    place: np.ndarray
    numerator: int

    def quarters(self, seconds: float) -> float:
        return float(np.interp(seconds, self.seconds, self.place))


def beats_of(timed: Score, annotation: bytes) -> Beats:
    """Return the beats of a performed score.

    Args:
        timed: its times are seconds.
        annotation: a line a beat: seconds, a flag, and 1 where a bar begins.
    """
    table = np.loadtxt(io.BytesIO(annotation), ndmin=2)
    times, is_downbeat = table[:, 0], table[:, 2] > 0.5
    downbeats = np.flatnonzero(is_downbeat)
    gaps = np.diff(downbeats)
    numerator = int(np.bincount(gaps).argmax()) if len(gaps) else 4
    first = int(downbeats[0]) if len(downbeats) else 0
    period = float(np.median(np.diff(times)))
    earliest = min(n.time for t in timed.tracks for n in t.notes)
    before = max(0, int(np.ceil((times[0] - earliest) / period)))  # beats before the first annotated one
    upbeat = -(first + before) % numerator
    beats = np.arange(-before, len(times) + 64)
    known = np.concatenate([times[0] - period * np.arange(before, 0, -1), times, times[-1] + period * np.arange(1, 65)])
    return Beats(known, beats + before + upbeat, numerator)


def on_beats(score: Score, annotation: bytes) -> Score:
    """Return a performed score, whose tempo map gives seconds, moved to its annotated beats; see `beats_of`."""
    timed = score.to("second")
    known, place, numerator = beats = beats_of(timed, annotation)

    def ticks(seconds: float) -> int:
        return max(0, round(beats.quarters(seconds) * TICKS))

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
