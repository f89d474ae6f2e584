"""Make a bundled checkpoint of a finished run: half precision if that costs nothing, figures measured, card written.

    musiclm train --arch lstm --minutes 12 --dropout 0.3 --seed 1 -o runs/bach-lstm
    python recipes/bundle.py runs/bach-lstm --name bach-lstm

The checkpoint with the lowest validation nats of the run is taken; the test split is read for the card alone. With
`--clean FILE` (a JSON object whose "clean" lists indices into the test split) the test pieces that share no tune with
training get a figure of their own.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import torch

from musiclm import checkpoint, evaluation
from musiclm.checkpoint import card as cards
from musiclm.data import Corpus, Piece, open_source
from musiclm.files import write_whole
from musiclm.generation import rerank
from musiclm.models.base import LanguageModel
from musiclm.tokenizers.base import Tokenizer

LARGEST_LOSS = 0.0005  # nats/token that half precision may cost
CHORALES = "MIT (data: public domain)"


def main() -> None:
    arguments = _arguments()
    trained = checkpoint.load(str(arguments.run))
    tokenizer = trained.tokenizer()
    source = open_source(arguments.source, tokenizer)
    model = trained.model()
    most = arguments.most_tokens
    validation = _measured(source, "validation", most)
    full = evaluation.measure_loss(model, tokenizer, validation)
    half = evaluation.measure_loss(model.half().float(), tokenizer, validation)
    cost = half.nats_per_token - full.nats_per_token
    print(f"validation {full.nats_per_token:.5f} nats/token, in half precision {cost:+.6f}")
    if cost > LARGEST_LOSS:
        raise SystemExit("half precision costs too much")
    figures = _figures(model, source, half, most, arguments.clean)
    card = {
        **trained.card,
        "data": arguments.data or source.name,
        "licence": arguments.licence,
        "command": arguments.command or trained.card["command"],
        "machine": arguments.machine,
        "chosen_by": "lowest validation loss of the run; never by the test split",
        "counted": f"tokens of '{tokenizer.name}' that are music, natural logarithm, {read(tokenizer)}",
        "weights": "float16",
        **(
            {}
            if tokenizer.is_paired
            else {"real_pieces": dataclasses.asdict(rerank.of_pieces(model, tokenizer, validation))}
        ),
        **({"sampling": json.loads(arguments.sampling)} if arguments.sampling else {}),
        **({"figures_of": f"whole pieces of each split, --most-tokens {most}"} if most else {}),
        "figures": {k: round(v, 5) if isinstance(v, float) else v for k, v in figures.items()},
    }
    path = arguments.output / f"{arguments.name}.safetensors"
    checkpoint.save(
        path, model, arch=trained.arch, tokenizer=tokenizer, card=card, dtype=torch.float16, base=trained.base
    )
    bundled = checkpoint.load(str(path))
    page = cards.page(bundled, arguments.name)
    write_whole(path.with_suffix(".md"), page.encode())
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, {json.dumps(card['figures'])}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--name", required=True, help="SET-ARCH")
    parser.add_argument("--data", help="what the corpus is called on the card; default: as in the run")
    parser.add_argument("--licence", default=CHORALES)
    parser.add_argument("--source", help="the corpus, where it is not the bundled chorales")
    parser.add_argument("--command", help="what made the run, where its card does not tell all")
    parser.add_argument("--most-tokens", type=int, help="of each split, as in `musiclm evaluate`")
    parser.add_argument("--clean", type=Path)
    parser.add_argument("--sampling", help='how to sample from it, JSON: {"temperature": 0.95}')
    parser.add_argument("--machine", default="2 CPU cores with avx512_bf16")
    parser.add_argument("-o", "--output", type=Path, default=Path("checkpoints"))
    return parser.parse_args()


def _measured(source: Corpus, split: str, most: int | None) -> list[Piece]:
    """Return the pieces of a split that are measured: the windows of pairs, where the tokenizer has pairs."""
    return evaluation.measured_pieces(source.tokenizer, evaluation.sample_pieces(source.pieces(split), most))


def _figures(
    model: LanguageModel, source: Corpus, validation: evaluation.LossReport, most: int | None, clean: Path | None
) -> dict[str, Any]:
    """Return the figures of a card: loss, counts and baselines of validation and test.

    Args:
        model: as it is saved.
        source: the corpus.
        validation: the loss of the model.
        most: tokens of each split.
        clean: a file with the numbers of test pieces that have a figure of their own.
    """
    tokenizer = source.tokenizer
    test = evaluation.measure_loss(model, tokenizer, _measured(source, "test", most))
    splits = {split: evaluation.sample_pieces(source.pieces(split), most) for split in ("validation", "test")}
    figures: dict[str, Any] = {
        "validation_nats_per_token": validation.nats_per_token,
        "validation_pieces": len(splits["validation"]),
        "validation_tokens": validation.num_tokens,
        "test_nats_per_token": test.nats_per_token,
        "test_pieces": len(splits["test"]),
        "test_tokens": test.num_tokens,
        "test_bits_per_note": test.bits_per_note,
    }
    if tokenizer.supports_infilling:
        for split, pieces in splits.items():
            figures |= {f"{split}_{k}": v for k, v in evaluation.masked_loss(model, tokenizer, pieces).items()}
    for split in splits:
        for name, nats in evaluation.baselines(source, split, most).items():
            figures[f"{split}_{name}_baseline"] = nats
    if clean:
        by_name = sorted(source.pieces("test"), key=lambda p: p.name)
        chosen = [by_name[i] for i in json.loads(clean.read_text())["clean"]]
        found = evaluation.measure_loss(model, tokenizer, evaluation.measured_pieces(tokenizer, chosen))
        figures[f"test_nats_per_token_of_{len(chosen)}_clean_pieces"] = found.nats_per_token
    return figures


def read(tokenizer: Tokenizer) -> str:
    """Return what a model has read of a piece before each token."""
    if tokenizer.is_paired:
        return "of the targets of all pairs, in windows of at most 32 bars and 1,024 tokens a side, each read by itself"
    return "each piece read from its beginning"


if __name__ == "__main__":
    main()
