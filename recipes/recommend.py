"""Write into a checkpoint which options of `musiclm generate` it recommends: they hold where a user gives none.

    python recipes/recommend.py checkpoints/bach-transformer.safetensors '{"temperature": 0.5, "voice_leading": 4}'

Options have the names of `GenerationConfig`. The weights stay as they are, byte for byte, and so does a critic; the page beside
the file is written again. A critic was fitted on samples of the old options: `recipes/critic.py` makes a new one.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from musiclm import checkpoint
from musiclm.checkpoint import card as cards
from musiclm.files import write_whole
from musiclm.generation.config import GenerationConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("options", help="JSON; all that it recommends")
    a = parser.parse_args()
    options = json.loads(a.options)
    GenerationConfig.from_options(**options)  # refuses what is no option, or no value of it
    found = checkpoint.load(str(a.checkpoint))
    card = found.card | {"sampling": options}
    write_whole(a.checkpoint, checkpoint.with_critic(found, found.critic() or {}, card), force=True)
    page = cards.page(checkpoint.load(str(a.checkpoint)), a.checkpoint.stem)
    write_whole(a.checkpoint.with_suffix(".md"), page.encode(), force=True)
    print(f"{a.checkpoint}: recommends {json.dumps(options)}")


if __name__ == "__main__":
    main()
