"""Make the examples: for each kind of music the best of eight variations and a typical one, a piano roll of each, and sound.

    python examples/make.py                     # everything, of the prompts that lie here
    python examples/make.py --only song,bars    # these kinds
    python examples/make.py --variations all/   # keep all eight of each kind there, to choose the best again
    python examples/make.py --prompts prepared/ # the prompts, too, from the files that recipes/score_data.py prepares

A kind is a line of KINDS: the options of `musiclm generate`, or another command with its own, and which of its eight variations
is the best one. The typical one is always the first. With new checkpoints the best are others: look at the eight piano rolls
and change their numbers.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from musiclm import midi
from musiclm.rendering.ogg import to_ogg

HERE = Path(__file__).parent
LIEDER, ORCHESTRA = (f"openscore-{name}-midi/openscore-{name}-midi" for name in ("lieder", "orchestra"))
PROMPTS = {  # file: where it is from, and how many bars of it
    "lied.mid": (f"{LIEDER}/Schubert,_Franz/Die_schöne_Müllerin,_D.795/13_Mit_dem_grünen_Lautenbande/lc4985940.mid", 8),
    "orchestra.mid": (f"{ORCHESTRA}/Beethoven,_Ludwig_van/Symphony_No.4,_Op.60/2/Beethoven_Op.60_2.mid", 8),
}
VARIATIONS = "-n 8 --seed 1"
KINDS = {  # name: the options, and the number of the best variation
    "piece": ("--model score --bars 16", 8),
    "piano": ("--model score --style piano --form AABA --bars 16", 3),
    "orchestra": ("--model score --style orchestra --bars 12", 4),
    "band": ("--model score --style band --chords 'Am F C G' --bars 8", 4),
    "trio": ("--model score --instruments violin,cello,piano --bars 12", 7),
    "song": ("--model score --prompt examples/lied.mid --prompt-bars 4 --bars 8", 8),
    "bars": ("--model score --prompt examples/lied.mid --infill 5-6", 7),
    "strings": ("--model score --prompt examples/hymn.mid --accompany --instruments strings", 8),
    "rhythm": ("accompany examples/hymn.mid --parts bass,drums --draw 4", 6),
    "restyled": ("restyle examples/lied.mid --style orchestra --draw 4", 4),
    "chorale": ("--model bach --prompt examples/hymn.mid --prompt-bars 4 --bars 8", 6),
    "voices": ("--model bach-infill --prompt examples/hymn.mid --keep-tracks 1", 8),
}
WITHIN = ("--infill", "--keep-tracks", "--accompany")  # the prompt says which notes are shown pale
SOUNDS = ("chorale-best", "trio-best", "band-best")
MOST = {".png": 60_000, ".ogg": 250_000}  # bytes


def command(kind: str) -> str:
    """Return the command line that writes the eight variations of a kind into a folder of its name."""
    return f"musiclm {asked(kind)} {VARIATIONS} -o {kind}/"


def asked(kind: str) -> str:
    """Return the command of a kind and its options."""
    options = KINDS[kind][0]
    return f"generate {options}" if options.startswith("--") else options


def given_notes(kind: str) -> list[str]:
    """Return the options with which `musiclm show` shows the given notes of a kind pale."""
    name, *options = shlex.split(asked(kind))
    if name == "accompany":
        return ["--prompt", options[0]]
    return ["--prompt", options[options.index("--prompt") + 1]] if set(WITHIN) & set(options) else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=Path, metavar="PREPARED", help="cut the prompts out of prepared sets")
    parser.add_argument("--only", default=",".join(KINDS), metavar="KINDS", help="names, by comma")
    parser.add_argument("--variations", type=Path, metavar="FOLDER", help="keep all variations, with their piano rolls")
    arguments = parser.parse_args()
    if arguments.prompts:
        for name, (path, bars) in PROMPTS.items():
            score = midi.read(arguments.prompts / path)
            midi.write(midi.cut(score, 0.0, midi.bar_line(score, 0.0, bars)), HERE / name, force=True)
    for kind in arguments.only.split(","):
        with tempfile.TemporaryDirectory() as scratch:
            folder = (arguments.variations or Path(scratch)).resolve() / kind
            make(kind, folder, has_rolls=bool(arguments.variations))


def make(kind: str, folder: Path, *, has_rolls: bool) -> None:
    """Write the variations of a kind into a folder, and its best and its typical one beside this file."""
    best = KINDS[kind][1]
    musiclm(*shlex.split(f"{asked(kind)} {VARIATIONS}"), "-o", f"{folder}/", "--force")
    if has_rolls:
        for each in sorted(folder.glob("*.mid")):
            show(each, kind)
    for name, number in ((f"{kind}-typical", 1), (f"{kind}-best", best)):
        copy = HERE / f"{name}.mid"
        shutil.copy(folder / f"musiclm-{number:03d}.mid", copy)
        show(copy, kind)
        if name in SOUNDS:
            sound = to_ogg(midi.read(copy))
            assert sound is not None, f"{copy} is silent"
            copy.with_suffix(".ogg").write_bytes(sound)
        for suffix, most in MOST.items():
            made = copy.with_suffix(suffix)
            if made.exists() and made.stat().st_size > most:
                raise SystemExit(f"{made} has {made.stat().st_size:,} bytes, more than {most:,}")


def show(path: Path, kind: str) -> None:
    """Write the piano roll of a variation beside it."""
    musiclm("show", str(path), "-o", str(path.with_suffix(".png")), "--force", *given_notes(kind))


def musiclm(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "musiclm", *arguments], check=True, cwd=HERE.parent)


if __name__ == "__main__":
    main()
