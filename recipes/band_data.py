"""Arrange songs of POP909 for band by MMA (Musical MIDI Accompaniment): the archive in, a folder of MIDI files out.

    python recipes/band_data.py DATA/train -o prepared/             # beside what score_data.py wrote there
    python recipes/band_data.py DATA/train -o aligned/ --aligned    # each song in two styles, for pairs

It needs the program `mma` (`apt-get install mma`; www.mellowood.ca/mma). Only songs of the training split of
`score_split.csv`, in four beats a bar, are arranged, each once: --songs of them, drawn by --seed, so that these bands have at
most about as many notes as the two sets of game music together.

The chords are POP909's annotations, one a beat. A song has one family of MMA's grooves; each eight bars have one of its
grooves, alike for alike chords; where the groove changes next, the bar before is a fill; the last bar is an ending. The tempo
is the song's median. MELODY stands on its annotated beats on a program that the band does not have. Bars before the first
chord or note of the melody are left out. The same seed makes the same files.

With --aligned each file has two bands with the same chords, of different families. The first, with the melody, is marked as
the source of the pair that the tokenizer `score-pairs` makes of it (see `midi.parts`).
"""

from __future__ import annotations

import argparse
import csv
import functools
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from score_data import BANDS, TICKS, beats_of, mark_style, on_beats, split_table, style_of, training_songs
from symusic import Note, Score, Tempo, TimeSignature, Track

from musiclm import midi
from musiclm.midi.parts import SOURCE

BEATS = 4  # a bar
BLOCK = 8  # bars of one groove
ALIGNED = "pop909-aligned"
SONGS = 330
# programs: voice, flute, alto saxophone, trumpet, violin, guitar, oboe, clarinet, tenor saxophone, jazz guitar
MELODIES = (52, 73, 65, 56, 40, 25, 68, 71, 66, 26)
SUFFIX = {  # MMA's names of POP909's qualities
    "maj": "", "min": "m", "7": "7", "maj7": "maj7", "min7": "m7", "sus2": "sus2", "sus4": "sus4", "sus4(b7)": "7sus4",
    "dim": "dim", "dim7": "dim7", "hdim7": "m7b5", "aug": "aug", "maj6": "6", "min6": "m6", "minmaj7": "mM7",
}  # fmt: skip
NO_CHORD = "z"


class Family(NamedTuple):
    """Related grooves of MMA: of verses and choruses, a fill and an ending ("" for none)."""

    grooves: tuple[str, ...]
    fill: str
    ending: str


FAMILIES = [
    Family(("8Beat", "8BeatSus", "8BeatSusPlus"), "8BeatFill", "8BeatEnd"),
    Family(("8Beat1", "8Beat1Sus", "8Beat1SusPlus"), "8BeatFill", "8BeatEnd"),
    Family(("PopBallad", "PopBalladSus", "PopBalladSusPlus"), "", "PopBalladEnd"),
    Family(("PopBallad1", "PopBallad2Sus", "PopBallad2SusPlus"), "", "PopBalladEnd"),
    Family(("BasicRock", "BasicRockSus"), "", "BasicRockEnd"),
    Family(("SoftRock", "SoftRock1Sus", "SoftRockSus"), "SoftRockFill", "SoftRockEnd"),
    Family(("RockBallad", "RockBallad1", "RockBalladVoice"), "RockBalladFill", "RockBalladEnd"),
    Family(("FolkRock", "FolkRockSus", "FolkRockSusPlus"), "FolkRockFill", "FolkRockEnd"),
    Family(("JazzRock", "JazzRockWalk", "JazzRockSusPlus"), "JazzRockFill", "JazzRockEnd"),
    Family(("Swing", "SwingWalk", "SwingSus"), "SwingFill", "SwingEnd"),
    Family(("Ska", "Ska1", "SkaSus"), "", "SkaEnd"),
    Family(("50sRock", "50sRockSus", "50sRock1SusPlus"), "", "50sRockEnd"),
    Family(("SambaPlus", "SambaSus", "SambaSusPlus"), "SambaFill", ""),
    Family(("Trance", "Trance1", "Trance2"), "", "TranceEnd"),
    Family(("ModernJazz", "ModernJazz1", "ModernJazzSus"), "ModernJazzFill", "ModernJazzEnd"),
]


class Song(NamedTuple):
    """A song as it is read from the archive."""

    number: str
    midi: bytes
    beats: bytes
    chords: bytes


class Lead(NamedTuple):
    """A song's lead sheet.

    Attributes:
        melody: on the beats of the song.
        chords: of each beat, by `mma_chord`.
        qpm: the tempo.
    """

    melody: Track
    chords: list[str]
    qpm: float


