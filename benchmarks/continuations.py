"""Let a model continue many prompts, and plot a piano roll of each, to be looked at one by one.

python benchmarks/continuations.py a.mid b.mid … -o looked-at/ --model score --prompt-bars 4 --bars 8
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--model", default="score")
    parser.add_argument("--prompt-bars", type=int, default=4)
    parser.add_argument("--bars", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--top-p", type=float, default=0.98)
    parser.add_argument("--temperature", type=float, default=1.0)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for i, prompt in enumerate(arguments.prompts):
        midi = arguments.output / f"{i:02d}-{prompt.stem}.mid"
        lengths = ["--prompt-bars", arguments.prompt_bars, "--bars", arguments.bars]
        sampling = ["--seed", arguments.seed, "--top-p", arguments.top_p, "--temperature", arguments.temperature]
        musiclm = [sys.executable, "-m", "musiclm"]
        call(
            *musiclm,
            "generate",
            "--model",
            arguments.model,
            "--prompt",
            prompt,
            *lengths,
            *sampling,
            "-o",
            midi,
            "--force",
        )
        picture = ["show", midi, "--prompt-bars", arguments.prompt_bars, "--force"]
        call(*musiclm, *picture, "-o", midi.with_suffix(".png"))


def call(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True)


if __name__ == "__main__":
    main()
