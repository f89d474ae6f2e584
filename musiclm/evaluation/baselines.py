"""Trivial baselines: uniform, unigram, repeat and n-gram."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..data import Corpus, Piece
from ..tokenizers.base import Tokenizer
from .loss import sample_pieces
from .ngram import NGram

ORDER = 5  # of the n-gram baseline


MAX_COUNTED = 10_000_000  # tokens to count baselines on: some seconds and 1.5 GB


def baselines(corpus: Corpus, split: str, most_tokens: int | None = None) -> dict[str, float]:
    """Return the loss of trivial models, in nats/token, on the pieces that `sample_pieces` chooses of a split.

    `uniform`: equal probabilities, ln V. `unigram`: the frequency of each id. `repeat`: the probability p for the id that
    stands `repeat_lag` ids before (on the grid the voice's last cell), the rest evenly for the others. `5-gram`: `NGram`
    given the last four ids; on the grid that is one step of four voices.

    p and the n-grams are counted on `baseline_pieces`. An n-gram is never measured on a piece that it was counted on: if
    both are the same pieces, each fifth of them is measured with counts of the other four (cross-validation).

    Args:
        corpus: any.
        split: "train", "validation", "test" or "all".
        most_tokens: see `sample_pieces`.

    Returns:
        Loss by name. One piece alone gives neither `unigram` nor `5-gram`.
    """
    tokenizer, size = corpus.tokenizer, corpus.tokenizer.plain_size
    pieces, counted = sample_pieces(corpus.pieces(split), most_tokens), baseline_pieces(corpus, split)
    same, total = _repeats(tokenizer, counted)
    p = (same + 1) / (total + 2)
    same, total = _repeats(tokenizer, pieces)
    repeat = -(same * math.log(p) + (total - same) * math.log((1 - p) / (size - 1))) / max(1, total)
    parts = [(pieces, counted)] if is_held_out(corpus, split) else _fifths(pieces)
    found = {"uniform": math.log(size), "unigram": 0.0, "repeat": repeat, f"{ORDER}-gram": 0.0}
    for name, order in (("unigram", 1), (f"{ORDER}-gram", ORDER)):
        if not parts:  # one piece alone
            del found[name]
        for measured, others in parts:
            model = NGram([piece.tokens for piece in others], size, order)
            for piece in measured:
                nats = model.nats(piece.tokens)[tokenizer.eval_mask(piece.tokens)[1:]]
                found[name] += float(nats.sum()) / max(1, total)
    return found


def baseline_pieces(corpus: Corpus, split: str) -> list[Piece]:
    """Return the pieces that `baselines` counts: up to MAX_COUNTED tokens of train, or of the split without a train split."""
    return sample_pieces(corpus.pieces("train") or corpus.pieces(split), MAX_COUNTED)


def is_held_out(corpus: Corpus, split: str) -> bool:
    """Return whether the baselines are counted on other pieces than those of the split."""
    return split in ("validation", "test") and bool(corpus.pieces("train"))


def _fifths(pieces: Sequence[Piece]) -> list[tuple[list[Piece], list[Piece]]]:
    """Return each fifth of the pieces and the others, for cross-validation; nothing for a single piece."""
    num_parts = min(5, len(pieces))
    if num_parts < 2:
        return []
    return [
        (
            list(pieces[i::num_parts]),
            sample_pieces([p for j, p in enumerate(pieces) if j % num_parts != i], MAX_COUNTED // 5),
        )
        for i in range(num_parts)
    ]


def _repeats(tokenizer: Tokenizer, pieces: Sequence[Piece]) -> tuple[int, int]:
    """Return how many of the evaluated tokens equal the one `repeat_lag` before, and how many there are."""
    same = total = 0
    lag = tokenizer.repeat_lag
    for piece in pieces:
        ids = piece.tokens
        mask = tokenizer.eval_mask(ids)
        total += int(mask.sum())
        same += int((mask[lag:] & (ids[lag:] == ids[:-lag])).sum())
    return same, total