class Arrangement(NamedTuple):
    """The text that MMA reads.

    Attributes:
        text: its program.
        first_bar: the number of bars of the song that are left out before it.
        bars: number of bars.
        qpm: the tempo.
    """

    text: str
    first_bar: int
    bars: int
    qpm: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder with pop909.tar.xz")
    parser.add_argument("-o", "--output", type=Path, required=True, help=f"gets the folder {BANDS}, or {ALIGNED}")
    parser.add_argument("--aligned", action="store_true", help="each song by two bands, in one file")
    parser.add_argument("--songs", type=int, default=SONGS, help="how many")
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    if shutil.which("mma") is None:
        sys.exit("band_data.py: the program 'mma' is missing: install it (apt-get install mma)")
    name = ALIGNED if arguments.aligned else BANDS
    folder = arguments.output / name
    folder.mkdir(parents=True, exist_ok=True)
    numbers = training_songs(split_table())
    random.Random(arguments.seed).shuffle(numbers)
    songs = songs_of(arguments.data / "pop909.tar.xz", set(numbers))
    made = notes = 0
    with ProcessPoolExecutor(arguments.workers) as pool:
        ordered = (songs[number] for number in numbers[: arguments.songs])
        arranged = aligned_bands if arguments.aligned else band
        for count in pool.map(functools.partial(make, arranged, seed=arguments.seed, folder=folder), ordered):
            made += count > 0
            notes += count
    if arguments.aligned:
        write_split(arguments.output, sorted(path.name for path in folder.glob("*.mid")))
    print(f"{name}: {made} files, {notes} notes")


