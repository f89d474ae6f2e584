"""Draw piano rolls of MIDI files as PNG: the pictures of the README.

python benchmarks/pictures.py examples/chorale.mid --prompt-bars 4 -o examples/chorale.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from musiclm import scores

COLOURS = ["#3b6fb6", "#d9822b", "#3f9b62", "#b5485d", "#7a5ba6", "#8c6d4f", "#c957a3", "#6b7a85"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("midi", type=Path)
    parser.add_argument("--prompt-bars", type=int, default=0, help="shade these first bars as the prompt")
    parser.add_argument("--bars", type=int, help="draw no more than these")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    score = scores.read(arguments.midi)
    stop = scores.bar_line(score, 0.0, arguments.bars) if arguments.bars else scores.end(score)
    figure, axes = plt.subplots(figsize=(11, 3.6), dpi=110)
    for i, track in enumerate(score.tracks):
        spans = [
            (n.time / score.tpq, n.duration / score.tpq, n.pitch) for n in track.notes if n.time / score.tpq < stop
        ]
        colour = COLOURS[i % len(COLOURS)]
        for start, length, pitch in spans:
            axes.barh(pitch, length - 0.04, left=start, height=0.8, color=colour, linewidth=0)
        if spans:
            axes.barh(0, 0, color=colour, label=track.name or f"program {track.program}")
    for bar in scores.bars(score):
        if bar.start > stop:
            break
        axes.axvline(bar.start, color="#cccccc", linewidth=0.6, zorder=0)
    if arguments.prompt_bars:
        axes.axvspan(0, scores.bar_line(score, 0.0, arguments.prompt_bars), color="#f3ead7", zorder=-1, label="prompt")
    pitches = [n.pitch for t in score.tracks for n in t.notes]
    axes.set(xlim=(0, stop), ylim=(min(pitches) - 2, max(pitches) + 2), xlabel="quarters", ylabel="MIDI pitch")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(arguments.output)


if __name__ == "__main__":
    main()
