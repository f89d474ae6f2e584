"""Write into a checkpoint which options of `musiclm generate` it recommends: they hold where a user gives none.

    python recipes/recommend.py checkpoints/bach-transformer.safetensors '{"temperature": 0.5, "voice_leading": 4}'

Options have the names of `GenerationConfig`. The weights stay as they are, byte for byte, and so does a critic; the page beside
the file is written again. A critic was fitted on samples of the old options: `recipes/critic.py` makes a new one. Figures of
samples of the old options leave the card; --music FILE puts those of `benchmarks/music.py --json` there.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from musiclm import checkpoint
from musiclm.checkpoint import card as cards
from musiclm.evaluation import yardstick
from musiclm.files import write_whole
from musiclm.generation.config import GenerationConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("options", help="JSON; all that it recommends")
    parser.add_argument("--music", type=Path, metavar="FILE", help="figures of samples with these options")
    parser.add_argument("--command", metavar="COMMAND", help="what made them")
    a = parser.parse_args()
    options = json.loads(a.options)
    GenerationConfig.from_options(**options)  # refuses what is no option
    found = checkpoint.load(str(a.checkpoint))
    card = {k: v for k, v in found.card.items() if k not in ("samples", "music")} | {"sampling": options}
    if a.music:
        card["music"] = music(json.loads(a.music.read_text()), a.command)
    write_whole(a.checkpoint, checkpoint.with_critic(found, found.critic() or {}, card), force=True)
    page = cards.page(checkpoint.load(str(a.checkpoint)), a.checkpoint.stem)
    write_whole(a.checkpoint.with_suffix(".md"), page.encode(), force=True)
    print(f"{a.checkpoint}: recommends {json.dumps(options)}")


def music(report: dict[str, Any], command: str) -> dict[str, Any]:
    """Return what a card has of a report of `benchmarks/music.py`."""

    def cell(found: dict[str, Any]) -> str:
        if found["mean"] is None:
            return ""
        return f"{found['mean']:.3f}" + ("" if found["standard_error"] is None else f" ± {found['standard_error']:.3f}")

    sides = ("samples", "reference")
    decent = [report["by_rule"][which]["decent"] / report["by_rule"][which]["num_pieces"] for which in sides]
    return {
        "command": command,
        "num_samples": report["by_rule"]["samples"]["num_pieces"],
        "num_reference": report["by_rule"]["reference"]["num_pieces"],
        "measures": [
            ["no fault by rule", *(f"{share:.2f}" for share in decent)],
            *(
                [f"{yardstick.MEASURES[name].label} ({row['unit']})", *(cell(row[which]) for which in sides)]
                for name, row in report["measures"].items()
            ),
        ],
    }


if __name__ == "__main__":
    main()
