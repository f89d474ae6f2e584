"""Make a checkpoint of planned score tokens (version 5) from one of version 2, so that training need not begin anew.

    python recipes/grow_score.py score-transformer -o work/grown.safetensors --layers 6

What both have keeps its weights: the rows of ids and features that mean the same, the head, the blocks. New ids begin with
small random rows. New features, and the output of new blocks at the end, begin with zero, so that music without a plan is
read as before.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from musiclm import checkpoint, models, tokenizers
from musiclm.models.base import LanguageModel
from musiclm.tokenizers.features.score import Vocabulary
from musiclm.tokenizers.score import ScoreTokenizer

OLD_FEATURES = 15
SPREAD = 0.02  # standard deviation of new rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a checkpoint of version 2 of score or score-infill")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--layers", type=int, help="of the new model; those of the old one if left out")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    old = checkpoint.load(arguments.model)
    tokenizer = tokenizers.create("score-infill")
    assert isinstance(tokenizer, ScoreTokenizer)
    config = {k: v for k, v in old.config.items() if k not in ("vocab_size", "feature_sizes", "relative_pitch")}
    config["num_layers"] = arguments.layers or config["num_layers"]
    torch.manual_seed(arguments.seed)
    model = models.create(old.arch, tokenizer.vocab_size, **config, **tokenizer.model_config)
    model.load_state_dict(grown(old.model().state_dict(), model, tokenizer))
    card = {"data": old.card["data"], "licence": old.card["licence"], "started from": arguments.model}
    checkpoint.save(arguments.output, model, arch=old.arch, tokenizer=tokenizer, card=card)
    print(f"{arguments.output}: {model.num_parameters:,} parameters")


def grown(weights: dict[str, Tensor], model: LanguageModel, tokenizer: ScoreTokenizer) -> dict[str, Tensor]:
    """Return weights of a new model that has those of an old one wherever both have the same part."""
    known = Vocabulary(tokenizer.vocabulary, tokenizer.midi_tokenizer.config.max_num_pos_per_beat)
    found = {}
    for name, fresh in model.state_dict().items():
        parts = name.split(".")
        old = weights.get(name)
        if parts[:2] == ["embedding", "features"]:
            feature = int(parts[2])
            fresh = torch.zeros_like(fresh)
            if feature < OLD_FEATURES:
                assert old is not None
                numbers = known.numbers.get(feature)
                rows = torch.arange(len(old)) if numbers is None else torch.from_numpy(numbers)[: len(old)]
                fresh[rows[rows > 0]] = old[rows > 0] if numbers is not None else old[1:]
                fresh[0] = old[0]
            found[name] = fresh
        elif old is None:  # a new block: what it adds is zero
            adds = name.endswith(("attention.out.weight", "down.weight"))
            found[name] = torch.zeros_like(fresh) if adds else fresh
        elif old.shape == fresh.shape:
            found[name] = old
        else:  # rows of ids
            found[name] = torch.cat([old, SPREAD * torch.randn_like(fresh[len(old) :])])
    return found


if __name__ == "__main__":
    main()
