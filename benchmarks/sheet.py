"""A contact sheet: small piano rolls of many MIDI files in one picture, to be looked at and sorted.

    python benchmarks/music.py score-transformer --reference CORPUS -n 20 --save samples/
    python benchmarks/sheet.py samples/ -o sheet.png -n 20

Each roll has the file's name and what the yardstick finds wrong with it by rule (`yardstick.verdict`; nothing is a decent
one). One colour per track; drums in grey below the pitches, by their numbers. Lines are bars.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from symusic import Score

from musiclm import midi
from musiclm.evaluation import yardstick
from musiclm.plotting import figure, piano_roll, to_bytes, track_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 4
DRUMS, DRUM_LANE = "#888888", 20  # colour, and the lowest pitch of the plot: drums are below it


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a folder of MIDI files")
    parser.add_argument("-o", "--output", type=Path, required=True, help="a PNG")
    parser.add_argument("-n", type=int, default=20, help="the first files, by name (20)")
    parser.add_argument("--first", type=int, default=0, help="how many to skip (0)")
    parser.add_argument("--kind", choices=yardstick.KINDS, default="score")
    parser.add_argument("--bars", type=int, default=16, help="of each file (16)")
    a = parser.parse_args()
    paths = sorted(a.source.glob("*.mid"))[a.first : a.first + a.n]
    if not paths:
        parser.exit(1, f"Error: no .mid in {a.source}\n")
    rows = -(-len(paths) // COLUMNS)
    made = figure(5.0 * COLUMNS, 2.6 * rows)
    lanes = made.subplots(rows, COLUMNS, squeeze=False).ravel()
    for lane in lanes[len(paths) :]:
        lane.set_axis_off()
    for lane, path in zip(lanes, paths, strict=False):
        score = midi.read(path)
        lane.set_title(f"{path.stem}: {describe(score, a.kind)}", fontsize=7, loc="left")
        plot(lane, score, a.bars)
    a.output.write_bytes(to_bytes(made, ".png"))
    print(a.output)


def describe(score: Score, kind: str) -> str:
    """Return the instruments of a score, and what is wrong by rule."""
    names = dict.fromkeys(track_name(track) for track in score.tracks if track.notes)
    wrong = ", ".join(yardstick.verdict(score, kind))
    return ", ".join(names)[:44] + (f" [{wrong.upper()}]" if wrong else "")


def plot(lane: Axes, score: Score, num_bars: int) -> None:
    """Plot the first bars of a score."""
    lines = [bar.start for bar in itertools.islice(midi.bars(score), num_bars + 1)]
    end = lines[-1] if len(lines) > num_bars else midi.end(score)
    for note in piano_roll.notes(score):
        if note.start < end:
            pitch = DRUM_LANE - 12 + note.pitch % 12 if note.is_drum else note.pitch
            span = (note.start, max(0.1, min(note.end, end) - note.start))
            lane.broken_barh([span], (pitch - 0.45, 0.9), color=DRUMS if note.is_drum else note.colour)
    for line in lines:
        lane.axvline(line, color="#dddddd", linewidth=0.5, zorder=0)
    lane.set_ylim(DRUM_LANE - 13, 108)
    lane.set_xlim(lines[0], end)
    lane.set_yticks([36, 60, 84], ["C2", "C4", "C6"], fontsize=6)
    lane.set_xticks([])


if __name__ == "__main__":
    main()
