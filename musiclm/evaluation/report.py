"""The report of `musiclm evaluate`: the loss of a model next to baselines."""

from __future__ import annotations

from typing import Any

from ..data import Corpus
from ..models.base import LanguageModel
from .baselines import baseline_pieces, baselines, is_held_out
from .loss import masked_loss, measure_loss, sample_pieces
from .paired import measured_pieces


def report(
    model: LanguageModel, corpus: Corpus, split: str, *, name: str, most_tokens: int | None = None, bf16: bool = False
) -> dict[str, Any]:
    """Return the document of `musiclm evaluate --json`, on all pieces of a split or on those of `sample_pieces`.

    "num_windows" is there for pairs alone: of so many crops the pieces are measured, see `measured_pieces`.
    """
    pieces = sample_pieces(corpus.pieces(split), most_tokens)
    measured = measured_pieces(corpus.tokenizer, pieces)
    found = measure_loss(model, corpus.tokenizer, measured, bf16=bf16)
    counted = baseline_pieces(corpus, split) if is_held_out(corpus, split) else pieces
    return {
        "model": name,
        "corpus": corpus.name,
        "split": split,
        "num_pieces": len(pieces),
        **({"num_windows": len(measured)} if corpus.tokenizer.is_paired else {}),
        "num_tokens": found.num_tokens,
        "num_notes": found.num_notes,
        "nats_per_token": found.nats_per_token,
        "bits_per_note": found.bits_per_note,
        "bits_per_second": found.bits_per_second,
        **masked_loss(model, corpus.tokenizer, pieces, bf16=bf16),
        "baselines": baselines(corpus, split, most_tokens),
        "baselines_counted": {
            "on": "training" if is_held_out(corpus, split) else "measured",
            "num_pieces": len(counted),
            "num_tokens": sum(len(p.tokens) for p in counted),
        },
    }