def write_split(output: Path, files: list[str]) -> None:
    """Write the table that puts all aligned songs into the training split of a corpus."""
    with (output / f"{ALIGNED}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["midi_filename", "split"])
        writer.writerows((f"{ALIGNED}/{name}", "train") for name in files)


def songs_of(archive: Path, numbers: set[str]) -> dict[str, Song]:
    """Return songs by their numbers."""
    parts: dict[tuple[str, str], bytes] = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            path = Path(member.name)
            if member.isfile() and path.parent.name in ("midi", "beat_midi", "chord_midi") and path.stem in numbers:
                file = tar.extractfile(member)
                assert file is not None
                parts[path.parent.name, path.stem] = file.read()
    return {n: Song(n, *(parts[kind, n] for kind in ("midi", "beat_midi", "chord_midi"))) for n in sorted(numbers)}


def make(arranged: Callable[[Song, int], Score | None], song: Song, seed: int, folder: Path) -> int:
    """Write the file of a song, arranged by `band` or `aligned_bands`; return its number of notes, 0 if there is none."""
    score = arranged(song, seed)
    if score is None:
        return 0
    midi.write(score, folder / f"{song.number}.mid", force=True)
    return int(score.note_num())


def band(song: Song, seed: int) -> Score | None:
    """Return the band's score of a song with its melody; None if the song is not in four."""
    rng = random.Random(f"{seed} {song.number}")
    lead = lead_of(song)
    return None if lead is None else with_melody(arrange(lead, rng.choice(FAMILIES), rng), lead.melody, rng)


def aligned_bands(song: Song, seed: int) -> Score | None:
    """Return the score of a song by two bands, the first and the melody marked as source; None if it is not in four."""
    rng = random.Random(f"{seed} {song.number} aligned")
    lead = lead_of(song)
    if lead is None:
        return None
    first, second = (arrange(lead, family, rng) for family in rng.sample(FAMILIES, 2))
    score = with_melody(first, lead.melody, rng)
    for track in score.tracks:
        track.name = SOURCE + track.name
    score.tracks.extend(play(second.text).tracks)
    return score


def lead_of(song: Song) -> Lead | None:
    """Return the lead sheet of a song; None if the song is not in four."""
    performed = midi.parse(song.midi, song.number)
    beats = beats_of(performed.to("second"), song.beats)
    if beats.numerator != BEATS:
        return None
    melody = next(track for track in on_beats(performed, song.beats).tracks if track.name == "MELODY")
    chords = chords_of_beats(song.chords.decode(), beats.quarters)
    return Lead(melody, chords, tempo(beats.seconds, beats.place))


def with_melody(plan: Arrangement, melody: Track, rng: random.Random) -> Score:
    """Return the score of an arrangement with the melody on a program that the band does not have."""
    score = play(plan.text)
    programs = {track.program for track in score.tracks if not track.is_drum}
    program = rng.choice([p for p in MELODIES if p not in programs])
    add_melody(score, melody, program, plan)
    mark_style(score, style_of(BANDS, score))
    return score


def tempo(seconds: np.ndarray, place: np.ndarray) -> float:
    """Return the median tempo of beats in quarters per minute."""
    return round(float(60 / np.median(np.diff(seconds) / np.diff(place))), 1)


def chords_of_beats(text: str, quarters: Callable[[float], float]) -> list[str]:
    """Return MMA's name of the chord of each beat from the first bar on.

    Args:
        text: a line a chord: begin and end in seconds, and its name; the bass is dropped.
        quarters: where a time in seconds is in the score.
    """
    chords: list[str] = []
    for line in text.splitlines():
        begin, end, name = line.split()
        first, last = round(quarters(float(begin))), round(quarters(float(end)))
        chords += [NO_CHORD] * (first - len(chords))
        chords[first:] = [mma_chord(name)] * (last - first)
    return chords


def mma_chord(name: str) -> str:
    """Return MMA's name of a chord such as "C#:min7/5"."""
    if name == "N":
        return NO_CHORD
    root, quality = name.split("/")[0].split(":")
    return root + SUFFIX[quality]


def arrange(lead: Lead, family: Family, rng: random.Random) -> Arrangement:
    """Return the program of MMA for a song.

    Args:
        lead: the song.
        family: of the grooves.
        rng: chooses their order.
    """
    chords = lead.chords
    sounding = [i for i, chord in enumerate(chords) if chord != NO_CHORD]
    first_note = min((note.time // TICKS for note in lead.melody.notes), default=len(chords))
    first_bar, num_bars = min([*sounding[:1], first_note]) // BEATS, sounding[-1] // BEATS + 1
    chords = chords + [NO_CHORD] * (-len(chords) % BEATS)
    bars = [tuple(chords[BEATS * i : BEATS * i + BEATS]) for i in range(first_bar, num_bars)]
    grooves = block_grooves(bars, rng.sample(family.grooves, len(family.grooves)))
    lines = [f"RndSeed {rng.randrange(10**6)}", f"Tempo {lead.qpm}"]
    current = ""
    for i, bar in enumerate(bars):
        block = i // BLOCK
        is_change = i % BLOCK == BLOCK - 1 and block + 1 < len(grooves) and grooves[block + 1] != grooves[block]
        groove = (family.fill if is_change else "") or grooves[block]
        groove = (family.ending if i == len(bars) - 1 else "") or groove
        if groove != current:
            lines.append(f"Groove {groove}")
            current = groove
        lines.append(f"{i + 1} {written(bar)}")
    return Arrangement("\n".join(lines) + "\n", first_bar, len(bars), lead.qpm)


def block_grooves(bars: list[tuple[str, ...]], grooves: list[str]) -> list[str]:
    """Return the groove of each block of bars: the same where at least half of the bars have the same chords."""
    blocks = [bars[i : i + BLOCK] for i in range(0, len(bars), BLOCK)]
    kinds: list[list[tuple[str, ...]]] = []
    chosen = []
    for block in blocks:
        kind = next((k for k, other in enumerate(kinds) if alike(block, other)), len(kinds))
        if kind == len(kinds):
            kinds.append(block)
        chosen.append(grooves[kind % len(grooves)])
    return chosen


def alike(block: list[tuple[str, ...]], other: list[tuple[str, ...]]) -> bool:
    return 2 * sum(a == b for a, b in zip(block, other, strict=False)) >= len(block)


def written(bar: tuple[str, ...]) -> str:
    """Return the chords of a bar as MMA reads them, "/" for the same again."""
    return " ".join("/" if i and chord == bar[i - 1] else chord for i, chord in enumerate(bar))


def play(text: str) -> Score:
    """Return what MMA makes of a program, without its texts and controllers."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "song.mma"), Path(folder, "song.mid")
        source.write_text(text)
        done = subprocess.run(
            ["mma", "-f", str(target), str(source)], capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode or not target.exists():
            raise RuntimeError(f"mma failed: {done.stdout[-500:]} {done.stderr[-500:]}")
        played = midi.read(target)
    score = Score(TICKS)
    scale = TICKS / played.ticks_per_quarter
    for track in played.tracks:
        new = Track(track.name, track.program, track.is_drum)
        new.notes.extend(
            Note(round(n.time * scale), max(1, round(n.duration * scale)), n.pitch, n.velocity) for n in track.notes
        )
        score.tracks.append(new)
    return score


def add_melody(score: Score, melody: Track, program: int, plan: Arrangement) -> None:
    """Add the song's melody to the band's score, and its tempo and time signature."""
    offset, end = plan.first_bar * BEATS * TICKS, plan.bars * BEATS * TICKS
    track = Track("Melody", program, False)
    for note in melody.notes:
        start = note.time - offset
        if 0 <= start < end:
            track.notes.append(Note(start, min(note.duration, end - start), note.pitch, note.velocity))
    score.tracks.append(track)
    score.time_signatures.append(TimeSignature(0, BEATS, 4))
    score.tempos.append(Tempo(0, plan.qpm))


if __name__ == "__main__":
    main()
