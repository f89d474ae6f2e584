"""Make the examples: prompts, what each bundled model wrote after them, and a piano roll of each.

    python examples/make.py                       # continuations and pictures, of the prompts that lie here
    python examples/make.py --only lied-score     # one of them
    python examples/make.py --prompts prepared/   # the prompts, too, from the files that recipes/score_data.py prepares

An example is a line of MADE: what `musiclm generate` is asked for. A model that is neither bundled nor installed is left
out, and said.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

from musiclm import checkpoint, midi

HERE = Path(__file__).parent
LIEDER, HYMNS = (f"{name}/{name}" for name in ("openscore-lieder-midi", "openhymnal-midi"))
LIED = f"{LIEDER}/Schubert,_Franz/Die_schöne_Müllerin,_D.795"
SYMPHONY = "openscore-orchestra-midi/openscore-orchestra-midi/Beethoven,_Ludwig_van/Symphony_No.4,_Op.60"
PROMPTS = {  # file: where it is from, and how many bars of it
    "lied.mid": (f"{LIED}/13_Mit_dem_grünen_Lautenbande/lc4985940.mid", 8),
    "orchestra.mid": (f"{SYMPHONY}/2/Beethoven_Op.60_2.mid", 8),
    "within/brahms.mid": (
        f"{LIEDER}/Brahms,_Johannes/9_Lieder_und_Gesänge,_Op.32/7_Bitteres_zu_sagen_denkst_du/lc5033089.mid",
        8,
    ),
    "within/chaminade.mid": (f"{LIEDER}/Chaminade,_Cécile/_/Rosemonde/lc5000347.mid", 8),
    "within/cornelius.mid": (f"{LIEDER}/Cornelius,_Peter/Weihnachtslieder,_Op.8/3a_Die_Könige/lc7011202.mid", 8),
    "within/faisst.mid": (
        f"{LIEDER}/Faisst,_Clara_Mathilda/4_Lieder,_Op.1/2_Niederländisches_Wiegenlied/lc6260377.mid",
        8,
    ),
    "within/antioch.mid": (f"{HYMNS}/Joy_To_The_World-Antioch.mid", 8),
    "within/praise.mid": (f"{HYMNS}/Praise_To_The_Lord_The_Almighty-Lobe_Den_Herren.mid", 8),
}
HYMN = "--prompt examples/hymn.mid --prompt-bars 4 --bars 8"
MADE = {
    "chorale": f"--model bach-transformer {HYMN} --seed 5",
    "chorale-lstm": f"--model bach-lstm {HYMN} --seed 5",
    "chorale-gru": f"--model bach-gru {HYMN} --seed 5",
    "hymn-score": f"--model score {HYMN} --seed 1",
    "lied-score": "--model score --prompt examples/lied.mid --prompt-bars 4 --bars 8 --seed 1",
    "orchestra-score": "--model score --prompt examples/orchestra.mid --prompt-bars 4 --bars 8 --seed 1",
    "hymn-voices": "--model bach-infill --prompt examples/hymn.mid --keep-tracks 1 --seed 2 --temperature 0.9",
    "hymn-bars": "--model bach-infill --prompt examples/hymn.mid --infill 5-8 --seed 1",
    "lied-piano": "--model score --prompt examples/lied.mid --keep-tracks 1 --seed 1",
    "lied-bars": "--model score --prompt examples/lied.mid --infill 5-6 --seed 1",
    "orchestra-bars": "--model score --prompt examples/orchestra.mid --infill 5-6 --seed 1",
    **{
        f"within/{name}-bars": f"--model score --prompt examples/within/{name}.mid --infill {bars} --seed 1"
        for name, bars in (("brahms", "3-4"), ("chaminade", "5-6"), ("cornelius", "5-6"), ("faisst", "3-4"))
    },
    "within/hymn-score-bars": "--model score --prompt examples/hymn.mid --infill 5-6 --seed 1",
    "within/antioch-bars": "--model bach-infill --prompt examples/within/antioch.mid --infill 5-6 --seed 1",
    "within/praise-bars": "--model bach-infill --prompt examples/within/praise.mid --infill 3-4 --seed 1",
    **{
        f"within/{name}-piano": f"--model score --prompt examples/within/{name}.mid --keep-tracks 1 --seed 1"
        for name in ("brahms", "chaminade", "cornelius", "faisst")
    },
    **{
        f"within/{name}-voices": f"--model bach-infill --prompt examples/within/{name}.mid --keep-tracks 1 --seed 1"
        for name in ("antioch", "praise")
    },
    "within/hymn-strings": "--model score --prompt examples/hymn.mid --accompany --instruments strings --seed 1",
    "within/lied-bass": "--model score --prompt examples/lied.mid --accompany --instruments bass --seed 1",
    "hymn-piano": f"--model piano {HYMN} --seed 1 --top-p 0.98",
}
LARGEST = 60_000  # bytes of a picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=Path, metavar="PREPARED", help="cut the prompts out of prepared sets")
    parser.add_argument("--only", help="names, by comma")
    arguments = parser.parse_args()
    if arguments.prompts:
        for name, (path, bars) in PROMPTS.items():
            score = midi.read(arguments.prompts / path)
            (HERE / name).parent.mkdir(exist_ok=True)
            midi.write(midi.cut(score, 0.0, midi.bar_line(score, 0.0, bars)), HERE / name, force=True)
    known = [*checkpoint.bundled(), *checkpoint.installed()]
    for name in arguments.only.split(",") if arguments.only else MADE:
        options = shlex.split(MADE[name])
        model = options[options.index("--model") + 1]
        if not any(model in (each, each.rpartition("-")[0]) for each in known):
            print(f"{name}: left out, no model '{model}'", file=sys.stderr)
            continue
        output, picture = f"examples/{name}.mid", f"examples/{name}.png"
        musiclm("generate", *options, "-o", output, "--force")
        prompt = options[options.index("--prompt") + 1]
        within = ["--prompt", prompt] if {"--infill", "--keep-tracks", "--accompany"} & set(options) else []
        musiclm("show", output, "-o", picture, "--force", *within)
        size = (HERE / f"{name}.png").stat().st_size
        if size > LARGEST:
            raise SystemExit(f"{picture} has {size} bytes, more than {LARGEST}")


def musiclm(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "musiclm", *arguments], check=True, cwd=HERE.parent)


if __name__ == "__main__":
    main()
